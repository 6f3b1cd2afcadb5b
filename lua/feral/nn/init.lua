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
local describe = require "feral.nn.describe"

local nn = {}

---@class Module  what all layers are
---@field kind string  the class's name
---@field name string|nil  under which the layer stands in its parent; of a layer in two places, in the last
---@field training boolean  true in train(), false in eval()
---@field frozen boolean|nil  true after freeze(): parameters and statistics stay as they are
local Module = {}
Module.__index = Module
nn.Module = Module

--- Called with the constructor's arguments when a layer is made; a class of layers writes its own.
function Module:init() end

--- Computes the layer's output; layer(x) calls it.
---@param x Tensor
---@return Tensor
function Module:forward() errors.raise("nn.class \"%s\" has no function forward(x)", self.kind) end

local classes = {} -- kind -> class
local places = {}  -- kind -> where a script made that class
local version = 0  -- of all that layers are made of

--- A counter that goes up when a layer is given a child, a parameter or a field that it did not have. Fields that are
--- there already can change without it: who remembers a network looks at those himself, as plan/watch.lua does.
---@return integer
---@internal
function nn.version() return version end

--- True for a layer, not for its class.
function nn.is_layer(value) return type(value) == "table" and rawget(value, "child_names") ~= nil end

local is_layer = nn.is_layer

--- Layers while their init runs.
local constructing = setmetatable({}, { __mode = "k" })

--- Makes an instance. What the constructor was given is copied twice, tables and all: init may keep what it gets, the caller may
--- change what he gave, and the description (nn/describe.lua) still says with what the layer was made.
local function make(class, ...)
  local arguments = table.pack(...)
  local layer = setmetatable({
    kind = class.kind, training = true, arguments = describe.copy(arguments),
    parameter_names = {}, buffer_names = {}, child_names = {},
  }, class)
  constructing[layer] = true
  layer:init(table.unpack(describe.copy(arguments), 1, arguments.n))
  constructing[layer] = nil
  rawset(layer, "made", describe.as_made(layer))
  version = version + 1
  return layer
end

--- Raises where the name cannot be that of a class made at this place. The same line may make it again: scripts are run again.
local function check_class_name(kind, place)
  if type(kind) ~= "string" or not kind:find("^[%a_][%w_]*$") then
    errors.raise("nn.class: a name of letters and digits expected, got %s", tostring(kind))
  end
  local taken = nn.find_class(kind) or rawget(nn, kind)
  if taken and places[kind] == place then return end
  if taken and places[kind] then
    errors.raise("nn.class: there is a class '%s' already, made at %s: take another name, or call nn.forget \"%s\" first",
      kind, places[kind], kind)
  elseif taken then
    errors.raise("nn.class: '%s' is a name of nn's own: take another", kind)
  end
end

--- Makes a class of layers. nn.class "Name" returns a table to which forward is added, and init where it is made with arguments.
--- Instances are made by calling the class; the arguments are remembered, since a model file lists them. In init, a layer that is
--- assigned to a field becomes a child of that name (self.conv = nn.Conv2d(...)), a tensor that requires a gradient a parameter.
---@param kind string
---@return table
--- Raises when there is a class of that name already, nn's own or one made at another line: see nn.forget.
function nn.class(kind)
  local source = debug.getinfo(2, "S").source
  if source == "=[C]" or not errors.is_library(source) then
    local place = errors.script_line() or "the prompt"
    check_class_name(kind, place)
    rawset(nn, kind, nil)
    places[kind] = place
  end
  local class = setmetatable({ kind = kind }, { __index = Module, __call = make })
  class.__index = class
  class.__newindex = Module.__newindex
  class.__call = Module.__call
  class.__tostring = Module.__tostring
  classes[kind] = class
  return class
end

--- Forgets a script's class, so that its name is free: for the prompt, where a class is written again and again. Layers that
--- were made of it go on, but are not saved any more; so it is when the line that made a class makes it again.
---@param kind string
---@return boolean  whether there was one
function nn.forget(kind)
  if classes[kind] and not places[kind] then errors.raise("nn.forget: '%s' is a class of nn's own", kind) end
  local known = classes[kind] ~= nil
  classes[kind], places[kind] = nil, nil
  rawset(nn, kind, nil)
  return known
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
---@internal
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

--- Raises unless the name is free for something that a path can lead to.
local function check_name(self, what, name)
  if type(name) ~= "string" or name == "" or name:find(".", 1, true) then
    errors.raise("%s: a %s's name must be a string without dots, got %s", self.kind, what, tostring(name))
  end
  if rawget(self, name) or type(self[name]) == "function" then
    errors.raise("%s: there is '%s' already, a %s of that name cannot be added", self.kind, name, what)
  end
end

--- Adds a parameter: a tensor that training changes.
function Module:add_parameter(name, t)
  check_name(self, "parameter", name)
  rawset(self, name, autograd.requires_grad(t))
  self.parameter_names[#self.parameter_names + 1] = name
  version = version + 1
end

--- Adds a buffer: a tensor that belongs to the layer's state but has no gradient (running statistics).
function Module:add_buffer(name, t)
  check_name(self, "buffer", name)
  rawset(self, name, scope.keep(t))
  self.buffer_names[#self.buffer_names + 1] = name
  version = version + 1
end

--- True when a layer is another, or has it somewhere inside.
local function contains(layer, other)
  if layer == other then return true end
  for _, name in ipairs(layer.child_names) do
    local child = rawget(layer, name)
    if is_layer(child) and contains(child, other) then return true end
  end
  return false
end

--- Raises unless the value is a layer that can stand in this one. What is in its init yet stands in no other.
local function check_child(self, name, child)
  if type(child) ~= "table" or not child.forward then
    errors.raise("%s: '%s' must be a layer, got %s", self.kind, name, type(child))
  end
  if not is_layer(child) then
    errors.raise("%s: '%s' is the class %s, not a layer: call it, nn.%s(...)", self.kind, name, child.kind, child.kind)
  end
  if not constructing[self] and contains(child, self) then
    errors.raise("%s: '%s' has this layer inside it, and so cannot stand in it", self.kind, name)
  end
end

--- Adds a layer inside this one; self.name = child does the same where there is no such field yet.
---@param name string
---@param child Module
--- Raises when the name is taken: see replace.
function Module:add_child(name, child)
  check_name(self, "layer", name)
  check_child(self, name, child)
  rawset(self, name, child)
  rawset(child, "name", name)
  self.child_names[#self.child_names + 1] = name
  version = version + 1
end

--- Puts a layer where another stands.
local function put(self, name, child)
  check_child(self, name, child)
  local before = rawget(self, name)
  rawset(self, name, child)
  rawset(child, "name", name)
  version = version + 1
  return before
end

local function is_child_name(self, name)
  for _, known in ipairs(self.child_names) do
    if known == name then return true end
  end
  return false
end

--- The layer in which the last name of a path stands, and that name; nil where there is no such place.
local function place_of(self, path)
  local parent, name = self, tostring(path)
  while name:find(".", 1, true) do
    local first, rest = name:match("^([^.]*)%.(.*)$")
    if not is_child_name(parent, first) then return nil end
    parent, name = parent[first], rest
  end
  return is_child_name(parent, name) and parent or nil, name
end

--- Paths of all layers inside this one.
local function paths_of(self)
  local paths = {}
  self:walk(function(path) paths[#paths + 1] = path ~= "" and path or nil end)
  return paths
end

--- Puts another layer in the place of one.
---@param path string  as in summary(): "features.3", "4.main.1"
---@param layer Module
---@return Module  the layer that stood there
--- Raises when there is no such place.
function Module:replace(path, layer)
  local parent, name = place_of(self, path)
  if not parent then
    errors.raise("replace: there is no layer '%s' in this %s%s", tostring(path), self.kind, errors.hint(path, paths_of(self)))
  end
  return put(parent, name, layer)
end

--- net[i] = layer: in the i-th layer's place, or behind the last.
local function put_at(self, i, layer)
  local names = self.child_names
  if getmetatable(self).__index == getmetatable(self) then
    errors.raise("%s: its layers have names, not numbers; got [%d]", self.kind, i)
  elseif i < 1 or i > #names + 1 then
    errors.raise("%s: there are %d layers, got [%d]", self.kind, #names, i)
  elseif names[i] then
    put(self, names[i], layer)
  else
    self:add_child(tostring(i), layer)
  end
end

--- A leaf of the tape, as tensors are that somebody has called requires_grad() on.
local function is_leaf(value)
  local node = core.node(value)
  return node ~= nil and node.tensor ~= nil
end

--- A field that the layer did not have: Lua comes here for no other, so that layers are as fast as plain tables. A layer becomes
--- a child; in init, a tensor that requires a gradient becomes a parameter. Over a child that is there a layer can be assigned as
--- well: all that look for children look for their names, and take what stands there.
function Module.__newindex(self, key, value)
  version = version + 1
  if math.type(key) == "integer" then
    put_at(self, key, value)
  elseif is_layer(value) then
    self:add_child(key, value)
  elseif constructing[self] and is_leaf(value) then
    self:add_parameter(key, value)
  else
    rawset(self, key, value)
  end
end

--- Lets the layers of a class be reached by their numbers too, net[1], and counted, #net: for containers of a row of layers.
function nn.numbered(class)
  function class.__index(self, key)
    if math.type(key) == "integer" then
      local name = self.child_names[key]
      return name and self[name]
    end
    return class[key]
  end
  function class.__len(self) return #self.child_names end
end

--- Tensors of this size drawn uniformly from [-bound, bound); the usual start of weights with bound = 1/sqrt(fan in).
function nn.uniform(sizes, bound)
  local seed, stream = random.stream()
  return create.uniform_(create.empty(sizes), seed, stream, -bound, bound)
end

local observer, entering, leaving

--- Calls f(layer, output) after each layer's forward while fn runs.
---@internal
function nn.observe(f, fn)
  local before = observer
  observer = f
  local _done <close> = setmetatable({}, { __close = function() observer = before end })
  return fn()
end

--- True while somebody does: layers then compute one by one, without sharing passes.
---@internal
function nn.is_observed() return observer ~= nil end

--- Calls enter(layer, input ...) before and leave(layer, output) after each layer's forward while fn runs. Layers compute as
--- they do when nobody looks.
---@param enter fun(layer: Module, ...)
---@param leave fun(layer: Module, output: Tensor)
---@param fn function
---@internal
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
---@internal
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

--- The layer that stands under this name now.
local function child_of(self, name)
  local child = rawget(self, name)
  if is_layer(child) then return child end
  errors.raise("%s: '%s' was a layer and is %s now: put a layer there", self.kind, name,
    child == nil and "nothing" or "a " .. type(child))
end

--- Calls visit(path, layer) for this layer and all inside it, in the order in which they were added.
function Module:walk(visit, path)
  visit(path or "", self)
  for _, name in ipairs(self.child_names) do
    child_of(self, name):walk(visit, path and path ~= "" and path .. "." .. name or name)
  end
end

--- Appends {path, tensor} of a layer's own parameters or buffers. One that was set to nil is there no longer.
local function collect_own(layer, path, list_field, found)
  for _, name in ipairs(layer[list_field]) do
    local t = rawget(layer, name)
    if t ~= nil and not core.is_tensor(t) then
      errors.raise("%s: '%s' was a tensor and is a %s now", layer.kind, name, type(t))
    end
    if t then found[#found + 1] = { path == "" and name or path .. "." .. name, t } end
  end
end

local function collect(self, list_field)
  local found = {}
  self:walk(function(path, layer) collect_own(layer, path, list_field, found) end)
  return found
end

--- Pairs {path, tensor} of all parameters, in a fixed order.
function Module:named_parameters() return collect(self, "parameter_names") end

--- Pairs {path, tensor} of all buffers (running statistics), in a fixed order.
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

--- Forgets the gradients of all parameters.
function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do autograd.zero_grad(p) end
end

--- The number of elements of the parameters that training may change; of all parameters when all is true.
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

--- Where a training step's time and memory go, layer by layer; print it to see a table. See help("profile").
---@param x Tensor  a batch
---@param options table|nil  backward = true, loss, optimizer, times = 5
---@return Profile
function Module:profile(x, options) return require("feral.nn.profile").run(self, x, options) end

--- What a network is made of, as plain data: see nn/describe.lua. nn.build makes the network from it, with fresh weights.
---@param net Module
---@return table
--- Raises, naming the layer, where something cannot be rebuilt from a file: a function, a forward of a layer's own.
function nn.describe(net) return describe.describe(nn, net) end

--- Makes the network that nn.describe described. Returns nil, message when a layer is unknown or its arguments are wrong.
---@param description table
---@return Module|nil, string|nil
function nn.build(description) return describe.build(nn, description) end

for _, file in ipairs { "feral.nn.freeze", "feral.nn.text" } do
  for name, method in pairs(require(file)) do Module[name] = method end
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
