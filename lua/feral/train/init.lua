--- train.lua: the training loop, and evaluation.

local scope = require "feral.core.scope"
local core = require "feral.core.tensor"
local arith = require "feral.core.arith"
local reduce = require "feral.core.reduce"
local create = require "feral.core.create"
local system = require "feral.core.system"
local signals = require "feral.core.signals"
local files = require "feral.core.files"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local loss_functions = require "feral.nn.loss"
local metrics = require "feral.train.metrics"
local checkpoint = require "feral.train.checkpoint"
local compile = require "feral.plan.compile"
local progress = require "feral.host.progress"

local train = {}

local WAITING_TOLD = 0.05 -- share of an epoch that is worth a word

local function check_loader(name, loader)
  if type(loader) == "table" and loader.batches then return end
  errors.raise("%s must be a loader (data.loader), got %s", name, type(loader) == "table" and "another table" or type(loader))
end

--- Predicts a whole loader in eval mode, without gradients.
---@param net Module
---@param loader table
---@param loss fun(logits: Tensor, labels: Tensor): Tensor|nil  default cross entropy
---@return table  {loss, labels, predictions} with plain lists
function train.evaluate(net, loader, loss)
  check_loader("evaluate: the data", loader)
  loss = loss or loss_functions.cross_entropy
  local predict = compile.predictor(net)
  local result = { loss = 0, labels = {}, predictions = {} }
  local next_batch, _, _, batches = loader:batches(0)
  local _batches <close> = batches
  autograd.no_grad(function()
    while true do
      local _open <close> = scope.scope()
      local x, y = next_batch()
      if not x then break end
      local logits = predict(x)
      result.loss = result.loss + loss(logits, y):item() * #y
      local _, best = reduce.max(logits, 2)
      table.move(create.totable(y), 1, #y, #result.labels + 1, result.labels)
      table.move(create.totable(best), 1, #best, #result.predictions + 1, result.predictions)
    end
  end)
  result.loss = result.loss / #result.labels
  return result
end

--- Scores a network on a loader: metrics.report plus the mean loss.
---@param net Module
---@param loader table
---@param classes string[]|nil  default: the loader's
---@return table
function train.score(net, loader, classes)
  local result = train.evaluate(net, loader)
  classes = classes or loader.classes or errors.raise("score: the names of the classes are missing")
  local report = metrics.report(metrics.confusion(result.labels, result.predictions, #classes), classes)
  report.loss = result.loss
  return report
end

---@class Run  a training under way
local Run = {}
Run.__index = Run

--- Raises when a loss is no number any more, naming the place.
function Run:check_loss(value)
  if value == value and math.abs(value) < math.huge then return end
  errors.raise("the loss is %s at epoch %d, step %d%s; try a smaller learning rate, or clip", value, self.epoch,
    self.batch + 1, self.checkpoint and ("; the checkpoint before it stays in " .. self.checkpoint) or "")
end

--- One step on one batch: forward, loss, backward, update.
function Run:step(x, y)
  self.optimizer:zero_grad()
  local logits = self.net(x)
  local loss = self.loss(logits, y)
  local value = loss:item()
  self:check_loss(value)
  loss:backward()
  if self.clip then self.clip_grad_norm(self.parameters, self.clip) end
  if self.schedule then self.schedule:set(self.epoch - 1 + self.batch / #self.train) end
  self.optimizer:step()
  local _, best = reduce.max(logits, 2)
  self.sums.loss = self.sums.loss + value * #y
  self.sums.right = self.sums.right + math.tointeger(reduce.sum(arith.eq(best, y):to(core.real)):item())
  self.sums.count = self.sums.count + #y
  self.batch = self.batch + 1
end

--- Ends the training if a signal has asked for it: what it has reached is in the checkpoint.
function Run:heed_signals()
  local signal = signals.pending()
  if not signal then return end
  self:save()
  local note = self.checkpoint and ("; the checkpoint is in %s, resume = true goes on from it"):format(self.checkpoint) or ""
  self.bar:clear()
  signals.stop(signal, ("training interrupted in epoch %d after step %d%s"):format(self.epoch, self.batch, note))
end

--- The batches of one epoch, from where the run stands.
function Run:run_epoch()
  local next_batch, _, _, batches = self.train:batches(self.epoch, self.batch + 1)
  local _batches <close> = batches
  self.bar:start(("epoch %d/%d"):format(self.epoch, self.epochs), #self.train, self.batch)
  while true do
    local _open <close> = scope.scope()
    local x, y = next_batch()
    if not x then break end
    self:step(x, y)
    self.bar:update(self.batch, ("loss %.4f"):format(self.sums.loss / self.sums.count), #y)
    self:heed_signals()
    if self.checkpoint and system.clock() - self.saved_at > self.checkpoint_every then self:save() end
  end
  self.bar:clear()
end

--- Scores on the validation loader, and remembers the weights when they are the best so far.
function Run:validate(row)
  if not self.validation then return end
  local result = train.evaluate(self.net, self.validation)
  row.validation_loss = result.loss
  row.validation_accuracy = metrics.accuracy(result.labels, result.predictions)
  row.validation_balanced = metrics.balanced(result.labels, result.predictions)
  local best = self.history.best
  if not best or row.validation_accuracy > self.history[best].validation_accuracy then
    self.history.best = self.epoch
    self.best = checkpoint.copy_state(self.net, self.best)
  end
end

local columns = { "epoch", "seconds", "learning_rate", "loss", "accuracy", "validation_loss", "validation_accuracy",
  "validation_balanced" }

--- The history as CSV, one row an epoch.
function train.history_csv(history)
  local lines = { table.concat(columns, ",") }
  for _, row in ipairs(history) do
    local cells = {}
    for i, name in ipairs(columns) do cells[i] = row[name] and ("%.9g"):format(row[name]) or "" end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

function Run:write_log()
  if not self.log then return end
  local ok, message = files.write_atomic(self.log, train.history_csv(self.history))
  if not ok then errors.raise("fit: cannot write the log: %s", message) end
end

local function percent(share) return share and ("%.2f %%"):format(100 * share) or "-" end

function Run:report(row)
  if not self.progress then return end
  local text = ("epoch %d/%d  loss %.4f  accuracy %s"):format(row.epoch, self.epochs, row.loss, percent(row.accuracy))
  if row.validation_loss then
    text = text .. ("  |  validation loss %.4f  accuracy %s  balanced %s"):format(row.validation_loss,
      percent(row.validation_accuracy), percent(row.validation_balanced))
  end
  local waited = row.waited / row.seconds
  print(("%s  |  %.0f images/s%s%s"):format(text, row.count / row.seconds,
    waited > WAITING_TOLD and (", %.0f %% waiting for data"):format(100 * waited) or "",
    self.history.best == row.epoch and "  *" or ""))
  io.stdout:flush()
end

--- Closes the books on the epoch that has just been run.
function Run:finish_epoch(started, waited)
  local sums = self.sums
  local row = {
    epoch = self.epoch, seconds = system.clock() - started, learning_rate = self.optimizer.lr, count = sums.count,
    loss = sums.loss / sums.count, accuracy = sums.right / sums.count, waited = (self.train.waited or 0) - waited,
  }
  self.history[self.epoch] = row
  self:validate(row)
  if self.schedule then self.schedule:step(row.validation_loss or row.loss) end
  self.epoch, self.batch, self.sums = self.epoch + 1, 0, { loss = 0, right = 0, count = 0 }
  self:save()
  self:write_log()
  self:report(row)
  if self.on_epoch then self.on_epoch(row, self.net) end
end

--- True when the validation accuracy has not risen for 'patience' epochs.
function Run:is_stuck()
  local best = self.history.best
  return self.patience and best and self.epoch - 1 - best >= self.patience
end

function Run:save()
  if not self.checkpoint then return end
  local ok, message = checkpoint.save(self.checkpoint, self)
  if not ok then errors.raise("fit: the checkpoint cannot be written: %s", message) end
  self.saved_at = system.clock()
end

--- Takes up the checkpoint, if there is one.
function Run:resume_from(path)
  if not files.look(path) then return end
  local ok, message = checkpoint.load(path, self)
  if not ok then errors.raise("fit: cannot resume: %s", message) end
  if self.progress then
    print(("going on from %s: epoch %d, after step %d"):format(path, self.epoch, self.batch))
  end
end

local option_names = {
  epochs = 10, optimizer = false, loss = false, train = false, validation = false, schedule = false, class_weight = false,
  smoothing = 0, clip = false, patience = false, restore_best = true, checkpoint = false, checkpoint_every = 300,
  resume = false, log = false, progress = true, on_epoch = false,
}

local function default_loss(options)
  return function(logits, labels)
    return loss_functions.cross_entropy(logits, labels, { weight = options.class_weight, smoothing = options.smoothing })
  end
end

local function new_run(net, options)
  local optim = require "feral.optim"
  local parameters = net:parameters()
  return setmetatable({
    net = net, parameters = parameters, train = options.train, validation = options.validation, epochs = options.epochs,
    optimizer = options.optimizer or optim.SGD(parameters, { lr = 0.01, momentum = 0.9, weight_decay = 1e-4 }),
    loss = options.loss or default_loss(options), schedule = options.schedule, clip = options.clip,
    clip_grad_norm = optim.clip_grad_norm, patience = options.patience, checkpoint = options.checkpoint,
    checkpoint_every = options.checkpoint_every, log = options.log, progress = options.progress,
    on_epoch = options.on_epoch, history = {}, epoch = 1, batch = 0, sums = { loss = 0, right = 0, count = 0 },
    saved_at = system.clock(), bar = progress.new(options.progress),
  }, Run)
end

--- Trains a network.
---
---     local history = train.fit(net, { train = loader, validation = loader, epochs = 20, optimizer = optim.SGD(...),
---       checkpoint = "runs/vgg.ckpt", resume = true })
---
--- Options: train (required) and validation: loaders; epochs (10); optimizer (SGD, 0.01, momentum 0.9); loss (cross entropy with
--- class_weight, a tensor of one weight a class, and smoothing); schedule (optim.schedule); clip (largest norm of the
--- gradient); patience (epochs without a better validation accuracy before it stops); restore_best (true: the net ends with
--- the weights of the best validation accuracy); checkpoint (a file, written after each epoch and every checkpoint_every
--- seconds); resume (go on from it if it exists: the result is then what an uninterrupted run gives, bit for bit);
--- log (a CSV file); progress (true); on_epoch (function(row, net)).
--- Ctrl-C and SIGTERM finish the step and write the checkpoint first. Raises when the loss is no number any more.
---@param net Module
---@param options table
---@return table history  a row an epoch (loss, accuracy, validation_loss, validation_accuracy, ...), and best, its number
function train.fit(net, options)
  options = errors.check_options("fit", options, option_names)
  if not options.train then errors.raise("fit: option 'train' is missing: a loader (data.loader) to train on") end
  check_loader("fit: train", options.train)
  if options.validation then check_loader("fit: validation", options.validation) end
  if math.type(options.epochs) ~= "integer" or options.epochs < 1 then
    errors.raise("fit: epochs must be a whole number from 1, got %s", tostring(options.epochs))
  end
  local run = new_run(net, options)
  if options.resume then run:resume_from(options.checkpoint or errors.raise("fit: resume needs option 'checkpoint'")) end
  local _held <close> = signals.hold()
  net:train()
  while run.epoch <= run.epochs and not run:is_stuck() do
    local started, waited = system.clock(), run.train.waited or 0
    run:run_epoch()
    run:finish_epoch(started, waited)
    run:heed_signals()
  end
  if options.restore_best and run.best then checkpoint.restore_state(net, run.best) end
  return run.history
end

return train
