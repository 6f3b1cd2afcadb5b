--- nn: layers and networks.
---
--- A layer is a class with init (its constructor's arguments) and forward. Each lives in a file of its own,
--- lua/feral/nn/layers/<name in lower case>.lua, which returns the class: nn.Conv2d is nn/layers/conv2d.lua. To add one, add
--- that file.

local autograd = require "feral.tensor.autograd"
local random = require "feral.tensor.random"
local create = require "feral.core.create"
local engine = require "feral.core.engine"
local scope = require "feral.core.scope"
local arith = require "feral.core.arith"
local core = require "feral.core.tensor"
local errors = require "feral.base.errors"

local nn = {}

---@class Module  what all layers are
---@field kind string  the class's name
---@field name string|nil  under which the layer stands in its parent
---@field training boolean  true in train(), false in eval()
---@field frozen boolean|nil  true after freeze(): parameters and statistics stay as they are
local Module = {}
Module.__index = Module
nn.Module = Module

function Module:init() end

function Module:forward() errors.raise("nn.class \"%s\" has no function forward(x)", self.kind) end

local classes = {} -- kind -> class

--- Makes a class of layers. nn.class "Name" returns a table to which forward is added, and init where it is made with arguments.
--- Instances are made by calling the class; the arguments are remembered, since a model file lists them.
---@param kind string
---@return table
function nn.class(kind)
  local class = setmetatable({ kind = kind }, {
    __index = Module,
    __call = function(class, ...)
      local layer = setmetatable({
        kind = kind, training = true, arguments = table.pack(...),
        parameter_names = {}, buffer_names = {}, child_names = {},
      }, class)
      layer:init(...)
      return layer
    end,
  })
  class.__index = class
  class.__call = Module.__call
  class.__tostring = Module.__tostring
  classes[kind] = class
  return class
end

--- Module names of the layers' files, "feral.nn.layers.conv2d" ...
local function layer_files()
  local files = {}
  for _, module in ipairs(engine.modules()) do
    if module:find("^feral%.nn%.layers%.") then files[#files + 1] = module end
  end
  return files
end

--- The class of that kind, built in or made by a script with nn.class; nil where there is none.
---@param kind string
function nn.find_class(kind)
  if not classes[kind] then
    for _, file in ipairs(layer_files()) do
      if file == "feral.nn.layers." .. tostring(kind):lower() then require(file) end
    end
  end
  return classes[kind]
end

--- The names of all layers.
---@return string[]
function nn.kinds()
  for _, file in ipairs(layer_files()) do require(file) end
  local kinds = {}
  for kind in pairs(classes) do kinds[#kinds + 1] = kind end
  table.sort(kinds)
  return kinds
end

--- Adds a parameter: a tensor that training changes.
function Module:add_parameter(name, t)
  self.parameter_names[#self.parameter_names + 1] = name
  self[name] = autograd.requires_grad(t)
end

--- Adds a buffer: a tensor that belongs to the layer's state but has no gradient (running statistics).
function Module:add_buffer(name, t)
  self.buffer_names[#self.buffer_names + 1] = name
  self[name] = scope.keep(t)
end

--- Adds a layer inside this one.
function Module:add_child(name, child)
  if type(child) ~= "table" or not child.forward then
    errors.raise("%s: '%s' must be a layer, got %s", self.kind, name, type(child))
  end
  if not child.child_names then
    errors.raise("%s: '%s' is the class %s, not a layer: call it, nn.%s(...)", self.kind, name, child.kind, child.kind)
  end
  self.child_names[#self.child_names + 1] = name
  self[name] = child
  child.name = name
end

--- Tensors of this size drawn uniformly from [-bound, bound); the usual start of weights with bound = 1/sqrt(fan in).
function nn.uniform(sizes, bound)
  local seed, stream = random.stream()
  return create.uniform_(create.empty(sizes), seed, stream, -bound, bound)
end

local observer, entering, leaving

--- Calls f(layer, output) after each layer's forward while fn runs.
function nn.observe(f, fn)
  local before = observer
  observer = f
  local _done <close> = setmetatable({}, { __close = function() observer = before end })
  return fn()
end

--- True while somebody does: layers then compute one by one, without sharing passes.
function nn.is_observed() return observer ~= nil end

--- Calls enter(layer, input ...) before and leave(layer, output) after each layer's forward while fn runs. Layers compute as
--- they do when nobody looks.
---@param enter fun(layer: Module, ...)
---@param leave fun(layer: Module, output: Tensor)
---@param fn function
function nn.trace(enter, leave, fn)
  local before_entering, before_leaving = entering, leaving
  entering, leaving = enter, leave
  local _done <close> = setmetatable({}, { __close = function() entering, leaving = before_entering, before_leaving end })
  return fn()
end

local interpreter

--- Runs net(...), but with f(layer, ...) in place of each layer's forward: compile.lua writes a network down so.
---@param f fun(layer: Module, ...): any
---@param net Module
function nn.interpret(f, net, ...)
  local before = interpreter
  interpreter = f
  local _done <close> = setmetatable({}, { __close = function() interpreter = before end })
  return net(...)
end

function Module.__call(self, ...)
  if entering then entering(self, ...) end
  local out, second
  if interpreter then
    out, second = interpreter(self, ...)
  else
    out, second = self:forward(...)
  end
  if leaving then leaving(self, out) end
  if observer then observer(self, out) end
  return out, second
end
errors.set_layer_call(Module.__call)

--- Calls visit(path, layer) for this layer and all inside it, in the order in which they were added.
function Module:walk(visit, path)
  visit(path or "", self)
  for _, name in ipairs(self.child_names) do
    self[name]:walk(visit, path and path ~= "" and path .. "." .. name or name)
  end
end

local function collect(self, list_field)
  local found = {}
  self:walk(function(path, layer)
    for _, name in ipairs(layer[list_field]) do
      found[#found + 1] = { path == "" and name or path .. "." .. name, layer[name] }
    end
  end)
  return found
end

--- Pairs {path, tensor} of all parameters, in a fixed order.
function Module:named_parameters() return collect(self, "parameter_names") end

function Module:named_buffers() return collect(self, "buffer_names") end

--- All parameters, for an optimiser. One that stands in two places is there once.
---@return Tensor[]
function Module:parameters()
  local list, seen = {}, {}
  for _, pair in ipairs(self:named_parameters()) do
    local t = pair[2]
    if not seen[t] then list[#list + 1] = t end
    seen[t] = true
  end
  return list
end

--- All parameters and buffers as pairs {path, tensor}: what a model file holds.
function Module:state()
  local list = self:named_parameters()
  for _, pair in ipairs(self:named_buffers()) do list[#list + 1] = pair end
  return list
end

--- Raises unless these are the tensors of a state, by their paths.
local function check_state(state, tensors)
  local known = {}
  for _, pair in ipairs(state) do
    local path, own = pair[1], pair[2]
    local given = tensors[path]
    if not given then errors.raise("load_state: there is no tensor '%s'", path) end
    local a, b = table.concat(own.shape, "x"), table.concat(given.shape, "x")
    if a ~= b then errors.raise("load_state: '%s' is %s, the network expects %s", path, b, a) end
    known[path] = true
  end
  local unknown = {}
  for path in pairs(tensors) do
    if not known[path] then unknown[#unknown + 1] = path end
  end
  table.sort(unknown)
  if #unknown > 0 then errors.raise("load_state: the network has no tensor '%s'", unknown[1]) end
end

--- Copies tensors by their paths into this network. Raises, with nothing changed, where one is missing, has another shape or
--- is none of the network's.
---@param tensors table<string, Tensor>
function Module:load_state(tensors)
  local _guard <close> = autograd.no_grad()
  local state = self:state()
  check_state(state, tensors)
  for _, pair in ipairs(state) do arith.copy_(pair[2], tensors[pair[1]]) end
  return self
end

local function set_all(self, field, value)
  self:walk(function(_, layer) layer[field] = value end)
  return self
end

--- To training mode: dropout drops, batch norm uses and follows the batch's statistics.
function Module:train() return set_all(self, "training", true) end

--- To evaluation mode.
function Module:eval() return set_all(self, "training", false) end

--- Nothing in this layer is trained any more: no gradients, and running statistics stay.
function Module:freeze()
  set_all(self, "frozen", true)
  for _, p in ipairs(self:parameters()) do autograd.requires_grad(p, false) end
  return self
end

function Module:unfreeze()
  set_all(self, "frozen", nil)
  for _, p in ipairs(self:parameters()) do autograd.requires_grad(p, true) end
  return self
end

function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do autograd.zero_grad(p) end
end

--- The number of numbers that training may change, or of all in parameters when all is true.
function Module:num_parameters(all)
  local count = 0
  for _, p in ipairs(self:parameters()) do
    if all or core.node(p) then count = count + p:numel() end
  end
  return count
end

--- A plan: what the network predicts, in one C call. See compile.lua.
---@param example Tensor  N x ...; the plan takes any N
---@return fun(x: Tensor): Tensor
function Module:compile(example) return require("feral.plan.compile").plan(self, example) end

local function own_parameters(layer)
  local count = 0
  for _, name in ipairs(layer.parameter_names) do count = count + layer[name]:numel() end
  return count
end

local function thousands(n)
  return (tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

--- A table of the layers with output shapes and parameters, for an input of this shape (without the batch).
---@param ... integer  C, H, W
---@return string
function Module:summary(...)
  local sizes = type((...)) == "table" and (...) or { ... }
  local _open <close> = scope.scope()
  local shapes, was_training = {}, self.training
  local _restored <close> = setmetatable({}, { __close = function() set_all(self, "training", was_training) end })
  self:eval()
  nn.observe(function(layer, out) shapes[layer] = table.concat(out.shape, "x", 2) end, function()
    autograd.no_grad(self, create.full({ 1, table.unpack(sizes) }, 0))
  end)
  local lines = { ("%-28s %-16s %-14s %12s"):format("layer", "kind", "output", "parameters") }
  self:walk(function(path, layer)
    if #layer.child_names > 0 and path == "" then return end
    lines[#lines + 1] = ("%-28s %-16s %-14s %12s"):format(path, layer.kind, shapes[layer] or "",
      thousands(own_parameters(layer)))
  end)
  lines[#lines + 1] = ("%d layers, %s parameters, %s of them trainable"):format(#lines - 1,
    thousands(self:num_parameters(true)), thousands(self:num_parameters()))
  return table.concat(lines, "\n")
end

--- Where a training step's time and memory go, layer by layer; print it to see a table. See help("profile").
---@param x Tensor  a batch
---@param options table|nil  backward = true, loss, optimizer, times = 5
---@return Profile
function Module:profile(x, options) return require("feral.nn.profile").run(self, x, options) end

local function argument_text(value)
  if type(value) == "table" and value.kind then return value.kind end
  if type(value) ~= "table" then return tostring(value) end
  local keys, parts = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do
    parts[i] = type(key) == "number" and argument_text(value[key]) or ("%s = %s"):format(key, argument_text(value[key]))
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- Conv2d(1, 32, 3, {padding = 1}); containers list what is inside.
function Module:__tostring()
  if #self.child_names > 0 then
    local lines = {}
    for i, name in ipairs(self.child_names) do
      lines[i] = ("  (%s) %s"):format(name, tostring(self[name]):gsub("\n", "\n  "))
    end
    return ("%s(\n%s\n)"):format(self.kind, table.concat(lines, "\n"))
  end
  local parts = {}
  for i = 1, self.arguments.n do parts[i] = argument_text(self.arguments[i]) end
  return ("%s(%s)"):format(self.kind, table.concat(parts, ", "))
end

--- A layer's arguments as a list; where there is a nil among them, by their places, since a list in a file has no holes.
local function describe_arguments(arguments, owner)
  local list, full = {}, true
  for i = 1, arguments.n do
    list[i] = nn.describe(arguments[i], owner)
    full = full and (arguments[i] ~= nil or i == arguments.n)
  end
  if full then return list end
  local by_place = { count = arguments.n }
  for i = 1, arguments.n do by_place[tostring(i)] = list[i] end
  return by_place
end

--- What a network is made of, as plain data: {kind, arguments}, layers among the arguments as such tables again.
--- nn.build makes the network from it (with fresh weights).
function nn.describe(value, owner)
  if type(value) == "table" and value.kind and value.forward then
    return { kind = value.kind, arguments = describe_arguments(value.arguments, value.kind) }
  elseif type(value) == "table" then
    local copy = {}
    for key, v in pairs(value) do copy[key] = nn.describe(v, owner) end
    return copy
  elseif type(value) == "function" or type(value) == "userdata" then
    errors.raise("a %s holds a %s and so cannot be written to a file; make a class of it with nn.class", owner, type(value))
  end
  return value
end

--- A table with every value built; nil, message where that fails.
local function build_all(values)
  local copy = {}
  for key, v in pairs(values) do
    local built, message = nn.build(v)
    if message then return nil, message end
    copy[key] = built
  end
  return copy
end

local function build_layer(kind, arguments)
  local class = type(kind) == "string" and nn.find_class(kind)
  if not class then
    return nil, ("layer '%s' is unknown%s; if it is your own, make its class (nn.class) before loading"):format(tostring(kind),
      errors.hint(kind, nn.kinds()))
  end
  if type(arguments) ~= "table" then return nil, ("layer %s: its arguments are no list"):format(kind) end
  local built, message = build_all(arguments)
  if not built then return nil, message end
  local list, count = built, #built
  if math.type(built.count) == "integer" then -- by their places
    list, count = {}, math.min(built.count, 100)
    for i = 1, count do list[i] = built[tostring(i)] end
  end
  local made, layer = errors.attempt(class, table.unpack(list, 1, count))
  if not made then return nil, ("layer %s: %s"):format(kind, layer) end
  return layer
end

--- Makes the network that nn.describe described. Returns nil, message when a layer is unknown or its arguments are wrong.
function nn.build(description)
  if type(description) ~= "table" then return description end
  if description.kind == nil then return build_all(description) end
  return build_layer(description.kind, description.arguments or {})
end

return setmetatable(nn, {
  --- nn.Conv2d loads nn/layers/conv2d.lua
  __index = function(self, kind)
    local class = nn.find_class(kind)
    if not class then errors.raise("nn has no layer '%s'%s", tostring(kind), errors.hint(kind, nn.kinds())) end
    rawset(self, kind, class)
    return class
  end,
})
