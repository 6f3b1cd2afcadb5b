local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local nn, tensor = feral.nn, feral.tensor

local T = {}

--- Output size of one side, by counting the places where a window may begin.
local function places(size, kernel, stride, padding, ceil)
  local count, start = 0, -padding
  while start + kernel <= size + padding or (ceil and start < size and start + kernel - stride < size + padding) do
    count, start = count + 1, start + stride
  end
  return count
end

--- Largest and mean of the part of a window inside the image, and how many numbers a mean counts.
local function window(image, h, w, kh, kw, ph, pw, count_padding)
  local best, sum, inside, padded = -math.huge, 0, 0, 0
  for i = h, h + kh - 1 do
    for j = w, w + kw - 1 do
      local row = image[i]
      if row and row[j] then best, sum, inside = math.max(best, row[j]), sum + row[j], inside + 1 end
      if i <= #image + ph and j <= #image[1] + pw then padded = padded + 1 end
    end
  end
  return best, sum / (count_padding and padded or inside)
end

--- Flat lists of max and mean pooling, and the output's shape.
local function naive(x, o)
  local maxima, means = {}, {}
  local oh = places(x:size(3), o.kh, o.sh, o.ph, o.ceil)
  local ow = places(x:size(4), o.kw, o.sw, o.pw, o.ceil)
  for _, channels in ipairs(x:totable()) do
    for _, image in ipairs(channels) do
      for i = 0, oh - 1 do
        for j = 0, ow - 1 do
          local k = #maxima + 1
          maxima[k], means[k] = window(image, 1 + i * o.sh - o.ph, 1 + j * o.sw - o.pw, o.kh, o.kw, o.ph, o.pw, o.count)
        end
      end
    end
  end
  return maxima, means, { x:size(1), x:size(2), oh, ow }
end

local function random_options()
  local o = { kh = check.integer(1, 4), kw = check.integer(1, 4), sh = check.integer(1, 4), sw = check.integer(1, 4) }
  o.ph, o.pw = check.integer(0, o.kh // 2), check.integer(0, o.kw // 2)
  o.ceil, o.count = check.integer(0, 1) == 1, check.integer(0, 1) == 1
  return o
end

local function layers(o)
  local function options()
    return { stride = { o.sh, o.sw }, padding = { o.ph, o.pw }, ceil = o.ceil }
  end
  local mean_options = options()
  mean_options.count_include_pad = o.count
  return nn.MaxPool2d({ o.kh, o.kw }, options()), nn.AvgPool2d({ o.kh, o.kw }, mean_options)
end

local function random_image(o)
  return check.randn(check.integer(1, 3), check.integer(1, 37), check.integer(o.kh, 9), check.integer(o.kw, 9))
end

function T.test_values_of_odd_shapes_and_layouts()
  for _ = 1, check.SHAPES do
    local o = random_options()
    local x = random_image(o)
    local maxima, means, shape = naive(x, o)
    local max, mean = layers(o)
    local a, b = max(layouts.vary(x)), mean(layouts.vary(x))
    lu.assertEquals(a.shape, shape)
    lu.assertEquals(b.shape, shape)
    lu.assertEquals(check.flat(a), maxima)
    check.close(b, means, 2e-6)
  end
end

function T.test_large_windows()
  local x = check.randn(2, 3, 40, 33):requires_grad()
  local y = nn.MaxPool2d({ 20, 17 }, { stride = { 13, 9 } })(x)
  lu.assertEquals(check.flat(y), (naive(x, { kh = 20, kw = 17, sh = 13, sw = 9, ph = 0, pw = 0 })))
  y:sum():backward()
  local sum = x.grad * x:detach()
  check.close(sum:sum(), { y:sum():item() }, 1e-5)
end

function T.test_the_gradient_of_a_maximum_goes_to_where_it_stood()
  for _ = 1, check.SHAPES do
    local o = random_options()
    local x = random_image(o)
    x = tensor.randperm(x:numel()):to(x.dtype):reshape(x.shape):requires_grad() -- no number twice
    local y = (layers(o))(x)
    local g = check.randn(table.unpack(y.shape))
    y:backward(layouts.vary(g))
    local expected, at = {}, {}
    for i, v in ipairs(check.flat(x)) do
      expected[i], at[v] = 0, i
    end
    local gradients = check.flat(g)
    for i, v in ipairs(check.flat(y)) do expected[at[v]] = expected[at[v]] + gradients[i] end
    check.close(x.grad, expected, 1e-6)
  end
end

function T.test_positions_fit_in_windows_of_256_cells_and_in_larger_ones()
  for _, size in ipairs { { 16, 16 }, { 16, 17 }, { 300, 1 } } do
    local x = tensor.zeros(1, 3, size[1], size[2])
    for c = 1, 3 do x[1][c][size[1]][size[2] + 1 - (c == 2 and size[2] or 1)] = c end
    x:requires_grad()
    nn.MaxPool2d(size)(x):backward(tensor { { { { 5 } }, { { 6 } }, { { 7 } } } })
    check.close(x.grad:sum(3):sum(3), { 5, 6, 7 }, 0)
    check.close((x.grad * x:detach()):sum(3):sum(3), { 5, 12, 21 }, 0)
  end
end

function T.test_gradients()
  for _ = 1, 25 do
    local o = random_options()
    local max, mean = layers(o)
    local h, w = o.kh + check.integer(0, 3), o.kw + check.integer(0, 3)
    check.gradients(function(x) return max(x) end, { check.randn(2, 3, h, w) }, nil, "max")
    check.gradients(function(x) return mean(x) end, { check.randn(2, 3, h, w) }, nil, "mean")
  end
  local global, flat = nn.GlobalAvgPool(), nn.Flatten()
  check.gradients(function(x) return global(x) end, { check.randn(2, 3, 4, 5) })
  check.gradients(function(x) return global(x):sum(1) end, { check.randn(2, 3, 4, 5) })
  check.gradients(function(x) return flat(x:as_image()) end, { check.randn(2, 3, 4, 5) })
  check.gradients(function(x) return nn.MaxPool2d(2)(x):sum(2) end, { check.randn(2, 3, 4, 5) })
end

function T.test_global_mean()
  local layer = nn.GlobalAvgPool()
  for _ = 1, check.SHAPES do
    local n, c, h, w = check.integer(1, 4), check.integer(1, 70), check.integer(1, 9), check.integer(1, 9)
    local x, expected = check.randn(n, c, h, w), {}
    local values = check.flat(x)
    for i = 1, n * c do
      expected[i] = 0
      for p = 1, h * w do expected[i] = expected[i] + values[(i - 1) * h * w + p] / (h * w) end
    end
    local y = layer(layouts.vary(x))
    lu.assertEquals(y.shape, { n, c })
    check.close(y, expected, 1e-5)
  end
end

function T.test_flatten_keeps_the_order_of_channels_rows_columns()
  local layer = nn.Flatten()
  for _ = 1, check.SHAPES do
    local sizes = {}
    for d = 1, check.integer(2, 5) do sizes[d] = check.integer(1, 5) end
    local x = check.randn(table.unpack(sizes))
    local y = layer(layouts.vary(x))
    lu.assertEquals(y.shape, { sizes[1], x:numel() // sizes[1] })
    lu.assertEquals(check.flat(y), check.flat(x))
  end
end

function T.test_equal_numbers_share_no_gradient()
  local x = tensor.ones(1, 1, 2, 2):requires_grad()
  nn.MaxPool2d(2)(x):sum():backward()
  lu.assertEquals(x.grad:totable(), { { { { 1, 0 }, { 0, 0 } } } })
end

function T.test_nan_and_infinity()
  local x = tensor { { { { 1, 0 / 0, -1 / 0, -1 / 0 }, { 2, 3, -1 / 0, -1 / 0 } } } }:requires_grad()
  local y = nn.MaxPool2d(2)(x)
  lu.assertEquals(y:isnan():totable(), { { { { 1, 0 } } } })
  lu.assertEquals(y:totable()[1][1][1][2], -1 / 0)
  y:backward(tensor.ones(1, 1, 1, 2))
  lu.assertEquals(x.grad:totable(), { { { { 0, 1, 1, 0 }, { 0, 0, 0, 0 } } } })
end

function T.test_messages()
  local function message(f, ...) return check.message(f, ...) end
  lu.assertStrContains(message(nn.MaxPool2d), "MaxPool2d: kernel must be a whole number or {height, width}")
  lu.assertStrContains(message(nn.MaxPool2d, 0), "MaxPool2d: kernel must be 1 or more, got 0")
  lu.assertStrContains(message(nn.MaxPool2d, 2, { stride = { 2, 0 } }), "MaxPool2d: stride must be 1 or more, got 0")
  lu.assertStrContains(message(nn.AvgPool2d, 3, { padding = 2 }),
    "AvgPool2d: padding 2x2 is more than half of the kernel, 3x3")
  lu.assertStrContains(message(nn.MaxPool2d, 2, { strid = 2 }), "MaxPool2d: unknown option 'strid', did you mean 'stride'?")
  lu.assertStrContains(message(nn.MaxPool2d, 2, 2), "MaxPool2d: options must be a table, got number")
  local net = nn.Sequential(nn.MaxPool2d({ 4, 5 }, { padding = { 0, 1 } }))
  lu.assertStrContains(message(function() return (net(tensor.zeros(1, 2, 3, 3))) end),
    "max_pool2d: a window of 4x5 is larger than the input with its padding, 3x5\n  in layer 1 (MaxPool2d)")
  lu.assertStrContains(message(function() return (net(tensor.zeros(2, 3))) end),
    "max_pool2d: input must have 4 dimensions, got 2x3\n  in layer 1 (MaxPool2d)")
  lu.assertStrContains(message(function() return (nn.AvgPool2d(2)(tensor.zeros(1, 1, 4, 4, "u8"))) end),
    "avg_pool2d: input must be " .. tensor.zeros(1).dtype .. ", got u8")
  lu.assertStrContains(message(function() return (nn.GlobalAvgPool()(tensor.zeros(2, 3))) end),
    "global_avg_pool: input must have 4 dimensions, got 2x3")
  lu.assertStrContains(message(function() return (nn.Flatten()(tensor.zeros(3))) end), "Flatten: input is 3, N x ... expected")
end

function T.test_layers_survive_saving()
  local net = nn.Sequential(nn.MaxPool2d(3, { stride = 2, padding = 1 }), nn.AvgPool2d({ 2, 1 }, { ceil = true }),
    nn.Flatten())
  local other = nn.Sequential(nn.MaxPool2d(2), nn.GlobalAvgPool())
  local x = check.randn(2, 3, 9, 8)
  for _, each in ipairs { net, other } do
    lu.assertEquals(assert(nn.build(nn.describe(each)))(x):tobytes(), each(x):tobytes())
  end
end

function T.test_survives_lack_of_memory()
  local net = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, { stride = 1 }), nn.GlobalAvgPool())
  local x = check.randn(2, 3, 6, 6):requires_grad()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    net(x):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    for _, sizes in ipairs { { 5, 3, 41, 37 }, { 5, 32, 41, 37 }, { 1, 10, 61, 57 } } do
      local x = check.randn(table.unpack(sizes)):requires_grad()
      for _, layer in ipairs { nn.MaxPool2d(2), nn.MaxPool2d(3, { stride = 2, padding = 1 }), nn.AvgPool2d(3, { stride = 1 }),
        nn.GlobalAvgPool() } do
        local y = layer(x)
        x:zero_grad()
        y:backward(check.randn(table.unpack(y.shape)))
        show(y, x.grad)
      end
    end
  ]]
end

return T
