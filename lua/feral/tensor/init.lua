--- tensor.lua: making tensors, and the methods and operators that they have.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local view = require "feral.core.view"
local scope = require "feral.core.scope"
local autograd = require "feral.tensor.autograd"
local ops = require "feral.tensor.ops"
local random = require "feral.tensor.random"
local errors = require "feral.base.errors"
local npy = require "feral.formats.npy"

local tensor = {}

--- Sizes given one by one or as a table, and perhaps a dtype behind them.
local function sizes_of(...)
  local first = ...
  if type(first) == "table" then return first, (select(2, ...)) end
  local sizes, dtype = table.pack(...), nil
  if type(sizes[sizes.n]) == "string" then dtype = table.remove(sizes) end
  sizes.n = nil
  return sizes, dtype
end

--- A tensor of zeros: zeros(2, 3), zeros({2, 3}), zeros(2, 3, "i32").
---@return Tensor
function tensor.zeros(...)
  local sizes, dtype = sizes_of(...)
  return create.full(sizes, 0, dtype)
end

--- A tensor of ones: ones(2, 3), ones({2, 3}), ones(2, 3, "i32").
---@return Tensor
function tensor.ones(...)
  local sizes, dtype = sizes_of(...)
  return create.full(sizes, 1, dtype)
end

--- A tensor whose elements are whatever lay in its memory.
function tensor.empty(...) return create.empty(sizes_of(...)) end

--- A tensor whose elements all have this value.
---@param sizes integer[]
---@param value number
---@param dtype string|nil  "f32" (default), "u8", "i32"
function tensor.full(sizes, value, dtype) return create.full(sizes, value, dtype) end

--- Zeros of the shape and dtype of another tensor.
function tensor.zeros_like(t) return create.full(t.shape, 0, t.dtype) end

--- Ones of the shape and dtype of another tensor.
function tensor.ones_like(t) return create.full(t.shape, 1, t.dtype) end

local function drawn(name, fill, sizes, dtype, a, b)
  local t = create.empty(sizes, dtype)
  if t.dtype ~= core.real then errors.raise("%s: random numbers are f32, not %s", name, t.dtype) end
  local seed, stream = random.stream()
  return fill(t, seed, stream, a, b)
end

--- Uniform random numbers in [0, 1).
function tensor.rand(...)
  local sizes, dtype = sizes_of(...)
  return drawn("rand", create.uniform_, sizes, dtype, 0, 1)
end

--- Normal random numbers of mean 0 and standard deviation 1.
function tensor.randn(...)
  local sizes, dtype = sizes_of(...)
  return drawn("randn", create.normal_, sizes, dtype, 0, 1)
end

--- Uniform in [low, high).
function tensor.uniform(sizes, low, high) return drawn("uniform", create.uniform_, sizes, nil, low, high) end

--- Normal with this mean and standard deviation.
function tensor.normal(sizes, mean, std) return drawn("normal", create.normal_, sizes, nil, mean, std) end

--- The numbers 1..n in random order (i32).
function tensor.randperm(n) return create.permutation(n, random.stream()) end

local function is_finite(x) return type(x) == "number" and x - x == 0 end

--- first, first + step, ... up to and with last.
function tensor.arange(first, last, step)
  if not last then first, last = 1, first end
  step = step or 1
  if not (is_finite(first) and is_finite(last) and is_finite(step)) then
    errors.raise("arange: finite numbers expected, got %s, %s and %s", tostring(first), tostring(last), tostring(step))
  end
  if step == 0 then errors.raise("arange: the step must not be 0") end
  local count = math.floor((last - first) / step + 1e-9) + 1 -- 0 to 1 by 0.1 ends with 1
  if count < 1 then errors.raise("arange: no number lies between %s and %s by %s", first, last, step) end
  local values = {}
  for i = 1, count do values[i] = first + (i - 1) * step end
  return create.from_table(values)
end

--- n numbers from first to last, evenly spaced, both ends included.
function tensor.linspace(first, last, n)
  if math.type(n) ~= "integer" or n < 1 then
    errors.raise("linspace: the count must be a whole number from 1 on, got %s", tostring(n))
  end
  local values = { first }
  for i = 2, n do values[i] = i == n and last or first + (last - first) * (i - 1) / (n - 1) end
  return create.from_table(values)
end

--- The n x n identity.
function tensor.eye(n)
  local t = create.full({ n, n }, 0)
  local _guard <close> = scope.scope()
  for i = 1, n do create.fill_(view.select(view.select(t, 1, i), 1, i), 1) end
  return t
end

--- from_bytes(bytes, sizes, dtype): A tensor from the bytes of a string, row-major, in this machine's byte order.
---@param bytes string
---@param sizes integer[]
---@param dtype string|nil  "f32" (default), "u8", "i32"
--- Raises when the string is not as long as the sizes say.
tensor.from_bytes = create.from_bytes

--- A tensor in a .npy file, as numpy reads and writes them: save(path, t), load(path). Failing, they return nil and a message.
tensor.save, tensor.load = npy.save, npy.load


--- is_tensor(value): True for a tensor.
---@return boolean
tensor.is_tensor = core.is_tensor

tensor.cat, tensor.stack, tensor.where, tensor.matmul = ops.cat, ops.stack, ops.where, ops.matmul

--- scope(): Opens a scope: local s <close> = tensor.scope(). Leaving it gives back all tensors made since, except kept ones.
tensor.scope = scope.scope

--- Calls fn inside a scope; the tensors that it returns live on, all others it made are given back.
function tensor.tidy(fn, ...)
  local open <close> = scope.scope()
  return open:leave(fn(...))
end

--- memory(): Bytes and blocks in use: live, peak, cap, blocks, requests, recycled.
---@return table<string, integer>
tensor.memory = scope.memory

--- memory_cap(bytes): Lets requests for memory beyond so many bytes fail with "not enough memory"; 0 for no cap.
--- reset_peak(): Begins to measure the peak of memory again, from what is in use now.
--- trim(): Gives memory back to the system that is kept for tensors to come.
tensor.memory_cap, tensor.reset_peak, tensor.trim = scope.memory_cap, scope.reset_peak, scope.trim

--- Starts the random numbers of rand, randn, dropout, weights ... again from a seed.
tensor.manual_seed = random.seed

for name, f in pairs(ops) do core.methods[name] = f end
core.methods.keep = scope.keep
core.methods.requires_grad = autograd.requires_grad
core.methods.backward = autograd.backward
core.methods.zero_grad = autograd.zero_grad
core.getters.grad = autograd.grad

local operators = {
  __add = ops.add, __sub = ops.sub, __mul = ops.mul, __div = ops.div, __pow = ops.pow, __unm = ops.neg,
}
for name, f in pairs(operators) do core.metatable[name] = f end

function core.metatable.__tostring(t) return require("feral.host.show").tensor(t) end

--- t[i] = value: a number or tensor into the i-th element of the first dimension.
function core.metatable.__newindex(t, i, value)
  if type(i) ~= "number" then errors.raise("a tensor has no field '%s' to set", tostring(i)) end
  local part = view.select_first(t, i)
  autograd.check_in_place(t, "assignment", value)
  if core.is_tensor(value) then ops.copy_(part, value) else create.fill_(part, value) end
end

return setmetatable(tensor, {
  --- tensor{{1, 2}, {3, 4}} or tensor(table, dtype)
  __call = function(_, values, dtype)
    if core.is_tensor(values) then return ops.to(ops.clone(values), dtype or values.dtype) end
    if type(values) ~= "table" and type(values) ~= "number" then
      errors.raise("tensor: a table of numbers expected, got %s", type(values))
    end
    return create.from_table(values, dtype)
  end,
})
