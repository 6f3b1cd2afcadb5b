--- freeze.lua: what of a network is trained and what stays. Adds freeze and unfreeze to all layers.

local autograd = require "feral.tensor.autograd"
local core = require "feral.core.tensor"
local errors = require "feral.base.errors"

local methods = {}

local function set_frozen(self, frozen)
  self:walk(function(_, layer) layer.frozen = frozen or nil end)
  for _, p in ipairs(self:parameters()) do autograd.requires_grad(p, not frozen) end
  return self
end

--- A pattern of a person's as one of Lua's: * stands for any characters, ? for one.
local function pattern_of(glob)
  return "^" .. glob:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$"
end

--- Layers and parameters by their paths, each {path, layer or tensor}, in the order of walk.
local function places_in(self)
  local found = {}
  self:walk(function(path, layer)
    if path ~= "" then found[#found + 1] = { path, layer } end
    for _, name in ipairs(layer.parameter_names) do
      local t = rawget(layer, name)
      if t then found[#found + 1] = { path == "" and name or path .. "." .. name, t } end
    end
  end)
  return found
end

--- Freezes or unfreezes what matches one of the patterns.
---@return string[]  the paths of what does
local function set_matching(self, verb, patterns, frozen)
  local candidates, matched = places_in(self), {}
  for _, glob in ipairs(patterns) do
    local any = false
    for _, place in ipairs(candidates) do
      if place[1]:find(pattern_of(glob)) then
        any = true
        if matched[place[1]] == nil then matched[#matched + 1] = place[1] end
        matched[place[1]] = true
        if core.is_tensor(place[2]) then
          autograd.requires_grad(place[2], not frozen)
        else
          set_frozen(place[2], frozen)
        end
      end
    end
    if not any then
      local paths = {}
      for i, place in ipairs(candidates) do paths[i] = place[1] end
      errors.raise("%s: nothing in this %s matches '%s'%s", verb, self.kind, glob, errors.hint(glob, paths))
    end
  end
  return { table.unpack(matched) }
end

local function freeze_or_unfreeze(verb, frozen)
  return function(self, patterns)
    if patterns == nil then return set_frozen(self, frozen) end
    if type(patterns) == "string" then patterns = { patterns } end
    if type(patterns) ~= "table" or #patterns == 0 or type(patterns[1]) ~= "string" then
      errors.raise("%s: paths expected, as %s{\"features.*\"}, got %s", verb, verb, type(patterns))
    end
    return set_matching(self, verb, patterns, frozen)
  end
end

--- freeze(patterns): Nothing in this layer is trained any more: no gradients, and running statistics stay. With paths, nothing of
--- what matches them, layers with all inside and parameters: net:freeze { "features.*", "4.main.1", "*.bias" }; * stands for any
--- characters.
---@param patterns string|string[]|nil
---@return Module|string[]  this layer; with paths, those of what was frozen
--- Raises when a pattern matches nothing.
methods.freeze = freeze_or_unfreeze("freeze", true)

--- unfreeze(patterns): Trains it, or what matches the paths, again.
---@param patterns string|string[]|nil
---@return Module|string[]
methods.unfreeze = freeze_or_unfreeze("unfreeze", false)

return methods
