local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- x where it is positive, else slope * x.
---@class LeakyReLU : Module
local LeakyReLU = nn.class "LeakyReLU"

---@param slope number|nil  default 0.01
function LeakyReLU:init(slope)
  if type(slope or 0) ~= "number" then errors.raise("LeakyReLU: slope must be a number, got %s", type(slope)) end
  self.slope = slope or 0.01
end

---@param x Tensor
---@return Tensor  of the same shape
function LeakyReLU:forward(x) return activations.leaky_relu(x, self.slope) end

return LeakyReLU
