--- preprocess: from raw images to what the other stages see. The one place where a model touches how that is done.

local stages = require "feral.model.stages"
local preprocess = require "feral.steps.preprocess"
local json = require "feral.formats.json"

---@class PreprocessStage : Stage
---@field settings Preprocessing  as data sets and loaders have and take it
local Preprocess = stages.class("preprocess", "preprocess")

---@param settings Preprocessing  a loader's
function Preprocess:init(settings) self.settings = preprocess.check(settings) end

function Preprocess:describe() return self.settings end

--- Raw images become a batch.
---@param images (Tensor|string)[]  u8 C x H x W, or paths
---@return Tensor|nil, string|nil   N x C x H x W, or nil and which image cannot be read
function Preprocess:apply(images) return preprocess.batch(images, self.settings) end

--- Of an image as it leaves.
---@return integer channels, integer height, integer width
function Preprocess:size() return self.settings.channels, self.settings.height, self.settings.width end

--- True when other settings give the same batches.
---@param settings Preprocessing
function Preprocess:equals(settings) return json.encode(settings) == json.encode(self.settings) end

function Preprocess:text()
  local s = self.settings
  return ("images of %d x %d x %d, mean %g, std %g"):format(s.channels, s.height, s.width, s.mean, s.std)
end

return Preprocess
