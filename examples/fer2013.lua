-- Trains a network on FER2013 (Goodfellow et al. 2013), chooses its best epoch, and scores it on images that chose nothing.
--
--   ./feral examples/fer2013.lua DIR [--epochs 30] [--seed 1] [--net vgg|mini_xception|emopy] [--batch 64] [--lr 0.02]
--                                    [--save FILE] [--resume FILE]
--
-- DIR holds train/<class>/*, test/<class>/* and perhaps private/<class>/*, or fer2013.csv. Where there is private (PrivateTest),
-- test (PublicTest) chooses and private scores; else a tenth of train chooses and test scores.
-- With --resume FILE the state is kept in FILE after each epoch, and the same command goes on from it after a stop of any kind.

local feral = require "feral"
local data, nets, optim, train, model = feral.data, feral.nets, feral.optim, feral.train, feral.model

local options = feral.args.read(arg, {
  usage = "feral examples/fer2013.lua DIR [options]",
  about = "Trains a network on FER2013, chooses its best epoch, and scores it once.",
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
local train_set, validation_set, test_set = sets.train, sets.test, sets.private
if not test_set then
  validation_set, train_set = sets.train:split(0.1, { seed = options.seed, stratified = true })
  test_set = sets.test
end
print(("%d images train, %d choose the epoch, %d score it"):format(#train_set, #validation_set, #test_set))

-- Augmentation and smoothing keep a long training from learning the images by heart; a short one has no time for that.
local strength = math.min(1, options.epochs / 15)

local net = nets.make(options.net, #sets.train.classes, { size = 48 })
print(("%s: %d parameters"):format(options.net, net:num_parameters()))

local loader = data.loader(train_set, {
  batch = options.batch, seed = options.seed, drop_last = true,
  augment = feral.augment.faces(strength),
})

local history = train.fit(net, {
  train = loader,
  validation = data.loader(validation_set, { batch = 128, shuffle = false }),
  test = data.loader(test_set, { batch = 128, shuffle = false }),
  epochs = options.epochs,
  optimizer = { "sgd", lr = options.lr, momentum = 0.9, weight_decay = 5e-4, nesterov = true },
  schedule = function(optimizer) return optim.schedule.onecycle(optimizer, options.lr, options.epochs) end,
  smoothing = options.smoothing * strength,
  checkpoint = options.resume, resume = options.resume ~= nil,
  settings = {
    net = options.net, batch = options.batch, lr = options.lr, seed = options.seed, epochs = options.epochs,
    smoothing = options.smoothing,
  },
})

local report = history.test
print(feral.metrics.confusion_text(report.confusion, report.classes))
print(report)
print(("best epoch: %d of %d"):format(history.best, #history))

if options.save then
  local trained = model.new(net, {
    classes = sets.train.classes, preprocessing = loader.preprocessing,
    card = {
      data = "FER2013 train/, scored once on " .. (sets.private and "private/ (PrivateTest)" or "test/"),
      net = options.net, epochs = options.epochs, seed = options.seed, best_epoch = history.best,
      accuracy = report.accuracy, balanced = report.balanced,
    },
  })
  assert(trained:save(options.save))
  print("saved " .. options.save)
end
