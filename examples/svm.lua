-- Histograms of oriented gradients into a support vector machine: what faces were told apart with before networks.
--
--   ./feral examples/svm.lua DIR [--C 10] [--kernel rbf|linear|poly] [--limit N] [--seed 1] [--save FILE]
--
-- DIR is as for fer2013.lua. --limit takes N training images (drawn from the seed), for a quick look.

local feral = require "feral"
local data, model, svm, metrics, tensor = feral.data, feral.model, feral.svm, feral.metrics, feral.tensor

local options = feral.args.read(arg, {
  usage = "feral examples/svm.lua DIR [options]",
  about = "Trains a support vector machine on HOG features and scores it on test/.",
  words = { "DIR" },
  options = {
    { "C", value = "X", type = "number", default = 10, about = "what a wrong training image costs" },
    { "kernel", value = "NAME", choices = { "rbf", "linear", "poly" }, default = "rbf", about = "how images are compared" },
    { "limit", value = "N", type = "integer", least = 1, about = "train on so many images only" },
    { "seed", value = "N", type = "integer", default = 1, about = "of the images that --limit takes" },
    { "save", value = "FILE", about = "where the model goes" },
  },
})
tensor.manual_seed(options.seed)

local sets = assert(data.fer2013(options.dir))
local train, test = sets.train, sets.test
if options.limit and options.limit < #train then
  train = train:subset(tensor.randperm(#train):narrow(1, 1, options.limit))
end
print(train)

-- An image becomes the directions of its edges, counted over cells of 8 x 8 pixels: 900 numbers for 48 x 48.
local loader = data.loader(train, { batch = 256, shuffle = false, mean = 0, std = 1 })
local hog = model.stages.hog { cell = 8, block = 16, stride = 8, bins = 9 }
local x, y = model.features({ hog }, loader)

-- One machine for each pair of classes; with the RBF kernel each judges a face by its likeness to training faces.
local machine = svm.train(x, y, { kernel = options.kernel, C = options.C, classes = train.classes })

-- Together they judge photographs: feral predict FILE photo.png, feral eval FILE DIR.
local faces = model.new({ hog, machine }, { preprocessing = loader.preprocessing })
print(faces)
local report = assert(faces:evaluate(data.loader(test, {
  batch = 256, shuffle = false, preprocessing = loader.preprocessing,
})))
print(metrics.confusion_text(report.confusion, report.classes))
print(report)

if options.save then
  faces.card = { data = options.dir, accuracy = report.accuracy, balanced = report.balanced, images = #train }
  assert(faces:save(options.save))
  print("saved " .. options.save)
end
