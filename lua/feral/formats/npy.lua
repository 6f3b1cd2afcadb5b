--- npy.lua: one array a file, as numpy.save and numpy.load know it (NumPy's format of NEP 1, versions 1.0 to 3.0).
--- A file is the magic, the version, the length of the header, the header and the elements. The header is a Python dictionary
--- of three entries; it is taken apart here by a grammar that knows nothing else, and nothing of it is run.

local files = require "feral.core.files"
local create = require "feral.core.create"
local view = require "feral.core.view"
local core = require "feral.core.tensor"
local errors = require "feral.base.errors"

local npy = {}

local MAGIC = "\x93NUMPY"
local HEADER_MOST = 65536 -- that of an array of plain numbers takes about a hundred bytes
local MOST_DIMS = 6

local written_as = { f32 = "<f4", f64 = "<f8", u8 = "|u1", i32 = "<i4" }
local real, whole = core.real, "i32"
local kinds = { -- how elements are stored -> the dtype they get here; files.read_into knows these names, but for b1
  f2 = real, f4 = real, f8 = real, u1 = "u8", b1 = "u8", i1 = whole, i2 = whole, u2 = whole, i4 = whole, u4 = whole, i8 = whole,
  u8 = whole,
}

--- The bytes before the elements of an array, row-major.
---@param dtype string  "f32", "f64", "u8" or "i32"
---@param shape integer[]
---@return string
function npy.header(dtype, shape)
  local sizes = {}
  for i, size in ipairs(shape) do sizes[i] = size .. "," .. (i < #shape and " " or "") end
  local header = ("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"):format(written_as[dtype],
    #shape > 1 and table.concat(sizes):sub(1, -2) or table.concat(sizes))
  header = header .. (" "):rep(-(#header + 11) % 64) .. "\n" -- the elements begin at a multiple of 64
  return MAGIC .. "\1\0" .. string.pack("<s2", header)
end

--- Writes a tensor; an old file of that name stays whole until the new one is complete. Floats are written as <f4 (as <f8 by
--- the build whose floats are doubles), u8 as |u1, i32 as <i4.
---@param path string
---@param t Tensor
---@return boolean|nil, string|nil  true, or nil and a message
function npy.save(path, t)
  if not core.is_tensor(t) then errors.raise("save: a tensor expected, got %s", type(t)) end
  return files.write_atomic(path, { npy.header(t.dtype, t.shape), t })
end

---- The header: { 'name': value, ... } with strings, True, False and tuples of whole numbers as values ----

local function parse_string(text, at)
  local quote = text:sub(at, at)
  if quote ~= "'" and quote ~= '"' then return nil end
  local closing = text:find(quote, at + 1, true)
  local content = closing and text:sub(at + 1, closing - 1)
  if not content or content:find("[\\\n]") then return nil end
  return content, closing + 1
end

--- ( 3, 4 ), with a comma behind the last where it is the only one; Python 2 wrote 3L.
local function parse_tuple(text, at)
  local inside, after = text:match("^%(([%dL,%s]*)%)()", at)
  if not inside then return nil end
  local sizes, from = {}, 1
  while from <= #inside do
    local digits, comma, next_at = inside:match("^%s*(%d+)L?%s*(,?)%s*()", from)
    if not digits or #digits > 18 or (comma == "" and (next_at <= #inside or #sizes == 0)) then return nil end
    sizes[#sizes + 1], from = math.tointeger(tonumber(digits)), next_at
  end
  return sizes, after
end

local function parse_value(text, at)
  local word, after = text:match("^(%u%l+)()", at)
  if word == "True" or word == "False" then return word == "True", after end
  local value, behind = parse_string(text, at)
  if value == nil then value, behind = parse_tuple(text, at) end
  return value, behind
end

--- The dictionary as a table; nil when the text is none, or has an entry twice.
local function parse_header(text)
  local entries, at = {}, text:match("^%s*{%s*()")
  while at do
    local finished = text:match("^}%s*()$", at)
    if finished then return entries end
    local name, after = parse_string(text, at)
    local value_at = name and text:match("^%s*:%s*()", after)
    if not value_at or entries[name] ~= nil then return nil end
    local value, behind = parse_value(text, value_at)
    if value == nil then return nil end
    entries[name] = value
    at = text:match("^%s*,%s*()", behind) or text:match("^%s*()}", behind)
  end
end

--- The name of the stored type ("f4"), or nil and why they cannot be read.
local function check_dtype(descr)
  local order, name = descr:match("^([<>|])(%a%d)$")
  if not order then
    return nil, descr:find("^|?O") and "an array of Python objects" or ("dtype '%s' is unknown"):format(descr)
  end
  if not kinds[name] or (order == "|" and name:sub(2) ~= "1") then return nil, ("dtype '%s' is unknown"):format(descr) end
  if order == ">" then return nil, ("dtype '%s' is big-endian"):format(descr) end
  return name
end

--- How many elements a shape has, or nil and why no tensor can have it.
local function count_elements(shape)
  local count = 1
  if #shape > MOST_DIMS then return nil, ("an array of %d dimensions, at most %d are possible"):format(#shape, MOST_DIMS) end
  for _, size in ipairs(shape) do
    if size == 0 then return nil, "an array without elements" end
    if count > (1 << 48) // size then return nil, "a shape that cannot be" end
    count = count * size
  end
  return count
end

--- What the header says of an array whose elements take 'length' bytes: their type's name, their shape and order.
local function check_header(text, length)
  local header = parse_header(text)
  if not header then
    return nil, text:find("'descr'%s*:%s*%[") and "an array of records" or "its header is damaged"
  end
  local descr, fortran, shape = header.descr, header.fortran_order, header.shape
  if type(descr) ~= "string" or type(fortran) ~= "boolean" or type(shape) ~= "table" then
    return nil, "its header lacks descr, fortran_order or shape"
  end
  for name in pairs(header) do
    if name ~= "descr" and name ~= "fortran_order" and name ~= "shape" then return nil, "its header has entries too many" end
  end
  local name, unreadable = check_dtype(descr)
  if not name then return nil, unreadable end
  local count, impossible = count_elements(shape)
  if not count then return nil, impossible end
  local wanted = count * tonumber(name:sub(2))
  if wanted ~= length then
    return nil, ("%d bytes of elements, its shape (%s) of '%s' takes %d"):format(length, table.concat(shape, "x"), descr, wanted)
  end
  return { name = name, shape = shape, fortran = fortran }
end

local function fail(path, format, ...) return nil, ("%s: " .. format):format(path, ...) end

--- The header's text, where the elements begin and how many bytes they take; or nil and "path: what is wrong".
local function read_header(path)
  local _, size = files.look(path)
  local first, message = files.read(path, 0, math.type(size) and math.min(size, 12))
  if not first then return nil, message end
  if #first < 10 then return fail(path, "not a .npy file: shorter than 10 bytes") end
  if first:sub(1, 6) ~= MAGIC then return fail(path, "not a .npy file") end
  local major, minor = first:byte(7, 8)
  if major < 1 or major > 3 or minor ~= 0 then return fail(path, "version %d.%d, 1.0 to 3.0 can be read", major, minor) end
  local start = major == 1 and 10 or 12
  if size < start then return fail(path, "the file ends too early") end
  local length = string.unpack(major == 1 and "<I2" or "<I4", first, 9)
  if length > size - start or length > HEADER_MOST then
    return fail(path, "damaged or cut off: its header would take %d bytes of %d", length, size)
  end
  local text, unread = files.read(path, start, length)
  return text, unread or start + length, size - start - length
end

local function reversed(list)
  local result = {}
  for i = #list, 1, -1 do result[#result + 1] = list[i] end
  return result
end

--- The elements from byte 'start' on. Column-major is row-major with the dimensions in reverse.
local function read_numbers(path, array, start)
  local stored = create.empty(array.fortran and reversed(array.shape) or array.shape, kinds[array.name])
  local t, message = files.read_into(path, start, stored, array.name == "b1" and "u1" or array.name)
  if not t or not array.fortran then return t, message end
  local order = {}
  for d = 1, t:dim() do order[d] = t:dim() + 1 - d end
  return view.contiguous(view.permute(t, order))
end

--- What a file says of its array, without the elements.
---@param path string
---@return {name: string, shape: integer[], fortran: boolean}|nil  name: how a number is stored ("u1", "f4" ...)
---@return integer|string  the byte at which the elements begin; or "path: what is wrong"
function npy.look(path)
  local text, start, length = read_header(path)
  if not text then return nil, start end
  local array, message = check_header(text, length)
  if not array then return fail(path, "%s", message) end
  return array, start
end

--- Reads an array of real numbers (f2, f4, f8: the tensor is f32), bytes and booleans (u1, b1: u8) or whole numbers (i1, i2, i4,
--- i8, u2, u4, u8: i32, where each must fit), row-major or column-major.
---@param path string
---@return Tensor|nil, string|nil  the tensor, or nil and "path: what is wrong"
function npy.load(path)
  local array, start = npy.look(path)
  if not array then return nil, start end
  return read_numbers(path, array, start)
end

return npy
