--- naive_batches.lua: the batches of a loader as they are defined, one after another and without any thread.

local core = require "feral.core.steps"
local create = require "feral.core.create"
local index = require "feral.core.index"
local view = require "feral.core.view"

--- The batches of an epoch: a list of {x, y}. Steps that mix samples are not for this.
---@param loader Loader
---@param epoch integer
---@return {[1]: Tensor, [2]: integer[]}[]
return function(loader, epoch)
  local set, order, found = loader.set, create.totable(loader:order(epoch)), {}
  local channels, height, width = set:image_size()
  local frames = set:is_sequential() and set.images:size(2) or 1
  local images, labels = view.reshape(set.images, -1, channels, height, width), create.totable(set.labels)
  for b = 1, #loader do
    local made, y = {}, {}
    for i = (b - 1) * loader.batch + 1, math.min(#order, b * loader.batch) do
      local at = order[i]
      y[#y + 1] = labels[at]
      for k = 1, frames do
        local image = view.select_first(images, (at - 1) * frames + k)
        made[#made + 1] = assert(core.run(loader.list.core, image, loader.training, loader.seed, epoch, at))
      end
    end
    local x = view.as_image(index.cat(made, 1))
    if set:is_sequential() then
      local _, c, h, w = table.unpack(x.shape)
      x = view.reshape(x, #y, frames, c, h, w)
    end
    found[b] = { x, y }
  end
  return found
end
