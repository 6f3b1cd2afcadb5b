--- loss.lua: losses, each one number for a batch (or one a sample with reduction = "none"), each with gradients.

local loss_core = require "feral.core.loss"
local arith = require "feral.core.arith"
local view = require "feral.core.view"
local autograd = require "feral.tensor.autograd"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"

local loss = {}

local record = autograd.record
local reductions = { "mean", "sum", "none" }

--- Checks the options; 'more' are reductions beside the usual three.
local function options_of(name, given, known, more)
  local options = errors.check_options(name, given, known)
  local allowed = { table.unpack(reductions) }
  allowed[#allowed + 1] = more
  for _, reduction in ipairs(allowed) do
    if options.reduction == reduction then return options end
  end
  return errors.raise("%s: reduction '%s' is unknown%s (known: %s)", name, options.reduction,
    errors.hint(options.reduction, allowed), table.concat(allowed, ", "))
end

--- Only the prediction gets a gradient; one that is expected for the target must not be lost in silence.
local function check_constant(name, what, target)
  if autograd.wanted(target) then
    errors.raise("%s: %s have no gradient here; detach() them", name, what)
  end
end

--- A loss of scores and labels that the engine computes together with its gradient.
local function of_scores(name, scores, labels, options, ...)
  check_constant(name, "labels", labels)
  local want = autograd.wanted(scores)
  local value, slope = loss_core[name](scores, labels, options.weight, options.sample_weight, options.reduction, want, ...)
  if not want then return value end
  return record(value, { scores }, function(g)
    return arith.mul(slope, options.reduction == "none" and view.unsqueeze(g, 2) or g)
  end)
end

--- Cross entropy of softmax(scores), as PyTorch's. Labels are class numbers, or soft: a target probability for each class,
--- minus the sum over the classes of weight * target * log p. Smoothing moves this part of a target to all classes alike.
---
--- weight is of classes, sample_weight of the samples of this batch; "sum" and "none" multiply by both. The mean of hard labels
--- divides by the sum of sample_weight * the weights of the labels; of soft ones, as PyTorch, by that of sample_weight alone
--- (without it by N). A batch in which no sample counts has a loss of 0.
---@param scores Tensor  N x K, before softmax
---@param labels Tensor  i32 N, 1-based, or soft f32 N x K
---@param options {weight: Tensor, sample_weight: Tensor, smoothing: number, reduction: string}|nil  K; N; in 0..1 (0); "mean"
---@return Tensor
--- Raises on weights below 0.
function loss.cross_entropy(scores, labels, options)
  options = options_of("cross_entropy", options, { weight = false, sample_weight = false, smoothing = 0, reduction = "mean" })
  local smoothing = options.smoothing
  if type(smoothing) ~= "number" or smoothing < 0 or smoothing > 1 then
    errors.raise("cross_entropy: smoothing must lie in 0..1, got %s", tostring(smoothing))
  end
  return of_scores("cross_entropy", scores, labels, options, smoothing)
end

--- Focal loss, -(1 - p)^gamma log p, which cares less for what is right already (Lin et al. 2017); gamma 0 is cross entropy.
---@param scores Tensor  N x K, before softmax
---@param labels Tensor  i32 N, 1-based
---@param options {gamma: number, weight: Tensor, sample_weight: Tensor, reduction: string}|nil  gamma 2; K; N; "mean", over
---   the weights, as cross_entropy's
---@return Tensor
function loss.focal(scores, labels, options)
  options = options_of("focal", options, { gamma = 2, weight = false, sample_weight = false, reduction = "mean" })
  if type(options.gamma) ~= "number" or options.gamma < 0 then
    errors.raise("focal: gamma must be 0 or more, got %s", tostring(options.gamma))
  end
  return of_scores("focal", scores, labels, options, options.gamma)
end

--- The hinge loss of a support vector machine for several classes: the sum over the wrong classes of
--- max(0, margin - score of the label + score of the class)^p, over K.
---@param scores Tensor  N x K
---@param labels Tensor  i32 N, 1-based
---@param options table|nil  {p 1 or 2 (1), margin (1), weight (K), sample_weight (N), reduction ("mean": over N, or over the sum
---   of sample_weight)}
---@return Tensor
function loss.multi_margin(scores, labels, options)
  options = options_of("multi_margin", options, { p = 1, margin = 1, weight = false, sample_weight = false,
    reduction = "mean" })
  if options.p ~= 1 and options.p ~= 2 then errors.raise("multi_margin: p must be 1 or 2, got %s", tostring(options.p)) end
  return of_scores("multi_margin", scores, labels, options, options.margin, math.tointeger(options.p))
end

local function reduced(values, reduction)
  if reduction == "none" then return values end
  return reduction == "sum" and ops.sum(values) or ops.mean(values)
end

local function check_same_shape(name, prediction, target)
  local a, b = table.concat(prediction.shape, "x"), table.concat(target.shape, "x")
  if a ~= b then errors.raise("%s: the prediction is %s, the target %s", name, a, b) end
end

--- Mean squared error.
---@param prediction Tensor
---@param target Tensor  of the same shape
---@param options {reduction: string}|nil  "mean" (over all elements), "sum" or "none"
---@return Tensor
function loss.mse(prediction, target, options)
  options = options_of("mse", options, { reduction = "mean" })
  check_same_shape("mse", prediction, target)
  local difference = ops.sub(prediction, target)
  return reduced(ops.mul(difference, difference), options.reduction)
end

--- Binary cross entropy, for targets of which several may hold at once (action units).
---@param prediction Tensor  probabilities, or scores before sigmoid with logits = true (the steadier form)
---@param target Tensor  of the same shape, values in 0..1
---@param options {logits: boolean, reduction: string}|nil  false; "mean" (over all elements), "sum" or "none"
---@return Tensor
function loss.bce(prediction, target, options)
  options = options_of("bce", options, { logits = false, reduction = "mean" })
  check_constant("bce", "targets", target)
  local name = options.logits and "bce_logits" or "bce"
  local values = loss_core[name](prediction, target)
  if autograd.wanted(prediction) then
    record(values, { prediction }, function(g) return arith.mul(loss_core[name .. "_slope"](prediction, target), g) end)
  end
  return reduced(values, options.reduction)
end

--- Kullback-Leibler divergence of a prediction from a target distribution: the sum of target * (log target - prediction).
---@param log_prediction Tensor  log probabilities (log_softmax) N x ...
---@param target Tensor  probabilities of the same shape
---@param options {reduction: string}|nil  "batchmean" (default: the sum over N), "mean" (over all elements), "sum", "none"
---@return Tensor
function loss.kl(log_prediction, target, options)
  options = options_of("kl", options, { reduction = "batchmean" }, "batchmean")
  check_same_shape("kl", log_prediction, target)
  check_constant("kl", "targets", target)
  local entropy = arith.mul(target, arith.log(arith.maximum(target, 1e-37))) -- 0 log 0 = 0
  local values = ops.sub(entropy, ops.mul(target, log_prediction))
  if options.reduction == "batchmean" then return ops.div(ops.sum(values), log_prediction:size(1)) end
  return reduced(values, options.reduction)
end

--- Minus the cosine of the angle between prediction and target along their last dimension: -1 where they point the same way.
---@param prediction Tensor  N x D
---@param target Tensor  of the same shape
---@param options {reduction: string}|nil  "mean", "sum" or "none" (over or of the N)
---@return Tensor
function loss.cosine_proximity(prediction, target, options)
  options = options_of("cosine_proximity", options, { reduction = "mean" })
  check_same_shape("cosine_proximity", prediction, target)
  local dim = prediction:dim()
  local function squared_norm(t) return ops.clamp(ops.sum(ops.mul(t, t), dim), 1e-12) end
  local norms = ops.sqrt(ops.mul(squared_norm(prediction), squared_norm(target)))
  return reduced(ops.neg(ops.div(ops.sum(ops.mul(prediction, target), dim), norms)), options.reduction)
end

return loss
