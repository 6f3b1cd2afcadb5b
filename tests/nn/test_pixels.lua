local lu = require "luaunit"
local feral = require "feral"
local check, layouts = require "check", require "layouts"
local nn, tensor = feral.nn, feral.tensor

local T = {}

function T.test_pixels_follow_each_other_row_by_row_image_by_image()
  for _ = 1, check.SHAPES do
    local n, c, images, expected = check.integer(1, 3), check.integer(1, 4), {}, {}
    for i = 1, n do expected[i] = {} end
    for k = 1, check.integer(1, 3) do
      local x = check.randn(n, c, check.integer(1, 4), check.integer(1, 4))
      images[k] = layouts.vary(x)
      for i, image in ipairs(x:totable()) do
        for row = 1, x:size(3) do
          for column = 1, x:size(4) do
            for channel = 1, c do table.insert(expected[i], image[channel][row][column]) end
          end
        end
      end
    end
    local y = nn.Pixels()(table.unpack(images))
    lu.assertEquals(y.shape, { n, #expected[1] // c, c })
    for i = 1, n do check.close(y:select(1, i), expected[i], 1e-7) end
  end
end

function T.test_gradients()
  check.gradients(function(a, b) return nn.Pixels()(a, b) end, { check.randn(2, 3, 2, 2), check.randn(2, 3, 1, 2) })
end

function T.test_wrong_inputs_are_named()
  lu.assertStrContains(check.message(nn.Pixels(), tensor.zeros(1, 2, 3, 3), tensor.zeros(2, 3)),
    "Pixels: input 2 is 2x3, N x C x H x W expected")
end

return T
