local lu = require "luaunit"
local feral = require "feral"
local check, arrays = require "check", require "arrays"
local tensor, index = feral.tensor, require "feral.core.index"

local T = {}

local REAL = check.is_double and "f64" or "f32"
local dtypes = { REAL, "u8", "i32" }

local function assert_array(t, shape, flat, what)
  lu.assertEquals(t.shape, shape, what)
  lu.assertTrue(table.concat(arrays.flat(t), " ") == table.concat(flat, " "), what)
end

--- Runs f for 200 random shapes, with a dimension of each.
local function many(most, f)
  for i = 1, check.SHAPES do
    local _open <close> = tensor.scope()
    local shape = arrays.shape(1, most)
    f(shape, check.integer(1, #shape), i)
  end
end

--- Random positions 1..n of a shape.
local function positions(shape, n)
  return (tensor.full(shape, 1, "i32")), arrays.build(shape, function() return check.integer(1, n) end)
end

local function fill(t, list)
  return tensor(list, t.dtype):reshape(t.shape)
end

function T.test_cat()
  many(4, function(shape, d, i)
    local dtype, parts, whole = dtypes[i % 3 + 1], {}, { table.unpack(shape) }
    local lists, starts = {}, {}
    whole[d] = 0
    for k = 1, check.integer(1, 4) do
      local size = arrays.with(shape, d, check.integer(1, 4))
      parts[k], lists[k] = arrays.random(size, dtype)
      for _ = 1, size[d] do starts[#starts + 1] = { k, whole[d], size } end
      whole[d] = whole[d] + size[d]
    end
    local expected = arrays.build(whole, function(indices)
      local k, start, size = table.unpack(starts[indices[d]])
      return lists[k][arrays.place(size, arrays.with(indices, d, indices[d] - start))]
    end)
    assert_array(tensor.cat(parts, d), whole, expected)
    assert_array(tensor.cat(parts, d - #shape - 1), whole, expected)
    if d == 1 then assert_array(tensor.cat(parts), whole, expected) end
  end)
end

function T.test_stack()
  many(4, function(shape, _, i)
    local parts, lists = {}, {}
    for k = 1, check.integer(1, 4) do parts[k], lists[k] = arrays.random(shape, dtypes[i % 3 + 1]) end
    local d = check.integer(1, #shape + 1)
    local whole = { table.unpack(shape) }
    table.insert(whole, d, #parts)
    local expected = arrays.build(whole, function(indices)
      local rest = { table.unpack(indices) }
      return lists[table.remove(rest, d)][arrays.place(shape, rest)]
    end)
    assert_array(tensor.stack(parts, d), whole, expected)
    assert_array(tensor.stack(parts, d - #shape - 2), whole, expected)
  end)
end

function T.test_index_select_and_its_reverse()
  many(4, function(shape, d, i)
    local t, flat = arrays.random(shape, dtypes[i % 3 + 1])
    local p, list = positions({ check.integer(1, 6) }, shape[d])
    local picked = arrays.with(shape, d, #list)
    local expected = arrays.build(picked, function(indices)
      return flat[arrays.place(shape, arrays.with(indices, d, list[indices[d]]))]
    end)
    assert_array(t:index_select(d, fill(p, list)), picked, expected)
    local y, added = arrays.random(picked)
    local sums = {}
    for k = 1, arrays.count(shape) do sums[k] = 1 end
    arrays.each(picked, function(indices)
      local place = arrays.place(shape, arrays.with(indices, d, list[indices[d]]))
      sums[place] = sums[place] + added[arrays.place(picked, indices)]
    end)
    check.close(index.index_add_(tensor.ones(shape), d, fill(p, list), y), sums, 1e-5)
  end)
end

function T.test_gather_and_scatter()
  many(4, function(shape, d)
    local t, flat = arrays.random(shape)
    local picked = arrays.with(shape, d, check.integer(1, 6))
    local p, list = positions(picked, shape[d])
    local function source(indices) return arrays.place(shape, arrays.with(indices, d, list[arrays.place(picked, indices)])) end
    local at = fill(p, list)
    if check.integer(1, 2) == 1 and #picked > 1 then at = at:transpose(1, 2):contiguous():transpose(1, 2) end
    assert_array(t:gather(d, at), picked, arrays.build(picked, function(indices) return flat[source(indices)] end))
    local y, values = arrays.random(picked)
    local put, added = {}, {}
    for k = 1, #flat do put[k], added[k] = 2.0, 2.0 end
    arrays.each(picked, function(indices)
      local value = values[arrays.place(picked, indices)]
      put[source(indices)], added[source(indices)] = value, added[source(indices)] + value
    end)
    assert_array(index.scatter_(tensor.full(shape, 2), d, at, y), shape, put)
    check.close(index.scatter_add_(tensor.full(shape, 2), d, at, y), added, 1e-5)
  end)
end

function T.test_where_broadcasts()
  many(4, function(shape)
    local function some()
      if check.integer(1, 5) == 1 then return 3, nil, function() return 3 end end
      local own = { table.unpack(shape) }
      for k = 1, #own do if check.integer(1, 3) == 1 then own[k] = 1 end end
      local t, flat = arrays.random(own)
      return t, own, function(indices)
        local i = {}
        for k, size in ipairs(own) do i[k] = size == 1 and 1 or indices[k] end
        return flat[arrays.place(own, i)]
      end
    end
    local c, c_shape, condition = some()
    if not c_shape then c, c_shape = tensor.full(shape, 1), shape end
    local a, a_shape, left = some()
    local b, b_shape, right = some()
    local out = {}
    for d = 1, #shape do
      out[d] = math.max(c_shape[d], a_shape and a_shape[d] or 1, b_shape and b_shape[d] or 1)
    end
    local expected = arrays.build(out, function(i) return condition(i) > 0 and left(i) or right(i) end)
    check.close(tensor.where(c:gt(0), a, b), expected, 0)
  end)
end

--- Values and positions of a line in order; equal ones as they stood.
local function ordered(line, falling)
  local places = {}
  for k = 1, #line do places[k] = k end
  table.sort(places, function(x, y)
    if line[x] ~= line[y] then return (line[x] < line[y]) ~= falling end
    return x < y
  end)
  return places
end

function T.test_sort_and_topk()
  many(4, function(shape, _, i)
    local t = arrays.random(shape, dtypes[i % 3 + 1])
    if i % 2 == 0 and t.dtype == REAL then t = t:round() end -- with equal ones
    local flat, n = arrays.flat(t), shape[#shape]
    for _, falling in ipairs { false, true } do
      local values, places = {}, {}
      for start = 0, #flat - 1, n do
        local line = table.move(flat, start + 1, start + n, 1, {})
        for _, place in ipairs(ordered(line, falling)) do
          values[#values + 1], places[#places + 1] = line[place], place
        end
      end
      local v, p = t:sort(falling)
      lu.assertEquals(v.dtype, t.dtype)
      assert_array(v, shape, values)
      assert_array(p, shape, places)
      if falling then
        local k = check.integer(1, n)
        local top, at = t:topk(k)
        local part = arrays.with(shape, #shape, k)
        assert_array(top, part, arrays.flat(v:narrow(-1, 1, k)))
        assert_array(at, part, arrays.flat(p:narrow(-1, 1, k)))
      end
    end
  end)
  local v, p = tensor({ 1, 0 / 0, -1, 2 }):sort()
  lu.assertEquals(p:totable(), { 3, 1, 4, 2 }) -- what is no number comes last
  lu.assertTrue(v[4]:item() ~= v[4]:item())
  v, p = tensor({ 1, 0 / 0, -1, 2, 0 / 0 }):sort(true)
  lu.assertEquals(p:totable(), { 2, 5, 4, 1, 3 }) -- it is the largest
  lu.assertTrue(v[1]:item() ~= v[1]:item())
  lu.assertEquals(select(2, tensor({ 1, 0 / 0, 3 }):topk(2)):totable(), { 2, 3 })
end

--- Whole numbers that a float does not hold.
function T.test_whole_numbers_stay_exact()
  local large = tensor({ 16777217, 16777216, -16777219, 16777217 }, "i32")
  local function assert_ints(got, expected)
    lu.assertEquals({ got.dtype, got:totable() }, { "i32", expected })
  end
  assert_ints(large:sort(), { -16777219, 16777216, 16777217, 16777217 })
  assert_ints((large:topk(2)), { 16777217, 16777217 })
  assert_ints(select(2, large:sort(true)), { 1, 4, 2, 3 })
  assert_ints(large:gather(1, tensor({ 4, 3 }, "i32")), { 16777217, -16777219 })
  assert_ints(large:index_select(1, tensor({ 3 }, "i32")), { -16777219 })
  assert_ints(large:narrow(1, 1, 3):cumsum(1), { 16777217, 33554433, 16777214 })
  assert_ints(tensor.where(large:gt(0), large, -1), { 16777217, 16777216, -1, 16777217 })
  assert_ints(tensor.where(large:eq(16777217), 0, large), { 0, 16777216, -16777219, 0 })
  assert_ints(tensor.cat { large, large }:narrow(1, 4, 2), { 16777217, 16777217 })
  lu.assertEquals(tensor.where(large:gt(0), large, 0.5).dtype, REAL)
  lu.assertEquals(tensor.where(large:gt(0), tensor({ 1 }, "u8"), 0).dtype, REAL)
  assert_ints(tensor({ { 1, 2 }, { 3, 4 } }, "i32"):cumsum(2), { { 1, 3 }, { 3, 7 } })
end

function T.test_cumsum()
  many(4, function(shape, d)
    local t, flat = arrays.random(shape)
    local expected = arrays.build(shape, function(indices)
      local sum = 0
      for k = 1, indices[d] do sum = sum + flat[arrays.place(shape, arrays.with(indices, d, k))] end
      return sum
    end)
    check.close(t:cumsum(d), expected, 1e-5)
    check.close(t:cumsum(d - #shape - 1), expected, 1e-5)
  end)
end

function T.test_gradients()
  local p = tensor({ { 2, 2, 1 }, { 1, 3, 3 } }, "i32")
  check.gradients(function(x) return x:gather(2, p) end, { check.randn(2, 4) })
  check.gradients(function(x) return x:cumsum(2) end, { check.randn(2, 4, 3) })
  check.gradients(function(x) return x:cumsum(-1) end, { check.randn(3) })
  check.gradients(function(x) return (x:sort()) end, { check.randn(3, 5) })
  check.gradients(function(x) return (x:sort(true)) end, { check.randn(3, 5) })
  check.gradients(function(x) return (x:topk(2)) end, { check.randn(2, 3, 5) })
  check.gradients(function(a, b) return tensor.where(tensor { { 1, 0, 1 } }, a, b) end, { check.randn(2, 3), check.randn(3) })
end

function T.test_messages()
  local t, wide = tensor.zeros(2, 3), tensor.zeros(4, 5)
  local function i32(list) return tensor(list, "i32") end
  local cases = {
    { function() tensor.cat {} end, "cat: no tensors given" },
    { function() tensor.cat({ t, tensor.zeros(2, 3, "u8") }) end,
      "cat: tensor 2 is 2x3 of u8, the first 2x3 of " .. REAL .. ": they may differ in dimension 1 alone" },
    { function() tensor.cat({ t, wide }, 2) end,
      "cat: tensor 2 is 4x5 of " .. REAL .. ", the first 2x3 of " .. REAL .. ": they may differ in dimension 2 alone" },
    { function() tensor.cat({ t }, 3) end, "dimension 3 does not exist: the tensor is 2x3" },
    { function() t:index_select(1, i32 { 3 }) end, "index_select: position 3 (element 1) is outside of 1..2" },
    { function() t:index_select(1, i32 { 1, 0 }) end, "index_select: position 0 (element 2) is outside of 1..2" },
    { function() t:index_select(1, i32 { { 1 } }) end, "index_select: positions must have 1 dimension, got 1x1" },
    { function() t:index_select(1, tensor { 1 }) end, "argument 3 is a tensor of " .. REAL .. ", i32 expected" },
    { function() t:gather(2, i32 { { 1 } }) end, "gather: positions are 1x1, x 2x3: they may differ in dimension 2 alone" },
    { function() t:gather(2, i32 { { 4 }, { 1 } }) end, "gather: position 4 (element 1) is outside of 1..3" },
    { function() index.scatter_(wide, 2, i32 { { 1, 2, 3 } }, tensor.zeros(4, 3)) end,
      "scatter_: y is 4x3, positions 1x3, x 4x5" },
    { function() index.scatter_add_(wide, 2, i32 { { 6 } }, tensor.zeros(1, 1)) end,
      "scatter_add_: y is 1x1, positions 1x1, x 4x5" },
    { function() index.scatter_(wide:transpose(), 1, i32 { { 1 } }, t) end, "scatter_: x must be contiguous" },
    { function() index.index_add_(t, 1, i32 { 1 }, wide) end, "index_add_: y is 4x5, x 2x3, positions 1" },
    { function() tensor.where(t:gt(0), wide, 0) end, "where: shapes 2x3 and 4x5 do not broadcast" },
    { function() t:topk(4) end, "topk: 4 of 3 elements wanted" },
    { function() t:topk(0) end, "topk: k must be 1 or more, got 0" },
    { function() tensor(1):sort() end, "sort: the tensor has no dimension to sort along" },
    { function() tensor.zeros(1).sort(5) end, "sort: x must be a tensor, got number" },
    { function() tensor({ 2147483647, 1 }, "i32"):cumsum(1) end,
      "cumsum: a sum passes what i32 holds; to(\"f32\") before, for sums that are rounded" },
    { function() index.where(tensor.zeros(2, "u8"), i32 { 1, 2 }, t[1]) end,
      "where: operands must be of one dtype, got " .. REAL .. " and i32" },
    { function() t:cumsum() end, "a dimension must be a whole number, got nothing" },
    { function() t:cumsum(3) end, "dimension 3 does not exist: the tensor is 2x3" },
  }
  for _, case in ipairs(cases) do
    lu.assertStrMatches(check.message(case[1]), "^tests/tensor/test_index.lua:%d+: " .. case[2]:gsub("%p", "%%%0") .. "$")
  end
end

function T.test_survives_lack_of_memory()
  local x, p = arrays.random { 2, 3, 4 }, tensor({ 2, 1 }, "i32")
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    tensor.cat({ x, x:index_select(3, p) }, 3):cumsum(2):sort()
    tensor.where(x:gt(0), x, 0):topk(2)
    x:gather(1, tensor.full({ 1, 3, 4 }, 2, "i32"))
  end)
end

return T
