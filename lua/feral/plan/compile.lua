--- compile.lua: a network that only predicts becomes a plan, one C call a batch: net:compile(example).
---
--- One forward of the example, in eval mode, is traced: layers of a known kind (plan/kinds.lua) write down what they compute;
--- containers and layers of a script's own are run with a stand-in for the tensor (plan/trace.lua). What is written down is then
--- improved (plan/improve.lua) and handed to the engine.

local arith = require "feral.core.arith"
local core = require "feral.core.plan"
local core_tensor = require "feral.core.tensor"
local create = require "feral.core.create"
local index = require "feral.core.index"
local reduce = require "feral.core.reduce"
local scope = require "feral.core.scope"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local improve = require "feral.plan.improve"
local kinds = require "feral.plan.kinds"
local layouts = require "feral.plan.layouts"
local nn = require "feral.nn"
local random = require "feral.tensor.random"
local trace = require "feral.plan.trace"
local watch = require "feral.plan.watch"

local compile = {}

local INPUT, OUTPUT = 0, 1 -- numbers of values, as in kernels/plan.h

--- True for what must not be taken for a layer's shortcoming.
local function is_grave(message)
  return type(message) == "table" or tostring(message):find("not enough memory", 1, true)
    or tostring(message):find("interrupted!", 1, true)
end

--- How layers of this kind are written down; nil for what is not of the library's class, or has a forward of its own.
local function writer_of(layer)
  if getmetatable(layer) ~= nn.find_class(layer.kind) or rawget(layer, "forward") then return nil end
  return kinds[layer.kind]
end

--- Called for each layer in place of its forward. The innermost layer that has no place in a plan is remembered.
local function trace_layer(layer, x, ...)
  if not trace.is_symbol(x) then return layer:forward(x, ...) end
  local write = writer_of(layer)
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

--- Why a layer has no place in a plan, from what was raised in its forward: operations of the engine see a table where a symbol
--- stands for the tensor.
local function reason_of(message)
  if not message:find("got table", 1, true) then return message end
  return ("its forward uses an operation that plans do not know, beside those on x itself (%s)"):format(message)
end

--- Says of which layer a trace has failed.
local function without_place(net, failure)
  local path = ""
  net:walk(function(at, layer)
    if layer == failure.layer then path = at end
  end)
  return ("%s%s has no place in a plan: %s"):format(path == "" and "" or ("layer %s, "):format(path), failure.layer.kind,
    reason_of(failure.message))
end

-- How far a plan's values may be from the network's, of the largest: sums in another order, and scales folded into weights.
local ROUNDING = core_tensor.real == "f64" and 1e-7 or 2e-3

--- Where the network's values are finite, how far the plan's are off, and the largest magnitude.
local function compare(got, expected)
  local finite = arith.eq(arith.sub(expected, expected), 0)
  local off = index.where(finite, arith.abs(arith.sub(got, expected)), 0)
  return create.item((reduce.max(off))), create.item((reduce.max(index.where(finite, arith.abs(expected), 0))))
end

--- Raises nothing; nil when the plan gives the network's output, else what is wrong.
local function check_plan(plan, example, expected)
  local off, largest = compare(plan(example), expected)
  if off <= ROUNDING * largest + 1e-6 then return nil end
  return ("the plan's values are up to %g off from the network's, whose largest is %g: a layer of a known kind computes what "
    .. "its kind does not"):format(off, largest)
end

--- The example, or noise where all its values are the same: little shows in what a network makes of zeros.
local function probe_of(example)
  if create.item((reduce.max(example))) > create.item((reduce.min(example))) then return example end
  return create.uniform_(create.empty(example.shape), 1, random.streams.probe, -1, 1)
end

---@class Plan  what net:compile returns; calling it predicts
local Plan = {}
Plan.__index = Plan

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
  if self.takes == "image sequences" then x = x:reshape(layouts.engine_shape(self.takes, shape, n)) end
  local y = core.run(self.core, x, layouts.engine_shape(self.gives, self.output, n))
  return self.gives == "image sequences" and y:reshape(n, table.unpack(self.output, 2)) or y
end

function Plan:__tostring()
  return ("plan of %d steps (%s), %d elements of workspace a sample"):format(#core.steps(self.core),
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
  example = probe_of(example:narrow(1, 1, 1))
  local record, input = trace.begin(example, single)
  local expected
  local traced, out = in_eval(net, function()
    expected = net(example) -- what does not fit raises here, as it does without a plan
    return errors.attempt(nn.interpret, trace_layer, net, input)
  end)
  if not traced then
    if type(out) ~= "table" or not out.layer then error(out, 0) end
    return nil, without_place(net, out)
  end
  if not trace.is_symbol(out) or out.tensor:size(1) ~= 1 then return nil, "the network gives no output for each sample" end
  if not input.layout.name then return nil, "no layer says whether the input is sequences of images or volumes" end
  local core_plan, workspace = build(record, out)
  local plan = setmetatable({
    core = core_plan, workspace = workspace, input = example.shape, takes = input.layout.name, output = out.tensor.shape,
    gives = out.layout.name,
  }, Plan)
  local wrong = check_plan(plan, example, expected)
  if wrong then return nil, wrong, true end
  return plan
end

--- Makes a plan of a network: the same values to rounding, faster by far for small networks and single images. The plan holds a
--- copy of the weights: compile again after they have changed.
---@param net Module
---@param example Tensor  N x ...; the plan takes any N, but is at its best with one sample where N is 1, else with many
---@return Plan
--- Raises where a layer has no place in a plan, naming it, where the plan gives other values than the network, and where the
--- example does not fit the network.
function compile.plan(net, example)
  local plan, message = try(net, example)
  return plan or errors.raise("compile: %s", message)
end

--- Whether a plan that was made for one input's sizes serves another's: those of a sample, and whether there is one or many.
local function serves(sizes, other)
  if not sizes or #sizes ~= #other or (sizes[1] == 1) ~= (other[1] == 1) then return false end
  for d = 2, #sizes do
    if sizes[d] ~= other[d] then return false end
  end
  return true
end

local warned = setmetatable({}, { __mode = "k" }) -- networks whose plan was wrong

--- Says once of a network that its plan is not used, since that is a mistake somewhere and not a lack.
local function warn(net, message)
  if not warned[net] then io.stderr:write("feral: a network predicts layer by layer: ", message, "\n") end
  warned[net] = true
end

--- A function that predicts with a network as it is at each call: by a plan where the network can be one and the plan's values
--- are the network's, made anew when weights, layers, their settings or the sizes of x have changed (plan/watch.lua), else by the
--- network itself in eval mode. No gradients.
---@param net Module
---@return fun(x: Tensor): Tensor
function compile.predictor(net)
  local plan, sizes, seen
  local function renew(x)
    local message, wrong
    plan, message, wrong = try(net, x)
    if wrong then warn(net, message) end
    seen, sizes = watch.look(net), x.shape
  end
  return function(x)
    if not core_tensor.is_tensor(x) or not serves(sizes, x.shape) or watch.has_changed(seen) then renew(x) end
    if plan then return plan(x) end
    local y = in_eval(net, function() return autograd.no_grad(net, x) end)
    if watch.has_changed(seen) then seen = watch.look(net) end -- a forward may write into fields
    return y
  end
end

return compile
