local lu = require "luaunit"
local feral = require "feral"
local check, arrays, bits = require "check", require "arrays", require "bits"
local tensor, ops = feral.tensor, feral.ops

local T = {}

local REAL = check.is_double and "f64" or "f32"
local dtypes = { REAL, "u8", "i32" }

local function truth(condition) return condition and 1 or 0 end

--- Name, the same in Lua, what it gives ("u8": a truth value), whether the operands must be positive.
local binary = {
  { "add", function(a, b) return a + b end }, { "sub", function(a, b) return a - b end },
  { "mul", function(a, b) return a * b end }, { "div", function(a, b) return a / b end, REAL, true },
  { "pow", function(a, b) return a ^ b end, REAL, true }, { "maximum", math.max }, { "minimum", math.min },
  { "eq", function(a, b) return truth(a == b) end, "u8" }, { "ne", function(a, b) return truth(a ~= b) end, "u8" },
  { "lt", function(a, b) return truth(a < b) end, "u8" }, { "le", function(a, b) return truth(a <= b) end, "u8" },
  { "gt", function(a, b) return truth(a > b) end, "u8" }, { "ge", function(a, b) return truth(a >= b) end, "u8" },
}

--- An operand for 'shape': a tensor with some sides 1 or missing in front, or a number. Returns it, and f(indices) -> number.
local function operand(shape, positive)
  local function positive_of(t) return positive and t:abs() * 0.3 + 0.5 or t:round() end
  if check.integer(1, 6) == 1 then
    local value = check.integer(1, 3)
    return value, function() return value end
  end
  local own = { table.unpack(shape, check.integer(1, #shape)) }
  for d = 1, #own do
    if check.integer(1, 3) == 1 then own[d] = 1 end
  end
  local t = positive_of((arrays.random(own, dtypes[check.integer(1, 3)])):to(REAL))
  local flat = arrays.flat(t)
  return t, function(indices)
    local i = {}
    for d, size in ipairs(own) do i[d] = size == 1 and 1 or indices[d + #shape - #own] end
    return flat[arrays.place(own, i)]
  end, own
end

--- The shape that both have together.
local function joint(a, b)
  local out = {}
  for d = 1, math.max(#a, #b) do
    local x, y = a[#a - d + 1] or 1, b[#b - d + 1] or 1
    table.insert(out, 1, math.max(x, y))
  end
  return out
end

function T.test_binary_operations_of_odd_shapes()
  for i = 1, 13 * 25 do
    local _open <close> = tensor.scope()
    local name, f, dtype, positive = table.unpack(binary[i % #binary + 1], 1, 4)
    local shape = arrays.shape(1, 5, 4)
    local a, left, a_shape = operand(shape, positive)
    local b, right, b_shape = operand(shape, positive)
    local out = joint(a_shape or {}, b_shape or {})
    local skip = #shape - #out
    local got = ops[name](a, b)
    lu.assertEquals(got.shape, out, name)
    lu.assertEquals(got.dtype, dtype or REAL, name)
    check.close(got:to(REAL), arrays.build(out, function(indices)
      local whole = {}
      for d = 1, #shape do whole[d] = d > skip and indices[d - skip] or 1 end
      return f(left(whole), right(whole))
    end), 1e-5, name)
  end
end

--- An operation of i32s is that of Lua's integers.
function T.test_i32_is_exact()
  local a, b = tensor({ 16777217, -2147483648, 2147483647, 46341 }, "i32"), tensor({ 16777216, 0, -1, 46340 }, "i32")
  local function assert_is(got, dtype, expected) lu.assertEquals({ got.dtype, got:totable() }, { dtype, expected }) end
  assert_is(a:eq(b), "u8", { 0, 0, 0, 0 })
  assert_is(a:ne(16777216), "u8", { 1, 1, 1, 1 })
  assert_is(a:gt(b), "u8", { 1, 0, 1, 1 })
  assert_is(a:le(b), "u8", { 0, 1, 0, 0 })
  assert_is(a:lt(16777216.5), "u8", { 0, 1, 0, 1 })
  assert_is(a:eq(4294967296), "u8", { 0, 0, 0, 0 })
  assert_is(a:gt(tensor { 16777216 }), "u8", { 1, 0, 1, 0 })
  assert_is(tensor({ 7 }, "u8"):eq(tensor({ 7, 8 }, "i32")), "u8", { 1, 0 })
  assert_is(a:maximum(b), "i32", { 16777217, 0, 2147483647, 46341 })
  assert_is(a:minimum(16777217), "i32", { 16777217, -2147483648, 16777217, 46341 })
  assert_is(a:narrow(1, 1, 2) + b:narrow(1, 1, 2), "i32", { 33554433, -2147483648 })
  assert_is(b - a:clamp(-5, 50000), "i32", { 16727216, 5, -50001, -1 })
  assert_is(46340 * b:narrow(1, 3, 2), "i32", { -46340, 2147395600 })
  assert_is(1 - b, "i32", { -16777215, 1, 2, -46339 })
  assert_is(-b, "i32", { -16777216, 0, 1, -46340 })
  assert_is(tensor({ -16777217, 5 }, "i32"):abs(), "i32", { 16777217, 5 })
  assert_is(a:sign(), "i32", { 1, -1, 1, 1 })
  assert_is(a:round(), "i32", a:totable())
  assert_is(a:clamp(nil, 16777217), "i32", { 16777217, -2147483648, 16777217, 46341 })
  assert_is(b:clamp(0.5, 2), REAL, { 2, 0.5, 0.5, 2 })
  assert_is(b / 2, REAL, { 8388608, 0, -0.5, 23170 })
  assert_is(tensor({ 3, -2 }, "i32") ^ 2, REAL, { 9, 4 })
  assert_is(tensor({ 3, -2 }, "i32") + 0.5, REAL, { 3.5, -1.5 })
  assert_is(tensor({ 3, -2 }, "i32") * 2.0, REAL, { 6, -4 })
  assert_is(tensor({ 3 }, "i32") + tensor { 0.25, 1 }, REAL, { 3.25, 4 })
  local wide = tensor({ { 16777217, 1 }, { 2, 3 } }, "i32") -- lying otherwise, and broadcast
  assert_is(wide:transpose() + wide[1], "i32", { { 33554434, 3 }, { 16777218, 4 } })
  for _, f in ipairs {
    function() return a + 1 end, function() return a - 1 end, function() return b * a end, function() return -a end,
    function() return a:abs() end, function() return a + 4294967296 end,
  } do
    lu.assertStrContains(check.message(f), "a result passes what i32 holds; to(\"f32\") before")
  end
end

function T.test_i32_of_odd_shapes_against_integers_of_lua()
  local names = { add = function(x, y) return x + y end, sub = function(x, y) return x - y end,
    mul = function(x, y) return x * y end, maximum = math.max, minimum = math.min }
  for _ = 1, check.SHAPES do
    local shape = arrays.shape(1, 4)
    local a, left = arrays.random(shape, "i32")
    local b, right = arrays.random(shape, "i32")
    for name, f in pairs(names) do
      local expected = {}
      for i, v in ipairs(left) do expected[i] = f(v, right[i]) end
      local got = ops[name](a, b)
      lu.assertEquals(got.dtype, "i32")
      lu.assertEquals(arrays.flat(got), expected)
    end
  end
end

function T.test_whole_numbers_count_as_real()
  local bytes, whole = tensor({ 200, 3 }, "u8"), tensor({ -5, 100000 }, "i32")
  lu.assertEquals((bytes + bytes):totable(), { 400, 6 })
  lu.assertEquals((bytes - 201):totable(), { -1, -198 })
  lu.assertEquals((bytes / 2):totable(), { 100, 1.5 })
  lu.assertEquals((whole * bytes):totable(), { -1000, 300000 })
  lu.assertEquals((-bytes):totable(), { -200, -3 })
  lu.assertEquals(whole:abs():totable(), { 5, 100000 })
  lu.assertEquals((bytes + whole).dtype, REAL)
end

function T.test_operators_and_numbers_on_either_side()
  local t = tensor { 1, 2, 4 }
  for _, case in ipairs {
    { t + 1, { 2, 3, 5 } }, { 1 + t, { 2, 3, 5 } }, { t - 1, { 0, 1, 3 } }, { 1 - t, { 0, -1, -3 } }, { t * 3, { 3, 6, 12 } },
    { t / 2, { 0.5, 1, 2 } }, { 4 / t, { 4, 2, 1 } }, { t ^ 2, { 1, 4, 16 } }, { 2 ^ t, { 2, 4, 16 } }, { -t, { -1, -2, -4 } },
  } do
    lu.assertEquals(case[1]:totable(), case[2])
  end
  lu.assertEquals((tensor(3) + tensor(4)):item(), 7)
  lu.assertEquals(ops.add(1, 2):item(), 3)
end

function T.test_what_is_no_number_stays_so()
  local nan = 0 / 0
  for _, name in ipairs { "add", "mul", "maximum", "minimum" } do
    for _, case in ipairs { { nan, 1 }, { 1, nan } } do
      local value = ops[name](tensor(case[1]), case[2]):item()
      lu.assertTrue(value ~= value, name)
    end
  end
  lu.assertEquals(tensor({ nan, 1 }):isnan():totable(), { 1, 0 })
  lu.assertEquals(tensor({ nan, 1 }):eq(nan):totable(), { 0, 0 })
  local clamped = tensor({ nan }):clamp(0, 1):item()
  lu.assertTrue(clamped ~= clamped)
end

function T.test_rounding_and_signs()
  local t = tensor { -2.5, -1.5, -0.4, 0, 0.5, 1.5, 2.6 }
  lu.assertEquals(t:round():totable(), { -2, -2, 0, 0, 0, 2, 3 }) -- halves to the even neighbour
  lu.assertEquals(t:floor():totable(), { -3, -2, -1, 0, 0, 1, 2 })
  lu.assertEquals(t:ceil():totable(), { -2, -1, 0, 0, 1, 2, 3 })
  lu.assertEquals(t:sign():totable(), { -1, -1, -1, 0, 1, 1, 1 })
  check.close(t:abs(), { 2.5, 1.5, 0.4, 0, 0.5, 1.5, 2.6 }, 1e-6)
end

function T.test_clamp()
  local t = tensor { -2, 0, 3 }
  lu.assertEquals(t:clamp(-1, 2):totable(), { -1, 0, 2 })
  lu.assertEquals(t:clamp(nil, 1):totable(), { -2, 0, 1 })
  lu.assertEquals(t:clamp(-1):totable(), { -1, 0, 3 })
  lu.assertEquals(t:clamp(2, 1):totable(), { 1, 1, 1 }) -- as PyTorch's
end

function T.test_conversions_between_all_dtypes_in_any_layout()
  for i = 1, check.SHAPES do
    local from, to = dtypes[i % 3 + 1], dtypes[i // 3 % 3 + 1]
    local shape = arrays.shape(0, 5, 4)
    local t, flat = arrays.random(shape, from)
    local got = t:to(to)
    lu.assertEquals({ got.shape, got.dtype }, { shape, to })
    for k, v in ipairs(flat) do
      if to == "u8" then v = math.max(0, math.min(255, v)) end
      if to ~= REAL and from == REAL then -- to the nearest, halves to the even neighbour
        local low = math.floor(v)
        v = (v - low > 0.5 or (v - low == 0.5 and low % 2 == 1)) and low + 1 or low
      end
      flat[k] = v
    end
    check.close(got:to(REAL), flat, 0)
    lu.assertTrue(t:to(from) == t)
  end
  lu.assertEquals(tensor({ 3e9, -3e9, 0 / 0 }):to("i32"):totable(), { 2147483647, -2147483648, 0 })
  lu.assertEquals(tensor({ -7, 300 }, "i32"):to("u8"):totable(), { 0, 255 })
end

function T.test_copy_converts_and_broadcasts()
  local t = tensor.zeros({ 2, 3 }, "u8")
  t:copy_(tensor { 1.4, 300, -2 })
  lu.assertEquals(t:totable(), { { 1, 255, 0 }, { 1, 255, 0 } })
  lu.assertEquals(tensor.zeros(2):copy_(tensor({ 7 }, "i32")):totable(), { 7, 7 })
end

function T.test_gradients_of_equal_numbers()
  for _, name in ipairs { "maximum", "minimum" } do
    local a, b = tensor({ 1, 2, 3 }):requires_grad(), tensor({ 1, 3, 2 }):requires_grad()
    a[name](a, b):sum():backward()
    local first = name == "maximum" and { 0.5, 0, 1 } or { 0.5, 1, 0 } -- PyTorch's halves
    lu.assertEquals(a.grad:totable(), first)
    lu.assertEquals(b.grad:totable(), { 0.5, 1 - first[2], 1 - first[3] })
  end
  local x = tensor({ -1, 0, 1 }):requires_grad()
  x:maximum(0):sum():backward()
  lu.assertEquals(x.grad:totable(), { 0, 0.5, 1 })
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local a, b = check.randn(301, 257), check.randn(257)
    show(a + b, a * a, a / (b * b + 1), a:exp(), a:tanh(), a:sigmoid(), a:transpose() - 1, (a * a + 1):log())]]
end

function T.test_messages()
  local t = tensor.zeros(2, 3)
  local cases = {
    { function() return t + tensor.zeros(4, 3) end, "add: shapes 2x3 and 4x3 do not broadcast" },
    { function() return t * "x" end, "mul: operand 2 must be a tensor or a number, got string" },
    { function() return {} - t end, "sub: operand 1 must be a tensor or a number, got table" },
    { function() ops.exp() end, "exp: operand 1 must be a tensor or a number, got nil" },
    { function() t:add_(tensor.zeros(2, 3, 3)) end, "add_: shape 2x3x3 does not broadcast to 2x3" },
    { function() t:mul_(tensor.zeros(4)) end, "mul_: shape 4 does not broadcast to 2x3" },
    { function() t:to("u8"):add_(1) end, "argument 1 is a tensor of u8, " .. REAL .. " expected" },
    { function() t:copy_(tensor.zeros(3, 3)) end, "copy_: shape 3x3 does not broadcast to 2x3" },
    { function() t:to("i64") end, "dtype 'i64' is unknown: f32, u8 or i32" },
  }
  for _, case in ipairs(cases) do
    lu.assertStrMatches(check.message(case[1]), "^tests/tensor/test_arith.lua:%d+: " .. case[2]:gsub("%p", "%%%0") .. "$")
  end
end

function T.test_survives_lack_of_memory()
  local x, bytes = arrays.random { 3, 4 }, tensor({ 1, 2, 3, 4 }, "u8")
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    local y = (x + bytes) * bytes:to("i32")
    y:add_(y:narrow(1, 1, 1))
    y:gt(0):to("f32"):clamp(0, 1)
  end)
end

return T
