--- pooling.lua: pooling of images with its gradients, behind nn.MaxPool2d, nn.AvgPool2d and nn.GlobalAvgPool.

local arith = require "feral.core.arith"
local core = require "feral.core.tensor"
local pool = require "feral.core.pool"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local sizes = require "feral.base.sizes"

local pooling = {}

--- What the engine takes, from what a person gives.
---@param where string  for messages
---@param kernel integer|integer[]
---@param options {stride: integer|integer[], padding: integer|integer[], ceil: boolean, count_include_pad: boolean}
---@return integer[]
function pooling.geometry(where, kernel, options)
  local kh, kw = sizes.pair(where, "kernel", kernel)
  local sh, sw = kh, kw
  if options.stride then sh, sw = sizes.pair(where, "stride", options.stride) end
  local ph, pw = sizes.pair(where, "padding", options.padding, 0)
  if 2 * ph > kh or 2 * pw > kw then
    errors.raise("%s: padding %dx%d is more than half of the kernel, %dx%d", where, ph, pw, kh, kw)
  end
  return { kh, kw, sh, sw, ph, pw, options.ceil and 1 or 0, options.count_include_pad and 1 or 0 }
end

--- The largest of each window.
---@param x Tensor  N x C x H x W
---@param geometry integer[]  from pooling.geometry
---@return Tensor  N x C x H' x W'
function pooling.max(x, geometry)
  local wanted = autograd.wanted(x)
  local y, positions = pool.max(x, geometry, wanted)
  if not wanted then return y end
  local shape = x.shape
  return autograd.record(y, { x }, function(g) return pool.backward(g, geometry, shape, positions) end)
end

--- The mean of each window.
function pooling.mean(x, geometry)
  local y = pool.mean(x, geometry)
  if not autograd.wanted(x) then return y end
  local shape = x.shape
  return autograd.record(y, { x }, function(g) return pool.backward(g, geometry, shape) end)
end

--- Each pixel as a square of 'scale' x 'scale' ones. It is what the gradient of a mean over such squares does, but for its scale.
---@param x Tensor  N x C x H x W
---@param scale integer
---@return Tensor  N x C x H scale x W scale
function pooling.repeated(x, scale)
  if not core.is_tensor(x) or x:dim() ~= 4 then
    errors.raise("Upsample: input is %s, N x C x H x W expected", core.is_tensor(x) and table.concat(x.shape, "x") or type(x))
  end
  local n, c, h, w = table.unpack(x.shape)
  local geometry = { scale, scale, scale, scale, 0, 0, 0, 0 }
  local y = pool.backward(arith.mul(x, scale * scale), geometry, { n, c, h * scale, w * scale })
  if not autograd.wanted(x) then return y end
  return autograd.record(y, { x }, function(g) return arith.mul(pool.mean(g, geometry), scale * scale) end)
end

--- The mean of each channel.
---@param x Tensor  N x C x H x W
---@return Tensor  N x C
function pooling.global_mean(x)
  local y = pool.global_mean(x)
  if not autograd.wanted(x) then return y end
  local shape = x.shape
  return autograd.record(y, { x }, function(g) return pool.global_mean_backward(g, shape) end)
end

return pooling
