--- face.lua: faces found in pictures, and drawn ones. Expressions of these are combinations of facial action units, the movements
--- of single muscles that the Facial Action Coding System names (FACS; Ekman and Friesen 1978).
---
---     local face = require "feral.vision.face"
---     face.detect(feral.image.load "photo.jpg")                       -- where faces are: a table of boxes
---     face.render({ AU6 = 1, AU12 = 0.8 }, { glasses = 1 }, 200)      -- a smile: u8 1 x 200 x 200

local core = require "feral.core.face_draw"
local create = require "feral.core.create"
local view = require "feral.core.view"
local scope = require "feral.core.scope"
local detect = require "feral.vision.detect"
local image = require "feral.vision.image"
local errors = require "feral.base.errors"

local face = {}

---- Found faces ----

--- The cascade that detector "haar" takes unless another one is named: frontal faces, of Debian's package opencv-data.
face.haar_cascade = detect.haar_cascade

--- Finds the faces in a picture.
---
---     local faces = face.detect(image.load "family.jpg")
---     print(faces)                    -- a table: x, y, w, h, score
---     faces[1].box                    -- {x, y, w, h} of the best one
---
--- Without a name the first of these that is there and takes the options given finds the faces. Detector "feral" is the network
--- of feral.detector; it knows eyes, nose and mouth too (points), and a score is a probability. Its options: network, the path of
--- a network (default: the one that ships, "faces"), and longest, overlap and most as for detector.detect.
--- Detector "haar" is OpenCV's cascade of boosted classifiers on Haar-like features (Viola and Jones 2001) and gives the boxes
--- of its detectMultiScale; a score is the number of windows that make up the face. Its options: cascade, the path of a
--- cascade (default: the frontal face of Debian's package opencv-data); scale_factor, by which windows grow (1.1);
--- min_neighbors, how many windows beside the first a face must have (5; 0: each window is a face); min_size and max_size of a
--- face's sides in pixels.
---@param picture Tensor  u8, or f32 of 0..1: 1 x H x W or 3 x H x W
---@param options table|nil  detector: its name; score: the least that counts; and the detector's own options
---@return Faces|nil faces  {box = {x, y, w, h}, score = number, points = list of {x, y} or nil} each, best first; x, y: the
---  box's upper left corner in pixels from that of the picture, 0, 0
---@return string|nil message  "path: what is wrong" where the detector's file cannot be read, or that there is no detector
function face.detect(picture, options) return detect.detect(picture, options) end

face.draw = image.draw -- what was found, on a copy of the picture

---- Drawn faces ----

--- What can be set, in order: lists of {name, default, least, most}. Action units are contracted from 0 to 1.
face.action_units, face.looks = core.action_units, core.looks

--- What each action unit does, in the words of FACS.
face.action_unit_names = {
  AU1 = "inner brow raiser", AU2 = "outer brow raiser", AU4 = "brow lowerer", AU5 = "upper lid raiser",
  AU6 = "cheek raiser", AU7 = "lid tightener", AU9 = "nose wrinkler", AU10 = "upper lip raiser",
  AU12 = "lip corner puller", AU15 = "lip corner depressor", AU16 = "lower lip depressor", AU17 = "chin raiser",
  AU20 = "lip stretcher", AU23 = "lip tightener", AU24 = "lip pressor", AU25 = "lips part", AU26 = "jaw drop",
  AU27 = "mouth stretch", AU43 = "eyes closed",
}

--- The expressions of the basic emotions as action units: each a list of forms that it takes, each form a table of action
--- units at full intensity (after the prototypes of Ekman, Friesen and Hager 2002).
face.expressions = {
  anger = {
    { AU4 = 1, AU5 = 0.45, AU7 = 0.8, AU17 = 0.3, AU23 = 1, AU24 = 0.9 },
    { AU4 = 1, AU5 = 0.5, AU7 = 0.8, AU10 = 0.5, AU16 = 0.9, AU20 = 0.2, AU23 = 0.6, AU25 = 1 },
  },
  disgust = {
    { AU4 = 0.45, AU7 = 0.5, AU9 = 1, AU10 = 1, AU15 = 0.35, AU17 = 0.6 },
    { AU4 = 0.4, AU7 = 0.5, AU9 = 1, AU10 = 1, AU16 = 0.2, AU25 = 0.8 },
  },
  fear = {
    { AU1 = 1, AU2 = 0.75, AU4 = 0.7, AU5 = 1, AU20 = 1, AU25 = 1, AU26 = 0.3 },
    { AU1 = 1, AU2 = 0.75, AU4 = 0.7, AU5 = 1, AU20 = 0.9, AU25 = 1, AU26 = 0.8 },
  },
  happiness = {
    { AU6 = 0.9, AU12 = 1 },
    { AU6 = 1, AU12 = 1, AU25 = 1 },
    { AU6 = 1, AU12 = 1, AU25 = 1, AU26 = 0.6 },
  },
  sadness = {
    { AU1 = 1, AU4 = 0.7, AU15 = 1, AU17 = 0.4, AU43 = 0.3 },
    { AU1 = 1, AU4 = 0.6, AU15 = 1, AU43 = 0.35 },
  },
  surprise = {
    { AU1 = 1, AU2 = 1, AU5 = 0.9, AU25 = 1, AU26 = 1 },
    { AU1 = 1, AU2 = 1, AU5 = 1, AU25 = 1, AU27 = 0.9 },
  },
  neutral = { {} },
}

--- Their names in the usual order.
face.names = { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral" }

local columns = {} -- name -> its column in a row
for _, p in ipairs(core.action_units) do columns[#columns + 1] = p end
for _, p in ipairs(core.looks) do columns[#columns + 1] = p end
local names, place_of = {}, {}
for i, p in ipairs(columns) do
  names[i], place_of[p.name] = p.name, i
end

--- The numbers of one face in the order of the columns; names that do not exist are refused, values are held to their range.
local function fill(row, settings)
  for name, value in pairs(settings or {}) do
    local place = place_of[name]
    if not place then errors.raise("face: there is no '%s'%s", tostring(name), errors.hint(name, names)) end
    if type(value) ~= "number" then errors.raise("face: %s must be a number, got %s", name, type(value)) end
    row[place] = math.max(columns[place].least, math.min(columns[place].most, value))
  end
end

--- The numbers of faces as the engine takes them: a row each.
---@param faces table[]  each {aus, look}
---@return number[][]
function face.rows(faces)
  local rows = {}
  for i, one in ipairs(faces) do
    local row = {}
    for c, p in ipairs(columns) do row[c] = p.default end
    fill(row, one[2])
    fill(row, one[1])
    rows[i] = row
  end
  return rows
end

--- Draws many faces.
---@param faces table[]  each {aus, look}
---@param size integer  side of the images in pixels
---@param seed integer|nil  of the noise (default 0)
---@return Tensor  u8 N x 1 x size x size
function face.render_all(faces, size, seed)
  return core.draw(create.from_table(face.rows(faces)), size, seed or 0)
end

---@class Dice  random numbers dealt out one by one, all a function of (seed, index)
local Dice = {}
Dice.__index = Dice

local DICE_STREAM, FIRST_NUMBERS = require("feral.tensor.random").streams.face, 256

local function throw(dice, count)
  local _open <close> = scope.scope()
  dice.numbers = create.totable(create.uniform_(create.empty({ count }), dice.seed, DICE_STREAM + dice.index))
end

--- The dice of sample 'index' under a seed.
---@param seed integer
---@param index integer
---@return Dice
function face.dice(seed, index)
  local dice = setmetatable({ seed = seed, index = index, used = 0 }, Dice)
  throw(dice, FIRST_NUMBERS)
  return dice
end

--- A number in [low, high), all equally likely.
function Dice:between(low, high)
  self.used = self.used + 1
  if self.used > #self.numbers then throw(self, 2 * #self.numbers) end
  return low + (high - low) * self.numbers[self.used]
end

--- A number in (middle - spread, middle + spread), those near the middle likelier.
function Dice:around(middle, spread) return middle + spread * (self:between(-0.5, 0.5) + self:between(-0.5, 0.5)) end

--- Whether something happens that does with this probability.
function Dice:chance(probability) return self:between(0, 1) < probability end

--- One of a list.
function Dice:pick(list) return list[1 + math.floor(self:between(0, #list))] end

local function random_person(dice, look)
  for _, p in ipairs(core.looks) do
    if p.most > 1 and p.default == 1 and p.name ~= "scale" and p.name ~= "contrast" and p.name ~= "style" then
      look[p.name] = dice:around((p.least + p.most) / 2, (p.most - p.least) / 2)
    end
  end
  look.age, look.skin = dice:between(0, 1) ^ 2, dice:between(0.5, 0.85)
  look.brow_height, look.eye_tilt = dice:around(0, 0.05), dice:around(0.03, 0.12)
  look.iris = dice:between(0.1, 0.4)
  look.style = dice:pick { 0, 1, 1, 2, 2, 3, 3, 4, 4, 5 }
  look.hair = look.age > 0.7 and dice:between(0.5, 0.8) or dice:pick { 0.06, 0.1, 0.15, 0.25, 0.4, 0.55 }
  if math.abs(look.hair - look.skin) < 0.15 then look.hair = look.skin - 0.25 end
  look.beard = dice:chance(0.2) and look.style ~= 4 and dice:between(0.3, 1) or 0
  look.glasses = dice:chance(0.1) and 1 or 0
  look.clothes = dice:between(0.05, 0.95)
end

local function random_view(dice, look, variation)
  look.roll, look.yaw = dice:around(0, 0.25 * variation), dice:around(0, 0.35 * variation)
  look.pitch, look.scale = dice:around(0, 0.2 * variation), 1.05 + dice:around(0, 0.12 * variation)
  look.shift_x, look.shift_y = dice:around(0, 0.06 * variation), dice:around(-0.01, 0.05 * variation)
  look.gaze_x, look.gaze_y = dice:around(0, 0.6 * variation), dice:around(0, 0.4 * variation)
  look.light_x, look.light_y = dice:around(0, 0.7 * variation), dice:around(-0.2, 0.4 * variation)
  look.brightness, look.contrast = dice:around(0, 0.1 * variation), 1 + dice:around(0, 0.2 * variation)
  look.background, look.noise = dice:between(0.1, 0.9), 0.04 * variation * dice:between(0, 1) ^ 2
end

--- A random person, held and lit at random.
---@param dice Dice
---@param variation number|nil  how much pose, light and noise vary: 0 not at all, 1 (default) as in snapshots
---@return table look
function face.random_look(dice, variation)
  local look = {}
  random_person(dice, look)
  random_view(dice, look, variation or 1)
  return look
end

--- A random form of an expression, and small movements that mean nothing.
---@param dice Dice
---@param name string  of face.expressions
---@param intensity number  0 to 1, times which all its action units are contracted
---@return table<string, number> aus
function face.random_expression(dice, name, intensity)
  local form, aus = dice:pick(face.expressions[name]), {}
  for _, unit in ipairs(core.action_units) do
    local idle = math.max(0, dice:around(-0.05, 0.2))
    local meant = (form[unit.name] or 0) * intensity * dice:between(0.8, 1.1)
    aus[unit.name] = math.max(idle, meant)
  end
  aus.AU27 = form.AU27 and aus.AU27 or 0
  return aus
end

--- Draws one face.
---@param aus table<string, number>|nil   action units, 0 to 1: { AU12 = 0.8 }
---@param look table<string, number>|nil  fields of face.looks: { glasses = 1, yaw = 0.2 }
---@param size integer|nil                side in pixels (default 48)
---@return Tensor  u8 1 x size x size
--- Raises on a name that does not exist.
function face.render(aus, look, size)
  return view.select_first(face.render_all({ { aus, look } }, size or 48), 1)
end

return face
