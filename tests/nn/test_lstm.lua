local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local threads = require "threads"
local nn, tensor = feral.nn, feral.tensor

local T = {}

local LSTM = nn.LSTM
local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function tanh(x) return 2 * sigmoid(2 * x) - 1 end

--- One layer, number by number. All are nested tables; b the sum of the biases. Returns y, h, c as flat lists.
local function naive(x, w_ih, w_hh, b, h, c, reverse)
  local hidden, steps, y = #w_hh[1], #x[1], {}
  for n = 1, #x do
    y[n] = {}
    for s = 1, steps do
      local t = reverse and steps + 1 - s or s
      local gate = {}
      for j = 1, 4 * hidden do
        local sum = b[j]
        for i, value in ipairs(x[n][t]) do sum = sum + w_ih[j][i] * value end
        for i, value in ipairs(h[n]) do sum = sum + w_hh[j][i] * value end
        gate[j] = (j > 2 * hidden and j <= 3 * hidden) and tanh(sum) or sigmoid(sum)
      end
      h[n] = {}
      for j = 1, hidden do
        c[n][j] = gate[hidden + j] * c[n][j] + gate[j] * gate[2 * hidden + j]
        h[n][j] = gate[3 * hidden + j] * tanh(c[n][j])
      end
      y[n][t] = h[n]
    end
  end
  local flat_y, flat_h, flat_c = {}, {}, {}
  for n = 1, #x do
    for t = 1, steps do table.move(y[n][t], 1, hidden, #flat_y + 1, flat_y) end
    table.move(h[n], 1, hidden, #flat_h + 1, flat_h)
    table.move(c[n], 1, hidden, #flat_c + 1, flat_c)
  end
  return flat_y, flat_h, flat_c
end

local function weights_of(inputs, hidden)
  return { weight_ih = check.randn(4 * hidden, inputs), weight_hh = check.randn(4 * hidden, hidden),
    bias_ih = check.randn(4 * hidden), bias_hh = check.randn(4 * hidden) }
end

local function compare_with_naive(n, steps, inputs, hidden, reverse)
  local open <close> = tensor.scope() -- luacheck: ignore
  local x, w = check.randn(n, steps, inputs), weights_of(inputs, hidden)
  local h, c
  if check.integer(0, 1) == 1 then h, c = check.randn(n, hidden), check.randn(n, hidden) end
  if check.integer(0, 3) == 0 then w.bias_ih = nil end
  if check.integer(0, 3) == 0 then w.bias_hh = nil end
  local zero = tensor.zeros(4 * hidden)
  local b = (w.bias_ih or zero) + (w.bias_hh or zero)
  local first = h or tensor.zeros(n, hidden)
  local y, last_h, last_c = LSTM.layer(x, w, h, c, reverse)
  local expected_y, expected_h, expected_c = naive(x:totable(), w.weight_ih:totable(), w.weight_hh:totable(), b:totable(),
    first:totable(), (c or first):totable(), reverse)
  lu.assertEquals({ y.shape, last_h.shape, last_c.shape }, { { n, steps, hidden }, { 1, n, hidden }, { 1, n, hidden } })
  check.close(y, expected_y, 1e-5)
  check.close(last_h, expected_h, 1e-5)
  check.close(last_c, expected_c, 1e-5)
end

function T.test_values_of_odd_shapes()
  for _ = 1, check.SHAPES do
    compare_with_naive(check.integer(1, 9), check.integer(1, 5), check.integer(1, 9), check.integer(1, 13),
      check.integer(0, 1) == 1)
  end
  compare_with_naive(29, 3, 5, 41, false) -- cut into pieces for threads
  compare_with_naive(26, 2, 3, 67, true)
end

--- The layer made of operations on the tape.
local function composed(x, w, h, c, reverse)
  local hidden, steps, outputs = w.weight_hh:size(2), x:size(2), {}
  for s = 1, steps do
    local t = reverse and steps + 1 - s or s
    local from_x, from_h = x:select(2, t):matmul(w.weight_ih:transpose(1, 2)), h:matmul(w.weight_hh:transpose(1, 2))
    local sums = from_x + from_h + w.bias_ih + w.bias_hh
    local function part(q) return sums:narrow(2, q * hidden + 1, hidden) end
    c = part(1):sigmoid() * c + part(0):sigmoid() * part(2):tanh()
    h = part(3):sigmoid() * c:tanh()
    outputs[t] = h
  end
  return tensor.stack(outputs, 2), h:unsqueeze(1), c:unsqueeze(1)
end

local function flat_together(y, h, c) return tensor.cat { y:reshape(-1), h:reshape(-1), c:reshape(-1) } end

local function arguments(n, steps, inputs, hidden)
  local w = weights_of(inputs, hidden)
  return { check.randn(n, steps, inputs), w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, check.randn(n, hidden),
    check.randn(n, hidden) }
end

local function call(layer, reverse)
  return function(x, w_ih, w_hh, b_ih, b_hh, h, c)
    return flat_together(layer(x, { weight_ih = w_ih, weight_hh = w_hh, bias_ih = b_ih, bias_hh = b_hh }, h, c, reverse))
  end
end

function T.test_gradients()
  for i, sizes in ipairs { { 1, 1, 1, 1 }, { 2, 3, 3, 2 }, { 3, 2, 2, 5 }, { 7, 4, 1, 9 } } do
    check.gradients(call(LSTM.layer, i % 2 == 0), arguments(table.unpack(sizes)))
  end
end

local function gradients_of(f, inputs)
  for _, t in ipairs(inputs) do
    t:requires_grad()
    t:zero_grad()
  end
  local out = f(table.unpack(inputs))
  ;(out * tensor.arange(1, out:numel()):cos()):sum():backward()
  local list = {}
  for i, t in ipairs(inputs) do list[i] = t.grad:clone() end
  return list
end

function T.test_gradients_equal_those_of_the_composed_layer()
  for _, sizes in ipairs { { 29, 3, 5, 41 }, { 13, 7, 17, 33 }, { 40, 2, 3, 70 } } do
    for _, reverse in ipairs { false, true } do
      local open <close> = tensor.scope() -- luacheck: ignore
      local inputs = arguments(table.unpack(sizes))
      local expected = gradients_of(call(composed, reverse), inputs)
      for i, g in ipairs(gradients_of(call(LSTM.layer, reverse), inputs)) do
        check.close(g, expected[i], check.is_double and 1e-10 or 2e-5, "gradient " .. i)
      end
    end
  end
end

function T.test_a_gradient_of_one_result_alone_suffices()
  for which = 1, 3 do
    local open <close> = tensor.scope() -- luacheck: ignore
    local inputs = arguments(3, 4, 2, 5)
    local function one(layer)
      return function(x, w_ih, w_hh, b_ih, b_hh, h, c)
        local w = { weight_ih = w_ih, weight_hh = w_hh, bias_ih = b_ih, bias_hh = b_hh }
        return (select(which, layer(x, w, h, c))):reshape(-1)
      end
    end
    local expected = gradients_of(one(composed), inputs)
    for i, g in ipairs(gradients_of(one(LSTM.layer), inputs)) do check.close(g, expected[i], 2e-5) end
  end
end

function T.test_only_wanted_gradients_are_made()
  local x, w = check.randn(2, 3, 4), weights_of(4, 5)
  w.weight_hh:requires_grad()
  LSTM.layer(x, w):sum():backward()
  lu.assertNotNil(w.weight_hh.grad)
  lu.assertNil(w.weight_ih.grad)
  lu.assertNil(x.grad)
  local y = LSTM.layer(x, { weight_ih = w.weight_ih, weight_hh = w.weight_hh:detach() })
  lu.assertStrContains(check.message(y.backward, y, y), "does not depend on anything that requires a gradient")
end

-- torch.nn.LSTM 1.13 in double, inputs 3, hidden 2, N 2, T 3. Parameter k, in PyTorch's order, is wave(k), x is wave(20), the
-- first h and c are wave(21) and wave(22), and y, last h and last c are weighted with wave(30), wave(31), wave(32) and summed.
local by_pytorch = {
  { -- one layer
    layers = 1, bidirectional = false, bias = true,
    y = { -0.0967947565, 0.0351993104, -0.158019098, -0.244521476, -0.188104693, -0.355108172, -0.0412966352,
      -0.111155243, -0.100933223, -0.299486047, -0.208272466, -0.349151818 },
    h = { -0.188104693, -0.355108172, -0.208272466, -0.349151818 },
    c = { -0.556110522, -0.554771502, -0.554341459, -0.626540971 },
    dx = { -0.00852000479, -0.0240367541, -0.0213629671, -0.0413430427, -0.0469707626, -0.0170519458, -0.0802802252,
      -0.0789076731, -0.0178193671, -0.0113671, -0.0339970325, -0.0308986886, 0.0327824527, 0.0182307259,
      -0.0101176509, 0.0120701377, -0.028367803, -0.047337556 },
    dh = { -0.00992327294, -0.00962182037, 0.0740773847, 0.113893414 },
    dc = { -0.0534742847, -0.0256682024, 0.14944261, 0.112152869 },
    gradients = {
      weight_ih_l0 = { 0.0248839406, -0.0111129138, -0.0386997367, 0.0202222414, 0.021982396, 0.00710671154,
        0.00136662689, 0.00485135277, 0.00466467159, 0.0295121155, 0.00183928884, -0.027225475, -0.0451880372,
        0.0200142592, 0.0700701632, -0.158009883, -0.0601052468, 0.083285842, -0.0391793979, -0.0434637312,
        -0.0148555793, -0.00426136587, -0.0104615566, -0.00874464991 },
      weight_hh_l0 = { -0.0324732651, -0.0374978821, -0.0186767804, -0.00875056473, -0.000686051979, 0.000370059862,
        -0.00421766721, -0.00609437586, 0.104607197, 0.0953381499, 0.092412424, 0.0820666635, -0.00850345231,
        -0.0467093117, -0.0344155682, -0.0499059937 },
      bias_ih_l0 = { 0.0634059273, 0.0772687069, 0.0867027232, 0.00424701558, -0.443769958, -0.0171106191,
        0.124438589, 0.179740978 },
      bias_hh_l0 = { 0.0634059273, 0.0772687069, 0.0867027232, 0.00424701558, -0.443769958, -0.0171106191,
        0.124438589, 0.179740978 },
    },
  },
  { -- two layers, both ways, no bias
    layers = 2, bidirectional = true, bias = false,
    y = { 0.106700817, 0.107658034, -0.000764664691, 0.00515395219, 0.0417991741, 0.091129149, -0.0268696481,
      0.000189759951, -0.00300800642, 0.0865952627, -0.0644009555, 0.0102000455, -0.0423588509, 0.00294134708,
      0.0107187011, 0.0306822853, -0.0229799948, 0.00188129691, 0.0266309417, 0.0754542145, -0.002344975,
      -0.0130880523, 0.0572054965, 0.164922118 },
    h = { -0.00924485791, 0.0737341424, -0.0553401272, 0.08963019, 0.0181631703, -0.0815629721, -0.00494239529,
      0.0329298184, -0.00300800642, 0.0865952627, -0.002344975, -0.0130880523, -0.000764664691, 0.00515395219,
      0.0107187011, 0.0306822853 },
    c = { -0.0216348634, 0.129554459, -0.119280358, 0.186797002, 0.0299653787, -0.202898879, -0.0102440216,
      0.0595920774, -0.00634656657, 0.175973837, -0.00457616489, -0.0266534708, -0.00158486101, 0.00980714784,
      0.0212793553, 0.0598729071 },
    dx = { -0.0507091393, -0.0292949726, 0.0142890453, -0.0538233861, -0.0305803094, 0.0158053358, -0.0846115537,
      -0.0853631551, -0.0215136226, -0.0205610924, -0.0767620895, -0.0748710676, -0.0234362988, -0.0624107218,
      -0.0541539549, -0.0473110736, -0.0879635971, -0.0620470241 },
    dh = { -0.00386208988, -0.0215756494, 0.0189766016, 0.035971592, 0.0455490382, 0.0206680151, -0.000395714987,
      0.0197938618, 0.00894372232, 0.00994562192, 0.0723493184, 0.0962396458, 0.0547445622, 0.0573656653,
      0.0166117524, 0.0232048163 },
    dc = { -0.0202723028, -0.0765159282, 0.0138669813, 0.0554556669, 0.0502107187, -0.0289463815, -0.0716816233,
      -0.0317888033, 0.0355771675, 0.0417416406, 0.0614695873, 0.125400759, -0.0268749767, -0.0841762329,
      -0.0261635633, -0.046652939 },
    gradients = {
      weight_ih_l0 = { 0.00800350095, -0.00467346808, -0.0138136496, -0.0279901201, -0.00283853288, 0.0244611995,
        -0.00441530405, 0.00273405094, 0.00781433069, 0.00737053533, 0.00231050701, -0.00449806696, -0.0721265275,
        0.0324986638, 0.112529514, -0.0911236617, -0.0376253078, 0.044347129, -0.00710655708, -0.00404704095,
        0.00207519508, 0.00202178351, 0.00914623933, 0.00934900357 },
      weight_hh_l0 = { -0.00105261918, -0.00312290731, 0.00683823213, 0.00729843758, 0.00179760316, 0.0013658319,
        0.0064276853, -0.0043182402, 0.00288859363, -0.0110362822, 0.0593142907, 0.0151704187, 0.00133485817,
        0.00145307164, 0.00131545596, 0.000437969546 },
      weight_ih_l0_reverse = { 0.00872645081, -0.0152838941, -0.0277276927, -0.0031769568, 0.000340551364,
        0.00360033704, -0.00548241456, 0.00791224244, 0.0153190721, 0.0118067437, 0.00259578534, -0.00857961159,
        0.0320102505, -0.0376685167, -0.0788405014, 0.0619262272, -0.0111887666, -0.0758363249, -0.000403460657,
        -0.000914457801, -0.000733411512, 0.00951944479, 0.00903682828, 0.00171532029 },
      weight_hh_l0_reverse = { 0.00333445433, 0.00413238964, 0.00177020392, 0.00080505434, -0.0041756102,
        0.00202364007, 0.00601568295, -0.000813626609, 0.0243411484, -0.0258685986, 0.0266398959, 0.00561201367,
        0.000162547529, -6.2461066e-05, 0.00397385025, -0.00079616858 },
      weight_ih_l1 = { -0.000265585501, 0.000879880151, -0.000650565533, -0.000821823565, 0.00156949835,
        0.000813298286, 7.39084352e-05, 0.00029748542, -0.00120325075, 0.000814113464, 0.0021934787, -0.000813690996,
        -0.00158548316, 4.08867626e-05, 0.0005669885, -0.00136444318, -0.0105743624, 0.0279817238, 0.0113653097,
        0.0432516992, -0.00602998919, 0.0519455832, -0.00310689672, 0.0295815221, -0.00042055665, 0.00688471158,
        0.0010862366, -0.00229661999, 0.000274142364, 0.00100485427, 0.0022653496, 0.00282185591 },
      weight_hh_l1 = { -0.000687981692, 0.000238754819, 0.0122717647, 0.00782750792, -0.00376339061, 3.33638028e-05,
        -0.0168544112, -0.00740811274, -0.0143085569, -0.00085464231, 0.0512594948, 0.0548022088, -0.00302447702,
        0.00888943707, -0.0023784777, 0.00204119291 },
      weight_ih_l1_reverse = { 0.000313453407, 0.000313963556, -0.000131435742, 0.000528116915, 0.00080772022,
        -0.00168375227, 0.000159446319, 0.0012936975, -0.00150327626, -0.000669411479, 0.00107309166, -0.00197160401,
        -0.000677279739, -0.00122377601, 0.000287502215, -0.00284169426, -0.0114238089, 0.00409008465, 0.00432243959,
        -0.0214835302, -0.00459691081, -0.0764013106, 0.00565466145, 0.0267146331, -0.00127974391, 0.00180063267,
        -0.000188824685, -0.00248702801, 0.00050632329, -0.00128656494, 7.49715608e-05, -2.31858921e-05 },
      weight_hh_l1_reverse = { -0.000162502319, 0.00153980785, 0.00449759269, 0.0044180492, 0.000787663976,
        -0.00453073578, 0.00384690754, -0.00446071003, -0.0117971336, -0.0256542274, 0.0366616936, 0.0385806614,
        -0.00548677718, -0.00864075329, 0.00460845218, 0.00191335287 },
    },
  },
}

local function wave(k, shape)
  local count, values = 1, {}
  for _, size in ipairs(shape) do count = count * size end
  for j = 1, count do values[j] = 0.5 * math.sin(1.7 * k + 0.9 * j) end
  return tensor(values):reshape(table.unpack(shape))
end

local function load_waves(layer)
  local tensors = {}
  for k, pair in ipairs(layer:named_parameters()) do tensors[pair[1]] = wave(k, pair[2].shape) end
  return layer:load_state(tensors)
end

function T.test_values_and_gradients_of_pytorch()
  for _, case in ipairs(by_pytorch) do
    local options = { layers = case.layers, bidirectional = case.bidirectional, bias = case.bias }
    local layer = load_waves(LSTM(3, 2, options))
    local slots = case.layers * (case.bidirectional and 2 or 1)
    local x = wave(20, { 2, 3, 3 }):requires_grad()
    local first = { h = wave(21, { slots, 2, 2 }):requires_grad(), c = wave(22, { slots, 2, 2 }):requires_grad() }
    local y, last = layer(x, first)
    check.close(y, case.y, 1e-5)
    check.close(last.h, case.h, 1e-5)
    check.close(last.c, case.c, 1e-5)
    local sum = (y * wave(30, y.shape)):sum() + (last.h * wave(31, last.h.shape)):sum()
    ;(sum + (last.c * wave(32, last.c.shape)):sum()):backward()
    check.close(x.grad, case.dx, 1e-5, "gradient of x")
    check.close(first.h.grad, case.dh, 1e-5, "gradient of h")
    check.close(first.c.grad, case.dc, 1e-5, "gradient of c")
    for _, pair in ipairs(layer:named_parameters()) do
      check.close(pair[2].grad, case.gradients[pair[1]], 1e-5, "gradient of " .. pair[1])
    end
  end
end

function T.test_a_sequence_in_two_parts_equals_the_whole()
  local layer, x = LSTM(3, 7, { layers = 2 }), check.randn(4, 9, 3)
  local whole, last = layer(x)
  local first, middle = layer(x:narrow(2, 1, 4))
  local second, finish = layer(x:narrow(2, 5, 5), middle)
  lu.assertEquals(tensor.cat({ first, second }, 2):totable(), whole:totable())
  lu.assertEquals({ finish.h:totable(), finish.c:totable() }, { last.h:totable(), last.c:totable() })
end

function T.test_a_batch_of_lengths_equals_its_sequences_alone()
  for case = 1, 30 do
    local open <close> = tensor.scope() -- luacheck: ignore
    local n, steps, hidden = check.integer(1, 9), check.integer(1, 6), check.integer(1, 9)
    if case == 30 then n, hidden = 29, 70 end
    local layer = LSTM(3, hidden, { layers = 2, bidirectional = true })
    local lengths, y_weights = {}, check.randn(n, steps, 2 * hidden)
    for i = 1, n do lengths[i] = check.integer(1, steps) end
    local x = check.randn(n, steps, 3):requires_grad()
    local first = { h = check.randn(4, n, hidden):requires_grad(), c = check.randn(4, n, hidden):requires_grad() }
    local leaves = layer:parameters()
    table.move({ x, first.h, first.c }, 1, 3, #leaves + 1, leaves)
    local function gradients(loss)
      for _, p in ipairs(leaves) do p:zero_grad() end
      loss:backward()
      local list = {}
      for i, p in ipairs(leaves) do list[i] = p.grad:clone() end
      return list
    end

    local y, last = layer(x, first, case % 2 == 0 and lengths or tensor(lengths, "i32"))
    local got = gradients((y * y_weights):sum() + last.h:sum() + (last.c * 2):sum())
    local loss = 0
    for i, length in ipairs(lengths) do
      local alone, state = layer(x:narrow(1, i, 1):narrow(2, 1, length),
        { h = first.h:narrow(2, i, 1), c = first.c:narrow(2, i, 1) })
      check.close(y:narrow(1, i, 1):narrow(2, 1, length), alone, 1e-5)
      check.close(last.h:narrow(2, i, 1), state.h, 1e-5)
      check.close(last.c:narrow(2, i, 1), state.c, 1e-5)
      if length < steps then
        lu.assertEquals(y:narrow(1, i, 1):narrow(2, length + 1, steps - length):abs():max():item(), 0)
      end
      local part = (alone * y_weights:narrow(1, i, 1):narrow(2, 1, length)):sum() + state.h:sum() + (state.c * 2):sum()
      loss = part + loss
    end
    for i, g in ipairs(gradients(loss)) do check.close(got[i], g, check.is_double and 1e-10 or 2e-5, "gradient " .. i) end
  end
end

function T.test_sequential_passes_on_the_outputs()
  local net = nn.Sequential(LSTM(3, 4), LSTM(4, 2, { bidirectional = true }))
  local y, nothing = net(check.randn(5, 6, 3))
  lu.assertEquals(y.shape, { 5, 6, 4 })
  lu.assertNil(nothing)
end

function T.test_dropout_stands_between_layers_only()
  local Twice = nn.class "TestTwice" -- in dropout's place, so that it can be seen
  function Twice.init() end
  function Twice.forward(_, x) return x * 2 end
  local both, x = load_waves(LSTM(3, 3, { layers = 2 })), check.randn(2, 4, 3)
  local lower, upper = load_waves(LSTM(3, 3)), LSTM(3, 3)
  for _, part in ipairs { "weight_ih", "weight_hh", "bias_ih", "bias_hh" } do
    upper[part .. "_l0"]:detach():copy_(both[part .. "_l1"]:detach())
  end
  both:add_child("dropout", Twice())
  check.close(both(x), upper(lower(x) * 2), 1e-6)
end

function T.test_parameters_are_named_as_pytorchs_and_rebuilt()
  local layer = LSTM(3, 4, { layers = 2, bidirectional = true })
  local built = nn.build(nn.describe(layer))
  local names, tensors = {}, {}
  for i, pair in ipairs(layer:named_parameters()) do
    names[i] = ("%s %s"):format(pair[1], table.concat(pair[2].shape, "x"))
    tensors[pair[1]] = pair[2]
  end
  lu.assertEquals(table.concat(names, ", ", 1, 9),
    "weight_ih_l0 16x3, weight_hh_l0 16x4, bias_ih_l0 16, bias_hh_l0 16, weight_ih_l0_reverse 16x3, " ..
    "weight_hh_l0_reverse 16x4, bias_ih_l0_reverse 16, bias_hh_l0_reverse 16, weight_ih_l1 16x8")
  lu.assertEquals(#names, 16)
  local x = check.randn(2, 3, 3)
  lu.assertEquals(built:load_state(tensors)(x):totable(), layer(x):totable())
end

function T.test_wrong_input_names_layer_and_shapes()
  local layer = LSTM(3, 4)
  local function refuses(text, f, ...) lu.assertStrContains(check.message(f, ...), text) end
  refuses("LSTM: input is 2x5, N x T x 3 expected", layer, check.randn(2, 5))
  refuses("LSTM: input is 2x5x4, N x T x 3 expected", layer, check.randn(2, 5, 4))
  refuses("LSTM: state.h is 1x2x3, 1x2x4 expected", layer, check.randn(2, 5, 3), { h = check.randn(1, 2, 3) })
  refuses("LSTM: state.c is nil, 1x2x4 expected", layer, check.randn(2, 5, 3), { h = check.randn(1, 2, 4) })
  refuses("LSTM: hidden must be 1 or more, got 0", LSTM, 3, 0)
  refuses("LSTM: unknown option 'layer', did you mean 'layers'?", LSTM, 3, 4, { layer = 2 })
  local x, w = check.randn(2, 5, 3), weights_of(3, 4)
  local function with(name, t)
    local changed = {}
    for key, value in pairs(w) do changed[key] = value end
    changed[name] = t
    return changed
  end
  refuses("lstm: input has 3 features, weight_ih expects 2 (input 2x5x3, weight_ih 16x2)", LSTM.layer, x,
    with("weight_ih", check.randn(16, 2)))
  refuses("lstm: weight_ih is 15x3: its rows must be 4 times the hidden units", LSTM.layer, x,
    with("weight_ih", check.randn(15, 3)))
  refuses("lstm: weight_hh is 16x3, 16x4 expected", LSTM.layer, x, with("weight_hh", check.randn(16, 3)))
  refuses("lstm: bias_ih is 4, 16 expected", LSTM.layer, x, with("bias_ih", check.randn(4)))
  refuses("lstm: state h is 3x4, 2x4 expected", LSTM.layer, x, w, check.randn(3, 4))
  refuses("lstm: lengths are 3, 2 expected", layer, x, nil, tensor({ 1, 2, 3 }, "i32"))
  refuses("lstm: length 2 is 6, 1 to 5 expected", layer, x, nil, tensor({ 1, 6 }, "i32"))
  refuses("lstm: length 1 is 0, 1 to 5 expected", layer, x, nil, tensor({ 0, 5 }, "i32"))
  refuses("lstm: input must be " .. x.dtype .. ", got i32", LSTM.layer, tensor.zeros(2, 5, 3, "i32"), w)
end

local training = [[
  local feral = require "feral"
  local nn, tensor = feral.nn, feral.tensor
  feral.random.seed(1)
  local layer = nn.LSTM(33, 47, { layers = 2 })
  local x = tensor.randn(45, 7, 33):requires_grad()
  local y, last = layer(x)
  ;(y:sum() + last.c:sum()):backward()
  local text = y:tobytes() .. last.c:tobytes() .. x.grad:tobytes()
  for _, p in ipairs(layer:parameters()) do text = text .. p.grad:tobytes() end
  local a, b = 1, 0
  for i = 1, #text do a = (a + text:byte(i)) % 65521; b = (b + a) % 65521 end
  print(#text, a, b)
]]

function T.test_threads_do_not_show()
  local one = threads.run(1, training)
  lu.assertStrMatches(one, "%d+\t%d+\t%d+\n")
  lu.assertEquals(threads.run(2, training), one)
end

function T.test_survives_lack_of_memory()
  local layer, x = LSTM(3, 4, { layers = 2, bidirectional = true }), check.randn(2, 3, 3)
  check.survives_lack_of_memory(function()
    local open <close> = tensor.scope() -- luacheck: ignore
    local y, last = layer(x)
    ;(y:sum() + last.c:sum()):backward()
  end)
end

return T
