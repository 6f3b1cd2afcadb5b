--- Several data sets as one.

local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local data, tensor = feral.data, feral.tensor

local T = {}

--- Samples whose only pixel is a number from 'first' on.
local function numbered(first, labels, classes, fields)
  local pixels = {}
  for i = 1, #labels do pixels[i] = { { { first + i - 1 } } } end
  local all = { images = tensor(pixels, "u8"), labels = labels, classes = classes }
  for name, value in pairs(fields or {}) do all[name] = value end
  return data.set(all)
end

local function pixels(set) return set.images:reshape(-1):totable() end

local function class_names(set)
  local names = {}
  for i, label in ipairs(set.labels:totable()) do names[i] = set.classes[label] end
  return names
end

function T.test_parts_of_one_set_share_its_source()
  local set = numbered(1, { 1, 2, 1, 2 }, { "a", "b" }, { paths = { "1", "2", "3", "4" } })
  local both = set:subset({ 4, 1 }):concat(set:subset { 2 }, set:subset { 1 })
  lu.assertIs(both.source, set.source)
  lu.assertIs(both.columns, set.columns)
  lu.assertEquals(both.rows:totable(), { 4, 1, 2, 1 })
  lu.assertEquals(pixels(both), { 4, 1, 2, 1 })
  lu.assertEquals(both.paths:totable(), { "4", "1", "2", "1" })
end

function T.test_sets_of_several_sources()
  local a = numbered(1, { 1, 2, 1 }, { "happiness", "odd" }, { paths = { "1", "2", "3" }, weights = { 1, 2, 3 } })
  local b = numbered(10, { 1, 2 }, { "fear", "happiness" },
    { paths = { "10", "11" }, subjects = { "x", "y" }, weights = { 4, 5 } })
  local both = a:subset({ 3, 2 }):concat(b:subset { 2, 1, 2 })
  lu.assertEquals(both.classes, { "fear", "happiness", "odd" })
  lu.assertEquals(pixels(both), { 3, 2, 11, 10, 11 })
  lu.assertEquals(class_names(both), { "happiness", "odd", "happiness", "fear", "happiness" })
  lu.assertEquals(both.paths:totable(), { "3", "2", "11", "10", "11" })
  lu.assertEquals(both:column("weight"):totable(), { 3, 2, 5, 4, 5 })
  lu.assertNil(both.columns.subject)
  lu.assertStrContains(tostring(both), "5 images of 1 x 1 x 1 (0.0 MB), 3 classes")
  lu.assertEquals(pixels(both:subset { 4 }), { 10 })
  lu.assertEquals(pixels(both:concat(a)), { 3, 2, 11, 10, 11, 1, 2, 3 })
end

--- The same pixels under other labels are other columns.
function T.test_one_source_under_two_names()
  local set = numbered(1, { 1, 2 }, { "a", "b" })
  local both = set:concat(set:map_labels { a = "c" })
  lu.assertEquals(pixels(both), { 1, 2, 1, 2 })
  lu.assertEquals(class_names(both), { "a", "b", "c", "b" })
end

function T.test_steps_and_skipped()
  local steps = { { name = "gray" }, { name = "resize", height = 1, width = 1 } }
  local a = numbered(1, { 1 }, { "a" }, { steps = steps, skipped = { "one" } })
  local b = numbered(2, { 1 }, { "a" },
    { steps = { { name = "gray" }, { name = "resize", height = 1, width = 1 } }, skipped = { "two" } })
  lu.assertEquals(a:concat(b).steps, steps)
  lu.assertEquals(a:concat(b).skipped, { "one", "two" })
  lu.assertEquals(a:concat(a:subset { 1 }).skipped, { "one" })
  lu.assertNil(a:concat(numbered(3, { 1 }, { "a" })).steps)
  lu.assertNil(numbered(3, { 1 }, { "a" }):concat(a).steps)
end

function T.test_images_of_several_sizes()
  local small = data.synthetic { count = 3, size = 10, keep = "drawn" }
  local both = small:concat(data.synthetic { count = 2, size = 20 })
  lu.assertEquals(both:image(2).shape, { 1, 10, 10 })
  lu.assertEquals(both:image(4).shape, { 1, 20, 20 })
  lu.assertStrContains(check.message(both.image_size, both), "image_size: the images of this set differ in size")
  lu.assertStrContains(check.message(both.gather, both), "differ in size")
  lu.assertStrContains(tostring(both), "5 images of different sizes")
end

function T.test_what_is_refused()
  local set = numbered(1, { 1 }, { "a" }, { weights = { 1 } })
  local colour = data.set { images = tensor.zeros({ 1, 3, 1, 1 }, "u8"), labels = { 1 }, classes = { "a" } }
  lu.assertStrContains(check.message(set.concat, set, colour), "concat: set 2 has images of 3 channels, the first of 1")
  local moving = data.synthetic { count = 1, size = 8, sequences = 2 }
  lu.assertStrContains(check.message(set.concat, set, moving), "concat: set 2 has sequences, the first images")
  lu.assertStrContains(check.message(set.concat, set, 3), "concat: data sets expected, got number")
  local other = numbered(1, { 1 }, { "a" }, { columns = { weight = { "heavy" } } })
  lu.assertStrContains(check.message(set.concat, set, other), "concat: column 'weight' of set 2 is of another kind")
end

function T.test_a_set_of_several_outlives_its_parts_and_scope()
  local both
  do
    local _open <close> = tensor.scope()
    both = numbered(1, { 1, 1 }, { "a" }):concat(numbered(5, { 1 }, { "b" }))
  end
  collectgarbage()
  collectgarbage()
  lu.assertEquals(pixels(both), { 1, 2, 5 })
end

return T
