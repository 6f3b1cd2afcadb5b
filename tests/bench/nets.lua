-- Training step, batch inference and single-image latency of networks, for comparison with other software.
--
--   ./feral tests/bench/nets.lua [--threads N] [--seconds S] [--batch N] [NET...]
--
-- Prints lines name<TAB>kind<TAB>value<TAB>unit. The best of all repetitions within --seconds counts. Weights are random and
-- the data noise: only speed is measured.

package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local args = require "feral.args"
local engine = require "feral.core.engine"
local clock = require("feral.core.system").clock
local workloads = require "workloads"

local options = args.read(arg, {
  usage = "feral tests/bench/nets.lua [NET...] [options]",
  about = "Measures training and inference of the bench's networks: " .. table.concat(workloads.names, ", ") .. ".",
  words = { "[NET...]" },
  options = {
    { "threads", value = "N", type = "integer", least = 1, about = "that compute, default OMP_NUM_THREADS or all" },
    { "seconds", value = "S", type = "number", least = 0, default = 4, about = "for each figure" },
    { "batch", value = "N", type = "integer", least = 1, default = 64, about = "samples a step" },
  },
})

--- Seconds of the fastest call.
local function fastest(f)
  f()
  f()
  local best, spent = math.huge, 0
  while spent < options.seconds do
    local start = clock()
    f()
    local took = clock() - start
    best, spent = math.min(best, took), spent + took
  end
  return best
end

local function say(name, kind, value, unit)
  print(("%s\t%s\t%s\t%s"):format(name, kind, value, unit))
  io.stdout:flush()
end

local function measure(name)
  local batch = options.batch
  local w = workloads.make(name, batch)
  say(name, "params", w.net:num_parameters(), "float32")
  say(name, "train_batch" .. batch, ("%.1f"):format(batch / fastest(w.train)), "samples/s")
  w.net:eval()
  say(name, "infer_batch" .. batch, ("%.1f"):format(batch / fastest(w.predict)), "samples/s")
  say(name, "infer_latency", ("%.4f"):format(1e3 * fastest(function() w.predict(1) end)), "ms/sample")
end

if options.threads then engine.threads(options.threads) end
local names, message = workloads.chosen(options.net)
if not names then
  io.stderr:write(message, "\n")
  os.exit(2, true)
end
for _, name in ipairs(names) do measure(name) end
