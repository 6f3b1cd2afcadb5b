local nn = require "feral.nn"
local ops = require "feral.ops"
local errors = require "feral.errors"

--- Dense layer: y = x W^T + b.
---@class Linear : Module
local Linear = nn.class "Linear"

---@param inputs integer
---@param outputs integer
---@param options {bias: boolean}|nil  default true
function Linear:init(inputs, outputs, options)
  options = errors.check_options("Linear", options, { bias = true })
  local bound = 1 / math.sqrt(inputs)
  self.inputs = inputs
  self:add_parameter("weight", nn.uniform({ outputs, inputs }, bound))
  if options.bias then self:add_parameter("bias", nn.uniform({ outputs }, bound)) end
end

---@param x Tensor  N x inputs
---@return Tensor   N x outputs
function Linear:forward(x)
  if x:dim() ~= 2 or x:size(2) ~= self.inputs then
    errors.raise("Linear: input is %s, N x %d expected", table.concat(x.shape, "x"), self.inputs)
  end
  local y = ops.matmul(x, ops.transpose(self.weight))
  return self.bias and ops.add(y, self.bias) or y
end

return Linear
