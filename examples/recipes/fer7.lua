-- Trains fer7: the seven emotions of FER2013 from the pixels of its train/ alone.
--
--   ./feral examples/recipes/fer7.lua DIR [--run runs/fer7] [--save fer7.safetensors]
--
-- DIR is FER2013 as folders (train/<class>/*, test/<class>/*) or as its CSV. Nothing is chosen on test/: the weights are the
-- averages (EMA) at the end of a schedule that is fixed before it starts. test/ is scored now and then to be looked at, and once
-- at the end. The state is kept in the run's folder after each epoch and every five minutes, and the same command goes on from
-- there after a stop of any kind.

local feral = require "feral"
local data, nn, optim, steps, train = feral.data, feral.nn, feral.optim, feral.steps, feral.train

local options = feral.args.read(arg, {
  usage = "feral examples/recipes/fer7.lua DIR [options]",
  about = "Trains a network for the seven emotions of FER2013; goes on where it stopped.",
  words = { "DIR" },
  options = {
    { "run", value = "FOLDER", default = "runs/fer7", about = "where checkpoint and log go" },
    { "save", value = "FILE", default = "fer7.safetensors", about = "where the model goes" },
    { "epochs", value = "N", type = "integer", least = 1, default = 120, about = "passes over the training images" },
    { "width", value = "N", type = "integer", least = 4, default = 48,
      about = "channels of the first stage (48: 2.9 million parameters)" },
    { "depth", value = "N", type = "integer", least = 1, default = 3, about = "convolutions of the third and fourth stage" },
    { "batch", value = "N", type = "integer", least = 2, default = 128, about = "images a step" },
    { "lr", value = "X", type = "number", default = 0.08, about = "largest learning rate" },
    { "seed", value = "N", type = "integer", default = 1, about = "of weights, order and augmentation" },
    { "strength", value = "X", type = "number", least = 0, default = 1, about = "of the augmentation; short runs need less" },
    { "from", value = "FILE", about = "a model whose weights are the start, as for a last part with less augmentation" },
    { "look", value = "N", type = "integer", least = 1, default = 5, about = "epochs between looks at test/" },
  },
})
feral.tensor.manual_seed(options.seed)

local SIDE <const> = 40 -- of the crop that the network sees, of 48

--- A VGG with batch norm: four stages of 3x3 convolutions, more dropout the deeper, and a small dense head.
local function network(classes)
  local layers, inputs, w = {}, 1, options.width
  local function add(...) for _, layer in ipairs { ... } do layers[#layers + 1] = layer end end
  local stages = { { w, 2 }, { 2 * w, 2 }, { 4 * w, options.depth }, { w * 16 // 3 // 16 * 16, options.depth } }
  for s, stage in ipairs(stages) do
    for _ = 1, stage[2] do
      add(nn.Conv2d(inputs, stage[1], 3, { padding = 1, bias = false }), nn.BatchNorm(stage[1]), nn.ReLU())
      inputs = stage[1]
    end
    add(nn.MaxPool2d(2))
    if s > 1 then add(nn.Dropout(0.1 * (s - 1))) end
  end
  add(nn.Flatten(), nn.Linear(inputs * (SIDE // 16) * (SIDE // 16), 256, { bias = false }), nn.BatchNorm(256), nn.ReLU(),
    nn.Dropout(0.4), nn.Linear(256, classes))
  return nn.Sequential(table.unpack(layers))
end

local sets = assert(data.fer2013(options.dir))
local net = network(#sets.train.classes)
print(("%d parameters, %d images"):format(net:num_parameters(), #sets.train))

if options.from then
  local start = {}
  for _, pair in ipairs(assert(feral.model.load(options.from)).net:state()) do start[pair[1]] = pair[2] end
  net:load_state(start)
end

-- Faces in the wild are cut out carelessly, and the lab is lit otherwise: crop, geometry and light vary much.
local s = math.min(options.strength, 1.6)
local loader = data.loader(sets.train, {
  batch = options.batch, seed = options.seed, drop_last = true, preprocess = { steps.random_crop(SIDE) },
  augment = {
    steps.rotate(15 * s), steps.zoom(0.15 * s), steps.shear(0.1 * s), steps.mirror(0.5), steps.light(0.4 * s),
    steps.gamma(0.4 * s), steps.contrast(0.3 * s), steps.brightness(0.15 * s), steps.blur(0.7 * s), steps.noise(0.04 * s),
    steps.erase { probability = 0.4 * s, most = 0.2 }, steps.mixup(0.2, 0.6 * s),
  },
})
local test = data.loader(sets.test, { batch = 256, shuffle = false, preprocessing = loader.preprocessing })
print(loader.list)

assert(feral.files.mkdir(options.run))
local ema = optim.ema(net, 0.999)

--- A look at test/ with the averaged weights; it chooses nothing.
local function look(row)
  if row.epoch % options.look ~= 0 then return end
  ema:swap()
  local report = train.score(net, test)
  ema:swap()
  net:train()
  print(("        test/ now: %.2f %%, balanced %.2f %%"):format(100 * report.accuracy, 100 * report.balanced))
  io.stdout:flush()
end

local warm = math.min(4, options.epochs / 4)
local history = train.fit(net, {
  train = loader, test = test, epochs = options.epochs, smoothing = 0.1, ema = ema, on_epoch = look,
  optimizer = optim.SGD(optim.decay_groups(net, 5e-4), { lr = options.lr, momentum = 0.9, nesterov = true }),
  schedule = function(opt) return optim.schedule.warmup(optim.schedule.cosine(opt, options.epochs - warm), warm) end,
  checkpoint = options.run .. "/checkpoint", resume = true, log = options.run .. "/log.csv",
  settings = {
    epochs = options.epochs, width = options.width, depth = options.depth, batch = options.batch, lr = options.lr,
    seed = options.seed, strength = options.strength, from = options.from or "nothing",
  },
})

--- The commands that make this model, those of the one it started from first.
local function commands()
  local words = "feral examples/recipes/fer7.lua DIR"
  for _, name in ipairs { "epochs", "width", "depth", "batch", "lr", "seed", "strength" } do
    words = ("%s --%s %g"):format(words, name, options[name])
  end
  if not options.from then return words end
  local before = assert(feral.model.load(options.from)).card.command or options.from
  return ("%s --save first.safetensors; %s --from first.safetensors"):format(before, words)
end

print(feral.metrics.confusion_text(history.test.confusion, history.test.classes))
print(history.test)
local model = feral.model.new(net, {
  classes = sets.train.classes, preprocessing = loader.preprocessing,
  card = {
    name = "fer7", data = "FER2013 train/ (28,709 images of 48 x 48)",
    protocol = "trained on train/ for a fixed number of epochs, averaged weights of the end; nothing was chosen on test/",
    command = commands(),
    accuracy = history.test.accuracy, balanced = history.test.balanced, scored_on = "FER2013 test/ (PublicTest)",
  },
})
assert(model:save(options.save))
print("saved " .. options.save)
