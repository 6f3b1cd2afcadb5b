--- train.lua: the training loop, and evaluation.

local scope = require "feral.core.scope"
local reduce = require "feral.core.reduce"
local create = require "feral.core.create"
local system = require "feral.core.system"
local signals = require "feral.core.signals"
local files = require "feral.core.files"
local autograd = require "feral.autograd"
local errors = require "feral.errors"
local loss_functions = require "feral.loss"
local metrics = require "feral.metrics"
local checkpoint = require "feral.checkpoint"
local progress = require "feral.progress"

local train = {}

--- Predicts a whole loader in eval mode, without gradients.
---@param net Module
---@param loader table
---@param loss fun(logits: Tensor, labels: Tensor): Tensor|nil  default cross entropy
---@return table  {loss, labels, predictions} with plain lists
function train.evaluate(net, loader, loss)
  loss = loss or loss_functions.cross_entropy
  local was_training = net.training
  net:eval()
  local result = { loss = 0, labels = {}, predictions = {} }
  local next_batch = loader:batches(0)
  autograd.no_grad(function()
    while true do
      local open <close> = scope.scope() -- luacheck: ignore
      local x, y = next_batch()
      if not x then break end
      local logits = net(x)
      result.loss = result.loss + loss(logits, y):item() * #y
      local _, best = reduce.max(logits, 2)
      table.move(create.totable(y), 1, #y, #result.labels + 1, result.labels)
      table.move(create.totable(best), 1, #best, #result.predictions + 1, result.predictions)
    end
  end)
  result.loss = result.loss / #result.labels
  if was_training then net:train() end
  return result
end

--- Scores a network on a loader: metrics.report plus the mean loss.
---@param net Module
---@param loader table
---@param classes string[]
---@return table
function train.score(net, loader, classes)
  local result = train.evaluate(net, loader)
  local report = metrics.report(metrics.confusion(result.labels, result.predictions, #classes), classes)
  report.loss = result.loss
  return report
end

---@class Run  a training under way
local Run = {}
Run.__index = Run

--- One step: forward, loss, backward, update. Returns the loss and how many of the batch were right.
function Run:step(x, y)
  self.optimizer:zero_grad()
  local logits = self.net(x)
  local loss = self.loss(logits, y)
  local value = loss:item()
  if value ~= value or math.abs(value) == math.huge then
    errors.raise("the loss is %s at epoch %d, step %d%s; a smaller learning rate or clip may help", value, self.epoch,
      self.batch + 1, self.checkpoint and ("; the checkpoint before it stays in " .. self.checkpoint) or "")
  end
  loss:backward()
  if self.clip then require("feral.optim").clip_grad_norm(self.parameters, self.clip) end
  self.optimizer:step()
  local _, best = reduce.max(logits, 2)
  local right = require("feral.core.arith").eq(best, y)
  return value, math.tointeger(reduce.sum(right:to(nil), nil):item())
end

return train
