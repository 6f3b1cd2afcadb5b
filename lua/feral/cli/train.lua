--- feral train: trains a network on a folder of faces.
---
--- Three parts of the data: train teaches, validation chooses the epoch, test is scored once, at the end. Validation is split off
--- train unless the data have one of their own; without a part test the score is validation's, and it is said that it chose.

local json = require "feral.formats.json"
local files = require "feral.core.files"
local errors = require "feral.base.errors"
local nets = require "feral.nn.nets"

local VALIDATION_SHARE = 0.15

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
    { "validation", value = "X", type = "number", least = 0,
      about = ("share of the training images to choose the epoch on, 0: take the last (%g, or the data's own)"):format(
        VALIDATION_SHARE) },
    { "select", value = "NAME", choices = { "accuracy", "balanced", "macro_f1", "loss" }, default = "accuracy",
      about = "what makes an epoch the best" },
    { "class-weights", about = "give rare classes as much say as common ones" },
    { "checkpoint", value = "FILE", about = "where the state is kept meanwhile (the model's name and .checkpoint)" },
    { "resume", about = "go on from the checkpoint, if there is one" },
    { "finish", about = "make the model from the checkpoint's best weights, without training on" },
    { "log", value = "FILE", about = "a CSV with a row an epoch" },
    { "strict", about = "stop at the first image that cannot be read" },
    { "json", about = "print nothing but the result, as JSON" },
  },
}

---- The parts of the data ----

--- True for data that is split already: FER2013's CSV, or folders train and test.
local function is_split(path)
  return files.look(path) ~= "directory" or files.look(path .. "/train") or files.look(path .. "/fer2013.csv")
end

--- The sets as they lie on the disk: train, and perhaps validation and test; or nil and a message.
local function read(values)
  local data = require "feral.data"
  local options = { size = values.size, strict = values.strict }
  local kind, message = files.look(values.dir)
  if not kind then return nil, message end
  if not is_split(values.dir) then
    local set, problem = data.folder(values.dir, options)
    return set and { train = set }, problem
  end
  local sets, problem = data.fer2013(values.dir, options)
  if not sets then return nil, problem end
  if not sets.train then return nil, values.dir .. ": nothing to train on" end
  if sets.test and sets.private and not values.validation then -- as the makers of FER2013 did
    return { train = sets.train, validation = sets.test, test = sets.private, split = "test/ chooses, private/ scores" }
  end
  return { train = sets.train, test = sets.private or sets.test }
end

--- Splits validation off train, where it is wanted and the data have none. Returns the parts, or nil and a message.
local function split(values, parts)
  local share = values.validation or VALIDATION_SHARE
  if parts.validation then return parts end
  parts.split = "no validation"
  if share == 0 then return parts end
  if #parts.train < 2 then
    return nil, values.dir .. ": one image is not enough to train and validate (--validation 0 trains on it alone)"
  end
  local ok, validation, train = errors.attempt(parts.train.split, parts.train, share, { seed = values.seed, stratified = true })
  if not ok then
    return nil, ("%s: no validation can be split off (--validation 0 goes without): %s"):format(values.dir, validation)
  end
  parts.validation, parts.train = validation, train
  parts.split = ("%g of train, stratified, by seed %d, is validation"):format(share, values.seed)
  return parts
end

--- The parts that train, choose and score, with the classes of train; or nil and a message.
local function open(values)
  if values.validation and values.validation >= 1 then return nil, "--validation must be below 1, a share" end
  if values.validation == 0 and values.select ~= "accuracy" then
    return nil, "--select needs images to choose on, and --validation 0 takes none"
  end
  local parts, message = read(values)
  if not parts then return nil, message end
  for _, name in ipairs { "validation", "test" } do
    local set = parts[name]
    if set then
      parts[name], message = require("feral.cli.eval").relabel(set, parts.train.classes)
      if not parts[name] then return nil, ("%s/test: %s"):format(values.dir, message) end
    end
  end
  return split(values, parts)
end

local function describe(parts)
  print(parts.train)
  for _, name in ipairs { "validation", "test" } do
    if parts[name] then print(("%s: %d images"):format(name, #parts[name])) end
  end
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

--- Loaders of the parts, by their names.
local function loaders(values, parts)
  local data, augment = require "feral.data", require "feral.steps.augment"
  local train = data.loader(parts.train, {
    batch = math.min(values.batch, #parts.train), seed = values.seed, drop_last = true,
    augment = augment.faces(),
  })
  local function scoring(set)
    return set and data.loader(set, { batch = 128, shuffle = false, preprocessing = train.preprocessing })
  end
  return { train = train, validation = scoring(parts.validation), test = scoring(parts.test) }
end

---- Training ----

local function quoted(word)
  word = tostring(word)
  return word:find("^[%w_./:=+-]+$") and word or "'" .. word:gsub("'", "'\\''") .. "'"
end

--- The command with these values as it would be typed, and one more option.
local function command(values, more)
  local words = { "feral train", quoted(values.dir) }
  for _, option in ipairs(train_verb.options) do
    local value = values[option[1]:gsub("-", "_")]
    local is_told = option[1] == "resume" or option[1] == "finish" or value == option.default
    if value and not is_told then
      words[#words + 1] = "--" .. option[1] .. (value == true and "" or " " .. quoted(value))
    end
  end
  return table.concat(words, " ") .. " " .. more
end

local function resume_hint(values)
  return ("the state is in %s\n  to go on:          %s\n  to end with the best epoch so far: %s"):format(values.checkpoint,
    command(values, "--resume"), command(values, "--finish"))
end

--- What must be the same for a checkpoint to be gone on from.
local function settings(values, parts)
  return {
    net = values.net, size = values.size, batch = values.batch, lr = values.lr, seed = values.seed, epochs = values.epochs,
    class_weights = values.class_weights or false, images = #parts.train, split = parts.split,
  }
end

local function fit(values, net, parts, by_part)
  local optim = require "feral.optim"
  local optimizer = optim.SGD(net:parameters(), { lr = values.lr, momentum = 0.9, weight_decay = 5e-4, nesterov = true })
  return require("feral.train").fit(net, {
    train = by_part.train, validation = by_part.validation, test = by_part.test, select = values.select, epochs = values.epochs,
    optimizer = optimizer, schedule = optim.schedule.onecycle(optimizer, values.lr, values.epochs), smoothing = 0.1,
    class_weight = values.class_weights and parts.train:class_weights() or nil, settings = settings(values, parts),
    checkpoint = values.checkpoint, resume = values.resume, finish = values.finish, keep = values.best,
    resume_hint = resume_hint(values), log = values.log, progress = not values.json,
  })
end

---- The result ----

--- The scores of the selected weights: of test, else of validation, else of nothing.
local function judge(net, by_part, history)
  local validation = by_part.validation and require("feral.train").score(net, by_part.validation)
  if history.test then return { part = "test", report = history.test, validation = validation } end
  return { part = validation and "validation" or "none", report = validation }
end

local how_scored = {
  test = "on test, once, with the weights of the chosen epoch", none = "not at all: no images were held out",
  validation = "on validation, which chose the epoch: new faces will score lower",
}

local function few(report)
  return report and { count = report.count, accuracy = report.accuracy, balanced = report.balanced, macro_f1 = report.macro_f1 }
end

local function save(values, net, parts, by_part, history, scores)
  local report = scores.report or {}
  local trained = require("feral.model").new(net, {
    classes = parts.train.classes, preprocessing = by_part.train.preprocessing,
    card = {
      data = values.dir, net = values.net, epochs = #history, best_epoch = history.best, seed = values.seed,
      images = #parts.train, accuracy = report.accuracy, balanced = report.balanced, macro_f1 = report.macro_f1,
      scored_on = report.count,
      protocol = {
        split = parts.split, seed = values.seed, scored = how_scored[scores.part],
        selection = history.best and values.select .. " on validation" or "the last epoch", train = #parts.train,
        validation = parts.validation and #parts.validation, test = parts.test and #parts.test,
      },
      validation = scores.part == "test" and few(scores.validation) or nil,
    },
  })
  return trained:save(values.save)
end

local function tell_json(values, history, scores)
  local plain = scores.report and require("feral.cli.eval").plain(scores.report) or {}
  plain.model, plain.best_epoch, plain.epochs, plain.part = values.save, history.best, #history, scores.part
  plain.select = history.best and values.select or nil
  if scores.part == "test" then plain.validation = few(scores.validation) end
  print(json.encode(plain))
end

local function tell(values, history, scores)
  if values.json then return tell_json(values, history, scores) end
  print("scored " .. how_scored[scores.part])
  if scores.report then
    print(require("feral.train.metrics").confusion_text(scores.report.confusion, scores.report.classes))
    print(scores.report)
  end
  if history.best then print(("best epoch: %d of %d"):format(history.best, #history)) end
  print("saved " .. values.save)
end

--- Names of the files, and whether they can be written. Returns true, or nil and a message.
local function prepare(values)
  values.checkpoint = values.checkpoint or values.save .. ".checkpoint"
  values.best = values.save .. ".best"
  if values.finish and not files.look(values.checkpoint) then
    return nil, ("--finish: there is no checkpoint %s"):format(values.checkpoint)
  end
  for _, path in ipairs { values.save, values.checkpoint, values.best, values.log } do
    local ok, message = check_writable(path)
    if not ok then return nil, message end
  end
  return true
end

function train_verb.run(values)
  local ok, message = prepare(values)
  if not ok then return nil, message end
  require("feral.tensor").manual_seed(values.seed)
  local parts
  parts, message = open(values)
  if not parts then return nil, message end
  if not values.json then describe(parts) end
  local net = nets.make(values.net, #parts.train.classes, { size = values.size })
  local by_part = loaders(values, parts)
  local history = fit(values, net, parts, by_part)
  local scores = judge(net, by_part, history)
  ok, message = save(values, net, parts, by_part, history, scores)
  if not ok then return nil, message end
  os.remove(values.checkpoint)
  os.remove(values.best)
  tell(values, history, scores)
  return true
end

return train_verb
