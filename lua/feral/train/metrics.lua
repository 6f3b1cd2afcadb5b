--- metrics.lua: scores of classifiers. Labels and predictions are 1-based class numbers, i32 tensors or lists.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local errors = require "feral.base.errors"

local metrics = {}

local function list_of(values, name)
  if core.is_tensor(values) then
    if values:dim() ~= 1 then errors.raise("metrics: %s must have 1 dimension, got %d", name, values:dim()) end
    return create.totable(values)
  end
  return values
end

--- Counts of true class (rows) by predicted class (columns).
---@param labels Tensor|integer[]
---@param predictions Tensor|integer[]
---@param classes integer  how many there are
---@return integer[][]
function metrics.confusion(labels, predictions, classes)
  labels, predictions = list_of(labels, "labels"), list_of(predictions, "predictions")
  if #labels ~= #predictions then
    errors.raise("confusion: %d labels but %d predictions", #labels, #predictions)
  end
  local counts = {}
  for t = 1, classes do
    counts[t] = {}
    for p = 1, classes do counts[t][p] = 0 end
  end
  for i, t in ipairs(labels) do
    local p = predictions[i]
    if not counts[t] or not counts[t][p] then
      errors.raise("confusion: sample %d has label %s, prediction %s; classes are 1..%d", i, t, p, classes)
    end
    counts[t][p] = counts[t][p] + 1
  end
  return counts
end

--- The share of right predictions.
function metrics.accuracy(labels, predictions)
  labels, predictions = list_of(labels, "labels"), list_of(predictions, "predictions")
  if #labels ~= #predictions then errors.raise("accuracy: %d labels but %d predictions", #labels, #predictions) end
  local right = 0
  for i, t in ipairs(labels) do
    if predictions[i] == t then right = right + 1 end
  end
  return right / #labels
end

--- The mean over the classes that occur of the share of their samples that was predicted right.
function metrics.balanced(labels, predictions)
  labels, predictions = list_of(labels, "labels"), list_of(predictions, "predictions")
  if #labels ~= #predictions then errors.raise("balanced: %d labels but %d predictions", #labels, #predictions) end
  local count, right = {}, {}
  for i, t in ipairs(labels) do
    count[t] = (count[t] or 0) + 1
    right[t] = (right[t] or 0) + (predictions[i] == t and 1 or 0)
  end
  local sum, classes = 0, 0
  for t, n in pairs(count) do sum, classes = sum + right[t] / n, classes + 1 end
  return sum / classes
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
---@return table  accuracy, low, high (95 %, Wilson), balanced (mean recall of the classes that occur), macro_f1, count,
---               right, per_class {class, count, precision, recall, f1, recall_low, recall_high}, confusion, classes
function metrics.report(counts, classes)
  classes = names_of(counts, classes)
  local report = setmetatable({ confusion = counts, classes = classes, per_class = {}, count = 0, right = 0 }, Report)
  local recall, f1, occurring = 0, 0, 0
  for c = 1, #counts do
    local scores = class_scores(counts, c, classes[c])
    report.per_class[c] = scores
    report.count, report.right = report.count + scores.count, report.right + scores.right
    if scores.count > 0 then
      recall, f1, occurring = recall + scores.recall, f1 + scores.f1, occurring + 1
    end
  end
  report.accuracy = ratio(report.right, report.count)
  report.low, report.high = metrics.wilson(report.right, report.count)
  report.balanced, report.macro_f1 = ratio(recall, occurring), ratio(f1, occurring)
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
