--- layouts.lua: the same numbers lying in memory in other ways: what user code must not be able to tell apart.

local view = require "feral.core.view"
local create = require "feral.core.create"
local arith = require "feral.core.arith"
local check = require "check"

local layouts = {}

--- A copy whose dimensions lie in the reverse order.
local function reversed(t)
  local order = {}
  for d = t:dim(), 1, -1 do order[#order + 1] = d end
  return view.permute(view.contiguous(view.permute(t, order)), order)
end

--- A view into a larger tensor.
local function inside(t)
  local sizes, dim = t.shape, check.integer(1, t:dim())
  sizes[dim] = sizes[dim] + 3
  local gap = t.dtype:find("^f") and 0 / 0 or 99
  local part = view.narrow(create.full(sizes, gap, t.dtype), dim, 2, t:size(dim))
  arith.copy_(part, t)
  return part
end

--- t in some layout: row-major, channels last, reversed, or with gaps.
function layouts.vary(t)
  local kind = check.integer(1, 4)
  if kind == 2 then return view.as_image(t) end
  if kind == 3 then return reversed(t) end
  if kind == 4 then return inside(t) end
  return t
end

return layouts
