--- preprocess: from a raw image to what a network sees, as a list of steps: preprocess { steps.gray(), steps.resize(48) }.
--- Training, evaluation and prediction all run the same list, which travels in the model file.

local errors = require "feral.base.errors"
local steps = require "feral.steps"

local preprocess = {}

local function is_whole(n, least, most) return math.type(n) == "integer" and n >= least and n <= most end

local function is_finite(n) return type(n) == "number" and n == n and math.abs(n) < math.huge end

--- The list that settings of the first model files mean: {height, width, channels, mean, std}.
local function from_settings(p)
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
  local colour = p.channels == 1 and steps.gray() or steps.rgb()
  return steps { colour, steps.resize(p.height, p.width), steps.normalize(p.mean, p.std) }
end

--- A list of steps of what stands for one: a list, what List:describe wrote down, or {height, width, channels, mean, std}.
---@param p StepList|table
---@return StepList
--- Raises when it cannot be one.
function preprocess.check(p)
  if steps.is_list(p) then return p end
  if type(p) ~= "table" then errors.raise("preprocessing must be a list of steps, got %s", type(p)) end
  if #p == 0 and next(p) ~= nil then return from_settings(p) end
  local list, message = steps.build(p)
  return list or errors.raise("preprocessing: %s", message)
end

--- A batch of raw images as a network sees them.
---@param sources (Tensor|string)[]  images or paths
---@param p StepList
---@return Tensor|nil, string|nil  f32 N x channels x height x width, or nil and a message
function preprocess.batch(sources, p) return preprocess.check(p):batch(sources) end

return setmetatable(preprocess, { __call = function(_, items) return steps.list(items) end })
