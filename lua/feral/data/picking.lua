--- picking: methods of data sets that give other sets over the same pixels: subset, split, kfold, balance, shuffle,
--- map_labels. They make new rows and copy neither pixels nor columns.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local rows = require "feral.core.rows"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local builder = require "feral.data.builder"
local columns = require "feral.data.columns"
local emotions = require "feral.data.emotions"
local errors = require "feral.base.errors"

local picking = {}

-- random numbers that nothing else draws
local streams = require("feral.tensor.random").streams
local SPLIT_STREAM <const>, FOLD_STREAM <const>, BALANCE_STREAM <const>, SHUFFLE_STREAM <const> =
  streams.split, streams.fold, streams.balance, streams.shuffle

---- Subsets ----

--- The places that a function chooses, as i32; nil where it chooses none.
local function chosen_by(self, choose)
  local places, labels = builder.numbers "i32", self.labels
  for i, label in ipairs(create.totable(labels)) do
    if choose(i, self.classes[label]) then places:add(i) end
  end
  return places:finish()
end

local function places_of(self, choice)
  if type(choice) == "function" then return chosen_by(self, choice) end
  if core.is_tensor(choice) and choice.dtype == "u8" then
    if choice:dim() ~= 1 or #choice ~= #self then
      errors.raise("subset: a mask of %d bytes expected, got %s", #self, table.concat(choice.shape, "x"))
    end
    return rows.where(choice)
  end
  if core.is_tensor(choice) then return choice end
  if type(choice) ~= "table" then errors.raise("subset: a list of numbers or a function expected, got %s", type(choice)) end
  return #choice > 0 and create.from_table(choice, "i32") or nil
end

--- The rows at some places of the set.
local function pick(self, places)
  if not places then errors.raise("subset: no sample is left") end
  return self:derive { rows = rows.take(self.rows, places, "subset: position") }
end

--- Some of the samples, in the order given; the pixels are not copied.
---@param choice integer[]|Tensor|fun(i: integer, class: string): boolean  numbers from 1 (a list, or i32), a mask (u8, not 0
---   for those to take), or a function that says which
---@return Set
--- Raises when a number is out of range or nothing is left.
function picking.subset(self, choice)
  local _open <close> = scope.scope()
  return pick(self, places_of(self, choice))
end

--- The number of the group whose first member has this value; nil where none has.
local function group_of(column, first, value)
  for g, place in ipairs(create.totable(first)) do
    local found = column[place]
    if core.is_tensor(found) then found = found:item() end
    if found == value then return g end
  end
end

--- The samples that have a value in a column: set:where("split", "train"), set:where("fold", 3).
---@param name string
---@param value string|number
---@return Set
--- Raises when there is no such column, or no sample has the value.
function picking.where(self, name, value)
  local _open <close> = scope.scope()
  local column = self:column(name)
  if core.is_tensor(column) and column:dim() ~= 1 then
    errors.raise("where: column '%s' has several values for a sample", name)
  end
  local group, _, first = rows.groups(columns.take(self.columns[name], self.rows))
  local g = group_of(column, first, value)
  if not g then errors.raise("where: no sample has %s '%s'", name, tostring(value)) end
  return pick(self, rows.where(group, g))
end

--- The samples in random order.
---@param options {seed: integer}|nil
---@return Set
function picking.shuffle(self, options)
  local o = errors.check_options("shuffle", options, { seed = 0 })
  local _open <close> = scope.scope()
  return pick(self, create.permutation(#self, o.seed, SHUFFLE_STREAM))
end

---- Splits ----

--- Calls f(g, places) for the places of each class that has any; with stratified false once, for all.
local function for_groups(self, stratified, f)
  if not stratified then return f(1, rows.range(#self)) end
  for c = 1, #self.classes do
    local places = rows.where(self.labels, c)
    if places then f(c, places) end
  end
end

--- Of two samples or more, some go to either side.
local function share(count, fraction)
  local taken = math.floor(count * fraction + 0.5)
  return count > 1 and math.max(1, math.min(count - 1, taken)) or taken
end

--- The first 'count' of places in random order; nil for 0.
local function drawn(places, count, seed, stream)
  if count == 0 then return nil end
  return rows.take(places, view.narrow(create.permutation(#places, seed, stream), 1, 1, count))
end

--- 1 for the samples of one side, i32.
local function split_samples(self, fraction, o)
  local side = create.full({ #self }, 0, "i32")
  for_groups(self, o.stratified, function(g, places)
    local taken = drawn(places, share(#places, fraction), o.seed, SPLIT_STREAM + g)
    if taken then rows.put(side, taken, 1) end
  end)
  return side
end

--- The groups that a column makes of the rows: i32 numbers, and how many there are.
local function groups_by(self, where, by, least)
  self:column(by) -- which says what columns there are
  local column = self.columns[by]
  if core.is_tensor(column) and column:dim() ~= 1 then
    errors.raise("%s: column '%s' has several values for a sample, so it makes no groups", where, by)
  end
  local group, count = rows.groups(columns.take(column, self.rows))
  if count < (least or 2) then
    errors.raise("%s: column '%s' makes %d groups, too few for %d parts", where, by, count, least or 2)
  end
  return group, count
end

--- Whole groups, drawn at random, until they hold the share asked for; both sides get one.
local function split_groups(self, fraction, o)
  local group, count = groups_by(self, "split", o.by)
  local sizes, side, held = rows.counts(group, count), {}, 0
  for g = 1, count do side[g] = 0 end
  local order = create.totable(create.permutation(count, o.seed, SPLIT_STREAM))
  for k, g in ipairs(order) do
    local after = held + sizes[g]
    local nearer = math.abs(after - fraction * #self) < math.abs(held - fraction * #self)
    if k < count and (nearer or k == 1) then side[g], held = 1, after end
  end
  return rows.map(group, side)
end

--- Two sets drawn at random: this fraction of the samples, and the others. The order of the samples stays.
---
--- Options: seed (0); stratified (true): the same fraction of each class; by: the name of a column ("subject"): samples of one
--- value stay together, so that no person is on both sides. The fraction is then met as nearly as the groups allow, and
--- classes are not looked at.
---@param fraction number  between 0 and 1
---@param options {seed: integer, stratified: boolean, by: string}|nil
---@return Set
---@return Set
function picking.split(self, fraction, options)
  local o = errors.check_options("split", options, { seed = 0, stratified = true, by = false })
  if type(fraction) ~= "number" or not (fraction > 0 and fraction < 1) then
    errors.raise("split: the fraction must lie between 0 and 1, got %s", tostring(fraction))
  end
  if #self < 2 then errors.raise("split: a set of one sample cannot be split") end
  local _open <close> = scope.scope()
  local side = (o.by and split_groups or split_samples)(self, fraction, o)
  return pick(self, rows.where(side, 1)), pick(self, rows.where(side, 0))
end

---- Folds ----

--- Each class is dealt to the folds in turn, and the next goes on where it ended: folds differ by one sample at most.
local function deal_samples(self, k, o)
  local fold, start = create.full({ #self }, 0, "i32"), 0
  for_groups(self, o.stratified, function(g, places)
    rows.mark(fold, drawn(places, #places, o.seed, FOLD_STREAM + g), k, start % k)
    start = start + #places
  end)
  return fold
end

local function deal_groups(self, k, o)
  local group, count = groups_by(self, "kfold", o.by, k)
  local order = create.permutation(count, o.seed, FOLD_STREAM)
  return rows.deal(group, count, o.stratified and self.labels or nil, #self.classes, k or count, order), k or count
end

--- Folds for cross-validation: each sample is in the test set of one fold, and in the training sets of all others.
---
---     for i, fold in ipairs(set:kfold(10, { by = "subject" })) do ... fold.train ... fold.test ... end
---
--- Options: by: the name of a column ("subject"): samples of one value stay in one fold, so that nobody is on both sides;
--- stratified (true): the same share of each class in each fold, with 'by' as nearly as the groups allow; seed (0).
---@param k integer|nil  how many; nil with 'by': a fold for each value of the column (leave one subject out)
---@param options {by: string, stratified: boolean, seed: integer}|nil
---@return {train: Set, test: Set}[]
--- Raises when there are fewer samples or groups than folds.
function picking.kfold(self, k, options)
  local o = errors.check_options("kfold", options, { by = false, stratified = true, seed = 0 })
  if not (k == nil and o.by) and (math.type(k) ~= "integer" or k < 2) then
    errors.raise("kfold: the number of folds must be a whole number from 2, got %s", tostring(k))
  end
  if k and k > #self then errors.raise("kfold: %d folds of %d samples", k, #self) end
  local _open <close> = scope.scope()
  local fold, folds = (o.by and deal_groups or deal_samples)(self, k, o), {}
  if not k then k = select(2, groups_by(self, "kfold", o.by)) end
  for f = 1, k do
    local _fold <close> = scope.scope()
    local others = {}
    for g = 1, k do others[g] = g == f and 0 or 1 end
    folds[f] = { train = pick(self, rows.where(rows.map(fold, others), 1)), test = pick(self, rows.where(fold, f)) }
  end
  return folds
end

---- Balance ----

local function target_of(how, counts)
  if math.type(how) == "integer" and how > 0 then return how end
  local least, most = math.huge, 0
  for _, n in ipairs(counts) do
    if n > 0 then least, most = math.min(least, n), math.max(most, n) end
  end
  if how == "over" then return most end
  if how == "under" then return least end
  errors.raise("balance: \"over\", \"under\" or a number of samples expected, got %s", tostring(how))
end

--- A set with the same number of samples of each class: "over" repeats samples of the smaller classes, drawn at random, up to
--- the largest; "under" leaves out samples of the larger ones, down to the smallest; a number does what it takes. All samples
--- of a class are in as often as each other, or once more. Classes without samples stay empty. The order stays, repeated
--- samples side by side.
---@param how "over"|"under"|integer|nil  default "over"
---@param options {seed: integer}|nil
---@return Set
function picking.balance(self, how, options)
  local o = errors.check_options("balance", options, { seed = 0 })
  local _open <close> = scope.scope()
  local target, times = target_of(how or "over", self:counts()), create.full({ #self }, 0, "i32")
  for_groups(self, true, function(c, places)
    rows.put(times, places, target // #places)
    local more = drawn(places, target % #places, o.seed, BALANCE_STREAM + c)
    if more then rows.put(times, more, target // #places + 1) end
  end)
  return pick(self, rows.repeated(times))
end

---- Labels ----

local function check_map(self, map)
  local known = {}
  for _, name in ipairs(self.classes) do known[name] = true end
  for name, to in pairs(map) do
    if not known[name] then errors.raise("map_labels: there is no class '%s'%s", name, errors.hint(name, self.classes)) end
    if to ~= false and type(to) ~= "string" then
      errors.raise("map_labels: '%s' must become a name, or false, got %s", name, type(to))
    end
  end
end

--- The same samples with classes renamed, joined or left out. Classes are in the library's order again.
---@param map table<string, string|false>  old name -> new name, or false: leave its samples out. Other classes stay.
---@return Set
--- Raises on a class that the set does not have, and when nothing is left.
function picking.map_labels(self, map)
  check_map(self, map)
  local new_name, left, stays, to = {}, {}, {}, {}
  for c, name in ipairs(self.classes) do
    new_name[c] = map[name] == nil and name or map[name]
    if new_name[c] then left[#left + 1] = new_name[c] end
    stays[c] = new_name[c] and 1 or 0
  end
  local classes, number = emotions.classes_in(left)
  for c in ipairs(self.classes) do to[c] = new_name[c] and number[new_name[c]] or 0 end
  local _open <close> = scope.scope()
  local rest = #left == #self.classes and self or pick(self, rows.where(rows.map(self.labels, stays), 1))
  local label = scope.keep(rows.map(self.columns.label, to))
  return rest:derive { columns = columns.with(self.columns, "label", label), classes = classes }
end

--- The same samples with their classes numbered as in another list, which may be longer: that of a model, of another set.
---@param classes string[]
---@return Set
--- Raises when the set has a class that is not in the list.
function picking.with_classes(self, classes)
  local number, to = {}, {}
  for c, name in ipairs(classes) do number[name] = c end
  for c, name in ipairs(self.classes) do
    to[c] = number[name]
    if not to[c] then
      errors.raise("with_classes: the set's class '%s' is not in the list%s", name, errors.hint(name, classes))
    end
  end
  local label = scope.keep(rows.map(self.columns.label, to))
  return self:derive { columns = columns.with(self.columns, "label", label), classes = classes }
end

return picking
