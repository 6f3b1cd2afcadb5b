local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local temporary = require "temporary"
local preprocess = require "feral.steps.preprocess"
local data, image, tensor, steps = feral.data, feral.image, feral.tensor, feral.steps

local T = {}

--- n samples of random bytes; the label of sample i is i, so that a batch says which samples it holds.
local function random_set(n, channels, height, width, frames)
  local shape, labels, classes = { n, channels, height, width }, {}, {}
  if frames then table.insert(shape, 2, frames) end
  for i = 1, n do labels[i], classes[i] = i, "class " .. i end
  local images = (tensor.uniform(shape, 0, 255.99)):to("u8")
  return data.set { images = images, labels = labels, classes = classes }
end

--- The samples of an epoch, batch by batch.
local function batches_of(loader, epoch, first)
  local found = {}
  for _, y in loader:batches(epoch, first) do found[#found + 1] = y:totable() end
  return found
end

local function joined(lists)
  local all = {}
  for _, list in ipairs(lists) do table.move(list, 1, #list, #all + 1, all) end
  return all
end

local function numbers(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

function T.test_an_epoch_holds_each_sample_once()
  for _ = 1, 30 do
    local n, batch = check.integer(1, 40), check.integer(1, 15)
    local loader = data.loader(random_set(n, 1, 2, 2), { batch = batch, seed = n })
    local batches = batches_of(loader, 1)
    lu.assertEquals(#batches, #loader)
    lu.assertEquals(#batches, math.ceil(n / batch))
    for i = 1, #batches - 1 do lu.assertEquals(#batches[i], batch) end
    local all = joined(batches)
    table.sort(all)
    lu.assertEquals(all, numbers(n))
  end
end

function T.test_drop_last_leaves_out_what_does_not_fill_a_batch()
  local set = random_set(10, 1, 2, 2)
  local loader = data.loader(set, { batch = 4, drop_last = true })
  lu.assertEquals(#loader, 2)
  lu.assertEquals(#joined(batches_of(loader, 1)), 8)
  lu.assertStrContains(check.message(data.loader, set, { batch = 11, drop_last = true }),
    "data.loader: a batch of 11 with drop_last leaves nothing of 10 samples")
end

function T.test_the_order_depends_on_seed_and_epoch_alone()
  local set = random_set(50, 1, 2, 2)
  local loader = data.loader(set, { batch = 8, seed = 5 })
  local first, second = joined(batches_of(loader, 1)), joined(batches_of(loader, 2))
  lu.assertNotEquals(first, second)
  lu.assertEquals(joined(batches_of(loader, 1)), first)
  lu.assertEquals(joined(batches_of(data.loader(set, { batch = 8, seed = 5 }), 1)), first)
  lu.assertEquals(joined(batches_of(data.loader(set, { batch = 3, seed = 5 }), 1)), first)
  lu.assertNotEquals(joined(batches_of(data.loader(set, { batch = 8, seed = 6 }), 1)), first)
  lu.assertEquals(joined(batches_of(data.loader(set, { shuffle = false }), 3)), numbers(50))
end

function T.test_an_epoch_goes_on_in_the_middle()
  local augment = { steps.rotate(20), steps.mirror(0.5), steps.mixup() }
  local loader = data.loader(random_set(30, 1, 6, 6), { batch = 4, seed = 2, augment = augment })
  local whole, rest = {}, {}
  for x in loader:batches(7) do whole[#whole + 1] = x:tobytes() end
  for x in loader:batches(7, 4) do rest[#rest + 1] = x:tobytes() end
  lu.assertEquals(rest, table.move(whole, 4, #whole, 1, {}))
  lu.assertEquals(batches_of(loader, 7, #loader + 1), {})
end

function T.test_values_are_samples_of_0_to_1_less_mean_by_std()
  for _ = 1, 40 do
    local n, channels = check.integer(1, 9), check.integer(0, 1) * 2 + 1
    local set = random_set(n, channels, check.integer(1, 7), check.integer(1, 7))
    local loader = data.loader(set, { batch = n, seed = 3, mean = 0.3, std = 0.2 })
    local x, y = loader:batches(1)()
    local expected = set.images:index_select(1, y):to(x.dtype) / 255
    check.close(x, (expected - 0.3) / 0.2, 1e-5)
    lu.assertEquals(x.shape, { n, channels, set.images:size(3), set.images:size(4) })
  end
end

function T.test_batches_lie_channels_last()
  local x = data.loader(random_set(4, 3, 5, 6)):batches(1)()
  lu.assertEquals(x:strides(), { 90, 1, 18, 3 })
end

function T.test_normalize_by_the_set()
  local set = random_set(40, 3, 5, 5)
  local loader = data.loader(set, { batch = 40, normalize = "set" })
  local x = loader:batches(1)()
  lu.assertAlmostEquals(x:mean():item(), 0, 1e-4)
  lu.assertAlmostEquals(x:std():item(), 1, 1e-3)
  local other = data.loader(random_set(5, 3, 5, 5), { preprocessing = loader.preprocessing })
  lu.assertEquals(other.preprocessing, loader.preprocessing)
  local flat = data.set { images = tensor.full({ 3, 1, 2, 2 }, 9, "u8"), labels = { 1, 1, 1 }, classes = { "x" } }
  local y = data.loader(flat, { normalize = "set" }):batches(1)()
  lu.assertEquals(y:mean():item(), 0)
end

--- What a model file says of its input must give a raw image the very bits that training saw.
function T.test_a_raw_image_gives_what_training_saw()
  local dir <close> = temporary.folder()
  for _, channels in ipairs { 1, 3 } do
    local path = dir / ("fear/%d.png"):format(channels)
    assert(require("feral.core.files").mkdir(dir / "fear"))
    assert(image.save(path, tensor.uniform({ channels, 37, 29 }, 0, 255.99):to("u8")))
    local set = assert(data.folder(dir.path, { size = { 16, 20 }, channels = channels }))
    local loader = data.loader(set, { shuffle = false, normalize = "set" })
    local x = loader:batches(1)()
    for i, from in ipairs(set.paths) do
      lu.assertEquals(x[i]:tobytes(), assert(preprocess.batch({ from }, loader.preprocessing))[1]:tobytes())
    end
  end
end

function T.test_augmentation_depends_on_seed_epoch_and_sample_alone()
  local set = random_set(12, 1, 8, 8)
  local options = feral.augment.faces(2)
  local function sample_3(batch, epoch, shuffle)
    for x, y in data.loader(set, { batch = batch, seed = 9, augment = options, shuffle = shuffle }):batches(epoch) do
      for i, label in ipairs(y:totable()) do
        if label == 3 then return x[i]:tobytes() end
      end
    end
  end
  local bytes = sample_3(4, 1, true)
  lu.assertEquals(sample_3(12, 1, true), bytes)
  lu.assertEquals(sample_3(5, 1, false), bytes)
  lu.assertNotEquals(sample_3(4, 2, true), bytes)
end

function T.test_sequences()
  for _, channels in ipairs { 1, 3 } do
    local set = random_set(5, channels, 4, 6, 3)
    local loader = data.loader(set, { batch = 2, seed = 1, mean = 0, std = 1 })
    local seen = 0
    for x, y in loader:batches(1) do
      lu.assertEquals(x.shape, { #y, 3, channels, 4, 6 })
      check.close(x, set.images:index_select(1, y):to(x.dtype) / 255, 1e-6)
      seen = seen + #y
    end
    lu.assertEquals(seen, 5)
  end
end

function T.test_all_frames_of_a_sequence_are_varied_alike()
  local frame = tensor.uniform({ 1, 1, 1, 9, 9 }, 0, 255.99):to("u8")
  local images = tensor.cat({ frame, frame, frame }, 2)
  local set = data.set { images = tensor.cat({ images, images }, 1), labels = { 1, 1 }, classes = { "x" } }
  local loader = data.loader(set, { shuffle = false, seed = 4, augment = feral.augment.faces(3) })
  local x = loader:batches(1)()
  lu.assertEquals(x[1][1]:tobytes(), x[1][3]:tobytes())
  lu.assertEquals(x[2][1]:tobytes(), x[2][2]:tobytes())
  lu.assertNotEquals(x[1][1]:tobytes(), x[2][1]:tobytes())
end

function T.test_batches_belong_to_the_callers_scope()
  local loader = data.loader(random_set(20, 1, 8, 8, 4), { batch = 5, augment = { steps.rotate(9) } })
  local function epoch(number)
    local next_batch = loader:batches(number)
    while true do
      local _open <close> = tensor.scope()
      if not next_batch() then break end
    end
    tensor.trim()
    collectgarbage()
    collectgarbage()
    return tensor.memory().live
  end
  epoch(1)
  local after_two = epoch(2)
  for number = 3, 8 do lu.assertTrue(epoch(number) <= after_two + 2048) end
end

function T.test_survives_lack_of_memory()
  local loader = data.loader(random_set(6, 1, 5, 5, 2), { batch = 4, augment = { steps.rotate(9) } })
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    loader:batches(1)()
  end)
end

function T.test_options_are_checked()
  local set = random_set(3, 1, 4, 4)
  local function message(options) return check.message(data.loader, set, options) end
  lu.assertStrContains(message { bach = 3 }, "data.loader: unknown option 'bach', did you mean 'batch'?")
  lu.assertStrContains(message { batch = 0 }, "data.loader: batch must be a whole number from 1")
  lu.assertStrContains(message { normalize = "yes" }, "data.loader: normalize 'yes' is unknown")
  lu.assertStrContains(message { std = 0 }, "normalize: std must be a number from 1e-06")
  lu.assertStrContains(message { augment = { rotate = 3 } }, "steps: 'rotate = ...' is no step; write steps.rotate(...)")
  set.steps = { { name = "gray" }, { name = "resize", height = 4, width = 4 } }
  lu.assertStrContains(message { preprocessing = { height = 5, width = 4, channels = 1, mean = 0, std = 1 } },
    "the preprocessing is { gray(), resize(5, 4), normalize(0, 1) }, the set's images have been through")
end

return T
