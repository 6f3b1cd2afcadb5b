-- Time and memory of a network of the bench by layer, forward and backward.
--
--   ./feral tests/bench/profile.lua NET [--threads N | --cpu] [--batch N] [--times N] [--predict] [--json]
--
-- 'feral bench' does the same for the networks that come with feral, net:profile(x) for any.

package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local args = require "feral.host.args"
local engine = require "feral.core.engine"
local json = require "feral.formats.json"
local loss = require "feral.nn.loss"
local machine = require "feral.host.machine"
local system = require "feral.core.system"
local workloads = require "workloads"

local options = args.read(arg, {
  usage = "feral tests/bench/profile.lua NET [options]",
  about = "Tells where a network's time and memory go: " .. table.concat(workloads.names, ", ") .. ".",
  words = { "NET" },
  options = {
    { "threads", value = "N", type = "integer", least = 1, about = "that compute, default OMP_NUM_THREADS or all" },
    { "cpu", about = "one thread, and its own time: for a busy machine" },
    { "batch", value = "N", type = "integer", least = 1, default = 64, about = "samples a step" },
    { "times", value = "N", type = "integer", least = 1, default = 9, about = "steps, of which the least times count" },
    { "predict", about = "the forward pass in eval alone" },
    { "json", about = "print the rows as JSON" },
  },
})

if options.cpu then options.threads = 1 end
if options.threads then engine.threads(options.threads) end
local names, message = workloads.chosen { options.net }
if not names then
  io.stderr:write(message, "\n")
  os.exit(2, true)
end
local w = workloads.make(options.net, options.batch)
local clock = options.cpu and os.clock or system.clock
local found
if options.predict then
  found = w.net:eval():profile(w.x, { backward = false, times = options.times, clock = clock })
else
  found = w.net:profile(w.x, {
    loss = function(scores) return loss.cross_entropy(scores, w.y) end, loss_kind = "cross_entropy",
    optimizer = w.optimizer, times = options.times, clock = clock,
  })
end
if options.json then
  print(json.encode(found))
else
  print(found)
  local limits = machine.limits(nil, clock)
  print(("limits: %.1f GFLOP/s of multiply-adds, %.1f GB/s copied"):format(limits.flops * 1e-9, limits.bytes * 1e-9))
end
