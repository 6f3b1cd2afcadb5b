--- safetensors.lua: files of named tensors (the format of Hugging Face's safetensors: 8 bytes with the length of a JSON
--- header, the header, the numbers). Reading checks everything before it believes anything, and runs no code.

local files = require "feral.core.files"
local create = require "feral.core.create"
local core = require "feral.core.tensor"
local json = require "feral.formats.json"

local safetensors = {}

local dtype_names = { f32 = "F32", f64 = "F64", u8 = "U8", i32 = "I32" }
local dtypes = { -- what a file may hold: the engine's dtype, bytes an element, the format of string.unpack
  F32 = { "f32", 4, "<f" }, F64 = { "f64", 8, "<d" }, U8 = { "u8", 1, "B" }, I32 = { "i32", 4, "<i4" },
}
local HEADER_MOST = 100 * 1024 * 1024

--- Writes tensors to a file; the old file stays whole until the new one is complete.
---@param path string
---@param tensors {[1]: string, [2]: Tensor}[]  names and tensors, in the order of the file
---@param metadata table<string, string>|nil
---@return boolean|nil, string|nil  true, or nil and a message
function safetensors.save(path, tensors, metadata)
  local entries, parts, offset = {}, { "" }, 0
  for i, pair in ipairs(tensors) do
    local bytes = pair[2]:tobytes()
    entries[i] = ("%s:%s"):format(json.encode(pair[1]), json.encode {
      dtype = dtype_names[pair[2].dtype], shape = setmetatable(pair[2].shape, { __jsontype = "array" }),
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

local function read_header(text)
  if #text < 8 then return nil, "not a safetensors file: shorter than 8 bytes" end
  local size = string.unpack("<I8", text)
  if size < 0 or size > HEADER_MOST or size > #text - 8 then
    return nil, ("not a safetensors file, or cut off: its header would take %u bytes of %d"):format(size, #text)
  end
  local header, message = json.decode(text:sub(9, 8 + size))
  if type(header) ~= "table" then return nil, "its header is damaged: " .. tostring(message or "no object") end
  return header, nil, 8 + size
end

--- A tensor from its bytes, turned into the engine's real where it is the other float.
local function make_tensor(entry, bytes)
  local dtype = dtypes[entry.dtype]
  if dtype[1] == core.real or dtype[1] == "u8" or dtype[1] == "i32" then
    return create.from_bytes(bytes, entry.shape, dtype[1])
  end
  local numbers = {}
  for i = 1, #bytes // dtype[2] do numbers[i] = string.unpack(dtype[3], bytes, (i - 1) * dtype[2] + 1) end
  return require("feral.core.view").reshape(create.from_table(numbers), entry.shape)
end

--- Reads a file of tensors.
---@param path string
---@return table<string, Tensor>|nil, table<string, string>|string  tensors and metadata, or nil and a message
function safetensors.load(path)
  local text, message = files.read(path)
  if not text then return nil, message end
  local header, problem, start = read_header(text)
  if not header then return nil, ("%s: %s"):format(path, problem) end
  local names, wrong = order_entries(header, #text - start)
  if not names then return nil, ("%s: %s"):format(path, wrong) end
  local tensors = {}
  for _, name in ipairs(names) do
    local offsets = header[name].data_offsets
    tensors[name] = make_tensor(header[name], text:sub(start + offsets[1] + 1, start + offsets[2]))
  end
  local metadata = header.__metadata__
  if metadata ~= nil and type(metadata) ~= "table" then return nil, ("%s: its metadata is damaged"):format(path) end
  return tensors, metadata or {}
end

return safetensors
