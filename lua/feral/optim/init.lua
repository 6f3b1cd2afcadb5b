--- optim: optimisers, schedules of their learning rates, clipping and averaging.
---
---     local opt = optim.Adam(net:parameters(), { lr = 1e-3 })
---     opt:zero_grad()
---     loss:backward()
---     opt:step()
---
--- Names, defaults and formulas are PyTorch's. Every option is a field that may be changed between steps (opt.lr = 1e-4).
---
--- Instead of a list of parameters an optimiser takes groups with options of their own, and the optimiser's for the rest:
---
---     local opt = optim.SGD({ { params = body:parameters(), lr = 1e-3 }, { params = head:parameters() } }, { lr = 1e-2 })
---     local opt = optim.AdamW(optim.decay_groups(net, 0.05), { lr = 1e-3 })   -- biases and norms do not decay
---
--- opt.groups are tables of those options (opt.groups[1].weight_decay = 0). A group's own lr is a part of the optimiser's and
--- keeps that part: schedules, and opt.lr = ..., move all groups in proportion. (PyTorch's schedules count from each group's lr,
--- which is the same but for cosine's eta_min and onecycle's max_lr.)

local core = require "feral.core.optim"
local arith = require "feral.core.arith"
local create = require "feral.core.create"
local scope = require "feral.core.scope"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local parameters = require "feral.optim.parameters"

local optim = {}

---@class Optimiser
---@field kind string  "SGD", "Adam" ...
---@field lr number  learning rate
---@field params Tensor[]  of all groups, one behind the other
---@field groups table[]   what each group has of its own, {params, lr_part, first, ...}; the rest is the optimiser's
---@field steps integer[]  how often each parameter has been changed
---@field states table<string, Tensor>[]  what the optimiser remembers of each parameter, made at its first step
local Optimiser = {}
Optimiser.__index = Optimiser

--- True for a list of groups, and not of tensors.
local function is_groups(params)
  return type(params) == "table" and type(params[1]) == "table" and params[1].params ~= nil
end

local kinds = {} -- name in small letters -> class

--- Makes a class of optimisers. What it needs beside its options are two methods:
---   class:state_names() -> the names of the tensors it keeps for each parameter (they start as zeros), and
---   class:update(p, g, states, t), which changes parameter p given its gradient g, the tensors by name, and the
---     number t of this step, counted from 1; it runs without recording.
--- Or, instead of update, class:update_all(params, grads, states, steps), which gets lists of the same, for all at once; states
--- are lists by name. A method class:check() may refuse options.
---@param kind string
---@param defaults table<string, any>  all options, lr among them
function optim.class(kind, defaults)
  local class = { kind = kind, __tostring = Optimiser.__tostring }
  class.__index = class
  local numeric = {}
  for name, default in pairs(defaults) do
    if type(default) == "number" then numeric[#numeric + 1] = name end
  end
  table.sort(numeric)
  class.numeric, class.defaults = numeric, defaults
  kinds[kind:lower()] = class
  return setmetatable(class, {
    __index = Optimiser,
    __call = function(_, params, options)
      local self = setmetatable(errors.check_options(kind, options, defaults), class)
      self:check_options()
      self.params, self.groups, self.steps, self.states = {}, {}, {}, {}
      for i, group in ipairs(is_groups(params) and params or { { params = params } }) do self:add_group(i, group) end
      self:check_repetition()
      return self
    end,
  })
end

--- check(): Raises when the options do not fit together.
--- state_names(): The names of the tensors that are kept for each parameter.
--- update_all(params, grads, states, steps): Changes parameters by their gradients; states are lists of tensors by name.
---@internal
Optimiser.check = function() end

--- Checks all options, of an optimiser or of a group.
---@internal
function Optimiser:check_options()
  for _, name in ipairs(self.numeric) do self:check_number(name, self[name], 0) end
  self:check_number("lr", self.lr, 0, true)
  self:check()
end

--- Takes up a group: what it has of its own lies in it, the rest it finds in the optimiser.
---@internal
function Optimiser:add_group(i, given)
  local known, own = { params = false }, {}
  for name in pairs(self.defaults) do known[name] = false end
  for name, value in pairs(errors.check_options(("%s: group %d"):format(self.kind, i), given, known)) do own[name] = value end
  own.params = parameters(self.kind, own.params)
  local group = setmetatable(own, { __index = self })
  group:check_options()
  group.lr_part, group.first = rawget(group, "lr") and group.lr / self.lr or nil, #self.params
  self.groups[i] = group
  for _, p in ipairs(group.params) do
    self.params[#self.params + 1] = p
    self.steps[#self.params] = 0
  end
end

--- Raises when a parameter stands in two groups.
---@internal
function Optimiser:check_repetition()
  local group_of = {}
  for g, group in ipairs(self.groups) do
    for _, p in ipairs(group.params) do
      if group_of[p] then errors.raise("%s: a parameter of group %d stands in group %d already", self.kind, g, group_of[p]) end
      group_of[p] = g
    end
  end
end

--- Raises unless the value is a number, at least 'least' (or above it), and below 'limit'.
---@internal
function Optimiser:check_number(name, value, least, above, limit)
  local right = type(value) == "number" and value >= least and value < (limit or math.huge)
  if right and not (above and value == least) then return end
  errors.raise("%s: %s must be a number %s %g%s, got %s", self.kind, name, above and "above" or "of at least", least,
    limit and (" and below %g"):format(limit) or "", tostring(value))
end

---@internal
function Optimiser:update_all(params, grads, states, steps)
  for i, p in ipairs(params) do
    local own = {}
    for name, list in pairs(states) do own[name] = list[i] end
    self:update(p, grads[i], own, steps[i])
  end
end

--- The i-th parameter's tensor of that name, made when it is first needed.
local function state_of(self, i, name)
  local tensors = self.states[i] or {}
  self.states[i] = tensors
  tensors[name] = tensors[name] or scope.keep(create.full(self.params[i].shape, 0))
  return tensors[name]
end

--- Lists of a group's parameters that have a gradient, of these, of the tensors by name, of the steps' numbers, and of the
--- places.
local function due(self, group)
  local params, grads, states, steps, places, count = {}, {}, {}, {}, {}, 0
  local names = group:state_names()
  for _, name in ipairs(names) do states[name] = {} end
  for k, p in ipairs(group.params) do
    local g, i = autograd.grad(p), group.first + k
    if g then
      count = count + 1
      params[count], grads[count], steps[count], places[count] = p, g, self.steps[i] + 1, i
      for _, name in ipairs(names) do states[name][count] = state_of(self, i, name) end
    end
  end
  return { params, grads, states, steps, places }
end

--- Changes every parameter that has a gradient. When memory runs out for a group none of it has been changed, and with one
--- group none at all.
function Optimiser:step()
  self:check_number("lr", self.lr, 0)
  local guard <close> = autograd.no_grad() -- luacheck: ignore
  local all = {}
  for g, group in ipairs(self.groups) do all[g] = due(self, group) end -- the states are made before anything is changed
  for g, group in ipairs(self.groups) do
    local params, grads, states, steps, places = table.unpack(all[g])
    if group.lr_part then group.lr = self.lr * group.lr_part end
    group:update_all(params, grads, states, steps)
    for k, i in ipairs(places) do self.steps[i] = steps[k] end
  end
end

--- Forgets the gradients of all parameters.
function Optimiser:zero_grad()
  for _, p in ipairs(self.params) do autograd.zero_grad(p) end
end

--- What a checkpoint must hold for training to go on as if it had never stopped.
---@return table[] tensors  pairs {name, tensor} in a fixed order; names are "3.exp_avg": of the third parameter
---@return table numbers    {kind, lr, steps, groups}, plain data; groups (of more than one): {count, lr_part} of each
function Optimiser:state()
  local list, groups = {}, {}
  for g, group in ipairs(self.groups) do
    groups[g] = { count = #group.params, lr_part = group.lr_part }
    for i = group.first + 1, group.first + #group.params do
      for _, name in ipairs(self.steps[i] > 0 and group:state_names() or {}) do
        list[#list + 1] = { i .. "." .. name, self.states[i][name] }
      end
    end
  end
  return list, {
    kind = self.kind, lr = self.lr, steps = table.move(self.steps, 1, #self.steps, 1, {}), groups = #groups > 1 and groups or nil,
  }
end

local function copy_of(where, tensors, name, p)
  local given = tensors[name]
  if not given then errors.raise("%s: load_state: there is no tensor '%s'", where, name) end
  local a, b = table.concat(p.shape, "x"), table.concat(given.shape, "x")
  if a ~= b then errors.raise("%s: load_state: '%s' is %s, the parameter %s", where, name, b, a) end
  return scope.keep(arith.copy_(create.empty(p.shape), given))
end

--- "10 and 5": how many parameters each group has.
local function sizes_of(groups)
  local counts = {}
  for g, group in ipairs(groups) do counts[g] = tostring(group.count or #group.params) end
  return table.concat(counts, " and ")
end

local function check_groups(self, numbers)
  local saved = sizes_of(numbers.groups or { { count = #numbers.steps } })
  if saved ~= sizes_of(self.groups) then
    errors.raise("%s: load_state: the state is of groups of %s parameters, not of %s", self.kind, saved, sizes_of(self.groups))
  end
end

--- The tensors of all parameters that have been changed, copied.
local function states_from(self, tensors, steps)
  local states = {}
  for _, group in ipairs(self.groups) do
    for k, p in ipairs(group.params) do
      local i = group.first + k
      states[i] = steps[i] > 0 and {} or nil
      for _, name in ipairs(states[i] and group:state_names() or {}) do
        states[i][name] = copy_of(self.kind, tensors, i .. "." .. name, p)
      end
    end
  end
  return states
end

--- Takes over what state() gave. Raises, and changes nothing, where it does not fit this optimiser.
---@param tensors table<string, Tensor>  by name
---@param numbers table
---@return Optimiser self
function Optimiser:load_state(tensors, numbers)
  if numbers.kind ~= self.kind then
    errors.raise("%s: load_state: the state is of %s", self.kind, tostring(numbers.kind))
  end
  if #numbers.steps ~= #self.params then
    errors.raise("%s: load_state: the state is of %d parameters, not %d", self.kind, #numbers.steps, #self.params)
  end
  check_groups(self, numbers)
  self:check_number("lr", numbers.lr, 0)
  local states = states_from(self, tensors, numbers.steps)
  self.lr, self.states, self.steps = numbers.lr, states, table.move(numbers.steps, 1, #self.params, 1, {})
  for g, group in ipairs(numbers.groups or {}) do self.groups[g].lr_part = group.lr_part end
  return self
end

function Optimiser:__tostring()
  local count = 0
  for _, p in ipairs(self.params) do count = count + p:numel() end
  local groups = #self.groups > 1 and (" in %d groups"):format(#self.groups) or ""
  return ("%s(%d parameters in %d tensors%s, lr = %g)"):format(self.kind, count, #self.params, groups, self.lr)
end

--- SGD(params, options): Stochastic gradient descent, with momentum if given (Polyak 1964; nesterov: Sutskever et al. 2013).
---@param params Tensor[]|table[]  or groups, see optim.decay_groups
---@param options table|nil  lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false
---@return Optimiser
optim.SGD = optim.class("SGD", { lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false })

function optim.SGD:check()
  if self.nesterov and (self.momentum == 0 or self.dampening ~= 0) then
    errors.raise("SGD: nesterov needs a momentum and no dampening")
  end
end

function optim.SGD:state_names() return self.momentum ~= 0 and { "momentum_buffer" } or {} end

function optim.SGD:update_all(params, grads, states, steps)
  core.sgd(params, grads, states.momentum_buffer, steps, self.lr, self.momentum, self.dampening, self.weight_decay, self.nesterov)
end

local function check_betas(self)
  if not rawget(self, "betas") then return end -- a group that has the optimiser's
  local betas = type(self.betas) == "table" and self.betas or {}
  self:check_number("betas[1]", betas[1], 0, false, 1)
  self:check_number("betas[2]", betas[2], 0, false, 1)
  self.betas = { betas[1], betas[2] } -- its own, to be changed freely
end

local function adam_states() return { "exp_avg", "exp_avg_sq" } end

local function adam_update(decoupled)
  return function(self, params, grads, states, steps)
    core.adam(params, grads, states.exp_avg, states.exp_avg_sq, steps, self.lr, self.betas[1], self.betas[2], self.eps,
      self.weight_decay, decoupled)
  end
end

--- Adam(params, options): Adam (Kingma and Ba 2015); weight_decay is added to the gradient.
---@param params Tensor[]|table[]  or groups
---@param options table|nil  lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0
---@return Optimiser
optim.Adam = optim.class("Adam", { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0 })
optim.Adam.check, optim.Adam.state_names, optim.Adam.update_all = check_betas, adam_states, adam_update(false)

--- AdamW(params, options): Adam whose weight_decay shrinks the parameters by themselves (Loshchilov and Hutter 2019).
---@param params Tensor[]|table[]  or groups
---@param options table|nil  lr = 1e-3, betas = {0.9, 0.999}, eps = 1e-8, weight_decay = 0.01
---@return Optimiser
optim.AdamW = optim.class("AdamW", { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01 })
optim.AdamW.check, optim.AdamW.state_names, optim.AdamW.update_all = check_betas, adam_states, adam_update(true)

--- RMSprop(params, options): RMSprop (Tieleman and Hinton 2012), centred on the mean gradient if asked for (Graves 2013).
---@param params Tensor[]|table[]  or groups
---@param options table|nil  lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0, centered = false
---@return Optimiser
optim.RMSprop = optim.class("RMSprop",
  { lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0, centered = false })

function optim.RMSprop:state_names()
  local names = { "square_avg" }
  if self.centered then names[#names + 1] = "grad_avg" end
  if self.momentum ~= 0 then names[#names + 1] = "momentum_buffer" end
  return names
end

function optim.RMSprop:update_all(params, grads, states)
  core.rmsprop(params, grads, states.square_avg, states.grad_avg, states.momentum_buffer, self.lr, self.alpha, self.eps,
    self.weight_decay, self.momentum)
end

--- The two usual groups of a network's parameters: weights, which decay, and what has one dimension (biases, scales of norms,
--- slopes of PReLU), which does not. One of them is left out where it would be empty.
---@param net Module
---@param weight_decay number  of the weights
---@return table[]  for an optimiser: optim.SGD(optim.decay_groups(net, 5e-4), { lr = 0.1, momentum = 0.9 })
function optim.decay_groups(net, weight_decay)
  if type(net) ~= "table" or not net.parameters then
    errors.raise("decay_groups: a network expected, got %s", type(net))
  end
  local weights, others, groups = {}, {}, {}
  for _, p in ipairs(net:parameters()) do
    local list = p:dim() > 1 and weights or others
    list[#list + 1] = p
  end
  if #weights > 0 then groups[1] = { params = weights, weight_decay = weight_decay } end
  if #others > 0 then groups[#groups + 1] = { params = others, weight_decay = 0 } end
  return groups
end

--- An optimiser by its name, as settings give it.
---@param spec string|table  "adam", or { "sgd", lr = 0.1, momentum = 0.9 }; of an own class (optim.class) its kind
---@param params Tensor[]|table[]  parameters or groups
---@return Optimiser
--- Raises on a name that no optimiser has.
function optim.new(spec, params)
  local options = {}
  for name, value in pairs(type(spec) == "table" and spec or { spec }) do options[name] = value end
  local name = table.remove(options, 1)
  local class = type(name) == "string" and kinds[name:lower()]
  if class then return class(params, options) end
  local known = {}
  for kind in pairs(kinds) do known[#known + 1] = kind end
  table.sort(known)
  return errors.raise("optim.new: optimiser '%s' is unknown%s (known: %s)", tostring(name), errors.hint(tostring(name), known),
    table.concat(known, ", "))
end

--- Shrinks all gradients together so that their norm, taken over all of them, is at most 'most' (Pascanu et al. 2013).
--- A norm that is infinite or not a number leaves them as they are.
---@param params Tensor[]
---@param most number  above 0
---@return number norm  as it was before
function optim.clip_grad_norm(params, most)
  Optimiser.check_number({ kind = "clip_grad_norm" }, "the norm", most, 0, true)
  local grads = {}
  for _, p in ipairs(parameters("clip_grad_norm", params)) do grads[#grads + 1] = autograd.grad(p) end
  local norm = math.sqrt(core.sum_of_squares(grads))
  local factor = most / (norm + 1e-6)
  if factor < 1 and norm < math.huge then core.scale(grads, factor) end
  return norm
end

optim.schedule = require "feral.optim.schedule"
optim.ema = require "feral.optim.ema"

return optim
