-- Training step, batch inference and single-image latency of networks, for comparison with other software.
--
--   ./feral tests/bench/nets.lua [--threads N] [--seconds S] [--batch N] [--shares] [NET...]
--
-- Prints lines name<TAB>kind<TAB>value<TAB>unit. The best of all repetitions within --seconds counts. Weights are random and
-- the data noise: only speed is measured. --shares adds two columns: how near that comes to the multiply-adds that this
-- machine can do, convolution counted as direct and training as three forward passes, and to memcpy's bandwidth, if each layer's
-- output were written once and read once (training: three times). Fewer multiplications or passes than that give more than 100 %.

package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local args = require "feral.host.args"
local engine = require "feral.core.engine"
local clock = require("feral.core.system").clock
local machine = require "feral.host.machine"
local profile = require "feral.nn.profile"
local workloads = require "workloads"

local options = args.read(arg, {
  usage = "feral tests/bench/nets.lua [NET...] [options]",
  about = "Measures training and inference of the bench's networks: " .. table.concat(workloads.names, ", ") .. ".",
  words = { "[NET...]" },
  options = {
    { "threads", value = "N", type = "integer", least = 1, about = "that compute, default OMP_NUM_THREADS or all" },
    { "seconds", value = "S", type = "number", least = 0, default = 4, about = "for each figure" },
    { "batch", value = "N", type = "integer", least = 1, default = 64, about = "samples a step" },
    { "shares", about = "of the machine's limits, beside each figure" },
  },
})
local limits -- of the machine; nil without --shares

--- Seconds of the fastest call.
local function fastest(f)
  f()
  f()
  local best, spent = math.huge, 0
  repeat
    local start = clock()
    f()
    local took = clock() - start
    best, spent = math.min(best, took), spent + took
  until spent >= options.seconds
  return best
end

local function say(...)
  print(table.concat({ ... }, "\t"))
  io.stdout:flush()
end

--- Shares of the limits as columns, for so many forward passes of one sample in a second.
local function shares(w, passes)
  if not limits then return end
  return ("%.1f %% FMA"):format(100 * passes * w.operations / limits.flops),
    ("%.1f %% memcpy"):format(100 * passes * w.traffic / limits.bytes)
end

local function measure(name)
  local batch = options.batch
  local w = workloads.make(name, batch)
  say(name, "params", w.net:num_parameters(), "float32")
  if limits then w.operations, w.traffic = profile.count(w.net, w.x:narrow(1, 1, 1)) end
  local rate = batch / fastest(w.train)
  say(name, "train_batch" .. batch, ("%.1f"):format(rate), "samples/s", shares(w, 3 * rate))
  w.net:eval()
  rate = batch / fastest(w.predict)
  say(name, "infer_batch" .. batch, ("%.1f"):format(rate), "samples/s", shares(w, rate))
  local latency = fastest(function() w.predict(1) end)
  say(name, "infer_latency", ("%.4f"):format(1e3 * latency), "ms/sample", shares(w, 1 / latency))
end

if options.threads then engine.threads(options.threads) end
local names, message = workloads.chosen(options.net)
if not names then
  io.stderr:write(message, "\n")
  os.exit(2, true)
end
if options.shares then
  limits = machine.limits()
  say("machine", "multiply_adds", ("%.2f"):format(limits.flops * 1e-9), "GFLOP/s")
  say("machine", "memcpy", ("%.2f"):format(limits.bytes * 1e-9), "GB/s")
end
for _, name in ipairs(names) do measure(name) end
