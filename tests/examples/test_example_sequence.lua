local lu = require "luaunit"

local T = {}

--- Small enough for seconds: that it learns is seen by running it as it is.
function T.test_it_runs_as_its_head_says()
  local command = ("'%s' examples/sequence.lua --epochs 1 --count 40 --seed 3 2>&1"):format(arg[-1])
  local child = assert(io.popen(command))
  local output = child:read("a")
  lu.assertTrue(child:close(), output)
  lu.assertStrContains(output, "40 sequences of 8 images of 1 x 32 x 32")
  lu.assertStrMatches(output, ".*CNN and LSTM +[%d.]+ %%.*mean over time +[%d.]+ %%.*")
end

return T
