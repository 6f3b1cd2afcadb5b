local lu = require "luaunit"
local feral = require "feral"
local check, pixels = require "check", require "pixels"
local tensor, image = feral.tensor, feral.image

local T = {}

local function gray_ground(height, width) return tensor.full({ 3, height, width }, 100, "u8") end

--- The colour of the pixel of column x and row y, from 0.
local function at(picture, x, y)
  local color = {}
  for c = 1, 3 do color[c] = picture[c][y + 1][x + 1]:item() end
  return color
end

--- How many pixels of a part of the picture differ from another picture.
local function changed(a, b, top, left, height, width)
  local one, other = image.crop(a, top, left, height, width):totable(), image.crop(b, top, left, height, width):totable()
  local count = 0
  for y = 1, height do
    for x = 1, width do
      if one[1][y][x] ~= other[1][y][x] or one[2][y][x] ~= other[2][y][x] then count = count + 1 end
    end
  end
  return count
end

function T.test_a_box_is_drawn_on_a_copy()
  local picture = gray_ground(100, 120)
  local before = picture:tobytes()
  local faces = { { box = { 20, 30, 60, 40 }, color = { 250, 0, 10 } } }
  local drawn = image.draw(picture, faces, { corners = "square", line_width = 4 })
  lu.assertEquals(picture:tobytes(), before)
  lu.assertEquals(drawn.shape, { 3, 100, 120 })
  for _, place in ipairs { { 20, 50 }, { 19, 50 }, { 79, 50 }, { 50, 30 }, { 50, 69 }, { 18, 28 } } do
    lu.assertEquals(at(drawn, table.unpack(place)), { 250, 0, 10 })
  end
  lu.assertEquals(at(drawn, 50, 50), { 100, 100, 100 })
  lu.assertEquals(at(drawn, 10, 10), { 100, 100, 100 })
  local round = image.draw(picture, faces, { line_width = 4 })
  lu.assertTrue(at(round, 18, 28)[1] <= 100) -- its dark edge at most
end

function T.test_gray_pictures_and_reals_become_colour_bytes()
  local gray = pixels.random("u8", 1, 20, 30)
  local drawn = image.draw(gray, {})
  lu.assertEquals({ drawn.dtype, drawn.shape }, { "u8", { 3, 20, 30 } })
  for c = 1, 3 do lu.assertEquals(drawn:narrow(1, c, 1):contiguous():tobytes(), gray:contiguous():tobytes()) end
  local color = pixels.random("u8", 3, 20, 30)
  lu.assertEquals(image.draw(image.to_float(color), {}):tobytes(), color:contiguous():tobytes())
end

function T.test_emotions_have_colours_of_their_own()
  local seen = {}
  for _, class in ipairs { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt", "other" } do
    local one = { { box = { 20, 40, 40, 30 }, class = class } }
    local drawn = image.draw(gray_ground(80, 80), one, { labels = false, line_width = 3 })
    local color = table.concat(at(drawn, 40, 40), " ")
    lu.assertNil(seen[color], class)
    seen[color] = class
  end
  local one = { { box = { 20, 40, 40, 30 }, class = "anger" } }
  local drawn = image.draw(gray_ground(80, 80), one, { color = { 1, 2, 3 }, line_width = 3, labels = false })
  lu.assertEquals(at(drawn, 40, 40), { 1, 2, 3 })
end

function T.test_labels_stand_over_the_box_or_where_there_is_room()
  local options = { line_width = 2, text_size = 10 }
  local ground = gray_ground(200, 300)
  local function label_at(box, label)
    local with = image.draw(ground, { { box = box, label = label or "fear" } }, options)
    local without = image.draw(ground, { { box = box } }, options)
    return function(...) return changed(with, without, ...) end
  end
  local over = label_at { 100, 60, 80, 80 }
  lu.assertTrue(over(37, 100, 22, 40) > 200)
  lu.assertEquals(over(60, 1, 141, 300), 0)
  local under = label_at { 100, 5, 80, 80 }
  lu.assertEquals(under(1, 1, 86, 300), 0)
  lu.assertTrue(under(88, 100, 22, 40) > 200)
  local inside = label_at { 100, 5, 80, 190 }
  lu.assertTrue(inside(8, 103, 22, 40) > 200)
  local at_the_right = label_at { 290, 60, 80, 80 }
  lu.assertTrue(at_the_right(37, 250, 22, 50) > 200)
  lu.assertEquals(label_at({ 100, 60, 80, 80 }, "")(1, 1, 200, 300), 0)
end

function T.test_labels_say_class_and_percentage()
  local ground = gray_ground(100, 300)
  local function drawn(one)
    one.box = { 20, 50, 40, 40 }
    one.color = { 9, 9, 9 }
    return image.draw(ground, { one }):tobytes()
  end
  lu.assertEquals(drawn { class = "joy", probability = 0.967 }, drawn { label = "joy 97 %" })
  lu.assertEquals(drawn { class = "joy" }, drawn { label = "joy" })
  lu.assertEquals(drawn { class = "joy", probability = 0.9, label = "x" }, drawn { label = "x" })
  lu.assertNotEquals(drawn { class = "joy" }, drawn {})
end

function T.test_points_and_landmarks_from_lists_and_tensors()
  local ground, color = gray_ground(120, 120), { 200, 0, 0 }
  local pairs_of, flat = {}, {}
  for i = 1, 68 do
    pairs_of[i] = { 10 + i, 20 + i % 7 * 10 }
    flat[2 * i - 1], flat[2 * i] = pairs_of[i][1], pairs_of[i][2]
  end
  for _, field in ipairs { "points", "landmarks" } do
    local expected = image.draw(ground, { { [field] = pairs_of, color = color } }):tobytes()
    lu.assertNotEquals(expected, ground:tobytes())
    lu.assertEquals(image.draw(ground, { { [field] = flat, color = color } }):tobytes(), expected)
    lu.assertEquals(image.draw(ground, { { [field] = tensor(pairs_of), color = color } }):tobytes(), expected)
    lu.assertEquals(image.draw(ground, { { [field] = flat, color = color } }, { [field] = false }):tobytes(), ground:tobytes())
  end
  local dots = image.draw(ground, { { points = { { 30.5, 40.5 } }, color = color } }, { line_width = 3 })
  lu.assertEquals(at(dots, 30, 40), color)
  lu.assertEquals(at(dots, 45, 40), { 100, 100, 100 })
end

function T.test_pictures_of_any_size_and_boxes_anywhere()
  for _, size in ipairs { { 1, 1 }, { 1, 40 }, { 40, 1 }, { 48, 48 } } do
    local picture = image.draw(gray_ground(size[1], size[2]), {
      { box = { -5, -5, 100, 100 }, class = "happiness", probability = 1, points = { { 0, 0 }, { 1e9, -1e9 } } },
      { box = { 1e12, 0, 1, 1 }, label = "far away" }, { box = { 0, 0, -3, -3 } },
    })
    lu.assertEquals(picture.shape, { 3, size[1], size[2] })
  end
end

function T.test_face_draw_is_the_same() lu.assertTrue(feral.face.draw == image.draw) end

function T.test_messages()
  local ground, box = gray_ground(9, 9), { 1, 1, 3, 3 }
  local cases = {
    { { "x", {} }, "image.draw: a picture is 1 x H x W or 3 x H x W, got string" },
    { { tensor.zeros(2, 3, 9, 9), {} }, "image.draw: a picture is 1 x H x W or 3 x H x W, got 2x3x9x9" },
    { { ground }, "image.draw: faces must be a list, got nil" },
    { { ground, { 7 } }, "image.draw: face 1 must be a table, got number" },
    { { ground, { { box = box }, { score = 1 } } }, "image.draw: face 2 has no box, points or landmarks" },
    { { ground, { { box = { 1, 2, 3 } } } }, "image.draw: the box of face 1 must be 4 numbers" },
    { { ground, { { box = { 1, 2, 3, 0 / 0 } } } }, "image.draw: the box of face 1 must be 4 numbers, got " },
    { { ground, { { box = box, color = "red" } } }, "image.draw: the color of face 1 must be 3 numbers" },
    { { ground, { { points = { 1, 2, 3 } } } }, "image.draw: points of face 1 must be pairs of numbers, got 3 numbers" },
    { { ground, { { points = { { 1, 2 }, { 1 } } } } }, "image.draw: point 2 of points of face 1 must be 2 numbers" },
    { { ground, { { landmarks = "x" } } }, "image.draw: landmarks of face 1 must be a list of {x, y} or a tensor N x 2" },
    { { ground, {}, { corner = "round" } }, "image.draw: unknown option 'corner', did you mean 'corners'?" },
    { { ground, {}, { corners = "flat" } }, "image.draw: corners are 'round' or 'square', got 'flat'" },
    { { ground, {}, { line_width = 0 } }, "image.draw: line_width must be a number above 0, got 0" },
    { { ground, {}, { text_size = "x" } }, "image.draw: text_size must be a number above 0, got x" },
    { { ground, {}, { color = { 1 } } }, "image.draw: color must be 3 numbers" },
  }
  for _, case in ipairs(cases) do lu.assertStrContains(check.message(image.draw, table.unpack(case[1])), case[2]) end
end

function T.test_survives_lack_of_memory()
  local ground = gray_ground(30, 40)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    image.draw(ground, { { box = { 5, 15, 20, 10 }, label = "x", points = { { 1, 2 } } } })
  end)
end

return T
