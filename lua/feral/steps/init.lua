--- steps: what is done to an image on its way to a network. A list of steps is preprocessing or augmentation; it prints
--- itself, is saved in model files, and is the only road from a file to a network, in training and in prediction.
---
---     local steps = feral.steps
---     local list = preprocess { steps.gray(), steps.resize(48), steps.normalize(0.5, 0.25) }
---     local more = augment { steps.rotate(10), steps.mirror(0.5), steps.brightness(0.2) }
---     list:apply(image)          -- one image, as a network sees it
---     more:apply(image)          -- varied at random, to look at
---
--- steps.kinds() lists what there is; print(steps) shows it with options. Options stand in order, by name, or both:
--- steps.crop(40), steps.crop(40, 32, { top = 1 }), steps.crop { height = 40, width = 32 }.
---
--- Random steps draw anew for each sample and epoch, and are left out in prediction, where one that changes the size
--- (random_crop) takes the middle. Neighbours that only move pixels (rotate, shift, zoom, shear, mirror, random_crop) become one
--- interpolation. Values are those of bytes, 0 to 255, until normalize, which comes last.

local core = require "feral.core.steps"
local tensor_core = require "feral.core.tensor"
local image_core = require "feral.core.image"
local index = require "feral.core.index"
local reduce = require "feral.core.reduce"
local arith = require "feral.core.arith"
local strings = require "feral.core.strings"
local view = require "feral.core.view"
local random = require "feral.tensor.random"
local errors = require "feral.base.errors"

local steps = {}

local function is_among(name, list)
  for _, known in ipairs(list) do
    if known == name then return true end
  end
  return false
end

---- One step ----

---@class Step  one thing done to an image: its name and its options
local Step = {}
Step.__index = Step

local kinds, names = {}, {} -- by name; in order
for i, kind in ipairs(core.kinds()) do kinds[kind.name], names[i] = kind, kind.name end

--- The names of all steps.
---@return string[]
function steps.kinds() return table.move(names, 1, #names, 1, {}) end

local function option_names(kind)
  local list = {}
  for i, option in ipairs(kind.options) do list[i] = option.name end
  return list
end

--- Takes named options, and those that stand in order, into 'step'.
local function take(step, kind, given)
  local known = option_names(kind)
  for name, value in pairs(given) do
    if math.type(name) == "integer" and name >= 1 and name <= #known then
      step[known[name]] = value
    elseif is_among(name, known) then
      step[name] = value
    else
      errors.raise("%s: unknown option '%s'%s (known: %s)", kind.name, tostring(name), errors.hint(tostring(name), known),
        #known > 0 and table.concat(known, ", ") or "none")
    end
  end
end

local function new_step(kind, ...)
  local step, values = { name = kind.name }, table.pack(...)
  local last = values[values.n]
  if type(last) == "table" and not (kind.options[values.n] and kind.options[values.n].type == "channels") then
    take(step, kind, last)
    values[values.n] = nil
  end
  take(step, kind, { table.unpack(values, 1, values.n) })
  core.list { step } -- raises where a value cannot be
  return setmetatable(step, Step)
end

for name, kind in pairs(kinds) do steps[name] = function(...) return new_step(kind, ...) end end

local function value_text(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return ("%.14g"):format(value) end
  local parts = {}
  for i, v in ipairs(value) do parts[i] = value_text(v) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function is_usual(option, value, before)
  if option.choices then return value == option.choices[option.otherwise + 1] end
  return value == (option.otherwise or before)
end

--- rotate(10), crop(40, {top = 1}): as it is written in a script, without what is as usual. The first two numbers go without
--- their names.
function Step:__tostring()
  local ordered, named, before = {}, {}, nil
  for i, option in ipairs(kinds[self.name].options) do
    local value = self[option.name]
    local said = value ~= nil and not is_usual(option, value, before)
    if said and i <= 2 and not option.choices then
      for k = #ordered + 1, i do ordered[k] = value_text(self[kinds[self.name].options[k].name]) end
    elseif said then
      named[#named + 1] = ("%s = %s"):format(option.name, value_text(value))
    end
    before = value
  end
  if #named > 0 then ordered[#ordered + 1] = "{" .. table.concat(named, ", ") .. "}" end
  return ("%s(%s)"):format(self.name, table.concat(ordered, ", "))
end

---- Lists ----

---@class StepList
local List = {}

local function from_plain(plain)
  local core_list = core.list(plain)
  local list = { core = core_list }
  for i, step in ipairs(core.plain(core_list)) do list[i] = setmetatable(step, Step) end
  return setmetatable(list, List)
end

--- True for a list of steps.
function steps.is_list(value) return getmetatable(value) == List end

local function flatten(items, into)
  for i, item in ipairs(items) do
    if getmetatable(item) == Step then
      into[#into + 1] = item
    elseif steps.is_list(item) then
      flatten(item, into)
    else
      errors.raise("steps: item %d of the list is no step but a %s; steps are made by steps.%s(...) and the like", i,
        type(item), names[1])
    end
  end
  for key in pairs(items) do
    if math.type(key) ~= "integer" and key ~= "core" then
      local near = kinds[key] and key or errors.nearest(tostring(key), names) or "rotate"
      errors.raise("steps: '%s = ...' is no step; write steps.%s(...)", tostring(key), near)
    end
  end
  return into
end

--- A list of steps; steps { a, b } gives the same. Lists among the items are joined in.
---@param items (Step|StepList)[]
---@return StepList
function steps.list(items)
  if type(items) ~= "table" or getmetatable(items) == Step then
    errors.raise("steps: a list of steps expected, as in { steps.gray(), steps.resize(48) }, got %s",
      getmetatable(items) == Step and tostring(items) or type(items))
  end
  return from_plain(flatten(items, {}))
end

--- The list that List:describe wrote down.
---@param plain table[]
---@return StepList|nil, string|nil  nil and a message where it is damaged
function steps.build(plain)
  if type(plain) ~= "table" then return nil, "steps: a list expected, got " .. type(plain) end
  for i, step in ipairs(plain) do
    local kind = type(step) == "table" and kinds[step.name]
    if not kind then
      local name = type(step) == "table" and tostring(step.name) or tostring(step)
      return nil, ("steps: there is no step '%s'%s (step %d)"):format(name, errors.hint(name, names), i)
    end
    for name in pairs(step) do
      if name ~= "name" and not is_among(name, option_names(kind)) then
        return nil, ("steps: %s has no option '%s'"):format(step.name, tostring(name))
      end
    end
  end
  local made, list = errors.attempt(from_plain, plain)
  if not made then return nil, list end
  return list
end

--- Plain data for files: a table a step, its name and all options.
---@return table[]
function List:describe() return core.plain(self.core) end

function List:__tostring()
  local parts = {}
  for i, step in ipairs(self) do parts[i] = tostring(step) end
  return #parts > 0 and "{ " .. table.concat(parts, ", ") .. " }" or "{ }"
end

--- True when some step is random.
---@return boolean
function List:is_random()
  for _, step in ipairs(self) do
    if kinds[step.name].random then return true end
  end
  return false
end

--- True when the list has a step of this name.
---@param name string
function List:has(name)
  for _, step in ipairs(self) do
    if step.name == name then return true end
  end
  return false
end

--- The steps from number 'first' to 'last' as a list.
---@return StepList
function List:slice(first, last) return from_plain(table.move(self, first, last or #self, 1, {})) end

--- The list with others in it: before the last step where that is normalize, else at the end.
---@param more StepList
---@return StepList
function List:with(more)
  local cut = #self > 0 and self[#self].name == "normalize" and #self - 1 or #self
  return steps.list { self:slice(1, cut), more, self:slice(cut + 1) }
end

function List.__concat(a, b) return steps.list { a, b } end

function List.__eq(a, b) return tostring(a) == tostring(b) and #a == #b end

--- True when this list begins with all steps of another.
---@param other StepList
function List:begins_with(other) return #other <= #self and self:slice(1, #other) == other end

--- The size that the list gives for an image of bytes.
---@param channels integer
---@param height integer
---@param width integer
---@param options {training: boolean}|nil
---@return integer|nil channels
---@return integer|string height  or what is wrong
---@return integer|nil width
function List:size(channels, height, width, options)
  return core.shape(self.core, options and options.training, channels, height, width)
end

local TRIALS = { { 1, 1000, 1000 }, { 3, 1000, 1000 }, { 3, 1000, 2000 } } -- sizes of images, to see what comes of them

--- The size that the list gives for images of any size; nil where it depends on theirs.
---@return integer|nil channels
---@return integer|nil height
---@return integer|nil width
function List:output()
  local c, h, w
  for i, trial in ipairs(TRIALS) do
    local c2, h2, w2 = self:size(table.unpack(trial))
    if not c2 or i > 1 and (c ~= c2 or h ~= h2 or w ~= w2) then return nil end
    c, h, w = c2, h2, w2
  end
  return c, h, w
end

---- Places ----

local Map = {}
Map.__index = Map

--- Where things of the image went: points as {x, y}, in pixels; the first pixel's centre is at 0, 0.
---@param points number[][]
---@return number[][]
function Map:points(points)
  local a, b, c, d, e, f = table.unpack(self)
  local size, out = a * e - b * d, {}
  for i, p in ipairs(points) do
    local x, y = p[1] - c, p[2] - f
    out[i] = { (e * x - b * y) / size, (a * y - d * x) / size }
  end
  return out
end

--- Boxes as {x, y, width, height}, edges in pixels from the picture's edge. A turned box becomes the one around it.
---@param boxes number[][]
---@return number[][]
function Map:boxes(boxes)
  local out = {}
  for i, box in ipairs(boxes) do
    local x, y, w, h = table.unpack(box)
    x, y = x - 0.5, y - 0.5
    local left, top, right, bottom = math.huge, math.huge, -math.huge, -math.huge
    for _, p in ipairs(self:points { { x, y }, { x + w, y }, { x, y + h }, { x + w, y + h } }) do
      left, right, top, bottom = math.min(left, p[1]), math.max(right, p[1]), math.min(top, p[2]), math.max(bottom, p[2])
    end
    out[i] = { left + 0.5, top + 0.5, right - left, bottom - top }
  end
  return out
end

--- True when left and right have changed places.
function Map:is_mirrored() return self[1] * self[5] - self[2] * self[4] < 0 end

--- A map of six numbers: pixel (x, y) of the result lies at (a x + b y + c, d x + e y + f) in the image.
---@param numbers number[]
function steps.map(numbers) return setmetatable(numbers, Map) end

---- Running ----

local function image_of(source, where)
  if type(source) == "string" then return image_core.load(source) end
  if tensor_core.is_tensor(source) and source:dim() == 3 and source.dtype ~= "i32" then return source end
  errors.raise("%s: an image must be a path or a tensor C x H x W, got %s", where, tensor_core.is_tensor(source)
    and ("%s of %s"):format(table.concat(source.shape, "x"), source.dtype) or type(source))
end

--- Floats of 0..1 become those of 0..255, which steps take.
local function scaled(img)
  if img.dtype == "u8" then return img end
  local most = reduce.max(img):item()
  if most > 1 + 1e-3 then
    errors.raise("an image of %s has values of 0 to 1, the largest here is %g; divide by 255, or make it u8", img.dtype, most)
  end
  return arith.mul(img, 255)
end

--- One image through the list.
---
--- Options: training (default: whether the list is random): with random steps; seed, epoch, index: what they draw from, by
--- default other numbers at each call.
---@param source Tensor|string  C x H x W, u8, or f32 of 0..1; or a path
---@param options {training: boolean, seed: integer, epoch: integer, index: integer}|nil
---@return Tensor|nil  C x H x W: f32 behind normalize, else as the image was given
---@return table|string  where things went: map:points{{x, y}}, map:boxes{{x, y, w, h}}, map:is_mirrored(); or a message
--- Raises when the list cannot take an image of that size.
function List:apply(source, options)
  local o = errors.check_options("apply", options, { training = self:is_random(), seed = false, epoch = 0, index = 1 })
  local img, message = image_of(source, "apply")
  if not img then return nil, message end
  if not o.seed then o.seed, o.index = random.stream() end
  local normal = self:has "normalize"
  local to_bytes = img.dtype == "u8" and not normal
  local out, map = core.run(self.core, scaled(img), o.training, o.seed, o.epoch, o.index, to_bytes)
  if not out then errors.raise("%s", map) end
  if img.dtype ~= "u8" and not normal then out = arith.mul(out, 1 / 255) end
  return view.select_first(out, 1), steps.map(map)
end

--- Images as a network sees them; random steps are left out.
---@param sources (Tensor|string)[]|Tensor|string  paths or images C x H x W; one, or a list
---@return Tensor|nil, string|nil  f32 N x C x H x W; or nil and a message, where a file cannot be read
--- Raises when the list cannot take an image, or gives other sizes for some than for others.
function List:batch(sources)
  if tensor_core.is_tensor(sources) or type(sources) == "string" then sources = { sources } end
  if strings.is_strings(sources) then sources = sources:totable() end
  if type(sources) ~= "table" then
    errors.raise("an image must be a path or a u8 tensor C x H x W, or a list of them, got %s", type(sources))
  end
  local made = {}
  for i, source in ipairs(sources) do
    local img, message = image_of(source, "an image")
    if not img then return nil, message end
    local out, problem = core.run(self.core, scaled(img), false)
    if not out then errors.raise("%s", problem) end
    made[i] = out
  end
  if #made == 0 then errors.raise("no images given") end
  if #made == 1 then return made[1] end
  return view.as_image(index.cat(made, 1))
end

--- One image through the list and back to bytes, as a set keeps it: what a list without normalize gives.
---@param source Tensor|string  u8 C x H x W, or a path
---@return Tensor|nil, string|nil  u8 C x H x W; nil and a message where the file cannot be read
function List:bytes(source)
  local img, problem = image_of(source, "bytes")
  if not img then return nil, problem end
  local out, message = core.run(self.core, img, false, 0, 0, 0, true)
  if not out then errors.raise("%s", message) end
  return view.select_first(out, 1)
end

List.__index = List

---- Help ----

local function step_help(kind)
  local parts = {}
  for i, option in ipairs(kind.options) do
    local usual = option.choices and option.choices[option.otherwise + 1] or option.otherwise
    parts[i] = usual and ("%s = %s"):format(option.name, value_text(usual)) or option.name
  end
  return ("  %-13s %s%s"):format(kind.name, kind.about, #parts > 0 and ("  (%s)"):format(table.concat(parts, ", ")) or "")
end

return setmetatable(steps, {
  __call = function(_, items) return steps.list(items) end,
  __index = function(_, name) errors.raise("there is no step '%s'%s", tostring(name), errors.hint(tostring(name), names)) end,
  __tostring = function()
    local lines = { "steps; random ones act in training only:" }
    for _, name in ipairs(names) do lines[#lines + 1] = step_help(kinds[name]) end
    return table.concat(lines, "\n")
  end,
})
