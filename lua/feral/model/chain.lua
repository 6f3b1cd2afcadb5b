--- chain: stages one after the other: checked, applied, and as parts of a file.

local stages = require "feral.model.stages"
local errors = require "feral.base.errors"

local chain = {}

local rank = {}
for i, role in ipairs(stages.roles) do rank[role] = i end

--- Stages from a list of what is or stands for them.
---@param list any[]
---@param where string  whom the messages name
---@return Stage[]
--- Raises for what is no stage.
function chain.wrap(list, where)
  local made = {}
  for i, value in ipairs(list) do
    made[i] = stages.of(value) or errors.raise("%s: part %d is no stage, network or SVM but a %s (stages: %s)", where, i,
      type(value), table.concat(stages.kinds(), ", "))
  end
  return made
end

--- The same, and in an order in which stages can stand.
---@param list any[]
---@param where string
---@return Stage[]
function chain.new(list, where)
  list = chain.wrap(list, where)
  for i = 2, #list do
    local before, stage = list[i - 1], list[i]
    if rank[before.role] > rank[stage.role] or (before.role == stage.role and stage.role ~= "feature") then
      errors.raise("%s: stage %d (%s: %s) cannot stand behind stage %d (%s: %s); the order is %s, each once but for features",
        where, i, stage.kind, stage.role, i - 1, before.kind, before.role, table.concat(stages.roles, ", "))
    end
  end
  return list
end

--- The stage that classifies, and where it stands; nil where none does.
---@return Stage|nil, integer|nil
function chain.classifier(list)
  for i, stage in ipairs(list) do
    if stage.role == "classify" then return stage, i end
  end
end

--- True when the softmax of the scores is meant as probabilities: not that of an SVM which nothing has calibrated.
function chain.is_probabilistic(list)
  for _, stage in ipairs(list) do
    if stage.likelihood or stage.role == "calibrate" then return true end
  end
  return false
end

--- Applies the stages from 'first' (1) on.
---@param list Stage[]
---@param x Tensor
---@param first integer|nil
---@return Tensor
function chain.apply(list, x, first)
  for i = first or 1, #list do x = list[i]:apply(x) end
  return x
end

--- The names of the scores that come out.
---@param given string[]|nil  of those of the classifier
---@return string[]|nil, string|nil  nil and what does not fit
function chain.names(list, given)
  local names = given
  for i, stage in ipairs(list) do
    local message
    names, message = stage:names(names)
    if message then return nil, ("stage %d (%s): %s"):format(i, stage.kind, message) end
  end
  return names
end

--- On one line.
function chain.text(list)
  local parts = {}
  for i, stage in ipairs(list) do parts[i] = tostring(stage) end
  return table.concat(parts, "; ")
end

--- True for a list of strings, one at least.
function chain.are_names(value)
  if type(value) ~= "table" or #value == 0 then return false end
  for key, v in pairs(value) do
    if math.type(key) ~= "integer" or type(v) ~= "string" then return false end
  end
  return true
end

---- Files ----

--- As plain data: a list of {kind, settings}.
function chain.describe(list)
  local described = {}
  for i, stage in ipairs(list) do described[i] = { kind = stage.kind, settings = stage:describe() } end
  return described
end

--- Pairs {"<number>.<name>", tensor} of all stages.
function chain.state(list)
  local state = {}
  for i, stage in ipairs(list) do
    for _, pair in ipairs(stage:state()) do state[#state + 1] = { i .. "." .. pair[1], pair[2] } end
  end
  return state
end

--- The tensors of each of 'count' parts by their names in it; and one that is none's, if there is any.
---@param tensors table<string, Tensor>
---@param count integer
---@return table<string, Tensor>[], string|nil
function chain.split(tensors, count)
  local of_part, stray = {}, nil
  for i = 1, count do of_part[i] = {} end
  for name, t in pairs(tensors) do
    local number, rest = name:match("^([1-9]%d*)%.(.+)$")
    local part = number and of_part[math.tointeger(tonumber(number))]
    if part then
      part[rest] = t
    elseif not stray or name < stray then
      stray = name
    end
  end
  return of_part, stray
end

--- The first name of a tensor that the stage does not have; nil where there is none.
local function unknown_tensor(stage, tensors)
  local known, first = {}, nil
  for _, pair in ipairs(stage:state()) do known[pair[1]] = true end
  for name in pairs(tensors) do
    if not known[name] and (not first or name < first) then first = name end
  end
  return first
end

--- The stage, or nil and a message that goes on from "stage 2".
local function build_stage(described, tensors)
  if type(described) ~= "table" or type(described.kind) ~= "string" then return nil, ": its description is damaged" end
  local kind = described.kind
  local class = stages.find(kind)
  if not class then
    return nil, (": its kind '%s' is unknown%s; if it is your own, make its class (model.stages.class) before loading"):format(
      kind, errors.hint(kind, stages.kinds()))
  end
  if type(described.settings) ~= "table" then return nil, (" (%s): its settings are damaged"):format(kind) end
  local stage, message = class.build(described.settings, tensors)
  if not stage then return nil, (" (%s): %s"):format(kind, message) end
  local stray = unknown_tensor(stage, tensors)
  if stray then return nil, (" (%s): it has no tensor '%s'"):format(kind, stray) end
  return stage
end

--- The stages that chain.describe described.
---@param described table
---@param tensors table<string, Tensor>  by their names in chain.state
---@return Stage[]|nil, string|nil
function chain.build(described, tensors)
  if type(described) ~= "table" or #described == 0 then return nil, "its list of stages is damaged" end
  local of_stage, stray = chain.split(tensors, #described)
  if stray then return nil, ("its tensor '%s' belongs to no stage"):format(stray) end
  local list = {}
  for i, part in ipairs(described) do
    local stage, message = build_stage(part, of_stage[i])
    if not stage then return nil, ("stage %d%s"):format(i, message) end
    list[i] = stage
  end
  local fits, checked = errors.attempt(chain.new, list, "its stages")
  if not fits then return nil, checked end
  return checked
end

return chain
