local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local nn, tensor = feral.nn, feral.tensor

local T = {}

local function naive(x, w, b)
  local rows = {}
  for _, row in ipairs(x:totable()) do
    for o, weights in ipairs(w:totable()) do
      local sum = b and b[o]:item() or 0
      for i, weight in ipairs(weights) do sum = sum + row[i] * weight end
      rows[#rows + 1] = sum
    end
  end
  return rows
end

function T.test_values_of_odd_shapes()
  for _ = 1, check.SHAPES do
    local n, i, o = check.integer(1, 9), check.integer(1, 17), check.integer(1, 19)
    local layer = nn.Linear(i, o, { bias = check.integer(0, 1) == 1 })
    local x = check.randn(n, i)
    check.close(layer(x), naive(x, layer.weight:detach(), layer.bias and layer.bias:detach()), 1e-4)
  end
end

function T.test_gradients()
  local layer = nn.Linear(5, 3)
  check.gradients(function(x) return layer(x) end, { check.randn(4, 5) })
  check.gradients(function(w, b)
    layer.weight, layer.bias = w, b
    return layer(check.randn(1, 5):fill_(0.5))
  end, { check.randn(3, 5), check.randn(3) })
end

function T.test_wrong_input_names_layer_and_shapes()
  local net = nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 3))
  local message = check.message(function() return (net(check.randn(2, 4))) end)
  lu.assertStrContains(message, "Linear: input is 2x8, N x 9 expected\n  in layer 2 (Linear)")
  lu.assertStrMatches(message, ".*test_linear.lua:%d+: .*\n.*")
end

function T.test_survives_lack_of_memory()
  local layer, x = nn.Linear(4, 3), check.randn(2, 4)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    layer(x):sum():backward()
  end)
end

return T
