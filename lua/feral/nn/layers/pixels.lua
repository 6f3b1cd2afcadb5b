local nn = require "feral.nn"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"

--- The pixels of images, row after row, as a sequence: what a detector says of each place, in one tensor for several sizes.
---@class Pixels : Module
local Pixels = nn.class "Pixels"

--- One image as a sequence of pixels.
---@param x Tensor  N x C x H x W
---@return Tensor   N x H W x C
---@internal
function Pixels.of(x)
  local n, c, h, w = table.unpack(x.shape)
  return ops.reshape(ops.permute(x, 1, 3, 4, 2), n, h * w, c)
end

---@param ... Tensor  one or more of N x C x H x W, H and W of each its own
---@return Tensor     N x (H W + H' W' + ...) x C
--- Raises when the images differ in N or C.
function Pixels:forward(...)
  local parts = {}
  for i, x in ipairs { ... } do
    if x:dim() ~= 4 then
      errors.raise("Pixels: input %d is %s, N x C x H x W expected", i, table.concat(x.shape, "x"))
    end
    parts[i] = Pixels.of(x)
  end
  return #parts == 1 and parts[1] or ops.cat(parts, 2)
end

return Pixels
