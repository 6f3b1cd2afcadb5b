--- trace.lua: what stands for a tensor while a network's steps are written down for a plan.

local errors = require "feral.base.errors"
local layouts = require "feral.plan.layouts"

local trace = {}

--- A tensor's sizes as text.
function trace.sizes(t) return table.concat(t.shape, "x") end

local sizes = trace.sizes
local INPUT, OUTPUT = 0, 1 -- numbers of values, as in kernels/plan.h

--- The steps of one network while they are written down.
---@class Trace
---@field batch integer    samples that are traced
---@field single boolean   the plan is for one sample at a time
---@field steps table[]    {op, x, y, other, times, work, ...}
---@field values integer[] elements a sample, by value
local Trace = {}
Trace.__index = Trace

--- Stands for a tensor of the network: 'tensor' is what it was in the example, 'value' where its values will be. With 'order'
--- {H W, C} they lie channels last though the tensor is flat. 'layout' {name = ...} says what the dimensions are (layouts.lua);
--- the name is missing until a layer takes an input of five.
---@class Symbol
local Symbol = {}

---@param record Trace
function trace.symbol(record, value, tensor, layout, order)
  if type(layout) ~= "table" then layout = { name = layout } end
  return setmetatable({ trace = record, value = value, tensor = tensor, layout = layout, order = order }, Symbol)
end

--- Raises unless x is what the layer takes. Where nobody knew it before, it is from now on.
---@param x Symbol
---@param name string  of a layout
---@param who string   takes it
function trace.expect(x, name, who)
  x.layout.name = x.layout.name or name
  if x.layout.name ~= name then
    errors.raise("a plan has %s of %s (%s), not of %s (%s)", who, name, layouts.dimensions[name], x.layout.name, sizes(x.tensor))
  end
end

function trace.is_symbol(x) return getmetatable(x) == Symbol end

--- A record of no steps yet and the symbol of its input.
---@param example Tensor  one sample
---@param single boolean
---@return Trace
---@return Symbol
function trace.begin(example, single)
  local record = { batch = 1, single = single, steps = {}, values = { [INPUT] = example:numel(), [OUTPUT] = 0 } }
  return record, trace.symbol(setmetatable(record, Trace), INPUT, example, layouts.of_input(example:dim()))
end

--- Adds a step from x to a new value, which the tensor 'out' was in the example, of x's layout unless another is named.
---@return Symbol
function Trace:add(op, x, out, fields, layout)
  local value = fields.y or #self.values + 1
  self.values[value] = out:numel() // self.batch
  local step = { op = op, x = x.value, y = value, rows = 1, from = 0, to = 0, at = 0 }
  step.times = x.tensor:size(1) // self.batch
  step.work = self.values[x.value] + self.values[value]
  for name, field in pairs(fields) do step[name] = field end
  self.steps[#self.steps + 1] = step
  return trace.symbol(self, value, out, layout or x.layout)
end

--- The symbol with its elements in the order in which a person sees them.
function trace.in_rows(x)
  if not x.order then return x end
  return x.trace:add("turn", x, x.tensor, { rows = x.order[1], to = x.order[2] })
end

--- Pixels and channels of images, steps and features of sequences, 1 and the features of a row: as they lie in memory.
---@param x Symbol
function trace.rows_of(x)
  local s, name = x.tensor.shape, x.layout.name
  if name == "images" then return s[3] * s[4], s[2] end
  if name == "feature sequences" then return s[2], s[3] end
  if name == "features" then return 1, s[2] end
  errors.raise("a plan takes %s step by step, not as one (%s)", name or "sequences of images", sizes(x.tensor))
end

--- The step y = activation(x), 'out' in the example.
function trace.map(x, out, activation, parameter)
  local y = x.trace:add("map", x, out, { activation = activation, parameter = parameter })
  y.trace.steps[#y.trace.steps].from = out:numel() // out:size(1)
  y.trace.steps[#y.trace.steps].to = out:numel() // out:size(1)
  y.order = x.order
  return y
end

--- The step y = a + b.
function trace.sum(a, b, out)
  a, b = trace.in_rows(a), trace.in_rows(b)
  local y = trace.map(a, out)
  a.trace.steps[#a.trace.steps].other = b.value
  return y
end

-- What a script's own forward may do with a symbol; anything else ends the trace.
local methods = {}

function methods:dim() return self.tensor:dim() end
function methods:size(d) return self.tensor:size(d) end
function methods:numel() return self.tensor:numel() end

function methods:select(dim, index)
  local t, step = self.tensor, layouts.of_step(self.layout.name)
  local out = t:select(dim, index)
  if dim ~= 2 or not step then
    errors.raise("a plan can select a step of N x T x F or N x T x C x H x W, not dimension %s of %s", tostring(dim), sizes(t))
  end
  local steps, features = t:size(2), out:numel() // out:size(1)
  return self.trace:add("select", self, out, { rows = steps, to = features, at = (index < 0 and index + steps or index - 1) },
    step)
end

for _, name in ipairs { "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh" } do
  methods[name] = function(self, parameter)
    local f = require("feral.tensor.activations")[name]
    local default = name == "elu" and 1 or name == "leaky_relu" and 0.01 or 0
    return trace.map(self, f(self.tensor, parameter), name, parameter or default)
  end
end

function Symbol.__index(self, key)
  if key == "shape" then return rawget(self, "tensor").shape end
  if key == "order" or key == "tensor" or key == "value" or key == "trace" or key == "layout" then return nil end
  return methods[key] or errors.raise("a plan knows no x:%s", tostring(key))
end

function Symbol.__len(self) return #self.tensor end

function Symbol.__add(a, b)
  if not trace.is_symbol(a) or not trace.is_symbol(b) or sizes(a.tensor) ~= sizes(b.tensor) then
    errors.raise("a plan adds tensors of one shape only")
  end
  return trace.sum(a, b, a.tensor + b.tensor)
end

return trace
