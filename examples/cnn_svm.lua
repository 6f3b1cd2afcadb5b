-- Features of a trained network into an SVM, beside the network's own head.
--
--   ./feral examples/cnn_svm.lua DIR [--epochs 3] [--seed 1] [--model FILE] [--limit N]
--
-- DIR is as for fer2013.lua. Without --model a small network is trained first. --limit takes the first N training images
-- (in an order drawn from the seed), for a quick look.

local feral = require "feral"
local data, nn, nets, optim, train = feral.data, feral.nn, feral.nets, feral.optim, feral.train
local svm, metrics, tensor = feral.svm, feral.metrics, feral.tensor

local options = feral.args.read(arg, {
  usage = "feral examples/cnn_svm.lua DIR [options]",
  about = "Features of a trained network into an SVM, beside the network's own head.",
  words = { "DIR" },
  options = {
    { "epochs", value = "N", type = "integer", least = 1, default = 3, about = "passes of the network's training" },
    { "seed", value = "N", type = "integer", default = 1, about = "of weights and order" },
    { "model", value = "FILE", about = "a network trained before, instead of training one" },
    { "limit", value = "N", type = "integer", least = 100, about = "train on so many images only" },
  },
})
tensor.manual_seed(options.seed)

local sets = assert(data.fer2013(options.dir))
local train_set, test_set = sets.train, sets.test
if options.limit and options.limit < #train_set then
  train_set = train_set:subset(tensor.randperm(#train_set):narrow(1, 1, options.limit))
end

-- The network: one that was trained before, or one trained now.
local net
if options.model then
  net = assert(feral.model.load(options.model)).net
else
  net = nets.vgg(#train_set.classes, { widths = { 16, 32, 64, 128 }, dense = 128 })
  train.fit(net, {
    train = data.loader(train_set, {
      batch = 64, seed = options.seed, augment = feral.augment.new { mirror = 0.5, shift = 0.1 },
    }),
    epochs = options.epochs, optimizer = optim.Adam(net:parameters(), { lr = 1e-3 }),
  })
end

-- Its body: all layers but the last, so an image becomes the vector that the last layer would have judged.
local layers = {}
for i = 1, #net.child_names - 1 do layers[i] = net:get(i) end
local body = nn.Sequential(table.unpack(layers)):eval()

local function features(set)
  local parts = {}
  for x in data.loader(set, { batch = 128, shuffle = false }):batches(0) do
    parts[#parts + 1] = tensor.tidy(function() return feral.autograd.no_grad(body, x) end)
  end
  return tensor.cat(parts, 1)
end

local train_x, test_x = features(train_set), features(test_set)
print(("features: %d numbers an image"):format(train_x:size(2)))
local machine = svm.train(train_x, train_set.labels, { kernel = "rbf", C = 1 })
print(machine)

local head = train.score(net, data.loader(test_set, { batch = 128, shuffle = false }), test_set.classes)
local by_svm = metrics.report(metrics.confusion(test_set.labels, machine:predict(test_x), #test_set.classes), test_set.classes)
print(("the network's own head: %.2f %% (balanced %.2f %%)"):format(100 * head.accuracy, 100 * head.balanced))
print(("an RBF SVM on its features: %.2f %% (balanced %.2f %%)"):format(100 * by_svm.accuracy, 100 * by_svm.balanced))
