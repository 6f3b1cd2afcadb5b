local nn = require "feral.nn"
local core = require "feral.core.conv2d"
local node = require("feral.core.tensor").node
local autograd = require "feral.tensor.autograd"
local relu_along = require "feral.tensor.relu"
local errors = require "feral.base.errors"
local sizes = require "feral.base.sizes"

--- Convolution of images.
---@class Conv2d : Module
local Conv2d = nn.class "Conv2d"

--- Zeros at top, left, bottom and right. "same" keeps the size of the input; of an odd number the last side gets more.
local function padding(where, value, kh, kw, stride_h, stride_w, dilation_h, dilation_w)
  if value == "valid" then value = 0 end
  if value == "same" then
    if stride_h ~= 1 or stride_w ~= 1 then errors.raise("%s: padding \"same\" needs a stride of 1", where) end
    local h, w = dilation_h * (kh - 1), dilation_w * (kw - 1)
    return h // 2, w // 2, h - h // 2, w - w // 2
  end
  if type(value) == "string" then
    errors.raise("%s: padding must be a whole number, {height, width}, \"same\" or \"valid\", got \"%s\"", where, value)
  end
  local h, w = sizes.pair(where, "padding", value, 0)
  return h, w, h, w
end

--- What the engine's convolutions take as options, from those of a person.
---@param where string  for messages
---@param kernel integer|integer[]
---@param options {stride: integer|integer[], padding: integer|integer[]|string, dilation: integer|integer[]}
---@param groups integer
---@return integer[] geometry
---@return integer kh
---@return integer kw
---@internal
function Conv2d.geometry(where, kernel, options, groups)
  local kh, kw = sizes.pair(where, "kernel", kernel)
  local stride_h, stride_w = sizes.pair(where, "stride", options.stride)
  local dilation_h, dilation_w = sizes.pair(where, "dilation", options.dilation)
  local top, left, bottom, right = padding(where, options.padding, kh, kw, stride_h, stride_w, dilation_h, dilation_w)
  return { stride_h, stride_w, top, left, bottom, right, dilation_h, dilation_w, groups }, kh, kw
end

--- Convolution with its gradients.
---@param x Tensor  N x C x H x W
---@param weight Tensor  F x C/groups x KH x KW
---@param bias Tensor|nil  F
---@param geometry integer[]  from Conv2d.geometry
---@return Tensor  N x F x H' x W'
---@internal
function Conv2d.apply(x, weight, bias, geometry)
  local y = core.forward(x, weight, bias, geometry)
  if not autograd.wanted(x, weight, bias) then return y end
  local x_shape, w_shape = x.shape, weight.shape
  return autograd.record(y, { x, weight, bias, n = 3 }, function(g)
    return node(x) and core.backward_input(g, weight, geometry, x_shape),
      node(weight) and core.backward_weight(g, x, geometry, w_shape),
      node(bias) and core.backward_bias(g)
  end)
end

--- y = x * weight + bias for images of 'inputs' channels. Weights start as PyTorch's, uniform within 1/sqrt(inputs/groups KH KW).
---@param inputs integer
---@param outputs integer
---@param kernel integer|integer[]  size, or {height, width}
---@param options table|nil  stride = 1, padding = 0 (or "same", "valid"), dilation = 1 (each a whole number or {height, width}),
---  groups = 1, bias = true
function Conv2d:init(inputs, outputs, kernel, options)
  options = errors.check_options("Conv2d", options, { stride = 1, padding = 0, dilation = 1, groups = 1, bias = true })
  inputs = sizes.whole("Conv2d", "input channels", inputs)
  outputs = sizes.whole("Conv2d", "output channels", outputs)
  local groups = sizes.whole("Conv2d", "groups", options.groups)
  if inputs % groups ~= 0 or outputs % groups ~= 0 then
    errors.raise("Conv2d: groups = %d does not divide %d input and %d output channels", groups, inputs, outputs)
  end
  local kh, kw
  self.geometry, kh, kw = Conv2d.geometry("Conv2d", kernel, options, groups)
  local bound = 1 / math.sqrt(inputs // groups * kh * kw)
  self:add_parameter("weight", nn.uniform({ outputs, inputs // groups, kh, kw }, bound))
  if options.bias then self:add_parameter("bias", nn.uniform({ outputs }, bound)) end
end

---@param x Tensor  N x inputs x H x W
---@param relu boolean|nil  with a ReLU behind it, in the same memory
---@return Tensor   N x outputs x H' x W',  H' = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1
--- Raises when x has other channels, or is smaller than the kernel.
function Conv2d:forward(x, relu)
  local y = Conv2d.apply(x, self.weight, self.bias, self.geometry)
  return relu and relu_along.fresh(y) or y
end

Conv2d.takes_relu = Conv2d.forward

return Conv2d
