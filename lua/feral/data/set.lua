--- A data set: an index over a source of pixels. The source has samples; rows say which of them are in the set, in which
--- order; columns hold what is known of each sample. Sets made from one another (subset, split ...) share source and columns.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local rows = require "feral.core.rows"
local scope = require "feral.core.scope"
local sources = require "feral.core.source"
local view = require "feral.core.view"
local columns = require "feral.data.columns"
local errors = require "feral.base.errors"

---@class Set
---@field source Source            the pixels: #source samples, source:fetch(i, frame) -> u8 C x H x W
---@field rows Tensor              i32: the numbers of the set's samples in the source, from 1, in the set's order
---@field columns table<string, Tensor|Strings>  name -> values over all samples of the source; "label" is always there
---@field classes string[]         the names of the classes
---@field skipped string[]         what could not be read, each as "path: what is wrong"
---@field steps table[]|nil        what was done to the pixels since their file: { { name = "gray" }, { name = "resize", ... } }
---@field labels Tensor            i32: the class of each row, from 1
---@field paths StringList|nil     where each row came from: paths[i], #paths, ipairs(paths), paths:totable()
---@field images Tensor            u8 N x C x H x W (sequences N x T x C x H x W): all pixels of the rows, read at the first use
local Set = {}

---- Making ----

local function check_images(images)
  if core.is_tensor(images) and images.dtype == "u8" and (images:dim() == 4 or images:dim() == 5) then return end
  errors.raise("data.set: images must be u8 M x C x H x W, or M x T x C x H x W, got %s",
    core.is_tensor(images) and ("%s %s"):format(images.dtype, table.concat(images.shape, "x")) or type(images))
end

--- The images with the channels of a pixel side by side in memory, as a source has them.
local function channels_last(images)
  if images:dim() == 4 then return view.as_image(images) end
  local m, t, c, h, w = table.unpack(images.shape)
  return view.reshape(view.as_image(view.reshape(images, m * t, c, h, w)), m, t, c, h, w)
end

local function check_labels(where, labels, count, classes)
  if type(labels) == "table" and #labels > 0 then labels = create.from_table(labels, "i32") end
  if not core.is_tensor(labels) or labels.dtype ~= "i32" or labels:dim() ~= 1 or #labels ~= count then
    errors.raise("%s: labels must be i32, one for each of the %d images", where, count)
  end
  local place, label = rows.outside(labels, 1, #classes)
  if place then
    errors.raise("%s: label %d is %d, the classes are numbered from 1 to %d", where, place, label, #classes)
  end
  return scope.keep(labels)
end

local function new(fields)
  fields.rows = scope.keep(fields.rows)
  return setmetatable(fields, Set)
end

--- The same set with some fields changed; what is read at the first use is read again.
---@param set Set
---@param changes table
---@return Set
function Set.derive(set, changes)
  local fields = {}
  for _, name in ipairs { "source", "rows", "columns", "classes", "skipped", "steps", "stored" } do
    fields[name] = changes[name]
    if fields[name] == nil then fields[name] = rawget(set, name) end
  end
  return new(fields)
end

--- What the plural names of data.set's fields are called among the columns.
local named = { { "paths", "path" }, { "subjects", "subject" }, { "weights", "weight" }, { "votes", "votes" } }

local function collect_columns(f, count)
  local all = {}
  for _, pair in ipairs(named) do
    local values = f[pair[1]]
    if values and pair[1] == "paths" and #values ~= count then
      errors.raise("data.set: %d images but %d paths", count, #values)
    end
    if values then all[pair[2]] = columns.check("data.set", pair[2], values, count) end
  end
  for _, name in ipairs(columns.names(f.columns)) do
    all[name] = columns.check("data.set", name, f.columns[name], count)
  end
  return all
end

--- A data set of pixels with labels. Tensors are kept: they outlive every scope.
---@param fields table
---   images: u8 M x C x H x W, or M x T x C x H x W; or source: one of feral.core.source
---   labels: i32 M or a list; classes: names in the order of the labels
---   paths, subjects, weights, votes (M x K), columns = { name = values }: all with M values, tensors or lists; optional
---   skipped: list of messages; steps: what was done to the pixels since their file; optional
---@return Set
--- Raises when sizes or labels do not fit.
local function set(fields)
  local f = errors.check_options("data.set", fields, {
    images = false, source = false, labels = false, classes = false, paths = false, subjects = false, weights = false,
    votes = false, columns = {}, skipped = {}, steps = false,
  })
  local source, stored = f.source, nil
  if not source then
    check_images(f.images)
    stored = scope.keep(channels_last(f.images))
    source = sources.memory(stored)
  end
  if type(f.classes) ~= "table" or #f.classes == 0 then errors.raise("data.set: classes must be a list of names") end
  local labels = check_labels("data.set", f.labels, #source, f.classes)
  local all = collect_columns(f, #source)
  all.label = labels
  return new { source = source, stored = stored, rows = rows.range(#source), columns = all, classes = f.classes,
    skipped = f.skipped, steps = f.steps or nil }
end

---- Looking ----

--- How many samples there are; #set gives the same.
function Set:size() return self.rows:size(1) end

Set.__len = Set.size

--- Whether the rows are all samples of the source in its order.
local function is_whole(self) return rows.is_range(self.rows, #self.source) end

--- True when each sample is a sequence of images.
function Set:is_sequential() return self.source:is_sequential() end

--- Samples of each class, in the order of the classes.
---@return integer[]
function Set:counts() return rows.counts(self.labels, #self.classes) end

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
--- Raises where images differ in size.
function Set:image_size()
  local channels, height, width = self.source:image_size()
  if not height then errors.raise("image_size: the images of this set differ in size") end
  return channels, height, width
end

---- Columns ----

--- The values of a column for the rows of the set.
---@param name string  "label", "path", "subject" ...
---@return Tensor|StringList  N, N x ...; strings as list[i], #list, ipairs(list), list:totable()
--- Raises when there is no such column.
function Set:column(name)
  local column = self.columns[name]
  if not column then
    local names = columns.names(self.columns)
    errors.raise("column: there is no '%s'%s (the columns are %s)", tostring(name), errors.hint(name, names),
      table.concat(names, ", "))
  end
  return columns.shown(is_whole(self) and column or columns.take(column, self.rows))
end

--- Adds a column, or puts another in its place: a value for each row of this set. Samples of the source that are not in the
--- set get "", 0, or NaN where the values are floats. Sets that share the source do not see the new column, unless they are
--- made from this one later.
---@param name string
---@param values Tensor|Strings|table  N values, or N x ...
---@return Set self
--- Raises when there are not as many values as rows, or a sample is in the set more than once.
function Set:add_column(name, values)
  local column
  if name == "label" then
    column = check_labels("add_column", values, #self, self.classes)
  else
    column = columns.check("add_column", name, values, #self)
  end
  if not is_whole(self) then
    local _, different = rows.groups(self.rows)
    if different < #self then errors.raise("add_column: a sample is in this set more than once; add the column before") end
    column = columns.spread(column, self.rows, #self.source)
  end
  self.columns = columns.with(self.columns, name, column)
  rawset(self, "labels", nil)
  rawset(self, "paths", nil)
  return self
end

---- Pixels ----

--- One image of the set, without reading the others.
---@param i integer      the row
---@param frame integer|nil  of a sequence, default 1
---@return Tensor|nil    u8 C x H x W
---@return string|nil    "path: what is wrong"
function Set:image(i, frame)
  if math.type(i) ~= "integer" or i < 1 or i > #self then
    errors.raise("image: row %s is outside of 1..%d", tostring(i), #self)
  end
  return self.source:fetch(self.rows[i]:item(), frame)
end

local function first_fault(faults)
  local least = math.huge
  for k in pairs(faults) do least = math.min(least, k) end
  return faults[least]
end

--- All pixels of the rows as one tensor, which outlives scopes.
---@return Tensor|nil  u8 N x C x H x W, or N x T x C x H x W
---@return string|nil  "path: what is wrong"
--- Raises when the images differ in size, or the sequences in length.
function Set:gather()
  local stored = rawget(self, "stored")
  if stored and is_whole(self) then return stored end
  local channels, height, width = self:image_size()
  local frames = self.source:frames()
  local images = scope.keep(view.permute(create.empty({ #self * frames, height, width, channels }, "u8"), 1, 4, 2, 3))
  local fault = first_fault(self.source:read(self.rows, images))
  if fault then return nil, fault end
  if not self:is_sequential() then return images end
  return scope.keep(view.reshape(images, #self, frames, channels, height, width))
end

--- Fields that are made when they are first asked for.
local lazy = {
  labels = function(self) return self:column("label") end,
  paths = function(self) return self.columns.path and self:column("path") or nil end,
  images = function(self)
    local images, message = self:gather()
    if not images then errors.raise("set.images: %s", message) end
    return images
  end,
}

function Set:__index(name)
  if Set[name] ~= nil then return Set[name] end
  local value = lazy[name] and lazy[name](self)
  if value ~= nil then rawset(self, name, value) end
  return value
end

---- Printing ----

local function padded(name, width) return name .. (" "):rep(width - (utf8.len(name) or #name)) end

local kinds = { cache = "%.1f MB in a file", files = "read from files", drawn = "drawn on demand", joined = "%.1f MB" }

--- "28709 images of 1 x 48 x 48 (66.1 MB)"
local function describe_pixels(self)
  local source = self.source
  local channels, height, width = source:image_size()
  local what = self:is_sequential() and ("sequences of %d images"):format(source:frames()) or "images"
  local size = height and ("%d x %d x %d"):format(channels, height, width) or "different sizes"
  local bytes = #self * source:frames() * channels * (height or 0) * (width or 0)
  local kind = (kinds[source:kind()] or "%.1f MB"):format(bytes / 1e6)
  return ("%d %s of %s (%s)"):format(#self, what, size, kind)
end

--- What is in the set, as text: a line about the images and one for each class.
---@return string
function Set:describe()
  local counts, width, others = self:counts(), 0, {}
  local lines = { ("%s, %d classes"):format(describe_pixels(self), #self.classes) }
  for _, name in ipairs(self.classes) do width = math.max(width, utf8.len(name) or #name) end
  local most = math.max(table.unpack(counts))
  for c, name in ipairs(self.classes) do
    lines[#lines + 1] = ("  %s %7d  %5.1f %%  %s"):format(padded(name, width), counts[c], 100 * counts[c] / #self,
      ("#"):rep(math.floor(30 * counts[c] / most + 0.5)))
  end
  for _, name in ipairs(columns.names(self.columns)) do
    if name ~= "label" and name ~= "path" then others[#others + 1] = name end
  end
  if #others > 0 then lines[#lines + 1] = "  columns: " .. table.concat(others, ", ") end
  if #self.skipped > 0 then lines[#lines + 1] = ("  %d could not be read"):format(#self.skipped) end
  return table.concat(lines, "\n")
end

Set.__tostring = Set.describe

for name, method in pairs(require "feral.data.picking") do Set[name] = method end
Set.concat = require "feral.data.concat"
Set.cache = require("feral.data.cache").write

return set
