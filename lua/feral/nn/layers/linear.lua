local nn = require "feral.nn"
local matmul = require("feral.core.matmul").matmul
local arith = require "feral.core.arith"
local reduce = require "feral.core.reduce"
local view = require "feral.core.view"
local node = require("feral.core.tensor").node
local autograd = require "feral.tensor.autograd"
local relu_along = require "feral.tensor.relu"
local errors = require "feral.base.errors"

--- Dense layer: y = x W^T + b.
---@class Linear : Module
local Linear = nn.class "Linear"

---@param inputs integer
---@param outputs integer
---@param options {bias: boolean}|nil  default true
function Linear:init(inputs, outputs, options)
  options = errors.check_options("Linear", options, { bias = true })
  local bound = 1 / math.sqrt(inputs)
  self.inputs = inputs
  self:add_parameter("weight", nn.uniform({ outputs, inputs }, bound))
  if options.bias then self:add_parameter("bias", nn.uniform({ outputs }, bound)) end
end

local function apply(x, weight, bias)
  local y = matmul(x, view.transpose(weight))
  if bias then arith.add_(y, bias) end
  if not autograd.wanted(x, weight, bias) then return y end
  return autograd.record(y, { x, weight, bias, n = 3 }, function(g)
    return node(x) and matmul(g, weight), node(weight) and matmul(view.transpose(g), x), node(bias) and reduce.sum(g, 1)
  end)
end

---@param x Tensor  N x inputs
---@param relu boolean|nil  with a ReLU behind it, in the same memory
---@return Tensor   N x outputs
function Linear:forward(x, relu)
  if x:dim() ~= 2 or x:size(2) ~= self.inputs then
    errors.raise("Linear: input is %s, N x %d expected", table.concat(x.shape, "x"), self.inputs)
  end
  local y = apply(x, self.weight, self.bias)
  return relu and relu_along.fresh(y) or y
end

Linear.takes_relu = Linear.forward

return Linear
