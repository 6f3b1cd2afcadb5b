local lu = require "luaunit"
local feral = require "feral"
local check, temporary = require "check", require "temporary"
local nn, tensor, json, safetensors = feral.nn, feral.tensor, feral.json, feral.safetensors

local T = {}

--- Through JSON and back, as a model file has it.
local function rebuilt(net) return assert(nn.build(json.decode(json.encode(nn.describe(net))))) end

--- The same network out of a file.
local function reloaded(net)
  local dir <close> = temporary.folder()
  local path = dir / "net.safetensors"
  assert(safetensors.save(path, net:state(), { architecture = json.encode(nn.describe(net)) }))
  local tensors, metadata = assert(safetensors.load(path))
  return assert(nn.build(json.decode(metadata.architecture))):load_state(tensors):eval()
end

local function check_same(net, x)
  net:eval()
  lu.assertEquals(reloaded(net)(x):tobytes(), net(x):tobytes())
end

function T.test_arguments_are_remembered_as_they_were_given()
  local options = { padding = 1 }
  local layer = nn.Conv2d(1, 1, 3, options)
  options.padding = 0
  lu.assertEquals(nn.describe(layer).arguments, { 1, 1, 3, { padding = 1 } })
  check_same(layer, check.randn(1, 1, 4, 4))
  local sizes = { 3, 4 }
  local norm = nn.LayerNorm(sizes)
  sizes[1] = 7
  lu.assertEquals(norm(tensor.zeros(2, 3, 4)).shape, { 2, 3, 4 })
end

function T.test_a_layer_in_two_places_is_one_after_loading_too()
  local s = nn.Linear(3, 3)
  local net = nn.Sequential(s, nn.ReLU(), s)
  for _, again in ipairs { rebuilt(net), reloaded(net) } do
    lu.assertTrue(again[1] == again[3])
    lu.assertEquals(#again:parameters(), 2)
  end
  local block = nn.Residual(nn.Linear(2, 2))
  local Own = nn.class "DescribeShares"
  function Own:init() self.a = nn.Linear(2, 2) end
  function Own:forward(x) return self.a(x) end
  local own = Own()
  local deep = rebuilt(nn.Sequential(block, block, own, own.a))
  lu.assertTrue(deep[1] == deep[2] and deep[3].a == deep[4] and deep[1] ~= deep[3])
end

function T.test_a_parameter_of_two_layers_is_one_after_loading_too()
  local net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
  net[3].weight = net[1].weight
  lu.assertEquals(#net:parameters(), 3)
  local again = reloaded(net)
  lu.assertTrue(again[1].weight == again[3].weight)
  lu.assertEquals(#again:parameters(), 3)
end

function T.test_children_are_described_as_they_are_now()
  local net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
  net["1"] = nn.Linear(4, 2)
  check_same(net, check.randn(2, 4))
  net[2] = nn.Tanh()
  net[#net + 1] = nn.LeakyReLU(0.2)
  lu.assertEquals(#rebuilt(net), 3)
  check_same(net, check.randn(2, 4))
  local residual = nn.Residual(nn.Sequential(nn.Linear(4, 4)), nil, { activation = nn.ReLU() })
  residual:replace("main.1", nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)))
  residual.activation = nn.GELU()
  check_same(residual, check.randn(2, 4))
end

--- What a class of a script's own makes in init is made again by it, unless it was changed since.
function T.test_children_that_init_made()
  local Own = nn.class "DescribeMade"
  function Own:init(width)
    self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    self.out = nn.Linear(width, 2)
  end
  function Own:forward(x) return self.out(self.body(x)) end
  local net = Own(4)
  lu.assertEquals(nn.describe(net), { kind = "DescribeMade", arguments = { 4 } })
  net.body[2] = nn.Tanh()
  check_same(net, check.randn(2, 4))
  net.out = nn.Linear(4, 3)
  check_same(net, check.randn(2, 4))
  lu.assertEquals(#nn.describe(net).children, 2)
end

function T.test_settings_that_were_changed_are_kept()
  local net = nn.Sequential(nn.LeakyReLU(0.1), nn.BatchNorm(4), nn.Dropout(0.3))
  net[1].slope, net[2].eps = 0.4, 0.5
  check_same(net, check.randn(3, 4))
  lu.assertEquals(nn.describe(net[3]).fields, nil)
  local convolution = nn.Conv2d(1, 1, 3)
  convolution.geometry[3], convolution.geometry[5] = 1, 1
  check_same(convolution, check.randn(1, 1, 4, 4))
end

function T.test_modes_are_no_part_of_a_description()
  local net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
  local before = json.encode(nn.describe(net))
  net:eval():freeze()
  net(tensor.zeros(1, 2))
  lu.assertEquals(json.encode(nn.describe(net)), before)
end

function T.test_what_cannot_be_rebuilt_is_refused_by_its_path()
  local function says(text, net) lu.assertStrContains(check.message(nn.describe, net), text) end
  says("layer 2.main, a Lambda holds a function and so cannot be written to a file; make a class of it with nn.class",
    nn.Sequential(nn.ReLU(), nn.Residual(nn.Lambda(print))))
  local own = nn.Sequential(nn.ReLU(), nn.ReLU())
  own[2].forward = function(_, x) return x end
  says("layer 2, a ReLU has a forward of its own and so cannot be written", own)
  local reshaped = nn.Sequential(nn.Linear(2, 3))
  reshaped[1].weight = tensor.zeros(3, 5)
  says("layer 1, a Linear has a 'weight' of 3x5 where its class makes 3x2", reshaped)
  local without = nn.Linear(2, 3)
  without.bias = nil
  says("a Linear has a 'bias' of nothing where its class makes 3", without)
  local extra = nn.Linear(2, 3)
  extra:add_parameter("scale", tensor.zeros(1))
  says("a Linear has a 'scale' of 1 where its class makes none", extra)
  local gone = nn.Sequential(nn.ReLU())
  gone["1"] = 5
  says("Sequential: '1' was a layer and is a number now", gone)
  says("describe: a network expected, got number", 5)
  local Own = nn.class "DescribeForgotten"
  function Own:forward(x) return x end
  local layer = Own()
  nn.forget "DescribeForgotten"
  says("a DescribeForgotten is of a class that was forgotten", layer)
end

function T.test_damaged_descriptions_give_a_message()
  local relu = { kind = "ReLU", arguments = {} }
  local function says(text, description)
    local net, message = nn.build(description)
    lu.assertNil(net)
    lu.assertStrContains(message, text)
  end
  says("its architecture is damaged", 3)
  says("its architecture is damaged", {})
  says("layer ReLU: its fields are damaged", { kind = "ReLU", fields = 3 })
  says("layer ReLU: 'forward' is no setting of it", { kind = "ReLU", fields = { forward = 3 } })
  says("layer ReLU: 'child_names' is no setting of it", { kind = "ReLU", fields = { child_names = {} } })
  says("layer ReLU: its children are damaged", { kind = "ReLU", children = "x" })
  says("layer ReLU: its list of children is damaged", { kind = "ReLU", children = { 4 } })
  says("a layer's name must be a string without dots, got 3", { kind = "ReLU", children = { { name = 3, layer = relu } } })
  says("there is 'walk' already", { kind = "ReLU", children = { { name = "walk", layer = relu } } })
  local pair = { kind = "Sequential", arguments = { relu, { kind = "Linear", arguments = { 1, 2 } } } }
  local function sharing(shared) return { kind = pair.kind, arguments = pair.arguments, shared = shared } end
  says("its list of what is shared is damaged", sharing(3))
  says("its list of what is shared is damaged", sharing { { "1" } })
  says("there is no '3' in it", sharing { { "1", "3" } })
  says("there is no layer '7' in this Sequential", sharing { { "7", "1" } })
  says("'2.bias' and '2.weight' cannot be the same", sharing { { "2.bias", "2.weight" } })
end

return T
