local lu = require "luaunit"
local feral = require "feral"
local check, temporary = require "check", require "temporary"
local nn, tensor, ops, json, errors = feral.nn, feral.tensor, feral.ops, feral.json, require "feral.base.errors"

local T = {}

--- A layer of a script's own: y = a x + b with two numbers, remembers the mean of what it saw.
local Affine = nn.class "Affine"
function Affine:init(a, b, options)
  options = errors.check_options("Affine", options, { bias = true })
  self:add_parameter("a", tensor.full({ 1 }, a))
  if options.bias then self:add_parameter("b", tensor.full({ 1 }, b or 0)) end
  self:add_buffer("seen", tensor.zeros(1))
end
function Affine:forward(x)
  if self.training then self.seen:copy_(x:detach():mean():reshape(1)) end
  local y = ops.mul(x, self.a)
  return self.b and ops.add(y, self.b) or y
end

local function small_net()
  return nn.Sequential(
    nn.Conv2d(1, 2, 3, { padding = 1 }), nn.BatchNorm(2), nn.ReLU(),
    nn.Residual(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU()), nn.Conv2d(2, 4, 1, { bias = false })),
    nn.Flatten(), nn.Linear(4 * 4 * 4, 3))
end

local function names(pairs_of_state)
  local list = {}
  for i, pair in ipairs(pairs_of_state) do list[i] = pair[1] end
  return list
end

local function by_name(state)
  local map = {}
  for _, pair in ipairs(state) do map[pair[1]] = pair[2]:detach():clone() end
  return map
end

local function raising(net, x) return check.message(function() return (net(x)) end) end

---- Classes ----

function T.test_a_class_makes_layers_and_remembers_their_arguments()
  local layer = Affine(2, 1)
  lu.assertEquals({ layer.kind, layer.training, layer.name }, { "Affine", true, nil })
  lu.assertEquals(layer(tensor { 1, 2 }):totable(), { 3, 5 })
  lu.assertEquals(layer.seen:item(), 1.5)
  lu.assertEquals(tostring(layer), "Affine(2, 1)")
  lu.assertEquals(tostring(Affine(2, nil, { bias = false })), "Affine(2, nil, {bias = false})")
  lu.assertTrue(nn.Affine == Affine)
  lu.assertTrue(nn.find_class "Affine" == Affine)
end

function T.test_layers_are_found_by_name_and_unknown_ones_named_with_the_nearest()
  lu.assertEquals(nn.Conv2d.kind, "Conv2d")
  lu.assertStrMatches(check.message(function() return nn.Conv2D end),
    "tests/nn/test_nn.lua:%d+: nn has no layer 'Conv2D', did you mean 'Conv2d'%?")
  lu.assertStrContains(check.message(function() return nn.Liner end), "nn has no layer 'Liner', did you mean 'Linear'?")
  lu.assertStrMatches(check.message(function() return nn.something_else_entirely end), ".*has no layer 'something_else_entirely'")
  lu.assertNil(nn.find_class "init")
  lu.assertNil(nn.find_class "../train")
  local kinds = nn.kinds()
  lu.assertItemsEquals({ "Linear", "Sequential" }, (function()
    local found = {}
    for _, kind in ipairs(kinds) do if kind == "Linear" or kind == "Sequential" then found[#found + 1] = kind end end
    return found
  end)())
  for i = 2, #kinds do lu.assertTrue(kinds[i - 1] < kinds[i]) end
end

function T.test_a_wrong_option_of_a_layer_is_named()
  lu.assertStrMatches(check.message(function() nn.Linear(2, 3, { bais = true }) end),
    "tests/nn/test_nn.lua:%d+: Linear: unknown option 'bais', did you mean 'bias'%? %(known: bias%)")
end

---- Parameters and their names ----

function T.test_names_come_in_the_order_of_adding()
  local net = small_net()
  local parameters = {
    "1.weight", "1.bias", "2.weight", "2.bias", "4.main.1.weight", "4.main.1.bias", "4.skip.weight", "6.weight", "6.bias",
  }
  lu.assertEquals(names(net:named_parameters()), parameters)
  lu.assertEquals(names(net:named_buffers()), { "2.running_mean", "2.running_var" })
  table.move({ "2.running_mean", "2.running_var" }, 1, 2, #parameters + 1, parameters)
  lu.assertEquals(names(net:state()), parameters)
  lu.assertTrue(net:parameters()[1] == net:get(1).weight)
  lu.assertEquals(#net:parameters(), 9)
  lu.assertEquals(names(Affine(1):named_parameters()), { "a", "b" })
end

function T.test_walk_visits_all_layers_with_their_paths()
  local seen = {}
  small_net():walk(function(path, layer) seen[#seen + 1] = path .. " " .. layer.kind end)
  lu.assertEquals(seen, {
    " Sequential", "1 Conv2d", "2 BatchNorm", "3 ReLU", "4 Residual", "4.main Sequential", "4.main.1 Conv2d", "4.main.2 ReLU",
    "4.skip Conv2d", "5 Flatten", "6 Linear",
  })
end

function T.test_a_layer_in_two_places_is_trained_once()
  local shared = nn.Linear(3, 3)
  local net = nn.Sequential(shared, nn.ReLU(), shared)
  lu.assertEquals(#net:parameters(), 2)
  lu.assertEquals(net:num_parameters(), 12)
  lu.assertEquals(names(net:state()), { "1.weight", "1.bias", "3.weight", "3.bias" })
end

function T.test_sequential_takes_layers_alone()
  lu.assertStrContains(check.message(nn.Sequential, nn.ReLU(), nil, nn.ReLU()), "Sequential: '2' must be a layer, got nil")
  lu.assertStrContains(check.message(nn.Sequential, nn.ReLU),
    "Sequential: '1' is the class ReLU, not a layer: call it, nn.ReLU(...)")
  lu.assertStrContains(check.message(nn.Sequential, 5), "Sequential: '1' must be a layer, got number")
  lu.assertEquals(nn.Sequential()(tensor { 1, 2 }):totable(), { 1, 2 })
end

---- Children ----

--- y = outer(inner(x)), its layers put into fields.
local Fields = nn.class "Fields"
function Fields:init()
  self.inner = nn.Linear(3, 4)
  self.outer = nn.Linear(4, 2)
  self.scale = tensor.full({ 1 }, 2):requires_grad()
  self.plain, self.slope = tensor.zeros(1), 0.5
end
function Fields:forward(x) return self.outer(self.inner(x)) * self.scale end

function T.test_what_is_put_into_a_field_in_init_belongs_to_the_layer()
  local net = Fields()
  lu.assertEquals(net.child_names, { "inner", "outer" })
  lu.assertEquals(names(net:state()), { "scale", "inner.weight", "inner.bias", "outer.weight", "outer.bias" })
  net.later = nn.ReLU()
  lu.assertEquals(net.child_names, { "inner", "outer", "later" })
  net.seen = tensor.zeros(1):requires_grad() -- after init a tensor is just a field
  lu.assertEquals(#net:parameters(), 5)
end

function T.test_a_layer_is_replaced_by_assigning_another()
  local net = Fields()
  net.inner = nn.Linear(3, 4, { bias = false })
  lu.assertEquals(names(net:state()), { "scale", "inner.weight", "outer.weight", "outer.bias" })
  lu.assertStrContains(raising(net, tensor.zeros(1, 5)), "in layer inner (Linear)")
  local row = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
  row["1"], row[2] = nn.Tanh(), nn.Sigmoid()
  row[3] = nn.GELU()
  lu.assertEquals({ #row, row[1].kind, row["2"].kind, row[3].kind, row[4] }, { 3, "Tanh", "Sigmoid", "GELU", nil })
  lu.assertTrue(row:get(2) == row[2])
  local function assigning(to, key, value)
    return check.message(function() to[key] = value end)
  end
  lu.assertStrContains(assigning(row, 5, nn.ReLU()), "Sequential: there are 3 layers, got [5]")
  lu.assertStrContains(assigning(row, 1, 7), "Sequential: '1' must be a layer, got number")
  lu.assertStrContains(assigning(net, 1, nn.ReLU()), "Fields: its layers have names, not numbers; got [1]")
  row["1"] = 5
  lu.assertStrContains(check.message(row.parameters, row), "Sequential: '1' was a layer and is a number now: put a layer there")
end

function T.test_a_name_is_given_once()
  local net = Fields()
  local function adding(name, child) return check.message(net.add_child, net, name, child or nn.ReLU()) end
  lu.assertStrContains(adding "inner", "Fields: there is 'inner' already, a layer of that name cannot be added")
  lu.assertStrContains(adding "scale", "there is 'scale' already")
  lu.assertStrContains(adding "forward", "there is 'forward' already")
  lu.assertStrContains(adding "a.b", "a layer's name must be a string without dots, got a.b")
  lu.assertStrContains(adding("loop", net), "'loop' has this layer inside it")
  lu.assertStrContains(check.message(net.add_parameter, net, "scale", tensor.zeros(1)), "there is 'scale' already")
  lu.assertStrContains(check.message(net.add_buffer, net, "inner", tensor.zeros(1)), "there is 'inner' already")
end

function T.test_replace_takes_a_path()
  local net, new = small_net(), nn.Tanh()
  local old = net:get(4).main:get(2)
  lu.assertTrue(net:replace("4.main.2", new) == old)
  lu.assertTrue(net[4].main[2] == new)
  lu.assertStrContains(check.message(net.replace, net, "4.mian.2", new),
    "replace: there is no layer '4.mian.2' in this Sequential, did you mean '4.main.2'?")
  lu.assertStrContains(check.message(net.replace, net, "4.main.weight", new), "there is no layer '4.main.weight'")
  lu.assertStrContains(check.message(net.replace, net, "1", 5), "'1' must be a layer, got number")
end

function T.test_a_layer_in_two_networks_is_named_by_the_one_where_the_error_lies()
  local shared = nn.Linear(3, 4)
  local first, second = nn.Sequential(nn.ReLU(), shared), nn.Sequential(shared)
  lu.assertStrContains(raising(first, tensor.zeros(2, 5)), "in layer 2 (Linear)")
  lu.assertStrContains(raising(second, tensor.zeros(2, 5)), "in layer 1 (Linear)")
end

function T.test_a_class_has_a_name_of_its_own()
  local function making(kind) return check.message(nn.class, kind) end
  lu.assertStrContains(making "Affine", "nn.class: there is a class 'Affine' already, made at tests/nn/test_nn.lua:")
  lu.assertStrContains(making "Conv2d", "nn.class: 'Conv2d' is a name of nn's own")
  lu.assertStrContains(making "describe", "nn.class: 'describe' is a name of nn's own")
  lu.assertStrContains(making "My Layer", "nn.class: a name of letters and digits expected, got My Layer")
  lu.assertStrContains(check.message(nn.forget, "Linear"), "nn.forget: 'Linear' is a class of nn's own")
  lu.assertFalse(nn.forget "NeverMade")
  local before = nn.class "Again"
  lu.assertTrue(nn.Again == before and nn.forget "Again")
  lu.assertTrue(nn.class "Again" ~= before)
  local twice = {}
  for i = 1, 2 do twice[i] = nn.class "FromOneLine" end -- as a script that is run again
  lu.assertTrue(nn.FromOneLine == twice[2] and twice[1] ~= twice[2])
end

---- State ----

function T.test_state_goes_into_another_network()
  local a, b = small_net(), small_net()
  a:get(2).running_mean:fill_(3)
  local x = check.randn(2, 1, 4, 4)
  a:eval()
  lu.assertTrue(b:load_state(by_name(a:state())) == b)
  lu.assertEquals(b:eval()(x):tobytes(), a(x):tobytes())
  lu.assertEquals(b:get(2).running_mean:totable(), { 3, 3 })
end

function T.test_a_state_that_does_not_fit_changes_nothing()
  local net = small_net()
  local good = by_name(net:state())
  local function refused(change, message)
    local state = by_name(net:state())
    state["1.weight"]:fill_(7)
    change(state)
    lu.assertStrMatches(check.message(net.load_state, net, state), ".*load_state: " .. message:gsub("%p", "%%%0"))
    for path, t in pairs(by_name(net:state())) do lu.assertTrue(t:tobytes() == good[path]:tobytes(), path) end
  end
  refused(function(state) state["6.bias"] = tensor.zeros(4) end, "'6.bias' is 4, the network expects 3")
  refused(function(state) state["6.weight"] = tensor.zeros(64, 3) end, "'6.weight' is 64x3, the network expects 3x64")
  refused(function(state) state["2.running_var"] = nil end, "there is no tensor '2.running_var'")
  refused(function(state) state["7.bias"] = tensor.zeros(1) end, "the network has no tensor '7.bias'")
end

---- Train, eval, freeze ----

function T.test_train_and_eval_reach_all_layers()
  local net = small_net()
  for _, case in ipairs { { net.eval, false }, { net.train, true } } do
    lu.assertTrue(case[1](net) == net)
    net:walk(function(_, layer) lu.assertEquals(layer.training, case[2]) end)
  end
end

function T.test_frozen_layers_get_no_gradient_and_keep_their_statistics()
  local net = small_net()
  local whole = net:num_parameters()
  for i = 1, 4 do net:get(i):freeze() end
  lu.assertEquals(net:num_parameters(), 64 * 3 + 3)
  lu.assertEquals(net:num_parameters(true), whole)
  local before = net:get(2).running_mean:tobytes()
  net(check.randn(2, 1, 4, 4)):sum():backward()
  lu.assertEquals(net:get(2).running_mean:tobytes(), before)
  for i, pair in ipairs(net:named_parameters()) do lu.assertEquals(pair[2].grad ~= nil, i > 7, pair[1]) end
  net:unfreeze()
  lu.assertEquals(net:num_parameters(), whole)
  net(check.randn(2, 1, 4, 4)):sum():backward()
  lu.assertNotEquals(net:get(2).running_mean:tobytes(), before)
  lu.assertNotNil(net:get(1).weight.grad)
  net:zero_grad()
  for _, p in ipairs(net:parameters()) do lu.assertNil(p.grad) end
end

function T.test_freezing_by_paths()
  local net = small_net()
  lu.assertEquals(net:freeze { "4.*", "2" }, {
    "4.main", "4.main.1", "4.main.1.weight", "4.main.1.bias", "4.main.2", "4.skip", "4.skip.weight", "2",
  })
  lu.assertTrue(net[2].frozen and net[4].skip.frozen)
  lu.assertNil(net[4].frozen)
  lu.assertNil(net[1].frozen)
  net(check.randn(2, 1, 4, 4)):sum():backward()
  for _, pair in ipairs(net:named_parameters()) do
    lu.assertEquals(pair[2].grad == nil, pair[1]:find("^4") ~= nil or pair[1]:find("^2") ~= nil, pair[1])
  end
  lu.assertEquals(net:unfreeze "4.main.?.bias", { "4.main.1.bias" })
  lu.assertEquals(net:freeze { "*.bias" }[1], "1.bias")
  lu.assertStrContains(check.message(net.freeze, net, { "2", "4.mian" }),
    "freeze: nothing in this Sequential matches '4.mian', did you mean '4.main'?")
  lu.assertStrContains(check.message(net.unfreeze, net, "7.*"), "unfreeze: nothing in this Sequential matches '7.*'")
  lu.assertStrContains(check.message(net.freeze, net, {}), 'freeze: paths expected, as freeze{"features.*"}, got table')
  lu.assertTrue(net:unfreeze() == net)
end

---- Looking at a network ----

function T.test_summary()
  local net = small_net()
  net:get(6):freeze()
  lu.assertEquals(net:summary(1, 4, 4), table.concat({
    "layer                        kind             output           parameters",
    "1                            Conv2d           2x4x4                    20",
    "2                            BatchNorm        2x4x4                     4",
    "3                            ReLU             2x4x4                     0",
    "4                            Residual         4x4x4                     0",
    "4.main                       Sequential       4x4x4                     0",
    "4.main.1                     Conv2d           4x4x4                    12",
    "4.main.2                     ReLU             4x4x4                     0",
    "4.skip                       Conv2d           4x4x4                     8",
    "5                            Flatten          64                        0",
    "6                            Linear           3                       195",
    "10 layers, 239 parameters, 44 of them trainable",
  }, "\n"))
  lu.assertTrue(net.training)
  lu.assertEquals(net:get(2).running_mean:totable(), { 0, 0 }) -- looking changes nothing
  lu.assertEquals(net:summary { 1, 4, 4 }, net:summary(1, 4, 4))
  lu.assertStrContains(nn.Sequential(nn.Linear(1000, 1234)):summary(1000), "1,235,234")
  lu.assertStrContains(nn.Linear(2, 3):summary(2), "1 layers, 9 parameters")
end

function T.test_a_summary_that_fails_leaves_the_network_as_it_was()
  local net = small_net()
  lu.assertStrContains(check.message(net.summary, net, 2, 4, 4), "in layer 1 (Conv2d)")
  lu.assertTrue(net.training)
  net(check.randn(1, 1, 4, 4)) -- and nobody observes any more
end

function T.test_a_network_prints_as_it_is_built()
  local convolution = nn.Conv2d(1, 2, 3, { padding = 1, bias = false })
  lu.assertEquals(tostring(nn.Sequential(nn.Residual(nn.Sequential(convolution)), nn.ReLU())), [[
Sequential(
  (1) Residual(
    (main) Sequential(
      (1) Conv2d(1, 2, 3, {bias = false, padding = 1})
    )
  )
  (2) ReLU()
)]])
end

function T.test_observe_sees_each_layer_and_ends_with_an_error_too()
  local net, seen = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), {}
  local function look(layer, out) seen[#seen + 1] = layer.kind .. " " .. table.concat(out.shape, "x") end
  local out = nn.observe(look, function() return net(tensor.zeros(5, 2)) end)
  lu.assertEquals(out.shape, { 5, 3 })
  lu.assertEquals(seen, { "Linear 5x3", "ReLU 5x3", "Sequential 5x3" })
  pcall(nn.observe, look, function() error("on purpose") end)
  net(tensor.zeros(5, 2))
  lu.assertEquals(#seen, 3)
end

function T.test_trace_sees_each_layer_begin_and_end()
  local net, seen = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), {}
  local function enter(layer, x) seen[#seen + 1] = layer.kind .. " of " .. table.concat(x.shape, "x") end
  local function leave(layer, out) seen[#seen + 1] = layer.kind .. " gave " .. table.concat(out.shape, "x") end
  nn.trace(enter, leave, function() return net(tensor.zeros(5, 2)) end)
  lu.assertEquals(seen[1], "Sequential of 5x2")
  lu.assertEquals({ seen[2], seen[3], seen[#seen] }, { "Linear of 5x2", "Linear gave 5x3", "Sequential gave 5x3" })
  local before = #seen
  pcall(nn.trace, enter, leave, function() error("on purpose") end)
  net(tensor.zeros(5, 2))
  lu.assertEquals(#seen, before)
end

---- Descriptions ----

--- Through JSON and back, as a model file has it.
local function rebuilt(net) return nn.build(json.decode(json.encode(nn.describe(net)))) end

function T.test_a_description_makes_the_same_network_again()
  for _, net in ipairs {
    small_net(), Affine(2, 1), Affine(2, nil, { bias = false }), nn.Sequential(Affine(0.1), nn.Sequential(Affine(1 / 3, -2))),
    nn.Residual(nn.ReLU(), nil, { activation = nn.ReLU() }), nn.Concat(nn.ReLU(), nn.Conv2d(1, 2, { 1, 3 }), { dim = 2 }),
    nn.LSTM(3, 4), nn.TimeDistributed(nn.Linear(2, 2)), nn.Sequential(),
  } do
    local again = assert(rebuilt(net))
    lu.assertEquals(tostring(again), tostring(net))
    lu.assertEquals(names(again:state()), names(net:state()))
    again:load_state(by_name(net:state()))
    lu.assertEquals(json.encode(nn.describe(again)), json.encode(nn.describe(net)))
  end
  local x = check.randn(2, 1, 4, 4)
  local net = small_net():eval()
  lu.assertEquals(rebuilt(net):eval():load_state(by_name(net:state()))(x):tobytes(), net(x):tobytes())
end

function T.test_what_cannot_be_described_is_refused()
  local lambda = nn.Sequential(nn.Lambda(function(x) return x end))
  lu.assertStrContains(check.message(nn.describe, lambda), "a Lambda holds a function and so cannot be written to a file")
  local Constant = nn.class "Constant"
  function Constant:init(t) self.t = t end
  function Constant:forward(x) return ops.add(x, self.t) end
  lu.assertStrContains(check.message(nn.describe, Constant(tensor { 1 })), "a Constant holds a userdata")
end

function T.test_damaged_descriptions_give_a_message_and_never_raise()
  local cases = {
    { { kind = "Conv2D", arguments = {} },
      "layer 'Conv2D' is unknown, did you mean 'Conv2d'?; if it is your own, make its class" },
    { { kind = "Mine", arguments = {} }, "layer 'Mine' is unknown" },
    { { kind = 7 }, "layer '7' is unknown" },
    { { kind = {} }, "is unknown" },
    { { kind = "init" }, "layer 'init' is unknown" },
    { { kind = "Linear", arguments = 5 }, "layer Linear: its arguments are no list" },
    { { kind = "Linear", arguments = { 3 } }, "layer Linear: " },
    { { kind = "Linear", arguments = { 3, -1 } }, "layer Linear: a size must be 1 or more, got -1" },
    { { kind = "Linear", arguments = { 3, 4, { bais = true } } }, "layer Linear: Linear: unknown option 'bais'" },
    { { kind = "Linear", arguments = { "x", "y" } }, "layer Linear: " },
    { { kind = "Linear", arguments = { count = 1 << 60 } }, "layer Linear: " },
    { { kind = "Sequential", arguments = { 5 } }, "layer Sequential: Sequential: '1' must be a layer, got number" },
    { { kind = "Sequential", arguments = { { kind = "Sequential", arguments = { { kind = "Nix" } } } } },
      "layer 'Nix' is unknown" },
    { { kind = "Residual", arguments = { { kind = "ReLU" }, { a = { kind = "Nix" } } } }, "layer 'Nix' is unknown" },
  }
  for _, case in ipairs(cases) do
    local net, message = nn.build(case[1])
    lu.assertNil(net)
    lu.assertStrContains(message, case[2])
    lu.assertNil(message:find("test_nn.lua", 1, true)) -- the file is to blame, not the script's line
  end
end

---- Where an error lies ----

function T.test_an_error_names_the_layers_path_and_the_scripts_line()
  local inner = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Conv2d(5, 2, 3))
  local net = nn.Sequential(nn.Residual(inner), nn.ReLU())
  local here = debug.getinfo(1, "l").currentline + 1
  local message = check.message(function() return (net(tensor.zeros(2, 3, 8, 8))) end)
  lu.assertEquals(message:match("^(tests/nn/test_nn.lua:%d+): conv2d: "), "tests/nn/test_nn.lua:" .. here)
  lu.assertStrMatches(message, ".*\n  in layer 1%.main%.3 %(Conv2d%)")
  lu.assertStrMatches(raising(inner, tensor.zeros(2, 3, 8, 8)), ".*\n  in layer main%.3 %(Conv2d%)")
  lu.assertStrMatches(raising(nn.Concat(nn.ReLU(), nn.Linear(2, 3)), tensor.zeros(2, 3)), ".*\n  in layer 2 %(Linear%)")
  lu.assertStrMatches(raising(nn.TimeDistributed(nn.Linear(2, 3)), tensor.zeros(1, 2, 3)), ".*\n  in layer layer %(Linear%)")
end

function T.test_an_error_in_a_layer_of_the_scripts_own_names_its_own_line()
  local Own = nn.class "Own"
  function Own:init() self.line = debug.getinfo(1, "l").currentline + 3 end
  function Own:forward(x)
    if x:dim() < 2 then return x end
    local y = ops.add(x, tensor.zeros(2, 7)) -- returned at once it would be a tail call, whose line Lua forgets
    return y
  end
  local own = Own()
  local message = raising(nn.Sequential(nn.ReLU(), own), tensor.zeros(2, 3))
  lu.assertEquals(message,
    ("tests/nn/test_nn.lua:%d: add: shapes 2x3 and 2x7 do not broadcast\n  in layer 2 (Own)"):format(own.line))
end

function T.test_errors_outside_of_networks_name_no_layer()
  pcall(small_net(), tensor.zeros(1)) -- a path must not stay behind
  lu.assertNil(check.message(ops.add, tensor.zeros(2), tensor.zeros(3)):find("in layer", 1, true))
end

function T.test_a_forward_must_give_something_that_the_next_layer_takes()
  local Nothing = nn.class "Nothing"
  function Nothing:init() self.nothing = true end
  function Nothing:forward() return nil end
  lu.assertStrContains(raising(nn.Sequential(Nothing(), nn.ReLU()), tensor.zeros(1)), "in layer 2 (ReLU)")
end

function T.test_a_class_needs_no_init_but_a_forward()
  local Double = nn.class "Double"
  lu.assertStrContains(raising(nn.Sequential(Double()), tensor.zeros(1)),
    'nn.class "Double" has no function forward(x)\n  in layer 1 (Double)')
  function Double:forward(x) return x * 2 end
  check.close(Double()(tensor { 1, 2 }), { 2, 4 })
end

function T.test_library_and_program_name_the_line_of_a_script()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "own.lua", [[
local feral = require "feral"
local net = feral.nn.Sequential(feral.nn.Linear(2, 3))

net(feral.tensor.zeros(2, 5))
]])
  local child = assert(io.popen(("'%s' '%s' 2>&1"):format(arg[-1], path)))
  local output = child:read("a")
  child:close()
  lu.assertStrContains(output, "own.lua:4: Linear: input is 2x5, N x 2 expected\n  in layer 1 (Linear)")
end

return T
