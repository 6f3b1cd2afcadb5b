--- safetensors.lua: files of named tensors (the format of Hugging Face's safetensors: 8 bytes with the length of a JSON
--- header, the header, the numbers). Reading checks everything before it believes anything, and runs no code.

local files = require "feral.core.files"
local create = require "feral.core.create"
local core = require "feral.core.tensor"
local reduce = require "feral.core.reduce"
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"
local json = require "feral.formats.json"

local safetensors = {}

local dtype_names = { f32 = "F32", f64 = "F64", u8 = "U8", i32 = "I32" }
local real, whole = core.real, "i32"
local dtypes = { -- what a file may hold: the dtype here, bytes an element, the format of files.read_into
  F64 = { real, 8, "f8" }, F32 = { real, 4, "f4" }, F16 = { real, 2, "f2" }, BF16 = { real, 2, "b2" },
  I64 = { whole, 8, "i8" }, I32 = { whole, 4, "i4" }, I16 = { whole, 2, "i2" }, I8 = { whole, 1, "i1" },
  U32 = { whole, 4, "u4" }, U16 = { whole, 2, "u2" }, U8 = { "u8", 1, "u1" }, BOOL = { "u8", 1, "u1" },
}
local HEADER_MOST = 100 * 1024 * 1024

local HALF_MOST = 65504

--- True for what a file of halves holds as halves. Vectors (biases, means and variances) are few and their range is wide: they
--- stay as they are.
local function is_halved(t, dtype) return dtype == "f16" and t.dtype == real and t:dim() >= 2 end

local function fits_halves(t)
  local _open <close> = scope.scope()
  local least, most = reduce.min(t), reduce.max(t)
  return least:item() >= -HALF_MOST and most:item() <= HALF_MOST -- false for NaN too
end

--- The bytes of a tensor and what the header calls its dtype; nil and a message.
local function encode(name, t, dtype)
  if not is_halved(t, dtype) then return t:tobytes(), dtype_names[t.dtype] end
  if not fits_halves(t) then return nil, ("tensor '%s' has numbers that no f16 can hold (beyond 65504)"):format(name) end
  return create.tobytes(t, "f2"), "F16"
end

--- Writes tensors to a file; the old file stays whole until the new one is complete.
---
--- Option dtype = "f16": real tensors of two dimensions or more are written as halves, rounded to the nearest. Half the size; a
--- weight keeps about three digits.
---@param path string
---@param tensors {[1]: string, [2]: Tensor}[]  names and tensors, in the order of the file
---@param metadata table<string, string>|nil
---@param options {dtype: string|nil}|nil
---@return boolean|nil, string|nil  true, or nil and a message
function safetensors.save(path, tensors, metadata, options)
  local dtype = errors.check_options("safetensors.save", options, { dtype = false }).dtype
  if dtype and dtype ~= "f16" then errors.raise("safetensors.save: dtype must be 'f16' or nil, got %s", tostring(dtype)) end
  local entries, parts, offset = {}, { "" }, 0
  for i, pair in ipairs(tensors) do
    local bytes, name = encode(pair[1], pair[2], dtype)
    if not bytes then return nil, ("%s: %s"):format(path, name) end
    entries[i] = ("%s:%s"):format(json.encode(pair[1]), json.encode {
      dtype = name, shape = setmetatable(pair[2].shape, { __jsontype = "array" }),
      data_offsets = { offset, offset + #bytes },
    })
    parts[i + 1] = bytes
    offset = offset + #bytes
  end
  if metadata then table.insert(entries, 1, '"__metadata__":' .. json.encode(metadata)) end
  local header = "{" .. table.concat(entries, ",") .. "}"
  header = header .. (" "):rep(-#header % 8)
  parts[1] = string.pack("<I8", #header) .. header
  return files.write_atomic(path, parts)
end

local function is_count(n) return math.type(n) == "integer" and n >= 0 end

--- The number of elements, or nil when the shape is none that a tensor here can have.
local function count_elements(shape)
  if type(shape) ~= "table" or #shape > 6 then return nil end
  local count = 1
  for _, size in ipairs(shape) do
    if not is_count(size) or size < 1 or count > (1 << 40) // size then return nil end
    count = count * size
  end
  return count
end

--- Checks one entry of the header against the length of the data.
local function check_entry(name, entry, length)
  local dtype = type(entry) == "table" and dtypes[entry.dtype]
  if not dtype then return ("tensor '%s' has no dtype that can be read"):format(name) end
  local count = count_elements(entry.shape)
  if not count then return ("tensor '%s' has a shape that cannot be"):format(name) end
  local offsets = entry.data_offsets
  if type(offsets) ~= "table" or not is_count(offsets[1]) or not is_count(offsets[2]) then
    return ("tensor '%s' has no offsets"):format(name)
  end
  if offsets[2] > length then return ("tensor '%s' passes the end of the file"):format(name) end
  if offsets[2] - offsets[1] ~= count * dtype[2] then
    return ("tensor '%s' has %d bytes, its shape takes %d"):format(name, offsets[2] - offsets[1], count * dtype[2])
  end
end

--- Names in the order of their data; a message when they overlap or leave gaps.
local function order_entries(header, length)
  local names = {}
  for name in pairs(header) do
    if type(name) ~= "string" then return nil, "its header is damaged: no object" end
    if name ~= "__metadata__" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local message = check_entry(name, header[name], length)
    if message then return nil, message end
  end
  table.sort(names, function(a, b)
    local x, y = header[a].data_offsets, header[b].data_offsets
    if x[1] ~= y[1] then return x[1] < y[1] end
    return a < b
  end)
  local at = 0
  for _, name in ipairs(names) do
    local offsets = header[name].data_offsets
    if offsets[1] ~= at then
      return nil, ("tensor '%s' %s the one before it"):format(name, offsets[1] < at and "overlaps" or "leaves a gap to")
    end
    at = offsets[2]
  end
  if at ~= length then return nil, ("%d bytes at the end belong to no tensor"):format(length - at) end
  return names
end

--- The header's text and where the numbers begin; nil and a message with the path.
local function read_header_text(path, size)
  if size < 8 then return nil, path .. ": not a safetensors file: shorter than 8 bytes" end
  local first, message = files.read(path, 0, 8)
  if not first then return nil, message end
  local length = string.unpack("<I8", first)
  if length < 0 or length > HEADER_MOST or length > size - 8 then
    return nil, ("%s: not a safetensors file, or cut off: its header would take %u bytes of %d"):format(path, length, size)
  end
  local text, unread = files.read(path, 8, length)
  return text, unread or 8 + length
end

--- The header, the names of its tensors in the order of their data, and where the numbers begin.
local function read_header(path)
  local kind, size = files.look(path)
  if kind ~= "file" then return nil, select(2, files.read(path, 0, 0)) or size end
  local text, start = read_header_text(path, size)
  if not text then return nil, start end
  local header, message = json.decode(text)
  if type(header) ~= "table" then return nil, ("%s: its header is damaged: %s"):format(path, message or "no object") end
  local names, wrong = order_entries(header, size - start)
  if not names then return nil, ("%s: %s"):format(path, wrong) end
  local metadata = header.__metadata__
  if metadata ~= nil and type(metadata) ~= "table" then return nil, path .. ": its metadata is damaged" end
  return header, names, start
end

--- What a file says of itself, without the numbers.
---@param path string
---@return table<string, string>|nil  metadata, or nil
---@return {name: string, dtype: string, shape: integer[]}[]|string  its tensors in the order of their data, or a message
function safetensors.look(path)
  local header, names = read_header(path)
  if not header then return nil, names end
  local list = {}
  for i, name in ipairs(names) do list[i] = { name = name, dtype = header[name].dtype, shape = header[name].shape } end
  return header.__metadata__ or {}, list
end

--- Reads a file of tensors. Real numbers of any size (F64, F32, F16, BF16) become the engine's real, whole ones i32 (I64, I32,
--- I16, I8, U32, U16: they must fit) or u8 (U8, BOOL).
---@param path string
---@return table<string, Tensor>|nil, table<string, string>|string  tensors and metadata, or nil and a message
function safetensors.load(path)
  local header, names, start = read_header(path)
  if not header then return nil, names end
  local tensors = {}
  for _, name in ipairs(names) do
    local entry = header[name]
    local dtype = dtypes[entry.dtype]
    local t = create.empty(entry.shape, dtype[1])
    local read, message = files.read_into(path, start + entry.data_offsets[1], t, dtype[3])
    if not read then return nil, ("%s (tensor '%s')"):format(message, name) end
    tensors[name] = t
  end
  return tensors, header.__metadata__ or {}
end

return safetensors
