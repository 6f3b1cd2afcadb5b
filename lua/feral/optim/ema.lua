--- ema.lua: exponential moving averages of parameters, which often score better than the parameters themselves.
---
---     local ema = optim.ema(net, 0.999)
---     ... after each step:  ema:update()
---     ... to evaluate:      ema:swap() ... ema:swap()
---
--- train.fit(net, { ema = ema }) does all this, and the checkpoint holds the averages. Of a network the running statistics of its
--- norms are averaged too, so that they belong to the averaged weights; of a list of parameters these alone.

local core = require "feral.core.optim"
local core_tensor = require "feral.core.tensor"
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

--- Moves the averages towards the parameters: averages = decay * averages + (1 - decay) * parameters.
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

--- Takes over what state() gave. Raises, and changes nothing, where it does not fit.
---@param tensors table<string, Tensor>  by name
---@return Ema self
function Ema:load_state(tensors)
  for i, average in ipairs(self.averages) do
    local given = tensors[tostring(i)] or errors.raise("ema: load_state: there is no tensor '%d'", i)
    local a, b = table.concat(average.shape, "x"), table.concat(given.shape, "x")
    if a ~= b then errors.raise("ema: load_state: '%d' is %s, the parameter %s", i, b, a) end
  end
  for i, average in ipairs(self.averages) do arith.copy_(average, tensors[tostring(i)]) end
  return self
end

--- What a network is averaged by: its parameters, and of its buffers those that hold numbers.
local function tensors_of(net)
  local list = net:parameters()
  for _, pair in ipairs(net:named_buffers()) do
    if pair[2].dtype == core_tensor.real then list[#list + 1] = pair[2] end
  end
  return list
end

---@param params Module|Tensor[]  a network, or parameters
---@param decay number  in [0, 1), near 1: an average looks back over about 1 / (1 - decay) steps
---@return Ema
return function(params, decay)
  if type(params) == "table" and params.named_buffers then params = tensors_of(params) end
  if type(decay) ~= "number" or not (decay >= 0 and decay < 1) then
    errors.raise("ema: decay must be a number of at least 0 and below 1, got %s", tostring(decay))
  end
  local self = setmetatable({ decay = decay, params = parameters("ema", params), averages = {} }, Ema)
  for i, p in ipairs(self.params) do
    self.averages[i] = scope.keep(arith.copy_(create.empty(p.shape), p))
  end
  return self
end
