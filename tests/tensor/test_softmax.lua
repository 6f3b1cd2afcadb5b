local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local tensor = feral.tensor

local T = {}

--- The flat list of softmax (or its logarithm) over dimension dim of a flat row-major list.
local function naive(values, sizes, dim, logarithm)
  local inner, out = 1, {}
  for d = dim + 1, #sizes do inner = inner * sizes[d] end
  for start = 0, #values - 1 do
    if start // inner % sizes[dim] == 0 then
      local most, sum = -math.huge, 0
      for i = 0, sizes[dim] - 1 do most = math.max(most, values[start + i * inner + 1]) end
      for i = 0, sizes[dim] - 1 do sum = sum + math.exp(values[start + i * inner + 1] - most) end
      for i = 0, sizes[dim] - 1 do
        local z = values[start + i * inner + 1] - most - math.log(sum)
        out[start + i * inner + 1] = logarithm and z or math.exp(z)
      end
    end
  end
  return out
end

function T.test_values_along_every_dimension_in_odd_shapes_and_layouts()
  for _ = 1, check.SHAPES do
    local sizes = {}
    for d = 1, check.integer(1, 5) do sizes[d] = check.integer(1, 9) end
    local dim = check.integer(1, #sizes)
    local x = check.randn(table.unpack(sizes)) * 4
    check.close(layouts.vary(x):softmax(dim), naive(check.flat(x), sizes, dim, false), 2e-6)
    check.close(layouts.vary(x):log_softmax(dim - #sizes - 1), naive(check.flat(x), sizes, dim, true), 2e-6)
  end
end

function T.test_a_line_is_the_same_wherever_it_lies()
  local x = check.randn(5, 7, 3, 2)
  local expected = x:softmax(2)
  lu.assertEquals(x:as_image():softmax(2):tobytes(), expected:tobytes())
  lu.assertEquals(x:transpose(2, 4):softmax(4):transpose(2, 4):tobytes(), expected:tobytes())
end

function T.test_gradients()
  for dim = 1, 3 do
    check.gradients(function(x) return x:softmax(dim) end, { check.randn(3, 5, 2) })
    check.gradients(function(x) return x:log_softmax(dim) end, { check.randn(3, 5, 2) })
  end
  check.gradients(function(x) return x:as_image():softmax(2) end, { check.randn(2, 3, 2, 3) })
  check.gradients(function(x) return x:log_softmax(1):select(2, 1) end, { check.randn(4, 3) })
  check.gradients(function(x) return x:transpose():softmax(2):sum(1) end, { check.randn(4, 3) })
end

function T.test_large_scores_do_not_overflow()
  check.close(tensor { 1e30, -1e30, 1e30 }:softmax(1), { 0.5, 0, 0.5 })
  check.close(tensor { 1000, 0 }:log_softmax(1), { 0, -1000 })
end

function T.test_nan_spoils_its_own_line_alone()
  local y = tensor { { 1, 0 / 0 }, { 1, 2 } }:softmax(2)
  lu.assertEquals(y:isnan():totable(), { { 1, 1 }, { 0, 0 } })
end

function T.test_a_score_of_minus_infinity_has_no_part()
  local inf = math.huge
  for _, classes in ipairs { 3, 40 } do -- masked scores behind two others
    local x = tensor.full({ classes }, -inf)
    x[1], x[2] = 0, math.log(3)
    x:requires_grad()
    local y, z = x:softmax(1), x:log_softmax(1)
    check.close(y:narrow(1, 1, 2), { 0.25, 0.75 })
    check.close(z:narrow(1, 1, 2), { math.log(0.25), math.log(0.75) })
    for i = 3, classes do lu.assertEquals({ y[i]:item(), z[i]:item() }, { 0, -inf }) end
    y[1]:backward()
    check.close(x.grad:narrow(1, 1, 2), { 0.1875, -0.1875 })
    lu.assertEquals(x.grad:narrow(1, 3, classes - 2):abs():sum():item(), 0)
    x:zero_grad()
    z[1]:backward()
    check.close(x.grad:narrow(1, 1, 2), { 0.75, -0.75 })
    lu.assertEquals(x.grad:narrow(1, 3, classes - 2):abs():sum():item(), 0)
  end
  local none = tensor({ -inf, -inf }):softmax(1):totable()
  lu.assertTrue(none[1] ~= none[1] and none[2] ~= none[2]) -- as PyTorch's
end

function T.test_messages()
  local x = tensor.zeros(2, 3)
  lu.assertStrContains(check.message(function() x:softmax(3) end), "dimension 3 does not exist: the tensor is 2x3")
  lu.assertStrContains(check.message(function() x:softmax() end), "softmax: which dimension? x:softmax(2)")
  lu.assertStrContains(check.message(function() tensor.zeros(2, "i32"):log_softmax(1) end), "log_softmax: x must be f")
end

function T.test_survives_lack_of_memory()
  local x = check.randn(3, 4):requires_grad()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    x:transpose():softmax(1):log_softmax(2):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local x = check.randn(2, 33, 31, 29):requires_grad()
    for dim = 1, 4 do
      local y = x:as_image():softmax(dim):log_softmax(dim)
      x:zero_grad()
      y:backward(check.randn(2, 33, 31, 29))
      show(y, x.grad)
    end
  ]]
end

return T
