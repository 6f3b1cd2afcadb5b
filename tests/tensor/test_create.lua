local lu = require "luaunit"
local feral = require "feral"
local check, arrays = require "check", require "arrays"
local tensor = feral.tensor

local T = {}

local REAL = check.is_double and "f64" or "f32"

--- Nested tables of a shape whose numbers f gives.
local function nested(shape, f, d)
  d = d or 1
  if d > #shape then return f() end
  local rows = {}
  for i = 1, shape[d] do rows[i] = nested(shape, f, d + 1) end
  return rows
end

function T.test_tables_and_back()
  for i = 1, 240 do
    local shape, dtype = arrays.shape(0, 6, 4), ({ REAL, "u8", "i32" })[i % 3 + 1]
    local numbers, k = {}, 0
    local values = nested(shape, function()
      k = k + 1
      numbers[k] = dtype == REAL and check.integer(-100, 100) / 8 or check.integer(0, 255)
      return numbers[k]
    end)
    local t = tensor(values, dtype)
    lu.assertEquals(t.shape, shape)
    lu.assertEquals(t.dtype, dtype)
    lu.assertEquals(t:totable(), values)
    lu.assertEquals(math.type(arrays.flat(t)[1]), dtype == REAL and "float" or "integer")
    lu.assertEquals(arrays.flat(t), numbers)
  end
end

function T.test_bytes_and_back()
  local formats = { [REAL] = check.is_double and "<d" or "<f", u8 = "B", i32 = "<i4" }
  for i = 1, 240 do
    local shape, dtype = arrays.shape(0, 5, 4), ({ REAL, "u8", "i32" })[i % 3 + 1]
    local t, flat = arrays.random(shape, dtype)
    local parts = {}
    for k, v in ipairs(flat) do parts[k] = string.pack(formats[dtype], v) end
    local bytes = table.concat(parts)
    lu.assertTrue(t:tobytes() == bytes)
    local back = tensor.from_bytes(bytes, shape, dtype)
    lu.assertEquals({ back.shape, back.dtype, arrays.flat(back) }, { shape, dtype, flat })
  end
end

function T.test_constant_tensors_of_any_shape()
  for i = 1, 200 do
    local shape, dtype = arrays.shape(0, 6, 4), ({ REAL, "u8", "i32" })[i % 3 + 1]
    local made = { tensor.zeros(shape, dtype), tensor.ones(shape, dtype), tensor.full(shape, 7, dtype),
      tensor.zeros_like(tensor.empty(shape, dtype)), tensor.ones_like(tensor.empty(shape, dtype)) }
    for k, value in ipairs { 0, 1, 7, 0, 1 } do
      lu.assertEquals(made[k].shape, shape)
      lu.assertEquals(made[k].dtype, dtype)
      lu.assertEquals(arrays.flat(made[k]), arrays.build(shape, function() return value end))
    end
  end
  lu.assertEquals(tensor.zeros(2, 3, "u8").shape, { 2, 3 })
  lu.assertEquals(tensor.zeros(2, 3, "u8").dtype, "u8")
  lu.assertEquals(tensor.ones(2).dtype, REAL)
  lu.assertEquals(tensor.zeros().shape, {})
end

function T.test_a_tensor_of_a_tensor_is_a_copy()
  local t = tensor { 1, 2 }
  local copy = tensor(t)
  copy:add_(1)
  lu.assertEquals(t:totable(), { 1, 2 })
  lu.assertEquals(tensor(t, "u8").dtype, "u8")
end

function T.test_arange()
  lu.assertEquals(tensor.arange(4):totable(), { 1, 2, 3, 4 })
  lu.assertEquals(tensor.arange(0, 4):totable(), { 0, 1, 2, 3, 4 })
  lu.assertEquals(tensor.arange(1, 8, 3):totable(), { 1, 4, 7 })
  lu.assertEquals(tensor.arange(5, 1, -2):totable(), { 5, 3, 1 })
  lu.assertEquals(tensor.arange(3, 3):totable(), { 3 })
  for n = 2, 200 do -- the last number counts even where first + n * step is a little off it
    local t = tensor.arange(0, 1, 1 / n)
    lu.assertEquals(#t, n + 1)
    lu.assertAlmostEquals(t[-1]:item(), 1, 1e-6)
    lu.assertEquals(#tensor.arange(-1, 1 - 0.5 / n, 1 / n), 2 * n)
  end
end

function T.test_linspace()
  for n = 2, 200 do
    local first, last = check.integer(-50, 50) / 7, check.integer(-50, 50) / 7
    local list = tensor.linspace(first, last, n):totable()
    lu.assertEquals(#list, n)
    lu.assertEquals({ list[1], list[n] }, tensor({ first, last }):totable())
    for i = 1, n do lu.assertAlmostEquals(list[i], first + (last - first) * (i - 1) / (n - 1), 1e-5) end
  end
  lu.assertEquals(tensor.linspace(3, 9, 1):totable(), { 3 })
end

function T.test_eye()
  for n = 1, 20 do
    lu.assertEquals(arrays.flat(tensor.eye(n)), arrays.build({ n, n }, function(i) return i[1] == i[2] and 1 or 0 end))
  end
end

function T.test_item()
  lu.assertEquals(tensor({ { 5 } }, "u8"):item(), 5)
  lu.assertEquals(tensor(-2.5):item(), -2.5)
end

function T.test_one_hot()
  lu.assertEquals(tensor({ 2, 1, 3 }, "i32"):one_hot(3):totable(), { { 0, 1, 0 }, { 1, 0, 0 }, { 0, 0, 1 } })
end

function T.test_messages()
  local cases = {
    { function() tensor {} end, "a tensor cannot be made of an empty table" },
    { function() tensor { {}, {} } end, "a tensor cannot be made of an empty table" },
    { function() tensor { 1, "2" } end, "a tensor is made of numbers, got string" },
    { function() tensor { 1, { 2 } } end, "a tensor is made of numbers, got table" },
    { function() tensor { { 1 }, 2 } end,
      "rows of different lengths: dimension 2 has 1 elements in one and number in another" },
    { function() tensor { { 1, 2 }, { 3 } } end,
      "rows of different lengths: dimension 2 has 2 elements in one and 1 in another" },
    { function() tensor { { { { { { { 1 } } } } } } } end, "a tensor has at most 6 dimensions" },
    { function() tensor("x") end, "tensor: a table of numbers expected, got string" },
    { function() tensor() end, "tensor: a table of numbers expected, got nil" },
    { function() tensor({ 1 }, "f16") end, "dtype 'f16' is unknown: f32, u8 or i32" },
    { function() tensor({ 256 }, "u8") end, "the number 256.0 does not fit into dtype u8" },
    { function() tensor({ -1 }, "u8") end, "the number -1.0 does not fit into dtype u8" },
    { function() tensor.full({ 2 }, 1e10, "i32") end, "the number 10000000000.0 does not fit into dtype i32" },
    { function() tensor.zeros(2, 0) end, "a size must be 1 or more, got 0" },
    { function() tensor.zeros(2, "x", 3) end, "a size must be a whole number, got x" },
    { function() tensor.zeros(1.5) end, "a size must be a whole number, got 1.5" },
    { function() tensor.zeros(1, 1, 1, 1, 1, 1, 1) end, "a tensor has at most 6 dimensions, got 7 sizes" },
    { function() tensor.zeros(2147483647, 2147483647, 2147483647) end, "a tensor of that size does not fit in memory" },
    { function() tensor.from_bytes("abc", { 2 }, "u8") end, "from_bytes: shape 2 of u8 takes 2 bytes, got 3" },
    { function() tensor.from_bytes("", { 1 }, "i32") end, "from_bytes: shape 1 of i32 takes 4 bytes, got 0" },
    { function() tensor.from_bytes("a", { 1000000, 1000000 }, "u8") end,
      "from_bytes: shape 1000000x1000000 of u8 takes 1000000000000 bytes, got 1" },
    { function() tensor.arange(1, 5, 0) end, "arange: the step must not be 0" },
    { function() tensor.arange(5, 1) end, "arange: no number lies between 5 and 1 by 1" },
    { function() tensor.arange(1, math.huge) end, "arange: finite numbers expected, got 1, inf and 1" },
    { function() tensor.arange("x") end, "arange: finite numbers expected, got 1, x and 1" },
    { function() tensor.linspace(1, 2, 0) end, "linspace: the count must be a whole number from 1 on, got 0" },
    { function() tensor.linspace(1, 2) end, "linspace: the count must be a whole number from 1 on, got nil" },
    { function() tensor.rand(2, 3, "u8") end, "rand: random numbers are f32, not u8" },
    { function() tensor.zeros(2, 2):item() end, "item: the tensor must have one element, got 2x2" },
    { function() tensor({ 4 }, "i32"):one_hot(3) end, "one_hot: position 4 (element 1) is outside of 1..3" },
    { function() tensor({ { 1 } }, "i32"):one_hot(3) end, "one_hot: labels must have 1 dimension, got 1x1" },
  }
  for _, case in ipairs(cases) do
    lu.assertStrMatches(check.message(case[1]), "^tests/tensor/test_create.lua:%d+: " .. case[2]:gsub("%p", "%%%0") .. "$")
  end
end

function T.test_what_is_no_number_does_not_fit_into_whole_numbers()
  lu.assertStrContains(check.message(function() tensor({ 0 / 0 }, "i32") end), "nan does not fit into dtype i32")
end

function T.test_survives_lack_of_memory()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    tensor({ { 1, 2 }, { 3, 4 } }):totable()
    tensor.from_bytes(tensor.arange(8):tobytes(), { 2, 4 })
    tensor.linspace(0, 1, 5)
    tensor.eye(3)
    tensor.randperm(5)
  end)
end

return T
