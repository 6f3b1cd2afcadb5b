local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local nn, tensor = feral.nn, feral.tensor

local T = {}

local function naive(x) return x <= -3 and 0 or x >= 3 and x or x * (x + 3) / 6 end

function T.test_values()
  for _ = 1, check.SHAPES do
    local x = check.randn(check.integer(1, 5), check.integer(1, 40)) * 4
    if check.integer(0, 1) == 1 then x = x:transpose() end
    local expected = {}
    for i, v in ipairs(check.flat(x)) do expected[i] = naive(v) end
    check.close(nn.HardSwish()(x), expected, 1e-6)
  end
  lu.assertEquals(nn.HardSwish()(tensor { -math.huge, -3, 0, 3, math.huge }):totable(), { 0, 0, 0, 3, math.huge })
  lu.assertNotEquals(nn.HardSwish()(tensor { 0 / 0 }):item(), 0)
end

function T.test_gradient()
  check.gradients(function(x) return nn.HardSwish()(x) end, { check.randn(5, 7) * 2 })
  local x = tensor({ -9, -1.5, 0, 9 }):requires_grad()
  nn.HardSwish()(x):sum():backward()
  check.close(x.grad, { 0, 0, 0.5, 1 }, 1e-6)
end

function T.test_described_and_built()
  lu.assertEquals(tostring(nn.build(nn.describe(nn.HardSwish()))), "HardSwish()")
  lu.assertStrContains(check.message(nn.HardSwish, { slope = 1 }), "HardSwish: unknown option 'slope'")
end

function T.test_survives_lack_of_memory()
  local x = check.randn(3, 4)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    nn.HardSwish()(x:clone():requires_grad()):sum():backward()
  end)
end

return T
