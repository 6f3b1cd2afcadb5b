--- builder: columns that grow value by value while a reader goes through files, without a table of all their values.

local create = require "feral.core.create"
local index = require "feral.core.index"
local scope = require "feral.core.scope"

local builder = {}

local TOGETHER <const> = 1 << 16 -- values that are in a table before they go into a tensor

---@class NumberBuilder
---@field count integer  values so far
local Numbers = {}
Numbers.__index = Numbers

--- A growing list of numbers, or of lists of 'width' numbers each.
---@param dtype string|nil  "i32", or nil for floats
---@param width integer|nil
---@return NumberBuilder
function builder.numbers(dtype, width)
  return setmetatable({ dtype = dtype, width = width, count = 0, values = {}, parts = {} }, Numbers)
end

local function flush(self)
  if #self.values == 0 then return end
  self.parts[#self.parts + 1] = scope.keep(create.from_table(self.values, self.dtype))
  self.values = {}
end

--- Adds a number, or a list of them.
---@param value number|number[]
function Numbers:add(value)
  self.count = self.count + 1
  self.values[#self.values + 1] = value
  if #self.values == TOGETHER then flush(self) end
end

--- All values as a tensor that outlives scopes, N or N x width; nil where there are none.
---@return Tensor|nil
function Numbers:finish()
  flush(self)
  local parts = self.parts
  if #parts == 0 then return nil end
  self.parts = {}
  return #parts == 1 and parts[1] or scope.keep(index.cat(parts, 1))
end

return builder
