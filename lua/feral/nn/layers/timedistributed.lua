local nn = require "feral.nn"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"

--- Applies a layer to each step of sequences.
---@class TimeDistributed : Module
local TimeDistributed = nn.class "TimeDistributed"

---@param layer Module
function TimeDistributed:init(layer) self:add_child("layer", layer) end

---@param x Tensor  N x T x ...
---@return Tensor   N x T x what the layer makes of (N T) x ...
function TimeDistributed:forward(x)
  local shape = x.shape
  if #shape < 3 then errors.raise("TimeDistributed: input is %s, N x T x ... expected", table.concat(shape, "x")) end
  local n, t = shape[1], shape[2]
  local y = self.layer(ops.reshape(x, n * t, table.unpack(shape, 3)))
  return ops.reshape(y, n, t, table.unpack(y.shape, 2))
end

return TimeDistributed
