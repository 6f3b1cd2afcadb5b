local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- Hyperbolic tangent.
---@class Tanh : Module
local Tanh = nn.class "Tanh"

function Tanh:init(options) errors.check_options("Tanh", options, {}) end

---@param x Tensor
---@return Tensor  of the same shape
function Tanh:forward(x) return activations.tanh(x) end

return Tanh
