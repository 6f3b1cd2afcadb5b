local nn = require "feral.nn"
local Conv2d = require "feral.nn.layers.conv2d"
local relu_along = require "feral.tensor.relu"
local errors = require "feral.base.errors"
local sizes = require "feral.base.sizes"

--- Convolution of each channel with a filter of its own.
---@class DepthwiseConv2d : Module
local DepthwiseConv2d = nn.class "DepthwiseConv2d"

--- The same as Conv2d(channels, channels, kernel, {groups = channels}). Weights start uniform within 1/sqrt(KH KW).
---@param channels integer
---@param kernel integer|integer[]  size, or {height, width}
---@param options table|nil  stride = 1, padding = 0 (or "same", "valid"), dilation = 1 (each a whole number or {height, width}),
---  bias = true
function DepthwiseConv2d:init(channels, kernel, options)
  options = errors.check_options("DepthwiseConv2d", options, { stride = 1, padding = 0, dilation = 1, bias = true })
  channels = sizes.whole("DepthwiseConv2d", "channels", channels)
  local kh, kw
  self.geometry, kh, kw = Conv2d.geometry("DepthwiseConv2d", kernel, options, channels)
  local bound = 1 / math.sqrt(kh * kw)
  self:add_parameter("weight", nn.uniform({ channels, 1, kh, kw }, bound))
  if options.bias then self:add_parameter("bias", nn.uniform({ channels }, bound)) end
end

---@param x Tensor  N x channels x H x W
---@param relu boolean|nil  with a ReLU behind it, in the same memory
---@return Tensor   N x channels x H' x W', as Conv2d's
--- Raises when x has other channels, or is smaller than the kernel.
function DepthwiseConv2d:forward(x, relu)
  local y = Conv2d.apply(x, self.weight, self.bias, self.geometry)
  return relu and relu_along.fresh(y) or y
end

DepthwiseConv2d.takes_relu = DepthwiseConv2d.forward

return DepthwiseConv2d
