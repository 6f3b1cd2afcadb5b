local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- x * Phi(x), Phi the normal distribution function.
---@class GELU : Module
local GELU = nn.class "GELU"

function GELU:init(options) errors.check_options("GELU", options, {}) end

---@param x Tensor
---@return Tensor  of the same shape
function GELU:forward(x) return activations.gelu(x) end

return GELU
