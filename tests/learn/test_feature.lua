local lu = require "luaunit"
require "feral.tensor"
local feature, image = require "feral.learn.feature", require "feral.vision.image"
local create, view = require "feral.core.create", require "feral.core.view"
local check, bits = require "check", require "bits"

local T = {}

--- A pattern with all directions in it, without a data file.
local function pattern(height, width)
  local bytes = {}
  for y = 0, height - 1 do
    for x = 0, width - 1 do bytes[#bytes + 1] = string.char((x * x * 3 + y * 7 + x * y * 5) % 256) end
  end
  return create.from_bytes(table.concat(bytes), { 1, height, width }, "u8")
end

function T.test_numbers_are_those_of_opencv()
  -- cv2.HOGDescriptor((48, 48), (16, 16), (8, 8), (8, 8), 9) of OpenCV 4.6, every 90th of the 900 numbers
  local expected = { 0.07528, 0, 0.01082, 0.02037, 0.22941, 0.14281, 0.25247, 0.00061, 0.01925, 0.01859 }
  local got = create.totable(feature.hog(pattern(48, 48)))
  lu.assertEquals(#got, 900)
  local sum = 0
  for _, v in ipairs(got) do sum = sum + v end
  lu.assertAlmostEquals(sum, 121.24899, 1e-3)
  for i, v in ipairs(expected) do lu.assertAlmostEquals(got[90 * i - 89], v, 3e-4) end -- its arc tangent is approximate
end

function T.test_numbers_are_those_of_opencv_with_other_settings()
  -- cv2.HOGDescriptor((24, 32), (8, 8), (4, 4), (4, 4), 6, 1, -1, 0, 0.2, False, 64, True), every 80th of the 840 numbers
  local expected = { 0.34586, 0.26142, 0.27705, 0.23105, 0.28414, 0.32752, 0.06884, 0.27427, 0.06546, 0.02679, 0.11624 }
  local got = create.totable(feature.hog(pattern(32, 24), { cell = 4, block = 8, stride = 4, bins = 6, signed = true }))
  lu.assertEquals(#got, 840)
  for i, v in ipairs(expected) do lu.assertAlmostEquals(got[80 * i - 79], v, 3e-4) end
end

--- A triangle of height 1 over 0, that reaches 0 at +-1.
local function tent(distance) return math.max(0, 1 - math.abs(distance)) end

local function mirrored(i, n)
  if n == 1 then return 1 end
  return i < 1 and 2 or i > n and n - 1 or i
end

--- One number of one block, the slow way: every pixel's gradient, weighted by how near it is in direction, place and
--- to the block's centre.
local function histogram_entry(p, o, top, left, row, column, bin)
  local period = o.signed and 2 * math.pi or math.pi
  local sum = 0
  for y = 0, o.block - 1 do
    for x = 0, o.block - 1 do
      local py, px = top + y + 1, left + x + 1
      local dx = p[py][mirrored(px + 1, #p[1])] - p[py][mirrored(px - 1, #p[1])]
      local dy = p[mirrored(py + 1, #p)][px] - p[mirrored(py - 1, #p)][px]
      local centre = (bin + 0.5) * period / o.bins
      local off = (math.atan(dy, dx) - centre) % period
      off = math.min(off, period - off) * o.bins / period
      local place = tent((y + 0.5) / o.cell - 0.5 - row) * tent((x + 0.5) / o.cell - 0.5 - column)
      local sigma, cy, cx = o.block / 4, y - o.block / 2, x - o.block / 2
      sum = sum + math.sqrt(dx * dx + dy * dy) * tent(off) * place * math.exp(-(cy * cy + cx * cx) / (2 * sigma * sigma))
    end
  end
  return sum
end

local function normalised(block, o)
  local sum, again = 0, 0
  for _, v in ipairs(block) do sum = sum + v * v end
  for i, v in ipairs(block) do
    block[i] = math.min(o.clip, v / (math.sqrt(sum) + 0.1 * #block))
    again = again + block[i] ^ 2
  end
  for i, v in ipairs(block) do block[i] = v / (math.sqrt(again) + 1e-3) end
end

local function reference(p, o)
  local result, cells = {}, o.block // o.cell
  for left = 0, #p[1] - o.block, o.stride do
    for top = 0, #p - o.block, o.stride do
      local block = {}
      for column = 0, cells - 1 do
        for row = 0, cells - 1 do
          for bin = 0, o.bins - 1 do block[#block + 1] = histogram_entry(p, o, top, left, row, column, bin) end
        end
      end
      normalised(block, o)
      table.move(block, 1, #block, #result + 1, result)
    end
  end
  return result
end

function T.test_hog_is_the_sum_over_pixels_for_any_geometry()
  for i = 1, check.SHAPES do
    local o = { cell = check.integer(1, 4), stride = check.integer(1, 3), bins = check.integer(2, 7), signed = i % 2 == 0,
      clip = check.integer(1, 4) / 10 }
    o.block = o.cell * check.integer(1, 2)
    local height, width = o.block + o.stride * check.integer(0, 2), o.block + o.stride * check.integer(0, 2)
    local n, bytes = check.integer(1, 2), {}
    for k = 1, n * height * width do bytes[k] = string.char(check.integer(0, 255)) end
    local images = create.from_bytes(table.concat(bytes), { n, 1, height, width }, "u8")
    local got = create.totable(feature.hog(i % 3 == 0 and image.to_float(images) or images, o))
    for k = 1, n do
      local expected = reference(create.totable(images[k][1]), o)
      lu.assertEquals(#got[k], #expected)
      for j = 1, #expected do lu.assertAlmostEquals(got[k][j], expected[j], 2e-5) end
    end
  end
end

function T.test_a_flat_image_gives_zeros_and_no_nan()
  for _, v in ipairs(create.totable(feature.hog(create.full({ 1, 16, 16 }, 200, "u8")))) do lu.assertEquals(v, 0.0) end
end

function T.test_what_is_not_finite_spoils_the_blocks_that_see_it_alone()
  for _, signed in ipairs { false, true } do
    for _, value in ipairs { 0 / 0, math.huge, -math.huge } do
      local x = image.to_float(pattern(48, 48))
      local sound = create.totable(feature.hog(x, { signed = signed }))
      x[1][9][9] = value
      for i, v in ipairs(create.totable(feature.hog(x, { signed = signed }))) do
        local block = (i - 1) // 36 -- 5 x 5 blocks of 36 numbers, column by column; pixel 9, 9 and its neighbours lie in 4
        local seen = block % 5 < 2 and block // 5 < 2
        if seen then lu.assertTrue(v ~= v) else lu.assertEquals(v, sound[i]) end
      end
    end
  end
end

function T.test_numbers_do_not_depend_on_the_batch_or_the_threads()
  local a, b = pattern(48, 48), image.flip(pattern(48, 48))
  local both = feature.hog(view.reshape(require("feral.tensor").cat({ a, b }, 1), 2, 1, 48, 48))
  lu.assertEquals(both.shape, { 2, 900 })
  lu.assertTrue(create.tobytes(both[1]) == create.tobytes(feature.hog(a)))
  lu.assertTrue(create.tobytes(both[2]) == create.tobytes(feature.hog(b)))
  bits.check_same [[
    local create, feature = require "feral.core.create", require "feral.learn.feature"
    local images = create.uniform_(create.empty {20, 1, 32, 32}, 3, 3)
    show(feature.hog(images))
  ]]
end

function T.test_images_and_options_that_do_not_fit_are_refused()
  local function message(...) return check.message(feature.hog, ...) end
  lu.assertStrContains(message(pattern(50, 48)), "feature.hog: blocks of 16 every 8 pixels do not fit into 50 x 48")
  lu.assertStrContains(message(pattern(8, 8)), "feature.hog: blocks of 16 every 8 pixels do not fit into 8 x 8")
  lu.assertStrContains(message(create.full({ 3, 16, 16 }, 0, "u8")),
    "feature.hog: gray images expected (N x 1 x H x W), got 1x3x16x16")
  lu.assertStrContains(message(pattern(16, 16), { block = 12 }), "feature.hog: the block (12) must be a multiple of the cell (8)")
  lu.assertStrContains(message(pattern(16, 16), { bin = 12 }), "did you mean 'bins'?")
  lu.assertStrContains(message(pattern(16, 16), { bins = 1 }), "feature.hog: bins must be 2 or more, got 1")
  lu.assertStrContains(message(pattern(16, 16), { bins = 999 }), "feature.hog: at most 360 bins, got 999")
end

function T.test_lack_of_memory_leaves_nothing_behind()
  local images = view.reshape(pattern(32, 32), 1, 1, 32, 32)
  check.survives_lack_of_memory(function() feature.hog(images) end)
end

return T
