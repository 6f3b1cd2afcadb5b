local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local threads = require "threads"
local nn, tensor = feral.nn, feral.tensor

local T = {}

local ConvLSTM2d = nn.ConvLSTM2d
local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function tanh(x) return 2 * sigmoid(2 * x) - 1 end

---- Against a naive reference ----

--- Of one image, sum[o][y][x] += convolution of image[c][y][x] by w[o][c][ky][kx], among zeros that keep its size.
local function add_convolution(sum, image, w)
  local kh, kw = #w[1][1], #w[1][1][1]
  local top, left = (kh - 1) // 2, (kw - 1) // 2
  for o = 1, #w do
    for c = 1, #image do
      for y = 1, #image[c] do
        for x = 1, #image[c][y] do
          for ky = 1, kh do
            local row = image[c][y + ky - 1 - top]
            for kx = 1, row and kw or 0 do
              sum[o][y][x] = sum[o][y][x] + w[o][c][ky][kx] * (row[x + kx - 1 - left] or 0)
            end
          end
        end
      end
    end
  end
end

local function planes(count, height, width, value)
  local list = {}
  for o = 1, count do
    list[o] = {}
    for y = 1, height do
      list[o][y] = {}
      for x = 1, width do list[o][y][x] = value(o, y, x) end
    end
  end
  return list
end

--- The layer, number by number, for one sequence: x, h, c and weights are nested tables, b a list. Returns h of each step and c.
local function naive(x, w_ih, w_hh, b, h, c)
  local hidden, height, width, steps = #w_hh[1], #x[1][1], #x[1][1][1], {}
  for t = 1, #x do
    local sum = planes(4 * hidden, height, width, function(o) return b[o] end)
    add_convolution(sum, x[t], w_ih)
    add_convolution(sum, h, w_hh)
    local before = c
    c = planes(hidden, height, width, function(j, y, i)
      return sigmoid(sum[hidden + j][y][i]) * before[j][y][i] + sigmoid(sum[j][y][i]) * tanh(sum[2 * hidden + j][y][i])
    end)
    local after = c
    h = planes(hidden, height, width, function(j, y, i)
      return sigmoid(sum[3 * hidden + j][y][i]) * tanh(after[j][y][i])
    end)
    steps[t] = h
  end
  return steps, c
end

--- Nested tables one after the other as a flat list.
local function flat(list, into)
  into = into or {}
  for _, value in ipairs(list) do
    if type(value) == "table" then flat(value, into) else into[#into + 1] = value end
  end
  return into
end

local function weights_of(channels, hidden, kh, kw)
  return { weight_ih = check.randn(4 * hidden, channels, kh, kw), weight_hh = check.randn(4 * hidden, hidden, kh, kw) * 0.3,
    bias = check.randn(4 * hidden) }
end

--- Sequences of this shape, as they lie in one of the ways in which they come.
local function any_layout(n, steps, channels, height, width)
  local way = check.integer(1, 3)
  if way == 1 then return check.randn(n, steps, channels, height, width) end
  if way == 2 then return check.randn(steps, n, height, width, channels):permute(2, 1, 5, 3, 4) end
  return check.randn(n * steps, channels, height, width):as_image():reshape(n, steps, channels, height, width)
end

local rounding = check.is_double and 1e-9 or 5e-5 -- of steps of convolutions; Winograd's method rounds more than sums

local function compare_with_naive(n, steps, channels, hidden, height, width, kh, kw)
  local open <close> = tensor.scope() -- luacheck: ignore
  local x, w = any_layout(n, steps, channels, height, width), weights_of(channels, hidden, kh, kw)
  local h, c
  if check.integer(0, 1) == 1 then h, c = check.randn(n, hidden, height, width), check.randn(n, hidden, height, width) end
  if check.integer(0, 3) == 0 then w.bias = nil end
  local zero = tensor.zeros(n, hidden, height, width)
  local first_h, first_c = (h or zero):totable(), (c or zero):totable()
  local b = (w.bias or tensor.zeros(4 * hidden)):totable()
  local steps_of, cells, lasts = {}, {}, {}
  for i, sequence in ipairs(x:totable()) do
    steps_of[i], cells[i] = naive(sequence, w.weight_ih:totable(), w.weight_hh:totable(), b, first_h[i], first_c[i])
    lasts[i] = steps_of[i][steps]
  end
  local where = ("x %s, kernel %dx%d, %d hidden"):format(table.concat(x.shape, "x"), kh, kw, hidden)
  for _, trained in ipairs { false, true } do
    w.weight_hh:requires_grad(trained) -- where there is no backward less is kept
    local y, last_c = ConvLSTM2d.apply(x, w, h, c)
    lu.assertEquals({ y.shape, last_c.shape }, { { n, steps, hidden, height, width }, { n, hidden, height, width } })
    check.close(y, flat(steps_of), rounding, where)
    check.close(last_c, flat(cells), rounding, where)
    y, last_c = ConvLSTM2d.apply(x, w, h, c, true)
    lu.assertEquals(y.shape, { n, hidden, height, width })
    check.close(y, flat(lasts), rounding, where)
    check.close(last_c, flat(cells), rounding, where)
  end
end

function T.test_values_of_odd_shapes()
  local int = check.integer
  for _ = 1, check.SHAPES do
    compare_with_naive(int(1, 3), int(1, 3), int(1, 3), int(1, 5), int(1, 6), int(1, 6), int(1, 4), int(1, 4))
  end
  compare_with_naive(1, 2, 2, 17, 5, 3, 3, 3) -- more than a vector
  compare_with_naive(2, 2, 1, 33, 4, 4, 1, 1)
  compare_with_naive(2, 2, 1, 2, 34, 33, 3, 3) -- more than a strip of pixels
  compare_with_naive(9, 2, 1, 4, 93, 90, 1, 1) -- a batch in pieces
end

---- Gradients ----

--- The layer made of operations on the tape.
local function composed(x, w, h, c)
  local Conv2d = nn.Conv2d
  local hidden, kernel, outputs = w.weight_hh:size(2), { w.weight_hh:size(3), w.weight_hh:size(4) }, {}
  local geometry = Conv2d.geometry("test", kernel, { stride = 1, dilation = 1, padding = "same" }, 1)
  for t = 1, x:size(2) do
    local sums = Conv2d.apply(x:select(2, t), w.weight_ih, w.bias, geometry) + Conv2d.apply(h, w.weight_hh, nil, geometry)
    local function part(q) return sums:narrow(2, q * hidden + 1, hidden) end
    c = part(1):sigmoid() * c + part(0):sigmoid() * part(2):tanh()
    h = part(3):sigmoid() * c:tanh()
    outputs[t] = h
  end
  return tensor.stack(outputs, 2), c
end

local function arguments(n, steps, channels, hidden, height, width, kh, kw)
  local w = weights_of(channels, hidden, kh, kw)
  return { check.randn(n, steps, channels, height, width), w.weight_ih, w.weight_hh, w.bias,
    check.randn(n, hidden, height, width), check.randn(n, hidden, height, width) }
end

--- What a layer gives as one flat list; 'which' is "all" steps and cells, the "last" step and cells, "y" or "c" alone.
local function call(layer, which)
  return function(x, w_ih, w_hh, bias, h, c)
    local w = { weight_ih = w_ih, weight_hh = w_hh, bias = bias }
    local y, cells = layer(x, w, h, c, which == "last" and layer == ConvLSTM2d.apply)
    if which == "last" and layer == composed then y = y:select(2, -1) end
    if which == "y" then return y:reshape(-1) end
    if which == "c" then return cells:reshape(-1) end
    return tensor.cat { y:reshape(-1), cells:reshape(-1) }
  end
end

-- n, steps, channels, hidden, height, width, kernel
local small = { { 1, 1, 1, 1, 1, 1, 1, 1 }, { 2, 3, 2, 2, 3, 2, 3, 3 }, { 1, 2, 1, 3, 2, 3, 2, 1 }, { 2, 2, 3, 1, 4, 3, 1, 3 } }
local large = { { 9, 3, 2, 16, 64, 65, 3, 3 }, { 3, 2, 5, 19, 9, 7, 3, 3 }, { 2, 3, 1, 4, 40, 37, 3, 5 },
  { 2, 1, 2, 3, 5, 5, 3, 3 } }

function T.test_gradients()
  for i, sizes in ipairs(small) do
    local list = arguments(table.unpack(sizes))
    check.gradients(call(ConvLSTM2d.apply, i % 2 == 0 and "last" or "all"), list)
    check.gradients(call(ConvLSTM2d.apply, i % 2 == 0 and "all" or "last"), { table.unpack(list, 1, 4) }) -- no state given
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

local function compare_gradients(sizes, which, stateless)
  local open <close> = tensor.scope() -- luacheck: ignore
  local inputs = arguments(table.unpack(sizes))
  local fused, whole = call(ConvLSTM2d.apply, which), call(composed, which)
  if stateless then
    inputs = { table.unpack(inputs, 1, 4) }
    local zero = tensor.zeros(sizes[1], sizes[4], sizes[5], sizes[6])
    local from_zero = whole
    whole = function(x, w_ih, w_hh, bias) return from_zero(x, w_ih, w_hh, bias, zero, zero) end
  end
  local expected = gradients_of(whole, inputs)
  for i, g in ipairs(gradients_of(fused, inputs)) do
    check.close(g, expected[i], check.is_double and 1e-10 or 2e-5, ("%s, gradient %d"):format(table.concat(sizes, " "), i))
  end
end

function T.test_gradients_equal_those_of_the_composed_layer()
  for _, sizes in ipairs(large) do
    for _, which in ipairs { "all", "last", "y", "c" } do
      compare_gradients(sizes, which, false)
      compare_gradients(sizes, which, true)
    end
  end
end

function T.test_only_wanted_gradients_are_made()
  local x, w = check.randn(2, 3, 2, 4, 4), weights_of(2, 3, 3, 3)
  w.weight_hh = w.weight_hh:detach():clone():requires_grad()
  ConvLSTM2d.apply(x, w):sum():backward()
  lu.assertNotNil(w.weight_hh.grad)
  lu.assertNil(w.weight_ih.grad)
  lu.assertNil(w.bias.grad)
  lu.assertNil(x.grad)
end

function T.test_without_gradients_the_last_step_takes_the_memory_of_one()
  local layer = ConvLSTM2d(1, 8, 3, { last = true })
  local function peak(steps)
    local open <close> = tensor.scope() -- luacheck: ignore
    local x = tensor.zeros(1, steps, 1, 32, 32)
    tensor.reset_peak()
    local before = tensor.memory().live
    feral.autograd.no_grad(layer, x)
    return tensor.memory().peak - before
  end
  peak(2)
  lu.assertTrue(peak(64) < 2 * peak(2) + 64 * 32 * 32 * 8)
end

---- Against PyTorch ----

-- Made of torch.nn.functional.conv2d 1.13 in double: N 1, T 3, 2 channels, 2 hidden, images of 3x2. Parameter k (weight_ih,
-- weight_hh, bias) is wave(k), x is wave(20); in the first case h and c before the first step are wave(21) and wave(22). y, last
-- h and last c are weighted with wave(30), wave(31), wave(32) and summed.
local by_pytorch = {
  {
    bias = true, kernel = { 3, 3 },
    y = { 0.13583397, 0.193927002, 0.0177375774, -0.101964236, -0.112791006, -0.0854595818, -0.184939298,
      -0.112140661, 0.021994545, 0.0981651506, -0.0772242831, -0.22739146, 0.0643698637, 0.198708663, 0.0215392509,
      -0.117667224, -0.0797237174, -0.0530957207, -0.156094731, -0.217607079, -0.135494242, -0.0449554876,
      -0.171340604, -0.228720816, 0.0253027618, 0.0731326917, 0.00671581767, -0.050358048, -0.0462749108,
      -0.0855374491, -0.163804791, -0.184576759, -0.198264014, -0.162837651, -0.207586794, -0.21788618 },
    c = { 0.0622120065, 0.202208565, 0.0190752429, -0.127117175, -0.0933406812, -0.203320134, -0.403269171,
      -0.419517355, -0.400424425, -0.35025043, -0.669255239, -0.65008585 },
    dx = { -0.0282953375, -0.0184738212, 0.00379097034, 0.0101840718, -0.0346528344, -0.00497678819, 0.00579519104,
      0.0253150454, 0.00876856905, 0.000664117003, 0.0289482011, 0.0402876554, -0.108006147, -0.0623740865,
      0.117232607, 0.0221159338, -0.183321797, -0.0410816108, 0.0322024135, 0.100913867, -0.0913970054, -0.133518106,
      0.134875978, 0.205369495, -0.207133162, -0.175900952, 0.145829495, 0.13875417, -0.158547375, -0.0870652978,
      -0.00792722229, 0.16392174, 0.0240462462, -0.107560946, 0.0528390013, 0.150501998 },
    dh = { 0.00252511978, 0.0236634412, 0.00942098354, 0.00190282123, 0.0254339738, 0.0405941057, 0.0267408458,
      0.00932312363, -0.00718934188, -0.0106636553, 0.0244925606, -0.0101344287 },
    dc = { -0.0965906676, 0.0306651779, 0.0393134067, 0.0308004149, 0.104384733, 0.0263551266, 0.00766681499,
      0.0162386325, -0.0480197892, 0.0458930523, 0.0457428173, -0.00607184108 },
    gradients = {
      weight_ih = { -0.0264864674, 0.0044540181, 0.00010168495, 0.0138329888, 0.0333660668, 0.0093019987,
        0.0245724464, 0.0197646086, 0.0042243404, -0.0306936903, -0.0177382084, 0.00675547169, -0.0203374463,
        -0.000636864772, -0.00448410202, 0.0270848752, 0.040288175, 0.0160091786, -0.0216559515, -0.00539249393,
        0.0391357534, 0.0605008035, 0.131009882, 0.0518487249, 0.020639554, -0.0224652235, -0.0204361199,
        -0.0317245909, -0.072544121, -0.00917941666, 0.0102165918, 0.0908634852, 0.0650726235, 0.042455513,
        0.0332474871, -0.00590197741, -0.0192011898, -0.0298968866, 0.00527062055, -0.0156284609, -0.0179542309,
        -0.00930439584, -0.0105718624, -0.00390876748, 0.00609267787, -5.82852047e-06, -0.0316685311, -0.00542488311,
        -0.00066494974, -0.00522430805, 0.000926283687, -0.0209977523, -0.0310208788, -0.0115301868, -0.0259791451,
        -0.0229234305, 0.018607724, 0.0378955112, 0.12686973, 0.0558421765, 0.025827868, -0.00192916736,
        -0.0404637451, -0.0324787501, -0.0726654253, -0.0222737488, -0.015778605, 0.0622098323, 0.063288439,
        0.0269802243, 0.0564622426, -0.00802261281, 0.112742393, 0.274665734, 0.0143614547, 0.0590037015,
        -0.369734271, -0.289606002, -0.217474963, -0.26948552, 0.0503362993, -0.0146396913, 0.246702061, 0.115937098,
        0.226046328, 0.0719944449, -0.2185507, -0.122997524, -0.41601028, -0.116377254, 0.177895133, 0.0481492925,
        -0.138899512, -0.191828183, -0.640211537, -0.213160259, -0.201436581, -0.0321291471, 0.120715126, 0.197486981,
        0.342135558, 0.0200065093, 0.135872117, -0.311360105, -0.260895779, -0.218850628, -0.31746507, 0.00342151755,
        -0.0295622298, -0.05518174, -0.00671065417, 0.00675816279, -0.00208449086, -0.00621541603, -0.025871763,
        -0.0397772482, -0.0020508946, 0.000454445292, -0.0449768871, -0.0172359355, 0.0103722845, 0.0126075072,
        -0.000251164656, -0.0163815046, -0.0533658483, -0.0233804992, -0.0825592853, -0.0455512105, 0.034726918,
        0.0585858292, 0.209190985, 0.067253403, 0.0378193074, -0.00497166469, -0.044404636, -0.0827563115,
        -0.147347517, -0.0239204354, -0.0532213375, 0.0954448843, 0.0814819935, 0.0520617844, 0.0809608374,
        -0.000991484358 },
      weight_hh = { 0.000336477753, 0.00331942899, -0.00357970958, -0.0021590059, 0.00258656807, 0.00377870824,
        0.00130178525, -0.00273289956, -0.00894756811, 0.00944985561, 0.00649937359, 0.00123272122, -0.0015694002,
        -0.0126703654, -0.0100277996, -0.00973661864, -0.0079657733, -0.00753188757, -0.00380303828, 0.0069700935,
        0.0303487748, 0.022994493, 0.0528893859, 0.0140632424, 0.00282754408, -0.0188790409, -0.0131581587,
        0.00914602956, -0.00595639172, -0.0220737153, -0.00469398366, 0.00757587446, 0.0273540645, -0.00196155436,
        -0.004480274, -0.0186408883, -0.00804879526, -0.0235719856, 0.000481760201, -0.010463617, -0.00567135137,
        -0.00360606502, 0.0069000829, 0.0143020141, 0.00262087424, 0.0143085432, 0.0135119177, -0.00967492849,
        0.0132734119, 0.0274419309, 0.0298210658, 0.0165406147, 0.0289544212, -0.00231834944, -0.00276176222,
        0.0182746318, 0.0173401214, 0.0192531019, 0.0377535717, 0.00594656407, 0.00320784146, -0.0161495694,
        -0.00789340327, 0.00547331805, 6.44099499e-05, -0.00762381241, -0.000779831542, 0.00223287927, 0.00153739359,
        -0.00691710855, -0.0144154604, -0.0111143907, 0.0394294307, 0.125381352, 0.0227340223, -0.0141121392,
        -0.131758076, -0.146773822, -0.034783888, -0.0308431553, 0.0180317186, -0.0969730277, -0.165623612,
        -0.00332020928, -0.00563677238, 0.14196296, 0.0664407587, -0.023547901, -0.0479528042, -0.0599457388,
        0.00525395979, -0.0243080707, -0.0887868951, -0.0705415378, -0.198781341, -0.0801613252, -0.00814950508,
        0.0579487681, 0.0648509541, -0.080643837, 0.00809125505, 0.102573683, 0.00125378009, 0.0584766716,
        -0.0400855366, 0.0561702426, 0.0444458408, 0.061617903, -0.0230194646, 0.00146006147, 0.0149824149,
        0.00101955029, 0.0121218823, -0.0108799986, 0.0264754295, 0.0258392412, 0.0221837531, -0.00931290313,
        -0.0140471168, 0.0103845479, -0.0232034824, 0.000739758939, -0.00584373299, 0.0256354273, 0.0324638913,
        0.0121229076, 0.0179292783, 0.0462048316, 0.0260613218, 0.0383164416, 0.0359790587, 0.000602948998,
        -0.0142234789, -0.0411315458, -0.0232861204, 0.00923911536, 0.00965417406, -0.0156567079, 0.0446310609,
        0.0546431531, 0.0345298828, -0.0142861304, -0.0292463138, -0.0258266633 },
      bias = { 0.0111408942, -0.0182601361, -0.304162366, 0.0282217349, 0.387036893, -0.098427134, 0.0870356268,
        -0.0353109325 },
    },
  },
  {
    bias = false, kernel = { 3, 1 },
    y = { -0.000145386979, 0.00839121883, 0.0483004333, 0.0279617993, -0.0191530715, -0.0266461871, 0.0225643119,
      0.00250159747, 0.0206135106, 0.0121917993, -0.0378183219, -0.0421338551, -0.0138302197, -0.00397889387,
      0.0269367371, 0.055798089, 0.017174245, -0.00904112344, 0.0239669889, 0.0302825801, 0.0165882109, 0.0251727019,
      0.00711088697, -0.0276749766, -0.00660202923, -0.0100989909, -0.0541207811, -0.0192228742, 0.0229414669,
      0.0279644143, -0.0155666892, 0.003914373, -0.01623548, -0.00100361624, 0.0289111897, 0.02382672 },
    c = { -0.0141866132, -0.0203972225, -0.102019345, -0.0365050484, 0.0441668158, 0.0536671874, -0.0322140281,
      0.00776391745, -0.0289456573, -0.00183510411, 0.0580801325, 0.0491955092 },
    dx = { -0.0592357169, -0.0508345865, -0.0425751237, 0.0270142736, 0.00829614332, 0.0412896946, 0.0397785576,
      0.0526940005, 0.0518944315, 0.00454001429, 0.00592429361, -0.0375822463, 0.0294742218, -0.0660823754,
      -0.275450304, -0.154144979, -0.0588626945, 0.0107679172, -0.105494908, 0.0256063764, 0.196280725, 0.136949856,
      0.122000799, 0.0565486459, 0.254958602, 0.0231821731, -0.289622044, -0.318680381, -0.132398329, 0.00452363843,
      -0.320813316, -0.0903870089, 0.150060671, 0.23125643, 0.157215015, 0.10465802 },
    gradients = {
      weight_ih = { 0.00211232558, -0.0209572734, 0.0100146333, 0.0220424232, -0.0167965895, 0.00139554019,
        0.0118973075, -0.0200017279, 0.0111079684, 0.0194223433, -0.0147419976, 0.00734947116, 0.0137453667,
        0.00190351411, -0.00734284595, 0.0048135132, 0.0100177323, -0.00517551722, 0.00272228292, -0.00184829317,
        -0.00296931317, -0.00206538475, 0.00574512095, -0.0101484035, 0.382072013, -0.475368307, -0.326026475,
        0.337102151, 0.109879581, -0.486618512, 0.184472242, -0.972321894, 0.0262386447, 0.611826476, -0.459481329,
        -0.45680657, 0.0113001685, 0.00142342925, -0.00672948161, 0.00566518564, 0.00796030188, 0.000454991769,
        0.000455413918, -0.00413688159, -0.00553419131, 0.00105175424, 0.000629689922, -0.0109441348 },
      weight_hh = { 0.00162413261, -0.00103533483, 0.000390673824, -8.88481088e-05, -0.00070414227, 0.000216234172,
        0.00258215271, 0.000137713906, 0.000246926014, 0.00161480825, -0.000469653094, -7.30516033e-05,
        -0.000121660667, 0.00146799507, -0.000212693548, 0.000630426942, 0.000991621607, -0.000773085191,
        -0.000901616431, 0.000418757668, -0.00107621532, -0.000533767105, 0.000179105173, -0.000577757218,
        0.0277138165, 0.0330245058, -0.0523736027, 0.0258280802, -0.0216857936, -0.039683927, 0.0438244032,
        -0.0049634441, -0.0498347249, 0.0107475337, -0.0415367805, -0.0280812116, 0.000682772309, 0.00054176905,
        0.00041665709, 0.000740903999, 0.000281202282, -2.78655588e-05, 0.000847724663, 0.000567090476,
        -0.000495540841, 0.000704805557, -0.000312588771, -0.000701305056 },
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
    local layer = load_waves(ConvLSTM2d(2, 2, case.kernel, { bias = case.bias }))
    local x, state = wave(20, { 1, 3, 2, 3, 2 }):requires_grad(), nil
    if case.dh then
      state = { h = wave(21, { 1, 2, 3, 2 }):requires_grad(), c = wave(22, { 1, 2, 3, 2 }):requires_grad() }
    end
    local y, last = layer(x, state)
    check.close(y, case.y, 1e-5)
    check.close(last.c, case.c, 1e-5)
    lu.assertEquals(last.h:totable(), y:select(2, -1):totable())
    local sum = (y * wave(30, y.shape)):sum() + (last.h * wave(31, last.h.shape)):sum()
    ;(sum + (last.c * wave(32, last.c.shape)):sum()):backward()
    check.close(x.grad, case.dx, 1e-5, "gradient of x")
    if state then
      check.close(state.h.grad, case.dh, 1e-5, "gradient of h")
      check.close(state.c.grad, case.dc, 1e-5, "gradient of c")
    end
    for _, pair in ipairs(layer:named_parameters()) do
      check.close(pair[2].grad, case.gradients[pair[1]], 1e-5, "gradient of " .. pair[1])
    end
  end
end

---- The layer ----

function T.test_a_sequence_in_two_parts_equals_the_whole()
  local layer, x = ConvLSTM2d(3, 5, 3), check.randn(2, 7, 3, 5, 6)
  local whole, last = layer(x)
  local first, middle = layer(x:narrow(2, 1, 3))
  local second, finish = layer(x:narrow(2, 4, 4), middle)
  lu.assertEquals(tensor.cat({ first, second }, 2):totable(), whole:totable())
  lu.assertEquals({ finish.h:totable(), finish.c:totable() }, { last.h:totable(), last.c:totable() })
end

function T.test_the_last_step_alone()
  local layer, x = ConvLSTM2d(2, 3, { 3, 5 }, { last = true }), check.randn(2, 4, 2, 6, 5)
  local all = ConvLSTM2d(2, 3, { 3, 5 })
  for _, name in ipairs { "weight_ih", "weight_hh", "bias" } do all[name]:detach():copy_(layer[name]:detach()) end
  local y, state = layer(x)
  lu.assertEquals(y:totable(), all(x):select(2, -1):totable())
  lu.assertEquals(state.h:totable(), y:totable())
  lu.assertEquals(feral.autograd.no_grad(layer, x):totable(), y:totable())
  lu.assertEquals(nn.Sequential(ConvLSTM2d(2, 4, 3), ConvLSTM2d(4, 2, 3, { last = true }))(x).shape, { 2, 2, 6, 5 })
end

function T.test_parameters_are_named_and_the_layer_is_rebuilt()
  local layer = ConvLSTM2d(3, 4, { 3, 5 }, { last = true })
  local built = nn.build(nn.describe(layer))
  local names, tensors = {}, {}
  for i, pair in ipairs(layer:named_parameters()) do
    names[i] = ("%s %s"):format(pair[1], table.concat(pair[2].shape, "x"))
    tensors[pair[1]] = pair[2]
  end
  lu.assertEquals(table.concat(names, ", "), "weight_ih 16x3x3x5, weight_hh 16x4x3x5, bias 16")
  local x = check.randn(2, 3, 3, 4, 4)
  lu.assertEquals(built:load_state(tensors)(x):totable(), layer(x):totable())
  lu.assertEquals(#ConvLSTM2d(3, 4, 3, { bias = false }):parameters(), 2)
end

function T.test_a_model_file_takes_it()
  local path = os.tmpname()
  local net = nn.Sequential(ConvLSTM2d(1, 2, 3, { last = true }), nn.Flatten(), nn.Linear(2 * 4 * 4, 2))
  local options = { classes = { "left", "right" }, preprocessing = { channels = 1, height = 4, width = 4, mean = 0, std = 1 } }
  assert(feral.model.new(net, options):save(path))
  local again = assert(feral.model.load(path))
  os.remove(path)
  local x = check.randn(2, 3, 1, 4, 4)
  lu.assertEquals(again.net(x):totable(), net:eval()(x):totable())
end

function T.test_wrong_input_names_layer_and_shapes()
  local layer, x, w = ConvLSTM2d(3, 4, 3), check.randn(2, 5, 3, 6, 7), weights_of(3, 4, 3, 3)
  local function refuses(text, f, ...) lu.assertStrContains(check.message(f, ...), text) end
  local function with(name, t)
    local changed = {}
    for key, value in pairs(w) do changed[key] = value end
    changed[name] = t
    return changed
  end
  local h = check.randn(2, 4, 6, 7)
  refuses("ConvLSTM2d: input is 2x3x6x7, N x T x 3 x H x W expected", layer, check.randn(2, 3, 6, 7))
  refuses("ConvLSTM2d: input is 2x5x4x6x7, N x T x 3 x H x W expected", layer, check.randn(2, 5, 4, 6, 7))
  refuses("ConvLSTM2d: state.h is 1x4x6x7, 2x4x6x7 expected", layer, x, { h = check.randn(1, 4, 6, 7) })
  refuses("ConvLSTM2d: state.c is nil, 2x4x6x7 expected", layer, x, { h = h })
  refuses("ConvLSTM2d: hidden must be 1 or more, got 0", ConvLSTM2d, 3, 0, 3)
  refuses("ConvLSTM2d: kernel must be a whole number or {height, width}, got nil", ConvLSTM2d, 3, 4)
  refuses("ConvLSTM2d: kernel must be a whole number or {height, width}", ConvLSTM2d, 3, 4, { 3, 3, 3 })
  refuses("ConvLSTM2d: unknown option 'lst', did you mean 'last'?", ConvLSTM2d, 3, 4, 3, { lst = true })
  refuses("convlstm: input must have 5 dimensions, got 2x3x6x7", ConvLSTM2d.apply, check.randn(2, 3, 6, 7), w)
  refuses("convlstm: input must be " .. x.dtype .. ", got i32", ConvLSTM2d.apply, tensor.zeros(2, 5, 3, 6, 7, "i32"), w)
  refuses("convlstm: input has 3 channels, weight_ih expects 2 (input 2x5x3x6x7, weight_ih 16x2x3x3)", ConvLSTM2d.apply, x,
    with("weight_ih", check.randn(16, 2, 3, 3)))
  refuses("convlstm: weight_ih is 15x3x3x3: its filters must be 4 times the hidden channels", ConvLSTM2d.apply, x,
    with("weight_ih", check.randn(15, 3, 3, 3)))
  refuses("convlstm: weight_hh is 16x4x3x5, 16x4x3x3 expected", ConvLSTM2d.apply, x,
    with("weight_hh", check.randn(16, 4, 3, 5)))
  refuses("convlstm: bias is 4, 16 expected", ConvLSTM2d.apply, x, with("bias", check.randn(4)))
  refuses("convlstm: state h is 3x4x6x7, 2x4x6x7 expected", ConvLSTM2d.apply, x, w, check.randn(3, 4, 6, 7))
  refuses("convlstm: the state needs both h and c", ConvLSTM2d.apply, x, w, h)
end

local training = [[
  local feral = require "feral"
  local nn, tensor = feral.nn, feral.tensor
  feral.random.seed(1)
  local function bytes(n, height, hidden, last)
    local layer = nn.ConvLSTM2d(3, hidden, 3, { last = last })
    local x = tensor.randn(n, 3, 3, height, 41):requires_grad()
    local y, state = layer(x)
    ;(y:sum() + (state.c * state.h):sum()):backward()
    local text = y:tobytes() .. state.c:tobytes() .. x.grad:tobytes()
    for _, p in ipairs(layer:parameters()) do text = text .. p.grad:tobytes() end
    return text .. feral.autograd.no_grad(layer, x):tobytes()
  end
  for _, text in ipairs { bytes(1, 47, 16, true), bytes(3, 33, 5, false), bytes(19, 50, 16, false), bytes(11, 70, 24, true) } do
    local a, b = 1, 0
    for i = 1, #text, 7 do a = (a + text:byte(i)) % 65521; b = (b + a) % 65521 end
    print(#text, a, b)
  end
]]

function T.test_threads_do_not_show()
  local one = threads.run(1, training)
  lu.assertStrMatches(one, ("%d+\t%d+\t%d+\n"):rep(4))
  lu.assertEquals(threads.run(2, training), one)
  lu.assertEquals(threads.run(3, training), one)
end

function T.test_survives_lack_of_memory()
  local layer, x = ConvLSTM2d(2, 3, 3), check.randn(2, 3, 2, 5, 4)
  local state = { h = check.randn(2, 3, 5, 4), c = check.randn(2, 3, 5, 4) }
  for _, first in ipairs { false, state } do
    check.survives_lack_of_memory(function()
      local open <close> = tensor.scope() -- luacheck: ignore
      local y, last = layer(x, first or nil)
      ;(y:sum() + last.c:sum()):backward()
    end)
  end
end

return T
