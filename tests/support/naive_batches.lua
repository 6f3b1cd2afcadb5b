--- naive_batches.lua: the batches of a loader as they are defined, one after another and without any thread.

local augment = require "feral.steps.augment"
local create = require "feral.core.create"
local view = require "feral.core.view"

--- The batches of an epoch: a list of {x, y}.
---@param loader Loader
---@param epoch integer
---@return {[1]: Tensor, [2]: integer[]}[]
return function(loader, epoch)
  local set, frames, order, found = loader.set, loader.frames or 1, create.totable(loader:order(epoch)), {}
  local channels, height, width = set:image_size()
  local images = view.reshape(set.images, -1, channels, height, width)
  local labels = create.totable(set.labels)
  for b = 1, #loader do
    local rows, numbers, y = {}, {}, {}
    for i = (b - 1) * loader.batch + 1, math.min(#order, b * loader.batch) do
      y[#y + 1] = labels[order[i]]
      for k = 1, frames do
        rows[#rows + 1], numbers[#numbers + 1] = (order[i] - 1) * frames + k, order[i]
      end
    end
    local x = view.permute(create.empty { #rows, height, width, channels }, 1, 4, 2, 3)
    augment.batch(x, images, create.from_table(rows, "i32"), loader.settings, loader.seed, epoch,
      create.from_table(numbers, "i32"))
    found[b] = { loader.frames and view.reshape(x, #y, frames, channels, height, width) or x, y }
  end
  return found
end
