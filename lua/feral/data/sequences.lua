--- data.sequences: a folder of frames for each sequence, in class folders.

local files = require "feral.core.files"
local emotions = require "feral.data.emotions"
local reader = require "feral.data.reader"
local errors = require "feral.base.errors"

--- Text with each number written so wide that sorting by letters sorts by numbers: frame 2 comes before frame 10.
local function sort_key(name)
  return name:lower():gsub("%d+", function(digits)
    digits = digits:gsub("^0+", "")
    return ("%03d%s"):format(#digits, digits)
  end)
end

local function in_order(names)
  local keys = {}
  for _, name in ipairs(names) do keys[name] = sort_key(name) end
  table.sort(names, function(a, b)
    if keys[a] ~= keys[b] then return keys[a] < keys[b] end
    return a < b
  end)
  return names
end

--- The folders in a folder and the images in it, each in order; or nil and a message.
local function look_into(dir)
  local names, kinds = files.list(dir)
  if not names then return nil, kinds end
  local folders, images = {}, {}
  for _, name in ipairs(names) do
    if kinds[name] == "directory" then folders[#folders + 1] = name
    elseif reader.is_image(name) then images[#images + 1] = name end
  end
  return in_order(folders), in_order(images)
end

--- 'count' of the frames, evenly spaced from the first to the last; some of them twice where there are too few.
local function spread(dir, frames, count)
  local chosen = {}
  for k = 1, count do
    local at = count == 1 and 1 or 1 + math.floor((k - 1) * (#frames - 1) / (count - 1) + 0.5)
    chosen[k] = dir .. "/" .. frames[at]
  end
  return chosen
end

--- Adds a sequence; returns nil and a message where the folder has no frames.
local function add_sequence(dir, class, samples, count)
  local folders, frames = look_into(dir)
  if not folders then return nil, frames end
  if #frames == 0 then return nil, dir .. ": no images in this sequence" end
  samples[#samples + 1] = { class = class, path = dir, files = spread(dir, frames, count) }
  return true
end

--- Adds the sequences of a class folder, and to 'faults' what there is to say of it.
local function add_class(dir, class, samples, o, faults)
  local found, message = look_into(dir)
  if found and #found == 0 then message = dir .. ": no sequences in this class folder" end
  if type(message) == "string" then faults[#faults + 1] = message end
  for _, name in ipairs(found or {}) do
    local ok, wrong = add_sequence(dir .. "/" .. name, class, samples, o.frames)
    if not ok then faults[#faults + 1] = wrong end
  end
end

--- Sequences of images: dir/<class>/<sequence>/<frame>. Frames are in the order of their names, numbers in them counted as
--- numbers, and 'frames' of them are taken, evenly spaced from the first to the last. A sequence with a frame that cannot be
--- read is reported, counted and left out.
---
--- Options: frames (16); and those of data.folder: size, channels, map, strict, report, progress.
---@param dir string
---@param options table|nil
---@return Set|nil  images u8 M x frames x C x H x W
---@return string|nil  "dir: what is wrong"
local function sequences(dir, options)
  local o = reader.check("data.sequences", options, { frames = 16 })
  if math.type(o.frames) ~= "integer" or o.frames < 1 then
    errors.raise("data.sequences: frames must be a whole number from 1")
  end
  local folders, message = look_into(dir)
  if not folders then return nil, message end
  if #folders == 0 then return nil, ("%s: no class folders (%s/<class>/<sequence>/<frame> expected)"):format(dir, dir) end
  local samples, classes, faults = {}, {}, {}
  for _, name in ipairs(folders) do
    local class = emotions.class_of(name, o.map)
    classes[#classes + 1] = class
    add_class(dir .. "/" .. name, class, samples, o, faults)
  end
  if o.strict and #faults > 0 then return nil, faults[1] end
  for _, fault in ipairs(faults) do o.report(fault) end
  return reader.read(dir, samples, classes, o, o.frames)
end

return sequences
