local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- The logistic function, 1 / (1 + e^-x).
---@class Sigmoid : Module
local Sigmoid = nn.class "Sigmoid"

function Sigmoid:init(options) errors.check_options("Sigmoid", options, {}) end

---@param x Tensor
---@return Tensor  of the same shape
function Sigmoid:forward(x) return activations.sigmoid(x) end

return Sigmoid
