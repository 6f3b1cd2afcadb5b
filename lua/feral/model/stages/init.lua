--- stages: what a model is made of, one after the other: preprocess, features, a classifier, calibration, a mask.
---
---     local stages = feral.model.stages
---     feral.model.new({ stages.hog { cell = 8 }, machine }, { preprocessing = loader.preprocessing })
---
--- A kind of stage is a class with a role, in a file of its own, lua/feral/model/stages/<kind>.lua, which returns the class:
--- stages.hog is model/stages/hog.lua. To add one, add that file. What passes from stage to stage:
---
---     preprocess  raw images -> N x C x H x W
---     feature     N x ...    -> N x D
---     classify    N x ...    -> scores N x K; softmax makes them probabilities, for every kind
---     calibrate   scores     -> scores N x K
---     mask        scores     -> scores of the classes that it keeps

local engine = require "feral.core.engine"
local errors = require "feral.base.errors"

local stages = {}

--- The roles in the order in which a model has them: any number of features, one classifier, the others once at most. What
--- finds and straightens faces will stand in front.
stages.roles = { "preprocess", "feature", "classify", "calibrate", "mask" }

---@class Stage  what all stages are
---@field kind string
---@field role string           one of stages.roles
---@field inputs integer|nil    D, where it takes N x D and knows D without having seen any
---@field likelihood boolean|nil  of a classifier: its probabilities are meant as such, so that their loss says something
local Stage = {}
Stage.__index = Stage

--- Called with the arguments of stages.<kind>(...); raises when they cannot be.
function Stage:init() end

--- The settings as plain data for a file; with them and the tensors of state(), the class's build makes the stage again.
---@return table
function Stage:describe() return {} end

--- Pairs {name, tensor} of what the stage has learnt.
---@return table[]
function Stage:state() return {} end

---@param x Tensor
---@return Tensor
function Stage:apply() errors.raise("stage '%s' has no function apply(x)", self.kind) end

--- Names of the classes whose scores the stage gives, from those before it (nil: nobody has named them yet).
---@param given string[]|nil
---@return string[]|nil, string|nil  nil and what does not fit
function Stage:names(given) return given end

--- What print(model) says of it behind its kind.
---@return string
function Stage:text() return "" end

local classes = {} -- kind -> class

--- Makes a class of stages. A stage file returns it with what it needs of describe, state, apply, names, text, and
---   build(settings, tensors): the stage, or nil and a message; default: class(settings), for a stage without tensors
---   wraps(value): true for what is no stage but stands for one in model.new, as a network does; it is then class(value)
---@param kind string
---@param role string  one of stages.roles
---@return table
function stages.class(kind, role)
  local class = setmetatable({ kind = kind, role = role }, {
    __index = Stage,
    __call = function(class, ...)
      local stage = setmetatable({}, class)
      stage:init(...)
      return stage
    end,
  })
  class.__index = class
  class.__tostring = function(stage)
    local text = stage:text()
    return text == "" and kind or ("%s: %s"):format(kind, text)
  end
  function class.build(settings)
    local made, stage = errors.attempt(class, settings)
    if not made then return nil, stage end
    return stage
  end
  classes[kind] = class
  return class
end

--- Loads the files of stages of a kind; of all where kind is nil.
local function load_files(kind)
  for _, module in ipairs(engine.modules()) do
    local found = module:match("^feral%.model%.stages%.([%w_]+)$")
    if found and (found == kind or not kind) then require(module) end
  end
end

--- The class of that kind, or nil.
function stages.find(kind)
  if type(kind) ~= "string" then return nil end
  if not classes[kind] then load_files(kind) end
  return classes[kind]
end

--- The names of all kinds, sorted.
---@return string[]
function stages.kinds()
  load_files()
  local kinds = {}
  for kind in pairs(classes) do kinds[#kinds + 1] = kind end
  table.sort(kinds)
  return kinds
end

--- True for a stage, not for a class of them.
function stages.is_stage(value)
  local class = getmetatable(value)
  return type(class) == "table" and class.kind ~= nil and classes[class.kind] == class
end

--- The stage that a value is or stands for: a network, an SVM. Nil where it stands for none.
---@param value any
---@return Stage|nil
function stages.of(value)
  if stages.is_stage(value) then return value end
  for _, kind in ipairs(stages.kinds()) do
    local class = classes[kind]
    if class.wraps and class.wraps(value) then return class(value) end
  end
end

return setmetatable(stages, {
  --- stages.hog loads model/stages/hog.lua
  __index = function(self, kind)
    local class = stages.find(kind)
    if not class then
      errors.raise("model.stages has no kind '%s'%s", tostring(kind), errors.hint(kind, stages.kinds()))
    end
    rawset(self, kind, class)
    return class
  end,
})
