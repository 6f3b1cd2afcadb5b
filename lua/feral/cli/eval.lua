--- feral eval: scores a model on a folder of faces.

local errors = require "feral.base.errors"
local json = require "feral.formats.json"

local eval = {
  usage = "feral eval MODEL DIR [options]",
  about = "Scores a model on a folder of faces, DIR/<class>/<image>.",
  words = { "MODEL", "DIR" },
  options = {
    { "part", value = "NAME", choices = { "train", "test", "private" },
      about = "of FER2013 (a folder of splits, or the CSV)" },
    { "batch", value = "N", type = "integer", least = 1, default = 128, about = "images at a time" },
    { "strict", about = "stop at the first image that cannot be read" },
    { "json", about = "print the scores as JSON" },
  },
}

--- How the images are read: as the model's preprocessing begins, where it begins as usual; else as they are in their files.
local function reading(preprocessing)
  local first, second = preprocessing[1], preprocessing[2]
  local channels = first and first.name == "gray" and 1 or 3
  if first and (first.name == "gray" or first.name == "rgb") and second and second.name == "resize" then
    return { size = { second.height, second.width }, channels = channels }
  end
  return { size = false, channels = channels, keep = "files" }
end

--- The data to score on.
---@param values {model: string, dir: string, part: string|nil, strict: boolean|nil}
---@param trained Model
---@return Set|nil, string|nil
function eval.open(values, trained)
  local data = require "feral.data"
  if not trained.preprocessing then return nil, ("%s: %s"):format(values.model, select(2, trained:image_size())) end
  local options = reading(trained.preprocessing)
  options.strict = values.strict
  if not values.part then return data.folder(values.dir, options) end
  local sets, message = data.fer2013(values.dir, options)
  if not sets then return nil, message end
  if not sets[values.part] then return nil, ("%s: there is no part '%s'"):format(values.dir, values.part) end
  return sets[values.part]
end

--- The same samples with their labels numbered as the model numbers its classes.
---@param set Set
---@param classes string[]
---@return Set|nil, string|nil  nil and a message when the set has a class that the model does not know
function eval.relabel(set, classes)
  local known = {}
  for _, name in ipairs(classes) do known[name] = true end
  for _, name in ipairs(set.classes) do
    if not known[name] then
      return nil, ("the data's class '%s' is none of the model's%s (it knows %s)"):format(name, errors.hint(name, classes),
        table.concat(classes, ", "))
    end
  end
  return set:with_classes(classes)
end

--- What the scores look like as plain data.
---@param report table  metrics.report's
---@return table
function eval.plain(report)
  local fields = { "count", "right", "accuracy", "low", "high", "balanced", "macro_f1", "loss", "classes", "per_class",
    "confusion" }
  local plain = {}
  for _, name in ipairs(fields) do plain[name] = report[name] end
  return plain
end

function eval.run(values)
  local trained, message = require("feral.model").load(values.model)
  if not trained then return nil, message end
  local set
  set, message = eval.open(values, trained)
  if not set then return nil, message end
  local loader = require("feral.data").loader(set, {
    batch = values.batch, shuffle = false, preprocessing = trained.preprocessing,
  })
  local report, problem = trained:evaluate(loader)
  if not report then return nil, ("%s: %s"):format(values.dir, problem) end
  if values.json then
    local plain = eval.plain(report)
    plain.model, plain.data, plain.skipped = values.model, values.dir, #set.skipped
    print(json.encode(plain))
  else
    print(require("feral.train.metrics").confusion_text(report.confusion, report.classes))
    print(report)
  end
  return true
end

return eval
