local nn = require "feral.nn"
local errors = require "feral.base.errors"

--- A function as a layer: nn.Lambda(function(x) return x:abs() end). A network with one cannot be written to a file, which holds
--- no code; for that make a class with nn.class.
---@class Lambda : Module
local Lambda = nn.class "Lambda"

---@param fn fun(x: Tensor): Tensor
function Lambda:init(fn)
  if type(fn) ~= "function" then errors.raise("Lambda: a function expected, got %s", type(fn)) end
  self.fn = fn
end

function Lambda:forward(...) return self.fn(...) end

return Lambda
