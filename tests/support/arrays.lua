--- arrays.lua: arrays as a shape and a flat row-major list, and loops over their indices: what tests of views and picking
--- compare with.

local create = require "feral.core.create"
local check = require "check"
local layouts = require "layouts"

local arrays = {}

--- A random shape of least to most dimensions with sides of at most 'side'.
function arrays.shape(least, most, side)
  local shape = {}
  for d = 1, check.integer(least, most) do shape[d] = check.integer(1, side or 5) end
  return shape
end

--- Calls visit(indices) for all indices of a shape in row-major order. The table is the same each time.
function arrays.each(shape, visit)
  local indices = {}
  local function go(d)
    if d > #shape then return visit(indices) end
    for i = 1, shape[d] do
      indices[d] = i
      go(d + 1)
    end
  end
  go(1)
end

--- The place (1-based) in the flat list.
function arrays.place(shape, indices)
  local place = 0
  for d, size in ipairs(shape) do place = place * size + indices[d] - 1 end
  return place + 1
end

function arrays.count(shape)
  local count = 1
  for _, size in ipairs(shape) do count = count * size end
  return count
end

--- All numbers of a tensor in row-major order, by totable alone.
function arrays.flat(t)
  local list = {}
  local function go(value)
    if type(value) ~= "table" then
      list[#list + 1] = value
      return
    end
    for _, v in ipairs(value) do go(v) end
  end
  go(create.totable(t))
  return list
end

--- A random tensor of this shape, lying in memory in any way, and its numbers. Numbers of u8 and i32 are below 100.
function arrays.random(shape, dtype)
  local t = check.randn(table.unpack(shape))
  if dtype and dtype ~= t.dtype then t = (t * 30 + 50):to(dtype) end
  return #shape > 0 and layouts.vary(t) or t, arrays.flat(t)
end

--- The list that is made by calling f(indices) for all indices of a shape.
function arrays.build(shape, f)
  local list = {}
  arrays.each(shape, function(indices) list[#list + 1] = f(indices) end)
  return list
end

--- The indices with the one of dimension d replaced.
function arrays.with(indices, d, i)
  local copy = { table.unpack(indices) }
  copy[d] = i
  return copy
end

return arrays
