--- text.lua: networks as text. Adds summary and tostring to all layers.

local autograd = require "feral.tensor.autograd"
local create = require "feral.core.create"
local scope = require "feral.core.scope"

local methods = {}

local function own_parameters(layer)
  local count = 0
  for _, name in ipairs(layer.parameter_names) do
    local t = rawget(layer, name)
    if t then count = count + t:numel() end
  end
  return count
end

local function thousands(n)
  return (tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local function argument_text(value)
  if type(value) == "table" and value.kind then return value.kind end
  if type(value) ~= "table" then return tostring(value) end
  local keys, parts = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do
    parts[i] = type(key) == "number" and argument_text(value[key]) or ("%s = %s"):format(key, argument_text(value[key]))
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- A table of the layers with output shapes and parameters, for an input of this shape (without the batch).
---@param ... integer  C, H, W
---@return string
function methods:summary(...)
  local sizes = type((...)) == "table" and (...) or { ... }
  local _open <close> = scope.scope()
  local shapes, before = {}, {}
  self:walk(function(_, layer) before[layer] = layer.training end)
  local _restored <close> = setmetatable({}, { __close = function()
    for layer, training in pairs(before) do layer.training = training end
  end })
  self:eval()
  require("feral.nn").observe(function(layer, out) shapes[layer] = table.concat(out.shape, "x", 2) end, function()
    autograd.no_grad(self, create.full({ 1, table.unpack(sizes) }, 0))
  end)
  local lines = { ("%-28s %-16s %-14s %12s"):format("layer", "kind", "output", "parameters") }
  self:walk(function(path, layer)
    if #layer.child_names > 0 and path == "" then return end
    lines[#lines + 1] = ("%-28s %-16s %-14s %12s"):format(path, layer.kind, shapes[layer] or "",
      thousands(own_parameters(layer)))
  end)
  lines[#lines + 1] = ("%d layers, %s parameters, %s of them trainable"):format(#lines - 1,
    thousands(self:num_parameters(true)), thousands(self:num_parameters()))
  return table.concat(lines, "\n")
end

--- Conv2d(1, 32, 3, {padding = 1}); containers list what is inside.
function methods:__tostring()
  if #self.child_names > 0 then
    local lines = {}
    for i, name in ipairs(self.child_names) do
      lines[i] = ("  (%s) %s"):format(name, tostring(self[name]):gsub("\n", "\n  "))
    end
    return ("%s(\n%s\n)"):format(self.kind, table.concat(lines, "\n"))
  end
  local parts = {}
  for i = 1, self.arguments.n do parts[i] = argument_text(self.arguments[i]) end
  return ("%s(%s)"):format(self.kind, table.concat(parts, ", "))
end

return methods
