local lu = require "luaunit"
local feral = require "feral"
local check, arrays, layouts, bits = require "check", require "arrays", require "layouts", require "bits"
local tensor = feral.tensor

local T = {}

local function naive(a, b, batch, m, k, n)
  local list = {}
  for p = 0, batch - 1 do
    for i = 0, m - 1 do
      for j = 1, n do
        local sum = 0
        for l = 0, k - 1 do sum = sum + a[(p * m + i) * k + l + 1] * b[(p * k + l) * n + j] end
        list[#list + 1] = sum
      end
    end
  end
  return list
end

--- Matrices of odd sizes, lying in memory in any way: transposed, with gaps, expanded.
function T.test_products_of_odd_shapes_and_strides()
  for i = 1, check.SHAPES do
    local _open <close> = tensor.scope()
    local m, k, n = check.integer(1, 13), check.integer(1, 13), check.integer(1, 13)
    local batch = i % 2 == 0 and check.integer(1, 4) or nil
    local function matrix(rows, columns)
      local t = batch and check.randn(batch, rows, columns) or check.randn(rows, columns)
      if check.integer(1, 8) == 1 then t = t:narrow(-2, 1, 1):expand(t.shape) end
      if check.integer(1, 8) == 1 then t = t:narrow(-1, 1, 1):expand(t.shape) end
      return layouts.vary(t), arrays.flat(t)
    end
    local a, left = matrix(m, k)
    local b, right = matrix(k, n)
    local c = a:matmul(b)
    lu.assertEquals(c.shape, batch and { batch, m, n } or { m, n })
    check.close(c, naive(left, right, batch or 1, m, k, n), 1e-5)
  end
end

function T.test_large_products_agree_with_sums()
  local a, b = check.randn(130, 70), check.randn(70, 90)
  check.close(a:matmul(b), (a:unsqueeze(3) * b:unsqueeze(1)):sum(2), 1e-4)
end

function T.test_gradients_of_transposed_and_batched_products()
  check.gradients(function(a, b) return a:transpose():matmul(b:transpose()) end, { check.randn(4, 2), check.randn(3, 4) })
  check.gradients(function(a, b) return a:permute(2, 1, 3):matmul(b) end, { check.randn(3, 2, 4), check.randn(2, 4, 5) })
  check.gradients(function(a) return a:matmul(a) end, { check.randn(3, 3) })
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local a, b = check.randn(257, 129), check.randn(129, 65)
    show(a:matmul(b), b:transpose():matmul(a:transpose()), check.randn(9, 33, 17):matmul(check.randn(9, 17, 31)))]]
end

function T.test_messages()
  local a = tensor.zeros(2, 3)
  local hint = " do not fit: m x k and k x n expected, or a batch of them"
  local cases = {
    { function() a:matmul(tensor.zeros(2, 3)) end, "matmul: shapes 2x3 and 2x3" .. hint },
    { function() a:matmul(tensor.zeros(3)) end, "matmul: shapes 2x3 and 3" .. hint },
    { function() a:unsqueeze(1):matmul(tensor.zeros(2, 3, 4)) end, "matmul: shapes 1x2x3 and 2x3x4" .. hint },
    { function() a:matmul(5) end, "matmul: b must be a tensor, got number" },
    { function() a:matmul(tensor.zeros({ 3, 2 }, "u8")) end, "matmul: b must be " .. a.dtype .. ", got u8" },
  }
  for _, case in ipairs(cases) do
    lu.assertStrMatches(check.message(case[1]), "^tests/tensor/test_matmul.lua:%d+: " .. case[2]:gsub("%p", "%%%0") .. "$")
  end
end

function T.test_survives_lack_of_memory()
  local a, b = check.randn(2, 5, 6), check.randn(2, 7, 6)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    a:matmul(b:transpose())
  end)
end

return T
