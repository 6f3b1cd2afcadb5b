--- feature.lua: features that describe an image, for classifiers that are not networks.

local core = require "feral.core.hog"
local view = require "feral.core.view"
local errors = require "feral.base.errors"

local feature = {}

--- Histograms of oriented gradients (Dalal and Triggs 2005), in OpenCV's order and scale.
---@param images Tensor  N x 1 x H x W or 1 x H x W, u8, or f32 of 0..1
---@param options {cell: integer, block: integer, stride: integer, bins: integer, signed: boolean, clip: number}|nil  sides of
---  cells and blocks and the way from block to block in pixels (8, 16, 8), directions (9) over half the circle or the
---  whole (signed = true), largest number in a normalised block (0.2)
---@return Tensor  f32 N x D, or D for one image; 900 features for 48 x 48
---  Blocks that see a pixel that is not finite are NaN in all their features.
--- Raises when the blocks do not fill the image evenly.
function feature.hog(images, options)
  local o = errors.check_options("feature.hog", options,
    { cell = 8, block = 16, stride = 8, bins = 9, signed = false, clip = 0.2 })
  local features = core.hog(images, o.cell, o.block, o.stride, o.bins, o.signed, o.clip)
  return images:dim() == 3 and view.select_first(features, 1) or features
end

return feature
