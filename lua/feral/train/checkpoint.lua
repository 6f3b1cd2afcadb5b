--- checkpoint.lua: the whole state of a training in one safetensors file, so that it can go on as if never stopped:
--- weights, best weights, optimiser, schedule, random numbers, place in the epoch, history.

local safetensors = require "feral.formats.safetensors"
local json = require "feral.formats.json"
local random = require "feral.tensor.random"
local errors = require "feral.base.errors"
local scope = require "feral.core.scope"
local arith = require "feral.core.arith"
local view = require "feral.core.view"

local checkpoint = {}

--- A copy of a network's state, into 'copy' where that exists.
---@return table<string, Tensor>
function checkpoint.copy_state(net, copy)
  copy = copy or {}
  for _, pair in ipairs(net:state()) do
    local path, t = pair[1], pair[2]
    if copy[path] then arith.copy_(copy[path], t) else copy[path] = scope.keep(view.clone(t)) end
  end
  return copy
end

--- Writes a copied state back.
function checkpoint.restore_state(net, copy)
  for _, pair in ipairs(net:state()) do arith.copy_(pair[2], copy[pair[1]]) end
end

--- The rows of a history without the names beside them, which JSON would make an object of.
local function rows_of(history) return table.move(history, 1, #history, 1, {}) end

--- Writes the state of a run. Returns true, or nil and a message.
function checkpoint.save(path, run)
  local tensors = {}
  local function add(prefix, list)
    for _, pair in ipairs(list) do tensors[#tensors + 1] = { prefix .. pair[1], pair[2] } end
  end
  local optimizer_tensors, optimizer_numbers = run.optimizer:state()
  add("net.", run.net:state())
  add("optimizer.", optimizer_tensors)
  if run.best then
    for _, pair in ipairs(run.net:state()) do tensors[#tensors + 1] = { "best." .. pair[1], run.best[pair[1]] } end
  end
  local state = {
    epoch = run.epoch, batch = run.batch, sums = run.sums, optimizer = optimizer_numbers, random = random.state(),
    schedule = run.schedule and run.schedule:state(), rows = rows_of(run.history), best = run.history.best,
  }
  return safetensors.save(path, tensors, { feral_checkpoint = json.encode(state) })
end

local function with_prefix(tensors, prefix)
  local found = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then found[name:sub(#prefix + 1)] = t end
  end
  return found
end

local function is_count(n, least) return math.type(n) == "integer" and n >= least end

--- The state in a checkpoint's metadata, or nil and what is wrong with it.
local function read_state(metadata)
  local state, message = json.decode(metadata.feral_checkpoint or "")
  if type(state) ~= "table" then return nil, message or "no object" end
  local dice, sums = state.random, state.sums
  local whole = is_count(state.epoch, 1) and is_count(state.batch, 0) and type(state.rows) == "table" and
    type(dice) == "table" and math.type(dice.seed) and is_count(dice.count, 0) and
    type(sums) == "table" and type(sums.loss) == "number" and is_count(sums.right, 0) and is_count(sums.count, 0) and
    (state.best == nil or state.rows[state.best] ~= nil)
  if not whole then return nil, "its state is not complete" end
  return state
end

--- Brings a run to the state in a file. Returns true, or nil and a message.
function checkpoint.load(path, run)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  local state, message = read_state(metadata)
  if not state then return nil, ("%s is no checkpoint: %s"):format(path, message) end
  local best = with_prefix(tensors, "best.")
  local ok, problem = errors.attempt(function()
    if next(best) then run.net:load_state(best) end -- whether they fit; the present ones follow
    run.net:load_state(with_prefix(tensors, "net."))
    run.optimizer:load_state(with_prefix(tensors, "optimizer."), state.optimizer)
    if run.schedule then run.schedule:load_state(state.schedule) end
  end)
  if not ok then return nil, ("%s does not fit this training: %s"):format(path, problem) end
  if next(best) then
    run.best = {}
    for name, t in pairs(best) do run.best[name] = scope.keep(t) end
  end
  random.set_state(state.random)
  run.epoch, run.batch, run.sums = state.epoch, state.batch, state.sums
  run.history = state.rows
  run.history.best = state.best
  return true
end

return checkpoint
