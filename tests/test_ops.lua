local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local tensor = feral.tensor

local T = {}

--- A random shape of up to 4 dimensions, and one that broadcasts with it.
local function two_shapes()
  local a, b = {}, {}
  for d = 1, check.integer(1, 4) do
    a[d] = check.integer(1, 5)
    b[d] = check.integer(0, 2) == 0 and 1 or a[d]
    if check.integer(0, 3) == 0 then a[d], b[d] = b[d], a[d] end
  end
  while #b > 1 and b[1] == 1 and check.integer(0, 1) == 1 do table.remove(b, 1) end
  return a, b
end

--- The element of t at these indices, counted from the right where t has fewer dimensions.
local function at(t, shape, indices)
  local offset = #indices - #shape
  local value = t
  for d = 1, #shape do value = value[shape[d] == 1 and 1 or indices[d + offset]] end
  return value
end

local function each_index(shape, visit)
  local indices = {}
  local function go(d)
    if d > #shape then return visit(indices) end
    for i = 1, shape[d] do
      indices[d] = i
      go(d + 1)
    end
  end
  go(1)
end

local binary = {
  { "add", function(a, b) return a + b end }, { "sub", function(a, b) return a - b end },
  { "mul", function(a, b) return a * b end }, { "div", function(a, b) return a / b end },
  { "maximum", math.max }, { "minimum", math.min },
  { "lt", function(a, b) return a < b and 1 or 0 end }, { "ge", function(a, b) return a >= b and 1 or 0 end },
}

local function permuted(t)
  if t:dim() < 2 then return t end
  local order = {}
  for d = 1, t:dim() do order[d] = t:dim() + 1 - d end
  return t:permute(order):contiguous():permute(order) -- same shape, other strides
end

function T.test_binary_operations_broadcast_like_loops()
  for _ = 1, 200 do
    local shape_a, shape_b = two_shapes()
    local a, b = check.randn(table.unpack(shape_a)), check.randn(table.unpack(shape_b))
    local ta, tb = a:totable(), b:totable()
    local op = binary[check.integer(1, #binary)]
    if check.integer(0, 1) == 1 then a = permuted(a) end
    local out = feral.ops[op[1]](a, b)
    local expected = {}
    each_index(out.shape, function(i)
      expected[#expected + 1] = op[2](at(ta, shape_a, i), at(tb, shape_b, i))
    end)
    check.close(out, expected, 1e-6, op[1])
  end
end

local unary = {
  exp = math.exp, log = math.log, sqrt = math.sqrt, abs = math.abs, sin = math.sin, cos = math.cos, floor = math.floor,
  tanh = function(x) local e = math.exp(2 * x) return (e - 1) / (e + 1) end,
  sigmoid = function(x) return 1 / (1 + math.exp(-x)) end,
  neg = function(x) return -x end,
}

function T.test_unary_operations()
  for name, f in pairs(unary) do
    for n = 1, 40 do
      local x = check.randn(n) * 3
      if name == "log" or name == "sqrt" then x = x:abs() + 0.1 end
      local expected = {}
      for i, v in ipairs(x:totable()) do expected[i] = f(v) end
      check.close(feral.ops[name](x), expected, 1e-6, name)
    end
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
  for name, f in pairs(functions) do check.gradients(f, { check.randn(3, 4) }, 1e-6, name) end
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

function T.test_matmul_of_odd_shapes_and_strides()
  for _ = 1, 200 do
    local m, k, n = check.integer(1, 12), check.integer(1, 12), check.integer(1, 12)
    local a, b = check.randn(m, k), check.randn(k, n)
    local ta, tb, expected = a:totable(), b:totable(), {}
    for i = 1, m do
      for j = 1, n do
        local sum = 0
        for l = 1, k do sum = sum + ta[i][l] * tb[l][j] end
        expected[#expected + 1] = sum
      end
    end
    if check.integer(0, 1) == 1 then a = permuted(a) end
    if check.integer(0, 1) == 1 then b = tensor.cat({ b, b }, 2):narrow(2, 1, n) end
    check.close(a:matmul(b), expected, 1e-5)
  end
end

function T.test_sums_extremes_sorting()
  for _ = 1, 200 do
    local shape = { check.integer(1, 6), check.integer(1, 7), check.integer(1, 5) }
    local x = permuted(check.randn(table.unpack(shape)))
    local t, dim = x:totable(), check.integer(1, 3)
    local out_shape = { table.unpack(shape) }
    out_shape[dim] = 1
    local sums, largest, where = {}, {}, {}
    each_index(out_shape, function(i)
      local sum, best, place = 0, -math.huge, 0
      for k = 1, shape[dim] do
        local j = { i[1], i[2], i[3] }
        j[dim] = k
        local v = t[j[1]][j[2]][j[3]]
        sum = sum + v
        if v > best then best, place = v, k end
      end
      sums[#sums + 1], largest[#largest + 1], where[#where + 1] = sum, best, place
    end)
    local value, position = x:max(dim)
    check.close(x:sum(dim), sums, 1e-5)
    check.close(value, largest, 0)
    lu.assertEquals(check.flat(position), where)
  end
  local value, position = tensor({ 3, 1, 2 }):sort()
  lu.assertEquals({ value:totable(), position:totable() }, { { 1, 2, 3 }, { 2, 3, 1 } })
  lu.assertEquals(tensor({ 3, 1, 2 }):topk(2):totable(), { 3, 2 })
  lu.assertEquals(tensor({ { 1, 2 }, { 3, 4 } }):cumsum(1):totable(), { { 1, 2 }, { 4, 6 } })
end

function T.test_a_big_sum_does_not_depend_on_threads_or_lose_digits()
  local x = tensor.full({ 1000003 }, 0.1)
  lu.assertAlmostEquals(x:sum():item() / 1000003, x[1]:item(), 1e-8)
end

function T.test_conversions_clamp_and_round()
  lu.assertEquals(tensor({ -1, 0.4, 0.6, 254.6, 300, 0 / 0 }):to("u8"):totable(), { 0, 0, 1, 255, 255, 0 })
  lu.assertEquals((tensor({ 1, 2 }, "u8") + tensor({ 255, 3 }, "u8")):totable(), { 256, 5 })
  lu.assertEquals(tensor({ 1, 2, 3 }, "i32"):eq(2):totable(), { 0, 1, 0 })
end

function T.test_messages_name_operation_and_shapes()
  local a, b = tensor.zeros(2, 3), tensor.zeros(4, 3)
  lu.assertStrContains(check.message(function() return a + b end), "add: shapes 2x3 and 4x3 do not broadcast")
  lu.assertStrContains(check.message(function() return a:matmul(b) end), "matmul: shapes 2x3 and 4x3 do not fit")
  lu.assertStrContains(check.message(function() return a:reshape(5) end), "reshape: 2x3 has 6 elements, the new sizes make 5")
  lu.assertStrContains(check.message(function() return a[3] end), "index 3 is outside of dimension 1 of 2x3")
  lu.assertStrContains(check.message(function() return a:sum(3) end), "dimension 3 does not exist: the tensor is 2x3")
  lu.assertStrContains(check.message(function() return a:narrow(2, 2, 3) end), "pass the end of dimension 2 of 2x3")
  lu.assertStrContains(check.message(function() return a + "x" end), "add: operand 2 must be a tensor or a number, got string")
  lu.assertStrContains(check.message(function() return tensor.cat { a, tensor.zeros(2, 4) } end), "cat: tensor 2 is 2x4")
  lu.assertStrContains(check.message(function() return tensor { { 1, 2 }, { 3 } } end), "rows of different lengths")
  lu.assertStrContains(check.message(function() return tensor({ 300 }, "u8") end), "does not fit into dtype u8")
  lu.assertStrContains(check.message(function() return a.no_such_field.x end), "nil value")
end

function T.test_survives_lack_of_memory()
  local a, b = check.randn(5, 6), check.randn(6, 5)
  check.survives_lack_of_memory(function()
    local _s <close> = tensor.scope()
    return (a:matmul(b) + 1):tanh():sum(1):sort()
  end)
end

return T
