local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local watch = require "feral.plan.watch"
local autograd, nn, optim, tensor = feral.autograd, feral.nn, feral.optim, feral.tensor

local T = {}

local function small_net()
  return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm(2), nn.LeakyReLU(0.1), nn.Residual(nn.Conv2d(2, 2, 1), nn.ReLU()))
end

local changes = {
  { "a weight", function(net) net[1].weight:detach():mul_(2) end },
  { "an element", function(net) net[1].bias:detach()[2] = 5 end },
  { "a loaded state", function(net)
    local two = function(value) return tensor.full({ 2 }, value) end
    net[2]:load_state { weight = two(2), bias = two(1), running_mean = two(1), running_var = two(3) }
  end },
  { "running statistics", function(net) net:train()(check.randn(2, 1, 5, 5)) end },
  { "a step of an optimiser", function(net)
    local optimizer = optim.SGD(net:parameters(), { lr = 0.1 })
    net:train()(check.randn(2, 1, 5, 5)):sum():backward()
    optimizer:step()
  end },
  { "another parameter", function(net) net[1].bias = tensor.zeros(2) end },
  { "no parameter", function(net) net[1].bias = nil end },
  { "a setting", function(net) net[3].slope = 0.3 end },
  { "a number of a geometry", function(net) net[1].geometry[3] = 1 end },
  { "another layer", function(net) net[3] = nn.ReLU() end },
  { "a layer over its name", function(net) net["3"] = nn.ReLU() end },
  { "a layer deep inside", function(net) net:replace("4.skip", nn.Tanh()) end },
  { "one layer more", function(net) net[5] = nn.ReLU() end },
  { "a forward of its own", function(net) net[3].forward = function(_, x) return x end end },
  { "a forward of its own, deep inside", function(net) net[4].main.forward = function(_, x) return x end end },
  { "a field that was not there", function(net) net[3].extra = 1 end },
}

function T.test_changes_are_seen()
  for _, change in ipairs(changes) do
    local net = small_net()
    local seen = watch.look(net)
    lu.assertFalse(watch.has_changed(seen), change[1])
    change[2](net)
    lu.assertTrue(watch.has_changed(seen), change[1])
    lu.assertFalse(watch.has_changed(watch.look(net)), change[1])
  end
end

function T.test_what_changes_no_prediction_is_no_change()
  local net = small_net()
  local seen = watch.look(net)
  net:eval():train()
  net:eval()(check.randn(1, 1, 5, 5))
  net:parameters()
  nn.describe(net)
  local other = small_net() -- somebody else's layers
  other[1].weight:detach():fill_(1)
  other[3].slope = 7
  lu.assertFalse(watch.has_changed(seen))
end

function T.test_a_forward_of_the_class_is_seen_too()
  local Own = nn.class "WatchOwn"
  function Own:forward(x) return x end
  local net = nn.Sequential(Own())
  local seen = watch.look(net)
  function Own:forward(x) return x * 2 end
  lu.assertTrue(watch.has_changed(seen))
end

--- Each change, with a predictor that has a plan already: it must follow.
function T.test_a_predictor_follows_each_change()
  for _, change in ipairs(changes) do
    local net, x = small_net():eval(), check.randn(3, 1, 6, 6)
    local predict = feral.compile.predictor(net)
    predict(x)
    change[2](net)
    local y = predict(x)
    check.close(y, autograd.no_grad(net:eval(), x), 1e-5, change[1])
  end
end

return T
