local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- x where it is positive, else alpha * (e^x - 1).
---@class ELU : Module
local ELU = nn.class "ELU"

---@param alpha number|nil  default 1
function ELU:init(alpha)
  if type(alpha or 0) ~= "number" then errors.raise("ELU: alpha must be a number, got %s", type(alpha)) end
  self.alpha = alpha or 1
end

---@param x Tensor
---@return Tensor  of the same shape
function ELU:forward(x) return activations.elu(x, self.alpha) end

return ELU
