-- Training step, batch inference and single-image latency of networks, for comparison with other software.
--
--   ./feral tests/bench/nets.lua [--seconds S] [--batch N] [--nets A,B]
--
-- Prints lines name<TAB>kind<TAB>value<TAB>unit. The best of all repetitions within --seconds counts. OMP_NUM_THREADS sets
-- the threads. Weights are random and the data noise: only speed is measured.

local feral = require "feral"
local tensor, nn, nets, optim, loss, autograd = feral.tensor, feral.nn, feral.nets, feral.optim, feral.loss, feral.autograd
local clock = require("feral.core.system").clock

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

-- name, how it is made, shape of one sample
local workloads = {
  { "emopy_cnn", function() return nets.emopy(7) end, { 1, 64, 64 } },
  { "vgg_fer", function() return nets.vgg(7) end, { 1, 48, 48 } },
  { "mini_xception", function() return nets.mini_xception(7) end, { 1, 48, 48 } },
  { "resnet18", resnet18, { 1, 48, 48 } },
  { "convlstm", convlstm, { 8, 1, 48, 48 } },
  { "lstm", SequenceNet, { 16, 256 } },
}

local options = feral.args.read(arg, {
  usage = "feral tests/bench/nets.lua [options]",
  about = "Measures training and inference of the bench's networks.",
  words = {},
  options = {
    { "seconds", value = "S", type = "number", least = 0, default = 4, about = "for each figure" },
    { "batch", value = "N", type = "integer", least = 1, default = 64, about = "samples a step" },
    { "nets", value = "A,B", about = "which networks, default all" },
  },
})

--- Seconds of the fastest call.
local function fastest(f)
  f()
  f()
  local best, spent = math.huge, 0
  while spent < options.seconds do
    local start = clock()
    f()
    local took = clock() - start
    best, spent = math.min(best, took), spent + took
  end
  return best
end

local function say(name, kind, value, unit)
  print(("%s\t%s\t%s\t%s"):format(name, kind, value, unit))
  io.stdout:flush()
end

local function measure(name, make, shape)
  tensor.manual_seed(1)
  local net = make()
  local x = tensor.randn { options.batch, table.unpack(shape) }
  if #shape == 3 then x = x:as_image() end
  local labels = {}
  for i = 1, options.batch do labels[i] = i % 7 + 1 end
  local y = tensor(labels, "i32")
  local optimizer = optim.SGD(net:parameters(), { lr = 0.01, momentum = 0.9, weight_decay = 1e-4 })
  say(name, "params", net:num_parameters(), "float32")
  local step = fastest(function()
    local _step <close> = tensor.scope()
    optimizer:zero_grad()
    loss.cross_entropy(net(x), y):backward()
    optimizer:step()
  end)
  say(name, "train_batch" .. options.batch, ("%.1f"):format(options.batch / step), "samples/s")
  net:eval()
  local function predict(batch)
    local _step <close> = tensor.scope()
    autograd.no_grad(net, batch)
  end
  say(name, "infer_batch" .. options.batch, ("%.1f"):format(options.batch / fastest(function() predict(x) end)), "samples/s")
  local one = x:narrow(1, 1, 1)
  say(name, "infer_latency", ("%.4f"):format(1e3 * fastest(function() predict(one) end)), "ms/sample")
end

for _, w in ipairs(workloads) do
  if not options.nets or ("," .. options.nets .. ","):find("," .. w[1] .. ",", 1, true) then measure(w[1], w[2], w[3]) end
end
