local nn = require "feral.nn"
local Sequential = require "feral.nn.layers.sequential"
local ops = require "feral.tensor.ops"
local activations = require "feral.tensor.activations"
local relu_along = require "feral.tensor.relu"
local errors = require "feral.base.errors"

--- main(x) + skip(x), and an activation of the sum where one is given (He et al. 2016).
---@class Residual : Module
local Residual = nn.class "Residual"

---@param main Module
---@param skip Module|nil  default: x as it is
---@param options {activation: Module}|nil
function Residual:init(main, skip, options)
  if type(skip) == "table" and not skip.forward then skip, options = nil, skip end
  options = errors.check_options("Residual", options, { activation = false })
  self:add_child("main", main)
  if skip then self:add_child("skip", skip) end
  if options.activation then self:add_child("activation", options.activation) end
  -- no hole among the arguments that a model file lists
  if not skip then self.arguments = table.pack(main, options) end
end

--- True when nobody but its caller sees what a layer gives, not even its own backward: so it is with those that can do a ReLU
--- along the way, and were not asked to.
local function gives_away(layer)
  while layer.forward == Sequential.forward and #layer.child_names > 0 do layer = layer:get(#layer.child_names) end
  return layer.forward == layer.takes_relu and not layer.activation
end

---@param x Tensor
---@param relu boolean|nil  with a ReLU behind it, in the same pass
---@return Tensor  of main(x)'s shape
--- Raises when main and skip give different shapes.
function Residual:forward(x, relu)
  local a, b = self.main(x), self.skip and self.skip(x) or x
  local shape, other = table.concat(a.shape, "x"), table.concat(b.shape, "x")
  if shape ~= other then errors.raise("Residual: main gives %s, %s %s", shape, self.skip and "skip" or "the input is", other) end
  if relu and not self.activation then return relu_along.sum(a, b, gives_away(self.main) and not nn.is_observed()) end
  local sum = ops.add(a, b)
  if self.activation then sum = self.activation(sum) end
  return relu and activations.relu(sum) or sum
end

Residual.takes_relu = Residual.forward

return Residual
