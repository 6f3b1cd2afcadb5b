local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local threads = require "threads"
local core = require "feral.core.plan"
local autograd, nets, nn, tensor = feral.autograd, feral.nets, feral.nn, feral.tensor

local T = {}

local tolerance = check.is_double and 1e-10 or 1e-5

--- Gives batch norms statistics and weights as after some training.
local function trained(net)
  net:walk(function(_, layer)
    if not layer.running_mean then return end
    local n = layer.running_mean:numel()
    layer:load_state {
      running_mean = tensor.randn(n), running_var = tensor.rand(n) + 0.5,
      weight = layer.weight and tensor.rand(n) + 0.5, bias = layer.bias and tensor.randn(n),
    }
  end)
  return net
end

local function difference(a, b)
  lu.assertEquals(a.shape, b.shape)
  return (a - b):abs():max():item() / math.max(1, b:abs():max():item())
end

--- Compares a plan with its network at several batches.
local function compare(net, shape, batches, what)
  local open <close> = tensor.scope() -- luacheck: ignore
  trained(net):eval()
  local plan = net:compile(check.randn(1, table.unpack(shape)))
  for _, n in ipairs(batches) do
    local x = check.randn(n, table.unpack(shape))
    if n % 2 == 0 and #shape == 3 then x = x:as_image() end
    local off = difference(plan(x), autograd.no_grad(net, x))
    if off > tolerance then lu.fail(("%g off at a batch of %d: %s"):format(off, n, what or tostring(net))) end
  end
  return plan
end

local function activation()
  local made = { nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.PReLU }
  return made[check.integer(1, #made)]()
end

local function chance(n) return check.integer(1, n) == 1 end

--- One random layer for images, and what it makes of their sizes.
local makers = {
  function(c, h, w)
    local kh, kw = check.integer(1, math.min(3, h)), check.integer(1, math.min(3, w))
    local groups = c % 2 == 0 and chance(3) and 2 or 1
    local f, stride = groups * check.integer(1, 20), chance(3) and 2 or 1
    return nn.Conv2d(c, f, { kh, kw }, { stride = stride, groups = groups, bias = chance(2) }), f
  end,
  function(c) return nn.DepthwiseConv2d(c, 3, { padding = 1, bias = chance(2) }), c end,
  function(c) return nn.BatchNorm(c, { affine = chance(2) }), c end,
  function(c) return activation(), c end,
  function(c) return chance(2) and nn.PReLU(c) or nn.Dropout(0.3), c end,
  function(c) return nn.MaxPool2d(3, { stride = check.integer(1, 2), padding = 1, ceil = chance(2) }), c end,
  function(c) return nn.AvgPool2d(2, { padding = 1, stride = 1, count_include_pad = chance(2) }), c end,
  function(c)
    local main = nn.Sequential(nn.Conv2d(c, c, 3, { padding = 1 }), chance(2) and nn.BatchNorm(c) or activation())
    return nn.Residual(main, chance(2) and { activation = nn.ReLU() } or nil), c
  end,
  function(c)
    return nn.Residual(nn.Sequential(nn.Conv2d(c, 5, 1), nn.MaxPool2d(3, { stride = 2, padding = 1 })),
      nn.Sequential(nn.Conv2d(c, 5, 1, { stride = 2, bias = false }), nn.BatchNorm(5))), 5
  end,
  function(c)
    return nn.Concat(nn.Conv2d(c, 3, 1), nn.Sequential(nn.BatchNorm(c), nn.ReLU()), nn.Dropout()), 3 + 2 * c
  end,
}

local function random_net()
  local c, h, w = check.integer(1, 4), check.integer(4, 13), check.integer(4, 13)
  local shape, layers = { c, h, w }, {}
  for _ = 1, check.integer(0, 7) do
    if c > 60 then break end
    local layer, f = makers[check.integer(1, #makers)](c, h, w)
    local out = layer:eval()(tensor.zeros(1, c, h, w))
    layers[#layers + 1], c, h, w = layer, f, out:size(3), out:size(4)
  end
  local features = c
  if chance(2) then
    layers[#layers + 1] = nn.GlobalAvgPool()
  else
    features = c * h * w
    layers[#layers + 1] = nn.Flatten()
    if chance(3) then layers[#layers + 1] = activation() end
    if chance(4) then layers[#layers + 1] = nn.BatchNorm(features) end
  end
  if chance(2) then
    local width = check.integer(1, 70)
    for _, layer in ipairs { nn.Linear(features, width, { bias = chance(2) }), nn.BatchNorm(width), activation() } do
      layers[#layers + 1] = layer
    end
    features = width
  end
  if chance(6) then return nn.Sequential(table.unpack(layers)), shape end
  layers[#layers + 1] = nn.Linear(features, check.integer(1, 9))
  if chance(3) then layers[#layers + 1] = nn.Softmax() end
  return nn.Sequential(table.unpack(layers)), shape
end

function T.test_plans_of_random_networks_give_their_numbers()
  for i = 1, check.SHAPES do
    local net, shape = random_net()
    compare(net, shape, i % 10 == 0 and { 1, 7, 64 } or { 1, check.integer(2, 9) })
  end
end

function T.test_plans_of_known_networks_give_their_numbers()
  for _, name in ipairs(nets.names) do
    local size = name == "emopy" and 64 or 48
    compare(nets.make(name, 7), { 1, size, size }, name == "vgg" and { 1, 7 } or { 1, 7, 64 }, name)
  end
  local workloads = dofile "tests/bench/workloads.lua"
  compare(workloads.make("resnet18", 1).net, { 1, 48, 48 }, { 1, 7 }, "resnet18")
  compare(workloads.make("lstm", 1).net, { 16, 256 }, { 1, 7, 64 }, "lstm")
  compare(workloads.make("convlstm", 1).net, { 8, 1, 48, 48 }, { 1, 7 }, "convlstm")
end

function T.test_batch_norms_activations_and_sums_cost_no_step()
  local function steps(net, ...) return table.concat(core.steps(net:compile(tensor.zeros(1, ...)).core), " ") end
  local function block(activation_of_sum)
    local main = nn.Sequential(nn.Conv2d(4, 4, 3, { padding = 1 }), nn.BatchNorm(4), nn.ReLU(),
      nn.Conv2d(4, 4, 3, { padding = 1 }), nn.BatchNorm(4))
    return nn.Residual(main, activation_of_sum and { activation = nn.ReLU() } or nil)
  end
  lu.assertEquals(steps(block(false), 4, 8, 8), "conv conv")
  lu.assertEquals(steps(block(true), 4, 8, 8), "conv conv")
  lu.assertEquals(steps(nn.Sequential(block(false), nn.LeakyReLU()), 4, 8, 8), "conv conv")
  local flat = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3), nn.BatchNorm(3), nn.Tanh())
  lu.assertEquals(steps(flat, 3, 2, 2), "dense")
  lu.assertEquals(steps(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm(2)), 1, 2, 2), "conv scale")
  lu.assertEquals(steps(nn.Dropout(), 3), "map")
end

--- Several images from one network, of different sizes, as one sequence of pixels.
function T.test_a_pyramid_joins_its_images()
  local Pyramid = nn.class "PlanPyramid"
  function Pyramid:init(c, scale)
    self:add_child("fine", nn.Conv2d(c, 5, 3, { padding = 1 }))
    self:add_child("coarse", nn.Sequential(nn.AvgPool2d(scale), nn.Conv2d(c, 5, 1)))
    self:add_child("up", nn.Upsample(scale))
    self:add_child("pixels", nn.Pixels())
  end
  function Pyramid:forward(x)
    local coarse = self.coarse(x)
    return self.pixels(self.fine(x) + self.up(coarse), coarse)
  end
  for scale = 1, 3 do compare(Pyramid(3, scale), { 3, 6, 6 * scale }, { 1, 2, 5 }) end
  compare(nn.Upsample(2), { 20, 3, 2 }, { 1, 4 })
  compare(nn.Sequential(nn.ReLU(), nn.Pixels()), { 4, 3, 2 }, { 1, 4 })
end

--- Behind a convolution of one filter it looks as if its features were channels.
function T.test_a_batch_norm_of_flattened_features_is_no_part_of_the_convolution()
  local net = nn.Sequential(nn.Conv2d(2, 1, 3), nn.Flatten(), nn.BatchNorm(12), nn.Linear(12, 3))
  compare(net, { 2, 5, 6 }, { 1, 4 })
end

function T.test_a_value_that_is_read_twice_is_left_alone()
  local Twice = nn.class "PlanTwice"
  function Twice:init() self:add_child("conv", nn.Conv2d(2, 2, 1)) self:add_child("norm", nn.BatchNorm(2)) end
  function Twice:forward(x)
    local y = self.conv(x)
    return (self.norm(y) + y):relu() + y
  end
  compare(Twice(), { 2, 3, 3 }, { 1, 4 })
end

local SequenceNet = nn.class "PlanSequences"

function SequenceNet:init(options)
  self:add_child("lstm", nn.LSTM(6, 9, options))
  self:add_child("out", nn.Linear(options.bidirectional and 18 or 9, 4))
end

function SequenceNet:forward(x) return self.out(self.lstm(x):select(2, -1)) end

function T.test_sequences()
  for layers = 1, 2 do
    for _, bidirectional in ipairs { false, true } do
      compare(SequenceNet { layers = layers, bidirectional = bidirectional, bias = layers == 1 }, { 5, 6 }, { 1, 7, 64 })
    end
  end
  compare(nn.LSTM(3, 20), { 4, 3 }, { 1, 13 })
end

--- Steps of one, small images and more of them; all outputs, the last one, one that is selected.
function T.test_sequences_of_images()
  local Selected = nn.class "PlanSelected"
  function Selected:init(last)
    self:add_child("lstm", nn.ConvLSTM2d(2, 5, { 3, 2 }, { last = last, bias = not last }))
    self:add_child("norm", nn.BatchNorm(5))
    self:add_child("out", nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 3 * 2, 4)))
  end
  function Selected:forward(x)
    local y = self.lstm(x)
    return self.out(self.norm(self.lstm.last and y or y:select(2, -1)):relu())
  end
  for _, last in ipairs { false, true } do
    compare(Selected(last), { 3, 2, 6, 5 }, { 1, 7 })
    compare(nn.ConvLSTM2d(1, 16, 3, { last = last }), { 1, 1, 12, 13 }, { 1, 5 })
  end
  compare(nn.Sequential(nn.ConvLSTM2d(1, 3, 3), nn.TimeDistributed(nn.Conv2d(3, 2, 3)), nn.ConvLSTM2d(2, 17, 3, { last = true })),
    { 2, 1, 40, 33 }, { 1, 4 })
end

function T.test_layers_of_each_step()
  local frames = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6))
  local Net = nn.class "PlanFrames"
  function Net:init()
    self:add_child("frames", nn.TimeDistributed(frames))
    self:add_child("sequence", SequenceNet {})
  end
  function Net:forward(x) return self.sequence(self.frames(x)) end
  compare(Net(), { 4, 1, 6, 6 }, { 1, 7 })
  compare(nn.TimeDistributed(nn.Conv2d(2, 3, 3)), { 3, 2, 5, 4 }, { 1, 5 })
  compare(nn.TimeDistributed(nn.Flatten()), { 3, 2, 5, 4 }, { 1, 5 })
end

function T.test_layer_norms()
  local function varied(layer)
    for _, p in ipairs(layer:parameters()) do p:detach():copy_(check.randn(table.unpack(p.shape))) end
    return layer
  end
  for _, affine in ipairs { true, false } do
    local options = { affine = affine, eps = 1e-3 }
    compare(nn.Sequential(nn.Linear(3, 20), varied(nn.LayerNorm(20, options)), nn.ReLU(), nn.Linear(20, 2)), { 3 }, { 1, 7 })
    compare(varied(nn.LayerNorm({ 4, 6 }, options)), { 4, 6 }, { 1, 7 })
    compare(varied(nn.LayerNorm(6, options)), { 4, 6 }, { 1, 7 })
    compare(nn.Sequential(nn.Conv2d(2, 5, 3), varied(nn.LayerNorm({ 5, 4, 3 }, options)), nn.Flatten(), nn.Linear(60, 2)),
      { 2, 6, 5 }, { 1, 7 })
    compare(nn.TimeDistributed(varied(nn.LayerNorm({ 2, 4, 3 }, options))), { 3, 2, 4, 3 }, { 1, 4 })
  end
end

local all_bits = [[
  local feral = require "feral"
  local tensor, nets = feral.tensor, feral.nets
  local function digest(t)
    local sum = 0
    for word in t:tobytes():gmatch("....") do sum = sum * 1099511628211 ~ string.unpack("<I4", word) end
    return sum
  end
  tensor.manual_seed(3)
  for _, name in ipairs { "mini_xception", "emopy", "vgg" } do
    local size = name == "vgg" and 32 or 64
    local plan = nets.make(name, 7, { size = size }):compile(tensor.zeros(1, 1, size, size))
    for _, n in ipairs { 1, 3, 17 } do print(name, digest(plan(tensor.randn(n, 1, size, size)))) end
  end
  local lstm = feral.nn.LSTM(20, 40, { layers = 2 })
  local plan = lstm:compile(tensor.zeros(1, 5, 20))
  for _, n in ipairs { 1, 3, 33 } do print(digest(plan(tensor.randn(n, 5, 20)))) end
]]

function T.test_every_bit_is_the_same_at_any_number_of_threads()
  local alone = threads.run(1, all_bits)
  lu.assertEquals(select(2, alone:gsub("\n", "")), 12)
  for count = 2, 5, 3 do lu.assertEquals(threads.run(count, all_bits), alone) end
end

function T.test_a_sample_does_not_depend_on_its_batch()
  local plan = nets.mini_xception(7):compile(tensor.zeros(1, 1, 48, 48))
  local x = tensor.randn(9, 1, 48, 48)
  local whole = plan(x)
  for i = 1, 9, 4 do lu.assertEquals(plan(x:narrow(1, i, 1)):tobytes(), whole:narrow(1, i, 1):contiguous():tobytes()) end
end

function T.test_a_plan_keeps_the_weights_it_was_made_of()
  local net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
  local x = check.randn(4, 3)
  local plan = net:compile(x)
  local before = plan(x)
  autograd.no_grad(function() net:get(1).weight:mul_(-2) end)
  lu.assertEquals(difference(plan(x), before), 0)
  check.close(net:compile(x)(x), autograd.no_grad(net, x), tolerance)
end

function T.test_the_network_is_left_as_it_was()
  local net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm(2), nn.Dropout())
  net:get(2):eval()
  local mean = net:get(2).running_mean:clone()
  net:compile(check.randn(5, 3))
  lu.assertEquals({ net.training, net:get(1).training, net:get(2).training, net:get(3).training }, { true, true, false, true })
  check.close(net:get(2).running_mean, mean, 0)
end

function T.test_what_has_no_place_in_a_plan_is_named()
  local function says(text, net, example)
    lu.assertStrContains(check.message(net.compile, net, example), text)
  end
  says("compile: layer 2, LayerNorm has no place in a plan: a plan has LayerNorm of features and of whole images only",
    nn.Sequential(nn.ReLU(), nn.LayerNorm(4)), tensor.zeros(1, 2, 3, 4))
  says("compile: layer 1.main, Lambda has no place in a plan: a plan knows no x:abs",
    nn.Sequential(nn.Residual(nn.Lambda(function(x) return x:abs() end))), tensor.zeros(1, 3))
  says("compile: Softmax has no place in a plan: a plan has softmax over channels or features only", nn.Softmax(3),
    tensor.zeros(1, 2, 3, 4))
  says("compile: no layer says whether the input is sequences of images or volumes", nn.ReLU(), tensor.zeros(1, 2, 3, 4, 5))
  says("compile: layer layer, TimeDistributed has no place in a plan: a plan has TimeDistributed of image sequences "
    .. "(N x T x C x H x W), not of images (6x4x5x6)", nn.TimeDistributed(nn.TimeDistributed(nn.ReLU())),
    tensor.zeros(1, 6, 4, 5, 6))
  says("compile: an example of the input expected, got nil", nn.ReLU())
  says("conv2d: input has 3 channels, weight expects 1", nn.Conv2d(1, 2, 3), tensor.zeros(1, 3, 8, 8))
  local plan = nn.Conv2d(1, 2, 3):compile(tensor.zeros(1, 1, 8, 8))
  lu.assertStrContains(check.message(plan, tensor.zeros(2, 1, 7, 8)), "plan: input is 2x1x7x8, N x 1x8x8 expected")
  lu.assertStrContains(check.message(plan, 3), "plan: input is number, N x 1x8x8 expected")
  lu.assertStrContains(check.message(plan, tensor.zeros({ 1, 1, 8, 8 }, "u8")), "plan: input must be f")
end

function T.test_operations_that_plans_do_not_know_are_named_with_the_layer()
  local Own = nn.class "PlanUnknown"
  function Own:forward(x) return feral.ops.mul(x, x) end
  local net = nn.Sequential(nn.ReLU(), Own())
  lu.assertStrContains(check.message(net.compile, net, tensor.zeros(1, 3)),
    "compile: layer 2, PlanUnknown has no place in a plan: its forward uses an operation that plans do not know")
end

function T.test_a_forward_of_a_layers_own_is_asked()
  local net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
  net[2].forward = function(_, x) return x:sigmoid() end
  local x = check.randn(4, 3)
  check.close(net:compile(x)(x), autograd.no_grad(net, x), tolerance)
  net[1].forward = function(_, t) return t * 2 end
  lu.assertStrContains(check.message(net.compile, net, x), "compile: layer 1, Linear has no place in a plan")
  check.close(feral.compile.predictor(net)(x), autograd.no_grad(net, x), tolerance)
end

--- A layer that computes something else than its kind, in a way that tracing does not see.
function T.test_a_plan_that_gives_other_numbers_is_not_used()
  local program = require "threads"
  local output = program.run(1, [[
    local feral = require "feral"
    local nn, tensor = feral.nn, feral.tensor
    local class = nn.ReLU
    local forward = class.forward
    function class:forward(x) return forward(self, x) * 2 end
    local net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.ReLU()):eval()
    local x = tensor.randn(4, 3)
    print(select(2, pcall(net.compile, net, tensor.zeros(1, 3))))
    local predict = feral.compile.predictor(net)
    for _ = 1, 3 do
      print("off by", (predict(x) - feral.autograd.no_grad(net, x)):abs():max():item())
      net[1].weight:detach():mul_(0.9)
    end
  ]])
  lu.assertStrContains(output, "compile: the plan's values are up to")
  lu.assertEquals(select(2, output:gsub("off by\t0.0", "")), 3)
  lu.assertEquals(select(2, output:gsub("feral: a network predicts layer by layer", "")), 1)
end

function T.test_a_predictor_follows_the_network()
  local predict
  local function follows(net, x) check.close(predict(x), autograd.no_grad(net, x), tolerance) end
  local net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm(2), nn.ReLU(), nn.GlobalAvgPool()):eval()
  predict = feral.compile.predictor(net)
  follows(net, check.randn(2, 1, 6, 6))
  follows(net, check.randn(3, 1, 8, 5))
  net:get(1).weight:detach():mul_(3)
  follows(net, check.randn(3, 1, 8, 5))
  local plain = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Lambda(function(t) return t:abs() end))
  predict = feral.compile.predictor(plain)
  local x = check.randn(4, 3)
  local y = predict(x)
  lu.assertTrue(plain.training and plain:get(2).training)
  check.close(y, autograd.no_grad(plain:eval(), x), tolerance)
end

function T.test_nothing_leaks_when_memory_runs_out()
  local net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
  local one, many = check.randn(1, 1, 6, 6), check.randn(40, 1, 6, 6)
  check.survives_lack_of_memory(function()
    local open <close> = tensor.scope() -- luacheck: ignore
    local plan = net:compile(one)
    plan(one)
    plan(many)
    plan(one)
  end)
end

--- How a plan packs its weights follows the example's batch; what it computes does not.
function T.test_plans_of_one_and_of_many_agree()
  for _ = 1, 12 do
    local c, f, h, w = check.integer(8, 40), check.integer(8, 40), check.integer(3, 14), check.integer(3, 14)
    local net = nn.Sequential(nn.Conv2d(c, f, 3, { padding = check.integer(0, 2) }), nn.ReLU()):eval()
    local one, many = check.randn(1, c, h, w), check.randn(5, c, h, w)
    for _, plan in ipairs { net:compile(one), net:compile(many) } do
      check.close(plan(one), net(one), 1e-5)
      check.close(plan(many), net(many), 1e-5)
    end
  end
end

--- Small runs try one thread and all in turn, and again after a while.
function T.test_a_plan_gives_the_same_bits_however_often_it_runs()
  local net, x = nets.make("mini_xception", 7):eval(), check.randn(1, 1, 48, 48)
  local plan = net:compile(x)
  local first = plan(x):tobytes()
  for i = 2, 270 do lu.assertTrue(plan(x):tobytes() == first, i) end
end

return T
