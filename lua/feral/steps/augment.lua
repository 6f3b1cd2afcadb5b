--- augment.lua: training images varied at random.
---
---     local aug = augment.new{rotation = 10, shift = 0.1, zoom = 0.1, mirror = 0.5, brightness = 0.2, contrast = 0.2}
---
--- The data loader hands it to augment.batch, which warps the images straight into the batch. Each sample is a function of
--- (seed, epoch, its number) alone.

local core = require "feral.core.augment"
local image = require "feral.vision.image"
local create = require "feral.core.create"
local view = require "feral.core.view"
local errors = require "feral.base.errors"

local augment = {}

local Augment = {}
Augment.__index = Augment

--- Kinds of variation, the most each may be, and how it is said.
local kinds = {
  { "rotation", 180, "rotation +-%g degrees" },
  { "shift", 1, "shift +-%g" },
  { "zoom", 0.99, "zoom +-%g" },
  { "mirror", 1, "mirror %g" },
  { "brightness", 1, "brightness +-%g" },
  { "contrast", 1, "contrast +-%g" },
  { "fill", 255, "fill %g" },
}

local edges = { clamp = true, reflect = true, constant = true }

local defaults, names = { edge = "clamp", mean = false, std = false }, { "edge", "mean", "std" }
for _, kind in ipairs(kinds) do
  defaults[kind[1]] = 0
  names[#names + 1] = kind[1]
end

local function check(settings)
  for _, kind in ipairs(kinds) do
    local name, most, value = kind[1], kind[2], settings[kind[1]]
    if type(value) ~= "number" or not (value >= 0 and value <= most) then
      errors.raise("augment: %s must be a number from 0 to %g, got %s", name, most, tostring(value))
    end
  end
  if not edges[settings.edge] then
    errors.raise("augment: edge '%s' is unknown: clamp, reflect or constant", tostring(settings.edge))
  end
  return settings
end

--- How images are to be varied. All of it is drawn evenly from its range; without options nothing is varied.
---@class AugmentOptions
---@field rotation number|nil    degrees to either side
---@field shift number|nil       fraction of height and width, to either side
---@field zoom number|nil        fraction to either side: 0.1 draws sizes from 0.9 to 1.1
---@field mirror number|nil      probability of changing left and right
---@field brightness number|nil  fraction to either side: 0.2 multiplies by 0.8 to 1.2
---@field contrast number|nil    fraction to either side, of the distance from the picture's mean
---@field edge string|nil        outside of the picture: "clamp" (default: its border goes on), "reflect", "constant"
---@field fill number|nil        0..255, for "constant"
---@field mean number|number[]|nil  subtracted at the end, of samples of 0..1
---@field std number|number[]|nil   divided by at the end

---@param options AugmentOptions|nil
---@return table
function augment.new(options) return setmetatable(check(errors.check_options("augment.new", options, defaults)), Augment) end

--- A copy with some options changed, as mean and std, which belong to a model and not to the variation.
---@param options AugmentOptions
function Augment:with(options)
  local changed = {}
  for name, value in pairs(self) do changed[name] = value end
  for name, value in pairs(errors.check_options("augment:with", options, names)) do
    changed[name] = value
  end
  return setmetatable(check(changed), Augment)
end

--- Fills a batch.
---@param out Tensor      f32 N x C x h x w, channels last in memory; to be filled
---@param images Tensor   u8 M x C x H x W, channels last in memory
---@param indices Tensor  i32 N: which images
---@param settings table|nil  of augment.new; nil: nothing is varied, bytes become x / 255
---@param seed integer|nil
---@param epoch integer|nil
---@param numbers Tensor|nil  i32 N: what the variation of each sample depends on, by default its index
---@return Tensor  out
function augment.batch(out, images, indices, settings, seed, epoch, numbers)
  return core.batch(out, images, indices, settings, seed, epoch, numbers)
end

--- One image varied, to look at.
---@param img Tensor  u8 C x H x W
---@param options {seed: integer, epoch: integer, index: integer}|nil
---@return Tensor  u8 C x H x W
function Augment:apply(img, options)
  local o = errors.check_options("augment:apply", options, { seed = 0, epoch = 1, index = 1 })
  if img.dtype ~= "u8" or img:dim() ~= 3 then errors.raise("augment:apply: a u8 image C x H x W expected") end
  local one = view.as_image(view.unsqueeze(img, 1))
  local out = view.as_image(create.empty(one.shape))
  local number = create.from_table({ o.index }, "i32")
  core.batch(out, one, create.from_table({ 1 }, "i32"), self:with { mean = 0, std = 1 }, o.seed, o.epoch, number)
  return view.select_first(image.to_bytes(out), 1)
end

function Augment:__tostring()
  local parts = {}
  for _, kind in ipairs(kinds) do
    if self[kind[1]] ~= 0 then parts[#parts + 1] = kind[3]:format(self[kind[1]]) end
  end
  if self.edge ~= "clamp" then parts[#parts + 1] = "edge " .. self.edge end
  return "augment(" .. (#parts > 0 and table.concat(parts, ", ") or "nothing") .. ")"
end

return augment
