local nn = require "feral.nn"
local activations = require "feral.tensor.activations"
local errors = require "feral.base.errors"

--- x * sigmoid(x), also called swish.
---@class SiLU : Module
local SiLU = nn.class "SiLU"

function SiLU:init(options) errors.check_options("SiLU", options, {}) end

---@param x Tensor
---@return Tensor  of the same shape
function SiLU:forward(x) return activations.silu(x) end

return SiLU
