local lu = require "luaunit"
local feral = require "feral"
local marks = require "feral.core.marks"
local check, layouts = require "check", require "layouts"
local tensor = feral.tensor

local T = {}

local function blank(height, width) return tensor.zeros({ 3, height, width }, "u8") end

--- Fails unless the picture is the color wherever inside(x, y), a distance in pixels at a pixel's centre, says so.
local function assert_shape(picture, distance, color, opacity, message)
  local rows = picture:totable()
  for c = 1, 3 do
    for y, row in ipairs(rows[c]) do
      for x, value in ipairs(row) do
        local share = opacity * math.max(0, math.min(1, 0.5 - distance(x - 0.5, y - 0.5)))
        if math.abs(value - share * color[c]) > 0.6 then
          lu.fail(("%s: channel %d at %d, %d is %d, not %g"):format(message, c, x, y, value, share * color[c]))
        end
      end
    end
  end
end

local function random_color() return { check.integer(1, 255), check.integer(1, 255), check.integer(1, 255) } end
local function fraction(low, high) return check.integer(low * 8, high * 8) / 8 end

--- How far a point is from the edge of a box with round corners; negative inside.
local function box_distance(x, y, left, top, width, height, radius)
  local dx = math.abs(x - left - width / 2) - width / 2 + radius
  local dy = math.abs(y - top - height / 2) - height / 2 + radius
  if radius == 0 then return math.max(dx, dy) end
  local outside = math.sqrt(math.max(dx, 0) ^ 2 + math.max(dy, 0) ^ 2)
  return outside + math.min(math.max(dx, dy), 0) - radius
end

function T.test_frames_and_panels_anywhere()
  for i = 1, 80 do
    local left, top, width, height = fraction(-20, 50), fraction(-20, 40), fraction(0, 60), fraction(0, 50)
    local radius, line = i % 4 == 0 and 0 or fraction(0, 12), fraction(1, 6)
    local color, opacity = random_color(), check.integer(1, 4) / 4
    local round = math.min(radius, width / 2, height / 2)
    local frame, panel = layouts.vary(blank(41, 53)), blank(41, 53)
    frame:fill_(0)
    marks.frame(frame, left, top, width, height, radius, line, color, opacity)
    assert_shape(frame, function(x, y)
      return math.abs(box_distance(x, y, left, top, width, height, round)) - line / 2
    end, color, opacity, "frame " .. i)
    marks.panel(panel, left, top, width, height, radius, color, opacity)
    assert_shape(panel, function(x, y)
      return box_distance(x, y, left, top, width, height, round)
    end, color, opacity, "panel " .. i)
  end
end

local function piece_distance(x, y, ax, ay, bx, by)
  local dx, dy = bx - ax, by - ay
  local length = dx * dx + dy * dy
  local t = length > 0 and math.max(0, math.min(1, ((x - ax) * dx + (y - ay) * dy) / length)) or 0
  return math.sqrt((x - ax - t * dx) ^ 2 + (y - ay - t * dy) ^ 2)
end

function T.test_lines_and_dots()
  for i = 1, 60 do
    local points, closed, width, color = {}, i % 3 == 0, fraction(1, 7), random_color()
    for k = 1, 2 * check.integer(1, 5) do points[k] = fraction(-10, 50) end
    local picture = blank(37, 90)
    marks.line(picture, points, closed, width, color)
    local count = #points // 2
    assert_shape(picture, function(x, y)
      local least = piece_distance(x, y, points[1], points[2], points[1], points[2])
      for k = 1, closed and count or count - 1 do
        local n = k % count + 1
        least = math.min(least, piece_distance(x, y, points[2 * k - 1], points[2 * k], points[2 * n - 1], points[2 * n]))
      end
      return least - width / 2
    end, color, 1, "line " .. i)
  end
end

function T.test_far_places_do_no_harm()
  local picture = blank(8, 8)
  marks.frame(picture, -1e300, math.huge, 1e300, 5, 1e300, 3, { 9, 9, 9 })
  marks.line(picture, { -math.huge, 1e9, -1e300, 1e9 }, false, 3, { 9, 9, 9 })
  marks.text(picture, 1e300, -1e300, 1e300, "x", { 9, 9, 9 })
  lu.assertEquals(picture:to("f32"):sum():item(), 0)
  marks.panel(picture, -1e300, -1e300, math.huge, math.huge, 0, { 9, 9, 9 })
  lu.assertEquals(picture:to("f32"):mean():item(), 9)
end

---- Letters ----

local function drawn(text, size, x)
  local picture = blank(60, 400)
  marks.text(picture, x or 5, 40, size or 20, text, { 255, 255, 255 })
  return picture
end

function T.test_every_letter_is_drawn_and_none_looks_like_another()
  local seen = {}
  for code = 33, 126 do
    local bytes = drawn(string.char(code)):tobytes()
    lu.assertTrue(bytes:find("[^\0]") ~= nil, string.char(code))
    lu.assertNil(seen[bytes], string.char(code))
    seen[bytes] = string.char(code)
  end
  lu.assertNil(drawn(" "):tobytes():find("[^\0]"))
end

function T.test_a_text_stays_in_its_size()
  for _, size in ipairs { 5, 10, 23.5 } do
    for _, text in ipairs { "H", "gjpq|", "W@", "happiness 97 %" } do
      local width, depth = marks.text_size(text, size)
      local picture, edge = drawn(text, size), math.max(1, size / 12)
      local ink = picture:to("f32")[1]
      local top, left = math.floor(40 - 1.2 * size - edge), math.floor(5 - edge)
      local inside = ink:narrow(1, top, math.ceil(40 + depth + 1) - top + 1)
      inside = inside:narrow(2, left, math.ceil(5 + width + edge) - left + 2)
      lu.assertEquals(inside:sum():item(), ink:sum():item(), text)
      local right = ink:narrow(2, math.floor(5 + width - size / 4), math.ceil(size / 2))
      lu.assertTrue(right:sum():item() > 0, text)
    end
  end
  lu.assertEquals(marks.text_size("", 20), 0)
  lu.assertAlmostEquals(marks.text_size("abab", 20) + 6, 2 * (marks.text_size("ab", 20) + 6), 1e-4)
end

function T.test_what_is_not_ascii_is_a_question_mark()
  for _, case in ipairs { { "é", "?" }, { "a人b", "a?b" }, { "\t", "?" }, { "\xff", "?" }, { "a\0b", "a?b" } } do
    lu.assertEquals(drawn(case[1]):tobytes(), drawn(case[2]):tobytes())
    lu.assertEquals(marks.text_size(case[1], 20), marks.text_size(case[2], 20))
  end
end

function T.test_text_is_cut_at_the_border()
  local whole = drawn "surprise"
  local part = blank(12, 50)
  marks.text(part, 5 - 30, 40 - 25, 20, "surprise", { 255, 255, 255 })
  lu.assertEquals(part:tobytes(), whole:narrow(2, 26, 12):narrow(3, 31, 50):contiguous():tobytes())
end

function T.test_long_texts_are_cut() lu.assertEquals(drawn(("x"):rep(600), 1):tobytes(), drawn(("x"):rep(512), 1):tobytes()) end

---- What is refused ----

function T.test_messages()
  local picture, white = blank(4, 4), { 255, 255, 255 }
  local cases = {
    { function() marks.panel(tensor.zeros(3, 4, 4), 0, 0, 1, 1, 0, white) end, "u8 expected" },
    { function() marks.panel(tensor.zeros({ 1, 4, 4 }, "u8"), 0, 0, 1, 1, 0, white) end, "must be 3 x H x W, got 1x4x4" },
    { function() marks.panel(tensor.zeros({ 1, 4, 4 }, "u8"):expand(3, 4, 4), 0, 0, 1, 1, 0, white) end, "an expanded tensor" },
    { function() marks.panel(picture, "x", 0, 1, 1, 0, white) end, "draw: number expected, got x" },
    { function() marks.panel(picture, 0 / 0, 0, 1, 1, 0, white) end, "draw: number expected, got " },
    { function() marks.panel(picture, 0, 0, 1, 1, 0, { 1, 2 }) end, "draw: number expected, got nil" },
    { function() marks.panel(picture, 0, 0, 1, 1, 0, 7) end, "table expected" },
    { function() marks.line(picture, {}, false, 1, white) end, "a line has 1 to 96 points of two numbers each, got 0 numbers" },
    { function() marks.line(picture, { 1, 2, 3 }, false, 1, white) end, "got 3 numbers" },
    { function() marks.text(picture, 1, 1, 9, {}, white) end, "string expected, got table" },
  }
  for _, case in ipairs(cases) do lu.assertStrContains(check.message(case[1]), case[2]) end
end

return T
