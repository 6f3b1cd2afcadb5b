--- mask: some of the classes only. Their probabilities sum to 1 among themselves.

local stages = require "feral.model.stages"
local create = require "feral.core.create"
local index = require "feral.core.index"
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"

---@class MaskStage : Stage
---@field keep string[]  names of the classes that stay, in the order in which they are then numbered
local Mask = stages.class("mask", "mask")

---@param keep string[]
function Mask:init(keep)
  if type(keep) ~= "table" or #keep < 2 then errors.raise("model.stages.mask: a list of two names or more expected") end
  local seen = {}
  for _, name in ipairs(keep) do
    if type(name) ~= "string" or seen[name] then
      errors.raise("model.stages.mask: names of classes expected, each once, got %s", tostring(name))
    end
    seen[name] = true
  end
  self.keep = table.move(keep, 1, #keep, 1, {})
end

function Mask:describe() return { keep = self.keep } end

function Mask:names(given)
  if not given then return nil end
  local number_of, positions = {}, {}
  for i, name in ipairs(given) do number_of[name] = i end
  for k, name in ipairs(self.keep) do
    positions[k] = number_of[name]
    if not positions[k] then
      return nil, ("there is no class '%s' to keep%s (known: %s)"):format(name, errors.hint(name, given),
        table.concat(given, ", "))
    end
  end
  self.positions = scope.keep(create.from_table(positions, "i32"))
  return self.keep
end

function Mask:apply(scores) return index.index_select(scores, 2, self.positions) end

function Mask:text() return "keeps " .. table.concat(self.keep, ", ") end

function Mask.build(settings)
  local made, stage = errors.attempt(Mask, settings.keep)
  if not made then return nil, stage end
  return stage
end

return Mask
