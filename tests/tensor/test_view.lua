local lu = require "luaunit"
local feral = require "feral"
local check, arrays, layouts = require "check", require "arrays", require "layouts"
local tensor, view = feral.tensor, require "feral.core.view"

local T = {}

local dtypes = { check.is_double and "f64" or "f32", "u8", "i32" }

--- 200 random tensors in all layouts and dtypes: f(t, shape, flat).
local function many(least, most, f)
  for i = 1, check.SHAPES do
    local _open <close> = tensor.scope()
    local shape = arrays.shape(least, most)
    local t, flat = arrays.random(shape, dtypes[i % 3 + 1])
    f(t, shape, flat)
    lu.assertEquals(arrays.flat(t), flat)
  end
end

local function assert_array(t, shape, flat, what)
  lu.assertEquals(t.shape, shape, what)
  lu.assertTrue(table.concat(arrays.flat(t), " ") == table.concat(flat, " "), what)
end

--- Another shape with as many elements: the factors of the sizes, dealt out anew.
local function reshaped(shape)
  local new = {}
  for d = 1, check.integer(1, 6) do new[d] = 1 end
  local left = arrays.count(shape)
  for factor = 2, 5 do
    while left % factor == 0 do
      local d = check.integer(1, #new)
      new[d], left = new[d] * factor, left // factor
    end
  end
  return new
end

function T.test_reshape_keeps_the_numbers_in_row_major_order()
  many(0, 5, function(t, shape, flat)
    local new = reshaped(shape)
    local what = table.concat(shape, "x") .. " to " .. table.concat(new, "x")
    assert_array(t:reshape(new), new, flat, what)
    local open = { table.unpack(new) }
    open[check.integer(1, #open)] = -1
    assert_array(t:reshape(table.unpack(open)), new, flat, what)
    assert_array(t:reshape(-1), { #flat }, flat, what)
  end)
end

function T.test_reshape_to_the_same_shape_and_detach_share_memory()
  for _ = 1, check.SHAPES do
    local t = arrays.random(arrays.shape(1, 5))
    t:detach():fill_(7)
    lu.assertEquals(t:sum():item(), 7 * t:numel())
    t:reshape(t.shape):fill_(1)
    lu.assertEquals(t:sum():item(), t:numel())
  end
end

function T.test_reshape_of_even_memory_is_a_view()
  local t = tensor.zeros(4, 6)
  t:reshape(2, 2, 3, 2):fill_(1)
  t:narrow(2, 1, 3):reshape(2, 2, 3):fill_(2) -- rows with gaps, cut along the first dimension
  lu.assertEquals(t[1]:totable(), { 2, 2, 2, 1, 1, 1 })
  lu.assertEquals(t:sum():item(), 36)
  t:narrow(2, 1, 3):reshape(-1):fill_(9) -- not even: a copy
  lu.assertEquals(t:sum():item(), 36)
end

function T.test_select_and_indexing()
  many(1, 5, function(t, shape, flat)
    local d = check.integer(1, #shape)
    local i = check.integer(1, shape[d])
    local rest = { table.unpack(shape) }
    table.remove(rest, d)
    local expected = arrays.build(rest, function(indices)
      local whole = { table.unpack(indices) }
      table.insert(whole, d, i)
      return flat[arrays.place(shape, whole)]
    end)
    assert_array(t:select(d, i), rest, expected)
    assert_array(t:select(d - #shape - 1, i - shape[d] - 1), rest, expected)
    if d == 1 then
      assert_array(t[i], rest, expected)
      assert_array(t[i - shape[1] - 1], rest, expected)
      assert_array(t[i + 0.0], rest, expected)
    end
  end)
end

function T.test_narrow()
  many(1, 5, function(t, shape, flat)
    local d = check.integer(1, #shape)
    local length = check.integer(1, shape[d])
    local start = check.integer(1, shape[d] - length + 1)
    local part = arrays.with(shape, d, length)
    local expected = arrays.build(part, function(indices)
      return flat[arrays.place(shape, arrays.with(indices, d, indices[d] + start - 1))]
    end)
    assert_array(t:narrow(d, start, length), part, expected)
    assert_array(t:narrow(d - #shape - 1, start - shape[d] - 1, length), part, expected)
  end)
end

--- The numbers 1..n in random order.
local function any_order(n)
  local order = {}
  for i = 1, n do table.insert(order, check.integer(1, i), i) end
  return order
end

function T.test_permute_and_transpose()
  many(1, 6, function(t, shape, flat)
    local order = any_order(#shape)
    local function expect(got, dims)
      local new = {}
      for d, from in ipairs(dims) do new[d] = shape[from] end
      assert_array(got, new, arrays.build(new, function(indices)
        local old = {}
        for d, from in ipairs(dims) do old[from] = indices[d] end
        return flat[arrays.place(shape, old)]
      end), table.concat(dims, " "))
    end
    expect(t:permute(order), order)
    local negative = {}
    for d, from in ipairs(order) do negative[d] = from - #shape - 1 end
    expect(t:permute(table.unpack(negative)), order)
    if #shape < 2 then return end
    local a, b = order[1], order[2]
    local dims = {}
    for d = 1, #shape do dims[d] = d == a and b or d == b and a or d end
    expect(t:transpose(a, b), dims)
    dims = any_order(0)
    for d = 1, #shape do dims[d] = d end
    dims[#shape - 1], dims[#shape] = #shape, #shape - 1
    expect(t:transpose(), dims)
  end)
end

function T.test_expand()
  many(0, 4, function(t, shape, flat)
    local from, new = { table.unpack(shape) }, {}
    local source = t
    for d = 1, #from do -- some sides become 1 first
      if check.integer(1, 2) == 1 then source, from[d] = source:narrow(d, 1, 1), 1 end
    end
    local lead = check.integer(0, 2)
    for d = 1, lead do new[d] = check.integer(1, 3) end
    for d, size in ipairs(from) do new[lead + d] = size == 1 and check.integer(1, 4) or size end
    assert_array(source:expand(new), new, arrays.build(new, function(indices)
      local old = {}
      for d, size in ipairs(from) do old[d] = size == 1 and 1 or indices[lead + d] end
      return flat[arrays.place(shape, old)]
    end), table.concat(from, "x") .. " to " .. table.concat(new, "x"))
  end)
end

function T.test_squeeze_and_unsqueeze()
  many(0, 5, function(t, shape, flat)
    local d = check.integer(1, #shape + 1)
    local with_one = { table.unpack(shape) }
    table.insert(with_one, d, 1)
    assert_array(t:unsqueeze(d), with_one, flat)
    assert_array(t:unsqueeze(d - #shape - 2), with_one, flat)
    assert_array(t:unsqueeze(d):squeeze(d), shape, flat)
    local without = {}
    for _, size in ipairs(shape) do if size ~= 1 then without[#without + 1] = size end end
    assert_array(t:squeeze(), without, flat)
  end)
end

function T.test_flatten()
  many(1, 5, function(t, shape, flat)
    local first = check.integer(1, #shape)
    local last = check.integer(first, #shape)
    local merged = { table.unpack(shape, 1, first - 1) }
    merged[first] = arrays.count { table.unpack(shape, first, last) }
    for d = last + 1, #shape do merged[#merged + 1] = shape[d] end
    assert_array(t:flatten(first, last), merged, flat)
    assert_array(t:flatten(first - #shape - 1, last - #shape - 1), merged, flat)
    assert_array(t:flatten(), { #flat }, flat)
  end)
  assert_array(tensor(3):flatten(), { 1 }, { 3.0 })
end

function T.test_copies_have_their_own_memory_and_views_do_not()
  many(1, 4, function(t, shape, flat)
    for _, copy in ipairs { t:clone(), t:clone():contiguous(), view.as_image(t:clone()) } do
      assert_array(copy, shape, flat)
      copy:fill_(3)
    end
    local strides = 1
    local rows = t:contiguous()
    for d = #shape, 1, -1 do
      if shape[d] > 1 then lu.assertEquals(rows:strides()[d], strides) end
      strides = strides * shape[d]
    end
  end)
  local t = tensor.zeros(2, 3)
  for _, look in ipairs {
    t:select(1, 2), t:narrow(2, 1, 2), t:transpose(), t:permute(2, 1), t:unsqueeze(1), t[1], t:reshape(6),
  } do
    local before = t:sum():item()
    look:add_(1)
    lu.assertEquals(t:sum():item(), before + look:numel())
  end
end

--- What is written through a view with gaps reaches its elements and no others.
function T.test_in_place_operations_on_views_with_gaps()
  local operations = {
    { "add_", function(a, b) return a + b end }, { "sub_", function(a, b) return a - b end },
    { "mul_", function(a, b) return a * b end }, { "div_", function(a, b) return a / b end },
    { "copy_", function(_, b) return b end }, { "maximum_", math.max }, { "minimum_", math.min },
  }
  for i = 1, check.SHAPES do
    local shape = arrays.shape(1, 4)
    local outer, corner = {}, {}
    for d, size in ipairs(shape) do
      corner[d] = check.integer(0, 2)
      outer[d] = size + corner[d] + check.integer(0, 2)
    end
    local whole = tensor.full(outer, 5)
    local part = whole
    for d, size in ipairs(shape) do part = part:narrow(d, corner[d] + 1, size) end
    local a, values = arrays.random(shape)
    part:copy_(a)
    local name, f = table.unpack(operations[i % #operations + 1])
    local other_shape = { table.unpack(shape) }
    for d = 1, #shape do if check.integer(1, 3) == 1 then other_shape[d] = 1 end end
    local other, others = arrays.random(other_shape)
    part[name](part, other)
    local expected = arrays.build(outer, function(indices)
      local inside, small = {}, {}
      for d, size in ipairs(shape) do
        inside[d] = indices[d] - corner[d]
        if inside[d] < 1 or inside[d] > size then return 5 end
        small[d] = other_shape[d] == 1 and 1 or inside[d]
      end
      return f(values[arrays.place(shape, inside)], others[arrays.place(other_shape, small)])
    end)
    check.close(whole, expected, 1e-6, name)
    part:fill_(2)
    lu.assertAlmostEquals(whole:sum():item(), 5 * (whole:numel() - part:numel()) + 2 * part:numel(), 1e-3)
  end
end

function T.test_assignment_by_index()
  local t = tensor.zeros(2, 3)
  t[1] = 4
  t[-1] = tensor { 1, 2, 3 }
  t[2.0][3] = 9
  lu.assertEquals(t:totable(), { { 4, 4, 4 }, { 1, 2, 9 } })
  lu.assertStrContains(check.message(function() t[3] = 1 end), "index 3 is outside of dimension 1 of 2x3")
  lu.assertStrContains(check.message(function() t[1.5] = 1 end), "an index must be a whole number, got 1.5")
  lu.assertStrContains(check.message(function() t.name = 1 end), "a tensor has no field 'name' to set")
  lu.assertStrContains(check.message(function() t[1] = tensor { 1, 2 } end), "copy_: shape 2 does not broadcast to 3")
end

function T.test_operands_that_overlap_count_as_they_were_before()
  local t = tensor { 1, 2, 3, 4, 5 }
  t:narrow(1, 2, 4):copy_(t:narrow(1, 1, 4))
  lu.assertEquals(t:totable(), { 1, 1, 2, 3, 4 })
  t:narrow(1, 2, 4):add_(t:narrow(1, 1, 4))
  lu.assertEquals(t:totable(), { 1, 2, 3, 5, 7 })
  local m = tensor { { 1, 2 }, { 3, 4 } }
  m:add_(m:transpose())
  lu.assertEquals(m:totable(), { { 2, 5 }, { 5, 8 } })
  m:sub_(m[1])
  lu.assertEquals(m:totable(), { { 0, 0 }, { 3, 3 } })
  m:mul_(m)
  lu.assertEquals(m:totable(), { { 0, 0 }, { 9, 9 } })
end

function T.test_expanded_tensors_are_not_written_to()
  local t = tensor.zeros(1, 3)
  local wide = t:expand(4, 3)
  for _, write in ipairs {
    function() wide:add_(1) end, function() wide:fill_(1) end, function() wide:copy_(tensor.ones(4, 3)) end,
    function() wide[1] = 1; wide:mul_(2) end, function() wide:narrow(1, 2, 2):zero_() end,
  } do
    lu.assertStrContains(check.message(write), "the elements of an expanded tensor share memory: clone it to change it")
  end
  wide:narrow(1, 2, 1):add_(1) -- one row alone is as good as any other
  lu.assertEquals(t:totable(), { { 2, 2, 2 } })
end

function T.test_gradients_pass_through_views_of_any_layout()
  check.gradients(function(x) return x:permute(3, 1, 2):reshape(4, 6):narrow(1, 2, 2):transpose() end, { check.randn(2, 3, 4) })
  check.gradients(function(x) return x:flatten(-2, -1) * 2 end, { check.randn(2, 3, 4) })
  check.gradients(function(x) return x:select(-1, -2):unsqueeze(-1):expand(2, 3, 5) end, { check.randn(2, 3, 4) })
  check.gradients(function(x) return x:permute { -1, 1, -2 } * x:permute(3, 1, 2) end, { check.randn(2, 3, 4) })
end

function T.test_views_larger_than_any_memory_are_refused()
  local one, most = tensor.zeros(1), 2147483647
  for _, sizes in ipairs { { most, most, most }, { most, most, 2 }, { most, most }, { most, most, most, most } } do
    lu.assertStrContains(check.message(one.expand, one, sizes), "a tensor of that size does not fit in memory")
  end
  lu.assertEquals(one:expand(most, 65536):numel(), most * 65536)
end

function T.test_messages()
  local t = tensor.zeros(2, 3)
  local cases = {
    { function() t:reshape(4, 2) end, "reshape: 2x3 has 6 elements, the new sizes make 8" },
    { function() t:reshape(-1, 4) end, "reshape: 2x3 has 6 elements, the new sizes make 4" },
    { function() t:reshape(-1, -1) end, "reshape: a size must be 1 or more, got -1" },
    { function() t:reshape(0, 6) end, "reshape: a size must be 1 or more, got 0" },
    { function() t:reshape("x") end, "reshape: a size must be a whole number, got x" },
    { function() t:reshape(2.5) end, "reshape: a size must be a whole number, got 2.5" },
    { function() t:reshape(1, 1, 1, 1, 1, 1, 6) end, "reshape: at most 6 dimensions, got 7" },
    { function() t:select(3, 1) end, "dimension 3 does not exist: the tensor is 2x3" },
    { function() t:select(0, 1) end, "dimension 0 does not exist: the tensor is 2x3" },
    { function() t:select(-3, 1) end, "dimension -3 does not exist: the tensor is 2x3" },
    { function() t:select(2) end, "an index must be a whole number, got nothing" },
    { function() t:select("a", 1) end, "a dimension must be a whole number, got a" },
    { function() t:select(2, 4) end, "index 4 is outside of dimension 2 of 2x3" },
    { function() t:select(2, 0) end, "index 0 is outside of dimension 2 of 2x3" },
    { function() t:select(2, -4) end, "index -4 is outside of dimension 2 of 2x3" },
    { function() return t[1.5] end, "an index must be a whole number, got 1.5" },
    { function() return tensor(1)[1] end, "a tensor without dimensions cannot be indexed; item() gives its number" },
    { function() t:narrow(2, 2, 3) end, "narrow: elements 2 to 4 pass the end of dimension 2 of 2x3" },
    { function() t:narrow(2, 1, 0) end, "narrow: length must be 1 or more, got 0" },
    { function() t:permute(1) end, "permute: 1 dimension named, the tensor is 2x3" },
    { function() t:permute(1, 1) end, "permute: dimension 1 is named twice" },
    { function() t:permute { 1, 3 } end, "dimension 3 does not exist: the tensor is 2x3" },
    { function() t:squeeze(1) end, "squeeze: dimension 1 of 2x3 is not of size 1" },
    { function() t:unsqueeze(4) end, "unsqueeze: no place 4 in 2x3" },
    { function() t:unsqueeze(0) end, "unsqueeze: no place 0 in 2x3" },
    { function() tensor.zeros(1, 1, 1, 1, 1, 1):unsqueeze(1) end, "unsqueeze: no place 1 in 1x1x1x1x1x1" },
    { function() t:expand(2, 4) end, "expand: 2x3 does not broadcast to the sizes given" },
    { function() t:expand(3) end, "expand: 2x3 does not broadcast to the sizes given" },
    { function() t:flatten(3) end, "flatten: dimensions 3 to 2 of 2x3 do not exist" },
    { function() t:flatten(2, 1) end, "flatten: dimensions 2 to 1 of 2x3 do not exist" },
    { function() tensor.zeros(3000000000) end, "a size must be at most 2147483647, got 3000000000" },
  }
  for _, case in ipairs(cases) do
    lu.assertStrMatches(check.message(case[1]), "^tests/tensor/test_view.lua:%d+: " .. case[2]:gsub("%p", "%%%0") .. "$")
  end
end

function T.test_a_released_tensor_is_refused_by_every_view()
  local t, look
  do
    local _open <close> = tensor.scope()
    t = tensor.zeros(2, 3)
    look = t[1]
  end
  for _, f in ipairs { function() t:reshape(6) end, function() t:transpose() end, function() return t[1] end,
    function() look:clone() end, function() t[1] = 2 end, function() t:totable() end } do
    lu.assertStrContains(check.message(f), "released tensor")
  end
end

function T.test_survives_lack_of_memory()
  local t = layouts.vary(check.randn(2, 3, 4))
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    t:permute(3, 1, 2):reshape(4, 6):narrow(1, 2, 2):transpose():contiguous():clone():expand(3, 6, 2):select(1, 2)
  end)
end

return T
