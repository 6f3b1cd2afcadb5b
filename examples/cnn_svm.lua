-- Features of a trained network into an SVM, beside the network's own head.
--
--   ./feral examples/cnn_svm.lua DIR [--epochs 3] [--seed 1] [--model FILE] [--limit N] [--save FILE]
--
-- DIR is as for fer2013.lua. Without --model a small network is trained first. --limit takes the first N training images
-- (in an order drawn from the seed), for a quick look.

local feral = require "feral"
local data, nets, optim, train = feral.data, feral.nets, feral.optim, feral.train
local model, svm, tensor = feral.model, feral.svm, feral.tensor

local options = feral.args.read(arg, {
  usage = "feral examples/cnn_svm.lua DIR [options]",
  about = "Features of a trained network into an SVM, beside the network's own head.",
  words = { "DIR" },
  options = {
    { "epochs", value = "N", type = "integer", least = 1, default = 3, about = "passes of the network's training" },
    { "seed", value = "N", type = "integer", default = 1, about = "of weights and order" },
    { "model", value = "FILE", about = "a network trained before, instead of training one" },
    { "limit", value = "N", type = "integer", least = 100, about = "train on so many images only" },
    { "save", value = "FILE", about = "where the network's features and the SVM go" },
  },
})
tensor.manual_seed(options.seed)

local sets = assert(data.fer2013(options.dir))
local train_set, test_set = sets.train, sets.test
if options.limit and options.limit < #train_set then
  train_set = train_set:subset(tensor.randperm(#train_set):narrow(1, 1, options.limit))
end

-- The network: one that was trained before, or one trained now.
local net, preprocessing
if options.model then
  local trained = assert(model.load(options.model))
  net, preprocessing = trained.net, trained.preprocessing
  assert(net, options.model .. ": no network")
else
  net = nets.vgg(#train_set.classes, { widths = { 16, 32, 64, 128 }, dense = 128 })
  local loader = data.loader(train_set, {
    batch = 64, seed = options.seed, augment = feral.augment { feral.steps.mirror(0.5), feral.steps.shift(0.1) },
  })
  preprocessing = loader.preprocessing
  train.fit(net, { train = loader, epochs = options.epochs, optimizer = optim.Adam(net:parameters(), { lr = 1e-3 }) })
end

local function in_order(set) return data.loader(set, { batch = 128, shuffle = false, preprocessing = preprocessing }) end

-- Its body: all layers but the last, so an image becomes the vector that the last layer would have judged.
local body = model.stages.cnn(net, -1)
local x, y = model.features({ body }, in_order(train_set))
print(("features: %d numbers an image"):format(x:size(2)))
local machine = svm.train(x, y, { kernel = "rbf", C = 1, classes = train_set.classes })
print(machine)

-- Two models that share all but the judge.
local own_head = model.new(net, { classes = train_set.classes, preprocessing = preprocessing })
local by_svm = model.new({ body, machine }, { preprocessing = preprocessing })
for _, pair in ipairs { { "the network's own head", own_head }, { "an RBF SVM on its features", by_svm } } do
  local report = assert(pair[2]:evaluate(in_order(test_set)))
  print(("%s: %.2f %% (balanced %.2f %%)"):format(pair[1], 100 * report.accuracy, 100 * report.balanced))
end

if options.save then
  assert(by_svm:save(options.save))
  print("saved " .. options.save)
end
