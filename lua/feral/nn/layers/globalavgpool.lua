local nn = require "feral.nn"
local pooling = require "feral.tensor.pooling"
local errors = require "feral.base.errors"

--- The mean of each channel over the whole image, ready for a Linear.
---@class GlobalAvgPool : Module
local GlobalAvgPool = nn.class "GlobalAvgPool"

function GlobalAvgPool:init(options) errors.check_options("GlobalAvgPool", options, {}) end

---@param x Tensor  N x C x H x W
---@return Tensor   N x C
function GlobalAvgPool:forward(x) return pooling.global_mean(x) end

return GlobalAvgPool
