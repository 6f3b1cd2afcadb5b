--- concat: several data sets as one. Sets over one source with the same columns only join their rows; others get a source that
--- holds theirs one after another.

local index = require "feral.core.index"
local rows = require "feral.core.rows"
local scope = require "feral.core.scope"
local sources = require "feral.core.source"
local view = require "feral.core.view"
local columns = require "feral.data.columns"
local emotions = require "feral.data.emotions"
local errors = require "feral.base.errors"

local function check(sets)
  for k, set in ipairs(sets) do
    if type(set) ~= "table" or not set.source or not set.columns then
      errors.raise("concat: data sets expected, got %s", type(set))
    end
    local first, channels = sets[1].source:image_size(), set.source:image_size()
    if channels ~= first then
      errors.raise("concat: set %d has images of %d channels, the first of %d", k, channels, first)
    end
    if set:is_sequential() ~= sets[1]:is_sequential() then
      errors.raise("concat: set %d has %s, the first %s", k, set:is_sequential() and "sequences" or "images",
        sets[1]:is_sequential() and "sequences" or "images")
    end
  end
end

--- Whether two values, or tables in all their fields, are the same.
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function share_all(sets)
  for k = 2, #sets do
    if sets[k].source ~= sets[1].source or not same(sets[k].classes, sets[1].classes) then return false end
    for _, list in ipairs { sets[1].columns, sets[k].columns } do
      for name in pairs(list) do
        if sets[k].columns[name] ~= sets[1].columns[name] then return false end
      end
    end
  end
  return true
end

--- The classes of all sets, and the number of each.
local function common_classes(sets)
  local names = {}
  for _, set in ipairs(sets) do table.move(set.classes, 1, #set.classes, #names + 1, names) end
  return emotions.classes_in(names)
end

--- The set's labels as the common list of classes numbers them.
local function renumbered(set, number)
  local to = {}
  for c, name in ipairs(set.classes) do to[c] = number[name] end
  return rows.map(set.columns.label, to)
end

--- Those columns that all sets have, one after another.
local function join_columns(sets, number)
  local all = {}
  for _, name in ipairs(columns.names(sets[1].columns)) do
    local parts = {}
    for k, set in ipairs(sets) do
      if not set.columns[name] then break end
      parts[k] = name == "label" and renumbered(set, number) or set.columns[name]
    end
    if #parts == #sets then all[name] = columns.join("concat", name, parts) end
  end
  return all
end

--- The rows of all sets as numbers in the joined source.
local function join_rows(sets, total)
  local numbers, parts, before = rows.range(total), {}, 0
  for k, set in ipairs(sets) do
    parts[k] = rows.take(view.narrow(numbers, 1, before + 1, #set.source), set.rows)
    before = before + #set.source
  end
  return index.cat(parts, 1)
end

local function join_skipped(sets)
  local skipped, seen = {}, {}
  for _, set in ipairs(sets) do
    if not seen[set.skipped] then table.move(set.skipped, 1, #set.skipped, #skipped + 1, skipped) end
    seen[set.skipped] = true
  end
  return skipped
end

--- The samples of this set and of others behind it, as one set. Classes are joined by their names, in the library's order. Of
--- the columns those stay that all sets have. The steps stay where they are the same.
---@param self Set
---@param ... Set
---@return Set
--- Raises where channels differ, images meet sequences, or a column is of different kinds.
return function(self, ...)
  local sets = { self, ... }
  check(sets)
  local _open <close> = scope.scope()
  if share_all(sets) then
    local parts = {}
    for k, set in ipairs(sets) do parts[k] = set.rows end
    return self:derive { rows = index.cat(parts, 1), skipped = join_skipped(sets) }
  end
  local classes, number = common_classes(sets)
  local parts, steps = {}, self.steps
  for k, set in ipairs(sets) do
    parts[k] = set.source
    if not same(set.steps, self.steps) then steps = false end
  end
  local source = sources.join(parts)
  local joined = self:derive { source = source, rows = join_rows(sets, #source), columns = join_columns(sets, number),
    classes = classes, skipped = join_skipped(sets), stored = false, steps = steps or false }
  joined.steps = joined.steps or nil
  return joined
end
