--- projection: features y = (x - mean) W, as of a principal component analysis.

local stages = require "feral.model.stages"
local core = require "feral.core.tensor"
local arith = require "feral.core.arith"
local matmul = require "feral.core.matmul"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local errors = require "feral.base.errors"

---@class ProjectionStage : Stage
---@field mean Tensor    D
---@field weight Tensor  D x K
local Projection = stages.class("projection", "feature")

local function check(t, name, dims)
  if not core.is_tensor(t) or t.dtype ~= core.real or t:dim() ~= dims then
    errors.raise("model.stages.projection: %s must be a tensor of %s with %d dimension%s, got %s", name, core.real, dims,
      dims == 1 and "" or "s", core.is_tensor(t) and ("%s %s"):format(t.dtype, table.concat(t.shape, "x")) or type(t))
  end
end

---@param mean Tensor    D
---@param weight Tensor  D x K; of a PCA the first K components, a column each
function Projection:init(mean, weight)
  check(mean, "mean", 1)
  check(weight, "weight", 2)
  if #mean ~= #weight then
    errors.raise("model.stages.projection: the mean has %d numbers, the weight %d rows", #mean, #weight)
  end
  self.mean, self.weight, self.inputs = scope.keep(mean), scope.keep(weight), #mean
end

function Projection:state() return { { "mean", self.mean }, { "weight", self.weight } } end

---@param x Tensor  N x ..., D numbers a sample
---@return Tensor   N x K
function Projection:apply(x)
  if x:numel() ~= x:size(1) * self.inputs then
    errors.raise("projection: input is %s, N x %d expected", table.concat(x.shape, "x"), self.inputs)
  end
  return matmul.matmul(arith.sub(view.reshape(x, x:size(1), self.inputs), self.mean), self.weight)
end

function Projection:text() return ("%d numbers to %d"):format(self.inputs, self.weight:size(2)) end

function Projection.build(_, tensors)
  local made, stage = errors.attempt(Projection, tensors.mean, tensors.weight)
  if not made then return nil, stage end
  return stage
end

return Projection
