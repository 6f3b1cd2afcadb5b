local lu = require "luaunit"
require "feral"
local errors = require "feral.base.errors"
local check = require "check"

local T = {}

function T.test_the_nearest_name()
  local names = { "momentum", "lr", "weight_decay", "nesterov" }
  for _, case in ipairs {
    { "momentun", "momentum" }, { "Momentum", "momentum" }, { "mmentum", "momentum" }, { "momnetum", "momentum" },
    { "wieght_decay", "weight_decay" }, { "weightdecay", "weight_decay" }, { "rl", "lr" }, { "nestrov", "nesterov" },
    { "dampening", nil }, { "x", "lr" }, { "completely_different", nil }, { "", "lr" },
  } do
    lu.assertEquals(errors.nearest(case[1], names), case[2], case[1])
  end
  lu.assertEquals(errors.nearest("cat", { "cut", "bat", "car" }), "bat") -- of equally near ones the first by the alphabet
  lu.assertNil(errors.nearest("cat", {}))
  lu.assertEquals(errors.hint("momentun", names), ", did you mean 'momentum'?")
  lu.assertEquals(errors.hint("dampening", names), "")
  lu.assertEquals(errors.hint(5, names), ", did you mean 'lr'?")
end

function T.test_options_are_checked_and_filled_in()
  local known = { lr = 0.1, momentum = 0, nesterov = false, "schedule" }
  lu.assertEquals(errors.check_options("SGD", nil, known), { lr = 0.1, momentum = 0 })
  lu.assertEquals(errors.check_options("SGD", { lr = 1, nesterov = true, schedule = 5 }, known),
    { lr = 1, momentum = 0, nesterov = true, schedule = 5 })
  lu.assertEquals(errors.check_options("SGD", { lr = false }, known), { lr = false, momentum = 0 })
  local given = { lr = 2 }
  local options = errors.check_options("SGD", given, known)
  options.lr = 3
  lu.assertEquals(given.lr, 2)
  local where = "^tests/host/test_errors.lua:%d+: "
  local function refused(value, message)
    local text = check.message(function() errors.check_options("SGD", value, known) end)
    lu.assertStrMatches(text, where .. message:gsub("%p", "%%%0") .. "$")
  end
  refused({ rl = 1 }, "SGD: unknown option 'rl', did you mean 'lr'? (known: lr, momentum, nesterov, schedule)")
  refused({ zzzzzz = 1, aaaaaa = 2 }, "SGD: unknown option 'aaaaaa' (known: lr, momentum, nesterov, schedule)")
  refused({ 5 }, "SGD: unknown option '1', did you mean 'lr'? (known: lr, momentum, nesterov, schedule)")
  refused(5, "SGD: options must be a table, got number")
end

function T.test_raise_names_the_scripts_line_and_attempt_does_not()
  local function f() errors.raise("%d is %s", 5, "too much") end
  lu.assertStrMatches(check.message(f), "^tests/host/test_errors.lua:%d+: 5 is too much$")
  lu.assertEquals({ errors.attempt(f) }, { false, "5 is too much" })
  lu.assertEquals({ errors.attempt(function(a, b) return b, a end, 1, 2 ) }, { true, 2, 1 })
  lu.assertEquals({ errors.attempt(function() return errors.attempt(f) end) }, { true, false, "5 is too much" })
  lu.assertStrMatches(check.message(f), "^tests/host/test_errors.lua:%d+: 5 is too much$")
end

return T
