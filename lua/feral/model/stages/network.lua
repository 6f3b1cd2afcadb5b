--- network: a network gives the scores, its logits.

local stages = require "feral.model.stages"
local nn = require "feral.nn"
local compile = require "feral.plan.compile"
local errors = require "feral.base.errors"

---@class NetworkStage : Stage
---@field net Module
local Network = stages.class("network", "classify")

Network.likelihood = true

local function is_network(value)
  if type(value) ~= "table" or type(value.kind) ~= "string" then return false end
  return getmetatable(value) ~= nil and getmetatable(value) == nn.find_class(value.kind)
end
Network.wraps = is_network

---@param net Module  N x ... -> N x K
function Network:init(net)
  if not is_network(net) then errors.raise("model.stages.network: a network expected, got %s", type(net)) end
  self.net = net
end

function Network:describe() return { architecture = nn.describe(self.net) } end

function Network:state() return self.net:state() end

--- In eval mode and without gradients, whatever mode the network is in.
function Network:apply(x)
  self.predictor = self.predictor or compile.predictor(self.net)
  return self.predictor(x)
end

function Network:text() return ("%s, %d parameters"):format(self.net.kind, self.net:num_parameters(true)) end

--- The network of an architecture with these weights, in eval mode.
---@param architecture any                 what a file holds of it
---@param tensors table<string, Tensor>
---@return Module|nil, string|nil
function Network.restore(architecture, tensors)
  local made, net, message = errors.attempt(nn.build, architecture)
  if not made then return nil, net end
  if message or not is_network(net) then return nil, message or "its architecture is damaged" end
  local fits, problem = errors.attempt(net.load_state, net, tensors)
  if not fits then return nil, problem end
  return net:eval()
end

function Network.build(settings, tensors)
  local net, message = Network.restore(settings.architecture, tensors)
  if not net then return nil, message end
  return Network(net)
end

return Network
