--- batches.lua: a loader of random numbers that a line can tell apart, for tests of what trains.

local create = require "feral.core.create"
local tensor = require "feral.tensor"

local Loader = {}
Loader.__index = Loader
function Loader:__len() return self.count end

--- count batches of n samples with d features; the label says on which side of a plane a sample lies. With soft = true labels
--- are probabilities, 0.9 and 0.1.
local function new(options)
  local o = { count = options.count or 6, n = options.n or 16, d = options.d or 5, seed = options.seed or 1, soft = options.soft }
  return setmetatable(o, Loader)
end

--- Batch i of an epoch is a function of (seed, epoch, i).
function Loader:batch(epoch, i)
  local x = create.normal_(create.empty { self.n, self.d }, self.seed, epoch * 1000 + i)
  local labels = {}
  for k, row in ipairs(x:totable()) do labels[k] = row[1] + 2 * row[2] - row[3] > 0 and 2 or 1 end
  if not self.soft then return x, tensor(labels, "i32") end
  for k, label in ipairs(labels) do labels[k] = label == 1 and { 0.9, 0.1 } or { 0.1, 0.9 } end
  return x, tensor(labels)
end

function Loader:batches(epoch, first)
  local i = (first or 1) - 1
  return function()
    i = i + 1
    if i > self.count then return nil end
    if self.trouble then self.trouble(epoch, i) end
    return self:batch(epoch, i)
  end
end

return new
