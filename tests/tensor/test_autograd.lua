local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local tensor, autograd = feral.tensor, feral.autograd

local T = {}

function T.test_gradients_add_up_until_zero_grad()
  local x = tensor({ 1, 2 }):requires_grad()
  for _ = 1, 2 do (x * x):sum():backward() end
  lu.assertEquals(x.grad:totable(), { 4, 8 })
  x:zero_grad()
  lu.assertNil(x.grad)
  ;(x * 3):sum():backward()
  lu.assertEquals(x.grad:totable(), { 3, 3 })
end

function T.test_a_shared_gradient_is_not_changed_by_its_other_owner()
  local x = tensor({ 1, 1 }):requires_grad()
  local y = x * 1
  local z = y + y + y * 2 -- y gets its gradient three times
  z:sum():backward()
  lu.assertEquals(x.grad:totable(), { 4, 4 })
end

function T.test_no_grad_records_nothing_and_ends_with_an_error_too()
  local x = tensor({ 1 }):requires_grad()
  pcall(autograd.no_grad, function() error("on purpose") end)
  lu.assertTrue(autograd.is_enabled())
  local y = autograd.no_grad(function() return x * 2 end)
  lu.assertStrContains(check.message(function() y:sum():backward() end), "does not depend on anything")
end

function T.test_a_dropped_guard_of_no_grad_is_named_and_does_not_last()
  local x = tensor({ 1, 2 }):requires_grad()
  autograd.no_grad() -- without <close>
  local message = check.message(function() (x * 2):sum():backward() end)
  lu.assertStrContains(message, "the guard that no_grad() gave at tests/tensor/test_autograd.lua:")
  lu.assertStrContains(message, "was dropped; write no_grad(function() ... end), or local guard <close> = no_grad()")
  lu.assertTrue(autograd.is_enabled())
  ;(x * 2):sum():backward()
  lu.assertEquals(x.grad:totable(), { 2, 2 })
  lu.assertStrContains(check.message(function() x:detach():backward() end), "does not depend on anything")
end

function T.test_guards_of_no_grad_end_in_any_order()
  do
    local outer <close> = autograd.no_grad()
    do
      local _inner <close> = autograd.no_grad()
      lu.assertFalse(autograd.is_enabled())
    end
    lu.assertFalse(autograd.is_enabled())
    autograd.no_grad()
    collectgarbage()
    lu.assertFalse(autograd.is_enabled())
    lu.assertNotNil(outer)
  end
  lu.assertTrue(autograd.is_enabled())
  tensor({ 1 }):requires_grad():backward()
end

--- Operations that have nothing to do for this tensor, and may give it back as it is.
local idle = {
  contiguous = function(x) return x:contiguous() end, as_image = function(x) return x:contiguous():as_image() end,
  reshape = function(x) return x:reshape(x.shape) end, to = function(x) return x:to("f32") end,
  expand = function(x) return x:expand(x.shape) end, narrow = function(x) return x:narrow(1, 1, x:size(1)) end,
  clamp = function(x) return x:clamp() end, squeeze = function(x) return x:squeeze() end,
  cat = function(x) return tensor.cat { x } end,
  flatten = function(x) return x:flatten() end, transpose = function(x) return x:transpose(1, 1) end,
  permute = function(x) return x:permute(1) end, sum = function(x) return x:unsqueeze(1):sum(1) end,
  dropout = function(x) return feral.nn.Dropout(0.5):eval()(x) end, sequential = function(x) return feral.nn.Sequential()(x) end,
  flat = function(x) return feral.nn.Flatten()(x:unsqueeze(1)) end, tensor = function(x) return tensor(x) end,
}

function T.test_what_has_nothing_to_do_leaves_a_leaf_a_leaf()
  for name, f in pairs(idle) do
    local w = tensor({ 1, 2, 3 }):requires_grad()
    for _ = 1, 2 do (f(w) * 2):sum():backward() end
    lu.assertNotNil(w.grad, name)
    lu.assertEquals(w.grad:totable(), { 4, 4, 4 }, name)
  end
end

function T.test_a_layer_may_ask_its_weights_how_they_lie()
  local w = tensor.ones(1, 2, 2, 2):as_image():requires_grad()
  ;(w:as_image() * 3):sum():backward()
  lu.assertEquals(w.grad:sum():item(), 24)
end

function T.test_recording_a_leaf_as_a_result_is_refused()
  local w = tensor({ 1 }):requires_grad()
  lu.assertStrContains(check.message(function() autograd.record(w, { w }, function(g) return g end) end),
    "record: the result is a tensor that requires a gradient itself")
end

function T.test_what_needs_no_gradient_costs_none()
  local x, w = tensor.ones(2, 2), tensor.ones(2, 2):requires_grad()
  x:matmul(w):sum():backward()
  lu.assertNil(x.grad)
  lu.assertEquals(w.grad:totable(), { { 2, 2 }, { 2, 2 } })
end

function T.test_backward_twice_is_refused()
  local x = tensor({ 1 }):requires_grad()
  local y = (x * 2):sum()
  y:backward()
  lu.assertStrContains(check.message(function() y:backward() end), "gone through already")
end

function T.test_in_place_changes_of_recorded_tensors_are_refused()
  local x = tensor({ 1 }):requires_grad()
  lu.assertStrContains(check.message(function() x:add_(1) end), "add_: in-place change")
  lu.assertStrContains(check.message(function() x[1] = 2 end), "in-place change")
  autograd.no_grad(function() x:add_(1) end)
  lu.assertEquals(x:totable(), { 2 })
end

function T.test_gradients_are_not_lost_in_plain_tensors()
  local w, plain = tensor({ 1, 2 }):requires_grad(), tensor { 3, 4 }
  for _, f in ipairs {
    function() plain:add_(w) end, function() plain:copy_(w * 2) end, function() plain[1] = w:sum() end,
  } do
    lu.assertStrContains(check.message(f), "the operand's gradient would be lost; make a new tensor of both, or detach it")
  end
  plain:add_(w:detach())
  autograd.no_grad(function() plain:add_(w) end)
  lu.assertEquals(plain:totable(), { 5, 8 })
end

function T.test_gradients_outlive_the_scope_of_their_step()
  local x = tensor({ 3 }):requires_grad()
  do
    local _s <close> = tensor.scope()
    ;(x * x):sum():backward()
  end
  lu.assertEquals(x.grad:item(), 6)
end

function T.test_a_gradient_is_given_back_when_the_operation_before_has_it()
  local x = check.randn(64, 1024):requires_grad()
  local size = 64 * 1024 * #tensor.zeros(1):tobytes()
  local _s <close> = tensor.scope()
  local y, z = x, x
  for _ = 1, 10 do y = (y * 1 + z):reshape(1024, 64):transpose():contiguous():reshape(64, 1024) end
  local loss = y:sum()
  tensor.trim()
  tensor.reset_peak()
  local before = tensor.memory().live
  loss:backward()
  lu.assertTrue(tensor.memory().peak - before < 8 * size)
end

--- The gradients of f's inputs, in a scope and without.
local function in_a_scope_and_without(f, ...)
  local inputs, results = { ... }, {}
  for way = 1, 2 do
    for _, t in ipairs(inputs) do t:requires_grad() end
    do
      local _s <close> = way == 1 and tensor.scope() or nil
      f(...):backward()
    end
    for i, t in ipairs(inputs) do
      results[i] = results[i] or {}
      results[i][way] = t.grad:totable()
      t:requires_grad(false)
    end
  end
  for _, result in ipairs(results) do lu.assertEquals(result[1], result[2]) end
  return results
end

function T.test_gradients_that_share_memory_stay_apart()
  local a, b, c = check.randn(3, 4), check.randn(3, 4), check.randn(4)
  in_a_scope_and_without(function(p, q) return (p + q):sum() end, a, b)
  in_a_scope_and_without(function(p, q) return ((p + q) * (p + q):transpose():reshape(3, 4)):sum() end, a, b)
  in_a_scope_and_without(function(p, q) return (tensor.cat { p, q, p } ^ 2):sum() end, a, b)
  in_a_scope_and_without(function(p, q, r)
    local s = tensor.stack { p, q + r, p * q }
    return (s:select(1, 2) * s:sum(1) + s:narrow(1, 1, 2):mean(1) + r):tanh():sum()
  end, a, b, c)
  local _s <close> = tensor.scope()
  a:requires_grad()
  b:requires_grad()
  ;(a + b):sum():backward()
  a.grad:fill_(7)
  lu.assertEquals(b.grad:sum():item(), 12)
  a:requires_grad(false)
end

function T.test_a_gradient_that_two_need_is_written_over_by_neither()
  local nn = feral.nn
  local shared = nn.Concat(nn.BatchNorm(2), nn.Sequential(nn.BatchNorm(2), nn.ReLU()), nn.Residual(nn.ReLU(), nn.Tanh()))
  local net = nn.Sequential(nn.Tanh(), nn.Residual(nn.BatchNorm(2), nn.Sequential(nn.BatchNorm(2), nn.ReLU())), nn.ReLU(), shared)
  for _ = 1, 5 do
    check.gradients(function(x) return net(x) end, { check.randn(3, 2, 2, 2) }, 1e-5)
    check.gradients(function(a, b) return (a:tanh() + b:relu()):tanh() + a:sigmoid() * b:silu() end,
      { check.randn(3, 4), check.randn(3, 4) }, 1e-5)
  end
end

function T.test_a_given_gradient_stays_as_it_was()
  local _s <close> = tensor.scope()
  local x = tensor({ 1, 2 }):requires_grad()
  local g = tensor { 3, 4 }
  x:backward(g)
  local y = x * 1
  ;(y + y):backward(g)
  local z = x * 2
  z:backward(g)
  lu.assertEquals(g:totable(), { 3, 4 })
  lu.assertEquals(x.grad:totable(), { 3 + 6 + 6, 4 + 8 + 8 })
end

function T.test_a_backward_function_may_hold_or_keep_a_gradient()
  local x = tensor({ 1, 2 }):requires_grad()
  local kept, held
  do
    local _s <close> = tensor.scope()
    local y = x * 2
    local z = autograd.record(y:detach():clone(), { y }, function(g)
      held = autograd.hold(g * 3)
      kept = g:keep()
      return held
    end)
    ;(z * 5):sum():backward()
    lu.assertEquals(held:totable(), { 15, 15 })
  end
  lu.assertEquals(kept:totable(), { 5, 5 })
  lu.assertTrue(held:is_released())
  lu.assertEquals(x.grad:totable(), { 30, 30 })
end

function T.test_a_backward_function_may_open_a_scope()
  local x, w = tensor({ 1, 2 }):requires_grad(), tensor({ 3, 4 }):requires_grad()
  local _s <close> = tensor.scope()
  local y = autograd.record(tensor { 5, 6 }, { x }, function(g)
    local _inner <close> = tensor.scope()
    return _inner:leave(g * 2)
  end)
  ;(y * w):sum():backward()
  lu.assertEquals(x.grad:totable(), { 6, 8 })
  lu.assertEquals(w.grad:totable(), { 5, 6 })
end

function T.test_backward_that_fails_leaves_nothing_behind()
  local x = check.randn(30):requires_grad()
  check.survives_lack_of_memory(function()
    local _s <close> = tensor.scope()
    x:zero_grad()
    ;(tensor.cat { x * x, x + x }:reshape(2, 30) * x):sum():backward()
  end)
end

function T.test_backward_needs_a_gradient_for_more_than_one_number()
  local x = tensor({ 1, 2 }):requires_grad()
  lu.assertStrContains(check.message(function() (x * 2):backward() end), "a gradient must be given for a tensor of shape 2")
  ;(x * 2):backward(tensor { 1, 10 })
  lu.assertEquals(x.grad:totable(), { 2, 20 })
end

function T.test_what_cannot_have_a_gradient_is_refused()
  lu.assertStrContains(check.message(function() tensor({ 1 }, "u8"):requires_grad() end), "have gradients, this is u8")
  local x = tensor({ 1, 2 }):requires_grad()
  lu.assertStrContains(check.message(function() (x * 2):backward(tensor { 1 }) end), "backward: the gradient is 1, the tensor 2")
end

function T.test_powers_at_zero_have_the_gradients_of_their_limits()
  local x, y = tensor({ 0, 0, 2 }):requires_grad(), tensor({ 0, 2, 3 }):requires_grad()
  ;(x ^ 0):sum():backward()
  lu.assertEquals(x.grad:totable(), { 0, 0, 0 })
  x:zero_grad()
  ;(x ^ y):sum():backward()
  lu.assertEquals(x.grad:totable(), { 0, 0, 12 })
  lu.assertEquals({ y.grad[1]:item(), y.grad[2]:item() }, { 0, 0 })
  lu.assertAlmostEquals(y.grad[3]:item(), 8 * math.log(2), 1e-5)
end

return T
