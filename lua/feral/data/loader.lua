--- data.loader: batches of a data set, gathered, varied and converted in one call of the engine each.

local augment = require "feral.augment"
local arith = require "feral.core.arith"
local create = require "feral.core.create"
local index = require "feral.core.index"
local reduce = require "feral.core.reduce"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local preprocess = require "feral.preprocess"
local errors = require "feral.errors"

---@class Loader
---@field set Set
---@field classes string[]
---@field preprocessing Preprocessing  for the model file: a raw image then gives what training saw
local Loader = {}
Loader.__index = Loader

local ORDER_STREAM = 4 << 40 -- random numbers that nothing else draws

---- Preprocessing ----

--- Mean and standard deviation of all samples, as numbers of 0 to 1.
local function statistics(images)
  local sum, squares, chunk = 0, 0, 256
  for first = 1, images:size(1), chunk do
    local _open <close> = scope.scope()
    local part = arith.div(view.narrow(images, 1, first, math.min(chunk, images:size(1) - first + 1)), 255)
    sum = sum + reduce.sum(part):item()
    squares = squares + reduce.sum(arith.mul(part, part)):item()
  end
  local count = images:numel()
  local mean = sum / count
  return mean, math.sqrt(math.max(squares / count - mean * mean, 1e-6))
end

local function preprocessing_of(set, o)
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
  if o.normalize then mean, std = statistics(set.images) end
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
  local p = preprocessing_of(set, o)
  return setmetatable({
    set = set, classes = set.classes, preprocessing = p, batch = o.batch, shuffle = o.shuffle, seed = o.seed,
    drop_last = o.drop_last, settings = settings_of(o.augment, p),
    frames = set:is_sequential() and set.images:size(2) or nil,
    images = set:is_sequential() and scope.keep(view.reshape(set.images, -1, p.channels, p.height, p.width)) or set.images,
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

--- For sequences: the numbers of the frames of these samples, and for each the number of its sample, which its variation
--- depends on: all frames of a sequence are turned and lit alike.
local function frames_of(samples, frames)
  local count = samples:size(1)
  local numbers = view.expand(view.unsqueeze(samples, 2), count, frames)
  local first = arith.mul(arith.sub(numbers, 1), frames)
  local steps = {}
  for k = 1, frames do steps[k] = k end
  return arith.to(view.reshape(arith.add(first, create.from_table(steps)), count * frames), "i32"),
    view.reshape(numbers, count * frames)
end

--- The images of these samples as a network sees them.
function Loader:gather(samples, epoch)
  local p, count = self.preprocessing, samples:size(1) * (self.frames or 1)
  local x = view.permute(create.empty { count, p.height, p.width, p.channels }, 1, 4, 2, 3)
  if not self.frames then return augment.batch(x, self.images, samples, self.settings, self.seed, epoch) end
  local positions, numbers = frames_of(samples, self.frames)
  augment.batch(x, self.images, positions, self.settings, self.seed, epoch, numbers)
  return view.reshape(x, samples:size(1), self.frames, p.channels, p.height, p.width)
end

--- The batches of an epoch: for x, y in loader:batches(epoch) do ... end. What a batch holds is a function of the seed, the
--- epoch and its number, so a training can go on in the middle: batches(epoch, first). x and y belong to the caller's scope.
---@param epoch integer|nil  default 1
---@param first integer|nil  the number of the first batch, default 1
---@return fun(): Tensor|nil, Tensor|nil  x: f32 N x C x H x W (sequences: N x T x C x H x W), y: i32 N
function Loader:batches(epoch, first)
  epoch = epoch or 1
  local order, number = scope.keep(self:order(epoch)), (first or 1) - 1
  return function()
    if number >= #self then return nil end
    local from = number * self.batch + 1
    local samples = view.narrow(order, 1, from, math.min(self.batch, #self.set - from + 1))
    number = number + 1
    return self:gather(samples, epoch), index.index_select(self.set.labels, 1, samples)
  end
end

return loader
