--- network: a network gives the scores, its logits; or, with the option mirror, the logarithms of the mean probabilities of an
--- image and its mirror image, which are right a little more often and take twice the time.

local stages = require "feral.model.stages"
local nn = require "feral.nn"
local compile = require "feral.plan.compile"
local arith = require "feral.core.arith"
local orient = require("feral.core.transform").orient
local scope = require "feral.core.scope"
local softmax = require("feral.core.softmax").softmax
local errors = require "feral.base.errors"

---@class NetworkStage : Stage
---@field net Module
---@field mirror boolean|nil
local Network = stages.class("network", "classify")

Network.likelihood = true

local function is_network(value)
  if type(value) ~= "table" or type(value.kind) ~= "string" then return false end
  return getmetatable(value) ~= nil and getmetatable(value) == nn.find_class(value.kind)
end
Network.wraps = is_network

local MIRRORED = 2 -- EXIF's number of left and right exchanged
local LEAST = 1e-37 -- a probability that is 0 to rounding must have a logarithm

---@param net Module  N x ... -> N x K; with mirror N x C x H x W -> N x K
---@param options {mirror: boolean|nil}|nil
function Network:init(net, options)
  if not is_network(net) then errors.raise("model.stages.network: a network expected, got %s", type(net)) end
  self.net = net
  self.mirror = errors.check_options("model.stages.network", options, { mirror = false }).mirror
  if self.mirror ~= nil and type(self.mirror) ~= "boolean" then
    errors.raise("model.stages.network: mirror must be true or false, got %s", tostring(self.mirror))
  end
end

function Network:describe() return { architecture = nn.describe(self.net), mirror = self.mirror or nil } end

function Network:state() return self.net:state() end

--- In eval mode and without gradients, whatever mode the network is in.
function Network:apply(x)
  self.predictor = self.predictor or compile.predictor(self.net)
  if not self.mirror then return self.predictor(x) end
  if x:dim() ~= 4 then errors.raise("model.stages.network: mirror is for images N x C x H x W, got %d dimensions", x:dim()) end
  local open <close> = scope.scope()
  local mean = arith.div(arith.add(softmax(self.predictor(x), 2), softmax(self.predictor(orient(x, MIRRORED)), 2)), 2)
  return open:leave(arith.log(arith.maximum(mean, LEAST)))
end

function Network:text()
  return ("%s, %d parameters%s"):format(self.net.kind, self.net:num_parameters(true),
    self.mirror and ", mean of image and mirror image" or "")
end

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
  local made, stage = errors.attempt(Network, net, { mirror = settings.mirror })
  if not made then return nil, stage end
  return stage
end

return Network
