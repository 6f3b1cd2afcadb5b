--- measure.lua: the figures of a model's card: scores, calibration, coverage, speed.

local arith = require "feral.core.arith"
local create = require "feral.core.create"
local engine = require "feral.core.engine"
local index = require "feral.core.index"
local reduce = require "feral.core.reduce"
local scope = require "feral.core.scope"
local softmax = require("feral.core.softmax").softmax
local system = require "feral.core.system"
local metrics = require "feral.train.metrics"
local errors = require "feral.base.errors"

local measure = {}

local THRESHOLDS <const> = { 0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9 }

--- What stays of a report on a card.
local function plain(report)
  local fields = { "count", "right", "accuracy", "low", "high", "balanced", "classes", "confusion", "per_class" }
  local kept = {}
  for _, name in ipairs(fields) do kept[name] = report[name] end
  return kept
end

--- Of the samples whose highest probability reaches a threshold: how many they are, and how many are right. The rest would be
--- called unknown.
---@param labels Tensor         i32 N
---@param probabilities Tensor  N x K
---@param thresholds number[]|nil  shares; default 0, 0.3 ... 0.9
---@return {threshold: number, count: integer, coverage: number, accuracy: number|nil}[]  accuracy: nil where none is left
function measure.coverage(labels, probabilities, thresholds)
  local _open <close> = scope.scope()
  local most, best = reduce.max(probabilities, 2)
  local sure, predicted, truth, rows = create.totable(most), create.totable(best), create.totable(labels), {}
  for i, threshold in ipairs(thresholds or THRESHOLDS) do
    local count, right = 0, 0
    for k, p in ipairs(sure) do
      if p >= threshold then count, right = count + 1, right + (predicted[k] == truth[k] and 1 or 0) end
    end
    rows[i] = { threshold = threshold, count = count, coverage = count / #sure, accuracy = count > 0 and right / count or nil }
  end
  return rows
end

--- Milliseconds for one preprocessed image on one thread: the median of what fits into the time, after a warm-up.
---@param m Model
---@param seconds number|nil  to measure for (0.3)
---@return {ms: number, threads: integer}|nil, string|nil  nil and why for a model of features
function measure.speed(m, seconds)
  local channels, height, width = m:image_size()
  if not channels then return nil, height end
  local threads = engine.threads()
  local _restored <close> = setmetatable({}, { __close = function() engine.threads(threads) end })
  local _open <close> = scope.scope()
  local x, times = create.full({ 1, channels, height, width }, 0), {}
  engine.threads(1)
  m:scores_of(x)
  local start = system.clock()
  local now = start
  while #times < 5 or now - start < (seconds or 0.3) do
    local _call <close> = scope.scope()
    local before = system.clock()
    m:scores_of(x)
    now = system.clock()
    times[#times + 1] = now - before
  end
  table.sort(times)
  return { ms = 1000 * times[(#times + 1) // 2], threads = 1 }
end

local function check_classes(m, loader)
  for i, name in ipairs(loader.classes or {}) do
    if name ~= m.classes[i] or #loader.classes ~= #m.classes then
      errors.raise("measure: the loader's classes (%s) must be the model's (%s), in their order (set:with_classes)",
        table.concat(loader.classes, ", "), table.concat(m.classes, ", "))
    end
  end
end

--- Scores and labels of all loaders' samples.
local function scores_on(m, loaders)
  local scores, labels = {}, {}
  for i, loader in ipairs(loaders) do scores[i], labels[i] = m:scores_on(loader) end
  return index.cat(scores, 1), index.cat(labels, 1)
end

local function report_on(m, loaders)
  local _open <close> = scope.scope()
  local scores, labels = scores_on(m, loaders)
  local _, best = reduce.max(scores, 2)
  return plain(metrics.report(metrics.confusion(labels, best, #m.classes), m.classes))
end

local function temperature_of(m)
  for _, stage in ipairs(m.stages) do
    if stage.kind == "temperature" then return stage.temperature end
  end
end

--- The gap between how sure the model is and how often it is right, without its temperature and with it, and its coverage.
local function calibration_of(calibrated, rest)
  local _open <close> = scope.scope()
  local temperature = temperature_of(calibrated)
  local scores, labels = calibrated:scores_on(rest)
  local after = softmax(scores, 2)
  return {
    temperature = temperature, measured_on = #labels,
    before = metrics.ece(labels, softmax(arith.mul(scores, temperature), 2)), after = metrics.ece(labels, after),
  }, measure.coverage(labels, after)
end

local function parameters_of(m)
  local count = 0
  for _, stage in ipairs(m.stages) do
    if stage.net then
      count = count + stage.net:num_parameters(true)
    else
      for _, pair in ipairs(stage:state()) do count = count + pair[2]:numel() end
    end
  end
  return count
end

--- The model with a temperature that is fitted to some of the data, and all figures of its card. Accuracy, recall and confusion
--- are of all samples, since a temperature changes none of them; calibration and coverage are of those it was not fitted to.
---@param m Model
---@param loaders {fit: Loader, rest: Loader}  their classes are the model's, in its order
---@return Model calibrated
---@return table figures  report's fields, views (with and without mirror images), calibration, coverage, speed, parameters
function measure.all(m, loaders)
  local fit, rest = loaders.fit, loaders.rest
  check_classes(m, fit)
  check_classes(m, rest)
  local calibrated = assert(m:calibrate(fit))
  local figures = report_on(calibrated, { fit, rest })
  figures.calibration, figures.coverage = calibration_of(calibrated, rest)
  figures.calibration.fitted_on = figures.count - figures.calibration.measured_on
  figures.speed, figures.parameters = measure.speed(calibrated), parameters_of(m)
  local mirrors = m.stages[m.classifier].mirror or false
  local other = m:mirrored(not mirrors)
  if other then
    local of_other, views = report_on(other, { fit, rest }), {}
    views[1], views[2] = mirrors and of_other or figures, mirrors and figures or of_other
    figures.views = {}
    for i, report in ipairs(views) do
      figures.views[i] = { mirror = i == 2, accuracy = report.accuracy, low = report.low, high = report.high,
        balanced = report.balanced }
    end
  end
  return calibrated, figures
end

return measure
