local lu = require "luaunit"
local feral = require "feral"
local clouds, temporary = require "clouds", require "temporary"
local files = require "feral.core.files"
local json, safetensors = require "feral.formats.json", require "feral.formats.safetensors"
local svm, tensor = feral.svm, feral.tensor

--- What svm.save writes and svm.load takes.
local T = {}

local every_kind = {
  { C = 3 }, { kernel = "linear" }, { kernel = "linear", multiclass = "ovo" }, { kernel = "poly", multiclass = "ovr" },
  { standardize = true, classes = { "anger", "fear", "joy" }, card = { from = "a test" } },
}

function T.test_a_saved_model_gives_the_same_scores()
  local dir <close> = temporary.folder()
  local x, y = clouds(60, 5, 3, 1)
  for i, o in ipairs(every_kind) do
    local model = svm.train(tensor(x), y, o)
    lu.assertTrue(model:save(dir / "m"))
    local again = assert(svm.load(dir / "m"))
    lu.assertEquals(again:scores(tensor(x)):tobytes(), model:scores(tensor(x)):tobytes(), ("kind %d"):format(i))
    lu.assertEquals(tostring(again), tostring(model))
    lu.assertEquals(again.classes, o.classes)
    lu.assertEquals(again.card, o.card or {})
    assert(again:save(dir / "n"))
    lu.assertTrue(files.read(dir / "m") == files.read(dir / "n"))
  end
end

function T.test_a_file_cut_at_any_byte_is_no_model()
  local dir <close> = temporary.folder()
  local x, y = clouds(12, 2, 2, 1)
  assert(svm.train(tensor(x), y):save(dir / "m"))
  local bytes = files.read(dir / "m")
  for size = 0, #bytes - 1, 3 do
    local model, message = svm.load(temporary.write(dir / "cut", bytes:sub(1, size)))
    lu.assertNil(model)
    lu.assertStrContains(message, dir / "cut")
  end
  lu.assertStrContains(select(2, svm.load(dir / "missing")), dir / "missing")
end

function T.test_a_file_whose_parts_do_not_fit_is_no_model()
  local dir <close> = temporary.folder()
  local x, y = clouds(20, 2, 3, 1)
  assert(svm.train(tensor(x), y):save(dir / "m"))
  local tensors, metadata = safetensors.load(dir / "m")
  local function load_with(change)
    local header, parts = json.decode(metadata.feral_model), {}
    for name, t in pairs(tensors) do parts[name:sub(3)] = t end
    change(header.stages[1].settings, parts)
    local list = {}
    for _, name in ipairs { "support", "coef", "bias", "indices", "shift" } do
      if parts[name] then list[#list + 1] = { "1." .. name, parts[name] } end
    end
    assert(safetensors.save(dir / "n", list, { feral_model = json.encode(header) }))
    return svm.load(dir / "n")
  end
  lu.assertNotNil(load_with(function() end))
  local changes = {
    kernel = function(h) h.kernel = "sigmoid" end,
    gamma = function(h) h.gamma = "x" end, labels = function(h) h.labels = { 3, 2, 1 } end,
    ["class names"] = function(h) h.classes = { "a" } end, card = function(h) h.card = 1 end,
    features = function(h) h.features = 2.5 end, machines = function(h) h.multiclass = "all" end,
    ["'support'"] = function(h) h.features = 3 end, ["'bias'"] = function(_, t) t.bias = tensor { 1, 2 } end,
    ["'coef'"] = function(_, t) t.coef = tensor.zeros(1, 3) end, ["'shift'"] = function(_, t) t.shift = tensor { 1 } end,
    ["'indices' is missing"] = function(_, t) t.indices = nil end, ["'weight' is missing"] = function(h) h.kernel = "linear" end,
  }
  for what, change in pairs(changes) do
    local model, message = load_with(change)
    lu.assertNil(model, what)
    lu.assertStrContains(message, what)
  end
  assert(safetensors.save(dir / "n", { { "a", tensor { 1 } } }))
  lu.assertStrContains(select(2, svm.load(dir / "n")), "no feral model")
  local net = feral.nn.Sequential(feral.nn.Flatten(), feral.nn.Linear(4, 2))
  assert(feral.model.new(net, {
    classes = { "a", "b" }, preprocessing = { height = 2, width = 2, channels = 1, mean = 0, std = 1 },
  }):save(dir / "n"))
  lu.assertStrContains(select(2, svm.load(dir / "n")), "a model, but no SVM in it")
end

return T
