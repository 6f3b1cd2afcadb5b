local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local create = require "feral.core.create"

--- x where it is positive, else weight * x, with a weight that is learned: one for all, or one a channel.
---@class PReLU : Module
local PReLU = nn.class "PReLU"

---@param channels integer|nil  default 1: one weight for all
---@param start number|nil      of the weights, default 0.25
function PReLU:init(channels, start)
  self:add_parameter("weight", create.full({ channels or 1 }, start or 0.25))
end

---@param x Tensor  N x C or N x C x ...
---@return Tensor   of the same shape
function PReLU:forward(x) return activations.prelu(x, self.weight) end

return PReLU
