--- metrics.lua: scores of classifiers.
---
--- Labels and predictions are 1-based class numbers: i32 tensors of N, or lists. Where they are soft (f32 N x K: probabilities,
--- scores or votes), the class with the largest number counts, of equal ones the first.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local reduce = require "feral.core.reduce"
local view = require "feral.core.view"
local scope = require "feral.core.scope"
local ops = require "feral.tensor.ops"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"

local metrics = {}

local CHUNK = 65536 -- samples that are a Lua table at a time
local SUM_TOLERANCE = 1e-3 -- how far from 1 the probabilities of a sample may sum to
local LEAST_PROBABILITY = 2 ^ -23 -- a certain and wrong prediction costs much, but not infinity; scikit-learn's for float32

local function is_soft(values) return core.is_tensor(values) and values.dtype == core.real and values:dim() == 2 end

local function hard(values, name)
  if is_soft(values) then return select(2, reduce.max(values, 2)) end
  if core.is_tensor(values) and values:dim() ~= 1 then
    errors.raise("metrics: %s must have 1 dimension, got %d", name, values:dim())
  end
  return values
end

--- Class numbers of labels that may be soft: the class with the largest number, of equal ones the first.
---@param labels Tensor|integer[]  i32 N, or f32 N x K
---@return Tensor|integer[]        i32 N; what is hard already stays as it is
function metrics.hard_labels(labels) return hard(labels, "labels") end

--- Calls f(label, prediction, i) for all samples. Tensors become tables piece by piece: millions of samples need little memory.
--- Raises, naming 'where', unless both are as long and not empty.
local function for_samples(where, labels, predictions, f)
  local _open <close> = scope.scope()
  labels, predictions = hard(labels, "labels"), hard(predictions, "predictions")
  if #labels ~= #predictions then errors.raise("%s: %d labels but %d predictions", where, #labels, #predictions) end
  if #labels == 0 then errors.raise("%s: there are no samples", where) end
  local function piece(values, first, count)
    if core.is_tensor(values) then return create.totable(view.narrow(values, 1, first, count)) end
    return table.move(values, first, first + count - 1, 1, {})
  end
  for first = 1, #labels, CHUNK do
    local count = math.min(CHUNK, #labels - first + 1)
    local some_labels, some_predictions = piece(labels, first, count), piece(predictions, first, count)
    for k, label in ipairs(some_labels) do f(label, some_predictions[k], first + k - 1) end
  end
end

--- Counts of true class (rows) by predicted class (columns).
---@param labels Tensor|integer[]
---@param predictions Tensor|integer[]
---@param classes integer  how many there are
---@return integer[][]
function metrics.confusion(labels, predictions, classes)
  local counts = {}
  for t = 1, classes do
    counts[t] = {}
    for p = 1, classes do counts[t][p] = 0 end
  end
  for_samples("confusion", labels, predictions, function(t, p, i)
    if not counts[t] or not counts[t][p] then
      errors.raise("confusion: sample %d has label %s, prediction %s; classes are 1..%d", i, t, p, classes)
    end
    counts[t][p] = counts[t][p] + 1
  end)
  return counts
end

--- The share of right predictions.
---@param labels Tensor|integer[]
---@param predictions Tensor|integer[]
---@return number
function metrics.accuracy(labels, predictions)
  local right, count = 0, 0
  for_samples("accuracy", labels, predictions, function(t, p) right, count = right + (t == p and 1 or 0), count + 1 end)
  return right / count
end

--- How often each class is the label, is predicted, and both; with their numbers in order.
local function count_classes(where, labels, predictions)
  local truth, predicted, right, classes = {}, {}, {}, {}
  local function see(c)
    if truth[c] then return end
    truth[c], predicted[c], right[c] = 0, 0, 0
    classes[#classes + 1] = c
  end
  for_samples(where, labels, predictions, function(t, p)
    see(t)
    see(p)
    truth[t], predicted[p] = truth[t] + 1, predicted[p] + 1
    if t == p then right[t] = right[t] + 1 end
  end)
  table.sort(classes)
  return truth, predicted, right, classes
end

--- The mean over the classes that occur among the labels of the share of their samples that was predicted right.
---@param labels Tensor|integer[]
---@param predictions Tensor|integer[]
---@return number
function metrics.balanced(labels, predictions)
  local truth, _, right, classes = count_classes("balanced", labels, predictions)
  local sum, occurring = 0, 0
  for _, c in ipairs(classes) do
    if truth[c] > 0 then sum, occurring = sum + right[c] / truth[c], occurring + 1 end
  end
  return sum / occurring
end

--- The mean F1 of the classes that occur among the labels or the predictions, as scikit-learn's; a class that is predicted and
--- never true has 0.
---@param labels Tensor|integer[]
---@param predictions Tensor|integer[]
---@return number
function metrics.macro_f1(labels, predictions)
  local truth, predicted, right, classes = count_classes("macro_f1", labels, predictions)
  local sum = 0
  for _, c in ipairs(classes) do sum = sum + 2 * right[c] / (truth[c] + predicted[c]) end
  return sum / #classes
end

--- Probabilities as a tensor N x K, one row a label. Raises where they are none.
local function check_probabilities(where, labels, p)
  if type(p) == "table" then p = create.from_table(p) end
  if not is_soft(p) then
    errors.raise("%s: probabilities must be %s N x K, got %s", where, core.real,
      core.is_tensor(p) and ("%s %s"):format(p.dtype, table.concat(p.shape, "x")) or type(p))
  end
  if #labels ~= #p then errors.raise("%s: %d labels but probabilities of %d samples", where, #labels, #p) end
  for i, sum in ipairs(create.totable(reduce.sum(p, 2))) do
    if sum ~= sum or math.abs(sum - 1) > SUM_TOLERANCE then
      errors.raise("%s: the probabilities of sample %d sum to %g, not to 1 (of scores: softmax(2))", where, i, sum)
    end
  end
  return p
end

--- The mean of minus the log of the label's probability; of soft labels their cross entropy. Probabilities below 2^-23 count as
--- that much.
---@param labels Tensor|integer[]   i32 N, or f32 N x K (rows that sum to 1)
---@param probabilities Tensor|number[][]  N x K
---@return number
--- Raises where the probabilities of a sample do not sum to 1.
function metrics.log_loss(labels, probabilities)
  local _open <close> = scope.scope()
  local p = check_probabilities("log_loss", labels, probabilities)
  if type(labels) == "table" then labels = create.from_table(labels, "i32") end
  return autograd.no_grad(function()
    local logs = ops.log(ops.clamp(p, LEAST_PROBABILITY))
    local by_class = is_soft(labels) and labels or ops.to(ops.one_hot(labels, p:size(2)), core.real)
    return -ops.item(ops.sum(ops.mul(by_class, logs))) / #labels
  end)
end

--- The expected calibration error: samples fall by their largest probability into bins of equal width, (0, 1/bins] ...; the mean
--- over the samples of the gap between a bin's accuracy and its mean probability (Guo et al. 2017, "On calibration of modern
--- neural networks").
---@param labels Tensor|integer[]
---@param probabilities Tensor|number[][]  N x K
---@param bins integer|nil  default 15
---@return number  0: where it says 80 %, 80 % are right
--- Raises where the probabilities of a sample do not sum to 1.
function metrics.ece(labels, probabilities, bins)
  bins = bins or 15
  if math.type(bins) ~= "integer" or bins < 1 then
    errors.raise("ece: bins must be a whole number from 1, got %s", tostring(bins))
  end
  local _open <close> = scope.scope()
  local p = check_probabilities("ece", labels, probabilities)
  local confidence, predictions = reduce.max(p, 2)
  local sure, right = {}, {}
  for b = 1, bins do sure[b], right[b] = 0, 0 end
  local of_sample = create.totable(confidence)
  for_samples("ece", labels, predictions, function(t, prediction, i)
    local b = math.max(1, math.min(bins, math.ceil(of_sample[i] * bins)))
    sure[b], right[b] = sure[b] + of_sample[i], right[b] + (t == prediction and 1 or 0)
  end)
  local gap = 0
  for b = 1, bins do gap = gap + math.abs(right[b] - sure[b]) end
  return gap / #labels
end

--- Wilson's score interval for k right of n (Wilson 1927).
---@param k integer
---@param n integer
---@param z number|nil  1.96 for 95 %
---@return number low, number high  shares
function metrics.wilson(k, n, z)
  z = z or 1.959963984540054
  if n == 0 then return 0, 1 end
  local share, zz = k / n, z * z
  local centre = (share + zz / (2 * n)) / (1 + zz / n)
  local half = z / (1 + zz / n) * math.sqrt(share * (1 - share) / n + zz / (4 * n * n))
  return math.max(0, centre - half), math.min(1, centre + half)
end

local function ratio(a, b) return b > 0 and a / b or 0 end

local function class_scores(counts, c, name)
  local right, of_class, predicted = counts[c][c], 0, 0
  for other = 1, #counts do
    of_class = of_class + counts[c][other]
    predicted = predicted + counts[other][c]
  end
  local precision, recall = ratio(right, predicted), ratio(right, of_class)
  local low, high = metrics.wilson(right, of_class)
  return {
    class = name, count = of_class, predicted = predicted, right = right, precision = precision, recall = recall,
    f1 = ratio(2 * precision * recall, precision + recall), recall_low = low, recall_high = high,
  }
end

local Report = {}
Report.__index = Report

--- The classes' names; numbers where there are none.
local function names_of(counts, classes)
  local names = {}
  for c = 1, #counts do names[c] = classes and classes[c] or tostring(c) end
  return names
end

--- All scores that follow from a confusion matrix.
---@param counts integer[][]  as metrics.confusion makes it
---@param classes string[]|nil  names; numbers where it is nil
---@return table  accuracy, low, high (95 %, Wilson), balanced (mean recall of the classes that occur), macro_f1 (mean of the
---               classes that occur or are predicted, as scikit-learn's), count, right, per_class {class, count, precision,
---               recall, f1, recall_low, recall_high}, confusion, classes
function metrics.report(counts, classes)
  classes = names_of(counts, classes)
  local report = setmetatable({ confusion = counts, classes = classes, per_class = {}, count = 0, right = 0 }, Report)
  local recall, f1, occurring, seen = 0, 0, 0, 0
  for c = 1, #counts do
    local scores = class_scores(counts, c, classes[c])
    report.per_class[c] = scores
    report.count, report.right = report.count + scores.count, report.right + scores.right
    if scores.count > 0 then recall, occurring = recall + scores.recall, occurring + 1 end
    if scores.count + scores.predicted > 0 then f1, seen = f1 + scores.f1, seen + 1 end
  end
  report.accuracy = ratio(report.right, report.count)
  report.low, report.high = metrics.wilson(report.right, report.count)
  report.balanced, report.macro_f1 = ratio(recall, occurring), ratio(f1, seen)
  return report
end

local function letters(text) return utf8.len(text) or #text end

local function padded(text, width) return text .. (" "):rep(width - letters(text)) end

--- The first letters of a text, flush right in 'width' columns.
local function cut(text, most, width)
  if letters(text) > most then text = text:sub(1, (utf8.len(text) and utf8.offset(text, most + 1) or most + 1) - 1) end
  return (" "):rep(width - letters(text)) .. text
end

local function widest(classes, least)
  local width = least
  for _, name in ipairs(classes) do width = math.max(width, letters(name)) end
  return width
end

--- The confusion matrix as text: rows are true classes, columns predicted ones.
---@param counts integer[][]
---@param classes string[]|nil  names; numbers where it is nil
---@return string
function metrics.confusion_text(counts, classes)
  local names = names_of(counts, classes)
  local width = widest(names, 5)
  local lines, head = {}, { (" "):rep(width) }
  for c = 1, #counts do head[#head + 1] = cut(names[c], 5, 6) end
  lines[1] = table.concat(head) .. "   <- predicted"
  for t = 1, #counts do
    local row = { padded(names[t], width) }
    for p = 1, #counts do row[#row + 1] = ("%6d"):format(counts[t][p]) end
    lines[#lines + 1] = table.concat(row)
  end
  return table.concat(lines, "\n")
end

--- The scores as a table for people.
function Report:__tostring()
  local width = widest(self.classes, 8)
  local lines = { padded("", width) .. "  precision  recall  (95 % interval)     f1  images" }
  for _, s in ipairs(self.per_class) do
    lines[#lines + 1] = ("%s  %8.1f%%  %5.1f%%  (%4.1f to %5.1f%%)  %5.1f  %6d"):format(padded(s.class, width),
      100 * s.precision, 100 * s.recall, 100 * s.recall_low, 100 * s.recall_high, 100 * s.f1, s.count)
  end
  lines[#lines + 1] = ("accuracy %.2f %% (%.1f to %.1f), balanced %.2f %%, macro F1 %.1f, %d images"):format(
    100 * self.accuracy, 100 * self.low, 100 * self.high, 100 * self.balanced, 100 * self.macro_f1, self.count)
  return table.concat(lines, "\n")
end

return metrics
