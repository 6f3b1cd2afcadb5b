-- A layer of your own in pure Lua. What it computes is written with tensors; the tape writes down how to undo it, so the
-- gradient needs no line. The layer is then a layer like any other: trained, printed, saved and loaded.
--
--   ./feral examples/custom_layer.lua

local feral = require "feral"
local tensor, nn, optim, loss = feral.tensor, feral.nn, feral.optim, feral.loss

-- Squeeze and excitation for feature vectors (after Hu, Shen and Sun 2018): each feature is scaled by a gate between 0 and 1
-- that a small bottleneck computes from all features.
local FeatureGate = nn.class "FeatureGate"

function FeatureGate:init(features, bottleneck)
  self.squeeze = nn.Linear(features, bottleneck) -- a layer in a field is a part of this one
  self.excite = nn.Linear(bottleneck, features)
end

function FeatureGate:forward(x) -- x: N x features
  local gate = self.excite(self.squeeze(x):tanh()):sigmoid()
  return x * gate
end

-- Its gradient against a difference: one weight is moved a little, and the output is watched.
tensor.manual_seed(1)
local layer, x = FeatureGate(6, 3), tensor.randn(4, 6)
layer(x):sum():backward()
local by_tape = layer.squeeze.weight.grad[2][5]:item()
local function output_with(change)
  local weight = layer.squeeze.weight:detach()[2]
  weight[5] = weight[5]:item() + change
  return feral.autograd.no_grad(function() return layer(x):sum():item() end)
end
local above, below = output_with(0.01), output_with(-0.02)
print(("gradient by the tape %.4f, by differences %.4f"):format(by_tape, (above - below) / 0.02))

-- A task that needs gates: the label says which half of the features carries the sign that counts.
local function task(count)
  local features = tensor.randn(count, 16)
  local labels = {}
  for i, row in ipairs(features:totable()) do
    labels[i] = (row[1] > 0 and row[2] or row[3]) > 0 and 2 or 1
  end
  return features, tensor(labels, "i32")
end

local net = nn.Sequential(nn.Linear(16, 32), FeatureGate(32, 8), nn.ReLU(), nn.Linear(32, 2))
print(net)

local features, labels = task(2000)
local optimizer = optim.Adam(net:parameters(), { lr = 0.01 })
for epoch = 1, 150 do
  local _step <close> = tensor.scope() -- what the step makes is given back at its end
  optimizer:zero_grad()
  local value = loss.cross_entropy(net(features), labels)
  value:backward()
  optimizer:step()
  if epoch % 30 == 0 then print(("epoch %3d  loss %.4f"):format(epoch, value:item())) end
end

local unseen, truth = task(1000)
local guess = feral.autograd.no_grad(net, unseen):argmax(2)
print(("right on unseen samples: %.1f %%"):format(100 * feral.metrics.accuracy(truth, guess)))

-- A model file holds a network as kinds and arguments; it is built again because this script has made the class.
local again = assert(nn.build(nn.describe(net)))
print(("built again from its description: %s"):format(tostring(again) == tostring(net)))
