local lu = require "luaunit"
local feral = require "feral"
local check, temporary, program = require "check", require "temporary", require "program"
local files = require "feral.core.files"
local nn, tensor, model, svm, data = feral.nn, feral.tensor, feral.model, feral.svm, feral.data
local json, safetensors = feral.json, feral.safetensors
local stages = model.stages

--- Models of every kind of stage: what they compute, how they are put together, saved and scored.
local T = {}

local CLASSES = { "anger", "happiness", "neutral" }
local SIZES = { height = 16, width = 16, channels = 1, mean = 0.4, std = 0.3 }
local HOG = { cell = 8, block = 8, stride = 8, bins = 6 } -- 24 numbers of 16 x 16

local function linear_net(inputs) return nn.Sequential(nn.Flatten(), nn.Linear(inputs or 256, 3)) end

--- An SVM on so many random features, with or without names.
local function machine(features, classes)
  local labels = {}
  for i = 1, 12 do labels[i] = (i - 1) % 3 + 1 end
  return svm.train(check.randn(12, features), labels, { classes = classes, progress = false })
end

local function neighbours(k)
  local labels = {}
  for i = 1, 12 do labels[i] = (i - 1) % 3 + 1 end
  return stages.knn(check.randn(12, 24), tensor(labels, "i32"), { k = k })
end

--- Stages of each kind in use, by a name.
local function kinds()
  return {
    { "network", linear_net() },
    { "hog and svm", { stages.hog(HOG), machine(24, CLASSES) } },
    { "cnn and knn", { stages.cnn(nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 3)), -2),
      neighbours(3) } },
    { "projection and network", { stages.projection(check.randn(256), check.randn(256, 5)), linear_net(5) } },
    { "hog, projection and svm", { stages.hog(HOG), stages.projection(check.randn(24), check.randn(24, 4)), machine(4) } },
    { "ensemble", { stages.ensemble { linear_net(), linear_net(), { stages.hog(HOG), machine(24) } } } },
    { "all", { stages.hog(HOG), linear_net(24), stages.temperature(1.5), stages.mask { "neutral", "anger" } } },
  }
end

local function new(list, options)
  options = options or {}
  return model.new(list, {
    classes = options.classes or CLASSES, preprocessing = options.preprocessing or SIZES, card = options.card,
  })
end

--- A gray picture of bands in one of three directions, as those that the files in old/ were trained on.
local function bands(direction, phase)
  local rows = {}
  for y = 0, 15 do
    rows[y + 1] = {}
    for x = 0, 15 do
      local at = ({ x, y, x + y })[direction] + phase
      rows[y + 1][x + 1] = at * at * 13 % 7 * 20 + at % 4 * 25
    end
  end
  return tensor({ rows }):to("u8")
end

local PROBES = { { 1, 5 }, { 2, 6 }, { 3, 9 } }

local function probes()
  local images = {}
  for i, probe in ipairs(PROBES) do images[i] = bands(table.unpack(probe)) end
  return images
end

---- Files ----

function T.test_files_of_earlier_versions_give_the_scores_of_then()
  local network = assert(model.load "tests/model/old/network_v1.safetensors")
  check.close(network:scores(probes()), {
    -0.03053446, 0.3101845, -0.2155989, 0.0310293, 0.3311829, -0.7997364, -0.07514231, 0.3437079, -0.7100176,
  }, 1e-5)
  lu.assertEquals({ network.classes, network.card.accuracy }, { CLASSES, 0.5 })
  local faces = assert(model.load "tests/model/old/svm_hog_v1.safetensors")
  local best, which = faces:scores(probes()):max(2) -- the pairs without the best class are undecided to rounding
  check.close(best, { 2.222222, 2.222222, 2.222276 }, 1e-4)
  lu.assertEquals(which:totable(), { 1, 2, 3 })
  lu.assertEquals(faces:predict(probes()[2]).class, "happiness")
  local plain = assert(model.load "tests/model/old/svm_v1.safetensors")
  check.close(plain:scores_of(feral.feature.hog(tensor.stack(probes()), HOG)), {
    1.506957, -0.9898157, -0.9817511, -0.9896953, 1.507036, -0.9813396, -1.000595, -1.000581, 1.325156,
  }, 1e-4)
  lu.assertEquals(plain.classes, { "1", "2", "3" })
end

function T.test_files_of_earlier_versions_become_new_ones()
  local dir <close> = temporary.folder()
  for _, name in ipairs { "network_v1", "svm_hog_v1", "svm_v1" } do
    local old = assert(model.load(("tests/model/old/%s.safetensors"):format(name)))
    assert(old:save(dir / name))
    local again = assert(model.load(dir / name))
    lu.assertEquals(tostring(again), tostring(old))
    lu.assertEquals(again.card, old.card)
  end
  lu.assertEquals(svm.load(dir / "svm_hog_v1").classes, CLASSES) -- the machine inside
end

function T.test_a_saved_model_of_any_kind_gives_the_same_scores_to_the_bit()
  local dir <close> = temporary.folder()
  for _, kind in ipairs(kinds()) do
    local m = new(kind[2], { card = { of = kind[1] } })
    assert(m:save(dir / "m"))
    local again = assert(model.load(dir / "m"))
    local images = probes()
    lu.assertEquals(again:scores(images):tobytes(), m:scores(images):tobytes(), kind[1])
    lu.assertEquals({ again.classes, again.card }, { m.classes, m.card })
    lu.assertTrue(again.preprocessing == m.preprocessing)
    lu.assertEquals(tostring(again), tostring(m))
    assert(again:save(dir / "again"))
    lu.assertTrue(files.read(dir / "m") == files.read(dir / "again"), kind[1])
  end
end

function T.test_a_file_with_any_byte_of_its_header_changed_loads_or_is_refused()
  local dir <close> = temporary.folder()
  for number, kind in ipairs(kinds()) do
    assert(new(kind[2]):save(dir / "m"))
    local bytes = files.read(dir / "m")
    for place = 1 + number, string.unpack("<I8", bytes) + 8, 5 do
      local _open <close> = tensor.scope()
      local changed = bytes:sub(1, place - 1) .. (place % 2 == 0 and "9" or "\"") .. bytes:sub(place + 1)
      local m, message = model.load(temporary.write(dir / "x", changed))
      lu.assertTrue(m ~= nil or message:sub(1, #(dir / "x") + 2) == dir / "x: ", message)
    end
  end
end

function T.test_old_files_with_a_byte_changed_load_or_are_refused()
  local dir <close> = temporary.folder()
  for _, name in ipairs { "network_v1", "svm_hog_v1", "svm_v1" } do
    local bytes = files.read(("tests/model/old/%s.safetensors"):format(name))
    for place = 9, string.unpack("<I8", bytes) + 8, 2 do
      local _open <close> = tensor.scope()
      local changed = bytes:sub(1, place - 1) .. (place % 4 == 1 and "9" or "\"") .. bytes:sub(place + 1)
      local m, message = model.load(temporary.write(dir / "x", changed))
      lu.assertTrue(m ~= nil or message:sub(1, #(dir / "x") + 2) == dir / "x: ", message)
    end
  end
  local bytes = files.read("tests/model/old/svm_v1.safetensors")
  temporary.write(dir / "x", (bytes:gsub('\\"version\\":1', '\\"version\\":2')))
  lu.assertEquals({ model.load(dir / "x") }, { nil, dir / "x: an SVM of version 2, this feral reads 1" })
end

--- The message with which a file is refused whose header 'change' has changed.
local function refusal(m, change)
  local dir <close> = temporary.folder()
  assert(m:save(dir / "m"))
  local tensors, metadata = safetensors.load(dir / "m")
  local header, list = json.decode(metadata.feral_model), {}
  change(header, tensors)
  for name, t in pairs(tensors) do list[#list + 1] = { name, t } end
  assert(safetensors.save(dir / "m", list, { feral_model = json.encode(header) }))
  local loaded, message = model.load(dir / "m")
  lu.assertNil(loaded)
  return message:sub(#(dir / "m: ") + 1)
end

function T.test_damaged_settings_are_named()
  local all = kinds()
  local hog_svm, knn, projection = new(all[2][2]), new(all[3][2]), new(all[4][2])
  local ensemble, masked = new(all[6][2]), new(all[7][2])
  local function settings(h, i) return h.stages[i].settings end
  local cases = {
    { hog_svm, function(h) settings(h, 2).cell = 0 end, "stage 2 (hog): model.stages.hog: cell must be a whole number from 1" },
    { hog_svm, function(h) settings(h, 2).clip = "x" end, "stage 2 (hog): model.stages.hog: clip must be a number above 0" },
    { hog_svm, function(h) settings(h, 2).bin = 9 end,
      "stage 2 (hog): model.stages.hog: unknown option 'bin', did you mean 'bins'?" },
    { hog_svm, function(h) settings(h, 3).gamma = "x" end, "stage 3 (svm): its gamma is damaged" },
    { hog_svm, function(_, t) t["3.bias"] = nil end, "stage 3 (svm): its tensor 'bias' is missing" },
    { hog_svm, function(_, t) t["4.bias"] = tensor { 1 } end, "its tensor '4.bias' belongs to no stage" },
    { hog_svm, function(_, t) t.bias = tensor { 1 } end, "its tensor 'bias' belongs to no stage" },
    { hog_svm, function(h) h.classes[2] = "fear" end, "stage 3 (svm): 3 classes are named (anger, fear, neutral), but the SVM"
      .. " was trained on 3 (anger, happiness, neutral)" },
    { hog_svm, function(h) table.remove(h.stages) end, "its tensor '3." },
    { knn, function(h) settings(h, 3).k = 99 end, "stage 3 (knn): model.stages.knn: k must be a whole number from 1 to the 12" },
    { knn, function(h) settings(h, 3).classes = 2 end,
      "stage 3 (knn): model.stages.knn: label 3 is 3, the classes are numbered" },
    { knn, function(h) h.classes[4] = "fear" end, "stage 3 (knn): 4 classes are named" },
    { knn, function(_, t) t["3.labels"] = nil end, "stage 3 (knn): model.stages.knn: labels must be i32" },
    { projection, function(_, t) t["2.mean"] = nil end, "stage 2 (projection): model.stages.projection: mean must be a tensor" },
    { projection, function(_, t) t["2.mean"] = tensor { 1 } end,
      "stage 2 (projection): model.stages.projection: the mean has 1" },
    { ensemble, function(h) settings(h, 2).members = {} end, "stage 2 (ensemble): its members are damaged" },
    { ensemble, function(h) settings(h, 2).members[2] = 5 end, "stage 2 (ensemble): " },
    { ensemble, function(h) settings(h, 2).members[2].stages[1].kind = "x" end,
      "stage 2 (ensemble): member 2: stage 1: its kind 'x' is unknown" },
    { ensemble, function(_, t) t["2.2.1.2.bias"] = nil end,
      "stage 2 (ensemble): member 2: stage 1 (network): load_state: there is no tensor '2.bias'" },
    { masked, function(h) settings(h, 5).keep = { "anger" } end, "stage 5 (mask): model.stages.mask: a list of two names" },
    { masked, function(h) settings(h, 4).temperature = "hot" end, "stage 4 (temperature): model.stages.temperature: a number" },
    { masked, function(h) table.remove(h.stages, 3) end, "stage 3 (temperature): it has no tensor '2.bias'" },
  }
  for i, case in ipairs(cases) do
    lu.assertEquals(refusal(case[1], case[2]):sub(1, #case[3]), case[3], i)
  end
end

---- What stages compute ----

function T.test_projection_against_loops()
  local mean, weight, x = check.randn(6), check.randn(6, 2), check.randn(3, 1, 2, 3)
  local y, m, w, rows = {}, mean:totable(), weight:totable(), x:reshape(3, 6):totable()
  for n = 1, 3 do
    for k = 1, 2 do
      local sum = 0
      for d = 1, 6 do sum = sum + (rows[n][d] - m[d]) * w[d][k] end
      y[#y + 1] = sum
    end
  end
  check.close(stages.projection(mean, weight):apply(x), y, 1e-5)
end

function T.test_neighbours_against_loops()
  local rows, labels, x = check.randn(20, 3), {}, check.randn(5, 3)
  for i = 1, 20 do labels[i] = check.integer(1, 4) end
  local p = stages.knn(rows, tensor(labels, "i32"), { k = 3, classes = 4 }):apply(x):exp():totable()
  local all = rows:totable()
  for n, point in ipairs(x:totable()) do
    local order, votes = {}, { 0.25, 0.25, 0.25, 0.25 }
    for i, row in ipairs(all) do
      local sum = 0
      for d = 1, 3 do sum = sum + (row[d] - point[d]) ^ 2 end
      order[i] = { sum, labels[i] }
    end
    table.sort(order, function(a, b) return a[1] < b[1] end)
    for k = 1, 3 do votes[order[k][2]] = votes[order[k][2]] + 1 end
    for c = 1, 4 do lu.assertAlmostEquals(p[n][c], votes[c] / 4, 1e-5) end
  end
end

function T.test_an_ensemble_averages_probabilities()
  local a, b, images = linear_net(), linear_net(), probes()
  local both = new { stages.ensemble { a, b } }
  local mean = (new(a):probabilities(images) + new(b):probabilities(images)) / 2
  check.close(both:scores(images):exp(), mean, 1e-5) -- a score is the logarithm of a probability
  check.close(both:probabilities(images), mean, 1e-5)
  local whole = new { stages.ensemble { new(a), new(b) } } -- models give their stages
  lu.assertEquals(whole:scores(images):tobytes(), both:scores(images):tobytes())
end

function T.test_a_sure_member_leaves_no_score_without_a_logarithm()
  local sure = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
  feral.autograd.no_grad(function() sure:get(2).bias[1] = 1e4 end)
  for _, row in ipairs(new({ stages.ensemble { sure } }):scores(probes()):totable()) do
    for _, score in ipairs(row) do lu.assertTrue(score - score == 0) end
  end
end

function T.test_a_temperature_divides_and_a_mask_renormalises()
  local net, images = linear_net(), probes()
  local plain = new(net)
  check.close(new({ net, stages.temperature(2) }):scores(images), plain:scores(images) / 2, 1e-6)
  local masked = new { net, stages.mask { "neutral", "anger" } }
  lu.assertEquals(masked.classes, { "neutral", "anger" })
  local all, kept = plain:probabilities(images):totable(), masked:probabilities(images):totable()
  for i, row in ipairs(all) do
    lu.assertAlmostEquals(kept[i][1], row[3] / (row[1] + row[3]), 1e-5)
    lu.assertAlmostEquals(kept[i][1] + kept[i][2], 1, 1e-5)
  end
  lu.assertEquals(masked:predict(images[1]).class, all[1][3] > all[1][1] and "neutral" or "anger")
end

function T.test_a_networks_first_layers_are_features()
  local net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(392, 3))
  local x = check.randn(2, 1, 16, 16)
  local expected = nn.Sequential(net:get(1), net:get(2)):eval()(x):reshape(2, -1)
  check.close(stages.cnn(net, 2):apply(x), expected, 1e-5)
  check.close(stages.cnn(net, -2):apply(x), expected, 1e-5)
  lu.assertEquals(stages.cnn(net, -1):apply(x).shape, { 2, 392 })
  lu.assertEquals(stages.cnn(net):apply(x).shape, { 2, 3 })
  lu.assertStrContains(check.message(stages.cnn, net, 5), "model.stages.cnn: layers is 5, the network has 4")
  lu.assertStrContains(check.message(stages.cnn, nn.Flatten(), 1), "only a Sequential has first layers, got Flatten")
end

---- Putting together ----

local function refused(message, f, ...) lu.assertStrContains(check.message(f, ...), message) end

function T.test_stages_that_do_not_fit_are_refused()
  local net, hog, cooler = linear_net(), stages.hog(HOG), stages.temperature(2)
  refused("model.new: stage 3 (hog: feature) cannot stand behind stage 2 (network: classify); the order is preprocess, feature,"
    .. " classify, calibrate, mask, each once but for features", new, { net, hog })
  refused("stage 3 (network: classify) cannot stand behind stage 2 (network: classify)", new, { net, net })
  refused("stage 2 (preprocess: preprocess) cannot stand behind", new, { stages.preprocess(SIZES), net })
  refused("stage 3 (temperature: calibrate) cannot stand behind stage 2 (temperature", model.new, { net, cooler, cooler })
  refused("model.new: no stage classifies", new, { hog })
  refused("model.new: part 1 is no stage, network or SVM but a string (stages: cnn, ensemble, ", new, { "hog" })
  refused("model.stages has no kind 'hogg', did you mean 'hog'?", function() return stages.hogg end)
  refused("model.new: stage 3 (network) does not take 1x24: Linear: input is 1x24, N x 256 expected", new, { hog, net })
  refused("stage 2 (hog) does not take 1x3x16x16: feature.hog: gray images expected", new, { hog, linear_net(24) },
    { preprocessing = { height = 16, width = 16, channels = 3, mean = 0, std = 1 } })
  refused("option 'preprocessing' is missing", model.new, { hog, net }, { classes = CLASSES })
  refused("option 'classes' is missing", model.new, net, { preprocessing = SIZES })
end

function T.test_classes_that_do_not_agree_are_named()
  local two = { "anger", "fear" }
  refused("model.new: 2 classes are named (anger, fear), but stage 2 (network) gives 3 scores", new, linear_net(),
    { classes = two })
  refused("stage 3 (svm): 2 classes are named (anger, fear), but the SVM was trained on 3 (anger, happiness, neutral)", new,
    { stages.hog(HOG), machine(24, CLASSES) }, { classes = two })
  refused("stage 2 (ensemble): member 1: stage 2 (knn): 2 classes are named (anger, fear), but the neighbours are of 3", new,
    { stages.ensemble { { stages.hog(HOG), neighbours(2) } } }, { classes = two })
  local four = { "a", "b", "c", "d" }
  local other = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
  refused("ensemble: member 2 gives 4 scores, those before it 3", new, { stages.ensemble { linear_net(), other } })
  refused("stage 1 (ensemble): member 2 knows the classes a, b, c, d, those before it anger, happiness, neutral", model.new,
    stages.ensemble { new(linear_net()), new(other, { classes = four }) })
  refused("member 2 has another preprocessing ({ gray(), resize(16), normalize(0, 1) }) than one before it", stages.ensemble,
    { new(linear_net()), new(linear_net(), { preprocessing = { height = 16, width = 16, channels = 1, mean = 0, std = 1 } }) })
  refused("there is no class 'joy' to keep (known: anger, happiness, neutral)", new,
    { linear_net(), stages.mask { "joy", "anger" } })
end

function T.test_an_svm_knows_its_classes()
  local hog = stages.hog(HOG)
  lu.assertEquals(model.new({ hog, machine(24, CLASSES) }, { preprocessing = SIZES }).classes, CLASSES)
  lu.assertEquals(model.new({ hog, machine(24) }, { preprocessing = SIZES }).classes, { "1", "2", "3" })
  lu.assertEquals(new({ hog, machine(24) }).classes, CLASSES)
  local some = svm.train(check.randn(6, 24), { 1, 3, 1, 3, 1, 3 }, { classes = CLASSES, progress = false })
  lu.assertEquals(model.new({ hog, some }, { preprocessing = SIZES }).classes, { "anger", "neutral" })
end

function T.test_a_model_of_features_has_no_images()
  local m = model.new(machine(4, CLASSES))
  local x = check.randn(5, 4)
  lu.assertEquals(m:scores_of(x):tobytes(), m.stages[1].machine:scores(x):tobytes())
  refused("this model judges features, not images", m.predict, m, bands(1, 0))
  lu.assertEquals((m:image_size()), nil)
end

function T.test_a_model_prints_a_line_for_each_stage()
  local m = new { stages.hog(HOG), linear_net(24), stages.temperature(1.5), stages.mask { "neutral", "anger" } }
  lu.assertEquals(tostring(m), [[
model of 2 classes (neutral, anger)
  1 preprocess: { gray(), resize(16), normalize(0.4, 0.3) }
  2 hog: cells of 8, blocks of 8 every 8 pixels, 6 directions
  3 network: Sequential, 75 parameters
  4 temperature: 1.5
  5 mask: keeps neutral, anger]])
end

function T.test_a_kind_of_a_scripts_own()
  local Half = stages.class("half_of_the_test", "feature")
  function Half:apply(x) return x / 2 end
  local dir <close> = temporary.folder()
  local m = new { Half(), linear_net() }
  assert(m:save(dir / "m"))
  lu.assertEquals(assert(model.load(dir / "m")):scores(probes()):tobytes(), m:scores(probes()):tobytes())
  local output = program.run { "-e", ("print(require 'feral'.model.load '%s')"):format(dir / "m") }
  lu.assertStrContains(output, "stage 2: its kind 'half_of_the_test' is unknown")
  lu.assertStrContains(output, "if it is your own, make its class (model.stages.class) before loading")
end

function T.test_loading_runs_no_code()
  for _, name in ipairs { "os", "../cli/eval", "class", "init", "roles", "find", "__index", "feral.train" } do
    lu.assertStrContains(refusal(new(linear_net()), function(h) h.stages[2].kind = name end),
      ("stage 2: its kind '%s' is unknown"):format(name))
  end
end

---- Data sets ----

local faces

--- Drawn faces of three classes, 16 x 16, and a loader of them.
local function loader(options)
  faces = faces or data.synthetic { count = 60, size = 16, seed = 3, classes = CLASSES }
  options = options or {}
  return data.loader(options.set or faces, { batch = 16, shuffle = false, preprocessing = options.preprocessing or SIZES })
end

function T.test_evaluate_gives_the_figures_of_training()
  local net = linear_net()
  local report, expected = assert(new(net):evaluate(loader())), feral.train.score(net, loader(), CLASSES)
  lu.assertEquals(report.confusion, expected.confusion)
  lu.assertEquals(report.classes, CLASSES)
  lu.assertAlmostEquals(report.loss, expected.loss, 1e-5)
end

function T.test_evaluate_counts_what_predict_says()
  local set, images = loader().set, {}
  for i = 1, #set do images[i] = set.images[i] end
  for _, kind in ipairs(kinds()) do
    local m, right = new(kind[2]), 0
    if #m.classes == 3 then -- what the masked one cannot say is no mistake to be counted
      for i, p in ipairs(m:predict(images)) do
        if p.index == set.labels[i]:item() then right = right + 1 end
      end
      lu.assertEquals(m:evaluate(loader()).right, right, kind[1])
    end
  end
end

function T.test_an_svms_softmax_has_no_loss_until_it_is_calibrated()
  local x, y = model.features({ stages.hog(HOG) }, loader())
  local m = new { stages.hog(HOG), svm.train(x, y, { classes = CLASSES, C = 10, progress = false }) }
  local report = m:evaluate(loader())
  lu.assertTrue(report.accuracy > 0.8)
  lu.assertNil(report.loss)
  lu.assertNil(new({ stages.ensemble { m, linear_net() } }):evaluate(loader()).loss)
  local calibrated = assert(m:calibrate(loader()))
  lu.assertNotNil(new({ stages.ensemble { calibrated, linear_net() } }):evaluate(loader()).loss)
  local after = calibrated:evaluate(loader())
  lu.assertEquals(after.confusion, report.confusion)
  local function loss_at(t)
    return new({ stages.hog(HOG), m.stages[3].machine, stages.temperature(t) }):evaluate(loader()).loss
  end
  local t = calibrated.stages[4].temperature
  lu.assertTrue(after.loss < loss_at(1) and after.loss <= loss_at(t * 1.1) and after.loss <= loss_at(t / 1.1))
  lu.assertEquals(#calibrated:calibrate(loader()).stages, 4) -- in place of the temperature before
end

function T.test_features_are_what_the_model_sees()
  local x, y = model.features({ stages.hog(HOG) }, loader())
  lu.assertEquals({ x.shape, y.shape, y.dtype }, { { 60, 24 }, { 60 }, "i32" })
  lu.assertEquals(y:totable(), faces.labels:totable())
  local knn = new { stages.hog(HOG), stages.knn(x, y, { k = 1 }) }
  lu.assertEquals(knn:evaluate(loader()).accuracy, 1) -- each sample is its own neighbour
  refused("model.features: stage 1 (network) gives no features", model.features, { linear_net() }, loader())
  refused("a loader (data.loader) expected, got another table", model.features, { stages.hog(HOG) }, {})
end

function T.test_classes_numbered_otherwise_are_told_apart_by_name()
  local m = new(linear_net())
  local names = { "happiness", "neutral", "anger" }
  local number, labels = { 3, 1, 2 }, {}
  for i, label in ipairs(loader().set.labels:totable()) do labels[i] = number[label] end
  local turned = data.set { images = faces.images, labels = labels, classes = names }
  lu.assertEquals(m:evaluate(loader { set = turned }).confusion, m:evaluate(loader()).confusion)
  local other = data.set { images = faces.images, labels = labels, classes = { "happiness", "neutrality", "anger" } }
  lu.assertEquals({ m:evaluate(loader { set = other }) },
    { nil, "the data's class 'neutrality' is none of the model's, did you mean 'neutral'? (it knows anger, happiness, neutral)" })
end

function T.test_soft_labels_count_as_the_class_with_most_votes()
  local m, x = new(linear_net()), check.randn(3, 1, 16, 16)
  local function of(y)
    return { batches = function()
      local given = false
      return function()
        if not given then
          given = true
          return x, y
        end
      end
    end }
  end
  local soft = of(tensor { { 0.2, 0.7, 0.1 }, { 0.5, 0.2, 0.3 }, { 0, 0.4, 0.6 } })
  lu.assertEquals(m:evaluate(soft).confusion, m:evaluate(of(tensor({ 2, 1, 3 }, "i32"))).confusion)
end

function T.test_another_preprocessing_is_refused()
  local m = new(linear_net())
  local dark = loader { preprocessing = { height = 16, width = 16, channels = 1, mean = 0, std = 1 } }
  refused("the loader preprocesses otherwise ({ gray(), resize(16), normalize(0, 1) }) than the model ({ gray(), "
    .. "resize(16), normalize(0.4, 0.3) })", m.evaluate, m, dark)
  refused("a loader (data.loader) expected, got number", m.evaluate, m, 5)
end

function T.test_scores_take_paths_images_and_lists()
  local dir <close> = temporary.folder()
  local m, images = new { stages.hog(HOG), machine(24, CLASSES) }, probes()
  assert(feral.image.save(dir / "1.png", images[1]))
  local both = m:scores { dir / "1.png", images[2] }
  check.close(both, m:scores_of(m.stages[1]:apply { images[1], images[2] }), 1e-6)
  lu.assertEquals(m:scores(dir / "1.png"):tobytes(), m:scores(images[1]):tobytes())
  lu.assertEquals({ m:scores(dir / "2.png") }, { nil, dir / "2.png: No such file or directory" })
  refused("model: logits(x) is called scores_of(x)", m.logits, m, images[1])
end

function T.test_survives_lack_of_memory()
  local images = probes()
  for _, kind in ipairs(kinds()) do
    local m = new(kind[2])
    check.survives_lack_of_memory(function()
      local _open <close> = tensor.scope()
      m:predict(images)
    end)
  end
  local dir <close> = temporary.folder()
  assert(new(kinds()[6][2]):save(dir / "m"))
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    local loaded, message = model.load(dir / "m")
    if not loaded then error(message, 0) end
  end)
end

---- Mirror images ----

function T.test_a_mirrored_network_gives_the_mean_of_both_and_travels_with_the_file()
  local dir <close> = temporary.folder()
  local m = new(linear_net())
  local both = assert(m:mirrored(true))
  local x = check.randn(3, 1, 16, 16)
  local rows, flipped = x:totable(), {}
  for n, image in ipairs(rows) do
    flipped[n] = { {} }
    for y, row in ipairs(image[1]) do
      flipped[n][1][y] = {}
      for i, value in ipairs(row) do flipped[n][1][y][17 - i] = value end
    end
  end
  local expected = (m:scores_of(x):softmax(2) + m:scores_of(tensor(flipped)):softmax(2)) / 2
  check.close(both:scores_of(x):softmax(2), expected, 1e-5)
  check.close(both:scores_of(tensor(flipped)), both:scores_of(x), 1e-5)
  assert(both:save(dir / "m"))
  local again = assert(model.load(dir / "m"))
  lu.assertEquals(again:scores_of(x):tobytes(), both:scores_of(x):tobytes())
  lu.assertStrContains(tostring(again), "mean of image and mirror image")
  lu.assertEquals(again:mirrored(false):scores_of(x):tobytes(), m:scores_of(x):tobytes())
end

function T.test_only_networks_of_images_are_mirrored()
  local none, message = new({ stages.hog(HOG), machine(24, CLASSES) }):mirrored(true)
  lu.assertNil(none)
  lu.assertEquals(message, "only a network that judges images can judge their mirror images too")
  message = check.message(stages.network, linear_net(), { miror = true })
  lu.assertStrContains(message, "unknown option 'miror', did you mean 'mirror'?")
end

return T
