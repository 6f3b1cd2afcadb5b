--- reader: what folder, csv and sequences share: image files into the memory of a data set.

local core = require "feral.core.image"
local create = require "feral.core.create"
local view = require "feral.core.view"
local arith = require "feral.core.arith"
local scope = require "feral.core.scope"
local progress = require "feral.host.progress"
local emotions = require "feral.data.emotions"
local new_set = require "feral.data.set"
local errors = require "feral.base.errors"

local reader = {}

local REPORTED_MOST, PROGRESS_LEAST = 10, 1000
local TOGETHER = 256 -- images that one call reads

--- The options that all have, for errors.check_options.
reader.defaults = { size = 48, channels = 1, strict = false, map = false, report = false, progress = true }

--- Says on standard error what was skipped: the first few, then only how many.
local function default_report()
  local count = 0
  return function(message)
    count = count + 1
    if count <= REPORTED_MOST then io.stderr:write("feral: ", message, "\n") end
    if count == REPORTED_MOST + 1 then io.stderr:write("feral: more of that is counted, not shown\n") end
  end
end

--- Checks the options and fills them in: height and width from size, report.
function reader.check(where, options, more)
  local known = {}
  for name, value in pairs(reader.defaults) do known[name] = value end
  for name, value in pairs(more or {}) do known[name] = value end
  local o = errors.check_options(where, options, known)
  o.height, o.width = o.size, o.size
  if type(o.size) == "table" then o.height, o.width = o.size[1], o.size[2] end
  for _, side in ipairs { o.height, o.width } do
    if math.type(side) ~= "integer" or side < 1 then errors.raise("%s: size must be a number or {height, width}", where) end
  end
  if o.channels ~= 1 and o.channels ~= 3 then errors.raise("%s: channels must be 1 (gray) or 3", where) end
  o.map = o.map or nil
  o.report = o.report or default_report()
  o.skipped = {}
  return o
end

--- Reports and counts what is left out.
function reader.skip(o, message)
  o.skipped[#o.skipped + 1] = message
  o.report(message .. " (skipped)")
end

local endings = { jpg = true, jpeg = true, png = true, bmp = true, pgm = true, ppm = true, pnm = true }

--- True for a name that images have.
function reader.is_image(name) return endings[(name:match("%.(%w+)$") or ""):lower()] == true end

--- Decodes the images of some samples, by all threads, to places from 'at' on. Returns what is wrong with each, by number.
local function read_some(samples, images, at, frames)
  local paths, faults = {}, {}
  for _, sample in ipairs(samples) do table.move(sample.files, 1, frames, #paths + 1, paths) end
  local _open <close> = scope.scope()
  local messages = core.load_list(paths, view.narrow(images, 1, at, #paths))
  for i, sample in ipairs(samples) do
    for k = i * frames, (i - 1) * frames + 1, -1 do
      if messages[k] then faults[i] = sample.where and ("%s: %s"):format(sample.where, messages[k]) or messages[k] end
    end
  end
  return faults
end

--- Moves a sample's images to a place before theirs.
local function move_sample(images, from, to, frames)
  local _open <close> = scope.scope()
  for k = 0, frames - 1 do arith.copy_(view.select_first(images, to + k), view.select_first(images, from + k)) end
end

--- Reads all samples. Returns the images, the samples that could be read, and the first message; or nil, message.
local function read_all(samples, frames, o)
  local images = view.permute(create.empty({ #samples * frames, o.height, o.width, o.channels }, "u8"), 1, 4, 2, 3)
  local good, faults, step = {}, {}, math.max(1, TOGETHER // frames)
  local bar = progress.new(o.progress and #samples * frames >= PROGRESS_LEAST)
  bar:start("reading images", #samples)
  for first = 1, #samples, step do
    local some, at = table.move(samples, first, math.min(#samples, first + step - 1), 1, {}), #good * frames + 1
    local wrong = read_some(some, images, at, frames)
    for i, sample in ipairs(some) do
      if wrong[i] and o.strict then
        bar:clear()
        return nil, wrong[i]
      end
      local from, to = at + (i - 1) * frames, #good * frames + 1
      if not wrong[i] and from ~= to then move_sample(images, from, to, frames) end
      if wrong[i] then faults[#faults + 1] = wrong[i] else good[#good + 1] = sample end
    end
    bar:update(first + #some - 1)
  end
  bar:clear()
  for _, message in ipairs(faults) do reader.skip(o, message) end
  return images, good, faults[1]
end

--- A data set of image files. What cannot be read is reported, counted and left out; under option strict it is an error.
---@param where string  the folder or table, for messages
---@param samples table[]  each {class, path, files, where}: its class's name, the path that names it, its images in order
---@param classes string[]  all classes, also those without samples
---@param o table  from reader.check
---@param frames integer|nil  of a sequence; nil for single images
---@return Set|nil, string|nil
function reader.read(where, samples, classes, o, frames)
  if #samples == 0 then return nil, ("%s: no images"):format(where) end
  local images, good, fault = read_all(samples, frames or 1, o)
  if not images then return nil, good end
  if #good == 0 then return nil, ("%s: none of its images can be read (%s)"):format(where, fault) end
  local names, number = emotions.classes_in(classes)
  local labels, paths = {}, {}
  for i, sample in ipairs(good) do labels[i], paths[i] = number[sample.class], sample.path end
  images = view.narrow(images, 1, 1, #good * (frames or 1))
  if frames then images = view.reshape(images, #good, frames, o.channels, o.height, o.width) end
  return new_set { images = images, labels = labels, classes = names, paths = paths, skipped = o.skipped }
end

return reader
