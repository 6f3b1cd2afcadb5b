local lu = require "luaunit"
local feral = require "feral"
local draw = require "feral.core.draw"
local check, arrays, layouts = require "check", require "arrays", require "layouts"
local tensor = feral.tensor

local T = {}

local function blank(channels, height, width) return tensor.zeros({ channels, height, width }, "u8") end

--- The image as text, a line a row: '#' where the first channel is not 0.
local function shown(image)
  local lines = {}
  for y, row in ipairs(image[1]:totable()) do
    local letters = {}
    for x, value in ipairs(row) do letters[x] = value > 0 and "#" or "." end
    lines[y] = table.concat(letters)
  end
  return table.concat(lines, "\n")
end

---- Rectangles ----

function T.test_rectangles_anywhere_are_clipped()
  for i = 1, 240 do
    local shape = { i % 2 == 0 and 3 or 1, check.integer(1, 9), check.integer(1, 9) }
    local left, top, width, height = check.integer(-6, 10), check.integer(-6, 10), check.integer(-1, 12), check.integer(-1, 12)
    local color = { check.integer(1, 255), check.integer(1, 255), check.integer(1, 255) }
    local image = layouts.vary(blank(table.unpack(shape)))
    image:fill_(0)
    lu.assertTrue(draw.rectangle(image, left, top, width, height, color) == image)
    lu.assertEquals(arrays.flat(image), arrays.build(shape, function(at)
      local y, x = at[2] - 1, at[3] - 1
      local inside = y >= top and y < top + height and x >= left and x < left + width
      return inside and color[at[1]] or 0
    end))
  end
end

function T.test_far_coordinates_do_no_harm()
  local image = blank(1, 3, 3)
  draw.rectangle(image, math.mininteger, math.mininteger, math.maxinteger, math.maxinteger, 9)
  lu.assertEquals(shown(image), "...\n...\n...")
  draw.rectangle(image, 1, -5, math.maxinteger, math.maxinteger, 9)
  lu.assertEquals(shown(image), ".##\n.##\n.##")
  draw.text(image, math.maxinteger, math.mininteger, "x", 1000, 9)
  draw.text(image, math.mininteger, 0, "x", 1, 9)
  lu.assertEquals(shown(image), ".##\n.##\n.##")
end

function T.test_colours()
  local image = blank(3, 1, 4)
  draw.rectangle(image, 0, 0, 1, 1, 7)
  draw.rectangle(image, 1, 0, 1, 1, { 1, 2, 3 })
  draw.rectangle(image, 2, 0, 1, 1, { 5 }) -- what is left out is 255
  draw.rectangle(image, 3, 0, 1, 1)
  lu.assertEquals(image:totable(), { { { 7, 1, 5, 255 } }, { { 7, 2, 255, 255 } }, { { 7, 3, 255, 255 } } })
end

---- Text ----

function T.test_letters_stand_where_they_should()
  local image = blank(1, 12, 16)
  draw.text(image, 1, 1, "LI", 1, 255)
  lu.assertEquals(shown(image), [[
................
.#.....###......
.#......#.......
.#......#.......
.#......#.......
.#......#.......
.#......#.......
.####..###......
................
................
................
................]])
  local twice = blank(1, 24, 32)
  draw.text(twice, 2, 2, "LI", 2, 255)
  lu.assertEquals(arrays.flat(twice), arrays.build({ 1, 24, 32 }, function(at)
    return image[1][(at[2] + 1) // 2][(at[3] + 1) // 2]:item()
  end))
end

function T.test_text_is_cut_at_the_border()
  local whole = blank(1, 40, 60)
  draw.text(whole, 10, 15, "Happy\nface", 1, 255)
  for _, window in ipairs { { 12, 18, 9, 11 }, { 0, 0, 60, 40 }, { 30, 0, 20, 40 }, { 55, 30, 5, 10 } } do
    local left, top, width, height = table.unpack(window)
    local part = blank(1, height, width)
    draw.text(part, 10 - left, 15 - top, "Happy\nface", 1, 255)
    lu.assertEquals(arrays.flat(part), arrays.flat(whole:narrow(2, top + 1, height):narrow(3, left + 1, width)))
  end
end

function T.test_the_size_of_a_text_holds_all_its_pixels()
  for _, scale in ipairs { 1, 2, 3 } do
    for _, text in ipairs { "i", "Wg", "surprise 97 %", "two\nlines" } do
      local width, height = draw.text_size(text, scale)
      local image = blank(1, 100, 400)
      draw.text(image, 0, 0, text, scale, 255)
      local inside = image:narrow(2, 1, math.min(height, 100)):narrow(3, 1, width)
      lu.assertEquals(inside:to("i32"):eq(255):to("f32"):sum():item(), image:eq(255):to("f32"):sum():item(), text)
      lu.assertTrue(inside:eq(255):to("f32"):sum():item() > 0)
    end
  end
  lu.assertEquals({ draw.text_size("ab") }, { 12, 12 })
  lu.assertEquals({ draw.text_size("ab", 3) }, { 36, 36 })
  lu.assertEquals({ draw.text_size("a\nabc") }, { 18, 24 })
  lu.assertEquals({ draw.text_size("") }, { 0, 0 })
end

function T.test_every_letter_of_a_long_text_is_drawn_whole()
  for code = 33, 126 do
    local letter = string.char(code)
    local width = draw.text_size(letter)
    local image = blank(1, 12, width * 40)
    draw.text(image, 0, 0, letter:rep(40), 1, 255)
    local first, last = image:narrow(3, 1, width), image:narrow(3, 39 * width + 1, width)
    lu.assertEquals(arrays.flat(last), arrays.flat(first), letter)
  end
end

function T.test_letters_that_the_font_lacks_are_question_marks()
  local function drawn(text)
    local image = blank(1, 12, 40)
    draw.text(image, 0, 0, text, 1, 255)
    return image:tobytes()
  end
  for _, case in ipairs {
    { "\t", "?" }, { "a\0b", "a?b" }, { "\1\31\127", "???" }, { "é", "?" }, { "人x", "?x" }, { "\xff", "?" },
  } do
    lu.assertEquals(drawn(case[1]), drawn(case[2]))
    lu.assertEquals({ draw.text_size(case[1]) }, { draw.text_size(case[2]) })
  end
end

---- What is refused ----

function T.test_messages()
  local image = blank(1, 4, 4)
  local cases = {
    { function() draw.rectangle(tensor.zeros(1, 4, 4), 0, 0, 1, 1) end, "u8 expected" },
    { function() draw.rectangle(blank(2, 4, 4), 0, 0, 1, 1) end, "draw: the image must be 1 x H x W or 3 x H x W, got 2x4x4" },
    { function() draw.text(blank(1, 4, 4)[1], 0, 0, "x") end, "draw: the image must be 1 x H x W or 3 x H x W, got 4x4" },
    { function() draw.rectangle(image, 0, 0, 1, 1, 256) end, "a colour is made of numbers from 0 to 255" },
    { function() draw.rectangle(image, 0, 0, 1, 1, { 1, -1, 1 }) end, "a colour is made of numbers from 0 to 255" },
    { function() draw.rectangle(image, "x", 0, 1, 1) end, "number expected, got string" },
    { function() draw.text(image, 0, 0, "x", 0) end, "the scale must lie between 1 and 1000" },
    { function() draw.text_size("x", 1001) end, "the scale must lie between 1 and 1000" },
    { function() draw.text(image, 0, 0, ("x"):rep(513)) end, "text of at most 512 letters expected" },
    { function() draw.text(image, 0, 0, {}) end, "string expected, got table" },
    { function() draw.rectangle(image:expand(3, 4, 4), 0, 0, 1, 1) end, "an expanded tensor" },
  }
  for _, case in ipairs(cases) do lu.assertStrContains(check.message(case[1]), case[2]) end
end

function T.test_survives_lack_of_memory()
  local image = blank(3, 20, 40)
  check.survives_lack_of_memory(function()
    draw.text(image, 0, 0, "a text of some length", 1, { 1, 2, 3 })
    draw.text_size "another text"
  end)
end

return T
