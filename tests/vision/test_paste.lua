local lu = require "luaunit"
local feral = require "feral"
local check, pixels, layouts = require "check", require "pixels", require "layouts"
local image, tensor = feral.image, feral.tensor

local T = {}

local real = check.is_double and "f64" or "f32"

local function held(i, n) return math.max(1, math.min(n, i)) end

--- Column x and row y, from 0, of a channel, interpolated.
local function sample(channel, x, y)
  local h, w, left, top = #channel, #channel[1], math.floor(x), math.floor(y)
  local function at(row, column) return channel[held(row + 1, h)][held(column + 1, w)] end
  local right_part, low_part = x - left, y - top
  return (1 - low_part) * ((1 - right_part) * at(top, left) + right_part * at(top, left + 1)) +
    low_part * ((1 - right_part) * at(top + 1, left) + right_part * at(top + 1, left + 1))
end

local function weight(o, x, y, h, w)
  local dx, dy = math.abs(x + 0.5 - w / 2), math.abs(y + 0.5 - h / 2)
  local inside = math.min(w / 2 - dx, h / 2 - dy)
  if o.shape == "ellipse" then inside = (1 - math.sqrt((dx / w * 2) ^ 2 + (dy / h * 2) ^ 2)) * math.min(w, h) / 2 end
  if inside <= 0 then return 0 end
  return o.opacity * (inside < o.feather and inside / o.feather or 1)
end

--- Fails unless each pixel is what the naive formula gives.
local function compare(got, before, source, m, o)
  local h, w = #source[1], #source[1][1]
  for c = 1, #before do
    for row = 1, #before[1] do
      for column = 1, #before[1][1] do
        local x, y = m[1] * (column - 1) + m[2] * (row - 1) + m[3], m[4] * (column - 1) + m[5] * (row - 1) + m[6]
        local old, part = before[c][row][column], weight(o, x, y, h, w)
        local value = part > 0 and sample(source[math.min(c, #source)], x, y) * o.gain[c] + o.offset or 0
        local expected = old + part * (math.max(0, math.min(255, value)) - old)
        lu.assertTrue(math.abs(got[c][row][column] - expected) < 0.6,
          ("%d %d %d: %g, expected %g"):format(c, row, column, got[c][row][column], expected))
      end
    end
  end
end

function T.test_it_is_what_a_naive_loop_gives()
  for i = 1, 200 do
    local channels = i % 2 == 0 and 3 or 1
    local target = pixels.random("u8", channels, check.integer(1, 9), check.integer(1, 9))
    local source = pixels.random("u8", i % 3 == 0 and 1 or channels, check.integer(1, 9), check.integer(1, 9))
    local function number(spread) return check.integer(-100, 100) / 100 * spread end
    local map = { 1 + number(0.9), number(0.5), number(4), number(0.5), 1.5 + number(0.9), number(4) }
    local o = { shape = i % 5 < 2 and "ellipse" or "rectangle", feather = check.integer(0, 3), opacity = check.integer(1, 4) / 4,
      gain = { 1 + number(0.5), 1, 1.2 }, offset = number(40) }
    o.gain[2], o.gain[3] = channels == 3 and o.gain[2] or nil, channels == 3 and o.gain[3] or nil
    local before = target:totable()
    lu.assertTrue(rawequal(image.paste(target, source, map, o), target))
    compare(target:totable(), before, source:totable(), map, o)
  end
end

function T.test_large_ones_are_shared_by_the_threads()
  local target, source = pixels.random("u8", 3, 150, 170), pixels.random("u8", 3, 40, 30)
  local before, map = target:totable(), { 0.2, 0.02, -2, -0.03, 0.25, 1 }
  image.paste(target, source, map, { feather = 2 })
  compare(target:totable(), before, source:totable(), map,
    { shape = "rectangle", feather = 2, opacity = 1, gain = { 1, 1, 1 }, offset = 0 })
end

function T.test_a_source_that_lies_elsewhere_changes_nothing()
  local target = pixels.random("u8", 3, 5, 6)
  local before = target:totable()
  for _, map in ipairs { { 1, 0, 100, 0, 1, 0 }, { 1, 0, 0, 0, 1, -1e30 }, { 1e-30, 0, 1e30, 0, 1e-30, 0 } } do
    image.paste(target, pixels.random("u8", 3, 4, 4), map)
  end
  lu.assertEquals(target:totable(), before)
end

function T.test_wrong_arguments_are_named()
  local target, source, map = tensor.zeros(3, 4, 4, "u8"), tensor.zeros(3, 2, 2, "u8"), { 1, 0, 0, 0, 1, 0 }
  local function says(text, ...) lu.assertStrContains(check.message(image.paste, ...), text) end
  says("image.paste: the target must be u8 C x H x W, got " .. real .. " 3x4x4", tensor.zeros(3, 4, 4), source, map)
  says("image.paste: the target must be a tensor, got string", "x", source, map)
  says("image.paste: the source must be u8 1 x H x W or 3 x H x W, got u8 2x2x2", target, tensor.zeros(2, 2, 2, "u8"), map)
  says("image.paste: the source must be u8 1 x H x W or 3 x H x W, got " .. real .. " 3x2x2", target, tensor.zeros(3, 2, 2), map)
  says("image.paste: a map has six numbers", target, source, { 1, 2 })
  says("image.paste: the map takes the plane to a line", target, source, { 1, 2, 0, 2, 4, 0 })
  says("image.paste: number 3 of the map is not finite", target, source, { 1, 0, 0 / 0, 0, 1, 0 })
  says("image.paste: shape 'round' is unknown: rectangle or ellipse", target, source, map, { shape = "round" })
  says("image.paste: gain has 2 values, the image 3 channels", target, source, map, { gain = { 1, 2 } })
  lu.assertStrContains(check.message(image.paste, tensor.zeros(1, 4, 4, "u8"):expand(3, 4, 4), source, map), "memory")
end

function T.test_lack_of_memory_leaves_nothing_behind()
  local target, source = pixels.random("u8", 3, 5, 6), layouts.vary(tensor.zeros(3, 4, 4, "u8"))
  check.survives_lack_of_memory(function() image.paste(target, source, { 1, 0, 0, 0, 1, 0 }) end)
end

return T
