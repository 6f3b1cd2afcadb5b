local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local naive = require "naive_conv"
local threads = require "threads"
local core = require "feral.core.conv2d"
local nn, tensor = feral.nn, feral.tensor

local T = {}

function T.test_values_and_gradients_of_odd_shapes()
  for _ = 1, check.SHAPES do naive.compare(naive.random_case(5, 6)) end
end

--- As wide as several vectors of channels, on either side.
function T.test_values_and_gradients_of_wide_shapes()
  for i = 1, 60 do naive.compare(i % 2 == 0 and naive.random_case(3, 80) or naive.random_case(80, 3)) end
  for _ = 1, 10 do naive.compare(naive.random_case(40, 40)) end
end

--- From the fewest channels of Winograd's method on any instruction set up to blocks of unequal vectors.
function T.test_values_and_gradients_of_three_by_three()
  for i = 1, 120 do naive.compare(naive.random_square(3, i % 4 == 0 and 16 or 4, i % 4 == 0 and 90 or 24)) end
end

function T.test_values_and_gradients_of_four_by_four_and_five_by_five()
  for i = 1, 60 do naive.compare(naive.random_square(4 + i % 2, i % 5 == 0 and 16 or 4, i % 5 == 0 and 60 or 24)) end
end

--- Sums of several parts, whose tiles are those of several images.
function T.test_values_and_gradients_of_many_tiles()
  local case = naive.random_square(3, 16, 17)
  case.n, case.h, case.w = 3, 37, 41
  case.oh, case.ow = case.h + case.top + case.bottom - 2, case.w + case.left + case.right - 2
  case.x_shape, case.y_shape = { 3, case.c, 37, 41 }, { 3, case.f, case.oh, case.ow }
  naive.compare(case)
end

--- Images of several tiles, many of them or one; a stride's phases share tiles, of which the last may have rows of some only.
function T.test_values_and_gradients_of_large_images()
  for _, shape in ipairs { { 1, 3, 61, 40 }, { 40, 3, 5, 6 }, { 2, 1, 7, 300 }, { 1, 1, 400, 5 }, { 1, 2, 131, 50 } } do
    for stride = 1, 3 do
      local n, c, h, w = table.unpack(shape)
      local oh, ow = (h - 2) // stride + 1, (w - 1) // stride + 1
      naive.compare { n = n, c = c, f = 2, h = h, w = w, oh = oh, ow = ow, kh = 2, kw = 3, sh = stride, sw = stride, dh = 1,
        dw = 1, top = 0, left = 1, groups = 1, options = { stride, stride, 0, 1, 0, 1, 1, 1, 1 },
        x_shape = shape, w_shape = { 2, c, 2, 3 }, y_shape = { n, 2, oh, ow } }
    end
  end
end

local function compare_with_torch(stored, layer, x_shape)
  local x = tensor(stored.x):reshape(x_shape):requires_grad()
  layer:load_state { weight = tensor(stored.w):reshape(layer.weight.shape), bias = tensor(stored.b) }
  local y = layer(x)
  check.close(y, stored.y, 1e-5)
  ;(y * y / 2):sum():backward()
  check.close(x.grad, stored.dx, 1e-5)
  check.close(layer.weight.grad, stored.dw, 1e-5)
  check.close(layer.bias.grad, stored.db, 1e-5)
end

function T.test_values_of_pytorch()
  local stored = dofile "tests/nn/conv2d_torch.lua"
  compare_with_torch(stored.strided, nn.Conv2d(2, 3, { 3, 2 }, { stride = { 2, 1 }, padding = { 1, 2 }, dilation = { 1, 2 } }),
    { 1, 2, 5, 4 })
  compare_with_torch(stored.grouped, nn.Conv2d(4, 4, { 2, 3 }, { groups = 2, padding = 1 }), { 2, 4, 3, 3 })
end

local all_bits = [[
  local tensor, core = require "feral.tensor", require "feral.core.conv2d"
  local function digest(t)
    local sum = 0
    for word in t:tobytes():gmatch("....") do sum = sum * 1099511628211 ~ string.unpack("<I4", word) end
    return sum
  end
  for _, shape in ipairs { { 7, 3, 20, 20, 5 }, { 1, 24, 33, 9, 40 }, { 33, 40, 5, 5, 17 },
    { 9, 17, 40, 32, 16 }, { 2, 70, 12, 9, 130 } } do
    local n, c, h, w, f = table.unpack(shape)
    local x, weight, bias = tensor.randn(n, c, h, w), tensor.randn(f, c, 3, 3), tensor.randn(f)
    for stride = 1, 2 do
      local options = { stride, stride, 1, 1, 1, 1, 1, 1, 1 }
      local y = core.forward(x, weight, bias, options)
      local dy = tensor.randn(table.unpack(y.shape))
      print(digest(y), digest(core.backward_input(dy, weight, options, x.shape)),
        digest(core.backward_weight(dy, x, options, weight.shape)), digest(core.backward_bias(dy)))
    end
  end
]]

function T.test_every_bit_is_the_same_at_any_number_of_threads()
  local alone = threads.run(1, all_bits)
  lu.assertEquals(select(2, alone:gsub("\n", "")), 10)
  for count = 2, 5, 3 do lu.assertEquals(threads.run(count, all_bits), alone) end
end

function T.test_without_bias()
  local x, w, options = check.randn(2, 3, 5, 4), check.randn(4, 3, 2, 2), { 1, 1, 0, 0, 0, 0, 1, 1, 1 }
  local b = check.randn(4)
  check.close(core.forward(x, w, b, options) - b:reshape(1, 4, 1, 1), core.forward(x, w, nil, options), 1e-5)
end

function T.test_gradients()
  local layer = nn.Conv2d(4, 6, { 3, 2 }, { stride = { 2, 1 }, padding = { 1, 2 }, dilation = { 1, 2 }, groups = 2 })
  check.gradients(function(x, w, b)
    layer.weight, layer.bias = w, b
    return layer(x)
  end, { check.randn(2, 4, 5, 4), check.randn(6, 2, 3, 2), check.randn(6) })
end

function T.test_a_gradient_nobody_wants_is_not_computed()
  local layer = nn.Conv2d(2, 3, 3)
  layer:freeze()
  local x = check.randn(1, 2, 4, 4)
  lu.assertNil(require("feral.core.tensor").node(layer(x)))
  x:requires_grad()
  layer(x):sum():backward()
  lu.assertNotNil(x.grad)
  lu.assertNil(layer.weight.grad)
end

function T.test_same_padding_keeps_the_size()
  for _, kernel in ipairs { 1, 2, 3, 4, 5 } do
    for _, dilation in ipairs { 1, 2 } do
      local layer = nn.Conv2d(1, 2, kernel, { padding = "same", dilation = dilation })
      lu.assertEquals(layer(check.randn(1, 1, 7, 9)).shape, { 1, 2, 7, 9 })
    end
  end
  -- an even kernel's odd zero comes behind the image, as PyTorch's does
  local layer = nn.Conv2d(1, 1, 2, { padding = "same", bias = false })
  layer.weight = tensor { { { { 1, 0 }, { 0, 1000 } } } }
  check.close(layer(tensor { { { { 1, 2 }, { 3, 4 } } } }), { 4001, 2, 3, 4 })
end

function T.test_start_of_the_weights()
  tensor.manual_seed(1)
  local layer = nn.Conv2d(8, 64, 3, { groups = 2 })
  local bound = 1 / math.sqrt(4 * 9)
  lu.assertEquals(layer.weight.shape, { 64, 4, 3, 3 })
  for _, p in ipairs(layer:parameters()) do
    local most = p:abs():max():item()
    lu.assertTrue(most <= bound and most > 0.9 * bound)
  end
end

function T.test_messages()
  local function says(text, f) lu.assertStrContains(check.message(f), text) end
  says("conv2d: input has 3 channels, weight expects 1 (x 32x3x48x48, w 32x1x3x3)\n  in layer 1 (Conv2d)",
    function() return (nn.Sequential(nn.Conv2d(1, 32, 3))(tensor.zeros(32, 3, 48, 48))) end)
  says("conv2d: input has 3 channels, weight expects 4 (x 1x3x8x8, w 6x2x3x3, 2 groups)",
    function() return (nn.Conv2d(4, 6, 3, { groups = 2 })(tensor.zeros(1, 3, 8, 8))) end)
  says("conv2d: kernel 3x3 is larger than the input with its padding, 2x5 (x 1x1x2x5, w 1x1x3x3)",
    function() return (nn.Conv2d(1, 1, 3)(tensor.zeros(1, 1, 2, 5))) end)
  says("conv2d: kernel 3x3, dilated, is larger than the input with its padding, 4x7 (x 1x1x2x5, w 1x1x3x3)",
    function() return (nn.Conv2d(1, 1, 3, { dilation = 2, padding = 1 })(tensor.zeros(1, 1, 2, 5))) end)
  says("conv2d: input must have 4 dimensions, got 3x8x8", function() return (nn.Conv2d(3, 4, 3)(tensor.zeros(3, 8, 8))) end)
  says("conv2d: input must be f", function() return (nn.Conv2d(3, 4, 3)(tensor.zeros({ 1, 3, 8, 8 }, "u8"))) end)
  says("conv2d: input must be a tensor, got nil", function() return (nn.Conv2d(3, 4, 3)(nil)) end)
  says("Conv2d: groups = 3 does not divide 4 input and 6 output channels", function() nn.Conv2d(4, 6, 3, { groups = 3 }) end)
  says("Conv2d: stride must be 1 or more, got 0", function() nn.Conv2d(4, 6, 3, { stride = 0 }) end)
  says("Conv2d: stride must be 1 or more, got 0", function() nn.Conv2d(4, 6, 3, { stride = { 1, 0 } }) end)
  says("Conv2d: padding must be 0 or more, got -1", function() nn.Conv2d(4, 6, 3, { padding = -1 }) end)
  says("Conv2d: kernel must be a whole number or {height, width}", function() nn.Conv2d(4, 6, 2.5) end)
  says("Conv2d: kernel must be a whole number or {height, width}", function() nn.Conv2d(4, 6, { 1, 2, 3 }) end)
  says("Conv2d: kernel must be a whole number or {height, width}", function() nn.Conv2d(4, 6) end)
  says("Conv2d: output channels must be 1 or more, got 0", function() nn.Conv2d(4, 0, 3) end)
  says("Conv2d: padding must be a whole number, {height, width}, \"same\" or \"valid\", got \"full\"",
    function() nn.Conv2d(4, 6, 3, { padding = "full" }) end)
  says("Conv2d: padding \"same\" needs a stride of 1", function() nn.Conv2d(4, 6, 3, { padding = "same", stride = 2 }) end)
  says("Conv2d: unknown option 'strides', did you mean 'stride'?", function() nn.Conv2d(4, 6, 3, { strides = 2 }) end)
  local options = { 1, 1, 0, 0, 0, 0, 1, 1, 1 }
  says("conv2d: bias has 3 elements, weight has 2 filters",
    function() core.forward(tensor.zeros(1, 1, 3, 3), tensor.zeros(2, 1, 1, 1), tensor.zeros(3), options) end)
  says("conv2d: 3 filters cannot be divided into 2 groups (w 3x1x1x1)",
    function() core.forward(tensor.zeros(1, 2, 3, 3), tensor.zeros(3, 1, 1, 1), nil, { 1, 1, 0, 0, 0, 0, 1, 1, 2 }) end)
  says("conv2d: the gradient is 1x2x3x3, 1x2x2x2 expected", function()
    core.backward_input(tensor.zeros(1, 2, 3, 3), tensor.zeros(2, 1, 2, 2), options, { 1, 1, 3, 3 })
  end)
  says("conv2d: the gradient is 1x2x3x3, 1x2x2x2 expected", function()
    core.backward_weight(tensor.zeros(1, 2, 3, 3), tensor.zeros(1, 1, 3, 3), options, { 2, 1, 2, 2 })
  end)
end

function T.test_survives_lack_of_memory()
  local layer, x = nn.Conv2d(2, 3, 3, { padding = 1 }), check.randn(2, 2, 5, 5)
  x:requires_grad()
  check.survives_lack_of_memory(function()
    local open <close> = tensor.scope() -- luacheck: ignore
    layer(x):sum():backward()
  end)
end

return T
