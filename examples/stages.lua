-- A model is stages, one after the other: preprocessing, features, a classifier. Three of them learn the same drawn faces, are
-- saved in the same kind of file, and judge photographs by the same verbs:
--
--   ./feral examples/stages.lua [--count N] [--epochs N] [--seed N] [--out DIR]
--   ./feral predict runs/stages/ensemble.safetensors runs/stages/faces/fear/3.png
--   ./feral eval runs/stages/hog_svm.safetensors runs/stages/faces

local feral = require "feral"
local data, nn, optim, train, svm = feral.data, feral.nn, feral.optim, feral.train, feral.svm
local model, tensor, loss, files = feral.model, feral.tensor, feral.loss, feral.files
local stages = model.stages

local options = feral.args.read(arg, {
  usage = "feral examples/stages.lua [options]",
  about = "Three models of unlike stages: HOG and an SVM, a projection and a network, an ensemble of networks.",
  options = {
    { "count", value = "N", type = "integer", least = 70, default = 1050, about = "faces to train on" },
    { "epochs", value = "N", type = "integer", least = 1, default = 4, about = "passes of each network of the ensemble" },
    { "seed", value = "N", type = "integer", default = 1, about = "another seed draws other faces" },
    { "out", value = "DIR", default = "runs/stages", about = "where the models and the unseen faces go" },
  },
})
tensor.manual_seed(options.seed)
files.mkdir(options.out)

-- 1. Faces to train on, and unseen ones: these also as photographs, faces/<class>/<number>.png.
local faces = data.synthetic { count = options.count, size = 32, seed = options.seed }
local unseen = data.synthetic { count = 210, size = 32, seed = options.seed + 1000 }
for i, label in ipairs(unseen.labels:totable()) do
  local dir = ("%s/faces/%s"):format(options.out, unseen.classes[label])
  files.mkdir(dir)
  assert(feral.image.save(("%s/%d.png"):format(dir, i), unseen.images[i]))
end
local loader = data.loader(faces, { batch = 50, seed = options.seed })
local test = data.loader(unseen, { batch = 50, shuffle = false, preprocessing = loader.preprocessing })
local made = { classes = faces.classes, preprocessing = loader.preprocessing } -- what all three have in common

-- 2. Histograms of oriented gradients, and an SVM that is trained on them. model.features gives what the model will see.
local hog = stages.hog { cell = 8, block = 16, stride = 8, bins = 9 }
local x, y = model.features({ hog }, loader)
local hog_svm = model.new({ hog, svm.train(x, y, { C = 10, classes = faces.classes, progress = false }) }, made)

-- 3. The directions in which faces differ most, and a small network on where a face lies along them. A direction is found by
-- sending a vector through the covariance again and again (power iteration); what it explains is then taken out.
local function principal_directions(samples, count)
  local rest, found = samples, {}
  for k = 1, count do
    local w = tensor.randn(samples:size(2), 1)
    for _ = 1, 12 do
      w = rest:transpose():matmul(rest:matmul(w))
      w = w / (w * w):sum():sqrt()
    end
    rest, found[k] = rest - rest:matmul(w):matmul(w:transpose()), w
  end
  return tensor.cat(found, 2)
end

local function project(pixels)
  return tensor.tidy(function()
    local mean = pixels:mean(1)
    return stages.projection(mean, principal_directions(pixels - mean, 40))
  end)
end

local pixels = model.features({ stages.cnn(nn.Flatten()) }, loader) -- N x 1024, as they are
local projection = project(pixels)
local places, labels = model.features({ projection }, loader)
local head = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, #faces.classes))
local optimizer = optim.Adam(head:parameters(), { lr = 5e-3 })
for _ = 1, 150 do -- all faces at once
  local _step <close> = tensor.scope()
  optimizer:zero_grad()
  loss.cross_entropy(head(places), labels):backward()
  optimizer:step()
end
local projected = model.new({ projection, head }, made)

-- 4. Three networks of the same architecture, each from other random weights; their probabilities are averaged.
local function trained_network()
  local net = nn.Sequential(
    nn.Conv2d(1, 8, 3, { padding = 1 }), nn.BatchNorm(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, { padding = 1 }), nn.BatchNorm(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(16 * 8 * 8, #faces.classes))
  train.fit(net, { train = loader, epochs = options.epochs, optimizer = optim.Adam(net:parameters()), progress = false })
  return net
end
local members = { trained_network(), trained_network(), trained_network() }
local ensemble = model.new(stages.ensemble(members), made)
for i, net in ipairs(members) do
  print(("network %d alone: %.1f %%"):format(i, 100 * model.new(net, made):evaluate(test).accuracy))
end

-- 5. Each is scored, saved, loaded, and scored again.
for _, pair in ipairs { { "hog_svm", hog_svm }, { "projection", projected }, { "ensemble", ensemble } } do
  local name, m = pair[1], pair[2]
  local path = ("%s/%s.safetensors"):format(options.out, name)
  assert(m:save(path))
  local loaded = assert(model.load(path))
  print(("\n%s: %s\n%.2f %% of the unseen faces are right; loaded again %.2f %%"):format(path, loaded,
    100 * m:evaluate(test).accuracy, 100 * loaded:evaluate(test).accuracy))
end

-- 6. How sure an SVM is, it does not say. A temperature makes its scores probabilities; it is fitted to faces that the SVM was
-- not trained on, and that no score above was taken on.
local others = data.synthetic { count = 210, size = 32, seed = options.seed + 2000 }
local calibrated = assert(hog_svm:calibrate(data.loader(others, { shuffle = false, preprocessing = loader.preprocessing })))
local face = unseen.images[1]
print(("\nthe SVM of a face of %s: %.0f %%, and calibrated %.0f %%"):format(unseen.classes[unseen.labels[1]:item()],
  100 * hog_svm:predict(face).probability, 100 * calibrated:predict(face).probability))
