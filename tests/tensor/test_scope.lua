local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local tensor = feral.tensor

local T = {}

function T.test_leaving_releases_what_was_made_inside()
  local t
  do
    local _s <close> = tensor.scope()
    t = tensor.ones(3)
  end
  lu.assertTrue(t:is_released())
  local message = check.message(function() return t + 1 end)
  lu.assertStrContains(message, "released tensor: its scope has ended")
  lu.assertStrContains(tostring(check.message(function() return t.shape end)), "released")
end

function T.test_what_was_made_before_stays()
  local t = tensor.ones(3)
  do
    local _s <close> = tensor.scope()
    t:add_(1)
  end
  lu.assertEquals(t:totable(), { 2, 2, 2 })
end

function T.test_kept_tensors_and_their_storage_stay()
  local view
  do
    local _s <close> = tensor.scope()
    local whole = tensor.arange(6):reshape(2, 3)
    view = whole[2]:keep()
    tensor.zeros(6) -- would take a storage given back too early
  end
  for _ = 1, 3 do tensor.full({ 6 }, 9) end
  lu.assertEquals(view:totable(), { 4, 5, 6 })
end

function T.test_tidy_hands_its_results_to_the_scope_around()
  local outer = tensor.scope()
  local sum = tensor.tidy(function()
    local a = tensor.ones(4)
    return a + a
  end)
  lu.assertEquals(sum:totable(), { 2, 2, 2, 2 })
  outer:close()
  lu.assertTrue(sum:is_released())
end

function T.test_an_error_inside_closes_the_scope()
  local t
  pcall(function()
    local _s <close> = tensor.scope()
    t = tensor.ones(2)
    error("on purpose")
  end)
  lu.assertTrue(t:is_released())
end

function T.test_scopes_left_open_inside_are_closed_with_the_outer_one()
  local outer = tensor.scope()
  tensor.scope()
  local t = tensor.ones(2)
  outer:close()
  lu.assertTrue(t:is_released())
  local after = tensor.ones(2)
  lu.assertFalse(after:is_released())
  outer:close() -- twice does nothing
end

function T.test_a_repeated_step_needs_no_more_memory_than_one()
  local function step()
    local _s <close> = tensor.scope()
    local a = tensor.ones(1000, 100)
    return ((a + 1) * 2):sum():item()
  end
  step()
  collectgarbage()
  tensor.reset_peak()
  step()
  local one = tensor.memory().peak
  for _ = 1, 50 do step() end
  lu.assertTrue(tensor.memory().peak <= one + 100000, "the peak grew")
end

function T.test_free_lists_of_old_sizes_are_given_up()
  for i = 1, 40 do
    local _s <close> = tensor.scope()
    tensor.zeros(1000000 + i)
  end
  lu.assertTrue(tensor.memory().recycled < 40 * 4000000 / 2)
end

function T.test_headers_of_released_tensors_do_not_pile_up_beside_large_tensors()
  local large = tensor.zeros(50000000)
  collectgarbage()
  local before = tensor.memory().live
  for _ = 1, 30000 do
    local _s <close> = tensor.scope()
    for _ = 1, 5 do tensor.zeros(1) end
  end
  lu.assertTrue(tensor.memory().live - before < 20000000, "garbage piled up")
  lu.assertEquals(large:size(1), 50000000)
end

function T.test_the_cap_is_an_ordinary_error()
  collectgarbage()
  tensor.memory_cap(tensor.memory().live + 10000000)
  local ok, message = pcall(tensor.zeros, 100000000)
  tensor.memory_cap(0)
  lu.assertFalse(ok)
  lu.assertStrContains(message, "not enough memory")
  lu.assertEquals(tensor.zeros(3):sum():item(), 0)
end

function T.test_absurd_sizes_are_refused()
  lu.assertStrContains(check.message(tensor.zeros, 2000000000, 2000000000, 2000000000), "does not fit in memory")
  lu.assertStrContains(check.message(tensor.zeros, 0), "a size must be 1 or more, got 0")
end

return T
