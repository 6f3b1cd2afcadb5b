local lu = require "luaunit"
local feral = require "feral"
local check, layouts = require "check", require "layouts"
local nn, tensor = feral.nn, feral.tensor

local T = {}

function T.test_each_pixel_is_repeated()
  for _ = 1, check.SHAPES do
    local n, c, h, w = check.integer(1, 2), check.integer(1, 5), check.integer(1, 5), check.integer(1, 5)
    local scale = check.integer(1, 3)
    local x = check.randn(n, c, h, w)
    local y = nn.Upsample(scale)(layouts.vary(x))
    lu.assertEquals(y.shape, { n, c, h * scale, w * scale })
    local at = x:totable()
    for i, image in ipairs(y:totable()) do
      for k, channel in ipairs(image) do
        for row, line in ipairs(channel) do
          for column, value in ipairs(line) do
            lu.assertAlmostEquals(value, at[i][k][(row - 1) // scale + 1][(column - 1) // scale + 1], 1e-6)
          end
        end
      end
    end
  end
end

function T.test_gradients()
  check.gradients(function(x) return nn.Upsample(2)(x) end, { check.randn(2, 3, 2, 3) })
  check.gradients(function(x) return nn.Upsample(3)(x) end, { check.randn(1, 2, 1, 2) })
end

--- The float build looks at this one too: a gradient is the sum over the square that its pixel fills.
function T.test_a_gradient_is_the_sum_over_its_square()
  local x = tensor.zeros(1, 1, 1, 2):requires_grad()
  local loss = (nn.Upsample(2)(x) * tensor { { { { 1, 2, 3, 4 }, { 5, 6, 7, 8 } } } }):sum()
  loss:backward()
  lu.assertEquals(check.flat(x.grad), { 14, 22 })
end

function T.test_wrong_arguments_are_named()
  lu.assertStrContains(check.message(nn.Upsample, 1.5), "Upsample: the scale must be a whole number of 1 or more, got 1.5")
  lu.assertStrContains(check.message(nn.Upsample(), tensor.zeros(2, 3)), "Upsample: input is 2x3, N x C x H x W expected")
end

function T.test_it_is_described_and_built_again()
  lu.assertEquals(nn.build(nn.describe(nn.Upsample(3)))(tensor.ones(1, 1, 2, 2)).shape, { 1, 1, 6, 6 })
end

return T
