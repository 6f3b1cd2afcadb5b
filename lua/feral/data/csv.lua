--- data.csv: a table of paths, labels, and what else is known of each image.

local strings = require "feral.core.strings"
local rows = require "feral.formats.csv"
local builder = require "feral.data.builder"
local emotions = require "feral.data.emotions"
local reader = require "feral.data.reader"
local errors = require "feral.base.errors"

---- Columns ----

--- Options that name columns of their own, and what their cells are. "any": numbers where all are, else strings.
local known = {
  { "subject", "strings" }, { "split", "strings" }, { "fold", "any" }, { "weight", "numbers" }, { "votes", "numbers" },
  { "box", "numbers" }, { "landmarks", "numbers" }, { "length", "any" },
}

---@class Field  a column of the set and the cells of the table that it is read from
---@field name string
---@field kind "strings"|"numbers"|"any"
---@field heads string[]   names of columns of the table
---@field places integer[] where they stand in a row
local Field = {}
Field.__index = Field

local function new_field(name, kind, heads)
  if type(heads) == "string" then heads = { heads } end
  if type(heads) ~= "table" or #heads == 0 then
    errors.raise("data.csv: '%s' must be the name of a column of the table, or a list of names", name)
  end
  if #heads > 1 then kind = "numbers" end
  return setmetatable({ name = name, kind = kind, heads = heads, places = {}, texts = strings.new() }, Field)
end

local function fields_of(o)
  local fields = {}
  for _, pair in ipairs(known) do
    if o[pair[1]] then fields[#fields + 1] = new_field(pair[1], pair[2], o[pair[1]]) end
  end
  local names = {}
  for name in pairs(o.columns) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do fields[#fields + 1] = new_field(name, "any", o.columns[name]) end
  return fields
end

--- The cells as numbers: one for each, or several in a cell with blanks or semicolons between.
local function numbers_in(field, cells)
  local found = {}
  for _, place in ipairs(field.places) do
    for word in (cells[place] or ""):gmatch("[^%s;]+") do
      local number = tonumber(word)
      if not number then return nil, ("%s: '%s' is no number"):format(field.name, word) end
      found[#found + 1] = number
    end
  end
  field.width = field.width or #found
  if #found ~= field.width or #found == 0 then
    return nil, ("%s: %d numbers, %d expected"):format(field.name, #found, math.max(1, field.width))
  end
  return found
end

--- What a row has for this field; or nil and what is wrong.
function Field:value(cells)
  if self.kind == "numbers" then return numbers_in(self, cells) end
  local text = cells[self.places[1]]
  if not text then return nil, ("%s: the cell is missing"):format(self.name) end
  return text
end

function Field:add(value)
  if self.kind ~= "numbers" then
    self.texts:add(value)
    return
  end
  self.numbers = self.numbers or builder.numbers()
  self.numbers:add(self.width == 1 and value[1] or value)
end

--- Strings that are all numbers as a tensor: i32 where all are whole; else the strings themselves.
local function numbers_or_strings(texts)
  local whole, all = true, builder.numbers()
  for _, text in ipairs(texts) do
    local number = tonumber(text)
    if not number then return texts end
    whole = whole and math.type(number) == "integer" and number >= -(1 << 31) and number < 1 << 31
    all:add(number)
  end
  if not whole then return all:finish() end
  local integers = builder.numbers "i32"
  for _, text in ipairs(texts) do integers:add(math.tointeger(tonumber(text))) end
  return integers:finish()
end

--- The whole column.
function Field:finish()
  if self.kind == "numbers" then return self.numbers:finish() end
  return self.kind == "any" and numbers_or_strings(self.texts) or self.texts
end

---- Rows ----

--- The path, the class and the values of the fields in a row; or nil and what is wrong.
local function read_row(line, places, fields, root, map)
  local cells, message = rows.split(line)
  if not cells then return nil, message end
  local path, label = cells[places[1]], cells[places[2]]
  if not path or not label then
    return nil, ("%d cells, at least %d expected"):format(#cells, math.max(places[1], places[2]))
  end
  if path == "" then return nil, "the path is empty" end
  if label == "" then return nil, "the label is empty" end
  local values = {}
  for k, field in ipairs(fields) do
    values[k], message = field:value(cells)
    if not values[k] then return nil, message end
  end
  return path:sub(1, 1) == "/" and path or root .. path, emotions.class_of(label, map), values
end

--- Finds path, label and the fields in the head row; or nil and a message.
local function find_columns(head, o, fields)
  local places, message = rows.columns(head, { o.path, o.label })
  if not places then return nil, message end
  for _, field in ipairs(fields) do
    field.places, message = rows.columns(head, field.heads)
    if not field.places then return nil, message end
  end
  return places
end

--- Lists all rows. Returns true, or nil and a message.
local function list_rows(path, o, listing, fields)
  local next_line, message = rows.lines(path)
  if not next_line then return nil, message end
  local first, head = next_line()
  if not first then return nil, head or path .. ": the file is empty" end
  local places, wrong = find_columns(head, o, fields)
  if not places then return nil, ("%s:%d: %s"):format(path, first, wrong) end
  local root = o.root and o.root .. "/" or path:match("^(.*/)[^/]*$") or ""
  for number, line in rows.rest(next_line) do
    if not number then return nil, line end
    local file, class, values = read_row(line, places, fields, root, o.map)
    if file then
      listing.files:add(file)
      listing:add(class)
      listing.lines:add(number)
      for k, field in ipairs(fields) do field:add(values[k]) end
    elseif o.strict then
      return nil, ("%s:%d: %s"):format(path, number, class)
    else
      reader.skip(o, ("%s:%d: %s"):format(path, number, class))
    end
  end
  return true
end

--- Images named by a CSV file with a head row. Paths are relative to the CSV's own folder, or to option root.
---
--- Options: path ("path") and label ("label"): names of the table's columns; root: the folder that paths start from; and those of
--- data.folder: size, channels, map, strict, report, progress, keep, cache. A row or an image that is wrong is reported with file
--- and line.
---
--- Further columns of the set: subject, split, fold, weight, length: each the name of a column of the table; votes, box,
--- landmarks: a list of names, or one whose cells hold several numbers; columns = { name = column or list of columns } for any
--- others. Subject and split are strings; weight, votes, box and landmarks numbers; others are numbers where all cells are.
---
---     data.csv("ck.csv", { subject = "person", box = { "x", "y", "w", "h" }, columns = { age = "age" } })
---@param path string
---@param options table|nil
---@return Set|nil
---@return string|nil  "file:line: what is wrong"
local function csv(path, options)
  local more = { path = "path", label = "label", root = false, columns = {} }
  for _, pair in ipairs(known) do more[pair[1]] = false end
  local o = reader.check("data.csv", options, more)
  local fields, listing = fields_of(o), reader.listing()
  listing.lines = builder.numbers "i32"
  local ok, message = list_rows(path, o, listing, fields)
  if not ok then return nil, message end
  if listing.labels.count == 0 then return nil, ("%s: no images"):format(path) end
  for _, field in ipairs(fields) do listing.columns[field.name] = field:finish() end
  local lines = listing.lines:finish()
  listing.where = function(i) return ("%s:%d"):format(path, lines[i]:item()) end
  return reader.read(path, listing, o)
end

return csv
