--- run.lua: a training under way: its steps, what it measures, whom it asks, and what it writes.

local scope = require "feral.core.scope"
local core = require "feral.core.tensor"
local arith = require "feral.core.arith"
local reduce = require "feral.core.reduce"
local view = require "feral.core.view"
local system = require "feral.core.system"
local signals = require "feral.core.signals"
local files = require "feral.core.files"
local random = require "feral.tensor.random"
local errors = require "feral.base.errors"
local evaluation = require "feral.train.evaluation"
local checkpoint = require "feral.train.checkpoint"
local history_csv = require "feral.train.history_csv"
local progress = require "feral.host.progress"

local WAITING_TOLD = 0.05 -- share of an epoch that is worth a word

---@class Run  a training under way; it takes part in itself, with its place, its history and the best weights
local Run = {}
Run.__index = Run

local function no_sums() return { loss = 0, right = 0, count = 0 } end

--- The generator of random numbers as a participant.
local dice = {}

function dice:state() return random.state() end

function dice:load_state(state)
  if type(state) ~= "table" or not math.tointeger(state.seed) or (math.tointeger(state.count) or -1) < 0 then
    errors.raise("the state of 'random' is not complete")
  end
  random.set_state(state)
end

--- A run from its parts.
---@param fields table  net, optimizer, train, measures, settings ...: what train.fit has made of its options
---@return Run
function Run.new(fields)
  local self = setmetatable(fields, Run)
  self.parameters = self.net:parameters()
  self.history = { metrics = self.measures:names(), select = self.measures.selection.name }
  self.epoch, self.batch, self.sums, self.saved_at = 1, 0, no_sums(), system.clock()
  self.bar = progress.new(self.progress)
  self.participants = self:list_participants()
  checkpoint.check(self.participants)
  return self
end

--- All that the checkpoint is made of. The run comes first: it tries the best weights in the network, whose own follow.
function Run:list_participants()
  local list, names = { { "run", self }, { "net", self.net }, { "optimizer", self.optimizer } }, {}
  local loader = self.train.state and self.train.load_state and self.train
  for _, pair in ipairs { { "schedule", self.schedule }, { "ema", self.ema }, { "loader", loader } } do
    if pair[2] then list[#list + 1] = pair end
  end
  for name in pairs(self.more_participants or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do list[#list + 1] = { name, self.more_participants[name] } end
  list[#list + 1] = { "random", dice }
  return list
end

---- What a run remembers ----

--- A row of the history without numbers that are infinite or NaN, which no file may hold.
local function finite_row(row)
  local copy = {}
  for name, value in pairs(row) do
    if type(value) ~= "number" or value - value == 0 then copy[name] = value end
  end
  return copy
end

function Run:state()
  local best, rows = {}, {}
  for i, pair in ipairs(self.best and self.net:state() or {}) do best[i] = { "best." .. pair[1], self.best[pair[1]] } end
  for i, row in ipairs(self.history) do rows[i] = finite_row(row) end
  return best, { epoch = self.epoch, batch = self.batch, sums = self.sums, rows = rows, best = self.history.best }
end

local function is_count(n, least) return math.type(n) == "integer" and n >= least end

local function is_whole(data)
  local sums = data.sums
  return is_count(data.epoch, 1) and is_count(data.batch, 0) and type(data.rows) == "table" and type(sums) == "table" and
    type(sums.loss) == "number" and is_count(sums.right, 0) and is_count(sums.count, 0) and
    (data.best == nil or data.rows[data.best] ~= nil)
end

function Run:load_state(tensors, data)
  if type(data) ~= "table" or not is_whole(data) then errors.raise("the state of 'run' is not complete") end
  local best = {}
  for name, t in pairs(tensors) do best[name:match("^best%.(.*)$") or name] = t end
  if next(best) then
    self.net:load_state(best) -- whether they fit; the present ones follow
    for _, t in pairs(best) do scope.keep(t) end
  end
  self.best = next(best) and best or nil
  self.epoch, self.batch, self.sums = data.epoch, data.batch, data.sums
  for i, row in ipairs(data.rows) do self.history[i] = row end
  self.history.best = data.best
end

--- Copies the network's state as the best.
function Run:remember_best()
  self.best = self.best or {}
  for _, pair in ipairs(self.net:state()) do
    local path, t = pair[1], pair[2]
    if self.best[path] then arith.copy_(self.best[path], t) else self.best[path] = scope.keep(view.clone(t)) end
  end
end

function Run:restore_best()
  for _, pair in ipairs(self.net:state()) do arith.copy_(pair[2], self.best[pair[1]]) end
end

---- Steps ----

--- What a message adds about the checkpoint.
function Run:kept() return self.saved and ("; the checkpoint before it stays in " .. self.checkpoint) or "" end

--- Raises when a loss is no number any more, naming the place.
function Run:check_loss(value)
  if value - value == 0 then return end
  errors.raise("the loss is %s at epoch %d, step %d%s; try a smaller learning rate, or clip", value, self.epoch,
    self.batch + 1, self:kept())
end

--- Raises when weights are NaN or infinite: nothing of them may be written, or be best.
function Run:check_weights()
  local bad = checkpoint.not_finite(self.net:state())
  if not bad then return end
  errors.raise("'%s' holds infinity or NaN after epoch %d, step %d%s; try a smaller learning rate, or clip", bad, self.epoch,
    self.batch, self:kept())
end

--- Counts what the batch's scores had right, where its labels are classes.
function Run:count_right(logits, y)
  local labels, predictions = evaluation.hard(logits, y)
  if not labels then return end
  self.sums.classified = (self.sums.classified or 0) + #labels
  self.sums.right = self.sums.right + math.tointeger(reduce.sum(arith.eq(predictions, labels):to(core.real)):item())
end

--- One step on one batch: forward, loss, backward, update.
function Run:step(x, y, batch)
  self.optimizer:zero_grad()
  local logits, n = self.net(x), evaluation.count(x, y)
  local loss = self.loss(logits, y, batch)
  local value = loss:item()
  self:check_loss(value)
  loss:backward()
  if self.clip then self.clip_grad_norm(self.parameters, self.clip) end
  if self.schedule then self.schedule:set(self.epoch - 1 + self.batch / #self.train) end
  self.optimizer:step()
  if self.ema then self.ema:update() end
  self:count_right(logits, y)
  self.sums.loss, self.sums.count = self.sums.loss + value * n, self.sums.count + n
  self.batch = self.batch + 1
  return n
end

--- Ends the training if a signal has asked for it: what it has reached is in the checkpoint.
function Run:heed_signals()
  local signal = signals.pending()
  if not signal then return end
  self:save()
  local note = ""
  if self.checkpoint then
    note = "; " .. (self.resume_hint or
      ("the checkpoint is in %s: resume = true goes on from it, finish = true takes its best weights"):format(self.checkpoint))
  end
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
    local x, y, batch = next_batch()
    if x == nil then break end
    local n = self:step(x, y, batch)
    self.bar:update(self.batch, ("loss %.4f"):format(self.sums.loss / self.sums.count), n)
    self:heed_signals()
    if self.checkpoint and system.clock() - self.saved_at > self.checkpoint_every then self:save() end
  end
  if self.sums.count == 0 then errors.raise("fit: the training loader has no batches") end
  self.bar:clear()
end

---- Judging ----

--- Until the value is closed the network has the averaged weights, where there are averages.
function Run:with_averages()
  if not self.ema then return nil end
  self.ema:swap()
  return setmetatable({}, { __close = function() self.ema:swap() end })
end

--- Measures the network on the validation loader, into the row.
function Run:measure(row)
  local _open <close> = scope.scope()
  local result = evaluation.evaluate(self.net, self.validation, self.validation_loss)
  row.validation_loss = result.loss
  for name, value in pairs(self.measures:of(result)) do row["validation_" .. name] = value end
end

--- Measures, and remembers the weights when they are the best so far: without validation always the last.
function Run:judge(row)
  local _averages <close> = self:with_averages()
  if self.validation then
    self:measure(row)
    local best, field = self.history[self.history.best or 0], "validation_" .. self.measures.selection.name
    local is_sound = row.validation_loss - row.validation_loss == 0
    if not is_sound or not self.measures:is_better(row[field], best and best[field]) then return end
    self.history.best = self.epoch
    self:remember_best()
  end
  if not self.keep then return end
  local ok, message = self.keep(self.net, row)
  if not ok then errors.raise("fit: the model cannot be kept: %s", message or "keep(net, row) must return true") end
end

--- What a plateau looks at: the validation loss; with mode = "max" the selection.
function Run:metric_for_schedule(row)
  if (self.schedule.inner or self.schedule).mode == "max" then return row["validation_" .. self.measures.selection.name] end
  return row.validation_loss or row.loss
end

---- Telling ----

function Run:write_log()
  if not self.log then return end
  local ok, message = files.write_atomic(self.log, history_csv(self.history))
  if not ok then errors.raise("fit: cannot write the log: %s", message) end
end

function Run:say(format, ...)
  if not self.progress then return end
  print(format:format(...))
  io.stdout:flush()
end

function Run:report(row)
  local text = ("epoch %d/%d  loss %.4f"):format(row.epoch, self.epochs, row.loss)
  if row.accuracy then text = ("%s  accuracy %.2f %%"):format(text, 100 * row.accuracy) end
  if row.validation_loss then
    text = ("%s  |  validation loss %.4f  %s"):format(text, row.validation_loss, self.measures:describe(row, "validation_"))
  end
  local waited = row.waited / row.seconds
  self:say("%s  |  %.0f images/s%s%s", text, row.count / row.seconds,
    waited > WAITING_TOLD and (", %.0f %% waiting for data"):format(100 * waited) or "",
    self.history.best == row.epoch and "  *" or "")
end

---- Epochs ----

--- Closes the books on the epoch that has just been run.
function Run:finish_epoch(started, waited)
  local sums = self.sums
  self:check_weights()
  local row = {
    epoch = self.epoch, seconds = system.clock() - started, waited = (self.train.waited or 0) - waited, count = sums.count,
    learning_rate = self.optimizer.lr, loss = sums.loss / sums.count,
    accuracy = sums.classified and sums.right / sums.classified,
  }
  self.history[self.epoch] = row
  self:judge(row)
  if self.schedule then self.schedule:step(self:metric_for_schedule(row)) end
  self.epoch, self.batch, self.sums = self.epoch + 1, 0, no_sums()
  self:save()
  self:write_log()
  self:report(row)
  if self.on_epoch then self.on_epoch(row, self.net) end
end

--- True when the selection has not become better for 'patience' epochs.
function Run:is_stuck()
  local best = self.history.best
  return self.patience and best and self.epoch - 1 - best >= self.patience
end

---- The checkpoint ----

--- A checkpoint of an earlier training that this one does not go on from is kept beside it, under its name and ".old".
function Run:set_old_aside()
  if self.resumed or self.saved or not files.look(self.checkpoint) then return end
  local old = self.checkpoint .. ".old"
  local ok, message = os.rename(self.checkpoint, old)
  if not ok then errors.raise("fit: the old checkpoint cannot be set aside: %s", message) end
  io.stderr:write(("the checkpoint of an earlier training is now %s\n"):format(old))
end

function Run:save()
  if not self.checkpoint then return end
  self:check_weights()
  self:set_old_aside()
  local ok, message = checkpoint.save(self.checkpoint, self.participants, self.settings)
  if not ok then errors.raise("fit: the checkpoint cannot be written: %s", message) end
  self.saved, self.saved_at = true, system.clock()
end

--- Takes up the checkpoint, if there is one.
function Run:resume()
  if not files.look(self.checkpoint) then return end
  local ok, message = checkpoint.load(self.checkpoint, self.participants, self.settings)
  if not ok then errors.raise("fit: cannot resume: %s", message) end
  self.resumed, self.saved = true, true
  self:say("going on from %s: epoch %d, after step %d", self.checkpoint, self.epoch, self.batch)
end

return Run
