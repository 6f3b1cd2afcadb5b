--- What a data set knows of its samples beside their pixels: columns travel with the rows.

local lu = require "luaunit"
local feral = require "feral"
local strings = require "feral.core.strings"
local check = require "check"
local temporary = require "temporary"
local data, tensor = feral.data, feral.tensor

local T = {}

--- n samples whose only pixel is their number.
local function numbered(n, fields)
  local pixels, labels = {}, {}
  for i = 1, n do pixels[i], labels[i] = { { { i } } }, 1 + (i - 1) % 2 end
  local all = { images = tensor(pixels, "u8"), labels = labels, classes = { "a", "b" } }
  for name, value in pairs(fields or {}) do all[name] = value end
  return data.set(all)
end

local function all_kinds()
  return numbered(4, {
    paths = { "p1", "p2", "p3", "p4" }, subjects = { "x", "y", "x", "z" }, weights = { 1, 2, 3.5, 4 },
    votes = tensor { { 1, 0 }, { 0, 1 }, { 2, 2 }, { 0, 0 } },
    columns = { box = { { 1, 2, 3, 4 }, { 2, 2, 3, 4 }, { 3, 2, 3, 4 }, { 4, 2, 3, 4 } }, age = { 10, 20, 30, 40 } },
  })
end

function T.test_columns_of_all_kinds()
  local set = all_kinds()
  lu.assertEquals(set:column("subject"):totable(), { "x", "y", "x", "z" })
  lu.assertEquals(set:column("weight"):totable(), { 1, 2, 3.5, 4 })
  lu.assertEquals(set:column("votes").shape, { 4, 2 })
  lu.assertEquals(set:column("box").shape, { 4, 4 })
  lu.assertEquals({ set:column("age").dtype, set:column("weight").dtype }, { "i32", tensor.zeros(1).dtype })
  lu.assertEquals(set:column("label"):totable(), { 1, 2, 1, 2 })
  lu.assertEquals(set:column("path"):totable(), set.paths:totable())
  lu.assertStrContains(tostring(set), "\n  columns: age, box, subject, votes, weight")
end

function T.test_columns_travel_with_rows()
  local set = all_kinds()
  local some = set:subset { 4, 1, 1 }
  lu.assertEquals(some:column("subject"):totable(), { "z", "x", "x" })
  lu.assertEquals(some:column("box"):totable(), { { 4, 2, 3, 4 }, { 1, 2, 3, 4 }, { 1, 2, 3, 4 } })
  lu.assertEquals(some:subset({ 2 }):column("age"):totable(), { 10 })
  lu.assertEquals(some.paths:totable(), { "p4", "p1", "p1" })
  lu.assertIs(some.columns, set.columns)
  lu.assertIs(some.source, set.source)
  lu.assertEquals(set:map_labels({ a = false }):column("subject"):totable(), { "y", "z" })
end

function T.test_a_column_is_added_to_this_set_and_those_made_from_it()
  local set = numbered(4)
  local before = set:subset { 1, 2 }
  lu.assertIs(set:add_column("name", { "w", "x", "y", "z" }), set)
  lu.assertEquals(set:subset({ 3 }):column("name"):totable(), { "y" })
  lu.assertStrContains(check.message(before.column, before, "name"), "column: there is no 'name'")
  set:add_column("name", { 1, 2, 3, 4 })
  lu.assertEquals(set:column("name"):totable(), { 1, 2, 3, 4 })
end

function T.test_a_column_of_a_subset_leaves_the_other_samples_empty()
  local set = numbered(5)
  local some = set:subset { 4, 2 }
  some:add_column("name", { "four", "two" }):add_column("number", { 4, 2 }):add_column("part", { 0.5, 0.25 })
  lu.assertEquals(some:column("name"):totable(), { "four", "two" })
  lu.assertEquals(some:column("number"):totable(), { 4, 2 })
  lu.assertEquals(some:column("part"):totable(), { 0.5, 0.25 })
  lu.assertEquals(some.columns.name:totable(), { "", "two", "", "four", "" })
  lu.assertEquals(some.columns.number:totable(), { 0, 2, 0, 4, 0 })
  local part = some.columns.part:totable()
  lu.assertTrue(part[1] ~= part[1])
  local twice = set:subset { 1, 1 }
  lu.assertStrContains(check.message(twice.add_column, twice, "x", { 1, 2 }), "a sample is in this set more than once")
end

function T.test_labels_may_be_replaced()
  local set = numbered(4)
  lu.assertEquals(set.labels:totable(), { 1, 2, 1, 2 })
  set:add_column("label", { 2, 2, 2, 1 })
  lu.assertEquals(set.labels:totable(), { 2, 2, 2, 1 })
  lu.assertEquals(set:counts(), { 1, 3 })
  lu.assertStrContains(check.message(set.add_column, set, "label", { 1, 2, 3, 1 }),
    "add_column: label 3 is 3, the classes are numbered from 1 to 2")
end

function T.test_what_is_refused()
  local set = all_kinds()
  lu.assertStrContains(check.message(set.column, set, "subjekt"),
    "column: there is no 'subjekt', did you mean 'subject'? (the columns are age, box, label, path, subject, votes, weight)")
  lu.assertStrContains(check.message(set.add_column, set, "x", { 1, 2 }), "add_column: column 'x' has 2 values for 4 samples")
  lu.assertStrContains(check.message(set.add_column, set, "x", 7), "must be a tensor or a list of numbers or strings, got number")
  lu.assertStrContains(check.message(set.add_column, set, "x", {}), "got an empty table")
  lu.assertStrContains(check.message(set.add_column, set, 3, { 1 }), "add_column: a column's name must be a string")
  lu.assertStrContains(check.message(numbered, 3, { weights = { 1 } }), "data.set: column 'weight' has 1 values for 3 samples")
  lu.assertStrContains(check.message(numbered, 3, { subject = { 1 } }),
    "data.set: unknown option 'subject', did you mean 'subjects'?")
end

function T.test_columns_outlive_the_scope_they_were_made_in()
  local set
  do
    local _open <close> = tensor.scope()
    set = all_kinds():subset { 2, 3 }
    set:add_column("more", tensor { 7, 8 })
  end
  collectgarbage()
  lu.assertEquals(set:column("more"):totable(), { 7, 8 })
  lu.assertEquals(set:column("votes"):totable(), { { 0, 1 }, { 2, 2 } })
  lu.assertEquals(set:column("subject"):totable(), { "y", "x" })
end

function T.test_lists_of_strings_are_taken_as_they_are()
  local list = strings.new { "a", "b" }
  local set = numbered(2, { subjects = list })
  lu.assertIs(set.columns.subject, list)
end

function T.test_strings_look_like_a_table_that_cannot_be_written_to()
  local list = all_kinds():subset({ 3, 1 }):column "subject"
  lu.assertEquals({ type(list), #list, list[1], list[3], table.concat(list, "+") }, { "table", 2, "x", nil, "x+x" })
  local seen = {}
  for i, text in pairs(list) do seen[i] = text end
  lu.assertEquals(seen, { "x", "x" })
  lu.assertEquals(list, { "x", "x" })
  lu.assertEquals(tostring(list), "2 strings: x, x")
  lu.assertStrContains(check.message(function() list[1] = "z" end), "this list of strings belongs to a data set")
  local set = numbered(2, { subjects = list })
  lu.assertEquals(set:column("subject"):totable(), { "x", "x" })
end

---- From a table ----

local pgm = "P5\n1 1\n255\n\7"

--- A table over three images, and a data set of it.
local function from_table(dir, text, options)
  for i = 1, 3 do temporary.write(dir / ("%d.pgm"):format(i), pgm) end
  options.size, options.report = 1, options.report or error
  return data.csv(temporary.write(dir / "list.csv", text), options)
end

function T.test_csv_columns()
  local dir <close> = temporary.folder()
  local set = assert(from_table(dir, "path,label,who,w,l,t,r,b,n,age,points\n1.pgm,x,007,1,1,2,3,4,ann,30,1 2 3 4\n" ..
    "2.pgm,y,8,0.5,5,6,7,8,7,31,5;6; 7 8\n3.pgm,x,8,2,9,10,11,12,8,4,1 1 1 1\n", {
    subject = "who", weight = "w", box = { "l", "t", "r", "b" }, landmarks = "points",
    columns = { name = "n", years = "age", corner = { "l", "t" } },
  }))
  lu.assertEquals(set:column("subject"):totable(), { "007", "8", "8" })
  lu.assertEquals(set:column("weight"):totable(), { 1, 0.5, 2 })
  lu.assertEquals(set:column("box"):totable(), { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } })
  lu.assertEquals(set:column("landmarks"):totable(), { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 1, 1, 1, 1 } })
  lu.assertEquals(set:column("name"):totable(), { "ann", "7", "8" })
  lu.assertEquals(set:column("years"):totable(), { 30, 31, 4 })
  lu.assertEquals({ set:column("years").dtype, set:column("corner").shape }, { "i32", { 3, 2 } })
end

function T.test_csv_columns_of_skipped_rows_are_left_out_too()
  local dir <close> = temporary.folder()
  local messages = {}
  local set = assert(from_table(dir, "path,label,w,who\n1.pgm,x,1,a\n2.pgm,x,heavy,b\ngone.pgm,x,3,c\n3.pgm,x,4,d\n",
    { weight = "w", subject = "who", report = function(m) messages[#messages + 1] = m end }))
  lu.assertEquals(set:column("weight"):totable(), { 1, 4 })
  lu.assertEquals(set:column("subject"):totable(), { "a", "d" })
  lu.assertEquals(messages[1], dir / "list.csv:3: weight: 'heavy' is no number (skipped)")
  lu.assertStrContains(messages[2], dir / "list.csv:4: " .. dir / "gone.pgm: No such file")
end

function T.test_csv_columns_that_are_not_there()
  local dir <close> = temporary.folder()
  local head = "path,label,w\n1.pgm,x,1\n"
  lu.assertEquals({ from_table(dir, head, { weight = "weight" }) },
    { nil, dir / "list.csv:1: no column 'weight' (the columns are path, label, w)" })
  lu.assertStrContains(check.message(from_table, dir, head, { weight = 3 }),
    "data.csv: 'weight' must be the name of a column of the table, or a list of names")
  lu.assertStrContains(check.message(from_table, dir, head, { wait = "w" }), "data.csv: unknown option 'wait'")
  local text = "path,label,box\n1.pgm,x,1 2 3 4\n2.pgm,x,1 2 3\n"
  lu.assertEquals({ from_table(dir, text, { box = "box", strict = true }) },
    { nil, dir / "list.csv:3: box: 3 numbers, 4 expected" })
end

return T
