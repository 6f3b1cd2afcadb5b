--- machine.lua: what this machine can do at most, for measurements to be held against.

local core = require "feral.core.machine"
local create = require "feral.core.create"
local tensor_core = require "feral.core.tensor"
local engine = require "feral.core.engine"
local scope = require "feral.core.scope"
local system = require "feral.core.system"

local machine = {}

local MEGABYTES = 128 -- of each array that is copied: more than caches hold

--- The largest of (what f returns per second) within this many seconds, and at least three calls.
local function fastest(f, seconds, clock)
  clock = clock or system.clock
  f()
  local best, calls, start = 0, 0, clock()
  local now = start
  while calls < 3 or now - start < seconds do
    local before = now
    local amount = f()
    now = clock()
    best, calls = math.max(best, amount / (now - before)), calls + 1
  end
  return best
end

--- Multiply-adds out of registers alone, on as many threads as kernels use.
---@param seconds number|nil  to measure for (0.2)
---@param clock (fun(): number)|nil  of time that passes; os.clock for one thread's own on a busy machine
---@return number  floating-point operations a second, two a multiply-add
function machine.peak(seconds, clock)
  local rounds = 100000
  return fastest(function() return (core.multiply_adds(rounds)) end, seconds or 0.2, clock)
end

--- memcpy between arrays larger than caches, on as many threads as kernels use.
---@param seconds number|nil  to measure for (0.2)
---@param clock (fun(): number)|nil
---@return number  bytes a second, those read and those written
function machine.bandwidth(seconds, clock)
  local _open <close> = scope.scope()
  local size = (MEGABYTES << 20) // (tensor_core.real == "f64" and 8 or 4)
  local to, from = create.full({ size }, 0), create.full({ size }, 1)
  return fastest(function() return core.copy(to, from) end, seconds or 0.2, clock)
end

--- Both limits, with the number of threads they hold for. The arrays' memory is given back to the system.
---@param seconds number|nil  to measure each for (0.2)
---@param clock (fun(): number)|nil
---@return {threads: integer, flops: number, bytes: number}
function machine.limits(seconds, clock)
  local limits = { threads = engine.threads(), flops = machine.peak(seconds, clock), bytes = machine.bandwidth(seconds, clock) }
  scope.trim()
  return limits
end

return machine
