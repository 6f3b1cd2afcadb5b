--- json.lua: JSON as dkjson reads and writes it, with sorted keys and floats to the last bit, so that equal values
--- make equal files.

local dkjson = require "dkjson"

local json = {}

local exact = { __tojson = function(self) return self.text end }

local function has_names(t)
  for key in pairs(t) do
    if type(key) == "string" then return true end
  end
  return false
end

--- A copy of a value in which floats print with 17 digits; adds all keys to a set. Beside names, numbers become names.
local function prepare(value, keys)
  if math.type(value) == "float" and value - value == 0 then
    return setmetatable({ text = ("%.17g"):format(value) }, exact)
  elseif type(value) ~= "table" then
    return value
  end
  local copy = setmetatable({}, getmetatable(value))
  local named = has_names(value)
  for key, v in pairs(value) do
    if named then
      key = tostring(key)
      keys[key] = true
    end
    copy[key] = prepare(v, keys)
  end
  return copy
end

--- A value as JSON.
---@param value any  tables, strings, numbers, booleans
---@return string
function json.encode(value)
  local keys, order = {}, {}
  local copy = prepare(value, keys)
  for key in pairs(keys) do order[#order + 1] = key end
  table.sort(order)
  return dkjson.encode(copy, { keyorder = order })
end

--- Returns the value, or nil and a message.
---@param text string
function json.decode(text)
  local ok, value, _, message = pcall(dkjson.decode, text, 1, nil)
  if not ok then return nil, "not JSON that can be read: " .. tostring(value) end
  if message then return nil, message end
  return value
end

return json
