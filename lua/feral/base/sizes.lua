--- sizes.lua: checks of the whole numbers and pairs of them that layers and operations are made with.

local errors = require "feral.base.errors"

local sizes = {}

local function text(value) return type(value) == "table" and "another table" or tostring(value) end

local function check_least(where, name, value, least)
  if value < least then errors.raise("%s: %s must be %d or more, got %d", where, name, least, value) end
end

--- A whole number, checked.
---@param where string  who asks, for messages
---@param name string
---@param value any
---@param least integer|nil  default 1
---@return integer
function sizes.whole(where, name, value, least)
  local whole = math.tointeger(value)
  if not whole then errors.raise("%s: %s must be a whole number, got %s", where, name, text(value)) end
  check_least(where, name, whole, least or 1)
  return whole
end

--- A whole number that stands for both sides, or {height, width}, checked.
---@return integer height
---@return integer width
function sizes.pair(where, name, value, least)
  local h, w = value, value
  if type(value) == "table" and #value == 2 then h, w = value[1], value[2] end
  h, w = math.tointeger(h), math.tointeger(w)
  if not h or not w then
    errors.raise("%s: %s must be a whole number or {height, width}, got %s", where, name, text(value))
  end
  check_least(where, name, math.min(h, w), least or 1)
  return h, w
end

return sizes
