--- compile.lua: a network that only predicts becomes a plan, one C call a batch: net:compile(example).
---
--- One forward of the example, in eval mode, is traced: layers of a known kind write down what they compute, containers and
--- layers of a script's own are run with a stand-in for the tensor. What is written down is then improved: batch norms go into
--- the weights before them, activations and residual sums into the step that feeds them.

local core = require "feral.core.plan"
local core_tensor = require "feral.core.tensor"
local scope = require "feral.core.scope"
local ops = require "feral.ops"
local create = require "feral.core.create"
local autograd = require "feral.autograd"
local errors = require "feral.errors"
local nn = require "feral.nn"

local compile = {}

local INPUT, OUTPUT, INNER = 0, 1, 2 -- numbers of values, as in kernels/plan.h
local LINE = 16 -- values begin at multiples of so many numbers

local function sizes(t) return table.concat(t.shape, "x") end

--- The steps of one network while they are written down.
---@class Trace
---@field batch integer    samples that are traced
---@field single boolean   the plan is for one sample at a time
---@field steps table[]    {op, x, y, other, times, work, ...}
---@field values integer[] numbers a sample, by value
local Trace = {}
Trace.__index = Trace

--- Stands for a tensor of the network: 'tensor' is what it was in the example, 'value' where its numbers will be. With 'order'
--- {H W, C} they lie channels last though the tensor is flat.
---@class Symbol
local Symbol = {}

local function symbol(trace, value, tensor, order)
  return setmetatable({ trace = trace, value = value, tensor = tensor, order = order }, Symbol)
end

local function is_symbol(x) return getmetatable(x) == Symbol end

--- Adds a step from x to a new value, which the tensor 'out' was in the example.
---@return Symbol
function Trace:add(op, x, out, fields)
  local value = fields.y or #self.values + 1
  self.values[value] = out:numel() // self.batch
  local step = { op = op, x = x.value, y = value, rows = 1, from = 0, to = 0, at = 0 }
  step.times = x.tensor:size(1) // self.batch
  step.work = self.values[x.value] + self.values[value]
  for name, field in pairs(fields) do step[name] = field end
  self.steps[#self.steps + 1] = step
  return symbol(self, value, out)
end

--- The symbol with its numbers in the order in which a person sees them.
local function in_rows(x)
  if not x.order then return x end
  return x.trace:add("turn", x, x.tensor, { rows = x.order[1], to = x.order[2] })
end

--- Pixels and channels of an image; 1 and the features of a row.
local function rows_of(t)
  local s = t.shape
  if #s == 5 then errors.raise("a plan takes sequences of images step by step, not as one (%s)", sizes(t)) end
  if #s == 4 then return s[3] * s[4], s[2] end
  if #s == 3 then return s[2], s[3] end
  return 1, s[2]
end

local function map(x, out, activation, parameter)
  local y = x.trace:add("map", x, out, { activation = activation, parameter = parameter })
  y.trace.steps[#y.trace.steps].from = out:numel() // out:size(1)
  y.trace.steps[#y.trace.steps].to = out:numel() // out:size(1)
  y.order = x.order
  return y
end

local function sum(a, b, out)
  a, b = in_rows(a), in_rows(b)
  local y = map(a, out)
  a.trace.steps[#a.trace.steps].other = b.value
  return y
end

-- What a script's own forward may do with a symbol; anything else ends the trace.
local methods = {}

function methods:dim() return self.tensor:dim() end
function methods:size(d) return self.tensor:size(d) end
function methods:numel() return self.tensor:numel() end

function methods:select(dim, index)
  local t = self.tensor
  local out = t:select(dim, index)
  if dim ~= 2 or t:dim() ~= 3 and t:dim() ~= 5 then
    errors.raise("a plan can select a step of N x T x F or N x T x C x H x W, not dimension %s of %s", tostring(dim), sizes(t))
  end
  local steps, features = t:size(2), out:numel() // out:size(1)
  return self.trace:add("select", self, out, { rows = steps, to = features, at = (index < 0 and index + steps or index - 1) })
end

for _, name in ipairs { "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh" } do
  methods[name] = function(self, parameter)
    local f = require("feral.activations")[name]
    return map(self, f(self.tensor, parameter), name, parameter or (name == "elu" and 1 or name == "leaky_relu" and 0.01 or 0))
  end
end

function Symbol.__index(self, key)
  if key == "shape" then return rawget(self, "tensor").shape end
  if key == "order" or key == "tensor" or key == "value" or key == "trace" then return nil end
  return methods[key] or errors.raise("a plan knows no x:%s", tostring(key))
end

function Symbol.__len(self) return #self.tensor end

function Symbol.__add(a, b)
  if not is_symbol(a) or not is_symbol(b) or sizes(a.tensor) ~= sizes(b.tensor) then
    errors.raise("a plan adds tensors of one shape only")
  end
  return sum(a, b, a.tensor + b.tensor)
end

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
  })
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
  })
end

function kinds.Linear(layer, x) return dense(x, layer:forward(x.tensor), layer.weight, layer.bias) end

function kinds.BatchNorm(layer, x)
  local out = layer:forward(x.tensor)
  x = in_rows(x)
  local scale = 1 / (layer.running_var + layer.eps):sqrt()
  if layer.weight then scale = scale * layer.weight end
  local shift = -layer.running_mean * scale
  if layer.bias then shift = shift + layer.bias end
  local rows, channels = rows_of(x.tensor)
  return x.trace:add("scale", x, out, { weight = scale, bias = shift, rows = rows, to = channels })
end

for kind, activation in pairs { ReLU = "relu", GELU = "gelu", SiLU = "silu", Sigmoid = "sigmoid", Tanh = "tanh" } do
  kinds[kind] = function(layer, x) return map(x, layer:forward(x.tensor), activation) end
end
function kinds.LeakyReLU(layer, x) return map(x, layer:forward(x.tensor), "leaky_relu", layer.slope) end
function kinds.ELU(layer, x) return map(x, layer:forward(x.tensor), "elu", layer.alpha) end

function kinds.PReLU(layer, x)
  local out = layer:forward(x.tensor)
  if layer.weight:numel() == 1 then return map(x, out, "leaky_relu", layer.weight:item()) end
  if x.tensor:dim() == 3 then errors.raise("a plan has no PReLU of sequences") end
  x = in_rows(x)
  local rows, channels = rows_of(x.tensor)
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
    })
  end
end
kinds.MaxPool2d, kinds.AvgPool2d = pool("max_pool"), pool("mean_pool")

function kinds.GlobalAvgPool(layer, x)
  local out = layer:forward(x.tensor)
  local pixels, channels = rows_of(x.tensor)
  return x.trace:add("global_mean", x, out, { rows = pixels, to = channels })
end

function kinds.Flatten(layer, x)
  local out = layer:forward(x.tensor)
  if x.tensor:dim() == 5 then errors.raise("a plan flattens images, not sequences of them") end
  local order = x.order
  if x.tensor:dim() == 4 then
    local pixels, channels = rows_of(x.tensor)
    if pixels > 1 and channels > 1 then order = { pixels, channels } end
  end
  return symbol(x.trace, x.value, out, order)
end

function kinds.Softmax(layer, x)
  local out, dims = layer:forward(x.tensor), x.tensor:dim()
  local dim = layer.dim < 0 and layer.dim + dims + 1 or layer.dim
  if dim ~= (dims == 4 and 2 or dims) then errors.raise("a plan has softmax over channels or features only") end
  x = in_rows(x)
  local rows, channels = rows_of(x.tensor)
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
  local dims = out:dim()
  local dim = layer.dim < 0 and layer.dim + dims + 1 or layer.dim
  if dim ~= (dims == 4 and 2 or dims) then errors.raise("a plan concatenates channels or features only") end
  local y, at
  local rows, to = rows_of(out)
  for _, part in ipairs(parts) do
    local _, from = rows_of(part.tensor)
    y = x.trace:add("copy", part, out, { y = y and y.value, rows = rows, from = from, to = to, at = at or 0 })
    at = (at or 0) + from
  end
  return y
end

function kinds.TimeDistributed(layer, x)
  local shape = x.tensor.shape
  if #shape < 3 then errors.raise("TimeDistributed: input is %s, N x T x ... expected", sizes(x)) end
  local n, t = shape[1], shape[2]
  local y = in_rows(layer.layer(symbol(x.trace, x.value, x.tensor:reshape(n * t, table.unpack(shape, 3)))))
  return symbol(x.trace, y.value, y.tensor:reshape(n, t, table.unpack(y.tensor.shape, 2)))
end

--- One layer of an LSTM: the gates' inputs of all steps as one dense step, then a recurrent one for each direction.
local function lstm_layer(layer, number, x, out)
  local n, t, _ = table.unpack(x.tensor.shape)
  local hidden, directions = layer.hidden, #layer.suffixes
  local y
  for i, suffix in ipairs(layer.suffixes) do
    local function part(name) return layer[name .. "_l" .. number .. suffix] end
    local bias = part("bias_ih") and part("bias_ih") + part("bias_hh")
    local rows = symbol(x.trace, x.value, x.tensor:reshape(n * t, x.tensor:size(3)))
    local gates = dense(rows, create.empty { n * t, 4 * hidden }, part("weight_ih"), bias)
    gates.tensor = gates.tensor:reshape(n, t, 4 * hidden)
    y = x.trace:add("lstm", gates, out, {
      y = y and y.value, weight = part("weight_hh"), steps = t, hidden = hidden, width = directions * hidden,
      at = (i - 1) * hidden, reverse = i == 2, work = 4 * hidden * hidden * t,
    })
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
  local _, t, c, h, w = table.unpack(x.tensor.shape)
  local kh, kw, f = layer.weight_ih:size(3), layer.weight_ih:size(4), layer.hidden
  return x.trace:add("convlstm", x, out, {
    weight = layer.weight_ih, weight_hh = layer.weight_hh, bias = layer.bias, steps = t, c = c, f = f, h = h, w = w, kh = kh,
    kw = kw, last = layer.last, work = t * h * w * 4 * f * (c + f) * kh * kw,
  }), no_state "ConvLSTM2d"
end

--- True for what must not be taken for a layer's shortcoming.
local function is_grave(message)
  return type(message) == "table" or tostring(message):find("not enough memory", 1, true)
    or tostring(message):find("interrupted!", 1, true)
end

--- Called for each layer in place of its forward. The innermost layer that has no place in a plan is remembered.
local function trace_layer(layer, x, ...)
  if not is_symbol(x) then return layer:forward(x, ...) end
  local write = kinds[layer.kind]
  if write and getmetatable(layer) ~= nn.find_class(layer.kind) then write = nil end
  local result = table.pack(errors.attempt(write or layer.forward, layer, x, ...))
  if result[1] then return table.unpack(result, 2, result.n) end
  if is_grave(result[2]) then error(result[2], 0) end
  error({ layer = layer, message = tostring(result[2]) }, 0)
end

-- ---- improving what was written down ----

local takes_tail = { conv = true, dense = true, scale = true, map = true }

--- How often each value is read.
local function count_uses(steps, output)
  local uses = { [output] = 1 }
  for _, step in ipairs(steps) do
    uses[step.x] = (uses[step.x] or 0) + 1
    if step.other then uses[step.other] = (uses[step.other] or 0) + 1 end
  end
  return uses
end

--- True when y = scale x + shift can go into the weights before it: a channel each, not what flattening made of one.
local function folds(maker, scale)
  local outputs = maker.op == "conv" and maker.f or maker.op == "dense" and maker.to
  return outputs == scale.to and not maker.other
end

--- Puts it there.
local function fold(step, scale)
  local ones = { scale.weight:numel() }
  for d = 2, step.weight:dim() do ones[d] = 1 end
  step.weight = step.weight * scale.weight:reshape(ones)
  step.bias = step.bias and step.bias * scale.weight + scale.bias or scale.bias
end

--- The steps with batch norms, activations and sums in the steps that feed them.
local function fuse(steps, output)
  local uses, makers, list = count_uses(steps, output), {}, {}
  --- The step that makes a value which only one other reads, and to which something can still be done.
  local function open_maker(value)
    local maker = uses[value] == 1 and makers[value]
    return maker and takes_tail[maker.op] and not maker.activation and maker or nil
  end
  local function becomes(maker, step)
    maker.y, makers[step.y] = step.y, maker
  end
  local function later(a, b)
    if not a or not b then return a or b end
    return a.place > b.place and a or b
  end
  --- The sum's maker moves to the sum's place, where the other value exists as well.
  local function join(step)
    local a, b = open_maker(step.x), open_maker(step.other)
    if a and (a.other or a.op == "map") then a = nil end
    if b and (b.other or b.op == "map") then b = nil end
    local maker = step.x ~= step.other and later(a, b)
    if not maker then return false end
    maker.other = maker == a and step.other or step.x
    list[maker.place] = false
    maker.place = #list + 1
    list[maker.place] = maker
    becomes(maker, step)
    return true
  end
  for _, step in ipairs(steps) do
    local maker, done = open_maker(step.x), false
    if step.op == "scale" and maker and folds(maker, step) then
      fold(maker, step)
      becomes(maker, step)
      done = true
    elseif step.op == "map" and not step.other and maker then
      maker.activation, maker.parameter = step.activation, step.parameter
      becomes(maker, step)
      done = true
    elseif step.op == "map" and step.other then
      done = join(step)
    end
    if not done then
      step.place = #list + 1
      list[step.place] = step
      makers[step.y] = step
    end
  end
  local kept = {}
  for _, step in ipairs(list) do
    if step then kept[#kept + 1] = step end
  end
  return kept
end

--- First and last step that needs each value.
local function lifetimes(steps)
  local born, dies = {}, {}
  for i, step in ipairs(steps) do
    born[step.y] = born[step.y] or i
    for _, value in ipairs { step.x, step.y, step.other } do dies[value] = i end
  end
  return born, dies
end

--- Where each value lies in a sample's share of the workspace: the lowest place that is free all its life.
---@return integer[] at  by value
---@return integer       numbers of workspace
local function places(steps, values)
  local born, dies = lifetimes(steps)
  local at, order, size = {}, {}, 0
  for value in pairs(born) do
    if value >= INNER then order[#order + 1] = value end
  end
  table.sort(order, function(a, b) return born[a] < born[b] or (born[a] == born[b] and a < b) end)
  for i, value in ipairs(order) do
    local room, place, taken = (values[value] + LINE - 1) // LINE * LINE, 0, {}
    for j = 1, i - 1 do
      local other = order[j]
      if dies[other] >= born[value] then taken[#taken + 1] = other end
    end
    table.sort(taken, function(a, b) return at[a] < at[b] or (at[a] == at[b] and a < b) end)
    for _, other in ipairs(taken) do
      if at[other] < place + room then place = math.max(place, (at[other] + values[other] + LINE - 1) // LINE * LINE) end
    end
    at[value], size = place, math.max(size, place + room)
  end
  return at, size
end

--- The steps that make 'result' call it OUTPUT.
local function name_output(steps, result)
  for _, step in ipairs(steps) do
    for _, field in ipairs { "x", "y", "other" } do
      if step[field] == result then step[field] = OUTPUT end
    end
  end
end

--- Says of which layer a trace has failed.
local function without_place(net, failure)
  local path = ""
  net:walk(function(at, layer)
    if layer == failure.layer then path = at end
  end)
  return ("%s%s has no place in a plan: %s"):format(path == "" and "" or ("layer %s, "):format(path), failure.layer.kind,
    failure.message)
end

---@class Plan  what net:compile returns; calling it predicts
local Plan = {}
Plan.__index = Plan

--- What the engine takes for a batch of n: images, where a sample has 5 dimensions with its batch.
local function flat_shape(shape, n)
  if #shape < 5 then return { n, table.unpack(shape, 2) } end
  return { n * shape[2], table.unpack(shape, 3) }
end

--- The network's output for a batch.
---@param x Tensor  N x ..., sizes other than N as the example's
---@return Tensor   what net(x) gives in eval mode, without gradients
--- Raises when x has another shape.
function Plan:__call(x)
  local shape = core_tensor.is_tensor(x) and x.shape
  local fits = shape and #shape == #self.input
  for d = 2, #self.input do fits = fits and shape[d] == self.input[d] end
  if not fits then
    errors.raise("plan: input is %s, N x %s expected", shape and table.concat(shape, "x") or type(x),
      table.concat(self.input, "x", 2))
  end
  local n = shape[1]
  if #shape == 5 then x = x:reshape(flat_shape(shape, n)) end
  local y = core.run(self.core, x, flat_shape(self.output, n))
  return #self.output == 5 and y:reshape(n, table.unpack(self.output, 2)) or y
end

function Plan:__tostring()
  return ("plan of %d steps (%s), %d numbers of workspace a sample"):format(#core.steps(self.core),
    table.concat(core.steps(self.core), ", "), self.workspace)
end

--- Finishes a trace whose result is 'out'.
local function build(trace, out)
  out = in_rows(out)
  if out.value == INPUT then out = map(out, out.tensor) end
  local steps = fuse(trace.steps, out.value)
  name_output(steps, out.value)
  local at, size = places(steps, trace.values)
  trace.values[OUTPUT] = trace.values[out.value]
  local values = {}
  for value = 0, #trace.values do
    local lives = value < INNER or at[value]
    values[value + 1] = { size = lives and trace.values[value] or 0, at = at[value] or 0 }
  end
  return core.new(values, steps, size), size
end

--- Runs fn with every layer in eval mode, and puts each back afterwards.
local function in_eval(net, fn)
  local before = {}
  net:walk(function(_, layer) before[layer] = layer.training end)
  local _back <close> = setmetatable({}, { __close = function()
    for layer, training in pairs(before) do layer.training = training end
  end })
  net:eval()
  return fn()
end

--- The plan, or nil and why there is none. Raises where the example does not fit the network.
local function try(net, example)
  if not core_tensor.is_tensor(example) then errors.raise("compile: an example of the input expected, got %s", type(example)) end
  local dims = example:dim()
  if dims < 2 or dims > 5 then errors.raise("compile: the example is %s, N x ... expected", sizes(example)) end
  local _guard <close> = autograd.no_grad()
  local _open <close> = scope.scope()
  local single = example:size(1) == 1
  example = example:narrow(1, 1, 1)
  local values = { [INPUT] = example:numel(), [OUTPUT] = 0 }
  local trace = setmetatable({ batch = 1, single = single, steps = {}, values = values }, Trace)
  local traced, out = in_eval(net, function()
    net(example) -- what does not fit raises here, as it does without a plan
    return errors.attempt(nn.interpret, trace_layer, net, symbol(trace, INPUT, example))
  end)
  if not traced then
    if type(out) ~= "table" or not out.layer then error(out, 0) end
    return nil, without_place(net, out)
  end
  if not is_symbol(out) or out.tensor:size(1) ~= 1 then return nil, "the network gives no output for each sample" end
  local plan, workspace = build(trace, out)
  return setmetatable({ core = plan, input = example.shape, output = out.tensor.shape, workspace = workspace }, Plan)
end

--- Makes a plan of a network: the same numbers to rounding, faster by far for small networks and single images. The plan holds a
--- copy of the weights: compile again after they have changed.
---@param net Module
---@param example Tensor  N x ...; the plan takes any N, but is at its best with one sample where N is 1, else with many
---@return Plan
--- Raises where a layer has no place in a plan, naming it, and where the example does not fit the network.
function compile.plan(net, example)
  local plan, message = try(net, example)
  return plan or errors.raise("compile: %s", message)
end

--- Of a plan's example: what other inputs must have in common with it.
local function shape_of_plan(x) return (x.shape[1] == 1 and "1x" or "Nx") .. table.concat(x.shape, "x", 2) end

--- Appends a network's parameters and buffers to a list: what net:state() finds, without the names, which take longer.
local function append_tensors(layer, list)
  for _, name in ipairs(layer.parameter_names) do list[#list + 1] = layer[name] end
  for _, name in ipairs(layer.buffer_names) do list[#list + 1] = layer[name] end
  for _, name in ipairs(layer.child_names) do append_tensors(layer[name], list) end
  return list
end

--- A function that predicts with a network as it is at each call: by a plan where the network can be one, made anew when
--- weights or the sizes of x have changed, else by the network itself in eval mode. No gradients.
---@param net Module
---@return fun(x: Tensor): Tensor
function compile.predictor(net)
  local plan, sizes_of_plan, weights
  return function(x)
    local found, key = core.checksum(append_tensors(net, {})), core_tensor.is_tensor(x) and shape_of_plan(x)
    if found ~= weights or key ~= sizes_of_plan then
      plan = try(net, x)
      weights, sizes_of_plan = found, key
    end
    if plan then return plan(x) end
    return in_eval(net, function() return autograd.no_grad(net, x) end)
  end
end

return compile
