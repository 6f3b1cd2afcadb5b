--- model.lua: a trained network with all it needs to judge a raw photograph: its classes and its preprocessing.
---
--- A model file is safetensors. Its header's metadata holds "feral_model": JSON with the architecture (nn.describe), the
--- classes, the preprocessing and a card. Loading builds the network from that description and runs no code.

local nn = require "feral.nn"
local json = require "feral.formats.json"
local random = require "feral.tensor.random"
local safetensors = require "feral.formats.safetensors"
local core = require "feral.core.tensor"
local create = require "feral.core.create"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"
local preprocess = require "feral.steps.preprocess"
local scope = require "feral.core.scope"
local compile = require "feral.plan.compile"

local model = {}

local SLACK = 64 << 20 -- bytes beside the numbers

---@class Model
---@field net Module
---@field classes string[]
---@field preprocessing table  {height, width, channels, mean, std}
---@field card table  free facts about the model: data, accuracy, settings
local Model = {}
Model.__index = Model

local function is_list_of_strings(value)
  if type(value) ~= "table" or #value == 0 then return false end
  for key, v in pairs(value) do
    if math.type(key) ~= "integer" or type(v) ~= "string" then return false end
  end
  return true
end

--- Puts a network together with its classes and preprocessing.
---@param net Module
---@param options {classes: string[], preprocessing: table, card: table|nil}
---@return Model
function model.new(net, options)
  options = errors.check_options("model.new", options, { classes = false, preprocessing = false, card = {} })
  if type(net) ~= "table" or not net.parameter_names then errors.raise("model.new: a network expected, got %s", type(net)) end
  if not options.classes then errors.raise("model.new: option 'classes' is missing: a list of names") end
  if not is_list_of_strings(options.classes) then errors.raise("model.new: classes must be a list of names") end
  if not options.preprocessing then errors.raise("model.new: option 'preprocessing' is missing (a data set's or loader's)") end
  return setmetatable({
    net = net, classes = options.classes, card = options.card,
    preprocessing = preprocess.check(options.preprocessing),
  }, Model)
end

--- Writes the model. An old file of that name stays whole until the new one is complete.
---@param path string
---@return boolean|nil, string|nil  true, or nil and a message
function Model:save(path)
  local header = {
    version = 1, architecture = nn.describe(self.net), classes = self.classes, preprocessing = self.preprocessing,
    card = self.card,
  }
  return safetensors.save(path, self.net:state(), { feral_model = json.encode(header) })
end

--- The header's parts as model.new takes them, or nil and what is wrong with them.
local function check_header(text)
  local header, message = json.decode(text)
  if type(header) ~= "table" then return nil, "its model header is damaged: " .. (message or "no object") end
  if header.version ~= 1 then return nil, ("a model of version %s, this feral reads 1"):format(tostring(header.version)) end
  if not is_list_of_strings(header.classes) then return nil, "its list of classes is damaged" end
  if header.card ~= nil and type(header.card) ~= "table" then return nil, "its card is damaged" end
  local fits, preprocessing = errors.attempt(preprocess.check, header.preprocessing)
  if not fits then return nil, preprocessing end
  return { architecture = header.architecture, classes = header.classes, preprocessing = preprocessing, card = header.card or {} }
end

--- The network in these tensors. Building it uses up no random numbers of the script that loads it, and no more memory than
--- the tensors call for: a damaged size in the architecture must not ask for all there is.
local function build(architecture, tensors)
  local before, memory, bytes = random.state(), scope.memory(), 0
  for _, t in pairs(tensors) do bytes = bytes + t:numel() * 8 end
  local enough = memory.live and memory.live + 2 * bytes + SLACK
  if enough and (memory.cap == 0 or enough < memory.cap) then scope.memory_cap(enough) end
  local made, net, message = errors.attempt(nn.build, architecture)
  if enough then scope.memory_cap(memory.cap) end
  random.set_state(before)
  if not made then return nil, net end
  if message or type(net) ~= "table" or not net.parameter_names then return nil, message or "its architecture is damaged" end
  local fits, problem = errors.attempt(net.load_state, net, tensors)
  if not fits then return nil, problem end
  return net:eval()
end

--- Reads a model file.
---@param path string
---@return Model|nil, string|nil  the model in eval mode, or nil and a message
function model.load(path)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  if type(metadata.feral_model) ~= "string" then return nil, ("%s: tensors, but no feral model"):format(path) end
  local header, message = check_header(metadata.feral_model)
  if not header then return nil, ("%s: %s"):format(path, message) end
  local net, problem = build(header.architecture, tensors)
  if not net then return nil, ("%s: %s"):format(path, problem) end
  return setmetatable({
    net = net, classes = header.classes, preprocessing = header.preprocessing, card = header.card,
  }, Model)
end

--- Class scores before softmax of a batch that is preprocessed already.
---@param x Tensor  N x C x H x W
---@return Tensor   N x classes
function Model:logits(x)
  self.predictor = self.predictor or compile.predictor(self.net)
  local out = self.predictor(x)
  if out:dim() ~= 2 or out:size(2) ~= #self.classes then
    errors.raise("model: the network gives %s, N x %d expected for its classes", table.concat(out.shape, "x"), #self.classes)
  end
  return out
end

--- Probabilities of the classes for raw images.
---@param images Tensor|string|table  a u8 image C x H x W, a path, or a list of them
---@return Tensor|nil, string|nil     N x classes, or nil and a message when an image cannot be read
function Model:probabilities(images)
  if core.is_tensor(images) or type(images) == "string" then images = { images } end
  local batch, message = preprocess.batch(images, self.preprocessing)
  if not batch then return nil, message end
  return ops.softmax(self:logits(batch), 2)
end

---@class Prediction
---@field class string  the most probable class
---@field index integer  its number
---@field probability number
---@field probabilities number[]  of all classes, in the order of model.classes

--- Says what is on raw images.
---@param images Tensor|string|table  as for probabilities
---@return Prediction|Prediction[]|nil, string|nil  one for one image, a list for a list; nil and a message on failure
function Model:predict(images)
  local single = core.is_tensor(images) or type(images) == "string"
  local p, message = self:probabilities(images)
  if not p then return nil, message end
  local found = {}
  for i, row in ipairs(create.totable(p)) do
    local best = 1
    for c = 2, #row do
      if row[c] > row[best] then best = c end
    end
    found[i] = { class = self.classes[best], index = best, probability = row[best], probabilities = row }
  end
  return single and found[1] or found
end

function Model:__tostring()
  local p = self.preprocessing
  return ("model of %d classes (%s), %s parameters, images of %d x %d x %d"):format(#self.classes,
    table.concat(self.classes, ", "), self.net:num_parameters(true), p.channels, p.height, p.width)
end

return model
