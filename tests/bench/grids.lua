--- grids.lua: what ops.lua measures: operations over grids of shapes.
---
--- A case has a shape as text, and a layer and its input x, or a function run. What it does is counted as 'operations' (a layer
--- that multiplies counts its own), as 'images', or in numbers that must be moved: 'numbers' of a run, 'moves' of a layer, how
--- often its passes go over {its input, its output}.

local feral = require "feral"
local arith = require "feral.core.arith"
local data, feature, image, loss, nn, optim = feral.data, feral.feature, feral.image, feral.loss, feral.nn, feral.optim
local tensor = feral.tensor

local grids = {}

local function pictures(n, c, h, w) return tensor.randn(n, c, h, w or h):as_image() end

local function text(...) return table.concat({ ... }, "x") end

-- ---- layers that multiply ----

--- A convolution of n images of size x size pixels, 'from' to 'to' channels.
local function convolution(n, from, to, size, kernel, stride, padding)
  local shape = ("%s %d-%d k%d s%d p%d"):format(text(n, from, size, size), from, to, kernel, stride, padding)
  return {
    shape = shape,
    make = function()
      return { shape = shape, x = pictures(n, from, size),
        layer = nn.Conv2d(from, to, kernel, { stride = stride, padding = padding, bias = false }) }
    end,
  }
end

--- The same with a filter a channel.
local function depthwise_convolution(n, channels, size, kernel, stride)
  local shape = ("%s depthwise k%d s%d"):format(text(n, channels, size, size), kernel, stride)
  return {
    shape = shape,
    make = function()
      return { shape = shape, x = pictures(n, channels, size),
        layer = nn.DepthwiseConv2d(channels, kernel, { stride = stride, padding = kernel // 2, bias = false }) }
    end,
  }
end

-- n, from, to, size, kernel, stride, padding: the bench's networks, and shapes near them
local convolutions = {
  { 64, 1, 32, 48, 3, 1, 1 }, { 64, 32, 32, 48, 3, 1, 1 }, { 64, 64, 64, 24, 3, 1, 1 }, { 64, 128, 128, 12, 3, 1, 1 },
  { 64, 256, 256, 6, 3, 1, 1 }, { 64, 1, 10, 64, 4, 1, 0 }, { 64, 10, 10, 61, 4, 1, 0 }, { 64, 10, 10, 29, 4, 1, 0 },
  { 64, 8, 8, 48, 3, 1, 1 }, { 64, 8, 16, 48, 1, 1, 0 }, { 64, 16, 32, 24, 1, 1, 0 }, { 64, 64, 128, 6, 1, 1, 0 },
  { 64, 8, 16, 48, 1, 2, 0 }, { 64, 128, 7, 3, 3, 1, 1 }, { 16, 64, 64, 48, 3, 1, 1 }, { 16, 64, 128, 48, 3, 2, 1 },
  { 16, 64, 128, 48, 1, 2, 0 }, { 64, 512, 512, 6, 3, 1, 1 }, { 64, 17, 64, 48, 3, 1, 1 }, { 7, 24, 24, 40, 3, 1, 1 },
  { 7, 48, 48, 44, 5, 1, 2 }, { 7, 96, 96, 56, 3, 1, 1 }, { 1, 24, 48, 64, 7, 2, 3 }, { 1, 3, 32, 224, 3, 2, 1 },
  { 1, 32, 64, 112, 3, 1, 1 }, { 32, 48, 96, 96, 3, 2, 1 }, { 100, 16, 24, 40, 3, 1, 1 },
}

local depthwise = { -- n, channels, size, kernel, stride
  { 64, 8, 48, 3, 1 }, { 64, 16, 48, 3, 1 }, { 64, 32, 24, 3, 1 }, { 64, 64, 12, 3, 1 }, { 64, 128, 6, 3, 1 },
  { 64, 24, 40, 3, 1 }, { 16, 48, 56, 3, 2 }, { 16, 32, 112, 5, 1 },
}

local cases = {}

function cases.conv()
  local list = {}
  for i, c in ipairs(convolutions) do list[i] = convolution(table.unpack(c)).make end
  return list
end

function cases.depthwise()
  local list = {}
  for i, c in ipairs(depthwise) do list[i] = depthwise_convolution(table.unpack(c)).make end
  return list
end

function cases.linear()
  local list = {}
  for i, c in ipairs { { 64, 2304, 256 }, { 64, 256, 7 }, { 64, 1210, 7 }, { 1, 2304, 256 }, { 100, 512, 512 } } do
    list[i] = function()
      return { shape = ("%s -%d"):format(text(c[1], c[2]), c[3]), layer = nn.Linear(c[2], c[3]), x = tensor.randn(c[1], c[2]) }
    end
  end
  return list
end

function cases.convlstm()
  local list = {}
  for i, c in ipairs { { 64, 8, 1, 48, 16 }, { 1, 8, 1, 48, 16 }, { 7, 5, 3, 24, 24 }, { 8, 8, 16, 24, 32 } } do
    list[i] = function()
      local n, steps, inputs, size, hidden = table.unpack(c)
      return { shape = ("%s -%d"):format(text(n, steps, inputs, size, size), hidden), layer = nn.ConvLSTM2d(inputs, hidden, 3),
        x = tensor.randn(n, steps, inputs, size, size) }
    end
  end
  return list
end

function cases.lstm()
  local list = {}
  for i, c in ipairs { { 64, 16, 256, 128 }, { 64, 16, 128, 128 }, { 1, 16, 256, 128 }, { 32, 30, 68, 64 } } do
    list[i] = function()
      return { shape = ("%s -%d"):format(text(c[1], c[2], c[3]), c[4]), layer = nn.LSTM(c[3], c[4]),
        x = tensor.randn(c[1], c[2], c[3]) }
    end
  end
  return list
end

function cases.matmul()
  local list = {}
  for i, c in ipairs { { 64, 64, 64 }, { 256, 256, 256 }, { 1024, 1024, 1024 }, { 147456, 16, 16 }, { 100, 900, 7 } } do
    list[i] = function()
      local m, k, n = table.unpack(c)
      local a, b = tensor.randn(m, k), tensor.randn(k, n)
      return { shape = ("%s %s"):format(text(m, k), text(k, n)), operations = 2 * m * k * n,
        run = function() tensor.matmul(a, b) end }
    end
  end
  return list
end

-- ---- layers that move memory ----

local activations = { { 64, 32, 48 }, { 64, 10, 61 }, { 64, 128, 12 }, { 1, 8, 48 } } -- n, channels, size

--- Cases of a layer over images: moves are those of forward and backward, each {input, output}.
local function moving(list, forward, backward, layer)
  local made = {}
  for i, c in ipairs(list) do
    made[i] = function()
      return { shape = text(c[1], c[2], c[3], c[3]), x = pictures(c[1], c[2], c[3]), layer = layer(c[2]),
        moves = { forward = forward, backward = backward } }
    end
  end
  return made
end

-- statistics and the normalising pass; the backward's sums and its result, each from the gradient and x
function cases.batchnorm() return moving(activations, { 2, 1 }, { 3, 2 }, nn.BatchNorm) end

function cases.relu() return moving(activations, { 1, 1 }, { 1, 2 }, function() return nn.ReLU() end) end

function cases.gelu() return moving(activations, { 1, 1 }, { 2, 1 }, function() return nn.GELU() end) end

function cases.sigmoid() return moving(activations, { 1, 1 }, { 1, 2 }, function() return nn.Sigmoid() end) end

function cases.tanh() return moving(activations, { 1, 1 }, { 1, 2 }, function() return nn.Tanh() end) end

function cases.dropout() return moving(activations, { 1, 1 }, { 1, 1 }, function() return nn.Dropout(0.5) end) end

function cases.maxpool() return moving(activations, { 1, 1 }, { 1, 1 }, function() return nn.MaxPool2d(2) end) end

function cases.maxpool3()
  return moving(activations, { 1, 1 }, { 1, 1 }, function() return nn.MaxPool2d(3, { stride = 2, padding = 1 }) end)
end

function cases.avgpool() return moving(activations, { 1, 1 }, { 1, 1 }, function() return nn.AvgPool2d(2) end) end

function cases.globalavgpool()
  return moving(activations, { 1, 1 }, { 1, 1 }, function() return nn.GlobalAvgPool() end)
end

--- Cases of something else that moves 'numbers' for each of n numbers.
local function running(sizes, numbers, prepare)
  local list = {}
  for i, n in ipairs(sizes) do
    list[i] = function() return { shape = tostring(n), numbers = numbers * n, run = prepare(n) } end
  end
  return list
end

local sizes = { 1000, 100000, 4000000 }

function cases.add()
  return running(sizes, 3, function(n)
    local a, b = tensor.randn(n), tensor.randn(n)
    return function() arith.add(a, b) end
  end)
end

function cases.mul_()
  return running(sizes, 3, function(n)
    local a, b = tensor.randn(n), tensor.ones(n)
    return function() arith.mul_(a, b) end
  end)
end

function cases.sum()
  return running(sizes, 1, function(n)
    local a = tensor.randn(n)
    return function() a:sum() end
  end)
end

--- Loss and its gradient in one.
function cases.cross_entropy()
  return running({ 64, 1024 }, 2 * 7, function(n)
    local scores, labels = tensor.randn(n, 7):requires_grad(), tensor.full({ n }, 3, "i32")
    return function() loss.cross_entropy(scores, labels) end
  end)
end

--- A step of an optimiser; 'moves' counts readings and writings of parameter, gradient and what it remembers.
local function stepping(kind, moves, settings)
  return running({ 10000, 1000000 }, moves, function(n)
    local p = tensor.randn(n):requires_grad()
    p:sum():backward()
    local optimizer = optim[kind]({ p }, settings)
    return function() optimizer:step() end
  end)
end

function cases.sgd() return stepping("SGD", 5, { lr = 1e-3, momentum = 0.9, weight_decay = 1e-4 }) end

function cases.adam() return stepping("Adam", 7, { lr = 1e-3 }) end

function cases.rmsprop() return stepping("RMSprop", 5, { lr = 1e-3 }) end

-- ---- pictures ----

--- Cases that do something with n pictures of some channels and side.
local function picturing(list, prepare)
  local made = {}
  for i, c in ipairs(list) do
    made[i] = function()
      local u8 = (tensor.rand(table.unpack(c)) * 255):to "u8"
      return { shape = text(table.unpack(c)), images = c[1], run = prepare(u8, c) }
    end
  end
  return made
end

function cases.augment()
  local steps = feral.steps
  return picturing({ { 1024, 1, 48, 48 }, { 128, 3, 224, 224 } }, function(images, c)
    local labels = {}
    for i = 1, c[1] do labels[i] = 1 end
    local loader = data.loader(data.set { images = images, labels = labels, classes = { "a" } }, {
      batch = c[1] // 16, augment = steps { steps.rotate(10), steps.shift(0.1), steps.zoom(0.1), steps.mirror(0.5),
        steps.brightness(0.2), steps.contrast(0.2) },
    })
    return function()
      for _ in loader:batches(1) do local _open <close> = tensor.scope() end
    end
  end)
end

function cases.hog()
  return picturing({ { 64, 1, 48, 48 } }, function(images) return function() feature.hog(images) end end)
end

function cases.resize()
  return picturing({ { 64, 1, 48, 48 }, { 16, 3, 224, 224 } }, function(images)
    return function() image.resize(images, 64, 64) end
  end)
end

function cases.jpeg()
  return picturing({ { 1, 1, 48, 48 }, { 1, 3, 224, 224 } }, function(images)
    local bytes = image.encode(image.resize(images[1], images:size(3), images:size(4)), "jpeg")
    return function() assert(image.decode(bytes)) end
  end)
end

grids.names = {
  "conv", "depthwise", "linear", "lstm", "convlstm", "matmul", "batchnorm", "relu", "gelu", "sigmoid", "tanh", "dropout",
  "maxpool", "maxpool3", "avgpool", "globalavgpool", "add", "mul_", "sum", "cross_entropy", "sgd", "adam", "rmsprop",
  "augment", "hog", "resize", "jpeg",
}

--- Functions that make the cases of an operation, one each.
---@param name string
---@param quick boolean|nil  no more than three
---@return (fun(): table)[]
function grids.cases(name, quick)
  local list = cases[name]()
  return quick and table.move(list, 1, 3, 1, {}) or list
end

-- ---- convolutions next to each other ----

-- where the lines start: n, channels, size, kernel, stride, a filter a channel
local centres = {
  { 32, 32, 48, 3, 1 }, { 32, 64, 24, 3, 1 }, { 32, 128, 12, 3, 1 }, { 32, 16, 48, 3, 1 }, { 32, 10, 61, 4, 1 },
  { 7, 48, 44, 5, 2 }, { 32, 32, 24, 3, 1, true },
}
local axes = {
  { "batch", 1, { 1, 7, 32, 64, 100 } }, { "width", 2, { 8, 10, 16, 20, 24, 32, 40, 48, 64, 96, 128 } },
  { "size", 3, { 24, 40, 44, 48, 56, 64, 96, 112, 224 } }, { "kernel", 4, { 1, 3, 4, 5, 7 } }, { "stride", 5, { 1, 2 } },
}
local MOST = 8e9 -- operations of a case: larger pictures come in smaller batches

local function near(point)
  local n, channels, size, kernel, stride, apart = table.unpack(point)
  local one = 2 * channels * channels * kernel * kernel * (size // stride) ^ 2
  n = math.tointeger(math.max(1, math.min(n, MOST // one)))
  if apart then return depthwise_convolution(n, channels, size, kernel, stride) end
  return convolution(n, channels, channels, size, kernel, stride, kernel // 2)
end

--- Lines of convolutions of which neighbours differ in one size: {varies = text, {shape = text, make = function} ...}.
---@param quick boolean|nil  only one line each way
function grids.lines(quick)
  local lines = {}
  for _, centre in ipairs(quick and { centres[1] } or centres) do
    for _, axis in ipairs(axes) do
      local line = { varies = axis[1] }
      for i, value in ipairs(axis[3]) do
        local point = { table.unpack(centre) }
        point[axis[2]] = value
        line[i] = near(point)
      end
      lines[#lines + 1] = line
    end
  end
  return lines
end

return grids
