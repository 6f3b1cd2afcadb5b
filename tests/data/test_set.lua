local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local data, tensor = feral.data, feral.tensor

local T = {}

--- Samples whose only pixel is their number.
local function numbered(labels, classes)
  local pixels = {}
  for i = 1, #labels do pixels[i] = { { { i } } } end
  return data.set { images = tensor(pixels, "u8"), labels = labels, classes = classes }
end

local function numbers_in(set) return set.images:reshape(-1):totable() end

local function many(counts, classes)
  local labels = {}
  for c, n in ipairs(counts) do
    for _ = 1, n do labels[#labels + 1] = c end
  end
  return numbered(labels, classes)
end

function T.test_size_counts_and_weights()
  local set = numbered({ 1, 2, 2, 2 }, { "fear", "joy", "never" })
  lu.assertEquals(#set, 4)
  lu.assertEquals(set:size(), 4)
  lu.assertEquals(set:counts(), { 1, 3, 0 })
  check.close(set:class_weights(), { 2, 2 / 3, 0 })
  lu.assertEquals({ set:image_size() }, { 1, 1, 1 })
end

function T.test_describe_lines_up()
  local set = numbered({ 1, 2, 2, 2 }, { "fear", "überrascht" })
  lu.assertEquals(tostring(set), "4 images of 1 x 1 x 1 (0.0 MB), 2 classes\n"
    .. "  fear             1   25.0 %  ##########\n"
    .. "  überrascht       3   75.0 %  ##############################")
end

function T.test_subset_by_numbers_tensor_and_function()
  local set = numbered({ 1, 2, 1, 2, 1 }, { "a", "b" })
  lu.assertEquals(numbers_in(set:subset { 4, 1 }), { 4, 1 })
  lu.assertEquals(set:subset({ 4, 1 }).labels:totable(), { 2, 1 })
  lu.assertEquals(numbers_in(set:subset(tensor({ 2, 2 }, "i32"))), { 2, 2 })
  lu.assertEquals(numbers_in(set:subset(function(i, class) return class == "a" and i > 1 end)), { 3, 5 })
end

function T.test_subset_takes_paths_along()
  local set = data.set { images = tensor.zeros({ 3, 1, 2, 2 }, "u8"), labels = { 1, 1, 1 }, classes = { "x" },
    paths = { "one", "two", "three" } }
  lu.assertEquals(set:subset({ 3, 1 }).paths, { "three", "one" })
end

function T.test_subset_messages()
  local set = numbered({ 1, 1 }, { "a" })
  lu.assertStrContains(check.message(set.subset, set, {}), "subset: no sample is left")
  lu.assertStrContains(check.message(set.subset, set, { 3 }), "subset: position 3 (element 1) is outside of 1..2")
  lu.assertStrContains(check.message(set.subset, set, "all"), "subset: a list of numbers or a function expected, got string")
end

function T.test_split_is_stratified_and_loses_nothing()
  local set = many({ 40, 10, 1, 2 }, { "a", "b", "c", "d" })
  for seed = 1, 20 do
    local first, second = set:split(0.8, { seed = seed })
    lu.assertEquals(first:counts()[1], 32)
    lu.assertEquals(first:counts()[2], 8)
    lu.assertEquals(first:counts()[4], 1) -- of two, one goes to either side
    lu.assertEquals(second:counts()[4], 1)
    local seen = {}
    for _, part in ipairs { first, second } do
      for _, n in ipairs(numbers_in(part)) do
        lu.assertNil(seen[n])
        seen[n] = true
      end
    end
    lu.assertEquals(#first + #second, 53)
  end
end

function T.test_split_depends_on_its_seed_alone()
  local set = many({ 30, 30 }, { "a", "b" })
  lu.assertEquals(numbers_in(set:split(0.5, { seed = 7 })), numbers_in((set:split(0.5, { seed = 7 }))))
  lu.assertNotEquals(numbers_in(set:split(0.5, { seed = 7 })), numbers_in((set:split(0.5, { seed = 8 }))))
end

function T.test_split_without_classes_in_mind()
  local first, second = many({ 10, 10 }, { "a", "b" }):split(0.25, { stratified = false })
  lu.assertEquals({ #first, #second }, { 5, 15 })
end

function T.test_split_messages()
  local set = numbered({ 1, 1 }, { "a" })
  lu.assertStrContains(check.message(set.split, set, 1), "split: the fraction must lie between 0 and 1, got 1")
  lu.assertStrContains(check.message(set.split, set, 0.5, { sead = 1 }), "split: unknown option 'sead', did you mean 'seed'?")
  local one = numbered({ 1 }, { "a" })
  lu.assertStrContains(check.message(one.split, one, 0.5), "split: a set of one sample cannot be split")
end

function T.test_map_labels_renames_joins_and_leaves_out()
  local set = numbered({ 1, 2, 3, 4 }, { "cross", "happy", "glad", "odd" })
  local mapped = set:map_labels { cross = "anger", happy = "happiness", glad = "happiness", odd = false }
  lu.assertEquals(mapped.classes, { "anger", "happiness" })
  lu.assertEquals(mapped.labels:totable(), { 1, 2, 2 })
  lu.assertEquals(numbers_in(mapped), { 1, 2, 3 })
  local renamed = set:map_labels { odd = "disgust" }
  lu.assertEquals(renamed.classes, { "disgust", "cross", "glad", "happy" })
  lu.assertEquals(renamed.labels:totable(), { 2, 4, 3, 1 })
end

function T.test_with_classes_numbers_them_anew()
  local set = numbered({ 1, 2, 2 }, { "fear", "joy" })
  local other = set:subset({ 3, 1 }):with_classes { "joy", "more", "fear" }
  lu.assertEquals({ other.labels:totable(), other.classes, numbers_in(other) }, { { 1, 3 }, { "joy", "more", "fear" }, { 3, 1 } })
  lu.assertEquals(set.labels:totable(), { 1, 2, 2 })
  lu.assertStrContains(check.message(set.with_classes, set, { "joi", "fear" }),
    "with_classes: the set's class 'joy' is not in the list, did you mean 'joi'?")
end

function T.test_where_a_column_has_a_value()
  local set = numbered({ 1, 2, 2, 1 }, { "a", "b" })
  set:add_column("split", { "train", "test", "train", "" }):add_column("fold", { 1, 2, 2, 3 }):add_column("w", { 0.5, 1, 0.5, 2 })
  lu.assertEquals(numbers_in(set:where("split", "train")), { 1, 3 })
  lu.assertEquals(numbers_in(set:where("split", "")), { 4 })
  lu.assertEquals(numbers_in(set:subset({ 3, 4, 2 }):where("fold", 2)), { 3, 2 })
  lu.assertEquals(numbers_in(set:where("w", 0.5)), { 1, 3 })
  lu.assertStrContains(check.message(set.where, set, "split", "dev"), "where: no sample has split 'dev'")
  lu.assertStrContains(check.message(set.where, set, "spilt", "dev"), "column: there is no 'spilt', did you mean 'split'?")
  set:add_column("box", tensor.zeros(4, 4))
  lu.assertStrContains(check.message(set.where, set, "box", 0), "where: column 'box' has several values for a sample")
end

function T.test_map_labels_messages()
  local set = numbered({ 1, 2 }, { "anger", "fear" })
  lu.assertStrContains(check.message(set.map_labels, set, { angr = "x" }),
    "map_labels: there is no class 'angr', did you mean 'anger'?")
  lu.assertStrContains(check.message(set.map_labels, set, { anger = 3 }), "'anger' must become a name, or false, got number")
  lu.assertStrContains(check.message(set.map_labels, set, { anger = false, fear = false }), "subset: no sample is left")
end

function T.test_what_a_set_refuses()
  local images = tensor.zeros({ 2, 1, 3, 3 }, "u8")
  local function message(fields) return check.message(data.set, fields) end
  lu.assertStrContains(message { images = tensor.zeros(2, 1, 3, 3), labels = { 1, 1 }, classes = { "a" } },
    ("images must be u8 M x C x H x W, or M x T x C x H x W, got %s 2x1x3x3"):format(tensor.zeros(1).dtype))
  lu.assertStrContains(message { images = images, labels = { 1 }, classes = { "a" } }, "one for each of the 2 images")
  lu.assertStrContains(message { images = images, labels = { 1, 2 }, classes = { "a" } },
    "label 2 is 2, the classes are numbered from 1 to 1")
  lu.assertStrContains(message { images = images, labels = { 1, 1 }, classes = {} }, "classes must be a list of names")
  lu.assertStrContains(message { images = images, labels = { 1, 1 }, classes = { "a" }, paths = { "x" } },
    "2 images but 1 paths")
end

--- What could not be read is known of all sets that come of one.
function T.test_skipped_and_steps_go_along()
  local steps = { { name = "gray" } }
  local set = data.set { images = tensor.zeros({ 6, 1, 2, 2 }, "u8"), labels = { 1, 2, 1, 2, 1, 2 }, classes = { "a", "b" },
    skipped = { "x: broken" }, steps = steps }
  local first, second = set:split(0.5)
  local fold = set:kfold(2)[1]
  local sets = { set, set:subset { 1 }, set:map_labels { a = "c" }, set:map_labels { a = false }, first, second, fold.train,
    fold.test, set:shuffle(), set:balance(), set:concat(set), first:concat(second) }
  for i, one in ipairs(sets) do
    lu.assertEquals(one.skipped, { "x: broken" }, i)
    lu.assertEquals(one.steps, steps)
  end
end

function T.test_subset_by_a_mask()
  local set = numbered({ 1, 2, 1, 2, 1 }, { "a", "b" })
  lu.assertEquals(numbers_in(set:subset(tensor({ 0, 1, 0, 0, 1 }, "u8"))), { 2, 5 })
  lu.assertStrContains(check.message(set.subset, set, tensor({ 1, 0 }, "u8")), "subset: a mask of 5 bytes expected, got 2")
  lu.assertStrContains(check.message(set.subset, set, tensor({ 0, 0, 0, 0, 0 }, "u8")), "subset: no sample is left")
end

function T.test_subsets_share_the_pixels()
  local set = data.set { images = tensor.zeros({ 100, 1, 100, 100 }, "u8"), labels = tensor.full({ 100 }, 1, "i32"),
    classes = { "a" } }
  collectgarbage()
  collectgarbage()
  local before = tensor.memory().live
  local parts = {}
  for i = 1, 50 do parts[i] = set:subset { i, i + 1 }:shuffle() end
  collectgarbage()
  collectgarbage()
  lu.assertTrue(tensor.memory().live - before < 100000)
  lu.assertIs(parts[7].source, set.source)
  lu.assertIs(set.images, rawget(set, "stored"))
end

function T.test_one_image_of_a_set()
  local set = numbered({ 1, 2, 1 }, { "a", "b" }):subset { 3, 1 }
  lu.assertEquals(set:image(1):item(), 3)
  lu.assertEquals(set:image(2).shape, { 1, 1, 1 })
  lu.assertStrContains(check.message(set.image, set, 3), "image: row 3 is outside of 1..2")
end

function T.test_one_sample()
  local one = numbered({ 1 }, { "a" })
  lu.assertEquals({ #one, one:counts(), numbers_in(one:subset { 1 }), numbers_in(one:shuffle()) }, { 1, { 1 }, { 1 }, { 1 } })
  lu.assertEquals(numbers_in(one:balance(3)), { 1, 1, 1 })
  lu.assertStrContains(check.message(one.kfold, one, 2), "kfold: 2 folds of 1 samples")
end

function T.test_a_set_over_a_source()
  local source = numbered({ 1, 2, 1 }, { "a", "b" }).source
  local set = data.set { source = source, labels = { 2, 2, 1 }, classes = { "a", "b" } }
  lu.assertEquals(numbers_in(set), { 1, 2, 3 })
  lu.assertStrContains(check.message(data.set, { source = source, labels = { 1 }, classes = { "a" } }),
    "one for each of the 3 images")
end

function T.test_survives_lack_of_memory()
  local set = numbered({ 1, 2, 1, 2, 2, 1 }, { "a", "b" })
  set:add_column("subject", { "x", "y", "z", "x", "y", "z" })
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    set:split(0.5)
    set:kfold(2, { by = "subject" })
    set:balance():concat(set:shuffle():map_labels { a = false })
    set:subset({ 2, 1 }):add_column("more", { "u", "v" }):gather()
  end)
end

function T.test_a_set_outlives_the_scope_it_was_made_in()
  local set
  do
    local _open <close> = tensor.scope()
    set = numbered({ 1, 2, 1 }, { "a", "b" }):subset { 1, 3 }
  end
  lu.assertEquals(numbers_in(set), { 1, 3 })
end

function T.test_emotions_come_first_in_the_houses_order()
  lu.assertEquals(data.emotions.sort { "zeal", "contempt", "neutral", "awe", "anger", "surprise" },
    { "anger", "surprise", "neutral", "contempt", "awe", "zeal" })
end

function T.test_usual_spellings_of_emotions()
  local known = { angry = "anger", Anger = "anger", HA = "happiness", happy = "happiness", Sad = "sadness", AF = "fear",
    SURPRISED = "surprise", neutral = "neutral", contempt = "contempt", smirk = "smirk", ["7"] = "7" }
  for spelling, class in pairs(known) do lu.assertEquals(data.emotions.class_of(spelling), class) end
  lu.assertEquals(data.emotions.class_of("7", { ["7"] = "neutral" }), "neutral")
  lu.assertEquals(data.emotions.class_of("angry", {}), "angry")
end

return T
