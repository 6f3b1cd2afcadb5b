--- pixels.lua: random pictures, and results of image functions compared pixel by pixel.

local lu = require "luaunit"
local transform = require "feral.core.transform"
local create, view = require "feral.core.create", require "feral.core.view"
local check, layouts = require "check", require "layouts"

local pixels = {}

--- An image or batch of random bytes, or of reals of 0..1, lying in memory in any way.
function pixels.random(dtype, ...)
  local sizes, bytes, count = { ... }, {}, 1
  for _, size in ipairs(sizes) do count = count * size end
  for i = 1, count do bytes[i] = string.char(check.integer(0, 255)) end
  local t = create.from_bytes(table.concat(bytes), sizes, "u8")
  return layouts.vary(dtype == "u8" and t or transform.normalise(t))
end

--- Calls f(dtype, sizes...) with 200 random shapes of images and batches.
function pixels.each_shape(f)
  for i = 1, 200 do
    local channels, height, width = check.integer(1, 4), check.integer(1, 11), check.integer(1, 11)
    local dtype = i % 2 == 0 and "u8" or "f32"
    if i % 4 < 2 then f(dtype, channels, height, width) else f(dtype, check.integer(1, 3), channels, height, width) end
  end
end

--- Fails unless got is what f(channel table [y][x], ...) makes of each channel of t.
function pixels.assert_by_channel(got, t, f, tolerance)
  local function compare(g, source)
    for c = 1, #source do
      local expected = f(source[c])
      lu.assertEquals({ #g[c], #g[c][1] }, { #expected, #expected[1] })
      for y = 1, #expected do
        for x = 1, #expected[1] do
          if math.abs(g[c][y][x] - expected[y][x]) > tolerance then
            lu.fail(("channel %d, row %d, column %d: %g, expected %g"):format(c, y, x, g[c][y][x], expected[y][x]))
          end
        end
      end
    end
  end
  lu.assertEquals(got.dtype, t.dtype)
  lu.assertEquals(got:dim(), t:dim())
  local a, b = create.totable(got), create.totable(t)
  if t:dim() == 3 then compare(a, b) else for n = 1, #b do compare(a[n], b[n]) end end
end

--- How far a result may be off: bytes are rounded.
function pixels.tolerance(dtype) return dtype == "u8" and 0.501 or 1e-5 end

--- A smooth picture, which wraps around where it passes 255.
function pixels.ramp(channels, height, width)
  local bytes = {}
  for y = 0, height - 1 do
    for x = 0, width - 1 do
      for c = 0, channels - 1 do bytes[#bytes + 1] = string.char((x * 5 + y * 9 + c * 40) % 256) end
    end
  end
  local t = create.from_bytes(table.concat(bytes), { height, width, channels }, "u8")
  return view.permute(t, 3, 1, 2)
end

--- What a viewer shows for each orientation, of a picture [y][x].
local orientations = {
  function(p) return p end,
  function(p, y, x) return p[y][#p[1] + 1 - x] end,
  function(p, y, x) return p[#p + 1 - y][#p[1] + 1 - x] end,
  function(p, y, x) return p[#p + 1 - y][x] end,
  function(p, y, x) return p[x][y] end,
  function(p, y, x) return p[#p + 1 - x][y] end,
  function(p, y, x) return p[#p + 1 - x][#p[1] + 1 - y] end,
  function(p, y, x) return p[x][#p[1] + 1 - y] end,
}

--- A picture [y][x] turned upright.
function pixels.upright(p, orientation)
  if orientation == 1 then return p end
  local height, width, result = #p, #p[1], {}
  if orientation >= 5 then height, width = width, height end
  for y = 1, height do
    result[y] = {}
    for x = 1, width do result[y][x] = orientations[orientation](p, y, x) end
  end
  return result
end

return pixels
