--- Lists of steps: what each step does, how lists are run, described and built, and that training and prediction agree.

local lu = require "luaunit"
local feral = require "feral"
local core = require "feral.core.steps"
local create = require "feral.core.create"
local check, bits = require "check", require "bits"
local steps, tensor, image, data = feral.steps, feral.tensor, feral.image, feral.data

local T = {}

local function picture(channels, height, width) return tensor.uniform({ channels, height, width }, 0, 255.99):to "u8" end

--- What the engine draws for the only step of a list: numbers in [0, 1).
local function drawn(seed, epoch, number)
  return create.totable(create.uniform_(create.empty { 8 }, seed, 1 << 63 | epoch << 32 | number, 0, 1))
end

local function either(most, u) return most * (2 * u - 1) end

--- The result of a list in training, reals of 0 to 255 as [c][y][x], and its map.
local function run(list, img, seed, epoch, number)
  local out, map = core.run(list.core, img, true, seed or 1, epoch or 2, number or 3)
  return create.totable(out)[1], map
end

---- Movements ----

local function outside(i, n, edge)
  if i >= 0 and i < n then return i end
  if edge == "constant" then return nil end
  if edge == "clamp" then return math.max(0, math.min(n - 1, i)) end
  while i < 0 or i >= n do i = i < 0 and -1 - i or 2 * n - 1 - i end
  return i
end

--- The image where a map says, interpolated bilinearly, the slow way.
local function warped(img, map, height, width, edge, fill)
  local result = {}
  for c, rows in ipairs(img) do
    result[c] = {}
    local function pixel(y, x)
      y, x = outside(y, #rows, edge), outside(x, #rows[1], edge)
      return y and x and rows[y + 1][x + 1] or fill
    end
    for y = 0, height - 1 do
      result[c][y + 1] = {}
      for x = 0, width - 1 do
        local sx, sy = map[1] * x + map[2] * y + map[3], map[4] * x + map[5] * y + map[6]
        local left, top = math.floor(sx), math.floor(sy)
        local fx, fy = sx - left, sy - top
        result[c][y + 1][x + 1] = (1 - fy) * ((1 - fx) * pixel(top, left) + fx * pixel(top, left + 1)) +
          fy * ((1 - fx) * pixel(top + 1, left) + fx * pixel(top + 1, left + 1))
      end
    end
  end
  return result
end

local function assert_near(got, expected, tolerance)
  for c, rows in ipairs(expected) do
    for y, row in ipairs(rows) do
      for x, value in ipairs(row) do lu.assertAlmostEquals(got[c][y][x], value, tolerance) end
    end
  end
end

--- The map that each moving step should give, from what it draws: that of its definition, about the centre.
local movements = {
  rotate = function(u, most, h, w)
    local a = math.rad(either(most, u[1]))
    local c, s, cx, cy = math.cos(a), math.sin(a), (w - 1) / 2, (h - 1) / 2
    return { c, -s, cx - c * cx + s * cy, s, c, cy - s * cx - c * cy }
  end,
  shift = function(u, most, h, w) return { 1, 0, -either(most, u[1]) * w, 0, 1, -either(most, u[2]) * h } end,
  zoom = function(u, most, h, w)
    local z = 1 + either(most, u[1])
    return { 1 / z, 0, (w - 1) / 2 * (1 - 1 / z), 0, 1 / z, (h - 1) / 2 * (1 - 1 / z) }
  end,
  shear = function(u, most, h) return { 1, either(most, u[1]), -either(most, u[1]) * (h - 1) / 2, 0, 1, 0 } end,
  mirror = function(u, p, _, w)
    if u[1] >= p then return { 1, 0, 0, 0, 1, 0 } end
    return { -1, 0, w - 1, 0, 1, 0 }
  end,
}

function T.test_each_movement_is_its_definition()
  local most = { rotate = 180, shift = 1, zoom = 0.9, shear = 1, mirror = 1 }
  local edges = { "clamp", "reflect", "constant" }
  for i = 1, check.SHAPES do
    local names = { "rotate", "shift", "zoom", "shear", "mirror" }
    local name, edge = names[i % 5 + 1], edges[i % 3 + 1]
    local value, h, w = most[name] * check.integer(1, 100) / 100, check.integer(1, 9), check.integer(1, 9)
    local img = picture(check.integer(1, 3), h, w)
    local list = steps { name == "mirror" and steps.mirror(value) or steps[name](value, { edge = edge, fill = 77 }) }
    local seed, epoch, number = check.integer(0, 1000), check.integer(0, 50), check.integer(1, 100)
    local got, map = run(list, img, seed, epoch, number)
    local expected = movements[name](drawn(seed, epoch, number), value, h, w)
    for k = 1, 6 do lu.assertAlmostEquals(map[k], expected[k], 1e-5 * math.max(1, math.abs(expected[k]))) end
    assert_near(got, warped(create.totable(img), map, h, w, edge, 77), 0.02)
  end
end

function T.test_neighbours_are_one_interpolation()
  for _ = 1, 100 do
    local h, w = check.integer(4, 12), check.integer(4, 12)
    local img, crop_h, crop_w = picture(1, h, w), check.integer(2, 4), check.integer(2, 4)
    local list = steps {
      steps.rotate(40), steps.shift(0.3), steps.random_crop(crop_h, crop_w), steps.zoom(0.4), steps.mirror(0.5),
    }
    local got, map = run(list, img, check.integer(1, 99))
    lu.assertEquals({ #got[1], #got[1][1] }, { crop_h, crop_w })
    assert_near(got, warped(create.totable(img), map, crop_h, crop_w, "clamp"), 0.02)
  end
end

function T.test_neighbours_that_differ_at_the_edge_are_two_interpolations()
  local img = picture(1, 8, 8)
  local list = steps { steps.shift(1, { edge = "constant", fill = 200 }), steps.rotate(90) }
  local got = run(list, img, 5)
  local first = core.run(steps { list[1] }.core, img, true, 5, 2, 3)
  local _, whole = core.run(list.core, img, true, 5, 2, 3)
  local _, moved = core.run(steps { list[1] }.core, img, true, 5, 2, 3)
  -- what rotation adds to the shift
  local a, b = moved[3], moved[6]
  local turn = { whole[1], whole[2], whole[3] - a, whole[4], whole[5], whole[6] - b }
  assert_near(got, warped(create.totable(first)[1], turn, 8, 8, "clamp"), 0.02)
end

function T.test_a_mirrored_image_is_an_exact_flip()
  local img = picture(3, 7, 10)
  lu.assertEquals(steps { steps.mirror(1) }:apply(img):totable(), image.flip(img):totable())
end

function T.test_points_go_where_the_picture_goes()
  for _ = 1, 50 do
    local h, w = check.integer(30, 50), check.integer(30, 50)
    local img, x, y = tensor.zeros({ 1, h, w }, "u8"), check.integer(14, w - 15), check.integer(14, h - 15)
    img:narrow(2, y, 3):narrow(3, x, 3):fill_(255) -- around the point (x, y) from 0
    local list = steps {
      steps.crop(28, 26, { top = math.min(y - 10, h - 27), left = math.min(x - 10, w - 25) }), steps.resize(40, 52),
      steps.rotate(20), steps.mirror(0.5), steps.zoom(0.2),
    }
    local out, map = list:apply(img, { seed = check.integer(1, 999), index = 1 })
    local sum, at_x, at_y = 0, 0, 0
    for row, values in ipairs(out[1]:totable()) do
      for column, v in ipairs(values) do sum, at_x, at_y = sum + v, at_x + v * (column - 1), at_y + v * (row - 1) end
    end
    local point = map:points { { x, y } }[1]
    if sum > 255 * 20 then
      lu.assertAlmostEquals(at_x / sum, point[1], 0.25)
      lu.assertAlmostEquals(at_y / sum, point[2], 0.25)
    end
  end
end

function T.test_boxes_go_along()
  local list = steps { steps.crop(20, 10, { top = 3, left = 5 }), steps.resize(40, 20), steps.mirror(1) }
  local _, map = list:apply(picture(1, 30, 30))
  lu.assertTrue(map:is_mirrored())
  local box = map:boxes { { 6, 4, 3, 5 } }[1] -- x from 2 on in the crop, 4 enlarged, mirrored: 20 - 4 - 6
  for k, v in ipairs { 10, 4, 6, 10 } do lu.assertAlmostEquals(box[k], v, 1e-6) end
end

---- Light ----

local function by_element(f)
  return function(img, u, value)
    local out, sum, count = {}, 0, 0
    for c, rows in ipairs(img) do
      for _, row in ipairs(rows) do
        for x = 1, #row do sum, count = sum + row[x], count + 1 end
      end
      out[c] = {}
    end
    for c, rows in ipairs(img) do
      for y, row in ipairs(rows) do
        out[c][y] = {}
        for x, v in ipairs(row) do
          local from_middle, below_middle = x - 1 - (#row - 1) / 2, y - 1 - (#rows - 1) / 2
          local lit = f(v, u, value, sum / count, from_middle, below_middle, #row, #rows)
          out[c][y][x] = math.max(0, math.min(255, lit))
        end
      end
    end
    return out
  end
end

local lights = {
  brightness = by_element(function(v, u, value) return v * (1 + either(value, u[1])) end),
  contrast = by_element(function(v, u, value, mean) return mean + (v - mean) * (1 + either(value, u[1])) end),
  gamma = by_element(function(v, u, value) return 255 * (v / 255) ^ ((1 + value) ^ either(1, u[1])) end),
  light = by_element(function(v, u, value, _, x, y, w, h)
    local angle, strength = either(math.pi, u[1]), u[2] * value
    return v * (1 + strength * (math.cos(angle) * x * 2 / w + math.sin(angle) * y * 2 / h))
  end),
}

function T.test_each_change_of_light_is_its_definition()
  local tolerance = { brightness = 0.02, contrast = 0.02, gamma = 1.5, light = 0.02 }
  for i = 1, check.SHAPES do
    local names = { "brightness", "contrast", "gamma", "light" }
    local name, value = names[i % 4 + 1], check.integer(1, 100) / 100
    local img = picture(check.integer(1, 3), check.integer(1, 9), check.integer(1, 9))
    local seed = check.integer(1, 999)
    assert_near(run(steps { steps[name](value) }, img, seed), lights[name](create.totable(img), drawn(seed, 2, 3), value),
      tolerance[name])
  end
end

function T.test_blur_is_a_gaussian()
  local img = tensor.zeros({ 1, 31, 33 }, "u8")
  img:narrow(2, 16, 1):narrow(3, 17, 1):fill_(255)
  local seed = 7
  local sigma, got = 3 * drawn(seed, 2, 3)[1], run(steps { steps.blur(3) }, img, seed)[1]
  local sum, second = 0, 0
  for y, row in ipairs(got) do
    for x, v in ipairs(row) do
      sum, second = sum + v, second + v * ((x - 17) ^ 2 + (y - 16) ^ 2)
    end
  end
  lu.assertAlmostEquals(sum, 255, 0.1)
  lu.assertAlmostEquals(math.sqrt(second / sum / 2), sigma, 0.05 * sigma) -- cut off at three deviations
  local flat = tensor.full({ 3, 5, 7 }, 90, "u8")
  assert_near(run(steps { steps.blur(10) }, flat, seed), create.totable(flat), 1e-3)
end

function T.test_sharpen_adds_what_a_pixel_has_beyond_the_mean_around_it()
  for _ = 1, 50 do
    local h, w, channels = check.integer(1, 7), check.integer(1, 7), check.integer(1, 3)
    local img, seed, expected = picture(channels, h, w), check.integer(1, 99), {}
    local rows, amount = create.totable(img), 2 * drawn(seed, 2, 3)[1]
    for c = 1, channels do
      expected[c] = {}
      for y = 1, h do
        expected[c][y] = {}
        for x = 1, w do
          local sum, v = 0, rows[c][y][x]
          for i = -1, 1 do
            for j = -1, 1 do sum = sum + rows[c][math.max(1, math.min(h, y + i))][math.max(1, math.min(w, x + j))] end
          end
          expected[c][y][x] = math.max(0, math.min(255, v + amount * (v - sum / 9)))
        end
      end
    end
    assert_near(run(steps { steps.sharpen(2) }, img, seed), expected, 0.01)
  end
end

function T.test_noise_has_the_deviation_that_was_drawn()
  local img = tensor.full({ 3, 60, 61 }, 128, "u8")
  local out = core.run(steps { steps.noise(0.1) }.core, img, true, 4, 2, 3)
  local deviation = 255 * 0.1 * drawn(4, 2, 3)[1]
  lu.assertAlmostEquals(out:mean():item(), 128, 4 * deviation / math.sqrt(10980))
  lu.assertAlmostEquals(out:std():item(), deviation, 0.05 * deviation)
end

function T.test_erase_hides_one_rectangle()
  for i = 1, 200 do
    local h, w = check.integer(3, 20), check.integer(3, 20)
    local img = tensor.full({ 1, h, w }, 200, "u8")
    local got = run(steps { steps.erase { probability = 1, least = 0.1, most = 0.3, fill = "black" } }, img, i)[1]
    local left, top, right, bottom, count = math.huge, math.huge, 0, 0, 0
    for y, row in ipairs(got) do
      for x, v in ipairs(row) do
        if v == 0 then
          left, right, top, bottom = math.min(left, x), math.max(right, x), math.min(top, y), math.max(bottom, y)
          count = count + 1
        end
      end
    end
    lu.assertEquals(count, (right - left + 1) * (bottom - top + 1))
    lu.assertTrue(count >= 1 and count <= 0.3 * h * w + h + w + 1)
  end
  local img = picture(1, 9, 9)
  lu.assertEquals(run(steps { steps.erase(0) }, img), create.totable(img))
end

function T.test_equalize()
  -- values 10, 20, 30 of 4, 2 and 2 pixels: the smallest goes to 0, then by the share of those not above, without the smallest's
  local img = tensor({ { { 10, 10, 10, 10 }, { 20, 20, 30, 30 } } }, "u8")
  lu.assertEquals(steps { steps.equalize() }:apply(img):totable(), { { { 0, 0, 0, 0 }, { 128, 128, 255, 255 } } })
  local flat = tensor.full({ 3, 2, 2 }, 9, "u8")
  lu.assertEquals(steps { steps.equalize() }:apply(flat):totable(), flat:totable())
end

---- Sizes and colours ----

function T.test_steps_that_image_functions_do_too()
  for _ = 1, 60 do
    local img = picture(check.integer(0, 1) * 2 + 1, check.integer(1, 30), check.integer(1, 30))
    local h, w = check.integer(1, 20), check.integer(1, 20)
    lu.assertEquals(steps { steps.gray() }:apply(img):totable(), image.gray(img):totable())
    lu.assertEquals(steps { steps.resize(h, w) }:apply(img):totable(), image.resize(img, h, w):totable())
    local top, left = check.integer(1, img:size(2)), check.integer(1, img:size(3))
    local rows, columns = check.integer(1, img:size(2) - top + 1), check.integer(1, img:size(3) - left + 1)
    lu.assertEquals(steps { steps.crop(rows, columns, { top = top, left = left }) }:apply(img):totable(),
      image.crop(img, top, left, rows, columns):totable())
    local gray = image.gray(img)
    check.close(steps { steps.normalize(0.4, { 0.2 }) }:apply(gray), image.normalize(gray, { mean = 0.4, std = 0.2 }), 1e-6)
  end
  lu.assertEquals(steps { steps.rgb() }:apply(tensor({ { { 5, 6 } } }, "u8")):totable(),
    { { { 5, 6 } }, { { 5, 6 } }, { { 5, 6 } } })
end

function T.test_without_top_and_left_the_middle_is_taken()
  local img = picture(1, 9, 12)
  lu.assertEquals(steps { steps.crop(5, 6) }:apply(img):totable(), image.crop(img, 3, 4, 5, 6):totable())
  -- in prediction a random crop takes it too, and other random steps are left out
  local list = steps { steps.random_crop(5, 6), steps.rotate(50), steps.noise(0.5), steps.mixup() }
  lu.assertEquals(list:apply(img, { training = false }):totable(), image.crop(img, 3, 4, 5, 6):totable())
end

function T.test_random_crops_come_everywhere()
  local img, seen = tensor.arange(0, 8):reshape(1, 3, 3):to "u8", {}
  for i = 1, 200 do seen[steps { steps.random_crop(1) }:apply(img, { seed = 1, index = i }):item()] = true end
  for v = 0, 8 do lu.assertTrue(seen[v], v) end
end

function T.test_images_of_reals_are_0_to_1()
  local img = picture(3, 6, 5)
  local reals = image.to_float(img)
  for _, list in ipairs { steps { steps.gray(), steps.resize(4) }, steps { steps.brightness(0.3) } } do
    local got = list:apply(reals, { seed = 3 })
    lu.assertEquals(got.dtype, reals.dtype)
    local expected = core.run(list.core, reals * 255, list:is_random(), 3, 0, 1)[1] / 255
    check.close(got, expected, 1e-6)
  end
  lu.assertStrContains(check.message(function() return steps { steps.gray() }:apply(img:to(reals.dtype)) end),
    "has values of 0 to 1, the largest here is")
end

---- Mixing ----

function T.test_mixup_mixes_images_and_labels_alike()
  local n, labels = 12, {}
  for i = 1, n do labels[i] = 1 + i % 3 end
  local images = tensor.uniform({ n, 1, 5, 4 }, 0, 255.99):to "u8"
  local set = data.set { images = images, labels = labels, classes = { "a", "b", "c" } }
  local plain = data.loader(set, { batch = 5, seed = 4, mean = 0, std = 1 })
  local mixing = data.loader(set, { batch = 5, seed = 4, mean = 0, std = 1, augment = { steps.mixup(1) } })
  local mixed = 0
  for x, y, batch in mixing:batches(3) do
    lu.assertEquals(y.shape, { #batch.index, 3 })
    for i, at in ipairs(batch.index:totable()) do
      local part, other = batch.part[i]:item(), batch.second[i]:item()
      lu.assertTrue(part >= 0.5 and part <= 1)
      local expected = image.to_float(set.images[at]) * part + image.to_float(set.images[other]) * (1 - part)
      check.close(x[i], expected, 1e-5)
      local share = { 0, 0, 0 }
      share[labels[at]] = part
      share[labels[other]] = share[labels[other]] + 1 - part
      check.close(y[i], share, 1e-6)
      mixed = mixed + (part < 1 and 1 or 0)
    end
  end
  lu.assertTrue(mixed > 6)
  for _, y in plain:batches(3) do lu.assertEquals(y.dtype, "i32") end
end

function T.test_what_is_mixed_in_is_varied_too()
  local set = data.synthetic { count = 6, size = 16 }
  local list = { steps.rotate(30), steps.shift(0.2), steps.mixup(1), steps.brightness(0.3) }
  local loader = data.loader(set, { batch = 6, seed = 2, augment = list })
  local x, _, batch = loader:batches(1)()
  for i, at in ipairs(batch.index:totable()) do
    local function varied(index) return core.run(steps { list[1], list[2] }.core, set.images[index], true, 2, 1, index) end
    local part = batch.part[i]:item()
    local sum = varied(at) * part + varied(batch.second[i]:item()) * (1 - part)
    -- the light that comes behind: a factor, cut at white
    local factor = 1 + either(0.3, core.run(steps { steps.round(), steps.round(), steps.round(), steps.brightness(0.3) }.core,
      tensor.full({ 1, 1, 1 }, 100, "u8"), true, 2, 1, at):item() / 100 / 0.6 - 1 / 0.6 + 0.5)
    check.close(x[i], ((sum * factor):clamp(0, 255)[1] / 255 - 0.5) / 0.25, 1e-3)
  end
end

---- Lists ----

local function random_step()
  local function share() return check.integer(0, 10) / 10 end
  local makers = {
    function() return steps.gray() end, function() return steps.rgb() end, function() return steps.equalize() end,
    function() return steps.resize(check.integer(6, 14), check.integer(6, 14)) end, function() return steps.round() end,
    function() return steps.crop(check.integer(3, 5), check.integer(3, 5)) end,
    function() return steps.random_crop(check.integer(2, 3), check.integer(2, 3)) end,
    function() return steps.rotate(180 * share(), { edge = "reflect" }) end, function() return steps.shift(share()) end,
    function() return steps.zoom(0.9 * share()) end, function() return steps.shear(share()) end,
    function() return steps.mirror(share()) end, function() return steps.brightness(share()) end,
    function() return steps.contrast(share()) end, function() return steps.gamma(share()) end,
    function() return steps.light(share()) end, function() return steps.blur(3 * share()) end,
    function() return steps.sharpen(share()) end, function() return steps.noise(share()) end,
    function() return steps.erase(share()) end,
  }
  return makers[check.integer(1, #makers)]()
end

--- A list that a picture of 20 x 20 can go through, as far as is known.
local function random_list()
  local list = {}
  for i = 1, check.integer(0, 9) do list[i] = random_step() end
  if check.integer(0, 1) == 1 then list[#list + 1] = steps.normalize(0.4, 0.3) end
  return steps(list)
end

--- The rule on which everything stands: what a set was trained on is what a raw image becomes.
function T.test_training_and_prediction_give_the_same_bits()
  local compared = 0
  for _ = 1, check.SHAPES do
    local list, n, channels = random_list(), check.integer(1, 4), check.integer(0, 1) * 2 + 1
    local h, w = check.integer(1, 24), check.integer(1, 24)
    if list:size(channels, h, w) then
      compared = compared + 1
      local labels = {}
      for i = 1, n do labels[i] = 1 end
      local images = tensor.uniform({ n, channels, h, w }, 0, 255.99):to "u8"
      local set = data.set { images = images, labels = labels, classes = { "a" } }
      set.steps = {} -- as they are, whatever their size
      local loader = data.loader(set, { batch = n, shuffle = false, preprocess = list })
      local x = loader:batches(1)()
      local raw = {}
      for i = 1, n do raw[i] = set.images[i] end
      lu.assertTrue(loader.preprocessing:batch(raw):tobytes() == x:tobytes(), tostring(list))
      local saved = assert(steps.build(assert(feral.json.decode(feral.json.encode(loader.preprocessing:describe())))))
      lu.assertTrue(saved:batch(raw):tobytes() == x:tobytes(), tostring(saved))
      -- cut in two, with bytes between: as a set in memory keeps them
      local cut = check.integer(0, #list)
      local first, rest = list:slice(1, cut), list:slice(cut + 1)
      if not first:has "normalize" then
        local whole = steps { first, steps.round(), rest }
        local halves = {}
        for i = 1, n do halves[i] = rest:has "normalize" and rest:apply(first:bytes(raw[i]), { training = false }) end
        if halves[1] then lu.assertTrue(tensor.stack(halves):tobytes() == whole:batch(raw):tobytes(), tostring(whole)) end
      end
    end
  end
  lu.assertTrue(compared > check.SHAPES / 4, compared)
end

function T.test_lists_are_described_and_built()
  for _ = 1, 100 do
    local list = random_list()
    local again = assert(steps.build(list:describe()))
    lu.assertEquals(again:describe(), list:describe())
    lu.assertEquals(tostring(again), tostring(list))
    lu.assertTrue(again == list)
    -- what is printed is what one would write
    local text = tostring(list):gsub("(%l[%l_]*)%(", "steps.%1(")
    local written = load("local steps = ...; return steps" .. text)(steps)
    lu.assertEquals(tostring(written), tostring(list))
  end
end

function T.test_a_list_with_others()
  local base = steps { steps.gray(), steps.resize(9), steps.normalize(0.1, 0.2) }
  lu.assertEquals(tostring(base:with(steps { steps.mirror() })), "{ gray(), resize(9), mirror(), normalize(0.1, 0.2) }")
  lu.assertEquals(tostring(steps { steps.gray() } .. steps { steps.mirror(1) }), "{ gray(), mirror(1) }")
  lu.assertTrue(base:begins_with(steps { steps.gray(), steps.resize(9) }))
  lu.assertFalse(base:begins_with(steps { steps.gray(), steps.resize(8) }))
  lu.assertEquals({ base:output() }, { 1, 9, 9 })
  lu.assertNil((steps { steps.gray() }:output()))
  lu.assertEquals({ steps { steps.rgb(), steps.crop(4, 5) }:size(1, 20, 30) }, { 3, 4, 5, true })
end

function T.test_a_sample_depends_on_seed_epoch_and_number_alone()
  local img, list = picture(1, 12, 12), feral.augment.faces(2)
  local function sample(...) return core.run(list.core, img, true, ...):tobytes() end
  local first = sample(7, 2, 4)
  lu.assertTrue(sample(7, 2, 4) == first)
  lu.assertFalse(sample(8, 2, 4) == first)
  lu.assertFalse(sample(7, 3, 4) == first)
  lu.assertFalse(sample(7, 2, 5) == first)
end

function T.test_each_place_in_the_list_draws_for_itself()
  local img = tensor.full({ 1, 1, 1 }, 100, "u8")
  local function factor(list) return run(list, img)[1][1][1] / 100 end
  local alone = factor(steps { steps.brightness(0.5) })
  -- what stands behind does not matter, what stands before moves it to another place
  lu.assertAlmostEquals(factor(steps { steps.brightness(0.5), steps.mirror(0.5) }), alone, 1e-5)
  local second = factor(steps { steps.round(), steps.brightness(0.5) })
  lu.assertNotAlmostEquals(second, alone, 1e-5)
  lu.assertAlmostEquals(factor(steps { steps.brightness(0), steps.brightness(0.5) }), second, 1e-5)
end

function T.test_apply_draws_anew_at_each_call()
  local img, list = picture(1, 9, 9), steps { steps.rotate(90) }
  tensor.manual_seed(5)
  local first, second = list:apply(img), list:apply(img)
  lu.assertNotEquals(first:totable(), second:totable())
  tensor.manual_seed(5)
  lu.assertEquals(list:apply(img):totable(), first:totable())
end

function T.test_draws_fill_their_ranges_evenly()
  local img, list, n, bins = tensor.full({ 1, 1, 1 }, 100, "u8"), steps { steps.brightness(0.5) }, 4000, { 0, 0, 0, 0 }
  for i = 1, n do
    local bin = math.floor((core.run(list.core, img, true, 1, 1, i):item() / 100 - 0.5) * 4) + 1
    bins[bin] = bins[bin] + 1
  end
  for _, count in ipairs(bins) do lu.assertTrue(math.abs(count - n / 4) < 120, count) end -- more than 4 deviations
end

---- What is refused ----

function T.test_wrong_steps_are_refused()
  local cases = {
    { function() return steps.rotat(1) end, "there is no step 'rotat', did you mean 'rotate'?" },
    { function() return steps.rotate { degres = 1 } end,
      "rotate: unknown option 'degres', did you mean 'degrees'? (known: degrees, edge, fill)" },
    { function() return steps.rotate() end, "rotate: degrees is missing" },
    { function() return steps.rotate(200) end, "rotate: degrees must be a number from 0.0 to 180.0, got 200" },
    { function() return steps.rotate("9") end, "rotate: degrees must be a number from 0.0 to 180.0, got 9" },
    { function() return steps.zoom(0 / 0) end, "zoom: fraction must be a number from 0.0 to 0.99, got" },
    { function() return steps.resize(2.5) end, "resize: height must be a whole number from 1.0 to 8192.0, got 2.5" },
    { function() return steps.rotate(1, { edge = "wrap" }) end, "rotate: edge must be clamp, reflect or constant, got 'wrap'" },
    { function() return steps.gray(3) end, "gray: unknown option '1' (known: none)" },
    { function() return steps.normalize({}) end, "normalize: mean must be a number or a list of 1 to 16, got a list of 0" },
    { function() return steps { steps.gray(), 5 } end, "steps: item 2 of the list is no step but a number" },
    { function() return steps { mirror = 0.5 } end, "steps: 'mirror = ...' is no step; write steps.mirror(...)" },
    { function() return steps(steps.gray()) end, "steps: a list of steps expected, as in" },
    { function() return steps { steps.normalize(), steps.gray() } end,
      "steps: normalize must be the last step, here comes gray behind it" },
    { function() return steps { steps.mixup(), steps.mixup() } end, "steps: a list mixes samples once" },
    { function() return feral.augment.new { rotation = 10 } end, "augment.new is no more: write augment {" },
    { function() return steps { steps.crop(9) }:apply(picture(1, 5, 5)) end,
      "crop: 9 x 9 from row 1, column 1 on is not inside of 5 x 5" },
    { function() return steps { steps.random_crop(9) }:apply(picture(1, 5, 5)) end,
      "random_crop: 9 x 9 does not fit into 5 x 5" },
    { function() return steps { steps.gray() }:apply(picture(2, 5, 5)) end, "gray: an image has 1 or 3 channels, this one 2" },
    { function() return steps { steps.normalize({ 0, 1 }) }:apply(picture(3, 5, 5)) end,
      "normalize: mean has 2 values, the image 3 channels" },
    { function() return steps { steps.gray() }:apply(tensor.zeros { 4, 4 }) end,
      "apply: an image must be a path or a tensor C x H x W, got 4x4 of" },
  }
  for _, case in ipairs(cases) do lu.assertStrContains(check.message(case[1]), case[2]) end
  local many = {}
  for i = 1, 33 do many[i] = steps.mirror() end
  lu.assertStrContains(check.message(steps, many), "steps: a list has at most 32 steps, got 33")
end

function T.test_damaged_descriptions_are_refused()
  local cases = {
    [5] = "steps: a list expected, got number",
    [{ { name = "rotatee", degrees = 1 } }] = "steps: there is no step 'rotatee', did you mean 'rotate'? (step 1)",
    [{ { name = "gray" }, "gray" }] = "steps: there is no step 'gray'",
    [{ { name = "rotate", degrees = 1, much = 2 } }] = "steps: rotate has no option 'much'",
    [{ { name = "rotate", degrees = {} } }] = "rotate: degrees must be a number",
    [{ { name = "normalize" }, { name = "gray" } }] = "steps: normalize must be the last step",
  }
  for plain, what in pairs(cases) do
    local list, message = steps.build(plain)
    lu.assertNil(list)
    lu.assertStrContains(message, what)
  end
end

---- Memory and threads ----

function T.test_bits_are_the_same_with_any_number_of_threads()
  bits.check_same [[
    local feral = require "feral"
    local steps, tensor = feral.steps, feral.tensor
    local labels = {}
    for i = 1, 11 do labels[i] = 1 end
    local images = tensor.uniform({ 11, 3, 40, 40 }, 0, 255.99):to "u8"
    local set = feral.data.set { images = images, labels = labels, classes = { "a" } }
    local list = steps { steps.resize(50), steps.random_crop(33, 35), steps.rotate(30), steps.light(0.5), steps.blur(2),
      steps.noise(0.1), steps.erase(), steps.mixup() }
    for x in feral.data.loader(set, { batch = 4, augment = list }):batches(2) do show(x) end
  ]]
end

function T.test_survives_lack_of_memory()
  local img = picture(3, 9, 9)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    local list = steps { steps.gray(), steps.resize(20), steps.rotate(10), steps.blur(1), steps.normalize() }
    list:apply(img)
    list:batch { img, img }
    steps.build(list:describe())
  end)
end

return T
