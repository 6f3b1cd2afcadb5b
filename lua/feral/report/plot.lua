--- plot.lua: pictures of data and results.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local arith = require "feral.core.arith"
local view = require "feral.core.view"
local draw = require "feral.core.draw"
local errors = require "feral.base.errors"

local plot = {}

local GAP, TEXT_HEIGHT = 4, 12

--- An image enlarged by a whole factor, each pixel a square, in three channels.
local function enlarged(image, factor)
  local channels, height, width = table.unpack(image.shape)
  local wide = view.expand(view.reshape(image, channels, height, 1, width, 1), channels, height, factor, width, factor)
  local big = view.reshape(wide, channels, height * factor, width * factor)
  return channels == 3 and big or view.expand(big, 3, height * factor, width * factor)
end

local function paste(sheet, image, left, top)
  arith.copy_(view.narrow(view.narrow(sheet, 2, top + 1, image:size(2)), 3, left + 1, image:size(3)), image)
end

--- The longest beginning of a text that is no wider than 'width'.
local function fitted(text, width)
  text = text:sub(1, 500)
  while #text > 0 and draw.text_size(text) > width do text = text:sub(1, -2) end
  return text
end

--- How many images there are; raises when one is not of the kind or size of the first.
local function check_images(images)
  local count = type(images) == "table" and #images or core.is_tensor(images) and images:dim() == 4 and #images or 0
  if count == 0 then errors.raise("plot.grid: images must be a list of tensors, or one of M x C x H x W") end
  local expected
  for i = 1, count do
    local image = images[i]
    local is_image = core.is_tensor(image) and image:dim() == 3 and image.dtype == "u8"
    if not is_image or (image:size(1) ~= 1 and image:size(1) ~= 3) then
      errors.raise("plot.grid: image %d must be u8 1 x H x W or 3 x H x W", i)
    end
    local shape = table.concat(image.shape, "x", 2)
    expected = expected or shape
    if shape ~= expected then errors.raise("plot.grid: image %d is %s, the first %s", i, shape, expected) end
  end
  return count
end

--- A contact sheet: images in rows, each with a line of text under it.
---@param images Tensor|Tensor[]  u8 M x C x H x W, or a list of u8 C x H x W of one size
---@param options {columns: integer, scale: integer, labels: string[], colors: table[]}|nil  text and its colour {r, g, b}
---  for each image
---@return Tensor  u8 3 x H' x W'
function plot.grid(images, options)
  local o = errors.check_options("plot.grid", options, { columns = false, scale = 2, labels = false, colors = {} })
  local count, first = check_images(images), images[1]
  for _, name in ipairs { "columns", "scale" } do
    if o[name] and (math.type(o[name]) ~= "integer" or o[name] < 1) then
      errors.raise("plot.grid: %s must be a whole number from 1, got %s", name, tostring(o[name]))
    end
  end
  local columns = o.columns or math.ceil(math.sqrt(count))
  local wide, high = first:size(3) * o.scale + GAP, first:size(2) * o.scale + GAP + (o.labels and TEXT_HEIGHT or 0)
  local rows = (count + columns - 1) // columns
  local sheet = create.full({ 3, rows * high + GAP, columns * wide + GAP }, 255, "u8")
  for i = 1, count do
    local left, top = GAP + (i - 1) % columns * wide, GAP + (i - 1) // columns * high
    paste(sheet, enlarged(images[i], o.scale), left, top)
    if o.labels and o.labels[i] then
      draw.text(sheet, left, top + first:size(2) * o.scale + 2, fitted(o.labels[i], wide - GAP), 1, o.colors[i] or 0)
    end
  end
  return sheet
end

return plot
