--- data.loader: batches of a data set, gathered, varied and converted by the engine while the last ones are in use.

local augment = require "feral.steps.augment"
local core = require "feral.core.augment"
local create = require "feral.core.create"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local preprocess = require "feral.steps.preprocess"
local errors = require "feral.base.errors"

---@class Loader
---@field set Set
---@field classes string[]
---@field preprocessing Preprocessing  for the model file: a raw image then gives what training saw
---@field waited number  seconds that its users have waited for batches
local Loader = {}
Loader.__index = Loader

local ORDER_STREAM = 4 << 40 -- random numbers that nothing else draws

---- Preprocessing ----

local function preprocessing_of(set, images, o)
  local channels, height, width = set:image_size()
  local p = o.preprocessing
  if p then
    p = preprocess.check(p)
    if p.channels ~= channels or p.height ~= height or p.width ~= width then
      errors.raise("data.loader: the preprocessing wants images of %d x %d x %d, the set has %d x %d x %d", p.channels,
        p.height, p.width, channels, height, width)
    end
    return p
  end
  if o.normalize and o.normalize ~= "set" then
    errors.raise("data.loader: normalize '%s' is unknown: \"set\", or options mean and std", tostring(o.normalize))
  end
  local mean, std = o.mean, o.std
  if o.normalize then mean, std = core.statistics(images) end
  return preprocess.check { height = height, width = width, channels = channels, mean = mean, std = std }
end

---- Batches ----

--- The variation together with what preprocessing does to samples, as augment.batch takes it.
local function settings_of(variation, p)
  if not getmetatable(variation) then variation = augment.new(variation or nil) end
  return variation:with { mean = p.mean, std = p.std }
end

--- Batches of a data set for training and scoring.
---
--- Options: batch (64); shuffle (true); augment (augment.new's, or its options; nil: images as they are); seed (0);
--- drop_last (false): leave out a last batch that is not full; mean (0.5) and std (0.25), of samples of 0 to 1, the same for
--- all sets; normalize ("set"): mean and std of this very set; preprocessing: that of another loader or of a model instead.
--- What is scored must see the numbers of the training: data.loader(test, { preprocessing = loader.preprocessing }).
---@param set Set
---@param options table|nil
---@return Loader
local function loader(set, options)
  local o = errors.check_options("data.loader", options, {
    batch = 64, shuffle = true, augment = false, seed = 0, drop_last = false, mean = 0.5, std = 0.25, normalize = false,
    preprocessing = false,
  })
  if math.type(o.batch) ~= "integer" or o.batch < 1 then errors.raise("data.loader: batch must be a whole number from 1") end
  if o.drop_last and o.batch > #set then
    errors.raise("data.loader: a batch of %d with drop_last leaves nothing of %d samples", o.batch, #set)
  end
  local images = set.images
  if set:is_sequential() then images = scope.keep(view.reshape(images, -1, set:image_size())) end
  local p = preprocessing_of(set, images, o)
  return setmetatable({
    set = set, classes = set.classes, preprocessing = p, batch = o.batch, shuffle = o.shuffle, seed = o.seed,
    drop_last = o.drop_last, waited = 0, settings = settings_of(o.augment, p),
    frames = set:is_sequential() and set.images:size(2) or nil, images = images,
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

--- The batches of an epoch: for x, y in loader:batches(epoch) do ... end. What a batch holds is a function of the seed, the
--- epoch and its number, so a training can go on in the middle: batches(epoch, first). x and y belong to the caller's scope.
---
--- A thread makes two batches ahead. It ends with the last batch, when a for loop is left, or when the fourth value is
--- closed (local next_batch, _, _, batches <close> = loader:batches()); at the latest when the collector finds it.
---@param epoch integer|nil  default 1
---@param first integer|nil  the number of the first batch, default 1
---@return fun(): Tensor|nil, Tensor|nil  x: f32 N x C x H x W (sequences: N x T x C x H x W), y: i32 N
function Loader:batches(epoch, first)
  epoch, first = epoch or 1, first or 1
  if first > #self then return function() end end
  local from, last = (first - 1) * self.batch + 1, self.drop_last and #self * self.batch or #self.set
  local queue = core.queue(self.images, self.set.labels, view.narrow(self:order(epoch), 1, from, last - from + 1), self.batch,
    self.frames, self.settings, self.seed, epoch)
  local function next_batch()
    local x, y, seconds = queue:next()
    if not x then return nil end
    self.waited = self.waited + seconds
    return x, y
  end
  return next_batch, nil, nil, queue
end

return loader
