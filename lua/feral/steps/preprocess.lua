--- preprocess.lua: from a raw image to what a network sees. Training, evaluation and prediction all go through here with the
--- same settings, which travel in the model file.

local core = require "feral.core.tensor"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"
local image = require "feral.vision.image"

local preprocess = {}

---@class Preprocessing
---@field height integer
---@field width integer
---@field channels integer  1 or 3
---@field mean number       subtracted from samples of 0..1
---@field std number        divided by after that

local function is_whole(n, least, most) return math.type(n) == "integer" and n >= least and n <= most end

local function is_finite(n) return type(n) == "number" and n == n and math.abs(n) < math.huge end

--- A copy of the settings. Raises when they cannot be.
---@param p Preprocessing
---@return Preprocessing
function preprocess.check(p)
  if type(p) ~= "table" then errors.raise("preprocessing must be a table, got %s", type(p)) end
  if not is_whole(p.height, 1, 8192) or not is_whole(p.width, 1, 8192) then
    errors.raise("preprocessing: height and width must be whole numbers from 1 to 8192, got %s and %s", tostring(p.height),
      tostring(p.width))
  end
  if p.channels ~= 1 and p.channels ~= 3 then
    errors.raise("preprocessing: channels must be 1 or 3, got %s", tostring(p.channels))
  end
  if not is_finite(p.mean) or not is_finite(p.std) or p.std <= 0 then
    errors.raise("preprocessing: mean must be a number and std one above 0, got %s and %s", tostring(p.mean), tostring(p.std))
  end
  return { height = p.height, width = p.width, channels = p.channels, mean = p.mean, std = p.std }
end

--- Brings one image to the size and channels of the settings.
---@param source Tensor|string  u8 C x H x W, or a path
---@param p Preprocessing
---@return Tensor|nil, string|nil  u8 channels x height x width, or nil and a message
function preprocess.bytes(source, p)
  if type(source) == "string" then
    -- with the file's own channels: a decoder that is asked for gray rounds otherwise than image.gray
    local loaded, message = image.load(source)
    if not loaded then return nil, message end
    source = loaded
  end
  if not core.is_tensor(source) or source:dim() ~= 3 or source.dtype ~= "u8" then
    errors.raise("an image must be a path or a u8 tensor C x H x W, got %s", core.is_tensor(source)
      and ("%s of %s"):format(table.concat(source.shape, "x"), source.dtype) or type(source))
  end
  if p.channels == 1 then source = image.gray(source) end
  if p.channels == 3 and source:size(1) == 1 then source = ops.expand(source, 3, source:size(2), source:size(3)) end
  if source:size(2) == p.height and source:size(3) == p.width then return source end
  return image.resize(source, p.height, p.width)
end

--- A batch of raw images as a network sees them.
---@param sources (Tensor|string)[]  images or paths
---@param p Preprocessing
---@return Tensor|nil, string|nil  f32 N x channels x height x width, or nil and a message
function preprocess.batch(sources, p)
  local images = {}
  if type(sources) ~= "table" then
    errors.raise("an image must be a path or a u8 tensor C x H x W, or a list of them, got %s", type(sources))
  end
  for i, source in ipairs(sources) do
    local bytes, message = preprocess.bytes(source, p)
    if not bytes then return nil, message end
    images[i] = ops.unsqueeze(bytes, 1)
  end
  if #images == 0 then errors.raise("no images given") end
  return image.normalize(ops.as_image(ops.cat(images, 1)), { mean = p.mean, std = p.std })
end

return preprocess
