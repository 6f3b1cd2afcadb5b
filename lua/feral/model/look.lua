--- look.lua: what model:look does: from a photograph to its faces and what the model says of each.

local image = require "feral.vision.image"
local detect = require "feral.vision.detect"
local core = require "feral.core.tensor"
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"

local look = {}

---- What is seen ----

---@class Seen  a list of faces, best first, with height and width of the picture; prints as a table
local Seen = { __name = "Seen" }

local HEAD = ("%7s%7s%7s%7s%10s  %s"):format("x", "y", "w", "h", "score", "class")

function Seen.__tostring(seen)
  local lines = { ("%d face%s"):format(#seen, #seen == 1 and "" or "s") }
  if #seen > 0 then lines[2] = HEAD end
  for i, face in ipairs(seen) do
    local x, y, w, h = table.unpack(face.box)
    lines[i + 2] = ("%7.4g%7.4g%7.4g%7.4g%10s  %s %.1f %%"):format(x, y, w, h, face.score and ("%.4g"):format(face.score) or "-",
      face.class, 100 * face.probability)
  end
  return table.concat(lines, "\n")
end

---- A face cut out ----

--- The square around a box's middle, 'margin' times its longer side: left column and top row from 0, and its side.
local function square_around(box, margin)
  local x, y, w, h = table.unpack(box)
  local side = math.max(1, math.floor(margin * math.max(w, h) + 0.5))
  return math.floor(x + (w - side) / 2 + 0.5), math.floor(y + (h - side) / 2 + 0.5), side
end

--- The pixels of the square around a box. Outside of the picture its border goes on.
---@param picture Tensor  u8 C x H x W
---@param box number[]  {x, y, w, h} in pixels from the upper left corner, 0, 0
---@param margin number  side of the square, in the box's longer sides
---@return Tensor  u8 C x side x side
function look.cut(picture, box, margin)
  local left, top, side = square_around(box, margin)
  if left >= 0 and top >= 0 and left + side <= picture:size(3) and top + side <= picture:size(2) then
    return image.crop(picture, top + 1, left + 1, side, side)
  end
  return image.affine(picture, { 1, 0, left, 0, 1, top }, { height = side, width = side })
end

---- Which faces ----

-- A picture of at most so many pixels a side is a face already, as data sets have them; one of at most so many more is taken for
-- one where it is about square and no face is found in it.
local FACE_SIDE, FACE_SIDE_WITHOUT, SQUARE = 64, 256, 1.25

local function sides(picture)
  local height, width = picture:size(2), picture:size(3)
  return math.max(height, width), math.min(height, width)
end

local function is_crop(picture, o)
  if o.crop ~= nil then return o.crop end
  return not o.faces and sides(picture) <= FACE_SIDE
end

local function may_be_crop(picture, o)
  local longer, shorter = sides(picture)
  return o.crop == nil and longer <= FACE_SIDE_WITHOUT and longer <= SQUARE * shorter
end

local function whole(picture) return { { box = { 0, 0, picture:size(3), picture:size(2) }, whole = true } } end

--- The faces to judge; nil and a message where they cannot be looked for.
local function faces_of(picture, o)
  if is_crop(picture, o) then return whole(picture) end
  if o.faces then return o.faces end
  local found, message = detect.detect(picture, { detector = o.detector, score = o.score })
  if found and #found > 0 then return found end
  if may_be_crop(picture, o) and (found or not o.detector) then return whole(picture) end
  return found, message
end

local function largest_of(faces)
  local best
  for _, face in ipairs(faces) do
    if not best or face.box[3] * face.box[4] > best.box[3] * best.box[4] then best = face end
  end
  return { best }
end

---- Options ----

local function check_number(o, name, least, most)
  local value = o[name]
  if value == nil or (type(value) == "number" and value > least and value <= most) then return end
  errors.raise("model:look: %s must be a number above %s%s, got %s", name, least, most < math.huge and " and at most " .. most
    or "", tostring(value))
end

local function is_number(x) return type(x) == "number" and x - x == 0 end

local function check_faces(faces)
  if type(faces) ~= "table" then errors.raise("model:look: faces must be a list, got %s", type(faces)) end
  for i, face in ipairs(faces) do
    local box = type(face) == "table" and face.box
    local good = type(box) == "table" and #box == 4
    for k = 1, 4 do good = good and is_number(box[k]) end
    if not good or box[3] <= 0 or box[4] <= 0 then
      errors.raise("model:look: face %d must have a box {x, y, w, h} with sides above 0", i)
    end
  end
end

local function check_options(options)
  local o = errors.check_options("model:look", options, {
    "crop", detector = false, score = false, margin = false, faces = false, largest = false,
  })
  if o.crop ~= nil and type(o.crop) ~= "boolean" then
    errors.raise("model:look: crop must be true, false or nil, got %s", tostring(o.crop))
  end
  check_number(o, "margin", 0, 4)
  check_number(o, "score", -math.huge, math.huge)
  if o.faces then check_faces(o.faces) end
  return o
end

--- A number above 0 of the card, which may come from a file; nil where it has none.
local function from_card(card, name, most)
  local value = card[name]
  return is_number(value) and value > 0 and value <= most and value or nil
end

---- Judging ----

--- A face with what the model says of it. Faces are judged one by one, so that a face's numbers do not depend on the others.
local function judge(model, picture, face, o)
  local margin = o.margin or from_card(model.card, "crop", 4) or 1
  local prediction = model:predict(face.whole and picture or look.cut(picture, face.box, margin))
  local probabilities = {}
  for c, name in ipairs(model.classes) do probabilities[name] = prediction.probabilities[c] end
  local threshold = from_card(model.card, "threshold", 1) or 0
  return {
    box = face.box, score = face.score, points = face.points, probability = prediction.probability,
    class = prediction.probability < threshold and "unknown" or prediction.class, probabilities = probabilities,
  }
end

local function open(picture)
  if type(picture) == "string" then return image.load(picture) end
  if not core.is_tensor(picture) or picture:dim() ~= 3 or (picture:size(1) ~= 1 and picture:size(1) ~= 3) then
    errors.raise("model:look: a path or a picture 1 x H x W or 3 x H x W expected, got %s",
      core.is_tensor(picture) and table.concat(picture.shape, "x") or type(picture))
  end
  return image.to_bytes(picture)
end

--- What model:look does.
---@return Seen|nil, string|nil
function look.look(model, given, options)
  local o = check_options(options)
  local sees, why = model:image_size()
  if not sees then errors.raise("model:look: %s", why) end
  local _open <close> = scope.scope()
  local picture, message = open(given)
  if not picture then return nil, message end
  local faces
  faces, message = faces_of(picture, o)
  if not faces then return nil, message end
  if o.largest then faces = largest_of(faces) end
  local seen = { height = picture:size(2), width = picture:size(3) }
  for i, face in ipairs(faces) do seen[i] = judge(model, picture, face, o) end
  return setmetatable(seen, Seen)
end

return look
