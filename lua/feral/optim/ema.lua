--- ema.lua: exponential moving averages of parameters, which often score better than the parameters themselves.
---
---     local ema = optim.ema(net:parameters(), 0.999)
---     ... after each step:  ema:update()
---     ... to evaluate:      ema:swap() ... ema:swap()

local core = require "feral.core.optim"
local arith = require "feral.core.arith"
local create = require "feral.core.create"
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"
local parameters = require "feral.optim.parameters"

---@class Ema
---@field decay number
---@field params Tensor[]
---@field averages Tensor[]  of each parameter; they start as copies
local Ema = {}
Ema.__index = Ema

--- averages = decay * averages + (1 - decay) * parameters
function Ema:update()
  core.average(self.averages, self.params, 1 - self.decay)
end

--- Parameters and averages change places; again, and they are back.
function Ema:swap()
  core.exchange(self.params, self.averages)
end

--- Pairs {name, tensor} for a checkpoint; names are "3": of the third parameter.
---@return table[]
function Ema:state()
  local list = {}
  for i, average in ipairs(self.averages) do list[i] = { tostring(i), average } end
  return list
end

---@param tensors table<string, Tensor>  by name, as state() gave them
---@return Ema self
function Ema:load_state(tensors)
  for i, average in ipairs(self.averages) do
    local given = tensors[tostring(i)]
    if not given then errors.raise("ema: load_state: there is no tensor '%d'", i) end
    arith.copy_(average, given)
  end
  return self
end

---@param params Tensor[]
---@param decay number  in [0, 1), near 1
---@return Ema
return function(params, decay)
  if type(decay) ~= "number" or not (decay >= 0 and decay < 1) then
    errors.raise("ema: decay must be a number of at least 0 and below 1, got %s", tostring(decay))
  end
  local self = setmetatable({ decay = decay, params = parameters("ema", params), averages = {} }, Ema)
  for i, p in ipairs(self.params) do
    self.averages[i] = scope.keep(arith.copy_(create.empty(p.shape), p))
  end
  return self
end
