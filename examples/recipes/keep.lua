-- The state of a recipe's run in a file, so that the same command goes on from it after a stop of any kind.

local feral = require "feral"
local signals = require "feral.core.signals"
local files, safetensors, json = feral.files, feral.safetensors, feral.json

local keep = {}

local function add(prefix, list, into)
  for _, pair in ipairs(list) do into[#into + 1] = { prefix .. pair[1], pair[2] } end
end

--- Writes a run {net, optimizer, ema, step}.
function keep.save(path, run)
  local tensors, optimizer_tensors, numbers = {}, run.optimizer:state()
  add("net.", run.net:state(), tensors)
  add("optimizer.", optimizer_tensors, tensors)
  add("ema.", run.ema:state(), tensors)
  assert(safetensors.save(path, tensors, { state = json.encode { step = run.step, optimizer = numbers } }))
end

local function with_prefix(prefix, tensors)
  local found = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then found[name:sub(#prefix + 1)] = t end
  end
  return found
end

--- Brings a run to the state in a file, where there is one.
function keep.resume(path, run)
  if not files.look(path) then return end
  local tensors, metadata = assert(safetensors.load(path))
  local state = assert(json.decode(metadata.state))
  run.net:load_state(with_prefix("net.", tensors))
  run.optimizer:load_state(with_prefix("optimizer.", tensors), state.optimizer)
  run.ema:load_state(with_prefix("ema.", tensors))
  run.step = state.step
  print(("going on after step %d"):format(run.step))
end

--- From here on a first Ctrl-C or SIGTERM only asks for the end: local _held <close> = keep.hold_signals().
function keep.hold_signals() return signals.hold() end

--- Ends the run where a signal has asked for it, once its state is in the file.
function keep.heed_signals(path, run)
  local signal = signals.pending()
  if not signal then return end
  keep.save(path, run)
  signals.stop(signal, ("stopped after step %d; the same command goes on from there"):format(run.step))
end

--- The learning rate at a step: it rises at first, then falls along half a cosine.
function keep.rate(largest, step, steps)
  local warm_up = math.min(500, steps / 20)
  if step < warm_up then return largest * (step + 1) / warm_up end
  return largest * (0.01 + 0.99 * (1 + math.cos(math.pi * math.min(1, step / steps))) / 2)
end

--- Prints a line and appends it to a log, with the time.
function keep.log(path, text)
  print(text)
  io.stdout:flush()
  local log = assert(io.open(path, "a"))
  log:write(os.date "%Y-%m-%d %H:%M  ", text, "\n")
  log:close()
end

return keep
