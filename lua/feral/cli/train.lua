--- feral train: trains a network on a folder of faces.

local json = require "feral.formats.json"
local files = require "feral.core.files"
local nets = require "feral.nn.nets"

local train_verb = {
  usage = "feral train DIR [options]",
  about = "Trains a network on a folder of faces, DIR/<class>/<image>, or DIR/train and DIR/test.",
  words = { "DIR" },
  options = {
    { "save", value = "FILE", default = "model.safetensors", about = "where the model goes" },
    { "net", value = "NAME", choices = nets.names, default = "vgg", about = "which network" },
    { "epochs", value = "N", type = "integer", least = 1, default = 30, about = "passes over the images" },
    { "size", value = "N", type = "integer", least = 8, default = 48, about = "images are resized to N x N" },
    { "batch", value = "N", type = "integer", least = 2, default = 64, about = "images a step" },
    { "lr", value = "X", type = "number", least = 0, default = 0.01, about = "largest learning rate" },
    { "seed", value = "N", type = "integer", default = 1, about = "of weights, order, augmentation and split" },
    { "validation", value = "X", type = "number", least = 0, default = 0.15,
      about = "share of the images to validate on where there is no DIR/test" },
    { "class-weights", about = "give rare classes as much say as common ones" },
    { "checkpoint", value = "FILE", about = "where the state is kept meanwhile (the model's name and .checkpoint)" },
    { "resume", about = "go on from the checkpoint, if there is one" },
    { "log", value = "FILE", about = "a CSV with a row an epoch" },
    { "strict", about = "stop at the first image that cannot be read" },
    { "json", about = "print nothing but the result, as JSON" },
  },
}

--- True for data that is split already: FER2013's CSV, or folders train and test.
local function is_split(path)
  return files.look(path) ~= "directory" or files.look(path .. "/train") or files.look(path .. "/fer2013.csv")
end

--- The images to train on and those to validate on, or nil and a message.
local function open(values)
  local data = require "feral.data"
  local options = { size = values.size, strict = values.strict }
  local kind, message = files.look(values.dir)
  if not kind then return nil, message end
  local sets, set
  if is_split(values.dir) then
    sets, message = data.fer2013(values.dir, options)
    if not sets then return nil, message end
    if not sets.train then return nil, values.dir .. ": nothing to train on" end
    if sets.test then return sets.train, sets.test end
    set = sets.train
  else
    set, message = data.folder(values.dir, options)
    if not set then return nil, message end
  end
  if #set < 2 then return nil, values.dir .. ": one image is not enough to train and validate" end
  local validation, train = set:split(values.validation, { seed = values.seed })
  return train, validation
end

--- Whether a file can be written there, found out before hours of work and not after.
local function check_writable(path)
  local existed = files.look(path)
  local file, message = io.open(path, "ab")
  if not file then return nil, message end
  file:close()
  if not existed then os.remove(path) end
  return true
end

local function loaders(values, train, validation)
  local data, augment = require "feral.data", require "feral.steps.augment"
  local loader = data.loader(train, {
    batch = math.min(values.batch, #train), seed = values.seed, drop_last = true,
    augment = augment.new { rotation = 12, shift = 0.1, zoom = 0.12, mirror = 0.5, brightness = 0.1, contrast = 0.15 },
  })
  return loader, data.loader(validation, { batch = 128, shuffle = false, preprocessing = loader.preprocessing })
end

local function fit(values, net, loader, validation)
  local optim = require "feral.optim"
  local optimizer = optim.SGD(net:parameters(), { lr = values.lr, momentum = 0.9, weight_decay = 5e-4, nesterov = true })
  return require("feral.train").fit(net, {
    train = loader, validation = validation, epochs = values.epochs, optimizer = optimizer,
    schedule = optim.schedule.onecycle(optimizer, values.lr, values.epochs), smoothing = 0.1,
    class_weight = values.class_weights and loader.set:class_weights() or nil,
    checkpoint = values.checkpoint, resume = values.resume, log = values.log, progress = not values.json,
  })
end

local function save(values, net, loader, report)
  local trained = require("feral.model").new(net, {
    classes = loader.classes, preprocessing = loader.preprocessing,
    card = {
      data = values.dir, net = values.net, epochs = values.epochs, seed = values.seed, images = #loader.set,
      accuracy = report.accuracy, balanced = report.balanced, scored_on = report.count,
    },
  })
  return trained:save(values.save)
end

local function tell(values, report, history)
  if values.json then
    local plain = require("feral.cli.eval").plain(report)
    plain.model, plain.best_epoch, plain.epochs = values.save, history.best, #history
    print(json.encode(plain))
  else
    print(require("feral.train.metrics").confusion_text(report.confusion, report.classes))
    print(report)
    print(("best epoch: %d of %d\nsaved %s"):format(history.best, #history, values.save))
  end
end

function train_verb.run(values)
  values.checkpoint = values.checkpoint or values.save .. ".checkpoint"
  for _, path in ipairs { values.save, values.checkpoint, values.log } do
    local ok, message = check_writable(path)
    if not ok then return nil, message end
  end
  require("feral.tensor").manual_seed(values.seed)
  local train, validation = open(values)
  if not train then return nil, validation end
  local set, message = require("feral.cli.eval").relabel(validation, train.classes)
  if not set then return nil, ("%s/test: %s"):format(values.dir, message) end
  if not values.json then print(train) end
  local net = nets.make(values.net, #train.classes, { size = values.size })
  local loader, validation_loader = loaders(values, train, set)
  local history = fit(values, net, loader, validation_loader)
  local report = require("feral.train").score(net, validation_loader, train.classes)
  local saved, problem = save(values, net, loader, report)
  if not saved then return nil, problem end
  os.remove(values.checkpoint)
  tell(values, report, history)
  return true
end

return train_verb
