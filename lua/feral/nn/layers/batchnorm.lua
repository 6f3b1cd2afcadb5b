local nn = require "feral.nn"
local core = require "feral.core.batchnorm"
local create = require "feral.core.create"
local node = require("feral.core.tensor").node
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"

--- Batch normalisation (Ioffe and Szegedy 2015): each channel to mean 0 and variance 1 over the batch, then scaled and shifted.
--- In training the batch's own statistics count, and the running ones follow them; in eval, and when frozen, the running ones.
---@class BatchNorm : Module
local BatchNorm = nn.class "BatchNorm"

---@param channels integer
---@param options {eps: number, momentum: number, affine: boolean}|nil  1e-5; 0.1, the share of the new in the running
---  statistics; true: with weight and bias
function BatchNorm:init(channels, options)
  options = errors.check_options("BatchNorm", options, { eps = 1e-5, momentum = 0.1, affine = true })
  self.eps, self.momentum = options.eps, options.momentum
  if options.affine then
    self:add_parameter("weight", create.full({ channels }, 1))
    self:add_parameter("bias", create.full({ channels }, 0))
  end
  self:add_buffer("running_mean", create.full({ channels }, 0))
  self:add_buffer("running_var", create.full({ channels }, 1))
end

---@param x Tensor  N x C or N x C x H x W
---@param relu boolean|nil  with a ReLU behind it, in the same passes
---@return Tensor   of the same shape
--- Raises when x has other channels, or in training when a channel has a single value.
function BatchNorm:forward(x, relu)
  local training, weight, bias = self.training and not self.frozen, self.weight, self.bias
  local y, mean, inverse = core.forward(x, weight, bias, self.running_mean, self.running_var, training, self.momentum, self.eps,
    relu)
  if not autograd.wanted(x, weight, bias) then return y end
  return autograd.record(y, { x, weight, bias, n = 3 }, function(g)
    local dx, dweight, dbias = core.backward(g, x, weight, bias, mean, inverse, training, relu, node(x) ~= nil,
      node(weight) ~= nil or node(bias) ~= nil, autograd.may_overwrite(g))
    return dx, node(weight) and dweight, node(bias) and dbias
  end)
end

BatchNorm.takes_relu = BatchNorm.forward

return BatchNorm
