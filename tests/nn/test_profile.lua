local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local clock = require("feral.core.system").clock
local core = require "feral.core.machine"
local profile, machine = require "feral.nn.profile", require "feral.host.machine"
local nn, tensor, nets, optim, loss, random, autograd = feral.nn, feral.tensor, feral.nets, feral.optim, feral.loss,
  require "feral.tensor.random", require "feral.tensor.autograd"

local T = {}

local item = check.is_double and 8 or 4

local function small_net()
  return nn.Sequential(
    nn.Conv2d(1, 2, 3, { padding = 1 }), nn.BatchNorm(2), nn.Tanh(),
    nn.Residual(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Tanh()), nn.Conv2d(2, 4, 1, { bias = false })),
    nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 4 * 4, 3))
end

local function row_of(found, path)
  for _, row in ipairs(found.rows) do
    if row.path == path then return row end
  end
  error("no row " .. path)
end

--- A profile of a training step with loss and optimiser.
local function profiled(net, x, times)
  local y = tensor.full({ #x }, 1, "i32")
  return net:profile(x, {
    loss = function(scores) return loss.cross_entropy(scores, y) end, loss_kind = "cross_entropy", times = times or 1,
    optimizer = optim.SGD(net:parameters(), { lr = 0.1 }),
  })
end

function T.test_rows_are_the_layers_with_loss_and_optimiser_behind_them()
  local net, paths, kinds = small_net(), {}, {}
  net:walk(function(path, layer)
    paths[#paths + 1] = path
    kinds[#kinds + 1] = layer.kind
  end)
  local found = profiled(net, check.randn(2, 1, 4, 4))
  for i, row in ipairs(found.rows) do
    lu.assertEquals({ row.path, row.kind }, { paths[i] or ({ "loss", "optimizer" })[i - #paths], kinds[i] or
      ({ "cross_entropy", "SGD" })[i - #paths] })
  end
  lu.assertEquals(#found.rows, #paths + 2)
  lu.assertEquals(found:total().parameters, net:num_parameters(true))
  lu.assertEquals(row_of(found, "4.main.1").output, "2x4x4x4")
  lu.assertEquals({ found.batch, found.backwards }, { 2, true })
end

function T.test_times_add_up_to_the_step()
  local found = profiled(small_net(), check.randn(2, 1, 4, 4), 3)
  local sum = found.outside
  for _, row in ipairs(found.rows) do
    lu.assertTrue(row.forward > 0 or row.kind == "Sequential", row.path)
    sum = sum + row.forward + row.backward
  end
  lu.assertAlmostEquals(sum, found.step, 1e-12)
  lu.assertTrue(found.outside > 0)
end

--- A layer that takes its time: 3 ms forward, 6 ms backward.
local Slow = nn.class "Slow"
function Slow:init() self.calls = 0 end
local function wait(seconds)
  local start = clock()
  repeat until clock() - start >= seconds
end
function Slow:forward(x)
  wait(3e-3)
  self.calls = self.calls + 1
  local y = x:clone():detach()
  return autograd.record(y, { x }, function(g)
    wait(6e-3)
    return g
  end)
end

function T.test_time_belongs_to_the_layer_that_spends_it()
  local found = profiled(nn.Sequential(nn.Linear(3, 4), nn.Sequential(Slow()), nn.Linear(4, 2)), check.randn(2, 3))
  lu.assertTrue(row_of(found, "2.1").forward >= 3e-3)
  lu.assertTrue(row_of(found, "2.1").backward >= 6e-3)
  for _, path in ipairs { "1", "3", "loss" } do lu.assertTrue(row_of(found, path).backward > 0) end
  for _, path in ipairs { "", "2", "optimizer" } do lu.assertEquals(row_of(found, path).backward, 0) end
end

function T.test_a_layer_in_two_places_has_one_row_with_both_calls()
  local slow = Slow()
  local found = nn.Sequential(slow, nn.Tanh(), slow, nn.Linear(3, 3)):profile(check.randn(2, 3), { times = 2 })
  lu.assertEquals(#found.rows, 4)
  lu.assertTrue(row_of(found, "1").forward >= 6e-3)
  lu.assertEquals(slow.calls, 8) -- a first step, one for the memory, two for the time
end

function T.test_operations_are_counted_as_direct_convolution()
  local found = profiled(small_net(), check.randn(3, 1, 4, 4))
  local expected = { -- forward, and backward: the weight's gradient, and the input's where it is wanted
    ["1"] = { 2 * 3 * 16 * 9 * 2, 1 }, ["4.main.1"] = { 2 * 3 * 16 * 2 * 4, 2 }, ["4.skip"] = { 2 * 3 * 16 * 2 * 4, 2 },
    ["7"] = { 2 * 3 * 64 * 3, 2 }, ["2"] = { 0, 0 }, loss = { 0, 0 },
  }
  for path, want in pairs(expected) do
    local row = row_of(found, path)
    lu.assertEquals({ row.operations, row.back }, { want[1], want[1] * want[2] }, path)
  end
end

function T.test_operations_of_recurrent_layers()
  local layer, x = nn.LSTM(6, 5, { layers = 2 }), check.randn(2, 3, 6)
  local input, others = 4 * 5 * 6, 3 * 4 * 5 * 5 -- weights
  local forward = 2 * 2 * 3 * (input + others)
  local found = layer:profile(x, { times = 1 })
  lu.assertEquals({ found.rows[1].operations, found.rows[1].back }, { forward, 2 * forward - 2 * 2 * 3 * input })
  found = layer:profile(x:requires_grad(), { times = 1 })
  lu.assertEquals(found.rows[1].back, 2 * forward)
end

--- GFLOP of a forward pass of one image, to the digits known.
function T.test_operations_of_known_networks()
  local cases = {
    { nets.vgg(7), { 1, 48, 48 }, "0.236" }, { nets.mini_xception(7), { 1, 48, 48 }, "0.0127" },
    { nets.emopy(7), { 1, 64, 64 }, "0.0158" }, { nn.LSTM(256, 128, { layers = 2 }), { 16, 256 }, "0.0105" },
    { nn.ConvLSTM2d(1, 16, 3, { last = true }), { 8, 1, 48, 48 }, "0.361" },
    { nn.LSTM(256, 64, { bidirectional = true }), { 16, 256 }, "0.00524" },
  }
  for _, case in ipairs(cases) do
    local net = case[1]
    local one = profile.count(net, tensor.zeros(1, table.unpack(case[2])))
    lu.assertEquals(("%.3g"):format(one * 1e-9), case[3])
    lu.assertEquals(profile.count(net, tensor.zeros(2, table.unpack(case[2]))), 2 * one)
    lu.assertTrue(net.training)
  end
end

function T.test_bytes_are_those_of_outputs_each_counted_once()
  local net, x = small_net():eval(), check.randn(3, 1, 4, 4)
  local numbers = 3 * 16 * (2 + 2 + 2 + 4 + 4 + 4 + 4) + 3 * 64 + 3 * 3 -- Dropout gives its input in eval
  local found = net:profile(x, { backward = false, times = 1 })
  lu.assertEquals(found:total().bytes, item * numbers)
  lu.assertEquals(select(2, profile.count(net, x)), 2 * item * numbers)
  lu.assertEquals({ row_of(found, "").bytes, row_of(found, "4.main").bytes, row_of(found, "6").bytes }, { 0, 0, 0 })
end

function T.test_memory_that_a_layer_keeps()
  local net = nn.Sequential(nn.Linear(100, 2000), nn.Tanh(), nn.Flatten())
  local found = net:profile(check.randn(50, 100), { times = 1 })
  for path, most in pairs { ["1"] = 3, ["2"] = 2, ["3"] = 0 } do -- times the output
    local kept, output = row_of(found, path).kept, item * 50 * 2000
    lu.assertTrue(kept <= (most + 0.1) * output and (most == 0 or kept >= output), path .. " keeps " .. kept)
  end
  lu.assertTrue(found.peak >= found:total().kept)
end

function T.test_the_forward_pass_alone()
  local net = small_net():eval()
  local found = net:profile(check.randn(2, 1, 4, 4), { backward = false, times = 1 })
  lu.assertEquals({ found:total().backward, #found.rows, found.backwards }, { 0, 12, false })
  lu.assertFalse(net.training)
end

function T.test_a_profile_leaves_statistics_weights_and_random_numbers_alone()
  local net, x = small_net(), check.randn(2, 1, 4, 4)
  local function state()
    local bytes = {}
    for i, pair in ipairs(net:state()) do bytes[i] = pair[2]:detach():tobytes() end
    return table.concat(bytes)
  end
  local before, stream = state(), random.state()
  net:profile(x, { times = 2 })
  lu.assertTrue(state() == before)
  lu.assertEquals(random.state(), stream)
  for _, p in ipairs(net:parameters()) do lu.assertNil(p.grad) end
end

function T.test_a_profiled_step_computes_what_any_step_does()
  local function trained(step)
    tensor.manual_seed(3)
    local net = small_net()
    local x, y = tensor.randn(2, 1, 4, 4), tensor({ 1, 2 }, "i32")
    local optimizer = optim.SGD(net:parameters(), { lr = 0.1 })
    step(net, x, function(scores) return loss.cross_entropy(scores, y) end, optimizer)
    return net:get(7).weight:detach():tobytes()
  end
  local plain = trained(function(net, x, criterion, optimizer)
    for _ = 1, 3 do
      optimizer:zero_grad()
      criterion(net(x)):backward()
      optimizer:step()
    end
  end)
  lu.assertTrue(trained(function(net, x, criterion, optimizer)
    net:profile(x, { loss = criterion, optimizer = optimizer, times = 1 })
  end) == plain)
end

function T.test_a_layer_that_another_does_along_the_way_has_no_time_of_its_own()
  local found = nn.Sequential(nn.Linear(3, 4), nn.ReLU()):profile(check.randn(2, 3), { times = 1 })
  local row = row_of(found, "2")
  lu.assertEquals({ row.kind, row.output, row.forward, row.backward, row.bytes }, { "ReLU", "-", 0, 0, 0 })
  lu.assertTrue(row_of(found, "1").backward > 0)
end

function T.test_another_clock_may_count()
  local ticks = 0
  local function count()
    ticks = ticks + 1
    return ticks
  end
  local found = small_net():profile(check.randn(2, 1, 4, 4), { clock = count, times = 1 })
  lu.assertEquals(found.step, ticks - 1) -- each change of hands is one tick, of which the first only begins
end

function T.test_wrong_use_is_refused_and_nothing_stays_behind()
  local net, x = small_net(), check.randn(2, 1, 4, 4)
  lu.assertStrContains(check.message(net.profile, net, 7), "profile: a batch expected, a tensor, got number")
  lu.assertStrContains(check.message(net.profile, net, x, { tims = 1 }), "unknown option 'tims', did you mean 'times'?")
  lu.assertStrContains(check.message(net.profile, net, x, { times = 0 }), "times must be a whole number from 1, got 0")
  lu.assertStrContains(check.message(net.profile, net, check.randn(2, 3, 4, 4)), "in layer 1 (Conv2d)")
  lu.assertStrContains(check.message(net.profile, net, x, { loss = function() error("on purpose") end }), "on purpose")
  net:freeze()
  lu.assertStrContains(check.message(net.profile, net, x), "nothing in the network is trained; { backward = false }")
  net:unfreeze()
  net(x):sum():backward()
  lu.assertTrue(collectgarbage("isrunning"))
end

function T.test_the_table_shows_every_row_and_what_is_outside()
  local net = small_net()
  local found = profiled(net, check.randn(2, 1, 4, 4))
  local text = tostring(found)
  lu.assertStrMatches(text, "layer +kind +output +parameters +forward +backward +share +GFLOP/s +back +MB +kept\n.*")
  lu.assertStrContains(text, "\n(whole)  ")
  lu.assertStrMatches(text, ".*\n4%.main%.1 +Conv2d +2x4x4x4 +12 .*")
  lu.assertStrMatches(text, ".*\ntotal +" .. net:num_parameters(true) .. " .*")
  lu.assertStrMatches(text, ".*\noutside the layers [%d.]+ ms, [%d.]+ %% of a step of [%d.]+ ms; batch 2, %d+ threads?, "
    .. "peak [%d.]+ MB")
  local _, lines = text:gsub("\n", "\n")
  lu.assertEquals(lines, #found.rows + 2)
end

---- The machine ----

function T.test_limits_of_the_machine_are_measured()
  local limits = machine.limits(0)
  lu.assertTrue(limits.flops > 0 and limits.bytes > 0)
  lu.assertEquals(limits.threads, require("feral.core.engine").threads())
end

function T.test_operations_of_the_peak_are_those_of_all_threads()
  local engine = require "feral.core.engine"
  local before = engine.threads()
  local _restored <close> = setmetatable({}, { __close = function() engine.threads(before) end })
  engine.threads(1)
  local one, value = core.multiply_adds(1000)
  engine.threads(2)
  lu.assertEquals({ (core.multiply_adds(1000)) }, { 2 * one })
  lu.assertTrue(value == value and value > 0) -- no NaN, no zeros: those would run at another speed
  lu.assertStrContains(check.message(core.multiply_adds, 0), "multiply_adds: rounds")
end

function T.test_copying()
  local from, to = check.randn(1001), tensor.zeros(1001)
  lu.assertEquals(core.copy(to, from), 2 * item * 1001)
  lu.assertEquals(to:tobytes(), from:tobytes())
  lu.assertStrContains(check.message(core.copy, tensor.zeros(3), from),
    "copy: two contiguous tensors of one size expected, got 3 and 1001")
  lu.assertStrContains(check.message(core.copy, from, from), "copy: two contiguous tensors")
end

return T
