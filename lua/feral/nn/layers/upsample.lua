local nn = require "feral.nn"
local pooling = require "feral.tensor.pooling"
local errors = require "feral.base.errors"

--- Images so many times larger, each pixel repeated: the nearest one counts.
---@class Upsample : Module
local Upsample = nn.class "Upsample"

---@param scale integer|nil  default 2
function Upsample:init(scale)
  scale = scale or 2
  if math.type(scale) ~= "integer" or scale < 1 then
    errors.raise("Upsample: the scale must be a whole number of 1 or more, got %s", tostring(scale))
  end
  self.scale = scale
end

---@param x Tensor  N x C x H x W
---@return Tensor   N x C x H scale x W scale
function Upsample:forward(x) return pooling.repeated(x, self.scale) end

return Upsample
