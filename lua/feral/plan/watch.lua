--- watch.lua: whether a network still is what a plan was made of.
---
--- A plan holds copies: of weights, and of settings such as a slope. So whoever predicts with one asks at each call whether
--- weights were written to since (the engine counts that, src/tensor), fields hold other values, or layers have others inside
--- them. That takes a few microseconds for some dozens of layers. What a layer's forward reads from elsewhere, an upvalue or a
--- global, is not seen.

local core = require "feral.core.tensor"
local nn = require "feral.nn"

local watch = {}

--- What every layer has, and no prediction depends on.
local ignored = {
  kind = true, name = true, training = true, frozen = true, arguments = true, made = true, parameter_names = true,
  buffer_names = true, child_names = true,
}

local DEPTH_MOST = 4 -- of tables in fields

--- What was seen of a network: owners[i][keys[i]] is values[i], for all i.
---@class Watched
---@field net Module
---@field version integer   nn.version()
---@field tensors Tensor[]
---@field writes integer    into all of them together
---@field anywhere integer  and into any tensor at all
---@field lists number[][]  tables of numbers alone, as a convolution's geometry
---@field digest integer    of those

local function is_list_of_numbers(t)
  local count = 0
  for _, value in next, t do
    if type(value) ~= "number" then return false end
    count = count + 1
  end
  return count == #t
end

local note

--- Remembers that a field has this value.
local function note_field(seen, owner, key, value)
  local i = #seen.owners + 1
  seen.owners[i], seen.keys[i], seen.values[i] = owner, key, value
end

--- Remembers what lies behind a field's value.
local function note_inside(seen, value, depth)
  if core.is_tensor(value) then
    seen.tensors[#seen.tensors + 1] = value
  elseif type(value) == "table" and not nn.is_layer(value) and not getmetatable(value) then
    if is_list_of_numbers(value) then
      seen.lists[#seen.lists + 1] = value
    elseif depth < DEPTH_MOST then
      note(seen, value, depth + 1)
    end
  end
end

--- Remembers what stands in the fields of a table, and in tables that are found there.
function note(seen, owner, depth)
  for key, value in next, owner do
    if depth > 0 or not ignored[key] then
      if value == value then note_field(seen, owner, key, value) end -- NaN is never what it was
      note_inside(seen, value, depth)
    end
  end
end

--- Looks at a network as it is now.
---@param net Module
---@return Watched
function watch.look(net)
  local seen = { net = net, version = nn.version(), owners = {}, keys = {}, values = {}, tensors = {}, lists = {} }
  net:walk(function(_, layer)
    note(seen, layer, 0)
    note_field(seen, layer, "forward", layer.forward) -- the class's, or its own
  end)
  seen.anywhere, seen.writes, seen.digest = core.writes(), core.writes(seen.tensors), core.digest(seen.lists)
  return seen
end

--- True when all that was seen still stands where it stood. Fields that were not there are not looked for.
local function stands(seen)
  local owners, keys, values = seen.owners, seen.keys, seen.values
  for i = 1, #owners do
    if owners[i][keys[i]] ~= values[i] then return false end
  end
  return core.digest(seen.lists) == seen.digest
end

--- True when none of the tensors was written to.
local function unwritten(seen)
  local anywhere = core.writes()
  if anywhere == seen.anywhere then return true end
  seen.anywhere = anywhere
  return core.writes(seen.tensors) == seen.writes
end

--- True when the network may predict something else than when it was looked at.
---@param seen Watched
---@return boolean
function watch.has_changed(seen)
  if not unwritten(seen) or not stands(seen) then return true end
  local version = nn.version()
  if version == seen.version then return false end
  seen.version = version -- some layer has something that it did not have: was it one of these?
  return #watch.look(seen.net).owners ~= #seen.owners
end

return watch
