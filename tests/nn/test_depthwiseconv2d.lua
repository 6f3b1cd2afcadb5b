local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local naive = require "naive_conv"
local threads = require "threads"
local nn, tensor = feral.nn, feral.tensor

local T = {}

--- A random case with a filter a channel.
local function random_case(most_channels)
  local case = naive.random_case(1, 1)
  local channels = check.integer(1, most_channels)
  case.c, case.f, case.groups, case.options[9] = channels, channels, channels, channels
  case.x_shape[2], case.y_shape[2], case.w_shape = channels, channels, { channels, 1, case.kh, case.kw }
  return case
end

function T.test_values_and_gradients_of_odd_shapes()
  for _ = 1, check.SHAPES do naive.compare(random_case(9)) end
  for _ = 1, 60 do naive.compare(random_case(70)) end
end

--- Where rows are treated as one line whatever their pixels.
function T.test_values_and_gradients_with_a_stride_of_1()
  for _, channels in ipairs { 1, 2, 3, 4, 6, 8, 10, 16, 17, 24, 33 } do
    for _, width in ipairs { 1, 7, 20, 50 } do
      naive.compare { n = 2, c = channels, f = channels, h = 3, w = width, oh = 3, ow = width, kh = 3, kw = 3,
        sh = 1, sw = 1, dh = 1, dw = 1, top = 1, left = 1, groups = channels, options = { 1, 1, 1, 1, 1, 1, 1, 1, channels },
        x_shape = { 2, channels, 3, width }, w_shape = { channels, 1, 3, 3 }, y_shape = { 2, channels, 3, width } }
    end
  end
end

--- Images of several tiles, which a stride's phases share.
function T.test_values_and_gradients_of_large_images_with_a_stride()
  for stride = 2, 3 do
    local h, w = 195, 41
    local oh, ow = (h - 1) // stride + 1, (w - 1) // stride + 1
    naive.compare { n = 1, c = 9, f = 9, h = h, w = w, oh = oh, ow = ow, kh = 3, kw = 3, sh = stride, sw = stride, dh = 1, dw = 1,
      top = 1, left = 1, groups = 9, options = { stride, stride, 1, 1, 1, 1, 1, 1, 9 },
      x_shape = { 1, 9, h, w }, w_shape = { 9, 1, 3, 3 }, y_shape = { 1, 9, oh, ow } }
  end
end

function T.test_equals_a_convolution_in_groups()
  local layer = nn.DepthwiseConv2d(6, { 3, 2 }, { stride = 2, padding = { 1, 0 } })
  local other = nn.Conv2d(6, 6, { 3, 2 }, { stride = 2, padding = { 1, 0 }, groups = 6 })
  other:load_state { weight = layer.weight, bias = layer.bias }
  local x = check.randn(2, 6, 7, 5)
  check.close(layer(x), other(x), 0)
end

function T.test_gradients()
  local layer = nn.DepthwiseConv2d(3, { 2, 3 }, { stride = { 2, 1 }, padding = "valid", dilation = { 1, 2 } })
  check.gradients(function(x, w, b)
    layer.weight, layer.bias = w, b
    return layer(x)
  end, { check.randn(2, 3, 5, 6), check.randn(3, 1, 2, 3), check.randn(3) })
end

function T.test_start_of_the_weights()
  local layer = nn.DepthwiseConv2d(200, 3)
  lu.assertEquals(layer.weight.shape, { 200, 1, 3, 3 })
  for _, p in ipairs(layer:parameters()) do
    local most = p:abs():max():item()
    lu.assertTrue(most <= 1 / 3 and most > 0.3)
  end
  lu.assertEquals(#nn.DepthwiseConv2d(4, 3, { bias = false }):parameters(), 1)
end

function T.test_messages()
  local function says(text, f) lu.assertStrContains(check.message(f), text) end
  says("conv2d: input has 3 channels, weight expects 4 (x 1x3x8x8, w 4x1x3x3, 4 groups)\n  in layer 1 (DepthwiseConv2d)",
    function() return (nn.Sequential(nn.DepthwiseConv2d(4, 3))(tensor.zeros(1, 3, 8, 8))) end)
  says("DepthwiseConv2d: channels must be 1 or more, got 0", function() nn.DepthwiseConv2d(0, 3) end)
  says("DepthwiseConv2d: unknown option 'groups'", function() nn.DepthwiseConv2d(4, 3, { groups = 4 }) end)
  says("DepthwiseConv2d: kernel must be a whole number or {height, width}, got nil", function() nn.DepthwiseConv2d(4) end)
end

local all_bits = [[
  local tensor, core = require "feral.tensor", require "feral.core.conv2d"
  for stride = 1, 2 do
    local options = { stride, stride, 1, 1, 1, 1, 1, 1, 12 }
    local x, weight = tensor.randn(9, 12, 30, 30), tensor.randn(12, 1, 3, 3)
    local y = core.forward(x, weight, nil, options)
    local dy = tensor.randn(table.unpack(y.shape))
    for _, t in ipairs { y, core.backward_input(dy, weight, options, x.shape),
                         core.backward_weight(dy, x, options, weight.shape) } do
      print((t:tobytes():gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)))
    end
  end
]]

function T.test_every_bit_is_the_same_at_any_number_of_threads()
  local alone = threads.run(1, all_bits)
  for count = 2, 5, 3 do lu.assertTrue(threads.run(count, all_bits) == alone) end
end

function T.test_survives_lack_of_memory()
  local layer, x = nn.DepthwiseConv2d(3, 3, { padding = 1 }), check.randn(2, 3, 5, 5)
  x:requires_grad()
  check.survives_lack_of_memory(function()
    local open <close> = tensor.scope() -- luacheck: ignore
    layer(x):sum():backward()
  end)
end

return T
