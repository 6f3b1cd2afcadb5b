--- train.lua: the training loop, and evaluation.

local system = require "feral.core.system"
local signals = require "feral.core.signals"
local files = require "feral.core.files"
local errors = require "feral.base.errors"
local loss_functions = require "feral.nn.loss"
local evaluation = require "feral.train.evaluation"
local measures = require "feral.train.measures"
local Run = require "feral.train.run"

local train = {}

train.evaluate, train.score = evaluation.evaluate, evaluation.score
train.history_csv = require "feral.train.history_csv"

local option_names = {
  epochs = 10, optimizer = false, loss = false, train = false, validation = false, test = false, schedule = false,
  class_weight = false, smoothing = 0, clip = false, ema = false, metrics = { "accuracy", "balanced" }, select = "accuracy",
  patience = false, restore_best = true, keep = false, checkpoint = false, checkpoint_every = 300, resume = false,
  finish = false, settings = {}, participants = false, resume_hint = false, log = false, progress = true, on_epoch = false,
}

---- What the options mean ----

local function check_epochs(epochs)
  if math.type(epochs) ~= "integer" or epochs < 1 then
    errors.raise("fit: epochs must be a whole number from 1, got %s", tostring(epochs))
  end
end

--- Raises unless the parts of the data are loaders, and the test data others than those that select.
local function check_parts(o)
  if not o.train then errors.raise("fit: option 'train' is missing: a loader (data.loader) to train on") end
  for _, name in ipairs { "train", "validation", "test" } do
    if o[name] then evaluation.check_loader("fit: " .. name, o[name]) end
  end
  for _, name in ipairs { "train", "validation" } do
    local part = o.test and o[name]
    if part and (part == o.test or part.set ~= nil and part.set == o.test.set) then
      errors.raise("fit: test is the data of %s: a score on what training has seen is no score", name)
    end
  end
  if not o.validation and (o.patience or o.select ~= option_names.select) then
    errors.raise("fit: option '%s' needs option 'validation'", o.patience and "patience" or "select")
  end
end

local function check_settings(settings)
  if type(settings) ~= "table" then errors.raise("fit: settings must be a table, got %s", type(settings)) end
  for name, value in pairs(settings) do
    local kind = type(value)
    if type(name) ~= "string" or kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      errors.raise("fit: a setting must be a name with a text, number or boolean, got %s = %s", tostring(name), kind)
    end
  end
end

local function default_loss(o)
  return function(logits, y, batch)
    return loss_functions.cross_entropy(logits, y,
      { weight = o.class_weight, smoothing = o.smoothing, sample_weight = batch and batch.weight })
  end
end

--- An optimiser from its name, with options or without; or one that is made already.
local function optimizer_of(o, net)
  local optim = require "feral.optim"
  local given = o.optimizer or { "sgd", lr = 0.01, momentum = 0.9, weight_decay = 1e-4 }
  if type(given) == "table" and given.params then return given end
  return optim.new(given, net:parameters())
end

local function schedule_of(o, optimizer)
  local schedule = o.schedule
  if type(schedule) == "function" then schedule = schedule(optimizer) end
  if not schedule then return nil end
  if type(schedule) ~= "table" or not schedule.set then
    errors.raise("fit: schedule must be one of optim.schedule, or function(optimizer) that returns one, got %s", type(schedule))
  end
  if (schedule.inner or schedule).mode == "max" and not o.validation then
    errors.raise("fit: a plateau with mode = \"max\" looks at the selection, which needs option 'validation'")
  end
  return schedule
end

local function ema_of(o, net)
  if type(o.ema) ~= "number" then return o.ema or nil end
  return require("feral.optim").ema(net, o.ema)
end

--- A function that keeps the best weights, from a path: as a model file.
local function keeper_of(o)
  local keep, loader = o.keep, o.train
  if type(keep) ~= "string" then return keep or nil end
  if not loader.classes or not loader.preprocessing then
    errors.raise("fit: keep needs a training loader with classes and preprocessing; else give function(net, row)")
  end
  return function(net, row)
    local card = { epoch = row.epoch, validation_loss = row.validation_loss, selection = row["validation_" .. o.selected] }
    local made = require("feral.model").new(net, { classes = loader.classes, preprocessing = loader.preprocessing, card = card })
    return made:save(keep)
  end
end

--- What the checkpoint says the training was: the caller's settings, and what can be seen from here.
local function settings_of(o, optimizer)
  local settings = { optimizer = optimizer.kind, select = o.validation and o.selected or "nothing", batches = #o.train }
  if o.train.classes then settings.classes = table.concat(o.train.classes, " ") end
  for name, value in pairs(o.settings) do settings[name] = value end
  return settings
end

local function new_run(net, o)
  local measured = measures.new(o.metrics, o.select)
  o.selected = measured.selection.name
  local optimizer = optimizer_of(o, net)
  return Run.new {
    net = net, train = o.train, validation = o.validation or nil, measures = measured, epochs = o.epochs,
    optimizer = optimizer, schedule = schedule_of(o, optimizer), ema = ema_of(o, net), loss = o.loss or default_loss(o),
    validation_loss = o.loss or nil, clip = o.clip, clip_grad_norm = require("feral.optim").clip_grad_norm,
    patience = o.patience, keep = keeper_of(o), checkpoint = o.checkpoint or nil, checkpoint_every = o.checkpoint_every,
    resume_hint = o.resume_hint, settings = settings_of(o, optimizer), more_participants = o.participants or nil,
    log = o.log, progress = o.progress, on_epoch = o.on_epoch,
  }
end

---- Training ----

--- Takes up the checkpoint where the options ask for it.
local function resume(run, o)
  if not (o.resume or o.finish) then return end
  local word = o.finish and "finish" or "resume"
  if not run.checkpoint then errors.raise("fit: %s needs option 'checkpoint'", word) end
  if o.finish and not files.look(run.checkpoint) then
    errors.raise("fit: finish: there is no checkpoint %s", run.checkpoint)
  end
  run:resume()
  if o.finish and run.validation and not run.best then
    errors.raise("fit: finish: no epoch has been validated yet (epoch %d, after step %d)", run.epoch, run.batch)
  end
end

local function run_epochs(run)
  run.net:train()
  while run.epoch <= run.epochs and not run:is_stuck() do
    local started, waited = system.clock(), run.train.waited or 0
    run:run_epoch()
    run:finish_epoch(started, waited)
    run:heed_signals()
  end
end

--- Leaves the network with the weights that the options want, and scores the test data with them.
local function conclude(run, o)
  local restored = o.restore_best and run.best
  if restored then run:restore_best() elseif run.ema then run.ema:swap() end
  run.net:eval()
  if not o.test then return end
  local report = train.score(run.net, o.test, o.test.classes or o.train.classes)
  run.history.test = report
  run:say("test, scored once, with the weights of epoch %d%s: %s", restored and run.history.best or #run.history,
    restored and (" (best %s on validation)"):format(o.selected) or "", tostring(report):match("[^\n]*$"))
end

--- Trains a network. It ends in eval mode.
---
---     local history = train.fit(net, { train = loader, validation = loader, test = loader, epochs = 20,
---       optimizer = { "sgd", lr = 0.1, momentum = 0.9 }, select = "balanced", checkpoint = "runs/vgg.ckpt", resume = true })
---
--- Data: train (required), validation and test: loaders, for x, y, batch in loader:batches(epoch, first). Labels y are i32 N, or
---   soft: f32 N x K; batch is nil or {weight = f32 N, ...}. The weights of the best epoch on validation are selected; test is
---   scored once, at the end, with these: history.test. Without validation the last weights count.
--- Learning: epochs (10); optimizer: one of optim's, or its name, or {name, lr = ...} (SGD, 0.01, momentum 0.9); schedule
---   (optim.schedule's, or function(optimizer) that returns one; a plateau looks at the validation loss, with mode = "max" at the
---   selection); loss: function(logits, y, batch), also of the validation loss (cross entropy of hard or soft labels, weighted by
---   batch.weight, with class_weight, a tensor of one weight a class, and smoothing, both of training alone); clip (largest norm
---   of the gradient); ema: optim.ema(net, decay), or the decay: what is validated, kept and left at the end are the averages.
--- Measuring: metrics ({"accuracy", "balanced"}): names (accuracy, balanced, macro_f1, loss, log_loss, ece), and name =
---   function(result) that gives a number, see train.evaluate; select ("accuracy"): what is best, a metric's name, a function, or
---   {either, "max" or "min"}. Soft labels are scored by their largest class. Of equal epochs the first is best, one with
---   infinity or NaN never. patience: epochs without a better one before it stops; restore_best (true): the net ends with the
---   best weights.
--- Writing: checkpoint: a file, written after each epoch and every checkpoint_every (300) seconds; resume (false): go on from it,
---   to the same weights as if it had never stopped, bit for bit, or start where there is none; without resume a file that is
---   there is set aside as <checkpoint>.old. settings: a table of what the training is (batch, seed ...): a checkpoint with
---   others is refused, as is one of other classes, batches an epoch, kind of optimiser or selection. finish (false): without
---   training, only what comes after it, with the checkpoint's best weights. keep: a path, or function(net, row): the best
---   weights as a model file, all the time. participants: {name = object}: what else the checkpoint must hold, see
---   train/checkpoint.lua (the loader takes part where it has state and load_state). log (a CSV file); progress (true).
--- Else: on_epoch (function(row, net)); resume_hint: what a stop by a signal says of going on.
---
--- Ctrl-C and SIGTERM finish the step and write the checkpoint first. Raises when the loss or weights are NaN or infinite;
--- nothing infinite or NaN is written.
---@param net Module
---@param options table
---@return table history  a row an epoch (loss, accuracy, validation_loss, validation_<metric>, ...); best, its number; metrics,
---                       their names; select, the name of the selection; test, metrics.report of the test data
function train.fit(net, options)
  local o = errors.check_options("fit", options, option_names)
  check_parts(o)
  check_epochs(o.epochs)
  check_settings(o.settings)
  local run = new_run(net, o)
  resume(run, o)
  local _eval <close> = setmetatable({}, { __close = function() net:eval() end })
  local _held <close> = signals.hold()
  if not o.finish then run_epochs(run) end
  conclude(run, o)
  return run.history
end

return train
