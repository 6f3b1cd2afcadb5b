--- measures.lua: what a training measures on its validation data, and which of it says what is best.

local metrics = require "feral.train.metrics"
local errors = require "feral.base.errors"

---@class Measure
---@field name string
---@field better string   "max" or "min"
---@field share boolean   between 0 and 1, printed in percent
---@field f fun(result: Evaluation): number

local function of_classes(f)
  return function(result) return f(result.labels, result.predictions) end
end

local known = {
  loss = { better = "min", f = function(result) return result.loss end },
  accuracy = { better = "max", share = true, f = of_classes(metrics.accuracy), classes = true },
  balanced = { better = "max", share = true, f = of_classes(metrics.balanced), classes = true },
  macro_f1 = { better = "max", share = true, f = of_classes(metrics.macro_f1), classes = true },
  log_loss = { better = "min", classes = true, f = function(r) return metrics.log_loss(r.targets, r.probabilities) end },
  ece = { better = "min", classes = true, f = function(r) return metrics.ece(r.labels, r.probabilities) end },
}
local known_names = { "accuracy", "balanced", "ece", "log_loss", "loss", "macro_f1" }

---@class Measures
---@field list Measure[]
---@field selection Measure  which says what is best
local Measures = {}
Measures.__index = Measures

local function measure_by_name(name)
  local found = known[name]
  if not found then
    errors.raise("fit: metric '%s' is unknown%s (known: %s; or a function of the result)", tostring(name),
      errors.hint(tostring(name), known_names), table.concat(known_names, ", "))
  end
  return { name = name, better = found.better, share = found.share, f = found.f, classes = found.classes }
end

--- The functions in a table of metrics, sorted by their names.
local function own_measures(given)
  local list = {}
  for name, f in pairs(given) do
    if math.type(name) ~= "integer" then
      if type(name) ~= "string" or not name:find("^[%a_][%w_]*$") or type(f) ~= "function" then
        errors.raise("fit: a metric must be a name, or name = function(result), got %s = %s", tostring(name), type(f))
      end
      if known[name] then errors.raise("fit: the name '%s' belongs to a metric of the library's", name) end
      list[#list + 1] = { name = name, better = "max", f = f }
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function find(list, name)
  for _, measure in ipairs(list) do
    if measure.name == name then return measure end
  end
end

--- The measure that selects, from option 'select', added to the list where it is not in it.
local function selection_of(list, select)
  local which, better = select, nil
  if type(select) == "table" then which, better = select[1], select[2] end
  if better ~= nil and better ~= "min" and better ~= "max" then
    errors.raise("fit: select must say \"min\" or \"max\", got '%s'", tostring(better))
  end
  local measure = type(which) == "function" and { name = "selection", better = "max", f = which } or find(list, which)
  measure = measure or measure_by_name(which)
  if not find(list, measure.name) then list[#list + 1] = measure end
  measure.better = better or measure.better
  return measure
end

--- What the options 'metrics' and 'select' of train.fit mean.
---@param given (string|table)[]|table<string, function>  names, and functions by their names
---@param select string|function|table  a name, a function, or {either, "min" or "max"}
---@return Measures
local function new(given, select)
  if type(given) ~= "table" then errors.raise("fit: metrics must be a list of names, got %s", type(given)) end
  local list = {}
  for _, name in ipairs(given) do
    if not find(list, name) then list[#list + 1] = measure_by_name(name) end
  end
  for _, measure in ipairs(own_measures(given)) do list[#list + 1] = measure end
  local selection = selection_of(list, select)
  return setmetatable({ list = list, selection = selection }, Measures)
end

--- All measures of a result, by name. Raises where one does not give a number.
---@param result Evaluation
---@return table<string, number>
function Measures:of(result)
  local values = {}
  for _, measure in ipairs(self.list) do
    if measure.classes and not result.labels then
      errors.raise("fit: metric '%s' needs labels of classes (i32 N or f32 N x K) and scores N x K; for other targets let "
        .. "metrics and select be \"loss\" or functions of your own", measure.name)
    end
    local value = measure.f(result)
    if type(value) ~= "number" then errors.raise("fit: metric '%s' must give a number, got %s", measure.name, type(value)) end
    values[measure.name] = value
  end
  return values
end

--- True when a value of the selection is better than the best so far. What is infinite or NaN never is.
---@param value number
---@param best number|nil
function Measures:is_better(value, best)
  if value - value ~= 0 then return false end
  if best == nil then return true end
  if self.selection.better == "min" then return value < best end
  return value > best
end

--- The names, in order.
---@return string[]
function Measures:names()
  local names = {}
  for i, measure in ipairs(self.list) do names[i] = measure.name end
  return names
end

--- Values as text: "accuracy 61.20 %  balanced 55.03 %".
---@param values table<string, number>  by 'prefix' and name
---@param prefix string
---@return string
function Measures:describe(values, prefix)
  local words = {}
  for _, measure in ipairs(self.list) do
    local value = values[prefix .. measure.name]
    if value and measure.name ~= "loss" then
      local format = measure.share and "%s %.2f %%" or "%s %.4f"
      words[#words + 1] = format:format(measure.name, measure.share and 100 * value or value)
    end
  end
  return table.concat(words, "  ")
end

return { new = new }
