local nn = require "feral.nn"
local ReLU = require "feral.nn.layers.relu"

--- Layers one after the other: nn.Sequential(a, b, c). They are named "1", "2", "3".
---
--- A ReLU right behind a layer costs no pass over memory of its own where that layer can do it along the way: such a class takes
--- a second argument, forward(x, relu), and says so by takes_relu = its forward. Nothing else changes; while somebody observes
--- the layers each computes by itself.
---@class Sequential : Module
local Sequential = nn.class "Sequential"
nn.numbered(Sequential)

---@param ... Module
function Sequential:init(...)
  for i = 1, select("#", ...) do self:add_child(tostring(i), (select(i, ...))) end
end

--- True when the layer can do what the one behind it does. Both must be as their classes made them.
local function takes_over(layer, follower)
  return follower.forward == ReLU.forward and layer.forward == layer.takes_relu
end

function Sequential:forward(x)
  local names, apart, i = self.child_names, nn.is_observed(), 1
  while i <= #names do
    local layer, follower = self[names[i]], self[names[i + 1]]
    local relu = follower and not apart and takes_over(layer, follower)
    x = relu and layer(x, true) or layer(x)
    i = i + (relu and 2 or 1)
  end
  return x
end

--- The i-th layer.
function Sequential:get(i) return self[self.child_names[i]] end

return Sequential
