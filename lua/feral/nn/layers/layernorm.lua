local nn = require "feral.nn"
local core = require "feral.core.layernorm"
local create = require "feral.core.create"
local node = require("feral.core.tensor").node
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"

--- Layer normalisation (Ba, Kiros and Hinton 2016): the last dimensions of each sample to mean 0 and variance 1, then scaled and
--- shifted, the same in training and in eval.
---@class LayerNorm : Module
local LayerNorm = nn.class "LayerNorm"

---@param sizes integer|integer[]  of the last dimensions, over which the mean goes
---@param options {eps: number, affine: boolean}|nil  1e-5; true: with weight and bias
function LayerNorm:init(sizes, options)
  options = errors.check_options("LayerNorm", options, { eps = 1e-5, affine = true })
  self.sizes, self.eps = type(sizes) == "table" and sizes or { sizes }, options.eps
  if #self.sizes == 0 then errors.raise("LayerNorm: sizes of the last dimensions expected") end
  local weight = create.full(self.sizes, 1) -- checks the sizes
  if options.affine then
    self:add_parameter("weight", weight)
    self:add_parameter("bias", create.full(self.sizes, 0))
  end
end

local function check_input(self, x)
  local shape, sizes = x.shape, self.sizes
  local extra = #shape - #sizes
  for d, size in ipairs(sizes) do
    if extra < 0 or shape[extra + d] ~= size then
      errors.raise("LayerNorm: input is %s, ... x %s expected", table.concat(shape, "x"), table.concat(sizes, "x"))
    end
  end
end

---@param x Tensor  its last dimensions of these sizes
---@return Tensor   of the same shape
function LayerNorm:forward(x)
  check_input(self, x)
  local weight, bias, dims = self.weight, self.bias, #self.sizes
  local y, mean, inverse = core.forward(x, weight, bias, dims, self.eps)
  if not autograd.wanted(x, weight, bias) then return y end
  return autograd.record(y, { x, weight, bias, n = 3 }, function(g)
    local dx, dweight, dbias = core.backward(g, x, weight, dims, mean, inverse, node(x) ~= nil,
      node(weight) ~= nil or node(bias) ~= nil)
    return dx, node(weight) and dweight, node(bias) and dbias
  end)
end

return LayerNorm
