--- evaluation.lua: what a network makes of a whole loader.

local scope = require "feral.core.scope"
local core = require "feral.core.tensor"
local reduce = require "feral.core.reduce"
local index = require "feral.core.index"
local autograd = require "feral.tensor.autograd"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"
local loss_functions = require "feral.nn.loss"
local metrics = require "feral.train.metrics"
local compile = require "feral.plan.compile"

local train = {} -- its functions are found under this name, train.evaluate

local BATCH_FIELDS = { "weight", "votes", "index", "lengths" } -- what a loader may tell of its samples

--- Raises unless this is a loader.
---@param name string  whose, for the message
function train.check_loader(name, loader)
  if type(loader) == "table" and loader.batches then return end
  errors.raise("%s must be a loader (data.loader), got %s", name, type(loader) == "table" and "another table" or type(loader))
end

--- Class numbers of a batch's labels and of its scores; nil where they are no classification: labels i32 N, or soft N x K as the
--- scores.
---@return Tensor|nil labels       i32 N
---@return Tensor|nil predictions  i32 N
function train.hard(logits, y)
  if not core.is_tensor(y) or logits:dim() ~= 2 then return nil end
  local is_hard = y.dtype == "i32" and y:dim() == 1
  local is_soft = y.dtype == core.real and y:dim() == 2 and y:size(2) == logits:size(2)
  if not (is_hard or is_soft) or #y ~= #logits then return nil end
  return metrics.hard_labels(y), (select(2, reduce.max(logits, 2)))
end

--- How many samples a batch has.
function train.count(x, y) return core.is_tensor(y) and #y or #x end

--- The loss where none is given: cross entropy, of batches with weights weighted.
function train.loss(logits, y, batch)
  return loss_functions.cross_entropy(logits, y, { sample_weight = batch and batch.weight })
end

--- Closes a scope; the tensors among a table's values live on in the scope around.
local function leave_with(open, values)
  local tensors = {}
  for _, value in pairs(values) do
    if core.is_tensor(value) then tensors[#tensors + 1] = value end
  end
  open:leave(table.unpack(tensors))
end

--- The next batch: its loss times its samples, and their number; nil at the end. What is gathered lives on in the scope around,
--- the images do not.
local function score_batch(gathered, next_batch, predict, loss)
  local open <close> = scope.scope()
  local x, y, batch = next_batch()
  if x == nil then return nil end
  local pieces = { logits = predict(x), targets = y }
  local n = train.count(x, y)
  local sum = loss(pieces.logits, y, batch):item() * n
  for _, name in ipairs(BATCH_FIELDS) do pieces[name] = batch and batch[name] end
  leave_with(open, pieces)
  for name, list in pairs(gathered) do list[#list + 1] = core.is_tensor(pieces[name]) and pieces[name] or nil end
  return sum, n
end

---@class Evaluation  tensors over all samples, in the loader's order; they belong to the caller's scope
---@field loss number               the mean over the samples
---@field count integer             how many they are
---@field logits Tensor             N x K, what the network gives
---@field probabilities Tensor|nil  N x K, softmax of the logits
---@field predictions Tensor|nil    i32 N, the class with the largest logit, of equal ones the first
---@field labels Tensor|nil         i32 N; of soft labels the largest, of equal ones the first
---@field targets Tensor|nil        the labels as the loader gave them, i32 N or soft N x K
---@field weight Tensor|nil         N; and votes, index and lengths, where the loader's batches have them
---@field classes string[]|nil      the loader's

local function result_of(gathered, batches, classes)
  local result = { classes = classes }
  for name, pieces in pairs(gathered) do -- what some batches lack is left out
    result[name] = #pieces == batches and index.cat(pieces, 1) or nil
  end
  result.labels, result.predictions = train.hard(result.logits, result.targets)
  if result.labels then result.probabilities = ops.softmax(result.logits, 2) end
  return result
end

--- Predicts a whole loader in eval mode, without gradients. The network's mode is afterwards as it was. The result has tensors
--- over all samples, in the loader's order: logits and probabilities N x K, predictions and labels i32 N (of soft labels the
--- largest class), targets (the labels as they came), and weight, votes, index, lengths where the batches have them; and loss,
--- count and classes (the loader's). Where the labels are no classes it has no labels, predictions and probabilities.
---@param net Module
---@param loader table  for x, y, batch in loader:batches(0); y is i32 N, or soft f32 N x K; batch is nil or {weight, votes, ...}
---@param loss (fun(logits: Tensor, y: Tensor, batch: table|nil): Tensor)|nil  default cross entropy, weighted by batch.weight
---@return Evaluation
function train.evaluate(net, loader, loss)
  train.check_loader("evaluate: the data", loader)
  loss = loss or train.loss
  local predict = compile.predictor(net)
  local gathered, sum, count, batches = { logits = {}, targets = {} }, 0, 0, 0
  for _, name in ipairs(BATCH_FIELDS) do gathered[name] = {} end
  local all <close> = scope.scope()
  local next_batch, _, _, queue = loader:batches(0)
  local _queue <close> = queue
  return autograd.no_grad(function()
    local of_batch, n = score_batch(gathered, next_batch, predict, loss)
    while of_batch do
      sum, count, batches = sum + of_batch, count + n, batches + 1
      of_batch, n = score_batch(gathered, next_batch, predict, loss)
    end
    if count == 0 then errors.raise("evaluate: the loader has no samples") end
    local result = result_of(gathered, batches, loader.classes)
    result.loss, result.count = sum / count, count
    leave_with(all, result)
    return result
  end)
end

--- Scores a network on a loader: metrics.report plus the mean loss. The network's mode is afterwards as it was.
---@param net Module
---@param loader table
---@param classes string[]|nil  default: the loader's
---@return table
--- Raises where the labels are no classes, i32 N or soft N x K.
function train.score(net, loader, classes)
  local _open <close> = scope.scope()
  local result = train.evaluate(net, loader)
  classes = classes or loader.classes or errors.raise("score: the names of the classes are missing")
  local report = metrics.report(metrics.confusion(result.labels, result.predictions, #classes), classes)
  report.loss = result.loss
  return report
end

return train
