--- ensemble: several classifiers that see the same images; their probabilities are averaged.

local stages = require "feral.model.stages"
local chain = require "feral.model.chain"
local arith = require "feral.core.arith"
local scope = require "feral.core.scope"
local softmax = require("feral.core.softmax").softmax
local errors = require "feral.base.errors"

---@class EnsembleStage : Stage
---@field members {stages: Stage[], classes: string[]|nil}[]  stages with a classifier, and its classes where they have names
local Ensemble = stages.class("ensemble", "classify")

local LEAST = 1e-37 -- a probability that is 0 to rounding must have a logarithm

local function is_model(value) return type(value) == "table" and value.scores_of ~= nil end

local function listed(names) return table.concat(names, ", ") end

--- The stages of a member and, where it is a whole model, the classes of its classifier.
local function new_member(value, i)
  local where = ("model.stages.ensemble: member %d"):format(i)
  if type(value) ~= "table" then errors.raise("%s: a network, model or list of stages expected, got %s", where, type(value)) end
  local list = value
  if is_model(value) then
    list = table.move(value.stages, value.preprocessing and 2 or 1, #value.stages, 1, {})
  elseif stages.of(value) then
    list = { value }
  end
  list = chain.new(list, where)
  if not chain.classifier(list) then errors.raise("%s has no classifier", where) end
  if list[1].role == "preprocess" then errors.raise("%s preprocesses for itself; the ensemble's model does it for all", where) end
  return { stages = list, classes = value.named }
end

--- Raises where whole models among the members do not take the same images.
local function check_preprocessing(values)
  local first
  for i, m in ipairs(values) do
    if is_model(m) and m.preprocessing then
      first = first or m
      if not m.stages[1]:equals(first.preprocessing) then
        errors.raise("model.stages.ensemble: member %d has another preprocessing (%s) than one before it (%s)", i,
          m.stages[1]:text(), first.stages[1]:text())
      end
    end
  end
end

---@param members (Module|SvmModel|Model|Stage|Stage[])[]  each a classifier, or a list of stages that ends in one; of whole
---  models the stages behind their preprocessing, which must be the same
function Ensemble:init(members)
  if type(members) ~= "table" or #members == 0 or stages.of(members) then
    errors.raise("model.stages.ensemble: a list of networks, models or lists of stages expected, got %s",
      stages.of(members) and "one alone" or type(members))
  end
  check_preprocessing(members)
  self.members, self.likelihood = {}, true
  for i, value in ipairs(members) do
    self.members[i] = new_member(value, i)
    self.likelihood = self.likelihood and chain.is_probabilistic(self.members[i].stages)
  end
  self.inputs = self.members[1].stages[1].inputs
end

function Ensemble:describe()
  local members = {}
  for i, m in ipairs(self.members) do members[i] = { stages = chain.describe(m.stages), classes = m.classes } end
  return { members = members }
end

function Ensemble:state()
  local state = {}
  for i, m in ipairs(self.members) do
    for _, pair in ipairs(chain.state(m.stages)) do state[#state + 1] = { i .. "." .. pair[1], pair[2] } end
  end
  return state
end

--- The members' classes must be the same, and those that are given.
function Ensemble:names(given)
  local names = nil
  for i, m in ipairs(self.members) do
    local own, message = chain.names(m.stages, m.classes or given)
    if message then return nil, ("member %d: %s"):format(i, message) end
    if names and own and listed(own) ~= listed(names) then
      return nil, ("member %d knows the classes %s, those before it %s"):format(i, listed(own), listed(names))
    end
    names = names or own
  end
  if given and names and listed(given) ~= listed(names) then
    return nil, ("%d classes are named (%s), but its members know %d (%s)"):format(#given, listed(given), #names, listed(names))
  end
  return names
end

--- Scores are the logarithms of the mean of the members' probabilities.
---@param x Tensor
---@return Tensor  N x K
function Ensemble:apply(x)
  local open <close> = scope.scope()
  local sum
  for i, m in ipairs(self.members) do
    local p = softmax(chain.apply(m.stages, x), 2)
    if sum and sum:size(2) ~= p:size(2) then
      errors.raise("ensemble: member %d gives %d scores, those before it %d", i, p:size(2), sum:size(2))
    end
    sum = sum and arith.add(sum, p) or p
  end
  return open:leave(arith.log(arith.maximum(arith.div(sum, #self.members), LEAST)))
end

function Ensemble:text()
  local parts = {}
  for i, m in ipairs(self.members) do parts[i] = chain.text(m.stages) end
  return ("%d members\n    %s"):format(#parts, table.concat(parts, "\n    "))
end

--- A member as a file holds it; its classes are checked where its stages ask for them.
local function build_member(described, tensors)
  if type(described) ~= "table" then return nil, "its description is damaged" end
  local list, message = chain.build(described.stages, tensors)
  if not list then return nil, message end
  local classes = described.classes
  if classes ~= nil and not chain.are_names(classes) then return nil, "its list of classes is damaged" end
  return { stages = list, classes = classes }
end

function Ensemble.build(settings, tensors)
  local described, lists = settings.members, {}
  if type(described) ~= "table" or #described == 0 then return nil, "its members are damaged" end
  local of_member, stray = chain.split(tensors, #described)
  if stray then return nil, ("its tensor '%s' belongs to no member"):format(stray) end
  local members = {}
  for i, part in ipairs(described) do
    local m, message = build_member(part, of_member[i])
    if not m then return nil, ("member %d: %s"):format(i, message) end
    members[i], lists[i] = m, m.stages
  end
  local made, stage = errors.attempt(Ensemble, lists)
  if not made then return nil, stage end
  stage.members = members
  return stage
end

return Ensemble
