--- feral models: what ships, and the card of one model.

local errors = require "feral.base.errors"
local json = require "feral.formats.json"

local models = {
  usage = "feral models [NAME...] [--json]",
  about = "Lists the models that ship; with a name (or a file) prints its card.",
  words = { "[NAME...]" },
  options = { { "json", about = "print as JSON" } },
}

--- What a file says it holds: "network" ..., the kind of what classifies; "detector", "landmarks"; its header as a table.
local function header_of(path)
  local metadata, message = require("feral.formats.safetensors").look(path)
  if not metadata then return nil, message end
  for _, kind in ipairs { "model", "svm", "detector", "landmarks" } do
    local header = type(metadata["feral_" .. kind]) == "string" and json.decode(metadata["feral_" .. kind])
    if type(header) == "table" then return header, kind end
  end
  return nil, path .. ": tensors, but no feral model"
end

local function kind_of(header, kind)
  if kind ~= "model" or type(header.stages) ~= "table" then return kind end
  local stages = require("feral.model.stages")
  for _, described in ipairs(header.stages) do
    local class = type(described) == "table" and stages.find(described.kind)
    if class and class.role == "classify" then return class.kind end
  end
  return kind
end

local function table_or_none(value) return type(value) == "table" and value or {} end

--- What there is to say of a model on one line, as plain data.
local function facts_of(entry)
  local facts = { name = entry.name, path = entry.path, bytes = entry.bytes }
  local header, kind = header_of(entry.path)
  if not header then
    facts.error = kind
    return facts
  end
  local card = table_or_none(header.card)
  local measured = table_or_none(card.measured)
  facts.kind, facts.classes = kind_of(header, kind), header.classes
  for _, field in ipairs { "accuracy", "low", "high", "balanced" } do
    local value = measured[field]
    if value == nil then value = card[field] end
    facts[field] = type(value) == "number" and value or nil
  end
  local ms = table_or_none(measured.speed).ms
  facts.ms = type(ms) == "number" and ms or nil
  return facts
end

local function score_text(facts)
  if not facts.accuracy then return "-" end
  local text = ("%.2f %%"):format(100 * facts.accuracy)
  return facts.low and facts.high and ("%s (%.1f to %.1f)"):format(text, 100 * facts.low, 100 * facts.high) or text
end

local function print_list(list)
  local row = "%-16s %-10s %9s  %-24s %9s  %s"
  print(row:format("model", "kind", "size", "accuracy (95 %)", "balanced", "one image"))
  for _, facts in ipairs(list) do
    local balanced = facts.balanced and ("%.2f %%"):format(100 * facts.balanced) or "-"
    local speed = facts.ms and ("%.2f ms"):format(facts.ms) or "-"
    print(facts.error and ("%-16s %s"):format(facts.name, facts.error) or row:format(facts.name, facts.kind,
      ("%.1f MB"):format(facts.bytes / 1e6), score_text(facts), balanced, speed))
  end
end

--- The card of one model: its text and the table of its header.
local function card_of(name)
  local model, files = require "feral.model", require "feral.core.files"
  local path, message = model.shipped.find(name)
  if not path then return nil, message end
  local header, kind = header_of(path)
  if not header then return nil, kind end
  local subject = { card = table_or_none(header.card) }
  if kind == "model" or kind == "svm" then
    subject, message = model.load(path)
    if not subject then return nil, message end
  end
  local _, bytes = files.look(path)
  local made, text = errors.attempt(model.card.text, subject, {
    name = path:match("([^/]+)%.safetensors$") or name, bytes = bytes,
  })
  if not made then return nil, path .. ": its card is damaged" end
  return text, subject.card
end

function models.run(values)
  local found = {}
  for i, name in ipairs(values.name) do
    local text, card = card_of(name)
    if not text then return nil, card end
    found[i] = values.json and { name = name, card = card } or text
  end
  if #found == 0 then
    for i, entry in ipairs(require("feral.model.shipped").list()) do found[i] = facts_of(entry) end
    if #found == 0 and not values.json then
      print("No models ship with this program. They are looked for in:\n  "
        .. table.concat(require("feral.model.shipped").folders(), "\n  "))
    elseif not values.json then
      print_list(found)
    end
  elseif not values.json then
    print((table.concat(found, "\n"):gsub("\n$", "")))
  end
  if values.json then print(json.encode(setmetatable(found, { __jsontype = "array" }))) end
  return true
end

return models
