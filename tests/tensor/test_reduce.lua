local lu = require "luaunit"
local feral = require "feral"
local check, arrays, bits = require "check", require "arrays", require "bits"
local tensor = feral.tensor

local T = {}

local REAL = check.is_double and "f64" or "f32"

--- The lines of a shape along dimension d (nil: all numbers are one line), each a list of places in the flat list, and the
--- shape of what they are reduced to.
local function lines_of(shape, d, keep)
  if not d then
    local all, ones = {}, {}
    for i = 1, arrays.count(shape) do all[i] = i end
    for i = 1, #shape do ones[i] = 1 end
    return { all }, keep and ones or {}
  end
  local rest, lines = arrays.with(shape, d, 1), {}
  arrays.each(rest, function(indices)
    local line = {}
    for k = 1, shape[d] do line[k] = arrays.place(shape, arrays.with(indices, d, k)) end
    lines[#lines + 1] = line
  end)
  if not keep then table.remove(rest, d) end
  return lines, rest
end

local function mean_of(line, flat)
  local sum = 0
  for _, place in ipairs(line) do sum = sum + flat[place] end
  return sum / #line
end

local function variance_of(line, flat, n)
  local mean, sum = mean_of(line, flat), 0
  for _, place in ipairs(line) do sum = sum + (flat[place] - mean) ^ 2 end
  return sum / n
end

--- Position in its line of the largest (sign 1) or smallest (-1).
local function extreme_of(line, flat, sign)
  local best = 1
  for k, place in ipairs(line) do
    if sign * flat[place] > sign * flat[line[best]] then best = k end
  end
  return best
end

local function each_line(lines, f)
  local list = {}
  for i, line in ipairs(lines) do list[i] = f(line) end
  return list
end

function T.test_reductions_of_odd_shapes_over_any_dimension()
  for i = 1, check.SHAPES do
    local _open <close> = tensor.scope()
    local shape = arrays.shape(1, 5)
    local t, flat = arrays.random(shape, ({ REAL, REAL, "u8", "i32" })[i % 4 + 1])
    local d, keep = i % 5 > 0 and check.integer(1, #shape) or nil, check.integer(0, 1) == 1
    local lines, out = lines_of(shape, d, keep)
    local dim = d and (check.integer(0, 1) == 1 and d or d - #shape - 1) or nil
    local function expect(got, f, tolerance, what)
      lu.assertEquals(got.shape, out, what)
      check.close(got, each_line(lines, f), tolerance, what)
    end
    expect(t:sum(dim, keep), function(line) return mean_of(line, flat) * #line end, 1e-5, "sum")
    expect(t:mean(dim, keep), function(line) return mean_of(line, flat) end, 1e-5, "mean")
    expect(t:var(dim, keep, true), function(line) return variance_of(line, flat, #line) end, 1e-4, "biased var")
    if #lines[1] > 1 then
      expect(t:var(dim, keep), function(line) return variance_of(line, flat, #line - 1) end, 1e-4, "var")
      expect(t:std(dim, keep), function(line) return variance_of(line, flat, #line - 1) ^ 0.5 end, 1e-4, "std")
    end
    for name, sign in pairs { max = 1, min = -1 } do
      local value, position = t[name](t, dim, keep)
      expect(value, function(line) return flat[line[extreme_of(line, flat, sign)]] end, 0, name)
      local function place(line) return extreme_of(line, flat, sign) end
      lu.assertEquals(position.dtype, "i32")
      expect(position, place, 0, name)
      expect(t["arg" .. name](t, dim, keep), place, 0, "arg" .. name)
    end
  end
end

function T.test_what_is_no_number_wins_and_the_first_of_equals()
  local nan = 0 / 0
  local t = tensor { { 1, nan, 3 }, { 2, 2, 1 }, { nan, nan, 5 } }
  local value, position = t:max(2)
  lu.assertTrue(value[1]:item() ~= value[1]:item() and value[3]:item() ~= value[3]:item())
  lu.assertEquals(position:totable(), { 2, 1, 1 })
  lu.assertEquals(select(2, t:min(2)):totable(), { 2, 3, 1 })
  lu.assertTrue(t:sum():item() ~= t:sum():item())
  value, position = tensor({ -math.huge, -math.huge }):max()
  lu.assertEquals({ value:item(), position:item() }, { -math.huge, 1 })
end

function T.test_i32_is_exact()
  local t = tensor({ { 16777216, 16777217, 5 }, { -16777217, -16777216, 0 } }, "i32")
  local function assert_is(got, expected) lu.assertEquals({ got.dtype, got:totable() }, { "i32", expected }) end
  assert_is((t:max()), 16777217)
  assert_is((t:min(2)), { 5, -16777217 })
  assert_is(t:argmax(2), { 2, 3 })
  assert_is(t:argmin(), 4)
  assert_is(t:sum(2), { 33554438, -33554433 })
  assert_is(t:sum(1, true), { { -1, 1, 5 } })
  assert_is(t:sum(), 5)
  assert_is(t:transpose():max(1), { 16777217, 0 })
  lu.assertEquals(t:mean().dtype, REAL)
  lu.assertEquals(tensor({ 2147483647, 2147483647 }, "i32"):mean():item(), tensor(2147483647):item())
  lu.assertStrContains(check.message(function() tensor({ 2147483647, 1 }, "i32"):sum() end),
    "sum: a sum passes what i32 holds; to(\"f32\") before, for one that is rounded")
end

function T.test_a_deviation_of_0_has_the_gradient_0()
  local x = tensor({ { 2, 2, 2 }, { 1, 2, 3 } }):requires_grad()
  local std = x:std(2)
  lu.assertEquals(std:totable(), { 0, 1 })
  std:sum():backward()
  check.close(x.grad, { 0, 0, 0, -0.5, 0, 0.5 })
  local equal = tensor.ones(4):requires_grad()
  equal:std(nil, false, true):backward()
  lu.assertEquals(equal.grad:totable(), { 0, 0, 0, 0 })
end

function T.test_counting_with_a_mask()
  local t = tensor { 3, 1, 2, 1 }
  lu.assertEquals(t:eq(1):sum():item(), 2)
  lu.assertEquals(t:gt(1):mean():item(), 0.5)
  lu.assertEquals(tensor({ 200, 100 }, "u8"):sum():item(), 300)
end

function T.test_a_single_number()
  lu.assertEquals({ tensor(3):sum():item(), tensor(3):mean():item(), tensor(3):max():item() }, { 3, 3, 3 })
  lu.assertEquals(tensor(3):sum(nil, true).shape, {})
end

function T.test_threads_and_lengths_do_not_show()
  bits.check_same [[
    local x = check.randn(3, 40001)
    show(x:sum(), x:sum(1), x:sum(2), x:mean(), x:std(), (x:max(1)), x:argmin(2), x:transpose():sum(2))]]
end

function T.test_a_long_sum_loses_no_digits()
  local x = tensor.full({ 1000003 }, 0.1)
  lu.assertAlmostEquals(x:sum():item() / 1000003, x[1]:item(), 1e-8)
  lu.assertAlmostEquals(x:reshape(1, 1000003):sum(2):item() / 1000003, x[1]:item(), 1e-8)
  lu.assertAlmostEquals(x:reshape(1000003, 1):expand(1000003, 2):sum(1)[1]:item() / 1000003, x[1]:item(), 1e-8)
end

function T.test_gradients()
  local functions = {
    function(x) return x:max(1) * 2 end, function(x) return (x:min(-1, true)) end, function(x) return x:var(2, true, true) end,
    function(x) return x:std(-2) end, function(x) return x:mean(3, true) end, function(x) return x:sum(1):sum(1) end,
  }
  for i, f in ipairs(functions) do check.gradients(f, { check.randn(2, 3, 4) }, 1e-6, "function " .. i) end
end

function T.test_messages()
  local t = tensor.zeros(2, 3)
  lu.assertStrMatches(check.message(t.sum, t, 3), ".*dimension 3 does not exist: the tensor is 2x3")
  lu.assertStrMatches(check.message(t.max, t, 0), ".*dimension 0 does not exist: the tensor is 2x3")
  lu.assertStrMatches(check.message(t.sum, t, "x"), ".*a dimension must be a whole number, got x")
  lu.assertStrMatches(check.message(t.sum, 5), ".*sum: x must be a tensor, got number")
end

function T.test_survives_lack_of_memory()
  local x = arrays.random { 3, 4, 5 }
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    x:sum(2):max(1)
    x:std(1, true)
    x:argmin()
  end)
end

return T
