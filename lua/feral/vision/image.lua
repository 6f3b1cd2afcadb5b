--- image.lua: pictures as tensors.
--- An image is C x H x W, a batch N x C x H x W; C is 1 (gray) or 3 (red, green, blue). Bytes (u8) run from 0 to 255,
--- floats (f32) from 0 to 1. Every function takes either, an image or a batch, and gives back what it got.

local core = require "feral.core.image"
local transform = require "feral.core.transform"
local paste = require "feral.core.paste"
local files = require "feral.core.files"
local view = require "feral.core.view"
local draw = require "feral.vision.draw"
local errors = require "feral.base.errors"

local image = {}

---- Files ----

--- Reads an image file: JPEG, PNG, BMP, PGM or PPM, whatever its name says. At most 8192 pixels a side and 64 million in
--- all. Transparency is laid over white, 16-bit samples become 8-bit ones, a JPEG is turned as its EXIF orientation says,
--- CMYK becomes RGB. A file that is damaged or cut off is an error, not half a picture.
---@param path string
---@param options {channels: integer}|nil  1 or 3; by default what the file holds
---@return Tensor|nil  u8 C x H x W
---@return string|nil  "path: what is wrong"
function image.load(path, options)
  local o = errors.check_options("image.load", options, { channels = false })
  return core.load(path, o.channels)
end

--- The same for the bytes of a file that are here already.
---@param bytes string
---@param options {channels: integer, name: string}|nil  the name is for the message
---@return Tensor|nil, string|nil
function image.decode(bytes, options)
  local o = errors.check_options("image.decode", options, { channels = false, name = "image" })
  return core.decode(bytes, o.channels, o.name)
end

--- The sizes that load would give, from the file's header alone.
---@param path string
---@return integer|nil channels
---@return integer|string height  or the message
---@return integer|nil width
function image.size(path) return core.size(path) end

local encoders = {
  png = function(t) return core.encode_png(t) end,
  jpeg = function(t, quality) return core.encode_jpeg(t, quality) end,
}
encoders.jpg = encoders.jpeg

--- The bytes of an image file.
---@param t Tensor  1 x H x W or 3 x H x W, u8, or f32 of 0..1
---@param format string  "png" or "jpeg"
---@param options {quality: integer}|nil  of a JPEG, 1 to 100, default 90
---@return string
function image.encode(t, format, options)
  local o = errors.check_options("image.encode", options, { quality = 90 })
  local encode = encoders[format]
  if not encode then errors.raise("image.encode: format '%s' is unknown: png or jpeg", tostring(format)) end
  return encode(transform.to_bytes(t), o.quality)
end

--- Writes an image file; the file extension, .png, .jpg or .jpeg, chooses the format. A failure leaves an old file whole.
---@param path string
---@param t Tensor  as for encode
---@param options {quality: integer}|nil
---@return true|nil, string|nil  "path: what is wrong"
function image.save(path, t, options)
  local format = path:match("%.(%w+)$")
  if not format or not encoders[format:lower()] then
    errors.raise("image.save: '%s' must end in .png, .jpg or .jpeg", path)
  end
  return files.write_atomic(path, image.encode(t, format:lower(), options))
end

---- Marks ----

--- Draws what was found on a copy of a picture.
---
---     image.save("found.png", image.draw(photo, face.detect(photo)))
---     image.draw(photo, { { box = { 40, 30, 90, 90 }, class = "happiness", probability = 0.97 } }, { corners = "square" })
---
--- A face is a table; all its fields may be left out but one of the first three, and other fields do no harm:
---   box          {x, y, w, h}, x and y those of its upper left corner
---   points       dots, as the eyes, the nose and the corners of the mouth: a list of {x, y}, or a tensor N x 2
---   landmarks    the same; 68 in the order of 300-W are joined by lines
---   class        a name; emotions have colours of their own
---   probability  0 to 1, written behind the class
---   label        a text in the place of these two
---   color        {red, green, blue} of 0 to 255
--- Places are in pixels from the upper left corner of the picture, 0, 0. Lines and letters grow with the picture. Letters are
--- those of ASCII, others are '?'.
---@param picture Tensor  u8, or f32 of 0..1: 1 x H x W or 3 x H x W
---@param faces table[]
---@param options table|nil  corners: "round" (default) or "square"; line_width and text_size (the height of capitals) in pixels;
---  color: of all faces that name none; boxes, points, landmarks, labels: false leaves them out
---@return Tensor  u8 3 x H x W
--- Raises on a face without a place.
function image.draw(picture, faces, options) return draw(picture, faces, options) end

---- Pixels ----

--- The brightness of an image (luma of ITU-R BT.601); a gray one comes back as it is.
---@param t Tensor  (N x) 1|3 x H x W
---@return Tensor  (N x) 1 x H x W
function image.gray(t) return transform.gray(t) end

--- To another size. An axis that shrinks takes the mean of the pixels it covers; one that grows is interpolated linearly.
---@param t Tensor  (N x) C x H x W
---@param height integer
---@param width integer
---@return Tensor  (N x) C x height x width
function image.resize(t, height, width) return transform.resize(t, height, width) end

--- A rectangle of the image: a view, which shares its memory.
---@param t Tensor  (N x) C x H x W
---@param top integer   first row, from 1
---@param left integer  first column, from 1
---@param height integer
---@param width integer
---@return Tensor  (N x) C x height x width
function image.crop(t, top, left, height, width)
  local dims = t:dim()
  if dims ~= 3 and dims ~= 4 then
    errors.raise("image.crop: an image is C x H x W and a batch N x C x H x W, got %d dimensions", dims)
  end
  local whole_height, whole_width = t:size(dims - 1), t:size(dims)
  if top < 1 or left < 1 or height < 1 or width < 1 or top + height - 1 > whole_height or left + width - 1 > whole_width then
    errors.raise("image.crop: %d x %d from row %d, column %d on is not inside of %d x %d", height, width, top, left,
      whole_height, whole_width)
  end
  return view.narrow(view.narrow(t, dims - 1, top, height), dims, left, width)
end

local mirrorings = { horizontal = 2, vertical = 4 }

--- Mirrored.
---@param t Tensor  (N x) C x H x W
---@param direction string|nil  "horizontal" (default): left and right change places; "vertical": top and bottom
---@return Tensor
function image.flip(t, direction)
  local orientation = mirrorings[direction or "horizontal"]
  if not orientation then errors.raise("image.flip: '%s' is neither horizontal nor vertical", tostring(direction)) end
  return transform.orient(t, orientation)
end

local edges = { clamp = 0, reflect = 1, constant = 2 }
local quarter_turns = { [0] = 1, [90] = 8, [180] = 3, [270] = 6 }

local function check_edge(where, edge)
  return edges[edge] or errors.raise("%s: edge '%s' is unknown: clamp, reflect or constant", where, tostring(edge))
end

--- Through an affine map, interpolated bilinearly: the pixel of column x and row y (from 0) of the result is taken from
--- column a x + b y + c and row d x + e y + f of the image.
---@param t Tensor  (N x) C x H x W
---@param map number[]  {a, b, c, d, e, f}
---@param options {height: integer, width: integer, edge: string, fill: number|number[]}|nil  size of the result, by default
---  the image's; outside of the image: "clamp" (default) goes on with its border, "reflect" mirrors it, "constant" is 'fill'
---@return Tensor  (N x) C x height x width
function image.affine(t, map, options)
  local o = errors.check_options("image.affine", options, { height = false, width = false, edge = "clamp", fill = 0 })
  if #map ~= 6 then errors.raise("image.affine: a map has six numbers, got %d", #map) end
  return transform.affine(t, map, o.height or t:size(-2), o.width or t:size(-1), check_edge("image.affine", o.edge), o.fill)
end

--- Turned against the clock. Multiples of 90 degrees are exact, and height and width change places by 90 and 270; other
--- angles turn the picture inside of its frame.
---@param t Tensor  (N x) C x H x W
---@param degrees number
---@param options {edge: string, fill: number|number[]}|nil  as for affine
---@return Tensor
function image.rotate(t, degrees, options)
  local o = errors.check_options("image.rotate", options, { edge = "clamp", fill = 0 })
  local edge = check_edge("image.rotate", o.edge)
  local orientation = quarter_turns[degrees % 360]
  if orientation then return transform.orient(t, orientation) end
  local height, width = t:size(-2), t:size(-1)
  local x, y = (width - 1) / 2, (height - 1) / 2
  local cosine, sine = math.cos(math.rad(degrees)), math.sin(math.rad(degrees))
  local map = { cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y }
  return transform.affine(t, map, height, width, edge, o.fill)
end

local shapes = { rectangle = 0, ellipse = 1 }

--- Lays an image onto another, in place, through an affine map, interpolated bilinearly: the pixel of column x and row y
--- (from 0) of the target is taken from column a x + b y + c and row d x + e y + f of the source, where these lie inside of it.
--- A source that becomes much smaller is best resized first: of its pixels only the nearest four count.
---@param target Tensor  u8 C x H x W, or a view of one; it is changed
---@param source Tensor  u8 C x H' x W', or 1 x H' x W' for all channels
---@param map number[]  {a, b, c, d, e, f}
---@param options {shape: string, feather: number, opacity: number, gain: number|number[], offset: number|number[]}|nil  shape:
---  "rectangle" (default), the whole source, or the "ellipse" that fits into it; feather: over so many pixels of the source its
---  border fades out (0); opacity: 0 to 1 (1); gain and offset: the source's bytes times the one plus the other, for all
---  channels of the target or for each
---@return Tensor target
function image.paste(target, source, map, options)
  local o = errors.check_options("image.paste", options,
    { shape = "rectangle", feather = 0, opacity = 1, gain = 1, offset = 0 })
  if type(map) ~= "table" or #map ~= 6 then errors.raise("image.paste: a map has six numbers") end
  local shape = shapes[o.shape]
  if not shape then
    errors.raise("image.paste: shape '%s' is unknown: rectangle or ellipse", tostring(o.shape))
  end
  return paste.paste(target, source, map, shape, o.feather, o.opacity, o.gain, o.offset)
end

--- As a network sees it: (x - mean) / std, where bytes are divided by 255 first.
---@param t Tensor  (N x) C x H x W
---@param options {mean: number|number[], std: number|number[]}|nil  for all channels or for each; default 0 and 1
---@return Tensor  f32
function image.normalize(t, options)
  local o = errors.check_options("image.normalize", options, { mean = false, std = false })
  return transform.normalise(t, o.mean, o.std)
end

--- Bytes as floats of 0..1.
---@return Tensor  f32
function image.to_float(t) return transform.normalise(t) end

--- Floats of 0..1 as bytes: times 255, rounded, cut off at both ends.
---@return Tensor  u8
function image.to_bytes(t) return transform.to_bytes(t) end

return image
