--- random.lua: the generator that deals out streams of random numbers.
--- A stream is named by (seed, number); its numbers are functions of that name and their position (base/rng.h), so the
--- generator's whole state is two integers, and a checkpoint holds it.

local errors = require "feral.base.errors"

local random = {}

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

---@return table  {seed, count}, for checkpoints
function random.state() return { seed = state.seed, count = state.count } end

function random.set_state(saved) state = { seed = saved.seed, count = saved.count } end

return random
