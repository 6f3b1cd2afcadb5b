--- feral bench: how fast a network trains and predicts here, and where the time goes.

local engine = require "feral.core.engine"
local errors = require "feral.base.errors"
local json = require "feral.formats.json"
local nets = require "feral.nn.nets"

local bench = {
  usage = "feral bench [options]",
  about = "Measures how fast a network trains and predicts on this machine, and where the time goes.",
  words = {},
  options = {
    { "net", value = "NAME", choices = nets.names, default = "vgg", about = "which network" },
    { "model", value = "FILE", about = "a trained model's network instead" },
    { "size", value = "N", type = "integer", least = 8, default = 48, about = "images of N x N" },
    { "batch", value = "N", type = "integer", least = 2, default = 64, about = "images a step" },
    { "threads", value = "N", type = "integer", least = 1, about = "that compute (OMP_NUM_THREADS, or all)" },
    { "times", value = "N", type = "integer", least = 1, default = 5, about = "repetitions, of which the least time counts" },
    { "json", about = "print all as JSON" },
  },
}

local CLASSES = 7

--- The network, its name, the shape of an image and the number of classes; nil and a message when a model cannot be read.
local function open(values)
  if not values.model then
    local made, net = errors.attempt(nets.make, values.net, CLASSES, { size = values.size })
    if not made then return nil, net end
    return { net = net, name = values.net, shape = { 1, values.size, values.size }, classes = CLASSES }
  end
  local trained, message = require("feral.model").load(values.model)
  if not trained then return nil, message end
  if not trained.net or trained.classifier > 2 then
    return nil, values.model .. ": bench measures networks that see images, this model is none"
  end
  return { net = trained.net, name = values.model, shape = { trained:image_size() }, classes = #trained.named }
end

--- Seconds of the fastest of some calls.
local function least_time(times, f)
  local clock = require("feral.core.system").clock
  f()
  local least = math.huge
  for _ = 1, times do
    local start = clock()
    f()
    least = math.min(least, clock() - start)
  end
  return least
end

local function prediction_time(net, x, times)
  local autograd, scope = require "feral.tensor.autograd", require "feral.core.scope"
  return least_time(times, function()
    local _step <close> = scope.scope()
    autograd.no_grad(net, x)
  end)
end

--- Everything that is told, as plain data; times in seconds.
local function measure(opened, values)
  local tensor, optim, loss = require "feral.tensor", require "feral.optim", require "feral.nn.loss"
  local net, batch, labels = opened.net, values.batch, {}
  for i = 1, batch do labels[i] = i % opened.classes + 1 end
  local x, y = tensor.randn({ batch, table.unpack(opened.shape) }):as_image(), tensor(labels, "i32")
  local training = net:train():profile(x, {
    optimizer = optim.SGD(net:parameters(), { lr = 0.01, momentum = 0.9 }), times = values.times,
    loss = function(scores) return loss.cross_entropy(scores, y) end, loss_kind = "cross_entropy",
  })
  net:eval()
  local one = x:narrow(1, 1, 1)
  return {
    net = opened.name, input = opened.shape, batch = batch, parameters = net:num_parameters(true), isa = engine.isa,
    threads = engine.threads(), training = training, limits = require("feral.host.machine").limits(),
    train_step = training.step, predict_batch = prediction_time(net, x, values.times),
    predict_one = prediction_time(net, one, math.max(values.times, 20)),
  }
end

local function tell(found)
  print(("%s: %s, batch %d, %d parameters; %s, %d thread%s\n"):format(found.net, table.concat(found.input, "x"), found.batch,
    found.parameters, found.isa, found.threads, found.threads > 1 and "s" or ""))
  print(found.training)
  print(("\ntraining %.1f images/s, prediction %.1f images/s, of one image %.3f ms"):format(found.batch / found.train_step,
    found.batch / found.predict_batch, 1e3 * found.predict_one))
  print(("this machine does %.1f GFLOP/s at most and copies %.1f GB/s"):format(found.limits.flops * 1e-9,
    found.limits.bytes * 1e-9))
end

function bench.run(values)
  if values.threads then engine.threads(values.threads) end
  local opened, message = open(values)
  if not opened then return nil, message end
  local found = measure(opened, values)
  if values.json then print(json.encode(found)) else tell(found) end
  return true
end

return bench
