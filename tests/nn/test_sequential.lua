local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local nn, tensor = feral.nn, feral.tensor

local T = {}

--- A layer that does a ReLU along the way, and an input for it, at random.
local function random_pair(kind)
  local n, c, h, w = check.integer(2, 5), check.integer(1, 40), check.integer(1, 9), check.integer(1, 9)
  if kind == "Linear" then return nn.Linear(c, check.integer(1, 9), { bias = h > 4 }), check.randn(n, c) end
  local x = check.randn(n, c, h, w)
  if kind == "BatchNorm" then
    return nn.BatchNorm(c, { affine = check.integer(0, 3) > 0 }), h == 1 and w == 1 and check.randn(n + 30, c) or x
  end
  if kind == "Conv2d" then return nn.Conv2d(c, check.integer(1, 9), 3, { padding = 1, stride = check.integer(1, 2) }), x end
  if kind == "DepthwiseConv2d" then return nn.DepthwiseConv2d(c, 3, { padding = 1 }), x end
  local options = check.integer(0, 2) == 0 and { activation = nn.Tanh() } or nil
  return nn.Residual(nn.Conv2d(c, c, 1), check.integer(0, 1) == 0 and nn.Conv2d(c, c, 3, { padding = 1 }) or nil, options), x
end

local kinds = { "BatchNorm", "BatchNorm", "Conv2d", "DepthwiseConv2d", "Linear", "Residual" }

--- The bytes of all that a training step gives: output, gradients, buffers.
local function step(net, x, g, apart)
  local seen = 0
  local function forward() return net(x) end
  local y = apart and nn.observe(function() seen = seen + 1 end, forward) or forward()
  lu.assertEquals(seen > 2, apart)
  x:zero_grad()
  net:zero_grad()
  y:backward(g)
  local all = { y:tobytes(), x.grad:tobytes() }
  for _, pair in ipairs(net:state()) do all[#all + 1] = pair[2].grad and pair[2].grad:tobytes() or pair[2]:tobytes() end
  return all
end

function T.test_a_relu_done_along_the_way_is_the_same_to_the_last_bit()
  for i = 1, check.SHAPES do
    local layer, x = random_pair(kinds[i % #kinds + 1])
    local net = nn.Sequential(layer, nn.ReLU())
    if i % 5 == 0 then net:eval() end
    if i % 7 == 0 then net:freeze() end
    x = layouts.vary(x):requires_grad()
    local g = check.randn(table.unpack(net(x).shape))
    local twin = nn.build(nn.describe(net)):load_state((function()
      local state = {}
      for _, pair in ipairs(net:state()) do state[pair[1]] = pair[2] end
      return state
    end)())
    if i % 5 == 0 then twin:eval() end
    if i % 7 == 0 then twin:freeze() end
    lu.assertEquals(step(net, x, g, false), step(twin, x, g, true), layer.kind)
  end
end

function T.test_gradients()
  for i = 1, 2 * #kinds do
    local layer, x = random_pair(kinds[i % #kinds + 1])
    if x:dim() == 4 then x = check.randn(2, x:size(2), 2, 3) end
    local net = nn.Sequential(layer, nn.ReLU(), nn.Lambda(function(t) return t * 1 end), nn.ReLU())
    local inputs = { x, table.unpack(layer:parameters()) }
    check.gradients(function(t) return net(t) end, inputs, 1e-5, layer.kind)
  end
end

function T.test_only_what_is_wanted_gets_a_gradient()
  local net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm(3), nn.ReLU())
  local x = check.randn(2, 2, 5, 5)
  net:get(1):freeze()
  net(x):sum():backward()
  lu.assertNil(net:get(1).weight.grad)
  lu.assertNotNil(net:get(3).weight.grad)
end

function T.test_layers_that_were_changed_are_asked_as_they_are()
  local x = tensor { { -1, 2 } }
  local net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
  net:get(1).forward = function(_, t) return t * 2 end
  lu.assertEquals(net(x):totable(), { { 0, 4 } })
  net:get(2).forward = function(_, t) return t end
  lu.assertEquals(net(x):totable(), { { -2, 4 } })
  net["2"] = nn.Lambda(function(t) return t + 1 end)
  lu.assertEquals(net(x):totable(), { { -1, 5 } })
  net["1"] = nn.ReLU()
  lu.assertEquals(net(x):totable(), { { 1, 3 } })
end

function T.test_the_input_stays_as_it_was()
  local x = check.randn(3, 4)
  local before = x:tobytes()
  nn.Sequential(nn.ReLU(), nn.ReLU())(x)
  nn.Sequential(nn.Dropout(0), nn.ReLU())(x)
  nn.Sequential(nn.Sequential(), nn.ReLU())(x)
  lu.assertEquals(x:tobytes(), before)
end

function T.test_nan_passes_as_through_a_relu()
  local net = nn.Sequential(nn.BatchNorm(1), nn.ReLU()):eval()
  local x = tensor({ { 0 / 0 }, { -1 }, { 1 } }):requires_grad()
  local y = net(x)
  lu.assertEquals(y:isnan():totable(), { { 1 }, { 0 }, { 0 } })
  y:sum():backward()
  lu.assertEquals(x.grad:gt(0):totable(), { { 1 }, { 0 }, { 1 } })
end

function T.test_an_error_names_the_layer_that_made_it()
  local net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm(3), nn.ReLU())
  lu.assertStrContains(check.message(function() return (net(tensor.zeros(4, 2))) end), "\n  in layer 2 (BatchNorm)")
end

function T.test_a_step_holds_one_tensor_for_each_pair()
  local x = check.randn(4, 3, 32, 32)
  local function peak(net)
    local _open <close> = tensor.scope()
    tensor.trim()
    tensor.reset_peak()
    local before = tensor.memory().live
    net(x):sum()
    return tensor.memory().peak - before
  end
  local size = x:numel() * #tensor.zeros(1):tobytes()
  for _, make in ipairs { function() return nn.BatchNorm(3) end, function() return nn.DepthwiseConv2d(3, 1) end } do
    local pair, twice = nn.Sequential(make(), nn.ReLU()), nn.Sequential(make(), nn.Tanh())
    lu.assertTrue(peak(twice) - peak(pair) > 0.9 * size)
  end
end

function T.test_survives_lack_of_memory()
  local net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Residual(nn.BatchNorm(3)), nn.ReLU(), nn.BatchNorm(3), nn.ReLU(),
    nn.Flatten(), nn.Linear(27, 2), nn.ReLU())
  local x = check.randn(2, 2, 5, 5)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    net:zero_grad()
    net(x):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local net = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Residual(nn.BatchNorm(10)), nn.ReLU(), nn.BatchNorm(10),
      nn.ReLU())
    local x = check.randn(3, 3, 61, 57):requires_grad()
    local y = net(x)
    y:backward(check.randn(table.unpack(y.shape)))
    show(y, x.grad, net:get(1).weight.grad, net:get(5).weight.grad, net:get(5).bias.grad)
  ]]
end

return T
