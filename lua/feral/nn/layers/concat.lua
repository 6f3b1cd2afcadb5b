local nn = require "feral.nn"
local ops = require "feral.tensor.ops"
local errors = require "feral.base.errors"

--- What several layers make of the same input, one behind the other along a dimension. They are named "1", "2", "3".
---@class Concat : Module
local Concat = nn.class "Concat"
nn.numbered(Concat)

---@param ... Module  the branches, and perhaps options behind them: {dim = 2}, the channels unless another is named
function Concat:init(...)
  local branches = { ... }
  local last = branches[#branches]
  local options
  if type(last) == "table" and not last.forward then options = table.remove(branches) end
  self.dim = errors.check_options("Concat", options, { dim = 2 }).dim
  if #branches == 0 then errors.raise("Concat: no branches given") end
  for i, branch in ipairs(branches) do self:add_child(tostring(i), branch) end
end

---@param x Tensor
---@return Tensor
--- Raises when the branches' results differ in another dimension.
function Concat:forward(x)
  local parts = {}
  for i, name in ipairs(self.child_names) do parts[i] = self[name](x) end
  return ops.cat(parts, self.dim)
end

return Concat
