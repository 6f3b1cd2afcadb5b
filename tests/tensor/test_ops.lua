local lu = require "luaunit"
local feral = require "feral"
local check, arrays = require "check", require "arrays"
local tensor = feral.tensor

local T = {}

local unary = {
  { "exp", math.exp }, { "log", math.log }, { "sqrt", math.sqrt }, { "abs", math.abs }, { "sin", math.sin }, { "cos", math.cos },
  { "floor", math.floor }, { "neg", function(x) return -x end },
  { "tanh", function(x) local e = math.exp(2 * x) return (e - 1) / (e + 1) end },
  { "sigmoid", function(x) return 1 / (1 + math.exp(-x)) end },
}

function T.test_unary_operations_of_odd_shapes()
  for i = 1, check.SHAPES do
    local name, f = table.unpack(unary[i % #unary + 1])
    local x = arrays.random(arrays.shape(0, 5))
    if name == "log" or name == "sqrt" then x = x:abs() + 0.1 end
    local expected = {}
    for k, v in ipairs(arrays.flat(x)) do expected[k] = f(v) end
    local y = feral.ops[name](x)
    lu.assertEquals(y.shape, x.shape)
    check.close(y, expected, 1e-6, name)
  end
end

function T.test_exp_and_tanh_at_their_ends()
  local x = tensor { -1000, -80, -1e-6, 0, 1e-6, 80, 0 / 0 }
  local y = x:tanh():totable()
  lu.assertEquals({ y[1], y[2], y[4], y[6] }, { -1, -1, 0, 1 })
  lu.assertAlmostEquals(y[3], -1e-6, 1e-12)
  lu.assertTrue(y[7] ~= y[7])
  local e = tensor({ -1000, 0, 0 / 0 }):exp():totable()
  lu.assertTrue(e[1] < 1e-37 and e[2] == 1 and e[3] ~= e[3])
end

function T.test_gradients_of_arithmetic()
  local cases = {
    { "add", function(a, b) return a + b end }, { "sub", function(a, b) return a - b end },
    { "mul", function(a, b) return a * b end }, { "div", function(a, b) return a / (b * b + 1) end },
    { "pow", function(a, b) return (a * a + 1) ^ b end },
    { "scalars", function(a, b) return 2 * a - 1 / (3 + b * b) + a ^ 2 end },
    { "maximum", function(a, b) return feral.ops.maximum(a, b) end },
    { "where", function(a, b) return tensor.where(a:gt(0), a * 2, b) end },
  }
  for _, case in ipairs(cases) do
    check.gradients(case[2], { check.randn(3, 4), check.randn(3, 4) }, 1e-6, case[1])
    check.gradients(case[2], { check.randn(2, 3, 4), check.randn(3, 1) }, 1e-6, case[1])
  end
end

function T.test_gradients_of_functions_and_views()
  local functions = {
    exp = function(x) return x:exp() end, log = function(x) return (x * x + 1):log() end,
    sqrt = function(x) return (x * x + 1):sqrt() end, tanh = function(x) return x:tanh() end,
    sigmoid = function(x) return x:sigmoid() end, sin = function(x) return x:sin() end,
    cos = function(x) return x:cos() end, abs = function(x) return x:abs() end,
    clamp = function(x) return x:clamp(-0.5, 0.7) end,
    sum = function(x) return x:sum() end, sum2 = function(x) return x:sum(2) end,
    sum_keep = function(x) return x:sum(-1, true) * 2 end, mean = function(x) return x:mean(1) end,
    var = function(x) return x:var(2) end, std = function(x) return x:std() end,
    max = function(x) return (x:max(2)) end, max_all = function(x) return (x:max()) end,
    min_keep = function(x) return (x:min(1, true)) end,
    reshape = function(x) return x:reshape(4, -1) end, permute = function(x) return x:permute(2, 1) * 2 end,
    transpose = function(x) return x:transpose():reshape(-1) end,
    select = function(x) return x[2] * x:select(1, -1) end, narrow = function(x) return x:narrow(2, 2, 2) end,
    unsqueeze = function(x) return x:unsqueeze(1):squeeze(1) end, expand = function(x) return x:unsqueeze(1):expand(3, 3, 4) end,
    flatten = function(x) return x:flatten() end, clone = function(x) return x:clone():contiguous() end,
    twice = function(x) return x * x + x end,
  }
  for name, f in pairs(functions) do
    check.restart() -- the same input for each, in whatever order they come
    check.gradients(f, { check.randn(3, 4) }, 1e-6, name)
  end
end

function T.test_gradients_of_picking()
  local positions = tensor({ 3, 1, 3 }, "i32")
  check.gradients(function(x) return x:index_select(1, positions) end, { check.randn(3, 4) }, 1e-6, "index_select")
  local places = tensor({ { 2 }, { 4 }, { 1 } }, "i32")
  check.gradients(function(x) return x:gather(2, places) end, { check.randn(3, 4) }, 1e-6, "gather")
  check.gradients(function(a, b) return tensor.cat({ a, b, a }, 2) end, { check.randn(3, 2), check.randn(3, 1) }, 1e-6, "cat")
  check.gradients(function(a, b) return tensor.stack({ a, b }) end, { check.randn(3), check.randn(3) }, 1e-6, "stack")
  check.gradients(function(a, b) return a:matmul(b) end, { check.randn(2, 3, 4), check.randn(2, 4, 5) }, 1e-6, "matmul")
end

function T.test_survives_lack_of_memory()
  local a, b = check.randn(5, 6), check.randn(6, 5)
  check.survives_lack_of_memory(function()
    local _s <close> = tensor.scope()
    return (a:matmul(b) + 1):tanh():sum(1):sort()
  end)
end

return T
