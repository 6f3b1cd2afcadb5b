local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- x where it is positive, else 0.
---@class ReLU : Module
local ReLU = nn.class "ReLU"

function ReLU:init(options) errors.check_options("ReLU", options, {}) end

---@param x Tensor
---@return Tensor  of the same shape
function ReLU:forward(x) return activations.relu(x) end

return ReLU
