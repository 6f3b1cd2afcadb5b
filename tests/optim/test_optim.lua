local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local threads = require "threads"
local optim, tensor, nn = feral.optim, feral.tensor, feral.nn

local T = {}

local tolerance = check.is_double and 1e-12 or 1e-5

local function set_gradient(p, gradient)
  local open <close> = tensor.scope() -- luacheck: ignore
  p:zero_grad()
  p:backward(gradient)
end

-- Each rule for one number, written from its paper: s holds what it remembers, t counts from 1.
local naive = {}

function naive.SGD(o, p, g, s, t)
  local d = g + o.weight_decay * p
  if o.momentum ~= 0 then
    s.b = t == 1 and d or o.momentum * s.b + (1 - o.dampening) * d
    d = o.nesterov and d + o.momentum * s.b or s.b
  end
  return p - o.lr * d
end

local function adam(o, p, g, s, t)
  s.m = o.betas[1] * (s.m or 0) + (1 - o.betas[1]) * g
  s.v = o.betas[2] * (s.v or 0) + (1 - o.betas[2]) * g * g
  local m, v = s.m / (1 - o.betas[1] ^ t), s.v / (1 - o.betas[2] ^ t)
  return p - o.lr * m / (math.sqrt(v) + o.eps)
end

function naive.Adam(o, p, g, s, t) return adam(o, p, g + o.weight_decay * p, s, t) end

function naive.AdamW(o, p, g, s, t) return adam(o, p - o.lr * o.weight_decay * p, g, s, t) end

function naive.RMSprop(o, p, g, s)
  local d = g + o.weight_decay * p
  s.v = o.alpha * (s.v or 0) + (1 - o.alpha) * d * d
  s.m = o.alpha * (s.m or 0) + (1 - o.alpha) * d
  local x = d / (math.sqrt(o.centered and s.v - s.m ^ 2 or s.v) + o.eps)
  s.b = o.momentum * (s.b or 0) + x
  return p - o.lr * s.b
end

local function pick(...) return (select(check.integer(1, select("#", ...)), ...)) end

local function random_options(kind)
  local o = { lr = pick(0.1, 0.01, 0.001), weight_decay = pick(0, 0.1) }
  if kind == "SGD" then
    o.momentum = pick(0, 0.5, 0.9)
    o.nesterov = o.momentum > 0 and pick(true, false)
    o.dampening = o.nesterov and 0 or pick(0, 0.3)
  elseif kind == "RMSprop" then
    o.alpha, o.momentum, o.centered, o.eps = pick(0.9, 0.99), pick(0, 0.5), pick(true, false), 1e-3
  else
    o.betas, o.eps = { pick(0.9, 0.7), pick(0.999, 0.95) }, pick(1e-8, 1e-3)
  end
  return o
end

local function shapes() return { check.integer(1, 5), check.integer(1, 19) }, { check.integer(1, 70) } end

for _, kind in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
  T["test_" .. kind .. "_equals_the_naive_rule_over_20_steps"] = function()
    for _ = 1, 50 do
      local params, numbers, memory = {}, {}, {}
      for i, shape in ipairs { shapes() } do
        params[i] = check.randn(table.unpack(shape)):requires_grad()
        numbers[i], memory[i] = check.flat(params[i]), {}
        for k = 1, #numbers[i] do memory[i][k] = {} end
      end
      local options = random_options(kind)
      local opt = optim[kind](params, options)
      for t = 1, 20 do
        for i, p in ipairs(params) do
          set_gradient(p, check.randn(table.unpack(p.shape)))
          local g = check.flat(p.grad)
          for k, x in ipairs(numbers[i]) do numbers[i][k] = naive[kind](options, x, g[k], memory[i][k], t) end
        end
        opt:step()
      end
      -- the centred RMSprop takes the difference of two squares, which loses digits
      local allowed = kind == "RMSprop" and 100 * tolerance or tolerance
      for i, p in ipairs(params) do check.close(p, numbers[i], allowed, kind) end
    end
  end
end

function T.test_parameters_of_all_sizes_each_with_its_own_count_of_steps()
  for _, kind in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
    local options = random_options(kind)
    local params, alone = {}, {}
    for i, size in ipairs { 3, 16384 + 5, 1, 40001, 16384 } do
      params[i] = check.randn(size):requires_grad()
      alone[i] = optim[kind]({ params[i]:detach():clone():requires_grad() }, options)
    end
    local opt = optim[kind](params, options)
    for t = 1, 4 do
      for i, p in ipairs(params) do
        p:zero_grad()
        if t > i - 2 and t ~= i then -- some begin later, some leave one out
          local g = check.randn(p:numel())
          set_gradient(p, g)
          set_gradient(alone[i].params[1], g)
          alone[i]:step()
        end
      end
      opt:step()
    end
    for i, p in ipairs(params) do
      lu.assertEquals(opt.steps[i], alone[i].steps[1])
      lu.assertTrue(p:tobytes() == alone[i].params[1]:tobytes(), kind .. " " .. i)
    end
  end
end

-- p = cos(1..5); 20 steps with gradients sin(1.3 t + 0.7 i), in double, by torch.optim 1.13.
local by_pytorch = {
  { "SGD", { lr = 0.01 },
    { 0.533516189115109, -0.420392386427654, -0.989700731161085, -0.648951761949472, 0.290547483292507 } },
  { "SGD", { lr = 0.05, momentum = 0.9, weight_decay = 0.1 },
    { 0.216295283532931, -0.0978008519540921, -0.275688938985392, -0.109309280500587, 0.25017469900843 } },
  { "SGD", { lr = 0.05, momentum = 0.8, dampening = 0.3 },
    { 0.444721536336934, -0.396216019386574, -0.863923867486327, -0.480729225944982, 0.422098004394185 } },
  { "SGD", { lr = 0.02, momentum = 0.9, nesterov = true, weight_decay = 0.01 },
    { 0.486207388490974, -0.36142502599025, -0.856970462983471, -0.516255043824656, 0.353293372661826 } },
  { "Adam", {},
    { 0.538942177437784, -0.415659331938951, -0.986459452967302, -0.650434577092222, 0.285780524972458 } },
  { "Adam", { lr = 0.05, betas = { 0.8, 0.95 }, eps = 0.0001, weight_decay = 0.1 },
    { 0.426073923280601, -0.352776998947971, -0.74664331028537, -0.466670625109339, 0.32338675051839 } },
  { "AdamW", {},
    { 0.538834376912747, -0.415576153845662, -0.986262061186506, -0.650304396630152, 0.28572343032475 } },
  { "AdamW", { lr = 0.05, betas = { 0.8, 0.95 }, eps = 0.0001, weight_decay = 0.1 },
    { 0.43917628802083, -0.364942276667337, -0.764689794467221, -0.477808514985762, 0.331895719414959 } },
  { "RMSprop", {},
    { 0.490440254828895, -0.444861829548369, -0.851659786213358, -0.559217001288308, 0.349798072047536 } },
  { "RMSprop", { lr = 0.02, alpha = 0.9, eps = 0.0001, momentum = 0.7, weight_decay = 0.1 },
    { 0.386240092185556, -0.361585037245281, -0.560083128599003, -0.377027467115048, 0.325622611701006 } },
  { "RMSprop", { lr = 0.02, alpha = 0.9, momentum = 0.5, centered = true, eps = 0.001 },
    { 0.49074779926014, -0.437792889547435, -0.789996270175759, -0.524852473339173, 0.359936511290211 } },
}

function T.test_values_of_pytorch()
  for _, case in ipairs(by_pytorch) do
    local kind, options, expected = table.unpack(case)
    local start, gradient = {}, {}
    for i = 1, 5 do start[i] = math.cos(i) end
    local p = tensor(start):requires_grad()
    local opt = optim[kind]({ p }, options)
    for t = 1, 20 do
      for i = 1, 5 do gradient[i] = math.sin(1.3 * t + 0.7 * i) end
      set_gradient(p, tensor(gradient))
      opt:step()
    end
    check.close(p, expected, tolerance, kind)
  end
end

local function make_net()
  feral.random.seed(3)
  return nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
end

--- Some steps; the data of step t is a function of t alone.
local function train(net, opt, first, last)
  for t = first, last do
    local open <close> = tensor.scope() -- luacheck: ignore
    local x = tensor.arange(1, 28):reshape(4, 7) * (0.01 * t)
    opt:zero_grad()
    ;(net(x) * net(x)):mean():backward()
    opt:step()
  end
end

local function bytes_of(net)
  local parts = {}
  for i, p in ipairs(net:parameters()) do parts[i] = p:tobytes() end
  return table.concat(parts)
end

local function by_name(list)
  local tensors = {}
  for _, pair in ipairs(list) do tensors[pair[1]] = pair[2]:clone() end
  return tensors
end

function T.test_a_resumed_run_equals_one_without_a_break_bit_for_bit()
  for _, case in ipairs(by_pytorch) do
    local kind, options = case[1], case[2]
    local whole = make_net()
    train(whole, optim[kind](whole:parameters(), options), 1, 10)
    local net = make_net()
    local opt = optim[kind](net:parameters(), options)
    train(net, opt, 1, 5)
    opt.lr = opt.lr * 1 -- a schedule would change it here
    local list, numbers = opt:state()
    local saved = by_name(list)
    train(net, opt, 6, 7) -- what was saved must not follow
    local again = make_net()
    train(again, optim[kind](again:parameters(), options), 1, 5)
    local resumed = optim[kind](again:parameters(), options):load_state(saved, numbers)
    lu.assertEquals(resumed.lr, opt.lr)
    train(again, resumed, 6, 10)
    lu.assertTrue(bytes_of(again) == bytes_of(whole), kind)
  end
end

function T.test_state_lists_tensors_in_order_by_parameter()
  local net = make_net()
  local opt = optim.Adam(net:parameters())
  lu.assertEquals({ opt:state() }, { {}, { kind = "Adam", lr = 1e-3, steps = { 0, 0, 0, 0 } } })
  net.parameters(net)[2]:requires_grad(false)
  train(net, opt, 1, 2)
  local list, numbers = opt:state()
  local names = {}
  for i, pair in ipairs(list) do names[i] = pair[1] end
  lu.assertEquals(names, { "1.exp_avg", "1.exp_avg_sq", "3.exp_avg", "3.exp_avg_sq", "4.exp_avg", "4.exp_avg_sq" })
  lu.assertEquals(numbers.steps, { 2, 0, 2, 2 })
end

function T.test_a_state_that_does_not_fit_is_refused_and_nothing_changes()
  local net = make_net()
  local opt = optim.Adam(net:parameters())
  train(net, opt, 1, 2)
  local list, numbers = opt:state()
  local saved = by_name(list)
  lu.assertStrContains(check.message(function() optim.SGD(net:parameters()):load_state(saved, numbers) end),
    "SGD: load_state: the state is of Adam")
  lu.assertStrContains(check.message(function() optim.Adam({ net:parameters()[1] }):load_state(saved, numbers) end),
    "Adam: load_state: the state is of 4 parameters, not 1")
  local before = opt.states
  saved["4.exp_avg"] = tensor.zeros(2)
  lu.assertStrContains(check.message(function() opt:load_state(saved, numbers) end),
    "Adam: load_state: '4.exp_avg' is 2, the parameter 3")
  saved["4.exp_avg"] = nil
  lu.assertStrContains(check.message(function() opt:load_state(saved, numbers) end),
    "Adam: load_state: there is no tensor '4.exp_avg'")
  lu.assertIs(opt.states, before)
end

function T.test_parameters_without_gradient_stay()
  local a, b, frozen = check.randn(3):requires_grad(), check.randn(3):requires_grad(), check.randn(3):requires_grad()
  local opt = optim.SGD({ a, b, frozen }, { lr = 1, momentum = 0.9 })
  opt:step() -- no gradient anywhere yet
  local was_a, was_b, was_frozen = a:tobytes(), b:tobytes(), frozen:tobytes()
  set_gradient(frozen, check.randn(3))
  frozen:requires_grad(false)
  set_gradient(a, check.randn(3))
  opt:step()
  lu.assertNotEquals(a:tobytes(), was_a)
  lu.assertEquals(b:tobytes(), was_b)
  lu.assertEquals(frozen:tobytes(), was_frozen)
  opt:zero_grad()
  lu.assertNil(a.grad)
  was_a = a:tobytes()
  opt:step()
  lu.assertEquals(a:tobytes(), was_a)
end

function T.test_a_parameter_listed_twice_is_changed_once()
  local p = tensor.zeros(2):requires_grad()
  set_gradient(p, tensor.ones(2))
  optim.SGD({ p, p }, { lr = 1 }):step()
  lu.assertEquals(p:totable(), { -1, -1 })
end

function T.test_own_optimisers_in_lua()
  local SignSGD = optim.class("SignSGD", { lr = 0.5 })
  function SignSGD:state_names() return { "last" } end -- luacheck: ignore
  function SignSGD:update(p, g, states)
    p:sub_(g:sign() * self.lr)
    states.last:copy_(g)
  end
  local p = tensor { 1, 2 }:requires_grad()
  set_gradient(p, tensor { 3, -4 })
  local opt = SignSGD({ p })
  opt:step()
  lu.assertEquals(p:totable(), { 0.5, 2.5 })
  lu.assertEquals(opt:state()[1][2]:totable(), { 3, -4 })
end

local function leaf(t) return t:detach():clone():requires_grad() end

function T.test_groups_have_options_of_their_own_and_the_optimisers_for_the_rest()
  for _, kind in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
    local momentum = (kind == "SGD" or kind == "RMSprop") and 0.9 or nil
    local a, b, c = check.randn(3, 2):requires_grad(), check.randn(5):requires_grad(), check.randn(4):requires_grad()
    local alone = {
      optim[kind]({ leaf(a), leaf(c) }, { lr = 0.1, weight_decay = 0.1, momentum = momentum }),
      optim[kind]({ leaf(b) }, { lr = 0.02, weight_decay = 0, momentum = momentum }),
    }
    local opt = optim[kind]({ { params = { a, c } }, { params = { b }, lr = 0.02, weight_decay = 0 } },
      { lr = 0.1, weight_decay = 0.1, momentum = momentum })
    for t = 1, 3 do
      if t == 3 then -- as a schedule would
        opt.lr, alone[1].lr, alone[2].lr = 0.05, 0.05, 0.01
      end
      for k, p in ipairs(opt.params) do
        local g, single = check.randn(table.unpack(p.shape)), alone[k == 3 and 2 or 1]
        set_gradient(p, g)
        set_gradient(single.params[k == 3 and 1 or k], g)
      end
      opt:step()
      alone[1]:step()
      alone[2]:step()
    end
    check.close(a, check.flat(alone[1].params[1]), 1e-6, kind)
    check.close(c, check.flat(alone[1].params[2]), 1e-6, kind)
    check.close(b, check.flat(alone[2].params[1]), 1e-6, kind)
  end
end

function T.test_groups_that_differ_in_what_they_remember()
  local a, b = check.randn(2):requires_grad(), check.randn(3):requires_grad()
  local opt = optim.SGD({ { params = { a }, momentum = 0 }, { params = { b } } }, { lr = 0.1, momentum = 0.9 })
  set_gradient(a, check.randn(2))
  set_gradient(b, check.randn(3))
  opt:step()
  local list = opt:state()
  lu.assertEquals({ #list, list[1][1] }, { 1, "2.momentum_buffer" })
end

function T.test_a_resumed_run_with_groups_equals_one_without_a_break_bit_for_bit()
  local function grouped(net)
    local groups = optim.decay_groups(net, 0.1)
    groups[2].lr = 0.003
    return optim.AdamW(groups, { lr = 0.01 })
  end
  local function changed(net) -- the state holds what a script has made of it
    local opt = grouped(net)
    opt.groups[2].lr_part = 0.5
    return opt
  end
  local whole = make_net()
  train(whole, changed(whole), 1, 10)
  local net = make_net()
  local opt = changed(net)
  train(net, opt, 1, 5)
  local list, numbers = opt:state()
  lu.assertEquals({ #numbers.groups, numbers.groups[1].count, numbers.groups[2].lr_part }, { 2, 2, 0.5 })
  train(net, grouped(net):load_state(by_name(list), numbers), 6, 10)
  lu.assertTrue(bytes_of(net) == bytes_of(whole))
  lu.assertStrContains(check.message(function() optim.AdamW(net:parameters()):load_state(by_name(list), numbers) end),
    "AdamW: load_state: the state is of groups of 2 and 2 parameters, not of 4")
end

function T.test_decay_groups_leave_out_biases_and_norms()
  local net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm(2), nn.PReLU(), nn.Flatten(), nn.Linear(8, 3))
  local groups = optim.decay_groups(net, 5e-4)
  lu.assertEquals({ #groups, #groups[1].params, groups[1].weight_decay }, { 2, 2, 5e-4 })
  lu.assertEquals({ #groups[1].params + #groups[2].params, groups[2].weight_decay }, { #net:parameters(), 0 })
  for _, p in ipairs(groups[2].params) do lu.assertEquals(p:dim(), 1) end
  lu.assertEquals(#optim.decay_groups(nn.Linear(2, 2, { bias = false }), 0.1), 1)
  lu.assertStrContains(check.message(optim.decay_groups, net:parameters(), 1), "decay_groups: a network expected, got table")
end

function T.test_wrong_groups_are_refused()
  local p, q = check.randn(2):requires_grad(), check.randn(2):requires_grad()
  local function refuses(text, ...) lu.assertStrContains(check.message(optim.SGD, ...), text) end
  refuses("SGD: a parameter of group 2 stands in group 1 already", { { params = { p } }, { params = { q, p } } })
  refuses("SGD: group 2: unknown option 'weight_deca', did you mean 'weight_decay'?",
    { { params = { p } }, { params = { q }, weight_deca = 1 } })
  refuses("SGD: weight_decay must be a number of at least 0, got -1", { { params = { p }, weight_decay = -1 } })
  refuses("SGD: nesterov needs a momentum and no dampening", { { params = { p }, momentum = 0 } },
    { momentum = 0.9, nesterov = true })
  refuses("SGD: a list of parameters expected (net:parameters()), got a layer", { { params = nn.Linear(1, 1) } })
end

function T.test_an_optimiser_by_its_name()
  local p = { check.randn(2):requires_grad() }
  lu.assertEquals({ optim.new("adam", p).kind, optim.new("AdamW", p).kind }, { "Adam", "AdamW" })
  local spec = { "sgd", lr = 0.1, momentum = 0.9 }
  local opt = optim.new(spec, p)
  lu.assertEquals({ opt.kind, opt.lr, opt.momentum, spec[1] }, { "SGD", 0.1, 0.9, "sgd" })
  local function refuses(text, ...) lu.assertStrContains(check.message(optim.new, ...), text) end
  refuses("optim.new: optimiser 'adma' is unknown, did you mean 'adam'? (known: adam, ", "adma", p)
  refuses("optim.new: optimiser 'nil' is unknown", {}, p)
  refuses("Adam: unknown option 'momentum'", { "adam", momentum = 0.9 }, p)
end

function T.test_wrong_options_are_refused()
  local p = { check.randn(2):requires_grad() }
  local function refuses(text, class, ...)
    lu.assertStrContains(check.message(class, ...), text)
  end
  refuses("SGD: unknown option 'momentun', did you mean 'momentum'?", optim.SGD, p, { momentun = 1 })
  refuses("SGD: lr must be a number above 0, got 0", optim.SGD, p, { lr = 0 })
  refuses("Adam: lr must be a number of at least 0, got -1", optim.Adam, p, { lr = -1 })
  refuses("AdamW: lr must be a number of at least 0, got fast", optim.AdamW, p, { lr = "fast" })
  refuses("RMSprop: alpha must be a number of at least 0, got -1", optim.RMSprop, p, { alpha = -1 })
  refuses("RMSprop: lr must be a number of at least 0, got ", optim.RMSprop, p, { lr = 0 / 0 })
  refuses("SGD: weight_decay must be a number of at least 0, got inf", optim.SGD, p, { weight_decay = math.huge })
  refuses("Adam: betas[2] must be a number of at least 0 and below 1, got 1", optim.Adam, p, { betas = { 0.9, 1 } })
  refuses("Adam: betas[1] must be a number of at least 0 and below 1, got nil", optim.Adam, p, { betas = 0.9 })
  refuses("SGD: nesterov needs a momentum and no dampening", optim.SGD, p, { nesterov = true })
  refuses("SGD: options must be a table, got number", optim.SGD, p, 0.1)
  refuses("SGD: a list of parameters expected (net:parameters()), got nil", optim.SGD)
  refuses("SGD: a list of parameters expected (net:parameters()), got a layer", optim.SGD, nn.Linear(1, 1))
  refuses("SGD: the list of parameters is empty", optim.SGD, {})
  refuses("SGD: parameter 2 must be a tensor of ", optim.SGD, { p[1], 5 })
  refuses("SGD: parameter 1 must be a tensor of ", optim.SGD, { tensor.zeros(2, "i32") })
  refuses("SGD: parameter 1 must be contiguous", optim.SGD, { tensor.zeros(2, 3):transpose(1, 2) })
  local opt = optim.SGD(p)
  opt.lr = -1
  refuses("SGD: lr must be a number of at least 0, got -1", opt.step, opt)
end

function T.test_clip_grad_norm()
  local a, b, c = tensor { 3, 4 }:requires_grad(), tensor { { 1, 2, 2 } }:requires_grad(), check.randn(2):requires_grad()
  local params = { a, b, a, c }
  set_gradient(a, a:detach():clone())
  set_gradient(b, b:detach():clone())
  -- torch.nn.utils.clip_grad_norm_ in double
  lu.assertAlmostEquals(optim.clip_grad_norm(params, 2), 5.830951894845301, 1e-12)
  check.close(a.grad, { 1.028991334384495, 1.3719884458459932 }, tolerance)
  check.close(b.grad, { 0.3429971114614983, 0.6859942229229966, 0.6859942229229966 }, tolerance)
  local before = a.grad:tobytes()
  lu.assertAlmostEquals(optim.clip_grad_norm(params, 10), 2, 1e-5)
  lu.assertEquals(a.grad:tobytes(), before)
  set_gradient(c, tensor { 0 / 0, 1 })
  local norm = optim.clip_grad_norm(params, 1)
  lu.assertTrue(norm ~= norm)
  lu.assertEquals(a.grad:tobytes(), before)
  lu.assertStrContains(check.message(optim.clip_grad_norm, params, 0), "clip_grad_norm: the norm must be a number above 0, got 0")
end

function T.test_norm_of_odd_sizes()
  for _ = 1, check.SHAPES do
    local p = check.randn(check.integer(1, 200)):requires_grad()
    set_gradient(p, check.randn(p:numel()))
    local sum = 0
    for _, x in ipairs(check.flat(p.grad)) do sum = sum + x * x end
    lu.assertAlmostEquals(optim.clip_grad_norm({ p }, 1e9), math.sqrt(sum), 1e-12 * sum)
  end
end

function T.test_norm_and_clipping_over_many_tensors()
  local params, sum = {}, 0
  for i, size in ipairs { 5, 40000, 1, 16384, 77 } do
    params[i] = check.randn(size):requires_grad()
    set_gradient(params[i], check.randn(size))
    for _, x in ipairs(check.flat(params[i].grad)) do sum = sum + x * x end
  end
  local norm = optim.clip_grad_norm(params, 2)
  lu.assertAlmostEquals(norm, math.sqrt(sum), 1e-9 * norm)
  lu.assertAlmostEquals(optim.clip_grad_norm(params, 1e9), 2, 1e-4)
  local bare = { check.randn(3):requires_grad() }
  lu.assertEquals(optim.clip_grad_norm(bare, 1), 0)
end

function T.test_ema_follows_and_swaps()
  local p, q = check.randn(5, 3):requires_grad(), check.randn(33)
  local ema = optim.ema({ p, q, p }, 0.9)
  local expected = check.flat(p)
  for _ = 1, 20 do
    p:detach():add_(check.randn(5, 3))
    ema:update()
    for i, x in ipairs(check.flat(p)) do expected[i] = 0.9 * expected[i] + 0.1 * x end
  end
  local own, average = p:tobytes(), ema:state()[1][2]:tobytes()
  check.close(ema.averages[1], expected, tolerance)
  ema:swap()
  lu.assertEquals({ p:tobytes(), ema.averages[1]:tobytes() }, { average, own })
  ema:swap()
  lu.assertEquals({ p:tobytes(), ema.averages[1]:tobytes() }, { own, average })
  local again = optim.ema({ p, q }, 0.9):load_state(by_name(ema:state()))
  lu.assertEquals(again.averages[1]:tobytes(), average)
  lu.assertStrContains(check.message(optim.ema, { p }, 1), "ema: decay must be a number of at least 0 and below 1, got 1")
  lu.assertStrContains(check.message(again.load_state, again, {}), "ema: load_state: there is no tensor '1'")
end

function T.test_ema_of_a_network_averages_the_statistics_of_its_norms_too()
  local net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4))
  local ema, norm = optim.ema(net, 0.5), net:get(2)
  local before = check.flat(norm.running_mean)
  net(check.randn(6, 3))
  ema:update()
  local now, expected = check.flat(norm.running_mean), {}
  for i, x in ipairs(now) do expected[i] = 0.5 * before[i] + 0.5 * x end
  ema:swap()
  check.close(norm.running_mean, expected, tolerance)
  ema:swap()
  lu.assertEquals(check.flat(norm.running_mean), now)
end

function T.test_a_state_that_does_not_fit_an_ema_changes_nothing()
  local ema = optim.ema({ check.randn(3), check.randn(2) }, 0.9)
  local before = ema.averages[1]:tobytes()
  lu.assertStrContains(check.message(ema.load_state, ema, { ["1"] = tensor.zeros(3), ["2"] = tensor.zeros(3) }),
    "ema: load_state: '2' is 3, the parameter 2")
  lu.assertEquals(ema.averages[1]:tobytes(), before)
end

local function rates(schedule, count, metrics)
  local list = {}
  for i = 1, count do
    list[i] = schedule.opt.lr
    schedule:step(metrics and metrics[i])
  end
  return list
end

local function close_lists(got, expected)
  lu.assertEquals(#got, #expected)
  for i, x in ipairs(expected) do lu.assertAlmostEquals(got[i], x, 1e-12) end
end

local function sgd() return optim.SGD({ tensor.zeros(1):requires_grad() }, { lr = 0.1 }) end

local make = { -- and the rates of torch.optim.lr_scheduler's StepLR, MultiStepLR, CosineAnnealingLR, OneCycleLR, and
  -- LinearLR before CosineAnnealingLR
  step = { function(opt) return optim.schedule.step(opt, 3, { gamma = 0.5 }) end,
    { 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025 } },
  marks = { function(opt) return optim.schedule.step(opt, { 2, 5 }) end,
    { 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001 } },
  cosine = { function(opt) return optim.schedule.cosine(opt, 8, { eta_min = 0.01 }) end,
    { 0.1, 0.0965745789630079, 0.0868198051533946, 0.072220754456429, 0.055, 0.037779245543571, 0.0231801948466054,
      0.0134254210369921, 0.01 } },
  onecycle = { function(opt)
    return optim.schedule.onecycle(opt, 0.5, 8, { pct_start = 3 / 8, div_factor = 10, final_div_factor = 100 })
  end, { 0.05, 0.1625, 0.3875, 0.5, 0.452301994345143, 0.327426994345143, 0.173073005654857, 0.0481980056548569, 0.0005 } },
  warmup = { function(opt) return optim.schedule.warmup(optim.schedule.cosine(opt, 5), 3) end,
    { 0.01, 0.04, 0.07, 0.1, 0.0904508497187474, 0.0654508497187474, 0.0345491502812526, 0.00954915028125263, 0 } },
}

local function plateau(opt)
  return optim.schedule.plateau(opt, { factor = 0.5, patience = 1, cooldown = 1, min_lr = 0.02, threshold = 0.1 })
end
local metrics = { 3, 2.9, 2.8, 2, 2.1, 2.2, 2.3, 1.9, 1.9, 1.0, 1.1, 1.2 }

for name, case in pairs(make) do
  T["test_schedule_" .. name .. "_equals_pytorch_and_resumes"] = function()
    local new, expected = table.unpack(case)
    close_lists(rates(new(sgd()), 9), expected)
    local first, opt = new(sgd()), sgd()
    local start = rates(first, 4)
    opt.lr = first.opt.lr -- as a resumed optimiser's would be
    local rest = rates(new(opt):load_state(first:state()), 5)
    close_lists(table.move(rest, 1, 5, 5, start), expected)
    local between, low, high = new(sgd()), expected[3], expected[4]
    between:set(2.5)
    lu.assertTrue(between.opt.lr > math.min(low, high) - 1e-9 and between.opt.lr < math.max(low, high) + 1e-9)
    lu.assertEquals(between.time, 0)
  end
end

--- torch.optim.lr_scheduler.OneCycleLR(total_steps = 10, max_lr = 0.5, pct_start = 0.4, div_factor = 10, final_div_factor = 100)
function T.test_onecycle_in_steps_as_pytorch_counts_them()
  local function make_cycle(opt)
    return optim.schedule.onecycle(opt, 0.5, 9, { pct_start = (0.4 * 10 - 1) / 9, div_factor = 10, final_div_factor = 100 })
  end
  close_lists(rates(make_cycle(sgd()), 12), { 0.05, 0.1625, 0.3875, 0.5, 0.466539844595164, 0.375125, 0.25025, 0.125375,
    0.0339601554048364, 0.0005, 0.0005, 0.0005 })
end

function T.test_schedule_plateau_equals_pytorch_and_resumes()
  local expected = { 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.02, 0.02, 0.02 }
  close_lists(rates(plateau(sgd()), 12, metrics), expected)
  local first = plateau(sgd())
  lu.assertStrContains(check.message(first.load_state, first, optim.schedule.cosine(sgd(), 3):state()),
    "schedule.plateau: load_state: the state is of schedule.cosine")
  lu.assertStrContains(check.message(first.load_state, first), "schedule.plateau: load_state: the state is of no schedule")
  local start = rates(first, 5, metrics)
  local rest = rates(plateau(sgd()):load_state(first:state()), 7, table.move(metrics, 6, 12, 1, {}))
  close_lists(table.move(rest, 1, 7, 6, start), expected)
  local up = optim.schedule.plateau(sgd(), { mode = "max", patience = 0 })
  close_lists(rates(up, 4, { 0.5, 0.6, 0.55, 0.7 }), { 0.1, 0.1, 0.1, 0.01 })
end

function T.test_wrong_schedules_are_refused()
  local function refuses(text, f, ...) lu.assertStrContains(check.message(f, ...), text) end
  local s = optim.schedule
  refuses("schedule.cosine: the first argument must be an optimiser, got number", s.cosine, 5, 5)
  refuses("schedule.cosine: the number of epochs must be a number above 0, got 0", s.cosine, sgd(), 0)
  refuses("schedule.cosine: unknown option 'etamin', did you mean 'eta_min'?", s.cosine, sgd(), 5, { etamin = 1 })
  refuses("schedule.step: gamma must be a number of at least 0, got -1", s.step, sgd(), 5, { gamma = -1 })
  refuses("schedule.onecycle: pct_start must be a number from 0 to 1, got 2", s.onecycle, sgd(), 1, 5, { pct_start = 2 })
  refuses("schedule.plateau: mode must be 'min' or 'max', got 'low'", s.plateau, sgd(), { mode = "low" })
  local p = s.plateau(sgd())
  refuses("schedule.plateau: step needs the epoch's metric, got nil", p.step, p)
end

local training = [[
  local feral = require "feral"
  local optim, tensor = feral.optim, feral.tensor
  for _, kind in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
    feral.random.seed(1)
    local p = tensor.randn(70001):requires_grad()
    local options = { weight_decay = 0.1 }
    if kind == "SGD" or kind == "RMSprop" then options.momentum = 0.9 end
    local opt, ema = optim[kind]({ p }, options), optim.ema({ p }, 0.9)
    for _ = 1, 5 do
      p:zero_grad()
      p:backward(tensor.randn(70001))
      print(("%a"):format(optim.clip_grad_norm({ p }, 100)))
      opt:step()
      ema:update()
    end
    local text = p:tobytes() .. ema.averages[1]:tobytes()
    local a, b = 1, 0
    for i = 1, #text do a = (a + text:byte(i)) % 65521; b = (b + a) % 65521 end
    print(kind, a, b)
  end
]]

function T.test_threads_do_not_show()
  local one = threads.run(1, training)
  lu.assertStrContains(one, "RMSprop\t")
  lu.assertEquals(threads.run(2, training), one)
end

function T.test_survives_lack_of_memory()
  local net = make_net()
  local x = check.randn(4, 7)
  check.survives_lack_of_memory(function()
    local open <close> = tensor.scope() -- luacheck: ignore
    local opt = optim.Adam(net:parameters())
    opt:zero_grad()
    net(x):sum():backward()
    optim.clip_grad_norm(net:parameters(), 1)
    opt:step()
  end)
end

function T.test_a_step_without_memory_changes_nothing()
  local net = make_net()
  net(check.randn(2, 7)):sum():backward()
  local before = bytes_of(net)
  for n = 0, 8 do
    local opt = optim.Adam(net:parameters())
    tensor.trim()
    require("feral.core.scope").fail_after(n)
    local ok = pcall(opt.step, opt)
    require("feral.core.scope").fail_after()
    lu.assertFalse(ok)
    lu.assertTrue(bytes_of(net) == before)
    lu.assertEquals(opt.steps, { 0, 0, 0, 0 })
  end
end

return T
