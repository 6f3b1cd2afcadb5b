local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local nn, tensor, json = feral.nn, feral.tensor, feral.json

local T = {}

local function random_shape(least, most)
  local sizes = {}
  for d = 1, check.integer(least, most) do sizes[d] = check.integer(1, 6) end
  return sizes
end

function T.test_residual_adds_the_input_or_the_skip()
  for _ = 1, check.SHAPES do
    local x = check.randn(table.unpack(random_shape(1, 5)))
    local values, plain, skipped, activated = check.flat(x), {}, {}, {}
    for i, v in ipairs(values) do
      local main = v > 0 and v or 0.01 * v
      plain[i], skipped[i] = main + v, main + math.max(v, 0)
      activated[i] = math.max(plain[i], 0)
    end
    check.close(nn.Residual(nn.LeakyReLU())(layouts.vary(x)), plain, 1e-6)
    check.close(nn.Residual(nn.LeakyReLU(), nn.ReLU())(layouts.vary(x)), skipped, 1e-6)
    check.close(nn.Residual(nn.LeakyReLU(), nil, { activation = nn.ReLU() })(layouts.vary(x)), activated, 1e-6)
  end
end

function T.test_concat_puts_branches_behind_each_other()
  for _ = 1, check.SHAPES do
    local sizes = random_shape(2, 5)
    local dim = check.integer(1, #sizes)
    local x = check.randn(table.unpack(sizes))
    local net = nn.Concat(nn.ReLU(), nn.Lambda(function(t) return t * 2 end), { dim = dim })
    local y = net(layouts.vary(x))
    lu.assertEquals(y:size(dim), 2 * sizes[dim])
    check.close(y:narrow(dim, 1, sizes[dim]), check.flat(x:relu()), 1e-7)
    check.close(y:narrow(dim, sizes[dim] + 1, sizes[dim]), check.flat(x * 2), 1e-7)
  end
  lu.assertEquals(nn.Concat(nn.ReLU(), nn.ReLU())(tensor.zeros(2, 3, 4, 5)).shape, { 2, 6, 4, 5 })
end

function T.test_time_distributed_takes_each_step_by_itself()
  for _ = 1, check.SHAPES do
    local n, t, features = check.integer(1, 4), check.integer(1, 5), check.integer(1, 6)
    local linear = nn.Linear(features, 3)
    local x = check.randn(n, t, features)
    local y = nn.TimeDistributed(linear)(layouts.vary(x))
    lu.assertEquals(y.shape, { n, t, 3 })
    for step = 1, t do check.close(y:select(2, step), check.flat(linear(x:select(2, step))), 1e-5) end
  end
  local frames = check.randn(2, 3, 4, 6, 6)
  local y = nn.TimeDistributed(nn.MaxPool2d(2))(frames)
  lu.assertEquals(y.shape, { 2, 3, 4, 3, 3 })
  lu.assertEquals(check.flat(y:select(2, 3)), check.flat(nn.MaxPool2d(2)(frames:select(2, 3))))
end

function T.test_lambda_calls_its_function()
  for _ = 1, check.SHAPES do
    local x = check.randn(table.unpack(random_shape(1, 4)))
    lu.assertEquals(nn.Lambda(function(t) return t:abs() end)(x):tobytes(), x:abs():tobytes())
  end
end

local function all_containers()
  return nn.Sequential(
    nn.TimeDistributed(nn.Sequential(
      nn.Residual(nn.Linear(4, 4), nil, { activation = nn.Tanh() }),
      nn.Residual(nn.Linear(4, 3), nn.Linear(4, 3)),
      nn.Concat(nn.Sigmoid(), nn.Linear(3, 2)))),
    nn.Concat(nn.Tanh(), nn.Sigmoid(), { dim = 3 }))
end

--- A sum may lie where main's result did, but not where something else still looks at that.
function T.test_a_relu_behind_a_residual_changes_nothing_else()
  local mains = {
    nn.Linear(4, 4), nn.BatchNorm(4), nn.Tanh(), nn.Sequential(), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4)),
    nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Residual(nn.Linear(4, 4), { activation = nn.Sigmoid() }),
    nn.Sequential(nn.Sequential(nn.Residual(nn.Linear(4, 4)))), nn.Lambda(function(x) return x end),
  }
  for i, main in ipairs(mains) do
    local net = nn.Sequential(nn.Tanh(), nn.Residual(main), nn.ReLU())
    local apart = nn.Sequential(nn.Tanh(), nn.Lambda(function(x) return (main(x) + x):relu() end))
    local x = check.randn(5, 4)
    lu.assertEquals(net(x):tobytes(), apart(x):tobytes(), "main " .. i)
    check.gradients(function(t) return net(t) end, { x })
  end
end

function T.test_gradients()
  local net = all_containers()
  check.gradients(function(x) return net(x) end, { check.randn(2, 3, 4) })
  check.gradients(function(x) return nn.Residual(nn.MaxPool2d(3, { stride = 1, padding = 1 }))(x) end,
    { check.randn(2, 3, 4, 3) })
  check.gradients(function(x) return nn.Concat(nn.SiLU(), nn.Tanh())(x:as_image()) end, { check.randn(2, 3, 2, 2) })
  check.gradients(function(x) return nn.TimeDistributed(nn.GlobalAvgPool())(x) end, { check.randn(2, 3, 2, 2, 2) })
end

function T.test_names_of_what_is_inside()
  local names = {}
  for i, pair in ipairs(all_containers():named_parameters()) do names[i] = pair[1] end
  lu.assertEquals(names, {
    "1.layer.1.main.weight", "1.layer.1.main.bias", "1.layer.2.main.weight", "1.layer.2.main.bias",
    "1.layer.2.skip.weight", "1.layer.2.skip.bias", "1.layer.3.2.weight", "1.layer.3.2.bias",
  })
end

function T.test_modes_reach_what_is_inside()
  local dropout = nn.Dropout()
  local net = nn.Residual(nn.Concat(nn.TimeDistributed(dropout)), nn.Lambda(function(x) return x end))
  lu.assertFalse(net:eval() and dropout.training)
  lu.assertTrue(net:train() and dropout.training)
  lu.assertTrue(net:freeze() and dropout.frozen)
end

function T.test_containers_survive_saving()
  local net = all_containers()
  local copy, state = assert(nn.build(json.decode(json.encode(nn.describe(net))))), {}
  for _, pair in ipairs(net:state()) do state[pair[1]] = pair[2] end
  copy:load_state(state)
  local x = check.randn(2, 3, 4)
  lu.assertEquals(copy(x):tobytes(), net(x):tobytes())
  lu.assertStrContains(check.message(nn.describe, nn.Sequential(nn.Lambda(print))),
    "a Lambda holds a function and so cannot be written to a file")
end

function T.test_messages()
  local function message(net, x) return check.message(function() return (nn.Sequential(net)(x)) end) end
  lu.assertStrContains(message(nn.Residual(nn.Linear(4, 3)), tensor.zeros(2, 4)),
    "Residual: main gives 2x3, the input is 2x4\n  in layer 1 (Residual)")
  lu.assertStrContains(message(nn.Residual(nn.Linear(4, 1), nn.Linear(4, 3)), tensor.zeros(2, 4)),
    "Residual: main gives 2x1, skip 2x3\n  in layer 1 (Residual)")
  lu.assertStrContains(message(nn.Concat(nn.Linear(4, 1), nn.Linear(4, 3), { dim = 1 }), tensor.zeros(2, 4)),
    "cat: tensor 2 is 2x3")
  lu.assertStrContains(message(nn.TimeDistributed(nn.ReLU()), tensor.zeros(2, 4)),
    "TimeDistributed: input is 2x4, N x T x ... expected\n  in layer 1 (TimeDistributed)")
  lu.assertStrContains(message(nn.TimeDistributed(nn.Linear(4, 3)), tensor.zeros(2, 4, 5)),
    "Linear: input is 8x5, N x 4 expected\n  in layer 1.layer (Linear)")
  lu.assertStrContains(check.message(nn.Residual), "Residual: 'main' must be a layer, got nil")
  lu.assertStrContains(check.message(nn.Residual, nn.ReLU(), nil, { activaton = nn.ReLU() }),
    "Residual: unknown option 'activaton', did you mean 'activation'?")
  lu.assertStrContains(check.message(nn.Residual, nn.ReLU(), nil, { activation = "relu" }),
    "Residual: 'activation' must be a layer, got string")
  lu.assertStrContains(check.message(nn.Concat), "Concat: no branches given")
  lu.assertStrContains(check.message(nn.Concat, nn.ReLU(), 3), "Concat: '2' must be a layer, got number")
  lu.assertStrContains(check.message(nn.Lambda, 3), "Lambda: a function expected, got number")
  lu.assertStrContains(check.message(nn.TimeDistributed, print), "TimeDistributed: 'layer' must be a layer, got function")
end

function T.test_survives_lack_of_memory()
  local net, x = all_containers(), check.randn(2, 3, 4):requires_grad()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    net(x):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local pool = nn.MaxPool2d(3, { stride = 1, padding = 1 })
    local net = nn.TimeDistributed(nn.Concat(nn.Residual(pool, nil, { activation = nn.GELU() }), nn.BatchNorm(5)))
    local x = check.randn(3, 4, 5, 31, 29):requires_grad()
    local y = net(x)
    y:backward(check.randn(table.unpack(y.shape)))
    show(y, x.grad)
  ]]
end

return T
