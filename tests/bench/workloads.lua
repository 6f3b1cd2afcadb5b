--- workloads.lua: the networks that the bench measures, and a training step and a prediction of each. Shapes, parameters and
--- optimiser are those of the comparison's other sides, so that figures can be held against theirs.

local feral = require "feral"
local tensor, nn, nets, optim, loss, autograd = feral.tensor, feral.nn, feral.nets, feral.optim, feral.loss, feral.autograd
local errors = require "feral.base.errors"

local function residual_block(inputs, outputs, stride)
  local main = nn.Sequential(
    nn.Conv2d(inputs, outputs, 3, { stride = stride, padding = 1, bias = false }), nn.BatchNorm(outputs), nn.ReLU(),
    nn.Conv2d(outputs, outputs, 3, { padding = 1, bias = false }), nn.BatchNorm(outputs))
  if stride == 1 and inputs == outputs then return nn.Sequential(nn.Residual(main), nn.ReLU()) end
  local skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, { stride = stride, bias = false }), nn.BatchNorm(outputs))
  return nn.Sequential(nn.Residual(main, skip), nn.ReLU())
end

--- ResNet-18 (He et al. 2016) with a 3x3 stem, for 48x48 gray images.
local function resnet18()
  local layers = { nn.Conv2d(1, 64, 3, { padding = 1, bias = false }), nn.BatchNorm(64), nn.ReLU() }
  local inputs = 64
  for _, stage in ipairs { { 64, 1 }, { 128, 2 }, { 256, 2 }, { 512, 2 } } do
    layers[#layers + 1] = residual_block(inputs, stage[1], stage[2])
    layers[#layers + 1] = residual_block(stage[1], stage[1], 1)
    inputs = stage[1]
  end
  layers[#layers + 1] = nn.GlobalAvgPool()
  layers[#layers + 1] = nn.Linear(512, 7)
  return nn.Sequential(table.unpack(layers))
end

--- Two LSTM layers and a dense one on the last step.
local SequenceNet = nn.class "SequenceNet"

function SequenceNet:init()
  self:add_child("lstm", nn.LSTM(256, 128, { layers = 2 }))
  self:add_child("out", nn.Linear(128, 7))
end

function SequenceNet:forward(x)
  local steps = self.lstm(x)
  return self.out(steps:select(2, -1))
end

--- One ConvLSTM layer over 8 frames, and a dense one on what it remembers after the last.
local function convlstm()
  return nn.Sequential(nn.ConvLSTM2d(1, 16, 3, { last = true }), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16 * 12 * 12, 7))
end

local workloads = {}

-- name, how it is made, shape of one sample
local known = {
  { "emopy_cnn", function() return nets.emopy(7) end, { 1, 64, 64 } },
  { "vgg_fer", function() return nets.vgg(7) end, { 1, 48, 48 } },
  { "mini_xception", function() return nets.mini_xception(7) end, { 1, 48, 48 } },
  { "resnet18", resnet18, { 1, 48, 48 } },
  { "convlstm", convlstm, { 8, 1, 48, 48 } },
  { "lstm", SequenceNet, { 16, 256 } },
}

--- The names of all networks, in the order in which they are measured.
workloads.names = {}
for i, w in ipairs(known) do workloads.names[i] = w[1] end

--- Checks names from a command line: nil and a message where one is unknown.
---@param names string[]  none for all
---@return string[]|nil, string|nil
function workloads.chosen(names)
  if #names == 0 then return workloads.names end
  for _, name in ipairs(names) do
    if not (" " .. table.concat(workloads.names, " ") .. " "):find(" " .. name .. " ", 1, true) then
      return nil, ("no network is called '%s'%s (known: %s)"):format(name, errors.hint(name, workloads.names),
        table.concat(workloads.names, ", "))
    end
  end
  return names
end

local function planned(net, x)
  local made, plan = pcall(net.compile, net, x)
  return made and plan or function(batch) return autograd.no_grad(net, batch) end
end

--- A network, a batch for it and what is done with them.
---@param name string
---@param batch integer
---@return {net: Module, x: Tensor, y: Tensor, optimizer: table, train: function, predict: function}
function workloads.make(name, batch)
  local make, shape
  for _, w in ipairs(known) do
    if w[1] == name then make, shape = w[2], w[3] end
  end
  tensor.manual_seed(1)
  local net = make()
  local x = tensor.randn { batch, table.unpack(shape) }
  if #shape == 3 then x = x:as_image() end
  local labels = {}
  for i = 1, batch do labels[i] = i % 7 + 1 end
  local y = tensor(labels, "i32")
  local optimizer = optim.SGD(net:parameters(), { lr = 0.01, momentum = 0.9, weight_decay = 1e-4 })
  local w = { net = net, x = x, y = y, optimizer = optimizer }
  function w.train()
    local _step <close> = tensor.scope()
    optimizer:zero_grad()
    loss.cross_entropy(net(x), y):backward()
    optimizer:step()
  end
  local run = {}
  --- Of the first samples, or of all, by a plan made at the first call where the network can be one; it must be in eval.
  function w.predict(samples)
    samples = samples or batch
    run[samples] = run[samples] or planned(net, x:narrow(1, 1, samples))
    local _step <close> = tensor.scope()
    run[samples](x:narrow(1, 1, samples))
  end
  return w
end

return workloads
