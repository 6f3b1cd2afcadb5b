local lu = require "luaunit"
require "feral.tensor"
local image = require "feral.vision.image"
local transform = require "feral.core.transform"
local create = require "feral.core.create"
local check, pixels = require "check", require "pixels"
local each_shape, assert_by_channel, tolerance = pixels.each_shape, pixels.assert_by_channel, pixels.tolerance
local ramp = pixels.ramp

local T = {}

--- Resizes a picture [y][x] along one axis of n values taken by get(i), i from 1.
local function resized_line(line, to)
  local n, result = #line, {}
  for o = 0, to - 1 do
    if to < n then
      local low, high, sum = o * n / to, (o + 1) * n / to, 0
      for i = 0, n - 1 do sum = sum + line[i + 1] * math.max(0, math.min(high, i + 1) - math.max(low, i)) end
      result[o + 1] = sum / (n / to)
    else
      local at = math.max(0, math.min(n - 1, (o + 0.5) * n / to - 0.5))
      local left = math.floor(at)
      local right = math.min(left + 1, n - 1)
      result[o + 1] = line[left + 1] * (1 - (at - left)) + line[right + 1] * (at - left)
    end
  end
  return result
end

local function transposed(p)
  local result = {}
  for x = 1, #p[1] do
    result[x] = {}
    for y = 1, #p do result[x][y] = p[y][x] end
  end
  return result
end

local function resized_rows(p, width)
  local result = {}
  for y = 1, #p do result[y] = resized_line(p[y], width) end
  return result
end

function T.test_resize_is_the_area_mean_or_linear_along_each_axis()
  each_shape(function(dtype, ...)
    local t, height, width = pixels.random(dtype, ...), check.integer(1, 15), check.integer(1, 15)
    assert_by_channel(image.resize(t, height, width), t, function(p)
      return transposed(resized_rows(transposed(resized_rows(p, width)), height))
    end, tolerance(dtype))
  end)
end

function T.test_resize_to_the_same_size_changes_nothing_and_halving_takes_means()
  local t = pixels.random("u8", 3, 7, 9)
  lu.assertEquals(create.totable(image.resize(t, 7, 9)), create.totable(t))
  local four = create.from_table({ { { 0, 4 }, { 8, 12 } } }, "u8")
  lu.assertEquals(create.totable(image.resize(four, 1, 1)), { { { 6 } } })
  lu.assertEquals(create.totable(image.resize(four, 2, 4)), { { { 0, 1, 3, 4 }, { 8, 9, 11, 12 } } })
end

function T.test_crop_is_that_part_of_the_image()
  each_shape(function(dtype, ...)
    local t = pixels.random(dtype, ...)
    local height, width = t:size(-2), t:size(-1)
    local top, left = check.integer(1, height), check.integer(1, width)
    local h, w = check.integer(1, height - top + 1), check.integer(1, width - left + 1)
    assert_by_channel(image.crop(t, top, left, h, w), t, function(p)
      local part = {}
      for y = 1, h do part[y] = table.move(p[top + y - 1], left, left + w - 1, 1, {}) end
      return part
    end, 0)
  end)
  lu.assertStrContains(check.message(image.crop, ramp(1, 5, 6), 2, 3, 4, 5),
    "image.crop: 4 x 5 from row 2, column 3 on is not inside of 5 x 6")
end

function T.test_flips_and_quarter_turns_move_pixels_exactly()
  local moves = {
    { 2, function(t) return image.flip(t) end }, { 4, function(t) return image.flip(t, "vertical") end },
    { 8, function(t) return image.rotate(t, 90) end }, { 3, function(t) return image.rotate(t, -180) end },
    { 6, function(t) return image.rotate(t, 270) end }, { 6, function(t) return image.rotate(t, -90) end },
    { 1, function(t) return image.rotate(t, 720) end },
    { 5, function(t) return transform.orient(t, 5) end }, { 7, function(t) return transform.orient(t, 7) end },
  }
  each_shape(function(dtype, ...)
    local t, move = pixels.random(dtype, ...), moves[check.integer(1, #moves)]
    assert_by_channel(move[2](t), t, function(p) return pixels.upright(p, move[1]) end, 0)
  end)
  lu.assertStrContains(check.message(image.flip, ramp(1, 2, 2), "sideways"), "'sideways' is neither horizontal nor vertical")
end

function T.test_rotate_goes_against_the_clock()
  local square = create.from_table({ { { 1, 2 }, { 3, 4 } } }, "u8")
  lu.assertEquals(create.totable(image.rotate(square, 90)), { { { 2, 4 }, { 1, 3 } } })
  local t = image.to_float(pixels.random("u8", 2, 9, 9)) -- odd sides: the centre is a pixel, so the warp hits the grid
  local function by_warp(degrees)
    local c, s = math.cos(math.rad(degrees)), math.sin(math.rad(degrees))
    return image.affine(t, { c, -s, 4 - 4 * c + 4 * s, s, c, 4 - 4 * s - 4 * c })
  end
  for _, degrees in ipairs { 90, 180, 270 } do check.close(by_warp(degrees), image.rotate(t, degrees), 1e-4) end
  check.close(image.rotate(t, 30), by_warp(30), 1e-6)
end

--- The value of p at row y and column x, from 0, whatever stands there.
local function outside_value(p, y, x, edge, fill)
  local h, w = #p, #p[1]
  if edge == "constant" and (y < 0 or y >= h or x < 0 or x >= w) then return fill end
  if edge == "reflect" then
    while y < 0 or y >= h do y = y < 0 and -1 - y or 2 * h - 1 - y end
    while x < 0 or x >= w do x = x < 0 and -1 - x or 2 * w - 1 - x end
  end
  return p[math.max(0, math.min(h - 1, y)) + 1][math.max(0, math.min(w - 1, x)) + 1]
end

local function bilinear(p, y, x, edge, fill)
  local top, left = math.floor(y), math.floor(x)
  local sum = 0
  for j = 0, 1 do
    for i = 0, 1 do
      local weight = (1 - math.abs(y - top - j)) * (1 - math.abs(x - left - i))
      sum = sum + weight * outside_value(p, top + j, left + i, edge, fill)
    end
  end
  return sum
end

function T.test_affine_interpolates_and_knows_what_is_outside()
  local edges = { "clamp", "reflect", "constant" }
  each_shape(function(dtype, ...)
    local t, edge = pixels.random(dtype, ...), edges[check.integer(1, 3)]
    local map, height, width = {}, check.integer(1, 12), check.integer(1, 12)
    for i = 1, 6 do map[i] = check.integer(-300, 300) / 200 * (i % 3 == 0 and 8 or 1) end
    local fill = dtype == "u8" and 77 or 0.3
    local got = image.affine(t, map, { height = height, width = width, edge = edge, fill = fill })
    assert_by_channel(got, t, function(p)
      local result = {}
      for y = 0, height - 1 do
        result[y + 1] = {}
        for x = 0, width - 1 do
          result[y + 1][x + 1] = bilinear(p, map[4] * x + map[5] * y + map[6], map[1] * x + map[2] * y + map[3], edge, fill)
        end
      end
      return result
    end, dtype == "u8" and 0.51 or 1e-4)
  end)
end

function T.test_affine_survives_maps_that_lead_nowhere()
  local t = ramp(1, 4, 4)
  for _, wild in ipairs { 1e300, -1e300, math.huge, 0 / 0 } do
    for _, edge in ipairs { "clamp", "reflect", "constant" } do
      lu.assertEquals(image.affine(t, { wild, 1, 0, 0, 1, wild }, { edge = edge }).shape, { 1, 4, 4 })
    end
  end
  lu.assertStrContains(check.message(image.affine, t, { 1, 2 }), "a map has six numbers, got 2")
  lu.assertStrContains(check.message(image.rotate, t, 10, { edge = "wrap" }),
    "edge 'wrap' is unknown: clamp, reflect or constant")
end

function T.test_gray_is_luma()
  for i = 1, check.SHAPES do
    local dtype = i % 2 == 0 and "u8" or "f32"
    local t = pixels.random(dtype, 3, check.integer(1, 11), check.integer(1, 11))
    local r, g, b = table.unpack(create.totable(t))
    local got = create.totable(image.gray(t))
    lu.assertEquals(#got, 1)
    for y = 1, #r do
      for x = 1, #r[1] do
        lu.assertAlmostEquals(got[1][y][x], 0.299 * r[y][x] + 0.587 * g[y][x] + 0.114 * b[y][x], tolerance(dtype))
      end
    end
  end
  local one = ramp(1, 3, 3)
  lu.assertTrue(image.gray(one) == one)
  lu.assertStrContains(check.message(image.gray, create.full({ 2, 3, 3 }, 0, "u8")), "an image has 1 or 3 channels, got 2x3x3")
end

function T.test_normalize_and_back()
  for i = 1, check.SHAPES do
    local channels = check.integer(1, 4)
    local t = pixels.random(i % 2 == 0 and "u8" or "f32", channels, check.integer(1, 9), check.integer(1, 9))
    local mean, std = {}, {}
    for c = 1, channels do mean[c], std[c] = check.integer(0, 9) / 10, check.integer(1, 9) / 10 end
    local got, source = create.totable(image.normalize(t, { mean = mean, std = std })), create.totable(t)
    for c = 1, channels do
      for y = 1, #source[c] do
        for x = 1, #source[c][1] do
          local v = source[c][y][x]
          lu.assertAlmostEquals(got[c][y][x], ((i % 2 == 0 and v / 255 or v) - mean[c]) / std[c], 1e-5)
        end
      end
    end
    if i % 2 == 0 then lu.assertEquals(create.totable(image.to_bytes(image.to_float(t))), source) end
  end
  lu.assertEquals(create.totable(image.to_bytes(create.from_table { { { -1, 0.5, 2, 0 / 0 } } })), { { { 0, 128, 255, 0 } } })
  local t = ramp(3, 2, 2)
  lu.assertStrContains(check.message(image.normalize, t, { mean = { 0, 1 } }),
    "image.normalize: mean has 2 values, the image 3 channels")
  lu.assertStrContains(check.message(image.normalize, t, { std = 0 }), "image.normalize: std must be above 0.0, got 0.0")
  lu.assertStrContains(check.message(image.normalize, t, { mean = "x" }),
    "mean must be a number, or a table of one for each channel")
end

function T.test_what_is_no_image_tensor_is_refused()
  local wrong = "image.resize: an image is C x H x W and a batch N x C x H x W, got 3x3"
  lu.assertStrContains(check.message(image.resize, create.full({ 3, 3 }, 0), 2, 2), wrong)
  lu.assertStrContains(check.message(image.resize, create.full({ 1, 3, 3 }, 0, "i32"), 2, 2),
    "image.resize: an image is of u8 or f32, got i32")
  lu.assertStrContains(check.message(image.resize, {}, 2, 2), "image.resize: an image must be a tensor, got table")
  lu.assertStrContains(check.message(image.resize, ramp(1, 3, 3), 0, 2), "image.resize: height must be 1 or more, got 0")
  lu.assertStrContains(check.message(image.encode, ramp(1, 3, 3), "gif"), "format 'gif' is unknown: png or jpeg")
end

function T.test_lack_of_memory_leaves_nothing_behind()
  check.survives_lack_of_memory(function()
    local t = ramp(3, 20, 30)
    image.gray(transform.normalise(image.resize(t, 7, 40)))
    image.rotate(image.crop(t, 3, 3, 9, 9), 20)
    image.to_bytes(transform.normalise(image.flip(t)))
  end)
end

return T
