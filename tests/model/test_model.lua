local lu = require "luaunit"
local feral = require "feral"
local preprocess = require "feral.steps.preprocess"
local random, files = require "feral.tensor.random", require "feral.core.files"
local check, temporary, program = require "check", require "temporary", require "program"
local nn, tensor, model, image = feral.nn, feral.tensor, feral.model, feral.image
local json, safetensors = feral.json, feral.safetensors

local T = {}

local CLASSES = { "anger", "happiness", "neutral" }
local SIZES = { height = 8, width = 6, channels = 1, mean = 0.4, std = 0.3 }

local function small_net()
  return nn.Sequential(nn.Conv2d(1, 2, 3, { padding = 1 }), nn.BatchNorm(2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 8 * 6, 3))
end

--- A model of random weights whose batch norm has seen something.
local function small_model(card)
  local net = small_net()
  net(check.randn(5, 1, 8, 6))
  return model.new(net, { classes = CLASSES, preprocessing = SIZES, card = card })
end

--- A raw image of random bytes.
local function picture(channels, height, width)
  return (check.randn(channels, height, width) * 60 + 128):to("u8")
end

--- A model file with something changed: 'header' is called with the decoded metadata, 'tensors' with the list of tensors.
local function changed(dir, header, tensors)
  local m = small_model()
  assert(m:save(dir / "m"))
  local list, metadata = {}, select(2, safetensors.load(dir / "m"))
  for i, pair in ipairs(m.net:state()) do list[i] = { "2." .. pair[1], pair[2] } end
  local fields = json.decode(metadata.feral_model)
  if header then fields = header(fields) or fields end
  if tensors then tensors(list) end
  assert(safetensors.save(dir / "bad", list, { feral_model = type(fields) == "string" and fields or json.encode(fields) }))
  return dir / "bad"
end

--- Of a header, the settings of the network.
local function network(header) return header.stages[2].settings end

---- Round trip ----

function T.test_a_saved_model_gives_the_same_scores_to_the_bit()
  local dir <close> = temporary.folder()
  local card = { data = "drawn faces", accuracy = 0.1 + 0.2, epochs = 3, notes = { "a", "b" } }
  local m = small_model(card)
  assert(m:save(dir / "m.safetensors"))
  local again = assert(model.load(dir / "m.safetensors"))
  local x = check.randn(4, 1, 8, 6)
  lu.assertEquals(again:scores_of(x):tobytes(), m:scores_of(x):tobytes())
  lu.assertEquals(again.classes, CLASSES)
  lu.assertEquals(again.preprocessing:describe(), preprocess.check(SIZES):describe())
  lu.assertEquals(again.card, card)
  lu.assertFalse(again.net.training)
  lu.assertEquals(tostring(again), [[
model of 3 classes (anger, happiness, neutral)
  1 preprocess: { gray(), resize(8, 6), normalize(0.4, 0.3) }
  2 network: Sequential, 315 parameters]])
  assert(again:save(dir / "again"))
  lu.assertTrue(files.read(dir / "again") == files.read(dir / "m.safetensors")) -- the file too
end

function T.test_a_model_in_halves_scores_nearly_the_same()
  local dir <close> = temporary.folder()
  local m, x = small_model(), check.randn(4, 1, 8, 6)
  assert(m:save(dir / "half", { dtype = "f16" }))
  local again = assert(model.load(dir / "half"))
  check.close(again:scores_of(x), m:scores_of(x), 5e-3)
  lu.assertNotEquals(again:scores_of(x):tobytes(), m:scores_of(x):tobytes())
  assert(again:save(dir / "full"))
  lu.assertEquals(assert(model.load(dir / "full")):scores_of(x):tobytes(), again:scores_of(x):tobytes())
  lu.assertStrContains(check.message(m.save, m, dir / "x", { dtpye = "f16" }), "unknown option 'dtpye', did you mean 'dtype'?")
end

function T.test_networks_of_all_kinds_are_saved_and_loaded()
  local dir <close> = temporary.folder()
  local size = { height = 48, width = 48, channels = 1, mean = 0.5, std = 0.25 }
  for _, name in ipairs(feral.nets.names) do
    local net = feral.nets.make(name, 3, { size = 48 })
    local m = model.new(net, { classes = CLASSES, preprocessing = size })
    local x = check.randn(2, 1, 48, 48)
    net(x)
    assert(m:save(dir / name))
    lu.assertEquals(assert(model.load(dir / name)):scores_of(x):tobytes(), m:scores_of(x):tobytes(), name)
  end
end

function T.test_loading_uses_up_no_random_numbers()
  local dir <close> = temporary.folder()
  assert(small_model():save(dir / "m"))
  tensor.manual_seed(9)
  local expected = tensor.randn(4):tobytes()
  tensor.manual_seed(9)
  assert(model.load(dir / "m"))
  lu.assertNil((model.load(dir / "none")))
  lu.assertNil((model.load(changed(dir, function(h) network(h).architecture.arguments[2].kind = "Nix" end))))
  lu.assertEquals(random.state().seed, 9)
  tensor.manual_seed(9)
  assert(model.load(dir / "m"))
  lu.assertEquals(tensor.randn(4):tobytes(), expected)
end

function T.test_saving_while_training_changes_nothing()
  local dir <close> = temporary.folder()
  local m = small_model()
  m.net:train()
  local x = check.randn(2, 1, 8, 6)
  m:scores_of(x)
  assert(m:save(dir / "m"))
  m.net:walk(function(_, layer) lu.assertTrue(layer.training) end)
  lu.assertNil(m.net:get(5).weight.grad)
end

---- Damaged files ----

function T.test_a_file_cut_at_any_byte_is_refused_with_its_name()
  local dir <close> = temporary.folder()
  assert(small_model():save(dir / "m"))
  local bytes = files.read(dir / "m")
  for length = 0, #bytes - 1 do
    local m, message = model.load(temporary.write(dir / "cut", bytes:sub(1, length)))
    lu.assertNil(m)
    lu.assertEquals(message:sub(1, #(dir / "cut") + 2), dir / "cut: ")
  end
end

function T.test_a_file_with_any_byte_of_its_header_changed_loads_or_is_refused()
  local dir <close> = temporary.folder()
  assert(small_model():save(dir / "m"))
  local bytes, cap = files.read(dir / "m"), tensor.memory().cap
  local header = string.unpack("<I8", bytes)
  for place = 1, header + 8 do
    for _, byte in ipairs { "9", "\"" } do
      local _open <close> = tensor.scope()
      local m, message = model.load(temporary.write(dir / "x", bytes:sub(1, place - 1) .. byte .. bytes:sub(place + 1)))
      lu.assertTrue(m ~= nil or message:sub(1, #(dir / "x") + 2) == dir / "x: ", message)
    end
  end
  lu.assertEquals(tensor.memory().cap, cap)
end

function T.test_damaged_headers_are_named()
  local dir <close> = temporary.folder()
  local cap = tensor.memory().cap
  local function deep(n)
    return json.encode { version = 2, classes = CLASSES, stages = {
      { kind = "preprocess", settings = preprocess.check(SIZES):describe() },
      { kind = "network", settings = { architecture = "@" } },
    } }:gsub('"@"', function()
      return ('{"kind":"Sequential","arguments":['):rep(n) .. ("]}"):rep(n)
    end)
  end
  local cases = {
    { function() return "{" end, "its model header is damaged: " },
    { function() return "7" end, "its model header is damaged: no object" },
    { function() return "[[[" end, "its model header is damaged: " },
    { function(h) h.version = 3 end, "a model of version 3, this feral reads 1 and 2" },
    { function(h) h.version = nil end, "a model of version nil, this feral reads 1 and 2" },
    { function(h) h.version = 1 end, "stage 1 (preprocess): its settings are damaged" },
    { function(h) h.classes = "anger" end, "its list of classes is damaged" },
    { function(h) h.classes = {} end, "its list of classes is damaged" },
    { function(h) h.classes = { "a", 3 } end, "its list of classes is damaged" },
    { function(h) h.card = 5 end, "its card is damaged" },
    { function(h) h.classes = nil end, "its classes have no names" },
    { function(h) h.stages = nil end, "its list of stages is damaged" },
    { function(h) h.stages = {} end, "its list of stages is damaged" },
    { function(h) h.stages = "hog" end, "its list of stages is damaged" },
    { function(h) h.stages[2] = 7 end, "stage 2: its description is damaged" },
    { function(h) h.stages[2].kind = nil end, "stage 2: its description is damaged" },
    { function(h) h.stages[2].kind = "networc" end, "stage 2: its kind 'networc' is unknown, did you mean 'network'?" },
    { function(h) h.stages[2].settings = 5 end, "stage 2 (network): its settings are damaged" },
    { function(h) h.stages = { h.stages[2], h.stages[1] } end,
      "stage 1 (network): load_state: there is no tensor '1.weight'" },
    { function(h) h.stages[2] = nil end, "its tensor '2.1.bias' belongs to no stage" },
    { function(h) h.stages[3] = h.stages[1] end, "its stages: stage 3 (preprocess: preprocess) cannot stand behind stage 2" },
    { function(h) h.stages[3] = { kind = "mask", settings = { keep = { "anger", "fear" } } } end,
      "stage 3 (mask): there is no class 'fear' to keep" },
    { function(h) h.stages[3] = { kind = "temperature", settings = { temperature = 0 } } end,
      "stage 3 (temperature): model.stages.temperature: a number above 0 expected, got 0" },
    { function(h) h.stages[1].settings = nil end, "stage 1 (preprocess): its settings are damaged" },
    { function(h) h.stages[1].settings[2].height = 0 end,
      "stage 1 (preprocess): preprocessing: resize: height must be a whole number from 1.0 to 8192.0, got 0" },
    { function(h) h.stages[1].settings[1].name = "grey" end,
      "stage 1 (preprocess): preprocessing: steps: there is no step 'grey', did you mean 'gray'? (step 1)" },
    { function(h) h.stages[1].settings[3].std = -1 end,
      "stage 1 (preprocess): preprocessing: normalize: std must be a number from 1e-06 to 1000000.0, got -1" },
    { function(h) h.stages[1].settings[2] = nil end,
      "stage 1 (preprocess): preprocessing: what comes out of { gray() } differs in size from image to image" },
    { function(h) network(h).architecture = nil end, "stage 2 (network): its architecture is damaged" },
    { function(h) network(h).architecture = 5 end, "stage 2 (network): its architecture is damaged" },
    { function(h) network(h).architecture = "x" end, "stage 2 (network): its architecture is damaged" },
    { function(h) network(h).architecture = { load_state = "x", forward = "x", parameter_names = false } end,
      "stage 2 (network): its architecture is damaged" },
    { function(h) network(h).architecture.kind = "Sequentiel" end,
      "stage 2 (network): layer 'Sequentiel' is unknown, did you mean 'Sequential'?" },
    { function(h) network(h).architecture.arguments = "x" end, "stage 2 (network): layer Sequential: its arguments are no list" },
    { function(h) network(h).architecture.arguments[5].arguments[2] = 4 end,
      "stage 2 (network): load_state: '5.weight' is 3x96, the network expects 4x96" },
    { function(h) network(h).architecture.arguments[5].arguments = { 96 } end, "stage 2 (network): layer Linear: " },
    { function(h) network(h).architecture.arguments[5].arguments = { 9600, 9600 } end,
      "stage 2 (network): layer Linear: not enough memory" },
    { function(h) network(h).architecture.arguments[5] = nil end,
      "stage 2 (network): load_state: the network has no tensor '5.bias'" },
    { function() return deep(20000) end, "" }, { function() return deep(60) end,
      "stage 2 (network): load_state: the network has no tensor '1.bias'" },
  }
  for i, case in ipairs(cases) do
    local path = changed(dir, case[1])
    local m, message = model.load(path)
    lu.assertNil(m, i)
    lu.assertEquals(message:sub(1, #path + 2 + #case[2]), path .. ": " .. case[2])
  end
  local path = changed(dir, nil, function(list) table.remove(list, 2) end)
  lu.assertEquals({ model.load(path) }, { nil, path .. ": stage 2 (network): load_state: there is no tensor '1.bias'" })
  assert(safetensors.save(path, { { "a", tensor { 1 } } }))
  lu.assertEquals({ model.load(path) }, { nil, path .. ": tensors, but no feral model" })
  lu.assertEquals({ model.load(dir.path) }, { nil, dir.path .. ": is a directory" })
  lu.assertEquals(tensor.memory().cap, cap)
end

function T.test_loading_runs_no_code()
  local dir <close> = temporary.folder()
  for _, name in ipairs { "os.execute", "../../x", "feral.train", "_G", "io", "__index", "forward", "Module", "class" } do
    local m, message = model.load(changed(dir, function(h)
      network(h).architecture = { kind = name, arguments = { "touch " .. dir / "ran" } }
    end))
    lu.assertNil(m)
    lu.assertStrContains(message, ("layer '%s' is unknown"):format(name))
  end
  lu.assertNil(files.look(dir / "ran"))
end

function T.test_a_layer_of_a_scripts_own_must_be_there()
  local dir <close> = temporary.folder()
  local Scale = nn.class "ScaleOfTheTest"
  function Scale:init(a) self.a = a end
  function Scale:forward(x) return x * self.a end
  local net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), Scale(2))
  assert(model.new(net, { classes = CLASSES, preprocessing = SIZES }):save(dir / "m"))
  lu.assertNotNil(model.load(dir / "m"))
  local output = program.shell(("\"$F\" -e 'print(require(\"feral\").model.load(\"%s\"))'"):format(dir / "m"))
  lu.assertStrContains(output, "layer 'ScaleOfTheTest' is unknown")
  lu.assertStrContains(output, "if it is your own, make its class (nn.class) before loading")
end

function T.test_a_full_disk_leaves_the_old_file_whole()
  local dir <close> = temporary.folder()
  assert(small_model():save(dir / "m"))
  local before = files.read(dir / "m")
  local output = temporary.run_on_full_disk(([[
    local model = require "feral".model
    local m = assert(model.load(%q))
    print(m:save(%q))]]):format(dir / "m", dir / "m"))
  lu.assertStrMatches(output, "nil\t.*m: .*\n")
  lu.assertTrue(files.read(dir / "m") == before)
  lu.assertEquals(files.list(dir.path), { "m" })
end

---- Prediction ----

local function assert_prediction(p)
  local sum = 0
  for _, v in ipairs(p.probabilities) do sum = sum + v end
  lu.assertAlmostEquals(sum, 1, 1e-5)
  lu.assertEquals(#p.probabilities, 3)
  lu.assertEquals(p.class, CLASSES[p.index])
  lu.assertEquals(p.probability, p.probabilities[p.index])
  lu.assertEquals(p.probability, math.max(table.unpack(p.probabilities)))
end

function T.test_paths_tensors_and_lists_of_them_are_judged_alike()
  local dir <close> = temporary.folder()
  local m = small_model()
  for _, sizes in ipairs { { 1, 8, 6 }, { 3, 8, 6 }, { 1, 20, 31 }, { 3, 5, 4 }, { 1, 1, 1 } } do
    local t = picture(table.unpack(sizes))
    assert(image.save(dir / "a.png", t))
    local from_path, from_tensor = assert(m:predict(dir / "a.png")), assert(m:predict(t))
    assert_prediction(from_path)
    lu.assertEquals(from_path, from_tensor)
    local list = assert(m:predict { t, dir / "a.png", picture(1, 8, 6) })
    lu.assertEquals(#list, 3)
    check.close(tensor(list[1].probabilities), from_path.probabilities, 1e-6)
    check.close(tensor(list[2].probabilities), from_path.probabilities, 1e-6)
    local p = m:probabilities { t, t }
    lu.assertEquals(p.shape, { 2, 3 })
    lu.assertEquals(p[1]:tobytes(), p[2]:tobytes())
  end
  lu.assertEquals(#m:predict { picture(1, 8, 6) }, 1) -- a list gives a list
end

function T.test_colour_models_take_gray_images()
  local net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 6, 3))
  local sizes = { height = 8, width = 6, channels = 3, mean = 0.4, std = 0.3 }
  local m = model.new(net, { classes = CLASSES, preprocessing = sizes })
  local gray = picture(1, 8, 6)
  lu.assertEquals(m:predict(gray), m:predict(gray:expand(3, 8, 6)))
  assert_prediction(m:predict(picture(3, 11, 17)))
end

function T.test_what_cannot_be_read_gives_nil_and_its_name()
  local dir <close> = temporary.folder()
  local m = small_model()
  lu.assertEquals({ m:predict(dir / "none.png") }, { nil, dir / "none.png: No such file or directory" })
  local text = temporary.write(dir / "text.jpg", "not a picture at all")
  local found, message = m:predict { picture(1, 8, 6), text }
  lu.assertNil(found)
  lu.assertStrContains(message, text .. ": ")
  found, message = m:probabilities(temporary.write(dir / "empty.png", ""))
  lu.assertNil(found)
  lu.assertStrContains(message, dir / "empty.png: ")
end

function T.test_what_is_no_image_raises()
  local m = small_model()
  lu.assertStrContains(check.message(m.predict, m, check.randn(1, 8, 6)), "has values of 0 to 1, the largest here is")
  lu.assertStrContains(check.message(m.predict, m, picture(1, 8, 6)[1]), "got 8x6 of u8")
  lu.assertStrContains(check.message(m.predict, m, 5), "an image must be a path or a u8 tensor C x H x W, or a list of them")
  lu.assertStrContains(check.message(m.predict, m, {}), "no images given")
  lu.assertStrContains(check.message(m.predict, m, picture(2, 8, 6)), "gray: an image has 1 or 3 channels, this one 2")
end

function T.test_a_network_that_does_not_fit_its_classes_is_named()
  local dir <close> = temporary.folder()
  local path = changed(dir, function(h) h.classes = { "anger", "fear" } end)
  local m = assert(model.load(path))
  lu.assertStrContains(check.message(m.predict, m, picture(1, 8, 6)),
    "model: 2 classes are named (anger, fear), but stage 2 (network) gives 3 scores")
  path = changed(dir, function(h) h.stages[1].settings[2].width = 7 end)
  m = assert(model.load(path))
  lu.assertStrContains(check.message(m.predict, m, picture(1, 8, 6)),
    "Linear: input is 1x112, N x 96 expected\n  in layer 5 (Linear)")
end

function T.test_new_refuses_a_network_that_does_not_fit()
  local function refused(net, options, message)
    lu.assertStrContains(check.message(model.new, net, options), message)
  end
  local net = small_net()
  refused(net, { classes = { "anger", "fear" }, preprocessing = SIZES },
    "model.new: 2 classes are named (anger, fear), but stage 2 (network) gives 3 scores")
  refused(net, { classes = CLASSES, preprocessing = { height = 8, width = 7, channels = 1, mean = 0, std = 1 } },
    "model.new: stage 2 (network) does not take 1x1x8x7: Linear: input is 1x112, N x 96 expected")
  refused(nn.Conv2d(1, 3, 3), { classes = CLASSES, preprocessing = SIZES },
    "model.new: stage 2 (network) gives 1x3x6x4, N x 3 expected for its classes")
  lu.assertTrue(net.training) -- trying it out leaves it as it was
end

function T.test_networks_of_sequences_are_tried_with_sequences()
  local options = { classes = CLASSES, preprocessing = SIZES }
  local any = nn.Sequential(nn.ConvLSTM2d(1, 1, 3, { last = true }), nn.Flatten(), nn.Linear(48, 3))
  lu.assertEquals(model.new(any, options):scores_of(check.randn(2, 5, 1, 8, 6)).shape, { 2, 3 })
  local five = nn.Sequential(nn.Flatten(), nn.Linear(5 * 48, 3))
  lu.assertStrContains(check.message(model.new, five, options), "does not take 1x1x8x6")
  options.frames = 5
  lu.assertEquals(model.new(five, options):scores_of(check.randn(2, 5, 1, 8, 6)).shape, { 2, 3 })
end

function T.test_new_says_what_is_missing()
  local function refused(net, options, message)
    lu.assertStrContains(check.message(model.new, net, options), message)
  end
  local net = small_net()
  refused(net, { preprocessing = SIZES }, "option 'classes' is missing")
  refused(net, { classes = CLASSES }, "option 'preprocessing' is missing")
  refused(net, { classes = CLASSES, preprocesing = SIZES }, "did you mean 'preprocessing'?")
  refused(net, { classes = "anger", preprocessing = SIZES }, "classes must be a list of names")
  refused(5, { classes = CLASSES, preprocessing = SIZES }, "a network, an SVM or a list of stages expected, got number")
end

function T.test_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  local m, x = small_model(), picture(1, 9, 9)
  assert(m:save(dir / "m"))
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    m:predict(x)
  end)
end

return T
