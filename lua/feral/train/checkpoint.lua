--- checkpoint.lua: the whole state of a training in one safetensors file, so that it can go on as if never stopped.
---
--- It is made of what takes part in the training: a list of pairs {name, participant}. A participant has
---   state()      -> pairs {name, tensor}, or plain data, or both in this order; and
---   load_state() of the same: (tensors by name), (data), (tensors by name, data); it raises where that does not fit.
--- Plain data are tables, texts, booleans and finite numbers. This file knows none of them by name.

local safetensors = require "feral.formats.safetensors"
local json = require "feral.formats.json"
local errors = require "feral.base.errors"
local core = require "feral.core.tensor"
local view = require "feral.core.view"
local scope = require "feral.core.scope"
local sum_of_squares = require("feral.core.optim").sum_of_squares

local checkpoint = {}

local VERSION = 2

--- The name of the first tensor that holds infinity or NaN, if there is one.
---@param list table[]  pairs {name, tensor}
---@return string|nil
function checkpoint.not_finite(list)
  local _open <close> = scope.scope()
  for _, pair in ipairs(list) do
    local name, t = pair[1], pair[2]
    if t.dtype == core.real then
      local sum = sum_of_squares { t:is_contiguous() and t or view.contiguous(t) }
      if sum - sum ~= 0 then return name end
    end
  end
end

--- The path in plain data of the first number that is infinite or NaN, if there is one.
local function not_finite_data(path, value)
  if type(value) == "number" and value - value ~= 0 then return path end
  if type(value) ~= "table" then return nil end
  for key, v in pairs(value) do
    local found = not_finite_data(("%s.%s"):format(path, key), v)
    if found then return found end
  end
end

--- A participant's state as pairs of tensors or nil, and plain data or nil.
local function state_of(participant)
  local first, second = participant:state()
  local pairs_first = second ~= nil or type(first) == "table" and type(first[1]) == "table" and core.is_tensor(first[1][2])
  if pairs_first then return first, second end
  return nil, first
end

--- Raises unless the list is one of participants with different names.
---@param participants table[]
function checkpoint.check(participants)
  local seen = {}
  for _, pair in ipairs(participants) do
    local name, participant = pair[1], pair[2]
    if type(name) ~= "string" or not name:find("^[%w_]+$") then
      errors.raise("checkpoint: a participant's name must be of letters, digits and _, got '%s'", tostring(name))
    end
    if seen[name] then errors.raise("checkpoint: two participants have the name '%s'", name) end
    if type(participant) ~= "table" or not participant.state or not participant.load_state then
      errors.raise("checkpoint: participant '%s' must have state() and load_state()", name)
    end
    seen[name] = true
  end
end

--- Writes the states of all participants. What holds infinity or NaN is not written; an old file stays then.
---@param path string
---@param participants table[]  pairs {name, participant}
---@param settings table<string, string|number|boolean>  what the training is, for load to compare
---@return boolean|nil, string|nil  true, or nil and a message
function checkpoint.save(path, participants, settings)
  local tensors, data = {}, {}
  for _, pair in ipairs(participants) do
    local name = pair[1]
    local list
    list, data[name] = state_of(pair[2])
    for _, own in ipairs(list or {}) do tensors[#tensors + 1] = { name .. "." .. own[1], own[2] } end
  end
  local bad = checkpoint.not_finite(tensors) or not_finite_data("data", data)
  if bad then return nil, ("%s: '%s' holds infinity or NaN"):format(path, bad) end
  local state = json.encode { version = VERSION, data = data, settings = settings }
  return safetensors.save(path, tensors, { feral_checkpoint = state })
end

local function with_prefix(tensors, prefix)
  local found = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then found[name:sub(#prefix + 1)] = t end
  end
  return found
end

--- A checkpoint of the first version, which had no list of participants, as one of this.
local function from_first_version(state, tensors)
  for name, t in pairs(with_prefix(tensors, "best.")) do
    tensors["run.best." .. name], tensors["best." .. name] = t, nil
  end
  if type(state.sums) == "table" then state.sums.classified = state.sums.count end
  local run = { epoch = state.epoch, batch = state.batch, sums = state.sums, rows = state.rows, best = state.best }
  return { data = { optimizer = state.optimizer, schedule = state.schedule, random = state.random, run = run } }
end

--- The state in a checkpoint's metadata, or nil and what is wrong with it.
local function read_state(metadata, tensors)
  local state, message = json.decode(metadata.feral_checkpoint or "")
  if type(state) ~= "table" then return nil, message or "no object" end
  if state.version == nil and state.epoch then state = from_first_version(state, tensors) end
  if state.version ~= nil and state.version ~= VERSION then
    return nil, ("it is of version %s, this feral reads %d"):format(tostring(state.version), VERSION)
  end
  if type(state.data) ~= "table" then return nil, "its state is not complete" end
  return state
end

local function sorted_keys(...)
  local seen, keys = {}, {}
  for _, t in ipairs { ... } do
    for key in pairs(t) do
      if not seen[key] then keys[#keys + 1] = key end
      seen[key] = true
    end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

--- In what two trainings differ, in words; nil where they do not.
local function difference(before, now)
  local words = {}
  for _, name in ipairs(sorted_keys(before, now)) do
    local was, is = before[name], now[name]
    if was ~= is then
      words[#words + 1] = ("%s was %s, is %s"):format(name, was == nil and "not given" or was, is == nil and "not given" or is)
    end
  end
  return #words > 0 and table.concat(words, "; ") or nil
end

--- Raises when a participant is in the file alone, or in this training alone.
local function check_names(participants, tensors, data)
  local known, saved = {}, {}
  for _, pair in ipairs(participants) do known[pair[1]] = true end
  for name in pairs(tensors) do saved[name:match("^[^.]*")] = true end
  for name in pairs(data) do saved[name] = true end
  for _, name in ipairs(sorted_keys(saved)) do
    if not known[name] then errors.raise("it holds a state of '%s', which takes no part in this one", name) end
  end
end

local function load_participant(name, participant, tensors, data)
  local list, own_data = state_of(participant)
  local saved = with_prefix(tensors, name .. ".")
  if data == nil and (own_data ~= nil or list and list[1] and not next(saved)) then
    errors.raise("it holds no state of '%s'", name)
  end
  if not list then return participant:load_state(data) end
  participant:load_state(saved, data)
end

--- Brings all participants to their states in a file.
---@param path string
---@param participants table[]  pairs {name, participant}
---@param settings table        as for save; a file of a training with others is refused
---@return boolean|nil, string|nil  true, or nil and a message
function checkpoint.load(path, participants, settings)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  local state, message = read_state(metadata, tensors)
  if not state then return nil, ("%s is no checkpoint: %s"):format(path, message) end
  local other = type(state.settings) == "table" and difference(state.settings, settings)
  if other then return nil, ("%s is of another training: %s"):format(path, other) end
  local ok, problem = errors.attempt(function()
    check_names(participants, tensors, state.data)
    for _, pair in ipairs(participants) do load_participant(pair[1], pair[2], tensors, state.data[pair[1]]) end
  end)
  if not ok then return nil, ("%s does not fit this training: %s"):format(path, problem) end
  return true
end

return checkpoint
