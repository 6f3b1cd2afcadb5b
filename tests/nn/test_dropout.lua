local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local create, view = require "feral.core.create", require "feral.core.view"
local nn, tensor = feral.nn, feral.tensor

local T = {}

local function random_sizes()
  local sizes = {}
  for d = 1, check.integer(1, 5) do sizes[d] = check.integer(1, 9) end
  return sizes
end

--- What the next dropout must give: kept where the stream's uniform number is at least p, in the order of memory.
local function naive(x, p)
  local state = feral.random.state()
  local uniform = create.uniform_(create.empty({ x:numel() }), state.seed, state.count + 1)
  local values, out = check.flat(x), {}
  for i, u in ipairs(check.flat(uniform)) do
    if math.abs(u - p) < 1e-6 then return nil end -- too near to say, uniform numbers being coarser than the mask's words
    out[i] = u >= p and values[i] / (1 - p) or 0
  end
  return out
end

function T.test_values_follow_the_stream()
  for i = 1, check.SHAPES do
    local x, p = check.randn(table.unpack(random_sizes())), check.integer(0, 9) / 10
    tensor.manual_seed(i)
    local expected = naive(x, p)
    local y = nn.Dropout(p)(x)
    if expected then check.close(y, expected, 1e-6) end
  end
end

function T.test_images_are_masked_in_the_order_of_their_memory()
  for i = 1, check.SHAPES do
    local x = view.as_image(check.randn(check.integer(1, 3), check.integer(1, 5), check.integer(1, 5), check.integer(1, 5)))
    tensor.manual_seed(i)
    local expected = naive(x:permute(1, 3, 4, 2), 0.25)
    local y = nn.Dropout(0.25)(x)
    if expected then check.close(y:permute(1, 3, 4, 2), expected, 1e-6) end
  end
end

function T.test_shares_and_scale()
  local x = tensor.ones(100, 1000)
  for _, p in ipairs { 0.1, 0.5, 0.75 } do
    local y = nn.Dropout(p)(x)
    local dropped = y:eq(0):to(y.dtype):mean():item()
    lu.assertAlmostEquals(dropped, p, 0.01)
    check.close(y:max(), { 1 / (1 - p) })
    lu.assertAlmostEquals(y:mean():item(), 1, 0.02)
  end
  lu.assertEquals(nn.Dropout(1)(x):abs():max():item(), 0.0)
  lu.assertEquals(nn.Dropout(0)(x):min():item(), 1.0)
end

function T.test_eval_changes_nothing_and_takes_no_stream()
  local layer, x = nn.Dropout(0.5):eval(), check.randn(3, 4)
  local before = feral.random.state()
  lu.assertIs(layer(x), x)
  lu.assertEquals(feral.random.state(), before)
end

function T.test_a_seed_repeats_the_masks_and_each_call_has_its_own()
  local layer, x = nn.Dropout(), tensor.ones(1000)
  tensor.manual_seed(7)
  local first, second = layer(x):tobytes(), layer(x):tobytes()
  lu.assertNotEquals(first, second)
  tensor.manual_seed(7)
  lu.assertTrue(layer(x):tobytes() == first and layer(x):tobytes() == second)
end

function T.test_gradients()
  local layer = nn.Dropout(0.4)
  for seed, reorder in ipairs {
    function(x) return x end, function(x) return x:as_image() end, function(x) return x:transpose(1, 4) end,
  } do
    check.gradients(function(x)
      tensor.manual_seed(seed)
      return layer(reorder(x))
    end, { check.randn(2, 3, 4, 5) })
  end
end

function T.test_the_gradient_has_the_mask_of_the_output()
  for _ = 1, check.SHAPES do
    local x = layouts.vary(check.randn(table.unpack(random_sizes()))):detach():requires_grad()
    local y = nn.Dropout(0.5)(x)
    y:backward(layouts.vary(tensor.ones(table.unpack(x.shape))))
    check.close(x.grad * x:detach(), check.flat(y), 1e-6)
  end
end

function T.test_messages()
  lu.assertStrContains(check.message(nn.Dropout, 1.5), "Dropout: p must be a number in 0..1, got 1.5")
  lu.assertStrContains(check.message(nn.Dropout, "half"), "Dropout: p must be a number in 0..1, got half")
  lu.assertStrContains(check.message(function() return (nn.Sequential(nn.Dropout())(tensor.zeros(3, "u8"))) end),
    "dropout: input must be " .. tensor.zeros(1).dtype .. ", got u8\n  in layer 1 (Dropout)")
end

function T.test_layers_survive_saving()
  lu.assertEquals(assert(nn.build(nn.describe(nn.Dropout(0.3)))).p, 0.3)
end

function T.test_survives_lack_of_memory()
  local layer, x = nn.Dropout(), check.randn(3, 4):requires_grad()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    layer(x:transpose()):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local x = check.randn(3, 5, 61, 67):requires_grad()
    local y = nn.Dropout(0.3)(x:as_image())
    y:backward(check.randn(3, 5, 61, 67))
    show(y, x.grad)
  ]]
end

return T
