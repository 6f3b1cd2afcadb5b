-- Trains a network on FER2013 (Goodfellow et al. 2013) and scores it on test/, the validation split.
--
--   ./feral examples/fer2013.lua DIR [--epochs 30] [--seed 1] [--net vgg|mini_xception|emopy] [--batch 64] [--lr 0.02]
--                                    [--save FILE] [--resume FILE]
--
-- DIR holds train/<class>/* and test/<class>/*, or fer2013.csv. With --resume FILE the state is kept in FILE after each
-- epoch, and the same command goes on from it after a stop of any kind.

local feral = require "feral"
local data, nets, optim, train, model = feral.data, feral.nets, feral.optim, feral.train, feral.model

local options = feral.args.read(arg, {
  usage = "feral examples/fer2013.lua DIR [options]",
  about = "Trains a network on FER2013 and scores it on test/.",
  words = { "DIR" },
  options = {
    { "epochs", value = "N", type = "integer", least = 1, default = 30, about = "passes over the training images" },
    { "seed", value = "N", type = "integer", default = 1, about = "of weights, order and augmentation" },
    { "net", value = "NAME", choices = nets.names, default = "vgg", about = "which network" },
    { "batch", value = "N", type = "integer", least = 2, default = 64, about = "images a step" },
    { "lr", value = "X", type = "number", default = 0.01, about = "largest learning rate" },
    { "smoothing", value = "X", type = "number", default = 0.1, about = "of labels, in a run of 15 epochs or more" },
    { "save", value = "FILE", about = "where the model goes" },
    { "resume", value = "FILE", about = "keep the state in FILE and go on from it" },
  },
})
feral.tensor.manual_seed(options.seed)

local sets = assert(data.fer2013(options.dir))
print(sets.train)

-- Augmentation and smoothing keep a long training from learning the images by heart; a short one has no time for that.
local strength = math.min(1, options.epochs / 15)

local net = nets.make(options.net, #sets.train.classes, { size = 48 })
print(("%s: %d parameters"):format(options.net, net:num_parameters()))

local loader = data.loader(sets.train, {
  batch = options.batch, seed = options.seed, drop_last = true,
  augment = feral.augment.new {
    rotation = 12 * strength, shift = 0.1 * strength, zoom = 0.12 * strength, mirror = 0.5,
    brightness = 0.1 * strength, contrast = 0.15 * strength,
  },
})
local test = data.loader(sets.test, { batch = 128, shuffle = false })

local optimizer = optim.SGD(net:parameters(), { lr = options.lr, momentum = 0.9, weight_decay = 5e-4, nesterov = true })
local history = train.fit(net, {
  train = loader, validation = test, epochs = options.epochs,
  optimizer = optimizer,
  schedule = optim.schedule.onecycle(optimizer, options.lr, options.epochs),
  smoothing = options.smoothing * strength,
  checkpoint = options.resume, resume = options.resume ~= nil,
})

local report = train.score(net, test, sets.train.classes)
print(feral.metrics.confusion_text(report.confusion, report.classes))
print(report)
print(("best epoch: %d of %d"):format(history.best, #history))

if options.save then
  local trained = model.new(net, {
    classes = sets.train.classes, preprocessing = loader.preprocessing,
    card = {
      data = "FER2013 train/, scored on test/ (PublicTest)", net = options.net, epochs = options.epochs, seed = options.seed,
      accuracy = report.accuracy, balanced = report.balanced,
    },
  })
  assert(trained:save(options.save))
  print("saved " .. options.save)
end
