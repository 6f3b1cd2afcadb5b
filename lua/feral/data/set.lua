--- A data set: images in memory, decoded once, with labels.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local index = require "feral.core.index"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local emotions = require "feral.data.emotions"
local errors = require "feral.base.errors"

---@class Set
---@field images Tensor            u8 M x C x H x W; of sequences M x T x C x H x W
---@field labels Tensor            i32 M: class numbers, from 1
---@field classes string[]         their names
---@field paths string[]|nil       where each sample came from
---@field skipped string[]         what could not be read, each as "path: what is wrong"
local Set = {}
Set.__index = Set

local SPLIT_STREAM = 2 << 40 -- random numbers that nothing else draws

---- Making ----

local function check_images(images)
  if core.is_tensor(images) and images.dtype == "u8" and (images:dim() == 4 or images:dim() == 5) then return end
  errors.raise("data.set: images must be u8 M x C x H x W, or M x T x C x H x W, got %s",
    core.is_tensor(images) and ("%s %s"):format(images.dtype, table.concat(images.shape, "x")) or type(images))
end

local function check_labels(labels, count, classes)
  if not core.is_tensor(labels) or labels.dtype ~= "i32" or labels:dim() ~= 1 or #labels ~= count then
    errors.raise("data.set: labels must be i32 numbers, one for each of the %d images", count)
  end
  for i, label in ipairs(create.totable(labels)) do
    if label < 1 or label > #classes then
      errors.raise("data.set: label %d is %d, the classes are numbered from 1 to %d", i, label, #classes)
    end
  end
end

--- The images with the channels of a pixel side by side in memory, as the loader wants them.
local function channels_last(images)
  if images:dim() == 4 then return view.as_image(images) end
  local m, t, c, h, w = table.unpack(images.shape)
  return view.reshape(view.as_image(view.reshape(images, m * t, c, h, w)), m, t, c, h, w)
end

--- A data set of tensors. They are kept: they outlive every scope.
---@param fields {images: Tensor, labels: Tensor|integer[], classes: string[], paths: string[]|nil, skipped: string[]|nil}
---@return Set
--- Raises when sizes or labels do not fit.
local function set(fields)
  local f = errors.check_options("data.set", fields,
    { images = false, labels = false, classes = false, paths = false, skipped = {} })
  check_images(f.images)
  if type(f.classes) ~= "table" or #f.classes == 0 then errors.raise("data.set: classes must be a list of names") end
  local labels = type(f.labels) == "table" and create.from_table(f.labels, "i32") or f.labels
  check_labels(labels, f.images:size(1), f.classes)
  if f.paths and #f.paths ~= #labels then errors.raise("data.set: %d images but %d paths", #labels, #f.paths) end
  return setmetatable({
    images = scope.keep(channels_last(f.images)), labels = scope.keep(labels), classes = f.classes,
    paths = f.paths or nil, skipped = f.skipped,
  }, Set)
end

---- Looking ----

--- How many samples there are; #set gives the same.
function Set:size() return self.labels:size(1) end

Set.__len = Set.size

--- True when each sample is a sequence of images.
function Set:is_sequential() return self.images:dim() == 5 end

--- Samples of each class, in the order of the classes.
---@return integer[]
function Set:counts()
  local counts = {}
  for c = 1, #self.classes do counts[c] = 0 end
  for _, label in ipairs(create.totable(self.labels)) do counts[label] = counts[label] + 1 end
  return counts
end

--- Weights that give all classes the same say in a loss; their mean over the samples is 1. 0 for a class without samples.
---@return Tensor  f32, one a class
function Set:class_weights()
  local counts, occurring, weights = self:counts(), 0, {}
  for _, n in ipairs(counts) do occurring = occurring + (n > 0 and 1 or 0) end
  for c, n in ipairs(counts) do weights[c] = n > 0 and #self / (occurring * n) or 0 end
  return create.from_table(weights)
end

--- The size of an image of the set.
---@return integer channels
---@return integer height
---@return integer width
function Set:image_size() return table.unpack(self.images.shape, self.images:dim() - 2) end

local function padded(name, width) return name .. (" "):rep(width - (utf8.len(name) or #name)) end

--- What is in the set, as text: a line about the images and one for each class.
---@return string
function Set:describe()
  local counts, width = self:counts(), 0
  local what = self:is_sequential() and ("sequences of %d images"):format(self.images:size(2)) or "images"
  local lines = { ("%d %s of %d x %d x %d (%.1f MB), %d classes"):format(#self, what, self.images:size(-3),
    self.images:size(-2), self.images:size(-1), self.images:numel() / 1e6, #self.classes) }
  for _, name in ipairs(self.classes) do width = math.max(width, utf8.len(name) or #name) end
  local most = math.max(table.unpack(counts))
  for c, name in ipairs(self.classes) do
    lines[#lines + 1] = ("  %s %7d  %5.1f %%  %s"):format(padded(name, width), counts[c], 100 * counts[c] / #self,
      ("#"):rep(math.floor(30 * counts[c] / most + 0.5)))
  end
  if #self.skipped > 0 then lines[#lines + 1] = ("  %d could not be read"):format(#self.skipped) end
  return table.concat(lines, "\n")
end

Set.__tostring = Set.describe

---- Picking ----

--- The numbers of the samples that a choice means.
local function positions_of(self, choice)
  if core.is_tensor(choice) then return choice end
  if type(choice) == "function" then
    local choose, labels = choice, create.totable(self.labels)
    choice = {}
    for i, label in ipairs(labels) do
      if choose(i, self.classes[label]) then choice[#choice + 1] = i end
    end
  end
  if type(choice) ~= "table" then errors.raise("subset: a list of numbers or a function expected, got %s", type(choice)) end
  if #choice == 0 then errors.raise("subset: no sample is left") end
  return create.from_table(choice, "i32")
end

local function picked(list, positions)
  if not list then return nil end
  local out = {}
  for k, i in ipairs(create.totable(positions)) do out[k] = list[i] end
  return out
end

--- Some of the samples, copied, in the order given.
---@param choice integer[]|Tensor|fun(i: integer, class: string): boolean  numbers from 1 (a list, or i32), or which to take
---@return Set
--- Raises when a number is out of range or nothing is left.
function Set:subset(choice)
  local positions = positions_of(self, choice)
  return set {
    images = index.index_select(self.images, 1, positions), labels = index.index_select(self.labels, 1, positions),
    classes = self.classes, paths = picked(self.paths, positions),
  }
end

--- The numbers of the samples in groups: one for each class, or a single one.
local function groups_of(self, stratified)
  local groups = {}
  for g = 1, stratified and #self.classes or 1 do groups[g] = {} end
  for i, label in ipairs(create.totable(self.labels)) do table.insert(groups[stratified and label or 1], i) end
  return groups
end

--- Marks a share of a group, drawn at random; of two samples or more, some go to either side.
local function deal(group, fraction, seed, stream, chosen)
  if #group == 0 then return end
  local count = math.floor(#group * fraction + 0.5)
  if #group > 1 then count = math.max(1, math.min(#group - 1, count)) end
  for k, at in ipairs(create.totable(create.permutation(#group, seed, stream))) do
    if k <= count then chosen[group[at]] = true end
  end
end

--- Two sets drawn at random: this fraction of the samples, and the rest. The order of the samples stays.
---@param fraction number  between 0 and 1
---@param options {seed: integer, stratified: boolean}|nil  stratified (default true): the same fraction of each class
---@return Set
---@return Set
function Set:split(fraction, options)
  local o = errors.check_options("split", options, { seed = 0, stratified = true })
  if type(fraction) ~= "number" or not (fraction > 0 and fraction < 1) then
    errors.raise("split: the fraction must lie between 0 and 1, got %s", tostring(fraction))
  end
  if #self < 2 then errors.raise("split: a set of one sample cannot be split") end
  local chosen = {}
  for g, group in ipairs(groups_of(self, o.stratified)) do deal(group, fraction, o.seed, SPLIT_STREAM + g, chosen) end
  return self:subset(function(i) return chosen[i] end), self:subset(function(i) return not chosen[i] end)
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

--- The same samples with classes renamed, joined or left out. Classes are in the house's order again.
---@param map table<string, string|false>  old name -> new name, or false: leave its samples out. Other classes stay.
---@return Set  sharing the images where no sample is left out
--- Raises on a class that the set does not have, and when nothing is left.
function Set:map_labels(map)
  check_map(self, map)
  local new_name, left = {}, {}
  for c, name in ipairs(self.classes) do
    new_name[c] = map[name] == nil and name or map[name]
    if new_name[c] then left[#left + 1] = new_name[c] end
  end
  local classes, number = emotions.classes_in(left)
  local rest = #left == #self.classes and self
    or self:subset(function(_, class) return map[class] ~= false end)
  local labels = create.totable(rest.labels)
  for i, label in ipairs(labels) do labels[i] = number[new_name[label]] end
  return set { images = rest.images, labels = labels, classes = classes, paths = rest.paths, skipped = rest.skipped }
end

return set
