--- preprocess: from raw images to what the other stages see. The one place where a model touches how that is done.

local stages = require "feral.model.stages"
local preprocess = require "feral.steps.preprocess"
local errors = require "feral.base.errors"

---@class PreprocessStage : Stage
---@field settings StepList  as data sets and loaders have and take it
local Preprocess = stages.class("preprocess", "preprocess")

---@param settings StepList|table  a loader's
--- Raises when the size of what comes out depends on the image.
function Preprocess:init(settings)
  self.settings = preprocess.check(settings)
  if not self.settings:output() then
    errors.raise("preprocessing: what comes out of %s differs in size from image to image; resize or crop it",
      tostring(self.settings))
  end
end

function Preprocess:describe() return self.settings:describe() end

--- Raw images become a batch.
---@param images (Tensor|string)[]  C x H x W, or paths
---@return Tensor|nil, string|nil   N x C x H x W, or nil and which image cannot be read
function Preprocess:apply(images) return self.settings:batch(images) end

--- Of an image as it leaves.
---@return integer channels, integer height, integer width
function Preprocess:size() return self.settings:output() end

--- True when other settings give the same batches.
---@param settings StepList
function Preprocess:equals(settings) return preprocess.check(settings) == self.settings end

function Preprocess:text() return tostring(self.settings) end

return Preprocess
