local nn = require "feral.nn"

--- Layers one after the other: nn.Sequential(a, b, c). They are named "1", "2", "3".
---@class Sequential : Module
local Sequential = nn.class "Sequential"

---@param ... Module
function Sequential:init(...)
  for i = 1, select("#", ...) do self:add_child(tostring(i), (select(i, ...))) end
end

function Sequential:forward(x)
  for _, name in ipairs(self.child_names) do x = self[name](x) end
  return x
end

--- The i-th layer.
function Sequential:get(i) return self[self.child_names[i]] end

return Sequential
