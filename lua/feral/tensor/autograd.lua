--- autograd.lua: reverse-mode differentiation by a tape that is written while the program runs.
---
--- A tensor whose gradient somebody wants has a node. A leaf's node (a parameter's) collects 'grad'. The node of an
--- operation's result holds the nodes of its inputs and a function from the gradient of the result to those of the inputs.
--- Nodes are numbered as they are made, so going through them by falling number is the tape run backwards.
---
--- A gradient lives from the operation that makes it to the one that takes it: then its memory is given back, and is what the
--- next one lies in. The tape holds each as often as it waits somewhere, and tells those it may give back, or add to, by their
--- having been made since backward began. So a backward function must not remember a gradient, its own or one it returns, but by
--- autograd.hold.

local core = require "feral.core.tensor"
local scope = require "feral.core.scope"
local arith = require "feral.core.arith"
local view = require "feral.core.view"
local create = require "feral.core.create"
local errors = require "feral.base.errors"

local autograd = {}

local node, set_node = core.node, core.set_node
local hold, drop, is_own = scope.hold, scope.drop, scope.is_own
local enabled = true
local pauses = 0 -- guards of no_grad that are open
local dropped -- where a guard was made that nobody closed
local count = 0
local tracer
local mark = 0 -- when the innermost backward began

--- True when the result of an operation on these values must be recorded.
function autograd.wanted(a, b, c)
  return enabled and (node(a) ~= nil or node(b) ~= nil or node(c) ~= nil)
end

--- Writes an operation down. Raises when the result is a leaf itself, an argument that was given back as it came: its node,
--- where its gradient collects, would be lost.
---@param out Tensor  its result: a new tensor, or one that only this operation has seen
---@param inputs (Tensor|number|nil)[]  with n = their number if one may be nil
---@param backward fun(grad: Tensor): ...  gradients of the inputs in their order; nil for one that nobody wants
---@return Tensor out
function autograd.record(out, inputs, backward)
  local own = node(out)
  if own and own.tensor then
    errors.raise("record: the result is a tensor that requires a gradient itself; return it as it is, or a view of it")
  end
  count = count + 1
  if tracer then backward = tracer(backward) end
  local n = inputs.n or #inputs
  local new = { node(inputs[1]) or false, node(inputs[2]) or false, node(inputs[3]) or false, n = n, id = count,
    backward = backward, grad = false }
  for i = 4, n do new[i] = node(inputs[i]) or false end
  set_node(out, new)
  return out
end

--- Calls fn; what is recorded meanwhile gets f(backward) for its backward.
---@param f fun(backward: function): function
---@param fn function
function autograd.trace(f, fn)
  local before = tracer
  tracer = f
  local _done <close> = setmetatable({}, { __close = function() tracer = before end })
  return fn()
end

--- For a backward function: whether the gradient it was given is needed by nobody else, so that what it returns may lie there.
---@param grad Tensor
---@return boolean
function autograd.may_overwrite(grad) return is_own(grad, mark) end

--- hold(grad): For a backward function that remembers a gradient: it stays until its scope ends.
---@param grad Tensor
---@return Tensor grad
autograd.hold = hold

--- Marks a tensor as a leaf whose gradient is wanted (or no longer is). It then outlives every scope.
---@param t Tensor
---@param flag boolean|nil  default true
---@return Tensor t
function autograd.requires_grad(t, flag)
  if t.dtype ~= core.real then errors.raise("requires_grad: only tensors of f32 have gradients, this is %s", t.dtype) end
  if flag == false then
    set_node(t, nil)
  elseif not node(t) then
    set_node(scope.keep(t), { id = 0, tensor = t })
  end
  return t
end

--- A leaf keeps one buffer for its gradient; 'fresh' says that what it holds is from before zero_grad.
local function add_to_leaf(leaf, grad)
  if leaf.fresh and leaf.grad then
    arith.copy_(leaf.grad, grad)
  elseif leaf.grad then
    arith.add_(leaf.grad, grad)
  elseif is_own(grad, mark) and grad:is_contiguous() then
    leaf.grad = scope.keep(grad)
  else
    leaf.grad = scope.keep(arith.copy_(create.empty(leaf.tensor.shape, leaf.tensor.dtype), grad))
  end
  leaf.fresh = false
  drop(grad, mark)
end

--- Where two gradients meet, the sum lies in one of them if that may be changed. The node takes over the hold of its gradient.
local function add_to_inner(inner, grad)
  local before = inner.grad
  if not before then
    inner.grad = grad
  elseif is_own(before, mark) then
    arith.add_(before, grad)
    drop(grad, mark)
  else
    inner.grad = hold(arith.add(before, grad))
    drop(before, mark)
    drop(grad, mark)
  end
end

--- Gives a gradient, held once for it, to a node.
local function accumulate(target, grad)
  if target.tensor then add_to_leaf(target, grad) else add_to_inner(target, grad) end
end

--- All nodes with something to undo that 'root' depends on, the youngest last.
local function unwinding_order(root)
  local ids, by_id, stack, top = {}, {}, { root }, 1
  while top > 0 do
    local n = stack[top]
    top = top - 1
    if n.used then errors.raise("backward: this graph has been gone through already; compute the loss again") end
    local id = n.id
    if n.backward and not by_id[id] then
      ids[#ids + 1], by_id[id] = id, n
      for i = 1, n.n do
        local input = n[i]
        if input then
          top = top + 1
          stack[top] = input
        end
      end
    end
  end
  table.sort(ids)
  return ids, by_id
end

--- Passes on what backward returned for the inputs. Held first, all of them: one tensor may be there for two.
local function pass_on(n, ...)
  local grads = { ... }
  for i = 1, n.n do
    if grads[i] then hold(grads[i]) end
  end
  for i = 1, n.n do
    local input, grad = n[i], grads[i]
    n[i] = false
    if grad and input then accumulate(input, grad) elseif grad then drop(grad, mark) end
  end
end

local function unwind(n)
  local grad, backward = n.grad, n.backward
  n.grad, n.backward, n.used = false, false, true
  pass_on(n, backward(grad))
  drop(grad, mark)
end

local mark_type = { __close = function(before) mark = before.mark end }

--- Begins a backward, perhaps inside another.
local function set_mark()
  local before = setmetatable({ mark = mark }, mark_type)
  mark = scope.mark()
  return before
end

--- Raises for a tensor without history, naming the guard that was dropped if that is why.
local function raise_without_history()
  collectgarbage() -- finds guards that nobody holds
  if dropped then
    local where = dropped
    dropped = nil
    errors.raise("backward: nothing was recorded, because the guard that no_grad() gave at %s was dropped; write "
      .. "no_grad(function() ... end), or local guard <close> = no_grad()", where)
  end
  errors.raise("backward: the tensor does not depend on anything that requires a gradient")
end

--- Gradients of t (one number, or given its own gradient) with respect to all leaves it depends on, added to their grad.
---@param t Tensor
---@param grad Tensor|nil  of t's shape; 1 where t is a single number
function autograd.backward(t, grad)
  local root = node(t)
  if not root then raise_without_history() end
  if not grad then
    if t:numel() ~= 1 then
      errors.raise("backward: a gradient must be given for a tensor of shape %s", table.concat(t.shape, "x"))
    end
    grad = create.full(t.shape, 1)
  end
  local shape, given = table.concat(t.shape, "x"), table.concat(grad.shape, "x")
  if shape ~= given then errors.raise("backward: the gradient is %s, the tensor %s", given, shape) end
  dropped = nil
  local ids, by_id = unwinding_order(root)
  local _guard <close> = autograd.no_grad()
  local _marked <close> = set_mark()
  accumulate(root, hold(grad))
  for i = #ids, 1, -1 do
    local n = by_id[ids[i]]
    if n.grad then unwind(n) end
  end
end

local function resume(guard)
  if guard.closed then return end
  guard.closed = true
  pauses = pauses - 1
  enabled = pauses == 0
end

local guard_type = {
  __close = resume,
  __gc = function(guard)
    if not guard.closed then dropped = guard.where end
    resume(guard)
  end,
}

--- The innermost line that is not the library's own.
local function script_line()
  for level = 3, math.huge do
    local info = debug.getinfo(level, "Sl")
    if not info then return "an unknown line" end
    if info.currentline > 0 and not errors.is_library(info.source) then
      return ("%s:%d"):format(info.short_src, info.currentline)
    end
  end
end

--- Runs fn without recording and returns its results: no_grad(net, x), no_grad(function() ... end). Recording goes on when fn
--- returns or raises.
---
--- Without fn it returns a guard: what follows is not recorded until the guard's block is left, in
--- local guard <close> = no_grad(). A guard that is dropped instead turns recording on again when Lua collects it, and a
--- backward() that finds nothing recorded for its sake says so, with the line.
---@param fn function|nil
---@return ...
function autograd.no_grad(fn, ...)
  local guard = setmetatable({ closed = false, where = not fn and script_line() }, guard_type)
  pauses, enabled = pauses + 1, false
  if not fn then return guard end
  local _active <close> = guard
  return fn(...)
end

--- True where operations are recorded: outside of no_grad.
---@return boolean
function autograd.is_enabled() return enabled end

--- The gradient collected in a leaf; nil before backward and after zero_grad.
function autograd.grad(t)
  local n = node(t)
  if n and n.grad and not n.fresh then return n.grad end
end

--- Forgets the gradient of a leaf (its memory is used again).
function autograd.zero_grad(t)
  local n = node(t)
  if n then n.fresh = true end
end

--- The same elements without history.
function autograd.detach(t)
  return view.reshape(t, t.shape)
end

--- Raises when t takes part in a recording: what is written into it would change what backward computes with. Also when
--- 'source', which is read, does: its gradient would be lost without a word.
---@param t Tensor
---@param name string  of the operation
---@param source any
function autograd.check_in_place(t, name, source)
  if enabled and node(t) then
    errors.raise("%s: in-place change of a tensor that gradients depend on; work under no_grad, or on a new tensor",
      name)
  end
  if enabled and node(source) then
    errors.raise("%s: the operand's gradient would be lost; make a new tensor of both, or detach it", name)
  end
end

return autograd
