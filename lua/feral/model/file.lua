--- file.lua: model files. A safetensors file whose header's metadata holds "feral_model", JSON:
---
---     version  2
---     stages   [{kind, settings}, ...]; the tensors of stage 2 are named "2.<name>"
---     classes  names of the classes that the classifier scores, in order
---     card     free facts
---
--- Loading makes the stages from these descriptions, believes nothing before it is checked, and runs no code. Files of
--- version 1 (one network: architecture, preprocessing, tensors without numbers) and of an SVM alone ("feral_svm") are read too.

local json = require "feral.formats.json"
local random = require "feral.tensor.random"
local safetensors = require "feral.formats.safetensors"
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"
local chain = require "feral.model.chain"

local file = {}

local VERSION = 2
local SLACK = 64 << 20 -- bytes beside the numbers

--- Writes a model's parts. An old file of that name stays whole until the new one is complete.
---@param path string
---@param parts {stages: Stage[], classes: string[], card: table}
---@param options {dtype: string|nil}|nil  as safetensors.save's
---@return boolean|nil, string|nil
function file.write(path, parts, options)
  local header = {
    version = VERSION, stages = chain.describe(parts.stages), classes = parts.classes, card = parts.card,
  }
  return safetensors.save(path, chain.state(parts.stages), { feral_model = json.encode(header) }, options)
end

---- Older files ----

--- Version 1 as version 2: header and tensors.
local function renew_network(header, tensors)
  local numbered = {}
  for name, t in pairs(tensors) do numbered["2." .. name] = t end
  return {
    version = VERSION, classes = header.classes, card = header.card,
    stages = {
      { kind = "preprocess", settings = header.preprocessing or false },
      { kind = "network", settings = { architecture = header.architecture } },
    },
  }, numbered
end

--- The side of square images whose HOG has so many numbers; nil where there is none.
local function side_of(hog, features)
  if type(hog) ~= "table" then return nil end
  local cell, block, stride, bins = hog.cell or 8, hog.block or 16, hog.stride or 8, hog.bins or 9
  for _, n in ipairs { features or 0, cell, block, stride, bins } do
    if math.type(n) ~= "integer" or n < 1 then return nil end
  end
  if block < cell then return nil end
  local blocks = features / ((block // cell) ^ 2 * bins)
  local along = math.tointeger(math.sqrt(blocks))
  return along and along >= 1 and block + (along - 1) * stride
end

--- An SVM's own file as version 2. One that remarks on its card that its features are HOG's gets that stage, and a preprocessing
--- to gray images; they were square, or it stays a model of features.
local function renew_svm(header, tensors)
  local card, list = type(header.card) == "table" and header.card or {}, {}
  local side = card.feature == "hog" and side_of(card.hog, header.features)
  if side then
    list[1] = { kind = "preprocess", settings = { height = side, width = side, channels = 1, mean = 0, std = 1 } }
    list[2] = { kind = "hog", settings = card.hog }
  end
  list[#list + 1] = { kind = "svm", settings = header }
  local numbered = {}
  for name, t in pairs(tensors) do numbered[#list .. "." .. name] = t end
  return { version = VERSION, classes = nil, card = card, stages = list }, numbered
end

---- Reading ----

local function version_message(what, version, newest)
  return ("%s of version %s, this feral reads %s"):format(what, tostring(version), newest)
end

--- The header as one of version 2, and the tensors under its names; nil and what is wrong.
local function read_header(metadata, tensors)
  local old = type(metadata.feral_svm) == "string" and metadata.feral_svm
  local text = type(metadata.feral_model) == "string" and metadata.feral_model or old
  if not text then return nil, "tensors, but no feral model" end
  local header, message = json.decode(text)
  if type(header) ~= "table" then return nil, "its model header is damaged: " .. (message or "no object") end
  if text == old then
    if header.version ~= 1 then return nil, version_message("an SVM", header.version, "1") end
    return renew_svm(header, tensors)
  end
  if header.version == 1 then return renew_network(header, tensors) end
  if header.version ~= VERSION then return nil, version_message("a model", header.version, "1 and 2") end
  return header, tensors
end

--- Calls f, which makes what the tensors are for. That uses up no random numbers of the script that loads, and no more memory
--- than the tensors call for: a damaged size in an architecture must not ask for all there is.
local function guarded(tensors, f, ...)
  local before, memory, bytes = random.state(), scope.memory(), 0
  for _, t in pairs(tensors) do bytes = bytes + t:numel() * 8 end
  local _restored <close> = setmetatable({}, { __close = function()
    if memory.cap then scope.memory_cap(memory.cap) end
    random.set_state(before)
  end })
  local enough = memory.live and memory.live + 2 * bytes + SLACK
  if enough and (memory.cap == 0 or enough < memory.cap) then scope.memory_cap(enough) end
  local result = table.pack(errors.attempt(f, ...))
  if not result[1] then return nil, result[2] end
  return table.unpack(result, 2, result.n)
end

--- Reads a model file.
---@param path string
---@return {stages: Stage[], classes: string[]|nil, card: table}|nil, string|nil
function file.read(path)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  local header, named = read_header(metadata, tensors)
  if not header then return nil, ("%s: %s"):format(path, named) end
  if header.classes ~= nil and not chain.are_names(header.classes) then
    return nil, path .. ": its list of classes is damaged"
  end
  if header.card ~= nil and type(header.card) ~= "table" then return nil, path .. ": its card is damaged" end
  local list, message = guarded(tensors, chain.build, header.stages, named)
  if not list then return nil, ("%s: %s"):format(path, message) end
  return { stages = list, classes = header.classes, card = header.card or {} }
end

return file
