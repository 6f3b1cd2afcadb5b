--- random.lua: the generator that deals out streams of random numbers.
--- A stream is named by (seed, number); its numbers are functions of that name and their position (base/rng.h), so the
--- generator's whole state is two integers, and a checkpoint holds it.

local errors = require "feral.base.errors"

local random = {}

--- Streams that belong to one purpose, at distances that none uses up; those of random.stream() count from 1. A purpose adds the
--- number of what it draws for: streams.order + epoch.
random.streams = {
  face = 1 << 40,  -- vision/face.lua: looks of drawn faces
  split = 2 << 40, -- data/picking.lua: who goes into which part
  noise = 3 << 40, -- data/synthetic.lua: in drawn pictures
  order = 4 << 40, -- data/loader.lua: of samples in an epoch
  probe = 5 << 40, -- plan/compile.lua: an input that a plan and its network must agree on
  fold = 6 << 40, -- data/picking.lua: who goes into which fold
  balance = 7 << 40, -- data/picking.lua: which samples are taken more often
  shuffle = 8 << 40, -- data/picking.lua: the order of a shuffled set
}

local state = { seed = 0, count = 0 }

--- Starts again from a seed: the same calls then give the same numbers.
---@param seed integer
function random.seed(seed)
  local whole = math.tointeger(seed)
  if not whole then errors.raise("the seed must be a whole number, got %s", tostring(seed)) end
  state = { seed = whole, count = 0 }
end

--- The next unused stream.
---@return integer seed, integer stream
function random.stream()
  state.count = state.count + 1
  return state.seed, state.count
end

--- Where the generator stands, for checkpoints.
---@return {seed: integer, count: integer}
function random.state() return { seed = state.seed, count = state.count } end

--- Goes on from where random.state() was.
---@param saved {seed: integer, count: integer}
function random.set_state(saved) state = { seed = saved.seed, count = saved.count } end

return random
