--- reader: what folder, csv and sequences share: image files into the memory of a data set.

local create = require "feral.core.create"
local view = require "feral.core.view"
local arith = require "feral.core.arith"
local scope = require "feral.core.scope"
local preprocess = require "feral.preprocess"
local progress = require "feral.progress"
local emotions = require "feral.data.emotions"
local new_set = require "feral.data.set"
local errors = require "feral.errors"

local reader = {}

local REPORTED_MOST, PROGRESS_LEAST = 10, 1000

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

--- Decodes the images of one sample to their place, and returns nil and a message when one cannot be read.
local function read_sample(sample, images, first, o)
  local _open <close> = scope.scope()
  for k, path in ipairs(sample.files) do
    local bytes, message = preprocess.bytes(path, o)
    if not bytes then return nil, sample.where and ("%s: %s"):format(sample.where, message) or message end
    arith.copy_(view.select_first(images, first + k - 1), bytes)
  end
  return true
end

--- Reads all samples. Returns the images, the samples that could be read, and the first message; or nil, message.
local function read_all(samples, frames, o)
  local images = view.permute(create.empty({ #samples * frames, o.height, o.width, o.channels }, "u8"), 1, 4, 2, 3)
  local good, faults = {}, {}
  local bar = progress.new(o.progress and #samples * frames >= PROGRESS_LEAST)
  bar:start("reading images", #samples)
  for i, sample in ipairs(samples) do
    local ok, message = read_sample(sample, images, #good * frames + 1, o)
    if not ok and o.strict then
      bar:clear()
      return nil, message
    end
    if ok then good[#good + 1] = sample else faults[#faults + 1] = message end
    bar:update(i)
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
