local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local nn, tensor = feral.nn, feral.tensor

local T = {}

--- Mean and variance (over n) of a list.
local function moments(list)
  local mean, var = 0, 0
  for _, v in ipairs(list) do mean = mean + v / #list end
  for _, v in ipairs(list) do var = var + (v - mean) ^ 2 / #list end
  return mean, var
end

--- The channel (1-based) of the i-th number (0-based, row-major) of a shape.
local function channel_of(i, shape)
  local inner = 1
  for d = 3, #shape do inner = inner * shape[d] end
  return i // inner % shape[2] + 1
end

--- Lists of each channel's numbers.
local function by_channel(values, shape)
  local channels = {}
  for c = 1, shape[2] do channels[c] = {} end
  for i, v in ipairs(values) do table.insert(channels[channel_of(i - 1, shape)], v) end
  return channels
end

local function normalised(values, shape, means, variances, weight, bias)
  local out = {}
  for i, v in ipairs(values) do
    local c = channel_of(i - 1, shape)
    out[i] = (v - means[c]) / math.sqrt(variances[c] + 1e-5) * weight[c] + bias[c]
  end
  return out
end

local function random_shape()
  local n, c = check.integer(2, 5), check.integer(1, 80)
  if check.integer(0, 2) == 0 then return { check.integer(2, 40), c } end
  return { n, c, check.integer(1, 6), check.integer(1, 6) }
end

local function set(parameter, values)
  feral.autograd.no_grad(function() parameter:copy_(values) end)
end

local function random_batchnorm(c)
  local layer = nn.BatchNorm(c)
  set(layer.weight, check.randn(c))
  set(layer.bias, check.randn(c))
  layer.running_mean:copy_(check.randn(c))
  layer.running_var:copy_(check.randn(c):abs() + 0.1)
  return layer
end

function T.test_batch_norm_in_training()
  for _ = 1, check.SHAPES do
    local shape = random_shape()
    local layer, x = random_batchnorm(shape[2]), check.randn(table.unpack(shape)) * 2 + 3
    local values, means, variances, running_mean, running_var = check.flat(x), {}, {}, {}, {}
    local old_mean, old_var = layer.running_mean:totable(), layer.running_var:totable()
    for c, list in ipairs(by_channel(values, shape)) do
      means[c], variances[c] = moments(list)
      running_mean[c] = 0.9 * old_mean[c] + 0.1 * means[c]
      running_var[c] = 0.9 * old_var[c] + 0.1 * variances[c] * #list / (#list - 1)
    end
    local y = layer(layouts.vary(x))
    lu.assertEquals(y.shape, shape)
    check.close(y, normalised(values, shape, means, variances, check.flat(layer.weight), check.flat(layer.bias)), 2e-4)
    check.close(layer.running_mean, running_mean, 1e-5)
    check.close(layer.running_var, running_var, 1e-5)
  end
end

--- Numbers of deviation 1 far from 0, and one far from all others in front.
function T.test_batch_norm_far_from_zero()
  for _, shape in ipairs { { 64, 3 }, { 64, 1, 4, 4 }, { 16, 70, 3, 3 }, { 4, 8, 40, 40 } } do
    for _, far in ipairs { 1e3, 1e5, -1e6 } do
      local x = check.randn(table.unpack(shape)) + far
      local layer = nn.BatchNorm(shape[2])
      local y = layer(x)
      for c, list in ipairs(by_channel(check.flat(x), shape)) do
        local mean, var = moments(list)
        local got_mean, got_var = moments(by_channel(check.flat(y), shape)[c])
        lu.assertAlmostEquals(got_var, var / (var + 1e-5), 1e-3)
        lu.assertAlmostEquals(got_mean, 0, 0.6 * math.abs(far) * 2 ^ -23) -- the mean itself is rounded
        lu.assertAlmostEquals(layer.running_var[c]:item(), 0.9 + 0.1 * var * #list / (#list - 1), 1e-3)
        lu.assertAlmostEquals(layer.running_mean[c]:item(), 0.1 * mean, math.abs(far) * 1e-6)
      end
    end
  end
  local x = check.randn(5000, 1)
  x[1] = 3e4
  local _, var = moments(check.flat(x))
  local layer = nn.BatchNorm(1)
  layer(x)
  lu.assertAlmostEquals(layer.running_var[1]:item() / (0.9 + 0.1 * var * 5000 / 4999), 1, 1e-4)
end

function T.test_batch_norm_in_eval_and_frozen()
  for i = 1, check.SHAPES do
    local shape = random_shape()
    local layer, x = random_batchnorm(shape[2]), check.randn(table.unpack(shape))
    local means, variances = layer.running_mean:totable(), layer.running_var:totable()
    if i % 2 == 0 then layer:eval() else layer:freeze() end
    local expected = normalised(check.flat(x), shape, means, variances, check.flat(layer.weight), check.flat(layer.bias))
    check.close(layer(layouts.vary(x)), expected, 2e-5)
    lu.assertEquals(layer.running_mean:totable(), means)
    lu.assertEquals(layer.running_var:totable(), variances)
  end
end

function T.test_a_large_mean_leaves_the_variance()
  local layer = nn.BatchNorm(3, { momentum = 1 })
  local x = check.randn(64, 3, 16, 16)
  layer(x + 1000)
  check.close(layer.running_mean, { 1000, 1000, 1000 }, 1e-4)
  local shifted = layer.running_var:clone()
  layer(x)
  check.close(shifted, layer.running_var, 2e-3)
end

function T.test_layer_norm()
  for _ = 1, check.SHAPES do
    local shape = {}
    for d = 1, check.integer(1, 4) do shape[d] = check.integer(1, 9) end
    local dims = check.integer(1, #shape)
    local sizes, n = table.move(shape, #shape - dims + 1, #shape, 1, {}), 1
    for _, size in ipairs(sizes) do n = n * size end
    local layer, x = nn.LayerNorm(sizes), check.randn(table.unpack(shape)) * 2 + 3
    set(layer.weight, check.randn(table.unpack(sizes)))
    set(layer.bias, check.randn(table.unpack(sizes)))
    local weight, bias, values, expected = check.flat(layer.weight), check.flat(layer.bias), check.flat(x), {}
    for start = 1, #values, n do
      local mean, var = moments(table.move(values, start, start + n - 1, 1, {}))
      for i = 1, n do
        expected[start + i - 1] = (values[start + i - 1] - mean) / math.sqrt(var + 1e-5) * weight[i] + bias[i]
      end
    end
    -- where all numbers of a row are nearly the same, the division magnifies their rounding
    if n > 2 then check.close(layer(layouts.vary(x)), expected, 1e-4) end
  end
end

local function with_parameters(layer)
  return function(x, weight, bias)
    layer.weight, layer.bias = weight or layer.weight, bias or layer.bias
    return layer(x)
  end
end

function T.test_gradients()
  for _, shape in ipairs { { 5, 3 }, { 2, 3, 3, 2 }, { 2, 70, 2, 1 } } do
    local function x() return check.randn(table.unpack(shape)) end
    local c = shape[2]
    check.gradients(with_parameters(random_batchnorm(c)), { x(), check.randn(c), check.randn(c) }, nil, "training")
    check.gradients(with_parameters(random_batchnorm(c):eval()), { x(), check.randn(c), check.randn(c) }, nil, "eval")
    check.gradients(with_parameters(nn.BatchNorm(c, { affine = false })), { x() }, nil, "without weight")
    check.gradients(with_parameters(random_batchnorm(c):freeze()), { x() }, nil, "frozen")
    local input = x()
    check.gradients(function(w, b) return with_parameters(random_batchnorm(c))(input, w, b) end,
      { check.randn(c), check.randn(c) }, nil, "parameters alone")
  end
  for _, sizes in ipairs { { 4 }, { 3, 4 } } do
    local function vector() return check.randn(table.unpack(sizes)) end
    check.gradients(with_parameters(nn.LayerNorm(sizes)), { check.randn(5, 3, 4), vector(), vector() }, nil, "layer norm")
    check.gradients(with_parameters(nn.LayerNorm(sizes, { affine = false })), { check.randn(5, 3, 4) }, nil, "plain")
    check.gradients(function(x) return nn.LayerNorm(sizes)(x:transpose(1, 2)):sum(1) end, { check.randn(3, 2, 4) })
    local input = check.randn(2, 3, 4)
    check.gradients(function(w, b) return with_parameters(nn.LayerNorm(sizes))(input, w, b) end, { vector(), vector() })
  end
  check.gradients(function(x) return nn.BatchNorm(3)(x:as_image()):sum(2) end, { check.randn(2, 3, 2, 2) })
end

function T.test_frozen_layers_get_no_gradient()
  local layer, x = random_batchnorm(3):freeze(), check.randn(4, 3):requires_grad()
  layer(x):sum():backward()
  lu.assertNil(layer.weight.grad)
  lu.assertNotNil(x.grad)
end

--- Made with torch 1.13.1 in double: batch norm (after one step from fresh statistics) and layer norm of random numbers.
local torch = {
  { kind = "BatchNorm", shape = { 2, 3, 2, 2 },
    x = { 1.481, 1.866, 1.647, -2.048, 1.415, 1.905, -0.38, -0.814, -2.352, 0.872, 0.369, -0.023, -0.129,
      -1.997, -0.024, -0.662, 0.776, 0.269, 0.455, 0.935, 0.991, -1.12, 1.306, 1.685 },
    weight = { 1.705, 0.762, 0.633 },
    bias = { -0.421, 0.569, -1.552 },
    y = { 1.29043232, 1.74042477, 1.48445504, -2.83430366, 1.33891009, 1.78543288, -0.296821361,
      -0.692312975, -2.83524441, -1.22419302, -1.47554502, -1.67142968, -0.591354284, -2.77469427,
      -0.468629071, -1.21433084, 0.756607917, 0.29459352, 0.464089926, 0.901500007, -1.16472803,
      -2.2196069, -1.00732071, -0.817932228 },
    dy = { -1.105, 0.337, -0.191, 0.214, -0.925, -0.969, 2.16, -0.659, 1.34, 1.432, 1.073, 3.716, -1.91,
      1.211, 2.411, 2.271, 0.56, 0.58, -1.528, 3.257, -2.598, 0.006, -0.244, 0.592 },
    dx = { -1.20685531, 0.625224051, -0.0753293052, -1.00944948, -0.862051447, -0.749666618, 1.39064214,
      -1.31328519, -0.126687023, 0.502036218, 0.231722677, 1.48158952, -2.76102522, 0.175282412,
      2.32940581, 1.92274705, 0.292338641, 0.15279316, -1.71028566, 2.79951498, -1.49026832,
      -0.570605812, -0.257023491, 0.229236228 },
    dweight = { -3.80325899, -2.2843824, -3.66566231 },
    dbias = { 3.238, 2.476, 5.317 },
    running_mean = { 0.001675, 0.0570125, 0.0216 },
    running_var = { 1.14319222, 0.979909898, 1.08338674 },
    eval = { 1.9379919, 2.55192859, 2.20270226, -3.68949525, 1.61433491, 1.99152109, 0.232601894, -0.101477288,
      -2.9955023, -1.03483015, -1.34072906, -1.57912344, -0.629379678, -3.60816857, -0.461942401,
      -1.47932319, 1.12245335, 0.73218113, 0.875357922, 1.24484642, -0.962460427, -2.24626282,
      -0.770893514, -0.540405069 },
  },
  { kind = "BatchNorm", shape = { 5, 3 },
    x = { -0.298, -0.321, -1.1, 2.778, 0.47, -1.131, 0.647, 1.455, -0.104, 1.194, -2.314, -0.421, 0.799,
      -0.682, 1.306 },
    weight = { -0.055, 2.017, 2.538 },
    bias = { -0.394, -1.347, 0.473 },
    y = { -0.321621487, -1.41547385, -1.83631014, -0.49003019, -0.144046198, -1.92469114, -0.373359532,
      1.43921074, 1.00328603, -0.403307373, -4.61895719, 0.0995189777, -0.381681418, -1.9957335,
      5.02319627 },
    dy = { -0.152, 0.123, 0.727, -1.024, 0.761, -2.7, 1.888, 0.908, -1.55, 2.139, 1.424, 1.826, 1.947, 1.003,
      -1.167 },
    dx = { 0.0950177152, -1.16872504, 3.29298263, 0.0632799582, 0.0449549798, -6.49319146, -0.0410881069,
      0.515570344, -2.69121834, -0.0689638076, 0.448323602, 6.77222624, -0.0482457589, 0.159876111,
      -0.880799071 },
    dweight = { -2.37051624, -0.928627578, -0.79554812 },
    dbias = { 4.798, 4.219, -2.864 },
    running_mean = { 0.1024, -0.02784, -0.029 },
    running_var = { 1.02614635, 1.09682883, 0.99905885 },
    eval = { -0.372260478, -1.91159783, -2.24646441, -0.539270392, -0.388208274, -2.32517907, -0.42356879,
      1.50880653, 0.282561316, -0.453267888, -5.74992321, -0.522359522, -0.431821556, -2.60684894,
      3.86280858 },
  },
  { kind = "LayerNorm", shape = { 3, 4 }, sizes = { 4 },
    x = { 0.177, -1.186, -0.261, 0.605, 0.629, 1.456, 0.879, 1.188, 0.294, -1.129, 0.018, -1.8 },
    weight = { -3.142, 0.513, 0.508, -2.008 },
    bias = { 1.805, -2.882, -0.243, -0.305 },
    y = { 0.179830552, -3.67030268, -0.315531198, -2.63867733, 5.92146174, -2.19510834, -0.501735149,
      -1.26982725, -1.70062177, -3.16856184, 0.158819074, 2.40200838 },
    dy = { 0.319, -1.675, 0.264, 1.551, 0.935, 2.087, 0.359, 2.607, 0.116, -0.722, -2.421, -0.062 },
    dx = { 0.866437981, -1.1129367, 1.87355495, -1.62705623, -1.06334511, 6.1033766, 7.21631211, -12.2563436,
      0.552381019, -0.114737349, -0.593902998, 0.156259328 },
    dweight = { -0.930557145, 5.7716326, -2.13550814, 3.13878123 },
    dbias = { 1.37, -0.31, -1.798, 4.096 },
  },
  { kind = "LayerNorm", shape = { 2, 3, 2 }, sizes = { 3, 2 },
    x = { 0.876, 2.75, 0.351, 2.125, -0.211, 1.865, 1.79, 0.462, 1.044, -1.834, 1.314, 0.48 },
    weight = { -0.713, 0.534, 0.884, 0.168, 0.024, -1.739 },
    bias = { -2.068, 1.108, 0.951, 1.241, 1.579, -0.54 },
    y = { -1.78181294, 1.85767298, 0.149098246, 1.37570331, 1.54423562, -1.498783, -2.83527078, 1.0708369,
      1.33334503, 0.896527815, 1.59497092, -0.445981617 },
    dy = { 2.169, 2.371, 1.117, 0.165, -0.605, -1.153, -0.508, -0.854, 2.116, 3.852, 4.189, 4.233 },
    dx = { -1.75647946, 0.184534771, 0.899784727, -0.752155603, 0.165034835, 1.25928073, 0.950940394,
      0.305728882, 2.28634014, 1.36243717, 0.746951708, -5.6523983 },
    dweight = { -1.41726969, 3.3880373, -0.0980567596, -7.76595721, 3.6639432, -0.864552394 },
    dbias = { 1.661, 1.517, 3.233, 4.017, 3.584, 3.08 },
  },
}

function T.test_stored_values_of_pytorch()
  for _, case in ipairs(torch) do
    local layer = case.kind == "BatchNorm" and nn.BatchNorm(3) or nn.LayerNorm(case.sizes)
    set(layer.weight, tensor(case.weight):reshape(layer.weight.shape))
    set(layer.bias, tensor(case.bias):reshape(layer.bias.shape))
    local x = tensor(case.x):reshape(case.shape):requires_grad()
    local y = layer(x)
    check.close(y, case.y, 1e-5)
    y:backward(tensor(case.dy):reshape(case.shape))
    check.close(x.grad, case.dx, 1e-5)
    check.close(layer.weight.grad, case.dweight, 1e-5)
    check.close(layer.bias.grad, case.dbias, 1e-5)
    if case.running_mean then
      check.close(layer.running_mean, case.running_mean, 1e-6)
      check.close(layer.running_var, case.running_var, 1e-6)
      check.close(layer:eval()(x), case.eval, 1e-5)
    end
  end
end

function T.test_nan_spoils_its_own_channel_alone()
  local y = nn.BatchNorm(2)(tensor { { 1, 0 / 0 }, { 2, 3 } })
  lu.assertEquals(y:isnan():totable(), { { 0, 1 }, { 0, 1 } })
end

function T.test_a_constant_channel_gives_its_bias()
  lu.assertEquals(nn.BatchNorm(1)(tensor.full({ 100, 1 }, 0.1)):abs():max():item() < 1e-3, true)
end

function T.test_messages()
  local function message(layer, x)
    local net = nn.Sequential(layer)
    return check.message(function() return (net(x)) end)
  end
  lu.assertStrContains(message(nn.BatchNorm(5), tensor.zeros(2, 8)),
    "batch_norm: weight has 5 elements, the input has 8 channels\n  in layer 1 (BatchNorm)")
  lu.assertStrContains(message(nn.BatchNorm(5, { affine = false }), tensor.zeros(2, 8)),
    "batch_norm: running_mean has 5 elements, the input has 8 channels")
  lu.assertStrContains(message(nn.BatchNorm(5), tensor.zeros(5)),
    "batch_norm: input is 5, N x C or N x C x H x W expected")
  lu.assertStrContains(message(nn.BatchNorm(5), tensor.zeros(1, 5)),
    "batch_norm: input 1x5 has one value a channel, which has no variance: train on larger batches")
  lu.assertStrContains(message(nn.LayerNorm { 3, 4 }, tensor.zeros(2, 4, 3)),
    "LayerNorm: input is 2x4x3, ... x 3x4 expected\n  in layer 1 (LayerNorm)")
  lu.assertStrContains(message(nn.LayerNorm { 3, 4 }, tensor.zeros(4)), "LayerNorm: input is 4, ... x 3x4 expected")
  lu.assertStrContains(check.message(nn.BatchNorm, 0), "a size must be 1 or more, got 0")
  lu.assertStrContains(check.message(nn.LayerNorm, {}), "LayerNorm: sizes of the last dimensions expected")
  lu.assertStrContains(check.message(nn.BatchNorm, 3, { momentun = 0.1 }),
    "BatchNorm: unknown option 'momentun', did you mean 'momentum'?")
end

function T.test_layers_survive_saving()
  local net = nn.Sequential(nn.BatchNorm(3, { momentum = 0.5 }), nn.LayerNorm({ 3, 2, 2 }, { eps = 0.1 }))
  local x = check.randn(4, 3, 2, 2)
  net(x)
  local copy, state = assert(nn.build(nn.describe(net))), {}
  local names = {}
  for i, pair in ipairs(net:state()) do state[pair[1]], names[i] = pair[2], pair[1] end
  lu.assertEquals(names, { "1.weight", "1.bias", "2.weight", "2.bias", "1.running_mean", "1.running_var" })
  copy:load_state(state)
  lu.assertEquals(copy:eval()(x):tobytes(), net:eval()(x):tobytes())
end

function T.test_survives_lack_of_memory()
  local net = nn.Sequential(nn.BatchNorm(3), nn.LayerNorm { 2, 2 })
  local x = check.randn(2, 3, 2, 2):requires_grad()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    net(x):sum():backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    for _, c in ipairs { 7, 100 } do
      local x = check.randn(9, c, 31, 29):requires_grad()
      for _, layer in ipairs { nn.BatchNorm(c), nn.BatchNorm(c):eval(), nn.LayerNorm { 31, 29 } } do
        local y = layer(x)
        x:zero_grad()
        y:backward(check.randn(9, c, 31, 29))
        show(y, x.grad, layer.weight.grad, layer.bias.grad)
        if layer.running_var then show(layer.running_mean, layer.running_var) end
      end
    end
  ]]
end

return T
