--- hog: histograms of oriented gradients (feature.hog) of gray images.

local stages = require "feral.model.stages"
local feature = require "feral.learn.feature"
local errors = require "feral.base.errors"

---@class HogStage : Stage
---@field settings table  feature.hog's
local Hog = stages.class("hog", "feature")

local defaults = { cell = 8, block = 16, stride = 8, bins = 9, signed = false, clip = 0.2 }

--- Options as feature.hog's. Its numbers are those of samples from 0 to 1; what preprocessing shifts shifts nothing, what it
--- scales changes the noise floor of flat blocks, so train on what the model's own stages give (model.features).
---@param options {cell: integer, block: integer, stride: integer, bins: integer, signed: boolean, clip: number}|nil
function Hog:init(options)
  local o = errors.check_options("model.stages.hog", options, defaults)
  for _, name in ipairs { "cell", "block", "stride", "bins" } do
    if math.type(o[name]) ~= "integer" or o[name] < 1 then
      errors.raise("model.stages.hog: %s must be a whole number from 1, got %s", name, tostring(o[name]))
    end
  end
  if type(o.clip) ~= "number" or not (o.clip > 0 and o.clip < math.huge) then
    errors.raise("model.stages.hog: clip must be a number above 0, got %s", tostring(o.clip))
  end
  o.signed = o.signed and true or nil
  self.settings = o
end

function Hog:describe() return self.settings end

---@param x Tensor  N x 1 x H x W
---@return Tensor   N x D
function Hog:apply(x) return feature.hog(x, self.settings) end

function Hog:text()
  local s = self.settings
  return ("cells of %d, blocks of %d every %d pixels, %d%s directions"):format(s.cell, s.block, s.stride, s.bins,
    s.signed and " signed" or "")
end

return Hog
