--- cnn: a network, or its first layers, as features: what the last layers would have judged.

local stages = require "feral.model.stages"
local network = require "feral.model.stages.network"
local nn = require "feral.nn"
local compile = require "feral.plan.compile"
local view = require "feral.core.view"
local errors = require "feral.base.errors"

---@class CnnStage : Stage
---@field net Module  ends with the last layer of the features
local Cnn = stages.class("cnn", "feature")

--- The first layers of a Sequential, sharing them.
local function cut(net, layers)
  local count = net.kind == "Sequential" and #net.child_names or 0
  if count == 0 then errors.raise("model.stages.cnn: only a Sequential has first layers, got %s", net.kind) end
  local last = math.tointeger(layers) or 0
  if last < 0 then last = count + last end
  if last < 1 or last > count then
    errors.raise("model.stages.cnn: layers is %s, the network has %d", tostring(layers), count)
  end
  local kept = {}
  for i = 1, last do kept[i] = net:get(i) end
  return nn.Sequential(table.unpack(kept))
end

---@param net Module
---@param layers integer|nil  how many of a Sequential's layers; -1: all but the last; nil: all of the network
function Cnn:init(net, layers)
  if not network.wraps(net) then errors.raise("model.stages.cnn: a network expected, got %s", type(net)) end
  self.net = layers and cut(net, layers) or net
end

function Cnn:describe() return { architecture = nn.describe(self.net) } end

function Cnn:state() return self.net:state() end

--- In eval mode and without gradients.
---@param x Tensor  N x ...
---@return Tensor   N x D
function Cnn:apply(x)
  self.predictor = self.predictor or compile.predictor(self.net)
  local y = self.predictor(x)
  return view.reshape(y, y:size(1), -1)
end

function Cnn:text() return ("%s, %d parameters"):format(self.net.kind, self.net:num_parameters(true)) end

function Cnn.build(settings, tensors)
  local net, message = network.restore(settings.architecture, tensors)
  if not net then return nil, message end
  return Cnn(net)
end

return Cnn
