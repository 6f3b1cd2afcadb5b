--- data.synthetic: drawn faces (feral.face) as a data set, so that examples, tests and lessons need no files.

local core = require "feral.core.face_draw"
local create = require "feral.core.create"
local view = require "feral.core.view"
local arith = require "feral.core.arith"
local scope = require "feral.core.scope"
local face = require "feral.vision.face"
local builder = require "feral.data.builder"
local new_set = require "feral.data.set"
local errors = require "feral.base.errors"

local CHUNK = 256 -- faces whose numbers are in memory at a time
local NOISE_STREAM = require("feral.tensor.random").streams.noise

local defaults = {
  count = 1000, size = 48, seed = 0, classes = false, intensity = false, variation = 1, sequences = false,
  task = "expression", keep = "memory",
}

---- What is drawn ----

--- Still faces: sample i shows class 1 + (i - 1) % classes.
local function draw_still(o, i)
  local dice = face.dice(o.seed, i)
  local look = face.random_look(dice, o.variation)
  local label = 1 + (i - 1) % #o.classes
  return label, { { face.random_expression(dice, o.classes[label], dice:between(o.intensity[1], o.intensity[2])), look } }
end

--- A value that swings slowly. Played backwards it swings just so: the phase is random, so nothing tells the direction.
local function swing(dice, middle, most)
  local phase, turns = dice:between(0, 2 * math.pi), dice:between(0.3, 1)
  return function(t) return middle + most * math.sin(phase + 2 * math.pi * turns * t) end
end

--- How far an expression has come at time t (0 to 1): at rest until 'start', at its apex from 'stop' on, smooth between.
local function onset(start, stop)
  return function(t)
    local s = math.max(0, math.min(1, (t - start) / (stop - start)))
    return s * s * (3 - 2 * s)
  end
end

local moving = { roll = 0.06, yaw = 0.1, pitch = 0.06, shift_x = 0.015, shift_y = 0.015, gaze_x = 0.3 }
local moving_names = { "roll", "yaw", "pitch", "shift_x", "shift_y", "gaze_x" }

--- The frames of a face going from rest to the apex of an expression, and its head moving a little.
local function onset_frames(o, dice, name)
  local look = face.random_look(dice, o.variation)
  local rest = face.random_expression(dice, "neutral", 0)
  local apex = face.random_expression(dice, name, dice:between(o.intensity[1], o.intensity[2]))
  local progress, swings, frames = onset(dice:between(0, 0.3), dice:between(0.6, 1)), {}, {}
  for _, field in ipairs(moving_names) do swings[field] = swing(dice, look[field], moving[field] * o.variation) end
  for k = 1, o.sequences do
    local t, aus, now = (k - 1) / (o.sequences - 1), {}, {}
    for field, value in pairs(look) do now[field] = value end
    for _, field in ipairs(moving_names) do now[field] = swings[field](t) end
    for unit, value in pairs(rest) do aus[unit] = value + progress(t) * (apex[unit] - value) end
    frames[k] = { aus, now }
  end
  return frames
end

local function reversed(list)
  local out = {}
  for i, value in ipairs(list) do out[#list + 1 - i] = value end
  return out
end

local function draw_expression_sequence(o, i)
  local label = 1 + (i - 1) % #o.classes
  return label, onset_frames(o, face.dice(o.seed, i), o.classes[label])
end

local function draw_direction_sequence(o, i)
  local dice, label = face.dice(o.seed, i), 1 + (i - 1) % 2
  local frames = onset_frames(o, dice, dice:pick(o.expressions))
  return label, label == 1 and frames or reversed(frames)
end

---- Options ----

local function check_classes(classes)
  for _, name in ipairs(classes) do
    if not face.expressions[name] then
      errors.raise("data.synthetic: no face can be drawn for class '%s'%s", tostring(name), errors.hint(name, face.names))
    end
  end
  return classes
end

local function check_options(options)
  local o = errors.check_options("data.synthetic", options, defaults)
  o.intensity = o.intensity or { 0.6, 1 }
  o.classes = check_classes(o.classes or face.names)
  if math.type(o.count) ~= "integer" or o.count < 1 then errors.raise("data.synthetic: count must be a whole number from 1") end
  if o.task ~= "expression" and o.task ~= "direction" then
    errors.raise("data.synthetic: task '%s' is unknown: expression or direction", tostring(o.task))
  end
  if o.keep ~= "memory" and o.keep ~= "drawn" then
    errors.raise("data.synthetic: keep must be \"memory\" or \"drawn\", got %s", tostring(o.keep))
  end
  if o.sequences and (math.type(o.sequences) ~= "integer" or o.sequences < 2) then
    errors.raise("data.synthetic: sequences is the number of frames, 2 or more")
  end
  if o.task == "direction" then
    if not o.sequences then errors.raise("data.synthetic: task 'direction' needs sequences = frames") end
    o.expressions = {}
    for _, name in ipairs(o.classes) do
      if name ~= "neutral" then o.expressions[#o.expressions + 1] = name end
    end
    if #o.expressions == 0 then errors.raise("data.synthetic: a neutral face does not move, so it has no direction") end
    o.classes = { "forwards", "backwards" }
  end
  return o
end

---- The set ----

--- The numbers of faces 'first' to 'last', a row for each image, and their labels.
local function parameters_of(o, draw, first, last, labels)
  local faces = {}
  for i = first, last do
    local label, of_sample = draw(o, i)
    labels:add(label)
    table.move(of_sample, 1, #of_sample, #faces + 1, faces)
  end
  return create.from_table(face.rows(faces))
end

--- Calls f(first image, numbers) for all samples, some at a time. Returns the labels.
local function for_chunks(o, f)
  local draw = o.task == "direction" and draw_direction_sequence or o.sequences and draw_expression_sequence or draw_still
  local frames, labels = o.sequences or 1, builder.numbers "i32"
  local chunk = math.max(1, CHUNK // frames)
  for first = 1, o.count, chunk do
    local _open <close> = scope.scope()
    local last = math.min(o.count, first + chunk - 1)
    f((first - 1) * frames + 1, parameters_of(o, draw, first, last, labels))
  end
  return labels:finish()
end

--- Pixels in memory.
local function draw_all(o)
  local frames = o.sequences or 1
  local images = create.empty({ o.count * frames, 1, o.size, o.size }, "u8")
  local labels = for_chunks(o, function(from, numbers)
    local drawn = core.draw(numbers, o.size, o.seed, NOISE_STREAM + from)
    arith.copy_(view.narrow(images, 1, from, #numbers), drawn)
  end)
  if o.sequences then images = view.reshape(images, o.count, frames, 1, o.size, o.size) end
  return new_set { images = images, labels = labels, classes = o.classes }
end

--- The numbers of all faces in memory, from which each is drawn when it is wanted.
local function draw_later(o)
  local all
  local labels = for_chunks(o, function(from, numbers)
    all = all or scope.keep(create.empty { o.count * (o.sequences or 1), numbers:size(2) })
    arith.copy_(view.narrow(all, 1, from, #numbers), numbers)
  end)
  local source = core.source(all, o.size, o.seed, NOISE_STREAM + 1, o.sequences or nil)
  return new_set { source = source, labels = labels, classes = o.classes }
end

--- Drawn faces with random identity, pose and light. Sample i depends on the seed and i alone, so a larger count only adds
--- samples. Classes take turns: sample 1 is of the first class, sample 2 of the second.
---
--- Options: count (1000); size (48), the side in pixels; seed (0); classes (the seven of face.expressions);
--- intensity ({0.6, 1}), between which expressions are strong; variation (1), of pose, light and noise, 0 for none;
--- sequences (a number of frames T: faces that move from rest to the apex of their expression); task ("expression"; or
--- "direction", with sequences: the class is whether a sequence is played "forwards" or "backwards". The frames of both
--- are alike, so neither a frame nor the mean of all tells which); keep ("memory"; or "drawn": the same pixels, each image drawn
--- when it is wanted, from some 200 bytes).
---@param options table|nil
---@return Set  images u8 count x 1 x size x size, or count x T x 1 x size x size
local function synthetic(options)
  local o = check_options(options)
  return (o.keep == "drawn" and draw_later or draw_all)(o)
end

return synthetic
