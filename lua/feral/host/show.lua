--- show.lua: values as text for people. Tensors look as PyTorch prints them, tables are cut where they get long.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local view = require "feral.core.view"
local scope = require "feral.core.scope"

local show = {}

local LINE = 80        -- columns
local WHOLE = 1000     -- a tensor of more elements is shown by its edges
local EDGE = 3         -- how many elements an edge has
local ELLIPSIS = {}    -- stands for what is left out

-- ---- tensors ----

--- Nested lists of the elements to show; of long dimensions the two edges with ELLIPSIS between.
local function pick(t, by_edges)
  if not by_edges or t:dim() == 0 then return create.totable(t) end
  local size, picked = t:size(1), {}
  for i = 1, size do
    if size <= 2 * EDGE or i <= EDGE or i > size - EDGE then
      picked[#picked + 1] = pick(view.select_first(t, i), true)
    elseif i == EDGE + 1 then
      picked[#picked + 1] = ELLIPSIS
    end
  end
  return picked
end

local function each_number(node, visit)
  if type(node) == "number" then return visit(node) end
  for _, part in ipairs(node) do each_number(part, visit) end
end

--- The format for floats, chosen by the numbers that are neither 0 nor infinite nor NaN: whole numbers as "2.", others with
--- four digits behind the point, or with a power of ten where they are very large, very small or far apart.
local function float_format(node)
  local least, most, whole = math.huge, 0, true
  each_number(node, function(x)
    local size = math.abs(x)
    if x ~= x or size == math.huge or size == 0 then return end
    least, most = math.min(least, size), math.max(most, size)
    whole = whole and x == math.floor(x)
  end)
  if most == 0 then return "%.0f." end
  if most / least > 1000 or most > 1e8 or (not whole and least < 1e-4) then return "%.4e" end
  return whole and "%.0f." or "%.4f"
end

local function number_writer(node, dtype)
  local format = (dtype == "u8" or dtype == "i32") and "%d" or float_format(node)
  local function write(x)
    if x ~= x then return "nan" end
    if math.abs(x) == math.huge then return x > 0 and "inf" or "-inf" end
    return format:format(x)
  end
  local width = 1
  each_number(node, function(x) width = math.max(width, #write(x)) end)
  return function(x) return ("%" .. width .. "s"):format(write(x)) end, width
end

--- A list of numbers, broken into lines that start at column 'indent' + 1.
local function row_text(row, write, width, indent)
  local per_line = math.max(1, (LINE - indent) // (width + 2))
  local lines, words = {}, {}
  for i, x in ipairs(row) do
    words[#words + 1] = x == ELLIPSIS and " ..." or write(x)
    if #words == per_line or i == #row then
      lines[#lines + 1] = table.concat(words, ", ")
      words = {}
    end
  end
  return "[" .. table.concat(lines, ",\n" .. (" "):rep(indent + 1)) .. "]"
end

--- Slices of 'ndim' dimensions are separated by ndim - 1 line ends.
local function block_text(node, ndim, write, width, indent)
  if ndim == 1 then return row_text(node, write, width, indent) end
  local parts = {}
  for i, part in ipairs(node) do
    parts[i] = part == ELLIPSIS and "..." or block_text(part, ndim - 1, write, width, indent + 1)
  end
  return "[" .. table.concat(parts, "," .. ("\n"):rep(ndim - 1) .. (" "):rep(indent + 1)) .. "]"
end

--- tensor([[1., 2.],
---         [3., 4.]], shape=2x2, dtype=f32)
--- Of more than 1000 elements the first and last three of each dimension.
---@param t Tensor
---@return string
function show.tensor(t)
  if t:is_released() then return "tensor(released: its scope has ended)" end
  local _open <close> = scope.scope()
  local head, ndim = "tensor(", t:dim()
  local node = pick(t, t:numel() > WHOLE)
  local write, width = number_writer(node, t.dtype)
  local body = ndim == 0 and write(node) or block_text(node, ndim, write, width, #head)
  local tail = "dtype=" .. t.dtype .. ")"
  if ndim > 0 then tail = ("shape=%s, %s"):format(table.concat(t.shape, "x"), tail) end
  local last_line = #(head .. body):match("[^\n]*$")
  local gap = last_line + 2 + #tail > LINE and ",\n" .. (" "):rep(#head) or ", "
  return head .. body .. gap .. tail
end

-- ---- other values ----

local DEPTH, ENTRIES, STRING = 4, 50, 200

local function quoted(s)
  if #s > STRING then s = s:sub(1, STRING) .. "..." end
  return (("%q"):format(s):gsub("\\\n", "\\n"):gsub("\\9", "\\t"))
end

local function key_text(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") then return key end
  return ("[%s]"):format(type(key) == "string" and quoted(key) or tostring(key))
end

--- Keys outside the list part, in an order that is always the same: numbers, then others by their text.
local function sorted_keys(t, length)
  local keys = {}
  for key in next, t do
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b)
    local a_is_number, b_is_number = type(a) == "number", type(b) == "number"
    if a_is_number and b_is_number then return a < b end
    if a_is_number ~= b_is_number then return a_is_number end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function has_text(value)
  local meta = debug.getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__tostring") ~= nil
end

local inner_text

local function entries_of(t, seen, depth)
  local parts, length = {}, rawlen(t)
  local keys = sorted_keys(t, length)
  for i = 1, math.min(length, ENTRIES) do parts[i] = inner_text(rawget(t, i), seen, depth + 1) end
  for i = 1, math.min(#keys, ENTRIES - #parts) do
    parts[#parts + 1] = key_text(keys[i]) .. " = " .. inner_text(rawget(t, keys[i]), seen, depth + 1)
  end
  local left = length + #keys - #parts
  if left > 0 then parts[#parts + 1] = ("... %d more"):format(left) end
  return parts
end

local function table_text(t, seen, depth)
  if seen[t] then return "{cycle}" end
  if depth > DEPTH then return "{...}" end
  seen[t] = true
  local parts = entries_of(t, seen, depth)
  seen[t] = nil
  local line = "{" .. table.concat(parts, ", ") .. "}"
  local indent = (" "):rep(2 * (depth - 1))
  if #line + #indent <= LINE and not line:find("\n", 1, true) then return line end
  return "{\n  " .. indent .. table.concat(parts, ",\n  " .. indent) .. "\n" .. indent .. "}"
end

--- A value inside a table.
function inner_text(value, seen, depth)
  local kind = type(value)
  if kind == "string" then return quoted(value) end
  if kind == "function" or kind == "thread" then return kind end
  if core.is_tensor(value) then
    return value:is_released() and "tensor(released)" or ("tensor(%s %s)"):format(table.concat(value.shape, "x"), value.dtype)
  end
  if kind == "table" and not has_text(value) then return table_text(value, seen, depth) end
  local first, more = tostring(value):match("^([^\n]*)(.*)$")
  return first .. (more ~= "" and " ..." or "")
end

--- A value as the prompt prints it: strings as they are, tensors and objects by their own text, tables with sorted keys, cut
--- at 50 entries and 4 levels.
---@param value any
---@return string
function show.value(value)
  if core.is_tensor(value) then return show.tensor(value) end
  if type(value) == "table" and not has_text(value) then return table_text(value, {}, 1) end
  return tostring(value)
end

return show
