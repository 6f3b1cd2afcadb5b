-- Each operation by itself over a grid of shapes.
--
--   ./feral tests/bench/ops.lua [--op NAME] [--threads N | --cpu] [--seconds S] [--quick]
--   ./feral tests/bench/ops.lua --cliffs [--threads N | --cpu] [--seconds S] [--quick]
--
-- Prints lines op<TAB>shape<TAB>pass<TAB>value<TAB>unit<TAB>share: what multiplies in GFLOP/s, convolution counted as direct,
-- beside the multiply-adds that this machine can do; what moves memory in GB/s, each tensor counted as often as the
-- mathematics must go over it, beside memcpy between arrays larger than caches (small tensors stay in cache, and pass 100 %);
-- pictures in images/s. --cliffs varies one size of a convolution at a time; beside the rate it prints how near that comes to
-- what multiply-adds, or moving input and output once, would allow, 100 % also where Winograd's method does more. It marks where
-- this lies more than 20 % below a neighbour's ("step"), or below both or the only one ("cliff").

package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local args = require "feral.host.args"
local autograd = require "feral.tensor.autograd"
local engine = require "feral.core.engine"
local errors = require "feral.base.errors"
local machine = require "feral.host.machine"
local profile = require "feral.nn.profile"
local scope = require "feral.core.scope"
local create = require "feral.core.create"
local system = require "feral.core.system"
local grids = require "grids"

local options = args.read(arg, {
  usage = "feral tests/bench/ops.lua [options]",
  about = "Measures operations over grids of shapes: " .. table.concat(grids.names, ", ") .. ".",
  words = {},
  options = {
    { "op", value = "NAME", about = "only this one" },
    { "threads", value = "N", type = "integer", least = 1, about = "that compute, default OMP_NUM_THREADS or all" },
    { "cpu", about = "one thread, and its own time: for a busy machine" },
    { "seconds", value = "S", type = "number", least = 0, default = 0.1, about = "for each figure" },
    { "quick", about = "fewer shapes, less time" },
    { "cliffs", about = "convolutions next to each other, and where the rate falls" },
  },
})

local SHORT = 0.01 -- seconds for each figure when it is to be quick
local ROUNDS = 3 -- of measuring shapes that are compared
local seconds = options.quick and SHORT or options.seconds
local clock = options.cpu and os.clock or system.clock

--- Seconds of the fastest call; each in a scope of its own.
local function fastest(f)
  local function call()
    local _open <close> = scope.scope()
    f()
  end
  call()
  local best, spent, calls = math.huge, 0, 0
  while spent < seconds or calls < 3 do
    local start = clock()
    call()
    local took = clock() - start
    best, spent, calls = math.min(best, took), spent + took, calls + 1
  end
  return best
end

--- The output of a layer on x, and what its backward does with a gradient of ones.
local function recorded(layer, x)
  local backwards = {}
  local out = autograd.trace(function(backward)
    backwards[#backwards + 1] = backward
    return backward
  end, function() return (layer(x)) end)
  local grad = create.full(out.shape, 1)
  if #out.shape == 4 then grad = grad:as_image() end
  return out, function() autograd.no_grad(backwards[1], grad) end
end

--- Calls measure(pass, f, out) for forward and backward of a layer; where it has weights that multiply, for the gradients of
--- input and weights apart.
local function each_pass(layer, x, measure)
  local _open <close> = scope.scope()
  local out = autograd.no_grad(layer, x)
  measure("forward", function() autograd.no_grad(layer, x) end, out)
  local function backward(pass)
    local _inner <close> = scope.scope()
    local y, f = recorded(layer, x)
    measure(pass, f, y)
  end
  if profile.operations(layer, x, out) > 0 then
    backward "backward_weight"
    layer:freeze()
    x:requires_grad()
    backward "backward_input"
  else
    x:requires_grad()
    backward "backward"
  end
  x:requires_grad(false)
  layer:unfreeze()
end

local function bytes_of(numbers) return 4 * numbers end

--- The rate of a pass: value, unit, share of the limit.
local function rate(case, pass, time, out, limits)
  local operations, back = case.operations or 0, nil
  if case.layer then operations, back = profile.operations(case.layer, case.x, out) end
  if pass:find "^backward" then operations = back end
  if operations > 0 then
    return 1e-9 * operations / time, "GFLOP/s", operations / time / limits.flops
  elseif case.images then
    return case.images / time, "images/s"
  end
  local bytes
  if case.layer then
    local moves = case.moves[pass]
    bytes = bytes_of(moves[1] * case.x:numel() + moves[2] * out:numel())
  else
    bytes = bytes_of(case.numbers)
  end
  return 1e-9 * bytes / time, "GB/s", bytes / time / limits.bytes
end

local function say(...)
  print(table.concat({ ... }, "\t"))
  io.stdout:flush()
end

--- Measures a case and hands each pass's rate to tell(pass, value, unit, share); of a layer also its time and output.
local function measure(case, limits, tell)
  if not case.layer then
    tell("-", rate(case, "-", fastest(case.run), nil, limits))
    return
  end
  each_pass(case.layer, case.x, function(pass, f, out)
    local time = fastest(f)
    local value, unit, share = rate(case, pass, time, out, limits)
    tell(pass, value, unit, share, time, out)
  end)
end

local function list(limits)
  for _, name in ipairs(options.op and { options.op } or grids.names) do
    for _, make in ipairs(grids.cases(name, options.quick)) do
      local _open <close> = scope.scope()
      local case = make()
      measure(case, limits, function(pass, value, unit, share)
        say(name, case.shape, pass, ("%.1f"):format(value), unit, share and ("%.1f %%"):format(100 * share) or "-")
      end)
    end
  end
end

-- ---- cliffs ----

--- How a share lies to those beside it: nil, "step" when it is 20 % below one of them, "cliff" when below both.
local function judged(before, value, after)
  local function low(other) return value < 0.8 * other end
  if low(before or after) and low(after or before) then return "cliff" end
  return (before and low(before) or after and low(after)) and "step" or nil
end

--- Puts the best rates of a case into {pass = {value = GFLOP/s, share = of what multiply-adds or memory allow, at most 1}}.
local function note_best(of_pass, case, limits)
  measure(case, limits, function(pass, value, _, share, time, out)
    local best, moving = of_pass[pass], bytes_of(case.x:numel() + out:numel()) / limits.bytes
    if best and best.value >= value then return end
    of_pass[pass] = { value = value, share = math.min(1, math.max(share, moving / time)) }
  end)
end

--- The best rates of all shapes, by name. What else the machine does lasts seconds, so each is measured in several rounds.
local function best_rates(lines, limits)
  local known, rounds = {}, options.quick and 1 or ROUNDS
  for _ = 1, rounds do
    local done = {}
    for _, line in ipairs(lines) do
      for _, at in ipairs(line) do
        local _open <close> = scope.scope()
        known[at.shape] = known[at.shape] or {}
        if not done[at.shape] then note_best(known[at.shape], at.make(), limits) end
        done[at.shape] = true
      end
    end
  end
  return known
end

local function cliffs(limits)
  local found, lines = 0, grids.lines(options.quick)
  local known = best_rates(lines, limits)
  for _, line in ipairs(lines) do
    for _, pass in ipairs { "forward", "backward_input", "backward_weight" } do
      local function share(i) return line[i] and known[line[i].shape][pass].share end
      for i, at in ipairs(line) do
        local verdict = judged(share(i - 1), share(i), share(i + 1))
        say(line.varies, at.shape, pass, ("%.1f"):format(known[at.shape][pass].value), "GFLOP/s",
          ("%.1f %%"):format(100 * share(i)), verdict or "")
        if verdict == "cliff" then found = found + 1 end
      end
    end
  end
  print(("%d cliffs"):format(found))
end

if options.cpu then options.threads = 1 end
if options.threads then engine.threads(options.threads) end
if options.op and not (" " .. table.concat(grids.names, " ") .. " "):find(" " .. options.op .. " ", 1, true) then
  io.stderr:write(("no operation is called '%s'%s (known: %s)\n"):format(options.op, errors.hint(options.op, grids.names),
    table.concat(grids.names, ", ")))
  os.exit(2, true)
end
local limits = machine.limits(nil, clock)
say("machine", limits.threads .. " threads", "multiply_adds", ("%.1f"):format(limits.flops * 1e-9), "GFLOP/s")
say("machine", limits.threads .. " threads", "memcpy", ("%.1f"):format(limits.bytes * 1e-9), "GB/s")
if options.cliffs then cliffs(limits) else list(limits) end
