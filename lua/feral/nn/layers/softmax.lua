local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- Softmax along a dimension. A network that is trained with loss.cross_entropy must end before it: that loss takes scores.
---@class Softmax : Module
local Softmax = nn.class "Softmax"

---@param dim integer|nil  default 2: the classes of N x classes
function Softmax:init(dim)
  self.dim = dim or 2
  if math.type(self.dim) ~= "integer" then errors.raise("Softmax: dim must be a whole number, got %s", tostring(dim)) end
end

---@param x Tensor
---@return Tensor  of the same shape
function Softmax:forward(x) return activations.softmax(x, self.dim) end

return Softmax
