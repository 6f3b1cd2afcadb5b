local nn = require "feral.nn"
local core = require "feral.core.dropout"
local random = require "feral.tensor.random"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"

--- Dropout (Srivastava et al. 2014): in training each element becomes 0 with probability p, the others are divided by 1 - p; in
--- eval nothing changes. Each call takes a new stream of random numbers, so tensor.manual_seed repeats it.
---@class Dropout : Module
local Dropout = nn.class "Dropout"

---@param p number|nil  default 0.5
function Dropout:init(p)
  self.p = p or 0.5
  if type(self.p) ~= "number" or self.p < 0 or self.p > 1 then
    errors.raise("Dropout: p must be a number in 0..1, got %s", tostring(p))
  end
end

---@param x Tensor
---@return Tensor  of the same shape; x itself in eval
function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  local p, seed, stream = self.p, random.stream()
  local y = core.forward(x, p, seed, stream)
  if not autograd.wanted(x) then return y end
  return autograd.record(y, { x }, function(g) return core.backward(g, y, p, seed, stream) end)
end

return Dropout
