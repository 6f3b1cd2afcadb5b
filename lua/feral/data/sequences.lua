--- data.sequences: a folder of frames for each sequence, in class folders.

local files = require "feral.core.files"
local emotions = require "feral.data.emotions"
local builder = require "feral.data.builder"
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

--- Adds 'count' of the frames to a list, evenly spaced from the first to the last, some of them twice where there are too few;
--- all frames once where count is false.
local function add_frames(list, dir, frames, count)
  for k = 1, count or #frames do
    local at = k
    if count then at = count == 1 and 1 or 1 + math.floor((k - 1) * (#frames - 1) / (count - 1) + 0.5) end
    list:add(dir .. "/" .. frames[at])
  end
end

--- Adds a sequence; returns nil and a message where the folder has no frames.
local function add_sequence(dir, class, listing, count)
  local folders, frames = look_into(dir)
  if not folders then return nil, frames end
  if #frames == 0 then return nil, dir .. ": no images in this sequence" end
  add_frames(listing.files, dir, frames, count)
  listing.paths:add(dir)
  listing:add(class)
  listing.lengths:add(count or #frames)
  return true
end

--- Adds the sequences of a class folder, and to 'faults' what there is to say of it.
local function add_class(dir, class, listing, o, faults)
  local found, message = look_into(dir)
  if found and #found == 0 then message = dir .. ": no sequences in this class folder" end
  if type(message) == "string" then faults[#faults + 1] = message end
  for _, name in ipairs(found or {}) do
    local ok, wrong = add_sequence(dir .. "/" .. name, class, listing, o.frames)
    if not ok then faults[#faults + 1] = wrong end
  end
end

--- Sequences of images: dir/<class>/<sequence>/<frame>. Frames are in the order of their names, numbers in them counted as
--- numbers, and 'frames' of them are taken, evenly spaced from the first to the last. A sequence with a frame that cannot be
--- read is reported, counted and left out.
---
--- Options: frames (16; false, with keep = "files": all, so that sequences differ in length, which column "length" says); and
--- those of data.folder: size, channels, map, strict, report, progress, keep, cache.
---@param dir string
---@param options table|nil
---@return Set|nil  images u8 M x frames x C x H x W
---@return string|nil  "dir: what is wrong"
local function sequences(dir, options)
  local o = reader.check("data.sequences", options, { frames = 16 })
  if o.frames == false and o.keep ~= "files" then
    errors.raise("data.sequences: sequences of their own lengths (frames = false) need keep = \"files\"")
  end
  if o.frames and (math.type(o.frames) ~= "integer" or o.frames < 1) then
    errors.raise("data.sequences: frames must be a whole number from 1")
  end
  local folders, message = look_into(dir)
  if not folders then return nil, message end
  if #folders == 0 then return nil, ("%s: no class folders (%s/<class>/<sequence>/<frame> expected)"):format(dir, dir) end
  local listing, faults = reader.listing(true), {}
  listing.lengths = builder.numbers "i32"
  for _, name in ipairs(folders) do
    local class = emotions.class_of(name, o.map)
    listing:class(class)
    add_class(dir .. "/" .. name, class, listing, o, faults)
  end
  if o.strict and #faults > 0 then return nil, faults[1] end
  for _, fault in ipairs(faults) do o.report(fault) end
  listing.columns.length = listing.lengths:finish()
  return reader.read(dir, listing, o)
end

return sequences
