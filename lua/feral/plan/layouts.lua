--- layouts.lua: what the dimensions of a tensor in a plan mean. Their number does not say it: N x T x C x H x W and
--- N x C x D x H x W are both five. Layers that take the one or the other say so by its name.

local layouts = {}

--- By name: the dimensions, as messages show them.
layouts.dimensions = {
  features = "N x F",
  ["feature sequences"] = "N x T x F",
  images = "N x C x H x W",
  ["image sequences"] = "N x T x C x H x W",
  volumes = "N x C x D x H x W",
}

local by_count = { [2] = "features", [3] = "feature sequences", [4] = "images" }

--- The layout of a network's input while nobody has said more: nil for five dimensions, until a layer takes them.
---@param dims integer
---@return string|nil
function layouts.of_input(dims) return by_count[dims] end

local steps = { ["image sequences"] = "images", ["feature sequences"] = "features" }
local sequences = { images = "image sequences", features = "feature sequences" }

--- The layout of one step of sequences; nil where the layout has none.
---@param name string|nil
---@return string|nil
function layouts.of_step(name) return steps[name] end

--- The layout of sequences of such; nil where there is none.
function layouts.of_sequence(name) return sequences[name] end

--- A batch's sizes as the engine's plans take them: steps of images are images. Others are as they are.
---@param name string
---@param shape integer[]
---@param n integer  of the batch
---@return integer[]
function layouts.engine_shape(name, shape, n)
  if name == "image sequences" then return { n * shape[2], table.unpack(shape, 3) } end
  return { n, table.unpack(shape, 2) }
end

return layouts
