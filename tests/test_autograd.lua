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
