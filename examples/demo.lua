-- The whole of feral once, without any data of your own: faces are drawn, a network learns their expressions, is scored on
-- faces it has never seen, saved, loaded again and asked about single images.
--
--   make demo            or    ./feral examples/demo.lua [--epochs N] [--count N] [--seed N]

local feral = require "feral"
local data, nn, optim, train = feral.data, feral.nn, feral.optim, feral.train
local metrics, model, plot, image, steps = feral.metrics, feral.model, feral.plot, feral.image, feral.steps

local options = feral.args.read(arg, {
  usage = "feral examples/demo.lua [options]",
  about = "Learns expressions from drawn faces: data, network, training, score, model file, prediction.",
  options = {
    { "epochs", value = "N", type = "integer", least = 1, default = 6, about = "passes over the faces" },
    { "count", value = "N", type = "integer", least = 70, default = 3500, about = "faces to train on" },
    { "seed", value = "N", type = "integer", default = 1, about = "another seed draws other faces" },
    { "out", value = "DIR", default = "runs/demo", about = "where the model and the picture go" },
  },
})
feral.tensor.manual_seed(options.seed)
feral.files.mkdir(options.out)

-- 1. Data. Each drawn face has its own head, pose and light; sample i depends on the seed and i alone.
print "1. Drawing faces"
local faces = data.synthetic { count = options.count, size = 48, seed = options.seed }
local validation = data.synthetic { count = 350, size = 48, seed = options.seed + 1000 } -- to choose the best epoch by
local unseen = data.synthetic { count = 700, size = 48, seed = options.seed + 2000 } -- to score, once
print(faces)

-- 2. A network: three stages of convolution, batch norm, ReLU and pooling, then a dense layer.
print "\n2. The network"
local function stage(inputs, outputs)
  return nn.Sequential(nn.Conv2d(inputs, outputs, 3, { padding = 1, bias = false }), nn.BatchNorm(outputs), nn.ReLU(),
    nn.MaxPool2d(2))
end
local net = nn.Sequential(stage(1, 16), stage(16, 32), stage(32, 64), nn.Flatten(), nn.Dropout(0.3),
  nn.Linear(64 * 6 * 6, #faces.classes))
print(net:summary(1, 48, 48))

-- 3. Training. The loader shuffles, augments and batches in C.
print "\n3. Training"
local loader = data.loader(faces, {
  batch = 64, seed = options.seed,
  augment = feral.augment { steps.rotate(8), steps.shift(0.06), steps.zoom(0.08), steps.mirror(0.5) },
})
local optimizer = optim.Adam(net:parameters())
train.fit(net, {
  train = loader, validation = data.loader(validation, { batch = 100, shuffle = false }), epochs = options.epochs,
  optimizer = optimizer, schedule = optim.schedule.onecycle(optimizer, 4e-3, options.epochs),
})

-- 4. The score, on faces that were not trained on.
print "\n4. The score on unseen faces"
local report = train.score(net, data.loader(unseen, { batch = 100, shuffle = false }), faces.classes)
print(metrics.confusion_text(report.confusion, report.classes))
print(report)

-- 5. A model file holds the weights, the architecture, the names of the classes and the preprocessing.
print "\n5. Saving, loading, predicting"
local trained = model.new(net, {
  classes = faces.classes, preprocessing = loader.preprocessing,
  card = { data = "drawn faces", accuracy = report.accuracy },
})
local path = options.out .. "/faces.safetensors"
assert(trained:save(path))
local loaded = assert(model.load(path))
print(loaded)

local labels, colors, sheet = {}, {}, {}
for i = 1, 28 do
  local face = unseen.images[i]
  local answer = assert(loaded:predict(face))
  local right = answer.index == unseen.labels[i]:item()
  sheet[i] = face
  labels[i] = ("%s %.0f%%"):format(answer.class, 100 * answer.probability)
  colors[i] = right and { 0, 110, 0 } or { 200, 0, 0 }
end
local picture = options.out .. "/faces.png"
assert(image.save(picture, plot.grid(sheet, { columns = 7, scale = 2, labels = labels, colors = colors })))
print(("the first face: %s; all %d with their predictions: %s"):format(labels[1], #sheet, picture))
