--- improve.lua: fewer steps and less memory for what was written down: batch norms go into the weights before them, activations
--- and residual sums into the step that feeds them, and values that never live at the same time share places.

local improve = {}

local INNER = 2 -- the first value that is neither input nor output, as in kernels/plan.h
local LINE = 16 -- values begin at multiples of so many elements

local takes_tail = { conv = true, dense = true, scale = true, map = true }

--- How often each value is read.
local function count_uses(steps, output)
  local uses = { [output] = 1 }
  for _, step in ipairs(steps) do
    uses[step.x] = (uses[step.x] or 0) + 1
    if step.other then uses[step.other] = (uses[step.other] or 0) + 1 end
  end
  return uses
end

--- True when y = scale x + shift can go into the weights before it: a channel each, not what flattening made of one.
local function folds(maker, scale)
  local outputs = maker.op == "conv" and maker.f or maker.op == "dense" and maker.to
  return outputs == scale.to and not maker.other
end

--- Puts it there.
local function fold(step, scale)
  local ones = { scale.weight:numel() }
  for d = 2, step.weight:dim() do ones[d] = 1 end
  step.weight = step.weight * scale.weight:reshape(ones)
  step.bias = step.bias and step.bias * scale.weight + scale.bias or scale.bias
end

--- The steps with batch norms, activations and sums in the steps that feed them.
function improve.fuse(steps, output)
  local uses, makers, list = count_uses(steps, output), {}, {}
  --- The step that makes a value which only one other reads, and to which something can still be done.
  local function open_maker(value)
    local maker = uses[value] == 1 and makers[value]
    return maker and takes_tail[maker.op] and not maker.activation and maker or nil
  end
  local function becomes(maker, step)
    maker.y, makers[step.y] = step.y, maker
  end
  local function later(a, b)
    if not a or not b then return a or b end
    return a.place > b.place and a or b
  end
  --- The sum's maker moves to the sum's place, where the other value exists as well.
  local function join(step)
    local a, b = open_maker(step.x), open_maker(step.other)
    if a and (a.other or a.op == "map") then a = nil end
    if b and (b.other or b.op == "map") then b = nil end
    local maker = step.x ~= step.other and later(a, b)
    if not maker then return false end
    maker.other = maker == a and step.other or step.x
    list[maker.place] = false
    maker.place = #list + 1
    list[maker.place] = maker
    becomes(maker, step)
    return true
  end
  for _, step in ipairs(steps) do
    local maker, done = open_maker(step.x), false
    if step.op == "scale" and maker and folds(maker, step) then
      fold(maker, step)
      becomes(maker, step)
      done = true
    elseif step.op == "map" and not step.other and maker then
      maker.activation, maker.parameter = step.activation, step.parameter
      becomes(maker, step)
      done = true
    elseif step.op == "map" and step.other then
      done = join(step)
    end
    if not done then
      step.place = #list + 1
      list[step.place] = step
      makers[step.y] = step
    end
  end
  local kept = {}
  for _, step in ipairs(list) do
    if step then kept[#kept + 1] = step end
  end
  return kept
end

--- First and last step that needs each value.
local function lifetimes(steps)
  local born, dies = {}, {}
  for i, step in ipairs(steps) do
    born[step.y] = born[step.y] or i
    for _, value in ipairs { step.x, step.y, step.other } do dies[value] = i end
  end
  return born, dies
end

--- Where each value lies in a sample's share of the workspace: the lowest place that is free all its life.
---@return integer[] at  by value
---@return integer       numbers of workspace
function improve.places(steps, values)
  local born, dies = lifetimes(steps)
  local at, order, size = {}, {}, 0
  for value in pairs(born) do
    if value >= INNER then order[#order + 1] = value end
  end
  table.sort(order, function(a, b) return born[a] < born[b] or (born[a] == born[b] and a < b) end)
  for i, value in ipairs(order) do
    local room, place, taken = (values[value] + LINE - 1) // LINE * LINE, 0, {}
    for j = 1, i - 1 do
      local other = order[j]
      if dies[other] >= born[value] then taken[#taken + 1] = other end
    end
    table.sort(taken, function(a, b) return at[a] < at[b] or (at[a] == at[b] and a < b) end)
    for _, other in ipairs(taken) do
      if at[other] < place + room then place = math.max(place, (at[other] + values[other] + LINE - 1) // LINE * LINE) end
    end
    at[value], size = place, math.max(size, place + room)
  end
  return at, size
end

return improve
