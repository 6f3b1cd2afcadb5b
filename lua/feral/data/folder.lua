--- data.folder: a folder of class folders of images.

local files = require "feral.core.files"
local emotions = require "feral.data.emotions"
local reader = require "feral.data.reader"

local DEPTH_MOST <const> = 8 -- a link to a folder above it must not lead on for ever

local splits = { train = true, test = true, val = true, valid = true, validation = true, private = true }

--- What a folder without class folders deserves to hear.
local function no_classes(dir, names)
  for _, name in ipairs(names) do
    if reader.is_image(name) then return ("%s: images, but no class folders (%s/<class>/<image> expected)"):format(dir, dir) end
  end
  return ("%s: no images (%s/<class>/<image> expected)"):format(dir, dir)
end

--- The class folders in a folder, sorted; or nil and a message.
local function class_folders(dir)
  local names, kinds = files.list(dir)
  if not names then return nil, kinds end
  local folders, only_splits = {}, true
  for _, name in ipairs(names) do
    if kinds[name] == "directory" then
      folders[#folders + 1] = name
      only_splits = only_splits and splits[name:lower()]
    end
  end
  if #folders == 0 then return nil, no_classes(dir, names) end
  if only_splits then return nil, ("%s: holds %s; name one of them"):format(dir, table.concat(folders, " and ")) end
  return folders
end

--- Adds the samples of one class folder.
local function add_class(dir, name, listing, o)
  local path = dir .. "/" .. name
  local count, message = listing.files:add_files(path, reader.extensions, DEPTH_MOST - 1)
  if count == 0 then message = path .. ": no images in this class folder" end
  if message and o.strict then return nil, message end
  if message then o.report(message) end
  local class = emotions.class_of(name, o.map)
  listing:class(class)
  if count and count > 0 then listing:add(class, count) end
  return true
end

--- Images in class folders: dir/<class>/<image>, also deeper. Folders named by usual spellings of emotions become classes of
--- the library's names ("happy" becomes happiness); other names stay as they are. Files that no image's name have are not
--- looked at.
---
--- Options: size (48, or {height, width}): what images are resized to; channels (1 gray, or 3); map (folder name -> class,
--- default data.emotions.spellings); strict (false): the first image that cannot be read is an error, where otherwise it is
--- reported, counted in set.skipped and left out; report (a function of a message, default: to standard error); progress
--- (true); keep ("memory"): where the pixels are. "files" reads each file when it is needed (of those that break later a batch
--- says so), "cache" decodes all once to a file, which later calls use as long as the images are the same. size = false, with
--- keep = "files": images at their own sizes. cache: the path of that file (a hidden one in the folder).
---@param dir string
---@param options table|nil
---@return Set|nil
---@return string|nil  "dir: what is wrong"
local function folder(dir, options)
  local o = reader.check("data.folder", options)
  local folders, message = class_folders(dir)
  if not folders then return nil, message end
  local listing = reader.listing()
  for _, name in ipairs(folders) do
    local ok, wrong = add_class(dir, name, listing, o)
    if not ok then return nil, wrong end
  end
  return reader.read(dir, listing, o)
end

return folder
