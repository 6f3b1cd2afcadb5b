-- Histograms of oriented gradients into a support vector machine: what faces were told apart with before networks.
--
--   ./feral examples/svm.lua DIR [--C 10] [--kernel rbf|linear|poly] [--limit N] [--seed 1] [--save FILE]
--
-- DIR is as for fer2013.lua. --limit takes N training images (drawn from the seed), for a quick look.

local feral = require "feral"
local data, feature, svm, metrics, tensor = feral.data, feral.feature, feral.svm, feral.metrics, feral.tensor

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
local hog = { cell = 8, block = 16, stride = 8, bins = 9 }
local train_x, test_x = feature.hog(train.images, hog), feature.hog(test.images, hog)

-- One machine for each pair of classes; with the RBF kernel each judges a face by its likeness to training faces.
local model = svm.train(train_x, train.labels, {
  kernel = options.kernel, C = options.C, classes = train.classes, card = { feature = "hog", hog = hog },
})
print(model)

local counts = metrics.confusion(test.labels, model:predict(test_x), #test.classes)
print(metrics.confusion_text(counts, test.classes))
print(metrics.report(counts, test.classes))

if options.save then
  assert(model:save(options.save))
  print("saved " .. options.save)
end
