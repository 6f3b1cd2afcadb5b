--- optim: optimisers, schedules of their learning rates, clipping and averaging.
---
---     local opt = optim.Adam(net:parameters(), { lr = 1e-3 })
---     opt:zero_grad()
---     loss:backward()
---     opt:step()
---
--- Names, defaults and formulas are PyTorch's. Every option is a field that may be changed between steps (opt.lr = 1e-4).

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
---@field params Tensor[]
---@field steps integer[]  how often each parameter has been changed
---@field states table<string, Tensor>[]  what the optimiser remembers of each parameter, made at its first step
local Optimiser = {}
Optimiser.__index = Optimiser

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
  return setmetatable(class, {
    __index = Optimiser,
    __call = function(_, params, options)
      local self = setmetatable(errors.check_options(kind, options, defaults), class)
      self.params, self.steps, self.states = parameters(kind, params), {}, {}
      for i = 1, #self.params do self.steps[i] = 0 end
      for _, name in ipairs(numeric) do self:check_number(name, self[name], 0) end
      self:check_number("lr", self.lr, 0, true)
      self:check()
      return self
    end,
  })
end

Optimiser.check = function() end

--- Raises unless the value is a number, at least 'least' (or above it), and below 'limit'.
function Optimiser:check_number(name, value, least, above, limit)
  local right = type(value) == "number" and value >= least and value < (limit or math.huge)
  if right and not (above and value == least) then return end
  errors.raise("%s: %s must be a number %s %g%s, got %s", self.kind, name, above and "above" or "of at least", least,
    limit and (" and below %g"):format(limit) or "", tostring(value))
end

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

--- Lists of the parameters that have a gradient, of these, of the tensors by name, of the steps' numbers, and of the places.
local function due(self)
  local params, grads, states, steps, places, count = {}, {}, {}, {}, {}, 0
  local names = self:state_names()
  for _, name in ipairs(names) do states[name] = {} end
  for i, p in ipairs(self.params) do
    local g = autograd.grad(p)
    if g then
      count = count + 1
      params[count], grads[count], steps[count], places[count] = p, g, self.steps[i] + 1, i
      for _, name in ipairs(names) do states[name][count] = state_of(self, i, name) end
    end
  end
  return params, grads, states, steps, places
end

--- Changes every parameter that has a gradient. When memory runs out none has been changed.
function Optimiser:step()
  self:check_number("lr", self.lr, 0)
  local guard <close> = autograd.no_grad() -- luacheck: ignore
  local params, grads, states, steps, places = due(self)
  self:update_all(params, grads, states, steps)
  for k, i in ipairs(places) do self.steps[i] = steps[k] end
end

--- Forgets the gradients of all parameters.
function Optimiser:zero_grad()
  for _, p in ipairs(self.params) do autograd.zero_grad(p) end
end

--- What a checkpoint must hold for training to go on as if it had never stopped.
---@return table[] tensors  pairs {name, tensor} in a fixed order; names are "3.exp_avg": of the third parameter
---@return table numbers    {kind, lr, steps}, plain data
function Optimiser:state()
  local list = {}
  for i = 1, #self.params do
    for _, name in ipairs(self.steps[i] > 0 and self:state_names() or {}) do
      list[#list + 1] = { i .. "." .. name, self.states[i][name] }
    end
  end
  return list, { kind = self.kind, lr = self.lr, steps = table.move(self.steps, 1, #self.steps, 1, {}) }
end

local function copy_of(where, tensors, name, p)
  local given = tensors[name]
  if not given then errors.raise("%s: load_state: there is no tensor '%s'", where, name) end
  local a, b = table.concat(p.shape, "x"), table.concat(given.shape, "x")
  if a ~= b then errors.raise("%s: load_state: '%s' is %s, the parameter %s", where, name, b, a) end
  return scope.keep(arith.copy_(create.empty(p.shape), given))
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
  self:check_number("lr", numbers.lr, 0)
  local states = {}
  for i, p in ipairs(self.params) do
    if numbers.steps[i] > 0 then
      states[i] = {}
      for _, name in ipairs(self:state_names()) do
        states[i][name] = copy_of(self.kind, tensors, i .. "." .. name, p)
      end
    end
  end
  self.lr, self.states, self.steps = numbers.lr, states, table.move(numbers.steps, 1, #self.params, 1, {})
  return self
end

function Optimiser:__tostring()
  local count = 0
  for _, p in ipairs(self.params) do count = count + p:numel() end
  return ("%s(%d parameters in %d tensors, lr = %g)"):format(self.kind, count, #self.params, self.lr)
end

--- Stochastic gradient descent, with momentum if given (Polyak 1964; nesterov: Sutskever et al. 2013).
--- optim.SGD(params, {lr, momentum, dampening, weight_decay, nesterov})
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

--- Adam (Kingma and Ba 2015); weight_decay is added to the gradient.
--- optim.Adam(params, {lr, betas, eps, weight_decay})
optim.Adam = optim.class("Adam", { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0 })
optim.Adam.check, optim.Adam.state_names, optim.Adam.update_all = check_betas, adam_states, adam_update(false)

--- Adam whose weight_decay shrinks the parameters by themselves (Loshchilov and Hutter 2019).
--- optim.AdamW(params, {lr, betas, eps, weight_decay})
optim.AdamW = optim.class("AdamW", { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01 })
optim.AdamW.check, optim.AdamW.state_names, optim.AdamW.update_all = check_betas, adam_states, adam_update(true)

--- RMSprop (Tieleman and Hinton 2012), centred on the mean gradient if asked for (Graves 2013).
--- optim.RMSprop(params, {lr, alpha, eps, weight_decay, momentum, centered})
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
