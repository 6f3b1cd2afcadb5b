--- Lists of samples: picking, counting, grouping, dealing, each against the loop that says what it means.

local lu = require "luaunit"
local feral = require "feral"
local rows = require "feral.core.rows"
local strings = require "feral.core.strings"
local check = require "check"
local tensor = feral.tensor

local T = {}

local function random_list(n, low, high)
  local list = {}
  for i = 1, n do list[i] = check.integer(low, high) end
  return list, tensor(list, "i32")
end

function T.test_range()
  lu.assertEquals(rows.range(4):totable(), { 1, 2, 3, 4 })
  lu.assertTrue(rows.is_range(rows.range(5), 5))
  lu.assertFalse(rows.is_range(rows.range(5), 6))
  lu.assertFalse(rows.is_range(tensor({ 1, 3, 2 }, "i32"), 3))
  lu.assertStrContains(check.message(rows.range, 0), "rows: how many must be 1 or more, got 0")
end

function T.test_take_of_all_kinds()
  for _ = 1, 100 do
    local m, n, width = check.integer(1, 20), check.integer(1, 30), check.integer(1, 5)
    local list, at = random_list(n, 1, m)
    local values = check.randn(m, width)
    local taken, bytes = rows.take(values, at), rows.take((values:abs() * 20):to("u8"), at)
    lu.assertEquals(taken.shape, { n, width })
    for k, i in ipairs(list) do
      lu.assertEquals(taken[k]:totable(), values[i]:totable())
      lu.assertEquals(bytes[k]:totable(), (values[i]:abs() * 20):to("u8"):totable())
    end
    lu.assertEquals(rows.take(rows.range(m), at):totable(), list)
  end
  lu.assertStrContains(check.message(rows.take, rows.range(2), tensor({ 1, 3 }, "i32"), "subset: position"),
    "subset: position 3 (element 2) is outside of 1..2")
end

function T.test_counts_map_where()
  for _ = 1, 100 do
    local n, most = check.integer(1, 50), check.integer(1, 6)
    local list, numbers = random_list(n, 1, most)
    local counts, places, to = {}, {}, {}
    for c = 1, most do counts[c], places[c], to[c] = 0, {}, check.integer(0, 9) end
    local mapped = {}
    for i, c in ipairs(list) do
      counts[c] = counts[c] + 1
      table.insert(places[c], i)
      mapped[i] = to[c]
    end
    lu.assertEquals(rows.counts(numbers, most), counts)
    lu.assertEquals(rows.map(numbers, to):totable(), mapped)
    for c = 1, most do
      local found = rows.where(numbers, c)
      lu.assertEquals(found and found:totable() or {}, places[c])
    end
  end
  lu.assertEquals(rows.where(tensor({ 0, 1, 255 }, "u8")):totable(), { 2, 3 })
  lu.assertNil(rows.where(tensor({ 0, 0 }, "u8")))
  lu.assertEquals(rows.map(tensor({ 0, 2, 3 }, "i32"), { 5, 6 }):totable(), { 0, 6, 0 })
  lu.assertStrContains(check.message(rows.counts, tensor({ 1, 4 }, "i32"), 3, "label"), "label 4 (element 2) is outside of 1..3")
end

function T.test_outside()
  lu.assertEquals({ rows.outside(tensor({ 1, 5, 9 }, "i32"), 1, 4) }, { 2, 5 })
  lu.assertNil(rows.outside(tensor({ 1, 4 }, "i32"), 1, 4))
end

function T.test_put_mark_repeated()
  local out = tensor({ 9, 9, 9, 9 }, "i32")
  lu.assertEquals(rows.put(out, tensor({ 4, 1 }, "i32"), 7):totable(), { 7, 9, 9, 7 })
  lu.assertEquals(rows.put(out, tensor({ 2, 3 }, "i32"), tensor({ 1, 2 }, "i32")):totable(), { 7, 1, 2, 7 })
  local wide = tensor.zeros(3, 2)
  rows.put(wide, tensor({ 3 }, "i32"), tensor { { 1, 2 } })
  lu.assertEquals(wide:totable(), { { 0, 0 }, { 0, 0 }, { 1, 2 } })
  lu.assertEquals(rows.mark(out, tensor({ 3, 1, 2, 4 }, "i32"), 3, 2):totable(), { 1, 2, 3, 3 })
  lu.assertEquals(rows.repeated(tensor({ 0, 2, 1 }, "i32")):totable(), { 2, 2, 3 })
  lu.assertNil(rows.repeated(tensor({ 0, 0 }, "i32")))
  lu.assertStrContains(check.message(rows.put, wide, tensor({ 1, 2 }, "i32"), tensor { { 1, 2 } }),
    "rows: 1x2 values for 2 places")
  lu.assertStrContains(check.message(rows.put, out, tensor({ 5 }, "i32"), 1), "rows: place 5 (element 1) is outside of 1..4")
end

--- Numbers of groups in the order in which they first occur.
local function naive_groups(list)
  local number, groups, first, count = {}, {}, {}, 0
  for i, value in ipairs(list) do
    if not number[value] then
      count = count + 1
      number[value], first[count] = count, i
    end
    groups[i] = number[value]
  end
  return groups, count, first
end

function T.test_groups_of_strings_and_numbers()
  for _ = 1, 100 do
    local n = check.integer(1, 80)
    local list, numbers = random_list(n, -3, 3 + n // 2)
    local texts = {}
    for i, value in ipairs(list) do texts[i] = value == 0 and "" or ("subject %d"):format(value) end
    local expected, count, first = naive_groups(list)
    for _, column in ipairs { numbers, strings.new(texts), numbers:to(tensor.zeros(1).dtype) } do
      local groups, found, places = rows.groups(column)
      lu.assertEquals({ groups:totable(), found, places:totable() }, { expected, count, first })
    end
  end
end

--- Whole groups go to folds, and no fold is far from its share: the greedy rule gives each the largest group or less too much.
function T.test_deal_keeps_groups_together_and_folds_even()
  for _ = 1, 100 do
    local n, folds = check.integer(10, 200), check.integer(2, 5)
    local list, numbers = random_list(n, 1, folds + check.integer(0, 20))
    local groups, count = rows.groups(numbers)
    if count >= folds then
      local fold = rows.deal(groups, count, nil, 1, folds, tensor.randperm(count)):totable()
      local of, sizes, group_sizes = {}, {}, {}
      for i, value in ipairs(list) do
        lu.assertEquals(of[value] or fold[i], fold[i])
        of[value], sizes[fold[i]] = fold[i], (sizes[fold[i]] or 0) + 1
        group_sizes[value] = (group_sizes[value] or 0) + 1
      end
      local largest = 0
      for _, size in pairs(group_sizes) do largest = math.max(largest, size) end
      for f = 1, folds do lu.assertTrue((sizes[f] or 0) <= n / folds + largest and (sizes[f] or 0) > 0) end
    end
  end
end

function T.test_deal_looks_at_classes()
  local groups, labels = {}, {}
  for g = 1, 8 do -- four groups of one class, four of the other
    for _ = 1, 5 do groups[#groups + 1], labels[#labels + 1] = g, g <= 4 and 1 or 2 end
  end
  local fold = rows.deal(tensor(groups, "i32"), 8, tensor(labels, "i32"), 2, 4, rows.range(8)):totable()
  local counts = {}
  for i, f in ipairs(fold) do counts[f * 10 + labels[i]] = (counts[f * 10 + labels[i]] or 0) + 1 end
  for f = 1, 4 do lu.assertEquals({ counts[f * 10 + 1], counts[f * 10 + 2] }, { 5, 5 }) end
end

function T.test_survives_lack_of_memory()
  local _, numbers = random_list(30, 1, 5)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    local groups, count = rows.groups(numbers)
    rows.deal(groups, count, numbers, 5, 2, rows.range(count))
    rows.counts(numbers, 5)
    rows.map(numbers, { 1, 2, 3, 4, 5 })
  end)
end

return T
