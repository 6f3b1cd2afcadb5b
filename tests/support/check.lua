--- check.lua: what tests of numeric code share: random shapes, naive comparisons, gradient checks, failing memory.

local lu = require "luaunit"
local core = require "feral.core.tensor"
local create = require "feral.core.create"
local scope = require "feral.core.scope"
local autograd = require "feral.tensor.autograd"

local check = {}

check.is_double = core.real == "f64"

--- How many random shapes an operation is compared with its naive reference at.
check.SHAPES = 500

local seed, stream = 12345, 0

--- Starts the random inputs again.
function check.restart() seed, stream = 12345, 0 end

--- A whole number in [low, high], the same sequence in every test.
function check.integer(low, high)
  seed = (seed * 1103515245 + 12345) % 2147483648
  return low + (seed >> 8) % (high - low + 1)
end

--- A tensor of normal random numbers.
function check.randn(...)
  stream = stream + 1
  return create.normal_(create.empty({ ... }), 99, stream)
end

--- The numbers of a tensor as a flat list, row-major.
function check.flat(t)
  local list = create.totable(require("feral.core.view").reshape(t, -1))
  return type(list) == "table" and list or { list }
end

--- Largest difference over the largest magnitude of what is expected.
function check.relative_error(got, expected)
  local a, b = check.flat(got), type(expected) == "table" and expected or check.flat(expected)
  lu.assertEquals(#a, #b)
  local worst, scale = 0, 1e-30
  for i = 1, #a do
    if a[i] ~= a[i] or b[i] ~= b[i] then return math.huge end
    worst = math.max(worst, math.abs(a[i] - b[i]))
    scale = math.max(scale, math.abs(b[i]))
  end
  return worst / math.max(scale, 1e-3)
end

--- Fails unless got is near expected (a tensor or a flat list).
function check.close(got, expected, tolerance, message)
  local e = check.relative_error(got, expected)
  lu.assertTrue(e <= (tolerance or 1e-5), ("%s: relative error %g"):format(message or "values", e))
end

--- Compares the gradients of f(inputs...), any tensor, with central differences, for every element of every input.
--- In the float build it only runs backward, since differences of floats say little.
---@param f fun(...): Tensor
---@param inputs Tensor[]  contiguous
---@param tolerance number|nil  default 1e-6
function check.gradients(f, inputs, tolerance, message)
  local _open <close> = scope.scope()
  for _, t in ipairs(inputs) do autograd.requires_grad(t) end
  local out = f(table.unpack(inputs))
  local weights = check.randn(table.unpack(out.shape)) -- so that each output counts differently
  ;(out * weights):sum():backward()
  if not check.is_double then return end
  local function value()
    return autograd.no_grad(function()
      local _inner <close> = scope.scope()
      return (f(table.unpack(inputs)) * weights):sum():item()
    end)
  end
  local step = 1e-5
  for k, t in ipairs(inputs) do
    local grad, numeric = t.grad, {}
    lu.assertNotNil(grad, ("%s: input %d got no gradient"):format(message or "gradient", k))
    local line = autograd.detach(t):reshape(-1)
    for i = 1, t:numel() do
      local element = line:narrow(1, i, 1)
      local x = element:item()
      create.fill_(element, x + step)
      local above = value()
      create.fill_(element, x - step)
      local below = value()
      create.fill_(element, x)
      numeric[i] = (above - below) / (2 * step)
    end
    check.close(grad, numeric, tolerance or 1e-6, ("%s: gradient of input %d"):format(message or "gradient", k))
    autograd.requires_grad(t, false)
  end
end

--- Bytes that stay behind when f fails for want of memory after n requests; nil when it succeeds.
local function left_behind(f, n)
  local function settled()
    scope.trim()
    collectgarbage()
    collectgarbage()
    return scope.memory().live
  end
  local before = settled()
  scope.fail_after(n)
  local ok, message = pcall(f)
  scope.fail_after()
  if ok then return nil end
  lu.assertStrContains(tostring(message), "not enough memory")
  message = nil -- luacheck: ignore
  return settled() - before
end

--- Calls f with all requests for memory failing after the n-th, for n = 0, 1, 2 ... until it succeeds; after each failure
--- the live bytes must be what they were. What stays only once, as Lua's own stack when it has grown, is no leak.
function check.survives_lack_of_memory(f, most)
  f() -- whatever is made once on first use
  for n = 0, most or 10000 do
    local left = left_behind(f, n)
    if not left then return n end
    if left > 256 then left = left_behind(f, n) or 0 end
    lu.assertTrue(left <= 256, ("request %d failing left %d bytes behind"):format(n, left))
  end
  error("still failing after " .. (most or 10000) .. " requests")
end

--- The message that f raises.
function check.message(f, ...)
  local ok, message = pcall(f, ...)
  lu.assertFalse(ok, "an error was expected")
  return message
end

return check
