local nn = require "feral.nn"
local pooling = require "feral.tensor.pooling"
local errors = require "feral.base.errors"

--- The mean of each window of an image.
---@class AvgPool2d : Module
local AvgPool2d = nn.class "AvgPool2d"

---@param kernel integer|integer[]  size of the window, or {height, width}
---@param options table|nil  stride = kernel, padding = 0 (each a whole number or {height, width}), ceil = false: whether a
---  last window may stand out at the bottom and the right, count_include_pad = true: whether the zeros of the padding count
function AvgPool2d:init(kernel, options)
  options = errors.check_options("AvgPool2d", options,
    { stride = false, padding = 0, ceil = false, count_include_pad = true })
  self.geometry = pooling.geometry("AvgPool2d", kernel, options)
end

---@param x Tensor  N x C x H x W
---@return Tensor   N x C x H' x W',  H' = (H + 2 padding - kernel) // stride + 1
--- Raises when a window is larger than x.
function AvgPool2d:forward(x) return pooling.mean(x, self.geometry) end

return AvgPool2d
