local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local nn, tensor = feral.nn, feral.tensor

local T = {}

local exp = math.exp

--- The standard normal distribution function: its Taylor series, or 0 and 1 far out.
local function phi(x)
  if math.abs(x) > 6 then return x > 0 and 1 or 0 end
  local term, sum = x, x
  for n = 1, 100 do
    term = -term * x * x / (2 * n)
    sum = sum + term / (2 * n + 1)
  end
  return 0.5 + sum * 0.3989422804014327
end

local function sigmoid(x) return 1 / (1 + exp(-x)) end

local cases = {
  { kind = "ReLU", f = function(x) return math.max(x, 0) end },
  { kind = "LeakyReLU", parameter = 0.2, f = function(x, p) return x > 0 and x or p * x end },
  { kind = "LeakyReLU", f = function(x) return x > 0 and x or 0.01 * x end },
  { kind = "ELU", parameter = 1.5, f = function(x, p) return x > 0 and x or p * (exp(x) - 1) end },
  { kind = "ELU", f = function(x) return x > 0 and x or exp(x) - 1 end },
  { kind = "GELU", f = function(x) return x * phi(x) end },
  { kind = "SiLU", f = function(x) return x * sigmoid(x) end },
  { kind = "Sigmoid", f = sigmoid },
  { kind = "Tanh", f = function(x) return 1 - 2 / (exp(2 * x) + 1) end },
}

local function random_sizes()
  local sizes = {}
  for d = 1, check.integer(1, 5) do sizes[d] = check.integer(1, 7) end
  return sizes
end

local function mapped(x, f, p)
  local values = check.flat(x)
  for i, v in ipairs(values) do values[i] = f(v, p) end
  return values
end

function T.test_values_in_odd_shapes_and_layouts()
  for _, case in ipairs(cases) do
    local layer = nn[case.kind](case.parameter)
    for _ = 1, check.SHAPES do
      local x = layouts.vary(check.randn(table.unpack(random_sizes())) * 3)
      local y = layer(x)
      lu.assertEquals(y.shape, x.shape)
      check.close(y, mapped(x, case.f, case.parameter), 5e-6, case.kind)
    end
  end
end

function T.test_prelu_with_one_weight_and_one_a_channel()
  for i = 1, check.SHAPES do
    local sizes = random_sizes()
    if #sizes == 1 then sizes[2] = 3 end
    local channels = i % 2 == 0 and 1 or sizes[2]
    local layer = nn.PReLU(channels)
    tensor.manual_seed(i)
    layer.weight:requires_grad(false)
    layer.weight:copy_(tensor.randn(channels))
    local x = check.randn(table.unpack(sizes))
    local expanded = layer.weight
    if channels > 1 then
      local view = { 1, channels }
      for d = 3, #sizes do view[d] = 1 end
      expanded = layer.weight:reshape(view)
    end
    local values, weights = check.flat(x), check.flat(expanded:expand(sizes))
    for k, v in ipairs(values) do values[k] = v > 0 and v or v * weights[k] end
    check.close(layer(layouts.vary(x)), values, 1e-6)
  end
end

--- Numbers away from 0, where the slope of some jumps.
local function away_from_zero(...)
  local x = check.randn(...)
  return (x + x:sign() * 0.01):detach()
end

function T.test_gradients()
  for _, case in ipairs(cases) do
    local layer = nn[case.kind](case.parameter)
    check.gradients(function(x) return layer(x) end, { away_from_zero(3, 2, 5) }, nil, case.kind)
    check.gradients(function(x) return layer(x:as_image()) end, { away_from_zero(2, 3, 2, 3) }, nil, case.kind)
    check.gradients(function(x) return layer(x:transpose(1, 2)) end, { away_from_zero(4, 7) }, nil, case.kind)
    check.gradients(function(x) return layer(x):sum(1) end, { away_from_zero(4, 3) }, nil, case.kind)
  end
  for _, shape in ipairs { { 4, 3 }, { 2, 3, 2, 5 } } do
    for _, channels in ipairs { 1, 3 } do
      check.gradients(function(x, w) return x:prelu(w) end, { away_from_zero(table.unpack(shape)), check.randn(channels) })
      check.gradients(function(w) return away_from_zero(1):fill_(-2):expand(table.unpack(shape)):prelu(w) end,
        { check.randn(channels) })
    end
  end
end

local inf, nan = math.huge, 0 / 0

--- What functions are at the ends, and their slopes there: { x, f(x), slope }.
local ends = {
  exp = { { -inf, 0, 0 }, { inf, inf, inf }, { nan, nan, nan }, { -1000, 0, 0 }, { 1000, inf, inf } },
  sigmoid = { { -inf, 0, 0 }, { inf, 1, 0 }, { nan, nan, nan }, { -1000, 0, 0 }, { 1000, 1, 0 } },
  tanh = { { -inf, -1, 0 }, { inf, 1, 0 }, { nan, nan, nan } },
  relu = { { -inf, 0, 0 }, { inf, inf, 1 }, { nan, nan, 1 } },
  elu = { { -inf, -1, 0 }, { inf, inf, 1 }, { nan, nan, nan } },
  silu = { { -inf, 0, 0 }, { inf, inf, 1 }, { nan, nan, nan }, { -1e30, 0, 0 }, { 1e30, 1e30, 1 } },
  gelu = { { -inf, 0, 0 }, { inf, inf, 1 }, { nan, nan, nan }, { -1e30, 0, 0 }, { 1e30, 1e30, 1 } },
  log = { { 0, -inf, inf }, { inf, inf, 0 }, { -1, nan, -1 }, { nan, nan, nan } },
  sqrt = { { 0, 0, inf }, { inf, inf, 0 }, { -1, nan, nan }, { nan, nan, nan } },
  abs = { { 0, 0, 0 }, { -inf, inf, -1 } },
}

local function same(got, expected, what)
  if expected ~= expected then return lu.assertTrue(got ~= got, what) end
  if math.abs(expected) == 1e30 then expected = tensor(expected):item() end
  lu.assertEquals(got, expected, what)
end

function T.test_values_and_slopes_at_the_ends()
  for name, cases_of in pairs(ends) do
    for _, case in ipairs(cases_of) do
      local x = tensor.full({ 37 }, case[1]):requires_grad() -- whole vectors and what is left
      local y = x[name](x)
      y:sum():backward()
      for i = 1, 37, 36 do
        same(y[i]:item(), case[2], ("%s of %g"):format(name, case[1]))
        same(x.grad[i]:item(), case[3], ("slope of %s at %g"):format(name, case[1]))
      end
    end
  end
end

function T.test_an_end_in_a_vector_does_not_show_in_its_neighbours()
  for name in pairs(ends) do
    local x = tensor.linspace(0.5, 3, 33)
    local expected = x[name](x):totable()
    for at, value in ipairs { nan, inf, -inf } do x[at * 8] = value end
    for i, v in ipairs(x[name](x):totable()) do
      if i % 8 ~= 0 or i > 24 then lu.assertEquals(v, expected[i], name) end
    end
  end
end

function T.test_exp_over_all_that_a_float_holds()
  local x = tensor.linspace(-103, 88.7, 5003)
  local y = x:exp():totable()
  for i, v in ipairs(x:totable()) do
    local expected = math.exp(v)
    local digits = math.max(expected * 4e-7, check.is_double and 0 or 1.5e-45)
    lu.assertTrue(math.abs(y[i] - expected) <= digits, ("exp of %g is %g, got %g"):format(v, expected, y[i]))
  end
  if not check.is_double then lu.assertEquals(tensor({ 88.73, -104 }):exp():totable(), { inf, 0 }) end
end

--- Made with torch 1.13.1: the functions of torch.nn.functional on x, and gradients of their sums.
local x_values = { -6, -3, -1.5, -0.75, -0.1, -0.001, 0, 0.002, 0.3, 1, 2.25, 5 }
local torch = {
  { name = "leaky_relu", parameter = 0.2,
    values = { -1.2, -0.6, -0.3, -0.15, -0.02, -0.0002, 0, 0.002, 0.3, 1, 2.25, 5 },
    slopes = { 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 1, 1, 1, 1, 1 } },
  { name = "elu", parameter = 1.5,
    values = { -1.49628187, -1.4253194, -1.16530476, -0.791450171, -0.142743873, -0.00149925025, 0, 0.002, 0.3, 1,
      2.25, 5 },
    slopes = { 0.00371812826, 0.0746806026, 0.33469524, 0.708549829, 1.35725613, 1.49850075, 1.5, 1, 1, 1, 1, 1 } },
  { name = "gelu",
    values = { -5.91952587e-09, -0.00404969409, -0.100210802, -0.169970514, -0.0460172163, -0.000499601058, 0,
      0.00100159577, 0.185373427, 0.841344746, 2.22249494, 4.99999857 },
    slopes = { -3.54687095e-08, -0.0119456472, -0.127469192, 0.000774278261, 0.420476908, 0.499202116, 0.5,
      0.501595767, 0.732327767, 1.08331547, 1.05918974, 1.00000715 } },
  { name = "silu",
    values = { -0.0148357389, -0.14227762, -0.273638286, -0.240615976, -0.0475020813, -0.00049975, 0, 0.001001,
      0.172332755, 0.731058579, 2.0354637, 4.96653575 },
    slopes = { -0.0123264326, -0.088104106, -0.0412941543, 0.157400056, 0.450083209, 0.4995, 0.5, 0.500999999,
      0.64778001, 0.927670512, 1.09873091, 1.02654743 } },
  { name = "sigmoid",
    values = { 0.00247262316, 0.0474258732, 0.182425524, 0.320821301, 0.475020813, 0.49975, 0.5, 0.5005, 0.574442517,
      0.731058579, 0.904650535, 0.993307149 },
    slopes = { 0.00246650929, 0.0451766597, 0.149146452, 0.217894994, 0.24937604, 0.249999938, 0.25, 0.24999975,
      0.244458312, 0.196611933, 0.0862579444, 0.00664805667 } },
  { name = "tanh",
    values = { -0.999987712, -0.995054754, -0.905148254, -0.635148952, -0.0996679946, -0.000999999667, 0,
      0.00199999733, 0.291312612, 0.761594156, 0.978026115, 0.999909204 },
    slopes = { 2.45765474e-05, 0.00986603717, 0.180706639, 0.596585808, 0.990066291, 0.999999, 1, 0.999996,
      0.915136962, 0.419974342, 0.0434649189, 0.000181583231 } },
  { name = "relu",
    values = { 0, 0, 0, 0, 0, 0, 0, 0.002, 0.3, 1, 2.25, 5 },
    slopes = { 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1 } },
}

function T.test_stored_values_of_pytorch()
  for _, case in ipairs(torch) do
    local x = tensor(x_values):requires_grad()
    local y = x[case.name](x, case.parameter)
    check.close(y, case.values, 2e-6, case.name)
    y:sum():backward()
    check.close(x.grad, case.slopes, 2e-6, case.name .. " slope")
  end
end

function T.test_elu_is_exact_near_zero()
  check.close(tensor { -1e-4, -1e-5 }:elu() * 1e4, { -0.999950002, -0.0999995 }, 1e-6)
end

function T.test_nan_stays_visible()
  for _, case in ipairs(cases) do
    local y = nn[case.kind](case.parameter)(tensor { 0 / 0, 1 })
    lu.assertEquals(y:isnan():totable(), { 1, 0 }, case.kind)
  end
  lu.assertEquals(tensor { { 0 / 0, 1 } }:prelu(tensor { 0.5, 0.5 }):isnan():totable(), { { 1, 0 } })
end

function T.test_ends_of_the_number_line()
  local x = tensor { -1e30, 1e30 }
  lu.assertEquals(x:elu():totable()[1], -1.0)
  lu.assertEquals(x:sigmoid():totable()[2], 1.0)
  lu.assertEquals(x:tanh():totable(), { -1.0, 1.0 })
  check.close(x:gelu() * 1e-30, { 0, 1 })
  check.close(tensor { -80, 80 }:silu(), { 0, 80 })
end

function T.test_messages()
  lu.assertStrContains(check.message(function() return (nn.Sequential(nn.ReLU())(tensor.zeros(2, "u8"))) end),
    "relu: x must be " .. feral.tensor.zeros(1).dtype .. ", got u8\n  in layer 1 (ReLU)")
  lu.assertStrContains(check.message(function() nn.ReLU { inplace = true } end),
    "ReLU: unknown option 'inplace' (known: none)")
  lu.assertStrContains(check.message(function() nn.LeakyReLU("0.2") end), "LeakyReLU: slope must be a number, got string")
  lu.assertStrContains(check.message(function() nn.ELU {} end), "ELU: alpha must be a number, got table")
  lu.assertStrContains(check.message(function() return (nn.Sequential(nn.PReLU(5))(tensor.zeros(2, 8))) end),
    "prelu: the weight has 5 elements, the input 2x8 has not as many channels\n  in layer 1 (PReLU)")
end

function T.test_layers_survive_saving()
  local net = nn.Sequential(nn.ReLU(), nn.LeakyReLU(0.3), nn.ELU(2), nn.GELU(), nn.SiLU(), nn.PReLU(3, 0.1), nn.Sigmoid(),
    nn.Tanh(), nn.Softmax(2))
  local copy = assert(nn.build(nn.describe(net)))
  local x = check.randn(2, 3)
  lu.assertEquals(copy(x):tobytes(), net(x):tobytes())
  lu.assertEquals(#copy:parameters(), 1)
end

function T.test_survives_lack_of_memory()
  local net, x = nn.Sequential(nn.ReLU(), nn.GELU(), nn.PReLU(2)), check.randn(2, 2, 3, 2)
  x:requires_grad()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    net(x):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local x = check.randn(3, 5, 61, 67)
    for _, kind in ipairs { "ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh", "PReLU" } do
      local layer = nn[kind]()
      local input = x:clone():requires_grad()
      local y = layer(input)
      y:backward(x)
      show(y, input.grad)
      if layer.weight then show(layer.weight.grad) end
    end
  ]]
end

return T
