--- compile.lua: a network that only predicts becomes a plan, one C call a batch: net:compile(example).
---
--- One forward of the example, in eval mode, is traced: layers of a known kind (plan/kinds.lua) write down what they compute;
--- containers and layers of a script's own are run with a stand-in for the tensor (plan/trace.lua). What is written down is then
--- improved (plan/improve.lua) and handed to the engine.

local core = require "feral.core.plan"
local core_tensor = require "feral.core.tensor"
local scope = require "feral.core.scope"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local improve = require "feral.plan.improve"
local kinds = require "feral.plan.kinds"
local nn = require "feral.nn"
local trace = require "feral.plan.trace"

local compile = {}

local INPUT, OUTPUT = 0, 1 -- numbers of values, as in kernels/plan.h

--- True for what must not be taken for a layer's shortcoming.
local function is_grave(message)
  return type(message) == "table" or tostring(message):find("not enough memory", 1, true)
    or tostring(message):find("interrupted!", 1, true)
end

--- Called for each layer in place of its forward. The innermost layer that has no place in a plan is remembered.
local function trace_layer(layer, x, ...)
  if not trace.is_symbol(x) then return layer:forward(x, ...) end
  local write = kinds[layer.kind]
  if write and getmetatable(layer) ~= nn.find_class(layer.kind) then write = nil end
  local result = table.pack(errors.attempt(write or layer.forward, layer, x, ...))
  if result[1] then return table.unpack(result, 2, result.n) end
  if is_grave(result[2]) then error(result[2], 0) end
  error({ layer = layer, message = tostring(result[2]) }, 0)
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

--- Finishes what was written down, whose result is 'out'.
---@param record Trace
---@param out Symbol
local function build(record, out)
  out = trace.in_rows(out)
  if out.value == INPUT then out = trace.map(out, out.tensor) end
  local steps, sizes = improve.fuse(record.steps, out.value), record.values
  name_output(steps, out.value)
  local at, size = improve.places(steps, sizes)
  sizes[OUTPUT] = sizes[out.value]
  local values = {}
  for value = 0, #sizes do
    local lives = value <= OUTPUT or at[value]
    values[value + 1] = { size = lives and sizes[value] or 0, at = at[value] or 0 }
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
  if dims < 2 or dims > 5 then errors.raise("compile: the example is %s, N x ... expected", trace.sizes(example)) end
  local _guard <close> = autograd.no_grad()
  local _open <close> = scope.scope()
  local single = example:size(1) == 1
  example = example:narrow(1, 1, 1)
  local record, input = trace.begin(example, single)
  local traced, out = in_eval(net, function()
    net(example) -- what does not fit raises here, as it does without a plan
    return errors.attempt(nn.interpret, trace_layer, net, input)
  end)
  if not traced then
    if type(out) ~= "table" or not out.layer then error(out, 0) end
    return nil, without_place(net, out)
  end
  if not trace.is_symbol(out) or out.tensor:size(1) ~= 1 then return nil, "the network gives no output for each sample" end
  local plan, workspace = build(record, out)
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
