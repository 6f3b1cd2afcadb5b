--- relu.lua: the ReLU that a layer does along the way, see nn.Sequential.

local activation = require "feral.core.activation"
local autograd = require "feral.tensor.autograd"

local relu = {}

--- In the memory of y: for a result that nobody else has seen, and that its own backward does not look at.
---@param y Tensor
---@return Tensor y
function relu.fresh(y)
  activation.relu_(y)
  if not autograd.wanted(y) then return y end
  return autograd.record(y, { y }, function(g) return activation.relu_backward(g, y, nil, autograd.may_overwrite(g)) end)
end

--- Of the sum of two tensors of the same shape.
---@param a Tensor
---@param b Tensor
---@param in_place boolean|nil  a is fresh, as above: the result lies there
---@return Tensor
function relu.sum(a, b, in_place)
  local y = activation.add_relu(a, b, in_place)
  if not autograd.wanted(a, b) then return y end
  return autograd.record(y, { a, b }, function(g)
    local both = activation.relu_backward(g, y, nil, autograd.may_overwrite(g))
    return both, both
  end)
end

return relu
