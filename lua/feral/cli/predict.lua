--- feral predict: what a model sees on images.

local json = require "feral.formats.json"

local predict = {
  usage = "feral predict MODEL IMAGE... [options]",
  about = "Says what a model sees on images.",
  words = { "MODEL", "IMAGE..." },
  options = {
    { "top", value = "N", type = "integer", least = 1, default = 3, about = "how many classes to name, the most probable first" },
    { "json", about = "print all probabilities as JSON" },
  },
}

--- "happiness 97.3 %, neutral 1.2 %, ..."
local function ranked(prediction, classes, top)
  local order, words = {}, {}
  for i = 1, #classes do order[i] = i end
  local p = prediction.probabilities
  table.sort(order, function(a, b)
    if p[a] ~= p[b] then return p[a] > p[b] end
    return a < b
  end)
  for k = 1, math.min(top, #order) do words[k] = ("%s %.1f %%"):format(classes[order[k]], 100 * p[order[k]]) end
  return table.concat(words, ", ")
end

--- A prediction as plain data.
local function plain(path, prediction, classes)
  local probabilities = {}
  for i, name in ipairs(classes) do probabilities[name] = prediction.probabilities[i] end
  return { image = path, class = prediction.class, probability = prediction.probability, probabilities = probabilities }
end

function predict.run(values)
  local trained, message = require("feral.model").load(values.model)
  if not trained then return nil, message end
  local sees, why = trained:image_size()
  if not sees then return nil, ("%s: %s"):format(values.model, why) end
  local scope = require "feral.core.scope"
  local found, failed = {}, 0
  for i, path in ipairs(values.image) do
    local _open <close> = scope.scope()
    local prediction, problem = trained:predict(path)
    if not prediction then
      failed = failed + 1
      found[i] = { image = path, error = problem }
      io.stderr:write("feral predict: ", problem, "\n")
    elseif values.json then
      found[i] = plain(path, prediction, trained.classes)
    else
      print(("%s: %s"):format(path, ranked(prediction, trained.classes, values.top)))
    end
  end
  if values.json then print(json.encode { model = values.model, classes = trained.classes, predictions = found }) end
  if failed > 0 then return nil, ("%d of %d images could not be read"):format(failed, #values.image) end
  return true
end

return predict
