--- nets.lua: networks by name, for examples, the command line and the bench.

local nn = require "feral.nn"
local errors = require "feral.base.errors"

local nets = {}

local function conv_bn(inputs, outputs, stride)
  return nn.Conv2d(inputs, outputs, 3, { padding = 1, stride = stride or 1, bias = false }), nn.BatchNorm(outputs), nn.ReLU()
end

--- Size of a side after 'times' halvings by pooling.
local function halved(size, times)
  for _ = 1, times do size = size // 2 end
  return size
end

--- VGG in the size that FER2013 wants: four stages of two 3x3 convolutions with batch norm, then two dense layers
--- (after Simonyan and Zisserman 2015).
---@param classes integer
---@param options {size: integer, channels: integer, widths: integer[], dense: integer, dropout: number}|nil
function nets.vgg(classes, options)
  local o = errors.check_options("nets.vgg", options,
    { size = 48, channels = 1, widths = { 32, 64, 128, 256 }, dense = 256, dropout = 0.5 })
  local layers, inputs = {}, o.channels
  local function add(...) for _, layer in ipairs { ... } do layers[#layers + 1] = layer end end
  for _, width in ipairs(o.widths) do
    add(conv_bn(inputs, width))
    add(conv_bn(width, width))
    add(nn.MaxPool2d(2))
    inputs = width
  end
  local side = halved(o.size, #o.widths)
  if side < 1 then errors.raise("nets.vgg: images of %d pixels are too small for %d poolings", o.size, #o.widths) end
  add(nn.Flatten(), nn.Linear(inputs * side * side, o.dense), nn.ReLU(), nn.Dropout(o.dropout), nn.Linear(o.dense, classes))
  return nn.Sequential(table.unpack(layers))
end

local function separable(inputs, outputs)
  return nn.DepthwiseConv2d(inputs, 3, { padding = 1, bias = false }), nn.Conv2d(inputs, outputs, 1, { bias = false }),
    nn.BatchNorm(outputs)
end

local function xception_block(inputs, outputs)
  local main = { separable(inputs, outputs) }
  main[#main + 1] = nn.ReLU()
  for _, layer in ipairs { separable(outputs, outputs) } do main[#main + 1] = layer end
  main[#main + 1] = nn.MaxPool2d(3, { stride = 2, padding = 1 })
  return nn.Residual(nn.Sequential(table.unpack(main)),
    nn.Sequential(nn.Conv2d(inputs, outputs, 1, { stride = 2, bias = false }), nn.BatchNorm(outputs)))
end

--- mini-Xception (Arriaga, Valdenegro-Toro and Ploeger 2017): residual blocks of separable convolutions, no dense layer.
function nets.mini_xception(classes, options)
  local o = errors.check_options("nets.mini_xception", options, { size = 48, channels = 1 })
  local layers = { conv_bn(o.channels, 8) }
  for _, layer in ipairs { conv_bn(8, 8) } do layers[#layers + 1] = layer end
  for _, widths in ipairs { { 8, 16 }, { 16, 32 }, { 32, 64 }, { 64, 128 } } do
    layers[#layers + 1] = xception_block(widths[1], widths[2])
  end
  layers[#layers + 1] = nn.Conv2d(128, classes, 3, { padding = 1 })
  layers[#layers + 1] = nn.GlobalAvgPool()
  return nn.Sequential(table.unpack(layers))
end

--- EmoPy's ConvolutionalNN: twice two 4x4 convolutions of 10 channels and a pooling, then one dense layer.
function nets.emopy(classes, options)
  local o = errors.check_options("nets.emopy", options, { size = 64, channels = 1 })
  local side = ((o.size - 6) // 2 - 6) // 2
  if side < 1 then errors.raise("nets.emopy: images of %d pixels are too small", o.size) end
  return nn.Sequential(
    nn.Conv2d(o.channels, 10, 4), nn.ReLU(), nn.Conv2d(10, 10, 4), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(10, 10, 4), nn.ReLU(), nn.Conv2d(10, 10, 4), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(10 * side * side, classes))
end

--- The names that nets.make knows.
nets.names = { "vgg", "mini_xception", "emopy" }

--- A network by name.
---@param name string
---@param classes integer
---@param options table|nil
function nets.make(name, classes, options)
  for _, known in ipairs(nets.names) do
    if known == name then return nets[name](classes, options) end
  end
  errors.raise("no network is called '%s'%s (known: %s)", name, errors.hint(name, nets.names), table.concat(nets.names, ", "))
end

return nets
