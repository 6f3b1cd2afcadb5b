--- kinds.lua: how each kind of layer is written down for a plan. A kind that is not here has no place in one.

local create = require "feral.core.create"
local errors = require "feral.base.errors"
local ops = require "feral.tensor.ops"
local layouts = require "feral.plan.layouts"
local trace = require "feral.plan.trace"

local in_rows, map, rows_of, sizes, sum, symbol = trace.in_rows, trace.map, trace.rows_of, trace.sizes, trace.sum, trace.symbol
local expect = trace.expect

-- How each kind of layer is written down: f(layer, x, ...) -> symbol.
local kinds = {}

local function conv(layer, x)
  local out = layer:forward(x.tensor)
  local _, c, h, w = table.unpack(x.tensor.shape)
  local _, f, oh, ow = table.unpack(out.shape)
  local g, kh, kw = layer.geometry, layer.weight:size(3), layer.weight:size(4)
  return x.trace:add("conv", x, out, {
    weight = layer.weight, bias = layer.bias, c = c, h = h, w = w, f = f, kh = kh, kw = kw, oh = oh, ow = ow,
    stride_h = g[1], stride_w = g[2], top = g[3], left = g[4], dilation_h = g[7], dilation_w = g[8], groups = g[9],
    single = x.trace.single,
    work = out:numel() // x.trace.batch * kh * kw * (c // g[9]),
  }, "images")
end
kinds.Conv2d, kinds.DepthwiseConv2d = conv, conv

--- y = x W' + b for each row of x. Numbers that lie channels last meet weights that are turned likewise.
local function dense(x, out, weight, bias)
  local outputs, inputs = weight:size(1), weight:size(2)
  if x.order then
    local pixels, channels = x.order[1], x.order[2]
    weight = weight:reshape(outputs, channels, pixels):permute(1, 3, 2):reshape(outputs, inputs)
  end
  return x.trace:add("dense", x, out, {
    weight = weight, bias = bias, from = inputs, to = outputs, work = out:numel() // x.trace.batch * inputs,
  }, "features")
end

function kinds.Linear(layer, x) return dense(x, layer:forward(x.tensor), layer.weight, layer.bias) end

function kinds.BatchNorm(layer, x)
  local out = layer:forward(x.tensor)
  x = in_rows(x)
  local scale = 1 / (layer.running_var + layer.eps):sqrt()
  if layer.weight then scale = scale * layer.weight end
  local shift = -layer.running_mean * scale
  if layer.bias then shift = shift + layer.bias end
  local rows, channels = rows_of(x)
  return x.trace:add("scale", x, out, { weight = scale, bias = shift, rows = rows, to = channels })
end

--- Over features, or over whole images: those lie channels last, and so the weights must.
function kinds.LayerNorm(layer, x)
  local out, dims = layer:forward(x.tensor), #layer.sizes
  x = in_rows(x)
  local weight, bias = layer.weight, layer.bias
  if x.layout.name == "images" and dims == 3 then
    weight, bias = weight and weight:permute(2, 3, 1), bias and bias:permute(2, 3, 1)
  elseif x.tensor:dim() > 3 then
    errors.raise("a plan has LayerNorm of features and of whole images only")
  end
  local size = 1
  for _, n in ipairs(layer.sizes) do size = size * n end
  return x.trace:add("layernorm", x, out, {
    weight = weight and weight:contiguous(), bias = bias and bias:contiguous(), parameter = layer.eps,
    rows = out:numel() // out:size(1) // size, to = size,
  })
end

for kind, activation in pairs { ReLU = "relu", GELU = "gelu", SiLU = "silu", Sigmoid = "sigmoid", Tanh = "tanh" } do
  kinds[kind] = function(layer, x) return map(x, layer:forward(x.tensor), activation) end
end
function kinds.LeakyReLU(layer, x) return map(x, layer:forward(x.tensor), "leaky_relu", layer.slope) end
function kinds.ELU(layer, x) return map(x, layer:forward(x.tensor), "elu", layer.alpha) end

function kinds.PReLU(layer, x)
  local out = layer:forward(x.tensor)
  if layer.weight:numel() == 1 then return map(x, out, "leaky_relu", layer.weight:item()) end
  if layouts.of_step(x.layout.name) then errors.raise("a plan has no PReLU of sequences") end
  x = in_rows(x)
  local rows, channels = rows_of(x)
  return x.trace:add("prelu", x, out, { weight = layer.weight, rows = rows, to = channels })
end

function kinds.Dropout(_, x) return x end

local function pool(op)
  return function(layer, x)
    local out, g = layer:forward(x.tensor), layer.geometry
    local _, c, h, w = table.unpack(x.tensor.shape)
    return x.trace:add(op, x, out, {
      c = c, h = h, w = w, oh = out:size(3), ow = out:size(4), kh = g[1], kw = g[2], stride_h = g[3], stride_w = g[4],
      top = g[5], left = g[6], count_padding = g[8] ~= 0,
    }, "images")
  end
end
kinds.MaxPool2d, kinds.AvgPool2d = pool("max_pool"), pool("mean_pool")

function kinds.Upsample(layer, x)
  local out = layer:forward(x.tensor)
  local _, c, h, w = table.unpack(x.tensor.shape)
  return x.trace:add("repeat", x, out, {
    c = c, h = h, w = w, oh = out:size(3), ow = out:size(4), kh = layer.scale, kw = layer.scale, stride_h = layer.scale,
    stride_w = layer.scale, top = 0, left = 0,
  })
end

--- Images lie as their pixels one behind the other already.
function kinds.Pixels(layer, ...)
  local images, tensors = { ... }, {}
  for i, x in ipairs(images) do tensors[i] = x.tensor end
  local out, y, at = layer:forward(table.unpack(tensors)), nil, 0
  for _, x in ipairs(images) do
    local from = x.tensor:numel() // x.tensor:size(1)
    y = x.trace:add("copy", x, out, {
      y = y and y.value, rows = 1, from = from, to = out:numel() // out:size(1), at = at,
    })
    at = at + from
  end
  return y
end

function kinds.GlobalAvgPool(layer, x)
  local out = layer:forward(x.tensor)
  local pixels, channels = rows_of(x)
  return x.trace:add("global_mean", x, out, { rows = pixels, to = channels }, "features")
end

function kinds.Flatten(layer, x)
  local out = layer:forward(x.tensor)
  local order, pixels, channels = x.order, rows_of(x)
  if x.layout.name == "images" and pixels > 1 and channels > 1 then order = { pixels, channels } end
  return symbol(x.trace, x.value, out, "features", order)
end

--- True for the dimension whose elements lie side by side: channels of images, features of all else.
local function is_innermost(x, dim)
  local dims = x.tensor:dim()
  if dim < 0 then dim = dim + dims + 1 end
  return dim == (x.layout.name == "images" and 2 or dims)
end

function kinds.Softmax(layer, x)
  local out = layer:forward(x.tensor)
  if not is_innermost(x, layer.dim) then errors.raise("a plan has softmax over channels or features only") end
  x = in_rows(x)
  local rows, channels = rows_of(x)
  return x.trace:add("softmax", x, out, { rows = rows, to = channels, work = 16 * out:numel() // x.trace.batch })
end

function kinds.Sequential(layer, x)
  for _, name in ipairs(layer.child_names) do x = layer[name](x) end
  return x
end

function kinds.Residual(layer, x)
  local a, b = layer.main(x), layer.skip and layer.skip(x) or x
  local shape, other = sizes(a), sizes(b)
  if shape ~= other then
    errors.raise("Residual: main gives %s, %s %s", shape, layer.skip and "skip" or "the input is", other)
  end
  local y = sum(a, b, a.tensor + b.tensor)
  return layer.activation and layer.activation(y) or y
end

function kinds.Concat(layer, x)
  local parts, tensors = {}, {}
  for i, name in ipairs(layer.child_names) do
    parts[i] = in_rows(layer[name](x))
    tensors[i] = parts[i].tensor
  end
  local out = ops.cat(tensors, layer.dim)
  if not is_innermost(parts[1], layer.dim) then errors.raise("a plan concatenates channels or features only") end
  local y, at
  local rows, to = rows_of(symbol(x.trace, parts[1].value, out, parts[1].layout))
  for _, part in ipairs(parts) do
    local _, from = rows_of(part)
    y = x.trace:add("copy", part, out, { y = y and y.value, rows = rows, from = from, to = to, at = at or 0 })
    at = (at or 0) + from
  end
  return y
end

function kinds.TimeDistributed(layer, x)
  local shape = x.tensor.shape
  if #shape < 3 then errors.raise("TimeDistributed: input is %s, N x T x ... expected", sizes(x)) end
  local n, t = shape[1], shape[2]
  expect(x, #shape == 3 and "feature sequences" or "image sequences", "TimeDistributed")
  local steps = x.tensor:reshape(n * t, table.unpack(shape, 3))
  local y = in_rows(layer.layer(symbol(x.trace, x.value, steps, layouts.of_step(x.layout.name))))
  local layout = layouts.of_sequence(y.layout.name) or errors.raise("a plan has no sequences of %s", y.layout.name)
  return symbol(x.trace, y.value, y.tensor:reshape(n, t, table.unpack(y.tensor.shape, 2)), layout)
end

--- One layer of an LSTM: the gates' inputs of all steps as one dense step, then a recurrent one for each direction.
local function lstm_layer(layer, number, x, out)
  local n, t, _ = table.unpack(x.tensor.shape)
  local hidden, directions = layer.hidden, #layer.suffixes
  local y
  for i, suffix in ipairs(layer.suffixes) do
    local function part(name) return layer[name .. "_l" .. number .. suffix] end
    local bias = part("bias_ih") and part("bias_ih") + part("bias_hh")
    local rows = symbol(x.trace, x.value, x.tensor:reshape(n * t, x.tensor:size(3)), "features")
    local gates = dense(rows, create.empty { n * t, 4 * hidden }, part("weight_ih"), bias)
    gates.tensor = gates.tensor:reshape(n, t, 4 * hidden)
    y = x.trace:add("lstm", gates, out, {
      y = y and y.value, weight = part("weight_hh"), steps = t, hidden = hidden, width = directions * hidden,
      at = (i - 1) * hidden, reverse = i == 2, work = 4 * hidden * hidden * t,
    }, "feature sequences")
  end
  return y
end

--- What stands for the state that a recurrent layer returns as its second result.
local function no_state(kind)
  return setmetatable({}, { __index = function() errors.raise("a plan has no use for the state after an %s", kind) end })
end

function kinds.LSTM(layer, x, state, lengths)
  if state or lengths then errors.raise("a plan has LSTM without a first state and lengths only") end
  local out = layer:forward(x.tensor)
  expect(x, "feature sequences", "LSTM")
  local n, t = x.tensor:size(1), x.tensor:size(2)
  for number = 0, layer.layers - 1 do
    local of_layer = number == layer.layers - 1 and out or create.empty { n, t, layer.hidden * #layer.suffixes }
    x = lstm_layer(layer, number, x, of_layer)
  end
  return x, no_state "LSTM"
end

function kinds.ConvLSTM2d(layer, x, state)
  if state then errors.raise("a plan has ConvLSTM2d without a first state only") end
  local out = layer:forward(x.tensor)
  expect(x, "image sequences", "ConvLSTM2d")
  local _, t, c, h, w = table.unpack(x.tensor.shape)
  local kh, kw, f = layer.weight_ih:size(3), layer.weight_ih:size(4), layer.hidden
  return x.trace:add("convlstm", x, out, {
    weight = layer.weight_ih, weight_hh = layer.weight_hh, bias = layer.bias, steps = t, c = c, f = f, h = h, w = w, kh = kh,
    kw = kw, last = layer.last, work = t * h * w * 4 * f * (c + f) * kh * kw,
  }, layer.last and "images" or "image sequences"), no_state "ConvLSTM2d"
end

return kinds
