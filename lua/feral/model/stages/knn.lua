--- knn: the classes of the nearest training samples by Euclidean distance (Fix and Hodges 1951).

local stages = require "feral.model.stages"
local core = require "feral.core.tensor"
local create = require "feral.core.create"
local arith = require "feral.core.arith"
local index = require "feral.core.index"
local matmul = require "feral.core.matmul"
local reduce = require "feral.core.reduce"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local errors = require "feral.base.errors"

---@class KnnStage : Stage
---@field rows Tensor    M x D
---@field labels Tensor  i32 M
---@field k integer
---@field classes integer
local Knn = stages.class("knn", "classify")

Knn.likelihood = true

local function is_tensor(t, dtype, dims) return core.is_tensor(t) and t.dtype == dtype and t:dim() == dims end

local function is_whole(n, most) return math.type(n) == "integer" and n >= 1 and n <= most end

local function check_labels(labels, count, classes)
  if not is_tensor(labels, "i32", 1) or #labels ~= count then
    errors.raise("model.stages.knn: labels must be i32, one for each of the %d samples", count)
  end
  local largest = 0
  for i, label in ipairs(create.totable(labels)) do
    largest = math.max(largest, label)
    if label < 1 or label > (classes or label) then
      errors.raise("model.stages.knn: label %d is %d, the classes are numbered from 1%s", i, label,
        classes and " to " .. classes or "")
    end
  end
  return classes or largest
end

---@param x Tensor  M x D, the training samples' features
---@param labels Tensor  i32 M
---@param options {k: integer, classes: integer}|nil  neighbours asked (5); how many classes there are (the largest label)
function Knn:init(x, labels, options)
  local o = errors.check_options("model.stages.knn", options, { k = 5, classes = false })
  if not is_tensor(x, core.real, 2) then errors.raise("model.stages.knn: features must be a tensor N x D of %s", core.real) end
  if not is_whole(o.k, #x) then
    errors.raise("model.stages.knn: k must be a whole number from 1 to the %d samples, got %s", #x, tostring(o.k))
  end
  if o.classes and not is_whole(o.classes, 1 << 20) then
    errors.raise("model.stages.knn: classes must be a whole number from 1, got %s", tostring(o.classes))
  end
  self.classes, self.k, self.inputs = check_labels(labels, #x, o.classes), o.k, x:size(2)
  self.rows, self.labels = scope.keep(x), scope.keep(labels)
end

function Knn:describe() return { k = self.k, classes = self.classes } end

function Knn:names(given)
  if not given then
    given = {}
    for c = 1, self.classes do given[c] = tostring(c) end
  end
  if #given == self.classes then return given end
  return nil, ("%d classes are named (%s), but the neighbours are of %d"):format(#given, table.concat(given, ", "), self.classes)
end

function Knn:state() return { { "rows", self.rows }, { "labels", self.labels } } end

--- Scores are logarithms of probabilities: the share of the neighbours, one more of whom is spread over all classes, so that
--- none is impossible.
---@param x Tensor  N x D
---@return Tensor   N x classes
function Knn:apply(x)
  if x:dim() ~= 2 or x:size(2) ~= self.inputs then
    errors.raise("knn: input is %s, N x %d expected", table.concat(x.shape, "x"), self.inputs)
  end
  local open <close> = scope.scope()
  local lengths = reduce.sum(arith.mul(self.rows, self.rows), 2)
  local nearness = arith.sub(arith.mul(matmul.matmul(x, view.transpose(self.rows)), 2), lengths) -- less x's length, all alike
  local _, nearest = index.topk(nearness, self.k)
  local found = index.index_select(self.labels, 1, view.reshape(nearest, -1))
  local votes = reduce.sum(view.reshape(index.one_hot(found, self.classes), x:size(1), self.k, self.classes), 2)
  return open:leave(arith.log(arith.div(arith.add(votes, 1 / self.classes), self.k + 1)))
end

function Knn:text() return ("%d nearest of %d samples of %d numbers"):format(self.k, #self.rows, self.inputs) end

function Knn.build(settings, tensors)
  local made, stage = errors.attempt(Knn, tensors.rows, tensors.labels, { k = settings.k, classes = settings.classes })
  if not made then return nil, stage end
  return stage
end

return Knn
