local nn = require "feral.nn"
local pooling = require "feral.tensor.pooling"
local errors = require "feral.base.errors"

--- The largest value of each window of an image. A NaN in a window wins.
---@class MaxPool2d : Module
local MaxPool2d = nn.class "MaxPool2d"

---@param kernel integer|integer[]  size of the window, or {height, width}
---@param options table|nil  stride = kernel, padding = 0 (each a whole number or {height, width}), ceil = false: whether a
---  last window may stand out at the bottom and the right
function MaxPool2d:init(kernel, options)
  options = errors.check_options("MaxPool2d", options, { stride = false, padding = 0, ceil = false })
  self.geometry = pooling.geometry("MaxPool2d", kernel, options)
end

---@param x Tensor  N x C x H x W
---@return Tensor   N x C x H' x W',  H' = (H + 2 padding - kernel) // stride + 1
--- Raises when a window is larger than x.
function MaxPool2d:forward(x) return pooling.max(x, self.geometry) end

return MaxPool2d
