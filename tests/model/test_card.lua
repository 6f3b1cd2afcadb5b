local lu = require "luaunit"
local feral = require "feral"
local check, program, temporary = require "check", require "program", require "temporary"
local files = require "feral.core.files"
local measure = require "feral.model.measure"
local nn, tensor, model, data, image = feral.nn, feral.tensor, feral.model, feral.data, feral.image
local engine = require "feral.core.engine"

--- Cards: the figures, and what is written of them.
local T = {}

local function faces(count, seed) return data.synthetic { count = count, size = 16, seed = seed } end

--- A model that has learnt a little, of drawn faces.
local function trained()
  local set = faces(140, 1)
  tensor.manual_seed(3)
  local net = nn.Sequential(nn.Flatten(), nn.Linear(256, 7))
  local loader = data.loader(set, { batch = 20, seed = 1 })
  feral.train.fit(net, { train = loader, epochs = 3, optimizer = { "adam", lr = 3e-3 }, progress = false })
  return model.new(net, { classes = set.classes, preprocessing = loader.preprocessing, card = { data = "drawn faces" } })
end

local function parts(m, count)
  local fit, rest = faces(count, 2):split(0.5, { seed = 0 })
  local function loader(set) return data.loader(set, { batch = 32, shuffle = false, preprocessing = m.preprocessing }) end
  return { fit = loader(fit), rest = loader(rest) }
end

function T.test_coverage_counts_what_is_sure_enough()
  local p = tensor { { 0.9, 0.1 }, { 0.4, 0.6 }, { 0.55, 0.45 }, { 0.2, 0.8 } }
  local rows = measure.coverage(tensor({ 1, 1, 1, 2 }, "i32"), p, { 0, 0.58, 0.95 })
  lu.assertEquals(rows, {
    { threshold = 0, count = 4, coverage = 1, accuracy = 0.75 },
    { threshold = 0.58, count = 3, coverage = 0.75, accuracy = 2 / 3 },
    { threshold = 0.95, count = 0, coverage = 0 },
  })
end

function T.test_the_figures_are_those_of_evaluate_and_ece()
  local m = trained()
  local loaders, threads = parts(m, 140), engine.threads()
  local made, f = measure.all(m, loaders)
  local fit, rest = m:evaluate(loaders.fit), m:evaluate(loaders.rest)
  lu.assertEquals({ f.count, f.right }, { 140, fit.right + rest.right })
  lu.assertEquals({ f.low, f.high }, { feral.metrics.wilson(f.right, 140) })
  lu.assertEquals({ f.calibration.fitted_on, f.calibration.measured_on }, { 70, 70 })
  local scores, labels = m:scores_on(loaders.rest)
  lu.assertAlmostEquals(f.calibration.before, feral.metrics.ece(labels, scores:softmax(2)), 1e-4)
  lu.assertAlmostEquals(f.calibration.after, feral.metrics.ece(labels, made:scores_on(loaders.rest):softmax(2)), 1e-6)
  lu.assertAlmostEquals(f.coverage[1].accuracy, rest.accuracy, 1e-9)
  lu.assertEquals({ f.views[1].mirror, f.views[1].accuracy, f.views[2].mirror }, { false, f.accuracy, true })
  lu.assertEquals({ f.parameters, f.speed.threads, engine.threads() }, { 257 * 7, 1, threads })
  local _, again = measure.all(made, loaders) -- what has a temperature already gets the same figures
  lu.assertAlmostEquals(again.calibration.before, f.calibration.before, 1e-4)
  lu.assertEquals(again.right, f.right)
end

function T.test_a_mirrored_model_is_measured_as_it_judges()
  local m = trained()
  local loaders = parts(m, 70)
  local _, alone = measure.all(m, loaders)
  local _, both = measure.all(assert(m:mirrored(true)), loaders)
  lu.assertEquals({ both.views[1].accuracy, both.views[2].accuracy }, { alone.views[1].accuracy, alone.views[2].accuracy })
  lu.assertEquals(both.accuracy, alone.views[2].accuracy)
end

function T.test_classes_in_another_order_are_refused()
  local m = trained()
  local set = faces(14, 2)
  local loader = data.loader(set:with_classes { "neutral", table.unpack(set.classes, 1, 6) }, {
    batch = 7, preprocessing = m.preprocessing, shuffle = false })
  lu.assertStrContains(check.message(measure.all, m, { fit = loader, rest = loader }), "measure: the loader's classes (neutral, ")
end

--- A folder of drawn faces and a model, dir/faces and dir/m.safetensors.
local function prepare(dir)
  local set = faces(70, 5)
  for i = 1, #set do
    local folder = dir / ("faces/" .. set.classes[set.labels[i]:item()])
    assert(files.mkdir(folder))
    assert(image.save(("%s/%d.png"):format(folder, i), set.images[i]))
  end
  assert(trained():save(dir / "m.safetensors"))
end

local function card(dir, words)
  local output, errors, code = program.shell(('cd %s; "$F" card m.safetensors faces %s'):format(dir.path, words))
  lu.assertEquals({ errors, code }, { "", 0 })
  return output
end

local absolute = assert(io.popen("pwd")):read "l"
if program.path:sub(1, 1) ~= "/" then program.path = absolute .. "/" .. program.path end

function T.test_the_verb_writes_a_model_with_its_card_and_a_page()
  local dir <close> = temporary.folder()
  prepare(dir)
  local output = card(dir, "--calibrate 0.4 --save made.safetensors")
  local made = assert(model.load(dir / "made.safetensors"))
  local page = assert(files.read(dir / "made.md"))
  lu.assertEquals(output, page .. "\nsaved made.safetensors and made.md\n")
  lu.assertEquals(page, model.card.text(made, { name = "made", bytes = select(2, files.look(dir / "made.safetensors")) }))
  for _, text in ipairs { "# made\n", "- Trained on: drawn faces\n", "- Parameters: 1799\n", "ms an image on one thread",
    "interval of Wilson", "of 70 images of faces.", "| image and mirror image |", "## Confusion", "| anger |",
    "fitted on 28 images (a random 40 % of faces, stratified, seed 0). On the other 42", "| 0.90 |",
    "not what the person shown felt", "must not be used to decide anything about a person" } do
    lu.assertStrContains(page, text)
  end
  lu.assertEquals(made.card.measured.calibration.measured_on, 42)
  lu.assertEquals(made.stages[#made.stages].kind, "temperature")
end

function T.test_the_verb_with_halves_and_mirror_images()
  local dir <close> = temporary.folder()
  prepare(dir)
  lu.assertStrMatches(card(dir, "--half --mirror"), "accuracy with weights of full size .* with halves .*")
  local _, list = feral.safetensors.look(dir / "m.safetensors")
  lu.assertEquals(list[1].dtype, "F16")
  local made = assert(model.load(dir / "m.safetensors"))
  lu.assertTrue(made.stages[2].mirror)
  lu.assertEquals(made.card.measured.views[2].accuracy, made.card.measured.accuracy)
end

return T
