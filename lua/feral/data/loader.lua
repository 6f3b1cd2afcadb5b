--- data.loader: batches of a data set, gathered, varied and converted by the engine while the last ones are in use.

local core = require "feral.core.batches"
local arith = require "feral.core.arith"
local core_tensor = require "feral.core.tensor"
local create = require "feral.core.create"
local index = require "feral.core.index"
local reduce = require "feral.core.reduce"
local rows = require "feral.core.rows"
local view = require "feral.core.view"
local columns = require "feral.data.columns"
local preprocess = require "feral.steps.preprocess"
local steps = require "feral.steps"
local errors = require "feral.base.errors"

---@class Loader
---@field set Set
---@field classes string[]
---@field preprocessing StepList  for the model file: a raw image then gives what training saw
---@field list StepList  what this loader does to the set's images
---@field waited number  seconds that its users have waited for batches
local Loader = {}
Loader.__index = Loader

local ORDER_STREAM = require("feral.tensor.random").streams.order

---- Preprocessing ----

--- Mean and standard deviation as option normalize asks for them.
local function numbers_of(set, o)
  if not o.normalize then return o.mean, o.std end
  if o.normalize ~= "set" then
    errors.raise("data.loader: normalize '%s' is unknown: \"set\", or options mean and std", tostring(o.normalize))
  end
  return core.statistics(set.images)
end

--- What makes a set's images of raw ones: what they have been through since they were files; where nobody knows, to their
--- channels and size.
local function steps_of(set)
  if set.steps then return preprocess.check(set.steps) end
  local channels, height, width = set:image_size()
  return steps { channels == 3 and steps.rgb() or steps.gray(), steps.resize(height, width) }
end

--- True when images that have been made colour images, and no more, give what raw ones would.
local function is_raw(done, whole)
  return #done == 0 or #done == 1 and done[1].name == "rgb" and (whole:has "gray" or whole:has "rgb")
end

--- The whole list from a raw image on, and the part of it that the set's images have still to go through.
local function lists_of(set, o)
  if o.preprocessing then
    local whole = preprocess.check(o.preprocessing)
    if not set.steps then return whole, whole end -- images as somebody gave them
    local done = preprocess.check(set.steps)
    if whole:begins_with(done) then return whole, whole:slice(#done + 1) end
    if is_raw(done, whole) then return whole, whole end
    errors.raise("data.loader: the preprocessing is %s, the set's images have been through %s", tostring(whole), tostring(done))
  end
  local rest = o.preprocess and steps.list(o.preprocess) or steps {}
  if not rest:has "normalize" then rest = rest .. steps { steps.normalize(numbers_of(set, o)) } end
  return steps_of(set) .. rest, rest
end

---- Labels ----

--- 1 at the class of each sample.
---@return Tensor  f32 N x classes
local function one_hot(labels, classes)
  local n = #labels
  return index.scatter_(create.full({ n, classes }, 0), 2, view.reshape(labels, n, 1), create.full({ n, 1 }, 1))
end

--- The shares of votes that each class got; where there are none, 0.
---@return Tensor  f32 N x classes
local function shares(votes)
  votes = votes:to(core_tensor.real)
  return arith.div(votes, arith.maximum(reduce.sum(votes, 2, true), 1e-12))
end

--- Labels of samples as the loader gives them: numbers of classes, or shares of votes.
local function labels_at(self, places)
  if self.targets == "votes" then return shares(rows.take(self.votes, places)) end
  return rows.take(self.set.labels, places)
end

local function check_targets(set, targets)
  if targets == "labels" then return nil end
  if targets ~= "votes" then
    errors.raise("data.loader: targets must be \"labels\" or \"votes\", got %s", tostring(targets))
  end
  local votes = set:column "votes"
  if votes:dim() ~= 2 or votes:size(2) ~= #set.classes then
    errors.raise("data.loader: votes are %s, N x %d expected for the classes", table.concat(votes.shape, "x"), #set.classes)
  end
  return votes
end

---- Batches ----

--- Batches of a data set for training and scoring.
---
--- Options: batch (64); shuffle (true); augment (a list of steps: how training images vary; nil: not at all); seed (0);
--- drop_last (false): leave out a last batch that is not full; preprocess (a list of steps that all images go through);
--- mean (0.5) and std (0.25), of values of 0 to 1, the same for all sets; normalize ("set"): mean and std of this very set;
--- preprocessing: that of another loader or of a model instead; training: whether random steps act (default: with shuffle or
--- augment); targets ("labels"; "votes": y holds the shares of the set's votes, f32 N x classes).
--- What is scored must see the numbers of the training: data.loader(test, { preprocessing = loader.preprocessing }).
---@param set Set
---@param options table|nil
---@return Loader
local function loader(set, options)
  local o = errors.check_options("data.loader", options, {
    batch = 64, shuffle = true, augment = false, seed = 0, drop_last = false, mean = 0.5, std = 0.25, normalize = false,
    preprocess = false, preprocessing = false, targets = "labels", "training",
  })
  if math.type(o.batch) ~= "integer" or o.batch < 1 then errors.raise("data.loader: batch must be a whole number from 1") end
  if o.drop_last and o.batch > #set then
    errors.raise("data.loader: a batch of %d with drop_last leaves nothing of %d samples", o.batch, #set)
  end
  local whole, rest = lists_of(set, o)
  local list = o.augment and rest:with(steps.list(o.augment)) or rest
  if o.training == nil then o.training = o.shuffle or o.augment and true or false end
  return setmetatable({
    set = set, classes = set.classes, preprocessing = whole, list = list, batch = o.batch, shuffle = o.shuffle, seed = o.seed,
    drop_last = o.drop_last, training = o.training, waited = 0, targets = o.targets, votes = check_targets(set, o.targets),
  }, Loader)
end

--- How many batches an epoch has; #loader gives the same.
function Loader:size()
  return self.drop_last and #self.set // self.batch or (#self.set + self.batch - 1) // self.batch
end

Loader.__len = Loader.size

--- The numbers of the samples in the order of an epoch, a function of (seed, epoch) alone.
function Loader:order(epoch)
  if self.shuffle then return create.permutation(#self.set, self.seed, ORDER_STREAM + epoch) end
  local order = {}
  for i = 1, #self.set do order[i] = i end
  return create.from_table(order, "i32")
end

---@class Batch  what came with the samples of a batch; any column of the set beside: batch.weight, batch.path ...
---@field index Tensor    i32 N: their places in the set
---@field lengths Tensor  i32 N: frames of each, of sequences
---@field maps Tensor     f32 N x 6: where pixel (x, y) of a sample lies in the set's image, see steps.map
---@field second Tensor|nil  i32 N: the place in the set of what was mixed in, its own where nothing was
---@field part Tensor|nil    f32 N: how much of the first one is in the mixture
local Batch = {}

function Batch.__index(batch, name)
  local set = rawget(batch, "set")
  local column = set.columns[name]
  return column and columns.take(column, rows.take(set.rows, rawget(batch, "index")))
end

--- The places in the set of what was mixed in; a sample's own place where nothing was.
local function mixed_in(order, own, second)
  local list, own_list = create.totable(second), create.totable(own)
  local all = {}
  for i, k in ipairs(list) do all[i] = k > 0 and order[k]:item() or own_list[i] end
  return create.from_table(all, "i32")
end

--- Labels shared between samples and what was mixed into them.
local function mixed_labels(self, labels, batch)
  local others = labels_at(self, batch.second)
  if self.targets == "labels" then
    labels, others = one_hot(labels, #self.classes), one_hot(others, #self.classes)
  end
  local part = view.reshape(batch.part, -1, 1)
  return arith.add(arith.mul(labels, part), arith.mul(others, arith.sub(1, part)))
end

--- The batches of an epoch: for x, y, batch in loader:batches(epoch) do ... end. What a batch holds is a function of the
--- seed, the epoch and its number, so a training can go on in the middle: batches(epoch, first). x and y belong to the
--- caller's scope.
---
--- A thread makes two batches ahead. It ends with the last batch, when a for loop is left, or when the fourth value is
--- closed (local next_batch, _, _, batches <close> = loader:batches()); at the latest when the collector finds it.
---@param epoch integer|nil  default 1
---@param first integer|nil  the number of the first batch, default 1
---@return fun(): Tensor|nil, Tensor|nil, Batch|nil  x: f32 N x C x H x W (sequences: N x T x C x H x W); y: i32 N, or f32
---  N x classes where a step mixes samples
function Loader:batches(epoch, first)
  epoch, first = epoch or 1, first or 1
  if first > #self then return function() end end
  local order = self:order(epoch)
  if self.drop_last then order = view.narrow(order, 1, 1, #self * self.batch) end
  local queue = core.queue(self.set.source, rows.take(self.set.rows, order), order, self.batch, self.list.core, self.training,
    self.seed, epoch, first)
  local at, count = (first - 1) * self.batch + 1, #order
  local function next_batch()
    if at > count then return nil end
    -- what needs memory comes before the batch is taken out: a batch that found none can then be had again
    local batch = setmetatable({
      set = self.set, index = view.narrow(order, 1, at, math.min(self.batch, count - at + 1)), lengths = false, maps = false,
      second = false, part = false,
    }, Batch)
    local labels = labels_at(self, batch.index)
    local x, frames, second, part, maps, seconds = queue:next()
    if not x then return nil end
    self.waited, at = self.waited + seconds, at + #frames
    batch.lengths, batch.maps, batch.second, batch.part = frames, maps, nil, nil
    if second then
      batch.second, batch.part = mixed_in(order, batch.index, second), part
      labels = mixed_labels(self, labels, batch)
    end
    return x, labels, batch
  end
  return next_batch, nil, nil, queue
end

return loader
