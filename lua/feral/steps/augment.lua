--- augment: training images varied at random, by a list of steps: augment { steps.rotate(10), steps.mirror(0.5) }.
---
---     local loader = data.loader(set, { augment = augment { steps.rotate(10), steps.shift(0.1), steps.mirror(0.5) } })
---
--- print(steps) lists the steps.

local errors = require "feral.base.errors"
local steps = require "feral.steps"

local augment = {}

--- The usual variation of faces: turned, moved, zoomed, mirrored and lit a little.
---@param strength number|nil  times all of it (default 1)
---@return StepList
function augment.faces(strength)
  local s = strength or 1
  if type(s) ~= "number" or not (s >= 0 and s <= 6) then
    errors.raise("augment.faces: the strength must be a number from 0 to 6, got %s", tostring(s))
  end
  return steps {
    steps.rotate(12 * s), steps.shift(0.1 * s), steps.zoom(0.12 * s), steps.mirror(0.5), steps.brightness(0.1 * s),
    steps.contrast(0.15 * s),
  }
end

local former = { new = true, batch = true, compose = true }

return setmetatable(augment, {
  __call = function(_, items) return steps.list(items) end,
  __index = function(_, name)
    if former[name] then
      errors.raise("augment.%s is no more: write augment { steps.rotate(10), steps.shift(0.1), steps.mirror(0.5) }", name)
    end
    return nil
  end,
})
