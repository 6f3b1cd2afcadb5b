--- activations.lua: activation functions and softmax, with gradients. feral.ops has them too, and tensors as methods.

local activation = require "feral.core.activation"
local softmax_core = require "feral.core.softmax"
local arith = require "feral.core.arith"
local reduce = require "feral.core.reduce"
local view = require "feral.core.view"
local core = require "feral.core.tensor"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"

local activations = {}

local wanted, record, may_overwrite, node = autograd.wanted, autograd.record, autograd.may_overwrite, core.node

--- A function whose gradient comes from its output ('saves' is "output") or its input, and from its parameter.
local function elementwise(name, forward, saves, default)
  local backward = activation[name .. "_backward"]
  activations[name] = function(x, parameter)
    parameter = parameter or default
    local out = forward(x, parameter)
    if not wanted(x) then return out end
    local saved = saves == "output" and out or x
    return record(out, { x }, function(g) return backward(g, saved, parameter, may_overwrite(g)) end)
  end
end

--- relu(x): x where it is positive, else 0.
elementwise("relu", activation.relu, "output")

--- leaky_relu(x, slope): x where it is positive, else slope * x; slope is 0.01 unless given.
elementwise("leaky_relu", activation.leaky_relu, "input", 0.01)

--- elu(x, alpha): x where it is positive, else alpha * (e^x - 1); alpha is 1 unless given (Clevert et al. 2016).
elementwise("elu", activation.elu, "input", 1)

--- gelu(x): x * Phi(x), Phi the normal distribution function: the exact form, not the one with tanh (Hendrycks and Gimpel 2016).
elementwise("gelu", activation.gelu, "input")

--- silu(x): x * sigmoid(x), also called swish (Elfwing et al. 2018).
elementwise("silu", activation.silu, "input")

--- sigmoid(x): The logistic function 1 / (1 + e^-x) of each element.
elementwise("sigmoid", arith.sigmoid, "output")

--- tanh(x): The hyperbolic tangent of each element.
elementwise("tanh", arith.tanh, "output")

--- A weight of one element a channel, shaped to broadcast over an input whose second dimension are the channels.
local function by_channel(weight, x)
  local n, dims = weight:numel(), x:dim()
  if n == 1 then return view.reshape(weight, 1) end
  if dims < 2 or x:size(2) ~= n then
    errors.raise("prelu: the weight has %d elements, the input %s has not as many channels", n, table.concat(x.shape, "x"))
  end
  local sizes = { n }
  for d = 3, dims do sizes[d - 1] = 1 end
  return view.reshape(weight, sizes)
end

--- Sums over all dimensions but the second.
local function sum_by_channel(t)
  local order = { 1 }
  for d = 3, t:dim() do order[d - 1] = d end
  order[t:dim()] = 2
  return reduce.sum(view.reshape(view.permute(t, order), -1, t:size(2)), 1)
end

--- x where it is positive, else weight * x, with a weight that is learned (He et al. 2015).
---@param x Tensor  N x C or N x C x ...
---@param weight Tensor  C, or 1
function activations.prelu(x, weight)
  local w = by_channel(weight, x)
  local out = activation.prelu(x, w)
  if not wanted(x, weight) then return out end
  return record(out, { x, weight }, function(g)
    local dx, dw
    if node(x) then dx = arith.mul(activation.prelu_slope(x, w), g) end
    if node(weight) then
      local slopes = arith.mul(arith.minimum(x, 0), g)
      dw = view.reshape(weight:numel() == 1 and reduce.sum(slopes) or sum_by_channel(slopes), weight.shape)
    end
    return dx, dw
  end)
end

local function along_dimension(name)
  local forward, backward = softmax_core[name], softmax_core[name .. "_backward"]
  activations[name] = function(x, dim)
    if not dim then errors.raise("%s: which dimension? x:%s(2) is over the classes of N x classes", name, name) end
    local out = forward(x, dim)
    if not wanted(x) then return out end
    return record(out, { x }, function(g) return backward(g, out, dim) end)
  end
end

--- softmax(x, dim): e^x over its sum along a dimension.
---@param x Tensor
---@param dim integer  2 for the classes of N x classes
---@return Tensor  of x's shape
--- Raises without a dimension.
along_dimension("softmax")

--- log_softmax(x, dim): The logarithm of softmax, exact where softmax is nearly 0.
along_dimension("log_softmax")

return activations
