--- parameters.lua: the check of a list of parameters that optimisers, clipping and averaging share.

local core = require "feral.core.tensor"
local errors = require "feral.base.errors"

--- A copy of the list without repetitions: what layers share is there once.
---@param where string  who asks, for messages
---@param params Tensor[]
---@return Tensor[]
return function(where, params)
  if type(params) ~= "table" or params.parameters then
    errors.raise("%s: a list of parameters expected (net:parameters()), got %s", where,
      type(params) == "table" and "a layer" or type(params))
  end
  local list, seen = {}, {}
  for i, p in ipairs(params) do
    if not core.is_tensor(p) or p.dtype ~= core.real then
      errors.raise("%s: parameter %d must be a tensor of %s, got %s", where, i, core.real,
        core.is_tensor(p) and p.dtype or type(p))
    end
    if not p:is_contiguous() then errors.raise("%s: parameter %d must be contiguous", where, i) end
    if not seen[p] then list[#list + 1], seen[p] = p, true end
  end
  if #list == 0 then errors.raise("%s: the list of parameters is empty", where) end
  return list
end
