local nn = require "feral.nn"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"

--- All dimensions but the first become one, in the order C, H, W whatever the memory's, as the weights of a Linear behind
--- it expect.
---@class Flatten : Module
local Flatten = nn.class "Flatten"

function Flatten:init(options) errors.check_options("Flatten", options, {}) end

---@param x Tensor  N x ...
---@return Tensor   N x the product of the other dimensions
function Flatten:forward(x)
  if x:dim() < 2 then errors.raise("Flatten: input is %s, N x ... expected", table.concat(x.shape, "x")) end
  return ops.flatten(x, 2)
end

return Flatten
