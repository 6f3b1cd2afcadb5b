--- data.fer2013: FER2013 (Goodfellow et al. 2013), as class folders or as the original CSV.

local files = require "feral.core.files"
local pixel_text = require "feral.core.pixel_text"
local create = require "feral.core.create"
local csv = require "feral.formats.csv"
local builder = require "feral.data.builder"
local folder = require "feral.data.folder"
local new_set = require "feral.data.set"

local SIDE = 48

--- The CSV's labels 0 to 6, in its order, which is the library's.
local classes = { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral" }

--- What a photograph needs to look like these.
local steps = { { name = "gray" }, { name = "resize", height = SIDE, width = SIDE } }

--- The CSV's Usage and what the sets are called here.
local parts = { Training = "train", PublicTest = "test", PrivateTest = "private" }
local part_order = { "train", "test", "private" }

---- CSV ----

--- The three cells of a row that count. No cell of this file holds a comma, so cutting at commas is enough.
local function row_cells(line, columns)
  local cells, count = {}, 0
  for cell in (line .. ","):gmatch("([^,]*),") do
    count = count + 1
    cells[count] = cell
  end
  local emotion, usage, pixels = cells[columns[1]], cells[columns[2]], cells[columns[3]]
  if not (emotion and usage and pixels) then return nil end
  if pixels:find('"', 1, true) then pixels = pixels:gsub('"', " ") end -- a pattern that trims would crawl over 8,000 letters
  return emotion:match('^[%s"]*(.-)[%s"]*$'), usage:match('^[%s"]*(.-)[%s"]*$'), pixels
end

--- Calls each(part, label, pixels) for every row; stops at the first that is wrong. Returns true; or nil, "file:line: ...".
local function for_rows(path, each)
  local next_line, message = csv.lines(path)
  if not next_line then return nil, message end
  local first, head = next_line()
  if not first then return nil, head or path .. ": the file is empty" end
  local columns, wrong = csv.columns(head, { "emotion", "Usage", "pixels" })
  if not columns then return nil, ("%s:%d: %s"):format(path, first, wrong) end
  for number, line in csv.rest(next_line) do
    if not number then return nil, line end
    local emotion, usage, pixels = row_cells(line, columns)
    local fault
    if not emotion then
      fault = "a cell is missing: emotion, pixels and Usage expected"
    elseif not parts[usage] then
      fault = ("usage '%s' is none of Training, PublicTest, PrivateTest"):format(usage)
    elseif not emotion:match("^[0-6]$") then
      fault = ("label '%s' is none of 0 to 6"):format(emotion)
    else
      fault = each(parts[usage], tonumber(emotion) + 1, pixels)
    end
    if fault then return nil, ("%s:%d: %s"):format(path, number, fault) end
  end
  return true
end

--- Two readings, the first of which only counts, so that the images lie in memory once.
local function from_csv(path)
  local count, images, labels = {}, {}, {}
  local ok, message = for_rows(path, function(part) count[part] = (count[part] or 0) + 1 end)
  if not ok then return nil, message end
  if not next(count) then return nil, path .. ": no rows below the head" end
  for _, part in ipairs(part_order) do
    if count[part] then images[part], labels[part] = create.empty({ count[part], 1, SIDE, SIDE }, "u8"), builder.numbers "i32" end
  end
  ok, message = for_rows(path, function(part, label, pixels)
    local of_part = labels[part]
    of_part:add(label)
    return select(2, pixel_text.parse(pixels, images[part], of_part.count))
  end)
  if not ok then return nil, message end
  local sets = {}
  for _, part in ipairs(part_order) do
    if count[part] then
      sets[part] = new_set { images = images[part], labels = labels[part]:finish(), classes = classes, steps = steps }
    end
  end
  return sets
end

---- Folders ----

local function from_folders(dir, options)
  local sets = {}
  for _, part in ipairs(part_order) do
    local path = dir .. "/" .. part
    if files.look(path) then
      local set, message = folder(path, options)
      if not set then return nil, message end
      sets[part] = set
    end
  end
  return sets
end

--- FER2013: 48 x 48 gray faces of seven emotions, in the splits of its makers.
---@param path string  a folder with train/<class>/, test/<class>/ and perhaps private/<class>/; or the CSV, or its folder
---@param options table|nil  of folders: those of data.folder
---@return {train: Set|nil, test: Set|nil, private: Set|nil}|nil  test is PublicTest, private is PrivateTest
---@return string|nil  message; of a CSV with file and line
local function fer2013(path, options)
  local kind, message = files.look(path)
  if not kind then return nil, message end
  if kind ~= "directory" then return from_csv(path) end
  if files.look(path .. "/train") then return from_folders(path, options) end
  if files.look(path .. "/fer2013.csv") then return from_csv(path .. "/fer2013.csv") end
  return nil, path .. ": neither train/ nor fer2013.csv is in it"
end

return fer2013
