-- What a still image cannot tell: drawn faces move from rest to the apex of an expression, and are played forwards or
-- backwards. A small CNN looks at each frame, an LSTM reads its features in order and says in which direction time runs.
--
--   ./feral examples/sequence.lua [--epochs N] [--count N] [--seed N]
--
-- Beside it a network that takes the mean of the same features over time: both directions show the same frames, so all that
-- it sees is alike, and it can only guess.

local feral = require "feral"
local data, nn, optim, train, tensor, steps = feral.data, feral.nn, feral.optim, feral.train, feral.tensor, feral.steps

local options = feral.args.read(arg, {
  usage = "feral examples/sequence.lua [options]",
  about = "Tells whether a moving face is played forwards or backwards: CNN features into an LSTM.",
  options = {
    { "epochs", value = "N", type = "integer", least = 1, default = 10, about = "passes over the sequences" },
    { "count", value = "N", type = "integer", least = 20, default = 2000, about = "sequences to train on" },
    { "seed", value = "N", type = "integer", default = 1, about = "another seed draws other faces" },
  },
})

-- 1. Data: sequences of 8 frames, N x 8 x 1 x 32 x 32. Sample i depends on the seed and i alone.
local function draw(count, seed)
  return data.synthetic { count = count, seed = seed, size = 32, sequences = 8, task = "direction" }
end
local sequences, unseen = draw(options.count, options.seed), draw(800, options.seed + 1000)
print(sequences)

-- 2. The frames' features. To a convolution a batch of sequences is one long batch of images.
local FEATURES = 32
local FrameFeatures = nn.class "FrameFeatures"

function FrameFeatures:init()
  local function stage(inputs, outputs)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, { stride = 2, padding = 1, bias = false }), nn.BatchNorm(outputs),
      nn.ReLU())
  end
  self:add_child("cnn", nn.Sequential(stage(1, 8), stage(8, 16), stage(16, 32), nn.Flatten(),
    nn.Linear(32 * 4 * 4, FEATURES), nn.ReLU()))
end

function FrameFeatures:forward(x) -- N x T x 1 x H x W -> N x T x FEATURES
  local n, t, channels, height, width = table.unpack(x.shape)
  return self.cnn(x:reshape(n * t, channels, height, width)):reshape(n, t, FEATURES)
end

-- 3. Two ways to join the features of a sequence: read them in order, or take their mean.
local Reader = nn.class "Reader"

function Reader:init()
  self:add_child("frames", FrameFeatures())
  self:add_child("lstm", nn.LSTM(FEATURES, 32))
  self:add_child("head", nn.Linear(32, 2))
end

function Reader:forward(x)
  local outputs = self.lstm(self.frames(x)) -- N x T x 32, what the LSTM knows after each frame
  return self.head(outputs:select(2, -1))   -- ... and after the last
end

local Averager = nn.class "Averager"

function Averager:init()
  self:add_child("frames", FrameFeatures())
  self:add_child("head", nn.Linear(FEATURES, 2))
end

function Averager:forward(x) return self.head(self.frames(x):mean(2)) end

-- 4. Both are trained alike.
local function score(title, class)
  tensor.manual_seed(options.seed)
  local net = class()
  print(("\n%s: %d parameters"):format(title, net:num_parameters()))
  local optimizer = optim.Adam(net:parameters())
  train.fit(net, {
    train = data.loader(sequences, { batch = 32, seed = options.seed, augment = { steps.mirror(0.5), steps.shift(0.05) } }),
    epochs = options.epochs, optimizer = optimizer,
    schedule = optim.schedule.onecycle(optimizer, 5e-3, options.epochs), clip = 1,
  })
  return train.score(net, data.loader(unseen, { batch = 100, shuffle = false }), unseen.classes)
end

local in_order, averaged = score("CNN and LSTM", Reader), score("CNN and the mean over time", Averager)
print("\nunseen sequences, forwards or backwards:")
for _, result in ipairs { { "CNN and LSTM", in_order }, { "mean over time", averaged } } do
  local report = result[2]
  print(("  %-15s %5.1f %%  (95 %% interval %.1f to %.1f)"):format(result[1], 100 * report.accuracy, 100 * report.low,
    100 * report.high))
end
