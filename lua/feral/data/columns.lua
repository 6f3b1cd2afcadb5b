--- columns: what a data set knows of its samples beside their pixels. A column is a tensor whose first dimension counts the
--- samples, or a list of strings in the engine's memory (feral.core.strings).

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local index = require "feral.core.index"
local rows = require "feral.core.rows"
local scope = require "feral.core.scope"
local strings = require "feral.core.strings"
local errors = require "feral.base.errors"

local columns = {}

---- Lists of strings, as users see them ----

--- A list of strings as a table that cannot be written to: list[i], #list, ipairs and pairs, table.concat, list:totable().
---@class StringList
local StringList = {}
local held = setmetatable({}, { __mode = "k" }) -- the engine's list behind each

function StringList:__index(key)
  if math.type(key) == "integer" then return held[self][key] end
  return rawget(StringList, key)
end

function StringList:__newindex()
  errors.raise("this list of strings belongs to a data set (list:totable() gives one of your own)")
end

function StringList:__len() return #held[self] end
function StringList:__tostring() return tostring(held[self]) end

function StringList:__pairs()
  local next_string, list, first = pairs(held[self])
  return function(_, i) return next_string(list, i) end, self, first
end

--- A plain table of the strings.
function StringList:totable() return held[self]:totable() end

--- What users get of a column: tensors as they are, strings as a StringList.
---@param column Tensor|Strings
---@return Tensor|StringList
function columns.shown(column)
  if not strings.is_strings(column) then return column end
  local list = setmetatable({}, StringList)
  held[list] = column
  return list
end

---- Making ----

local function are_integers(list)
  for _, value in ipairs(list) do
    if math.type(value) ~= "integer" then return false end
  end
  return true
end

local function from_list(list)
  if held[list] then return held[list] end
  if type(list[1]) == "string" then return strings.new(list) end
  return create.from_table(list, are_integers(list) and "i32" or nil)
end

--- Values as a column: a tensor and a list of strings as they are, a table as one of them (whole numbers become i32).
---@param where string  for messages: "data.set"
---@param name string
---@param values Tensor|Strings|table
---@param count integer  how many there must be
---@return Tensor|Strings
--- Raises when they are not as many.
function columns.check(where, name, values, count)
  if type(name) ~= "string" or name == "" then errors.raise("%s: a column's name must be a string", where) end
  local column = type(values) == "table" and #values > 0 and from_list(values) or values
  if core.is_tensor(column) and column:dim() > 0 then
    scope.keep(column)
  elseif not strings.is_strings(column) then
    errors.raise("%s: column '%s' must be a tensor or a list of numbers or strings, got %s", where, name,
      type(values) == "table" and "an empty table" or type(values))
  end
  if #column ~= count then errors.raise("%s: column '%s' has %d values for %d samples", where, name, #column, count) end
  return column
end

--- A column's values in some rows; what depends on the column shares its bytes.
---@param column Tensor|Strings
---@param at Tensor  i32
---@return Tensor|Strings
function columns.take(column, at)
  if strings.is_strings(column) then return column:select(at) end
  return scope.keep(rows.take(column, at))
end

local function empty_of(column)
  if column.dtype == "i32" or column.dtype == "u8" then return 0 end
  return 0 / 0
end

--- Values of some rows as a column of all 'count' samples; the others get "", 0, or NaN where the values are floats.
---@param values Tensor|Strings
---@param at Tensor  i32: which samples the values belong to
---@param count integer
---@return Tensor|Strings
function columns.spread(values, at, count)
  if strings.is_strings(values) then
    local _open <close> = scope.scope()
    local with_none = strings.new():append(values):add("")
    return with_none:select(rows.put(create.full({ count }, #with_none, "i32"), at, rows.range(#values)))
  end
  local shape = values.shape
  shape[1] = count
  return scope.keep(rows.put(create.full(shape, empty_of(values), values.dtype), at, values))
end

local function same_kind(a, b)
  if strings.is_strings(a) or strings.is_strings(b) then return strings.is_strings(a) and strings.is_strings(b) end
  if a.dtype ~= b.dtype or a:dim() ~= b:dim() then return false end
  for d = 2, a:dim() do
    if a:size(d) ~= b:size(d) then return false end
  end
  return true
end

--- Columns one after another.
---@param where string
---@param name string
---@param parts (Tensor|Strings)[]
---@return Tensor|Strings
--- Raises where they are of different kinds.
function columns.join(where, name, parts)
  for k = 2, #parts do
    if not same_kind(parts[1], parts[k]) then
      errors.raise("%s: column '%s' of set %d is of another kind or shape than that of the first", where, name, k)
    end
  end
  if not strings.is_strings(parts[1]) then return scope.keep(index.cat(parts, 1)) end
  local all = strings.new()
  for _, part in ipairs(parts) do all:append(part) end
  return all
end

--- The names of columns, sorted.
---@param list table<string, Tensor|Strings>
---@return string[]
function columns.names(list)
  local names = {}
  for name in pairs(list) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- A copy of the table, in which one column is another.
---@param list table<string, Tensor|Strings>
---@param name string
---@param column Tensor|Strings|nil
---@return table<string, Tensor|Strings>
function columns.with(list, name, column)
  local copy = {}
  for n, c in pairs(list) do copy[n] = c end
  copy[name] = column
  return copy
end

return columns
