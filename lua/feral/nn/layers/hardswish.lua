local nn = require "feral.nn"
local core = require "feral.core.hardswish"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"

--- x clamp(x + 3, 0, 6) / 6: nearly SiLU, without an exponential (Howard et al. 2019).
---@class HardSwish : Module
local HardSwish = nn.class "HardSwish"

function HardSwish:init(options) errors.check_options("HardSwish", options, {}) end

---@param x Tensor
---@return Tensor  of the same shape
function HardSwish:forward(x)
  local y = core.forward(x)
  if not autograd.wanted(x) then return y end
  return autograd.record(y, { x }, function(g) return core.backward(g, x) end)
end

return HardSwish
