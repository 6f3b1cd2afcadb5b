--- stephelp.lua: help on the steps of images, from the table of steps and options that the engine has in C.

local core = require "feral.core.steps"

local stephelp = {}

local kinds = {}
for _, kind in ipairs(core.kinds()) do kinds[kind.name] = kind end

local function is_required(option, i) return not option.otherwise and i == 1 end

--- True for the name of a step.
---@param name string
function stephelp.is_kind(name) return kinds[name] ~= nil end

--- "steps.rotate(degrees, {edge, fill})"
---@param name string
---@return string
function stephelp.signature(name)
  local ordered, named = {}, {}
  for i, option in ipairs(kinds[name].options) do
    local list = i <= 2 and not option.choices and ordered or named
    list[#list + 1] = option.name
  end
  if #named > 0 then ordered[#ordered + 1] = "{" .. table.concat(named, ", ") .. "}" end
  return ("steps.%s(%s)"):format(name, table.concat(ordered, ", "))
end

local function range_of(option)
  if option.choices then return table.concat(option.choices, ", ") end
  local what = option.type == "whole" and "a whole number" or "a number"
  local range = ("%s from %.14g to %.14g"):format(what, option.least, option.most)
  return option.type == "channels" and range .. ", or a list, one for each channel" or range
end

local function default_of(option, i, before)
  if option.choices then return option.choices[option.otherwise + 1] end
  if option.otherwise then return ("%.14g"):format(option.otherwise) end
  return not is_required(option, i) and before and "that of " .. before or nil
end

--- What a step does, as one line.
---@param name string
---@return string
function stephelp.summary(name)
  return kinds[name].about:gsub("^%l", string.upper) .. (kinds[name].random and "; at random, in training only" or "")
end

--- What a step does and its options, a line each.
---@param name string
---@return string[]
function stephelp.text(name)
  local lines, before = { stephelp.summary(name) .. "." }, nil
  for i, option in ipairs(kinds[name].options) do
    local default = default_of(option, i, before)
    lines[#lines + 1] = ("  %s: %s%s"):format(option.name, range_of(option), default and (" (default: %s)"):format(default) or "")
    before = option.name
  end
  return lines
end

return stephelp
