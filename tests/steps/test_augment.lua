local lu = require "luaunit"
require "feral.tensor"
local augment, image = require "feral.steps.augment", require "feral.vision.image"
local create, view = require "feral.core.create", require "feral.core.view"
local check, bits = require "check", require "bits"

local T = {}

--- M random images, channels last in memory.
local function random_images(m, channels, height, width)
  local bytes = {}
  for i = 1, m * channels * height * width do bytes[i] = string.char(check.integer(0, 255)) end
  return view.permute(create.from_bytes(table.concat(bytes), { m, height, width, channels }, "u8"), 1, 4, 2, 3)
end

local function new_batch(...) return view.as_image(create.empty { ... }) end

local function ints(list) return create.from_table(list, "i32") end

--- What the engine draws for a sample: seven numbers in [0, 1).
local function drawn(seed, epoch, number)
  return create.totable(create.uniform_(create.empty { 8 }, seed, 1 << 63 | epoch << 32 | number, 0, 1))
end

local function outside(i, n, edge)
  if i >= 0 and i < n then return i end
  if edge == "constant" then return nil end
  if edge == "clamp" then return math.max(0, math.min(n - 1, i)) end
  while i < 0 or i >= n do i = i < 0 and -1 - i or 2 * n - 1 - i end
  return i
end

local function pixel(p, y, x, s)
  y, x = outside(y, #p, s.edge), outside(x, #p[1], s.edge)
  return y and x and p[y + 1][x + 1] or s.fill
end

--- One sample, [c][y][x] of 0..255, the slow way: each output pixel is followed back through shift, turn, zoom and mirror.
local function reference(img, s, seed, epoch, number, height, width)
  local u = drawn(seed, epoch, number)
  local function either(most, i) return most * (2 * u[i] - 1) end
  local angle, right, down, zoom = math.rad(either(s.rotation, 1)), either(s.shift, 2), either(s.shift, 3), 1 + either(s.zoom, 4)
  local mirrored, brightness, contrast = u[5] < s.mirror, 1 + either(s.brightness, 6), 1 + either(s.contrast, 7)
  local result, sum, count = {}, 0, 0
  for c = 1, #img do
    local p, rows = img[c], {}
    local h, w = #p, #p[1]
    for y = 0, height - 1 do
      rows[y + 1] = {}
      for x = 0, width - 1 do
        local dx, dy = x - (width - 1) / 2 - right * width, y - (height - 1) / 2 - down * height
        dx, dy = (math.cos(angle) * dx - math.sin(angle) * dy) / zoom, (math.sin(angle) * dx + math.cos(angle) * dy) / zoom
        dx, dy = dx * w / width, dy * h / height
        if mirrored then dx = -dx end
        local sx, sy = dx + (w - 1) / 2, dy + (h - 1) / 2
        local left, top = math.floor(sx), math.floor(sy)
        local fx, fy = sx - left, sy - top
        local value = (1 - fy) * ((1 - fx) * pixel(p, top, left, s) + fx * pixel(p, top, left + 1, s)) +
          fy * ((1 - fx) * pixel(p, top + 1, left, s) + fx * pixel(p, top + 1, left + 1, s))
        rows[y + 1][x + 1] = value * brightness
        sum, count = sum + value * brightness, count + 1
      end
    end
    result[c] = rows
  end
  local mean = sum / count
  for _, rows in ipairs(result) do
    for _, row in ipairs(rows) do
      for x = 1, #row do
        local v = (row[x] - mean) * contrast + mean
        if s.brightness > 0 or s.contrast > 0 then v = math.max(0, math.min(255, v)) end
        row[x] = v
      end
    end
  end
  return result
end

function T.test_each_sample_is_one_warp_then_light_then_normalisation()
  local edges = { "clamp", "reflect", "constant" }
  local function some(most) return check.integer(0, 2) > 0 and check.integer(1, 100) / 100 * most or 0 end
  for i = 1, check.SHAPES do
    local m, n, channels = check.integer(1, 4), check.integer(1, 3), check.integer(1, 3)
    local images = random_images(m, channels, check.integer(1, 9), check.integer(1, 9))
    local same_size = check.integer(0, 1) == 0
    local height = same_size and images:size(3) or check.integer(1, 10)
    local width = same_size and images:size(4) or check.integer(1, 10)
    local mean, std = {}, {}
    for c = 1, channels do mean[c], std[c] = check.integer(0, 9) / 10, check.integer(1, 9) / 10 end
    local aug = augment.new { rotation = some(180), shift = some(0.5), zoom = some(0.6), mirror = some(1), brightness = some(0.5),
      contrast = some(0.5), edge = edges[i % 3 + 1], fill = 99, mean = mean, std = std }
    local indices = {}
    for k = 1, n do indices[k] = check.integer(1, m) end
    local seed, epoch = check.integer(0, 1000), check.integer(0, 50)
    local out = new_batch(n, channels, height, width)
    lu.assertTrue(augment.batch(out, images, ints(indices), aug, seed, epoch) == out)
    local got = create.totable(out)
    for k = 1, n do
      local expected = reference(create.totable(images[indices[k]]), aug, seed, epoch, indices[k], height, width)
      for c = 1, channels do
        for y = 1, height do
          for x = 1, width do
            lu.assertAlmostEquals(got[k][c][y][x], (expected[c][y][x] / 255 - mean[c]) / std[c], 1e-3)
          end
        end
      end
    end
  end
end

function T.test_without_variation_the_batch_is_exactly_the_normalised_images()
  for _, channels in ipairs { 1, 3 } do
    local images = random_images(5, channels, 8, 9)
    local mean, std = channels == 1 and 0.4 or { 0.1, 0.2, 0.3 }, 0.3
    local plain = augment.new { mean = mean, std = std }
    local out = augment.batch(new_batch(3, channels, 8, 9), images, ints { 5, 1, 5 }, plain, 1, 1)
    local expected = image.normalize(images, { mean = mean, std = std })
    for k, index in ipairs { 5, 1, 5 } do
      lu.assertTrue(create.tobytes(out[k]) == create.tobytes(expected[index]))
    end
    augment.batch(out, images, ints { 1, 2, 3 })
    lu.assertTrue(create.tobytes(out) == create.tobytes(image.to_float(images):narrow(1, 1, 3)))
  end
end

function T.test_mirror_alone_is_an_exact_flip()
  local images = random_images(1, 3, 7, 10)
  local out = augment.batch(new_batch(1, 3, 7, 10), images, ints { 1 }, augment.new { mirror = 1 }, 3, 4)
  lu.assertEquals(create.totable(out), create.totable(image.to_float(image.flip(images))))
end

function T.test_a_sample_depends_on_seed_epoch_and_number_alone()
  local images = random_images(6, 1, 12, 12)
  local aug = augment.new { rotation = 20, shift = 0.2, zoom = 0.2, mirror = 0.5, brightness = 0.3, contrast = 0.3 }
  local function sample(indices, place, seed, epoch, numbers)
    local out = augment.batch(new_batch(#indices, 1, 12, 12), images, ints(indices), aug, seed, epoch, numbers and ints(numbers))
    return create.tobytes(out[place])
  end
  local first = sample({ 4 }, 1, 7, 2)
  lu.assertTrue(sample({ 1, 2, 4, 3 }, 3, 7, 2) == first)
  lu.assertTrue(sample({ 4, 4 }, 2, 7, 2, { 9, 4 }) == first)
  lu.assertFalse(sample({ 4 }, 1, 8, 2) == first)
  lu.assertFalse(sample({ 4 }, 1, 7, 3) == first)
  lu.assertFalse(sample({ 4 }, 1, 7, 2, { 5 }) == first)
end

function T.test_one_kind_of_variation_does_not_change_the_others()
  local images = random_images(1, 1, 9, 9)
  local function turned(options)
    return augment.batch(new_batch(1, 1, 9, 9), images, ints { 1 }, augment.new(options), 5, 5)
  end
  local u = drawn(5, 5, 1)
  local both = turned { mirror = 1, rotation = 30 }
  local degrees = 30 * (2 * u[1] - 1)
  check.close(both, image.rotate(image.to_float(image.flip(images)), degrees), 1e-4)
end

function T.test_draws_fill_their_ranges_evenly()
  local images = create.full({ 1, 1, 1, 1 }, 100, "u8")
  local indices, numbers, n = {}, {}, 4000
  for i = 1, n do indices[i], numbers[i] = 1, i end
  local out = augment.batch(new_batch(n, 1, 1, 1), images, ints(indices), augment.new { brightness = 0.5 }, 1, 1, ints(numbers))
  local bins = { 0, 0, 0, 0 }
  for _, v in ipairs(check.flat(out)) do
    local bin = math.floor((v * 255 / 100 - 0.5) * 4) + 1
    bins[bin] = bins[bin] + 1
  end
  for _, count in ipairs(bins) do lu.assertTrue(math.abs(count - n / 4) < 120, count) end -- more than 4 deviations
end

function T.test_the_batch_is_bit_identical_with_any_number_of_threads()
  bits.check_same [[
    local create, view, augment = require "feral.core.create", require "feral.core.view", require "feral.steps.augment"
    local list = {}
    for i = 1, 3 * 40 * 40 * 8 do list[i] = string.char(i * i % 251) end
    local images = view.as_image(create.from_bytes(table.concat(list), {8, 3, 40, 40}, "u8"))
    local indices = create.from_table({1, 3, 5, 7, 2, 4, 6, 8, 1, 2, 3}, "i32")
    local out = view.as_image(create.empty {11, 3, 33, 35})
    augment.batch(out, images, indices, augment.new {rotation = 30, shift = 0.2, zoom = 0.3, mirror = 0.5, contrast = 0.3}, 1, 2)
    show(out)
  ]]
end

function T.test_apply_shows_what_the_loader_would_see()
  local images = random_images(1, 3, 10, 11)
  local aug = augment.new { rotation = 20, mirror = 0.5, brightness = 0.2, mean = 0.5, std = 0.2 }
  local shown = aug:apply(images[1], { seed = 3, epoch = 4, index = 5 })
  local out = augment.batch(new_batch(1, 3, 10, 11), images, ints { 1 }, aug:with { mean = 0, std = 1 }, 3, 4, ints { 5 })
  lu.assertEquals(shown.dtype, "u8")
  lu.assertEquals(create.totable(shown), create.totable(image.to_bytes(out)[1]))
  lu.assertStrContains(check.message(aug.apply, aug, image.to_float(images[1])), "a u8 image C x H x W expected")
end

function T.test_it_describes_itself()
  lu.assertEquals(tostring(augment.new()), "augment(nothing)")
  lu.assertEquals(tostring(augment.new { rotation = 10, shift = 0.1, mirror = 0.5, edge = "reflect" }),
    "augment(rotation +-10 degrees, shift +-0.1, mirror 0.5, edge reflect)")
end

function T.test_wrong_options_are_refused()
  local cases = {
    [{ rotaton = 1 }] = "augment.new: unknown option 'rotaton', did you mean 'rotation'?",
    [{ zoom = 3 }] = "augment: zoom must be a number from 0 to 0.99, got 3",
    [{ mirror = true }] = "augment: mirror must be a number from 0 to 1, got true",
    [{ shift = 0 / 0 }] = "augment: shift must be a number from 0 to 1, got",
    [{ edge = "wrap" }] = "augment: edge 'wrap' is unknown: clamp, reflect or constant",
  }
  for options, what in pairs(cases) do lu.assertStrContains(check.message(augment.new, options), what) end
  local aug = augment.new { zoom = 0.1 }
  lu.assertStrContains(check.message(aug.with, aug, { men = 1 }), "did you mean 'mean'?")
  lu.assertEquals(tostring(aug:with { mirror = 1 }), "augment(zoom +-0.1, mirror 1)")
  lu.assertEquals(tostring(aug), "augment(zoom +-0.1)")
end

function T.test_a_batch_that_does_not_fit_is_refused()
  local images, out = random_images(4, 3, 5, 5), new_batch(2, 3, 5, 5)
  local function message(...) return check.message(augment.batch, ...) end
  lu.assertStrContains(message(out, images, ints { 1, 5 }), "augment.batch: indices: 5 at place 2 is not in 1 .. 4")
  lu.assertStrContains(message(out, images, ints { 0, 1 }), "augment.batch: indices: 0 at place 1 is not in 1 .. 4")
  lu.assertStrContains(message(out, images, ints { 1, 2, 3 }), "augment.batch: 3 indices for the batch 2x3x5x5")
  lu.assertStrContains(message(out, images, ints { 1, 2 }, nil, 0, 0, ints { 1 }), "augment.batch: 2 indices for the batch")
  lu.assertStrContains(message(new_batch(2, 1, 5, 5), images, ints { 1, 2 }),
    "images 4x3x5x5 and batch 2x1x5x5 differ in channels")
  lu.assertStrContains(message(create.empty { 2, 3, 5, 5 }, images, ints { 1, 2 }), "the batch must lie in memory channels last")
  lu.assertStrContains(message(out, view.contiguous(images), ints { 1, 2 }), "the images must lie in memory channels last")
  lu.assertStrContains(message(out, images[1], ints { 1, 2 }), "the images must be N x C x H x W, got 3x5x5")
  lu.assertStrContains(message(out, images, ints { 1, 2 }, { mean = { 1, 2 } }),
    "augment: mean has 2 numbers, the image 3 channels")
  lu.assertStrContains(message(out, images, ints { 1, 2 }, { zoom = "much" }),
    "augment: zoom must be a number from 0 to 0.99, got much")
end

function T.test_lack_of_memory_leaves_nothing_behind()
  local images, out, indices = random_images(4, 3, 9, 9), new_batch(2, 3, 9, 9), ints { 2, 3 }
  local aug = augment.new { rotation = 10, brightness = 0.2 }
  check.survives_lack_of_memory(function()
    augment.batch(out, images, indices, aug, 1, 1)
    aug:apply(images[1])
  end)
end

return T
