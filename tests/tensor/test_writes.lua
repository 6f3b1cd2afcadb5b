local lu = require "luaunit"
local feral = require "feral"
local core = require "feral.core.tensor"
local tensor = feral.tensor

local T = {}

function T.test_writes_are_counted_for_all_that_share_memory()
  local x, other = tensor.zeros(4, 3), tensor.zeros(2)
  local before, others = core.writes { x }, core.writes { other }
  x[2]:fill_(1)
  lu.assertTrue(core.writes { x } > before)
  before = core.writes { x }
  x:add(1):mul_(2)
  lu.assertEquals(core.writes { x }, before)
  lu.assertEquals(core.writes { other }, others)
  lu.assertEquals(core.writes {}, 0)
  local anywhere = core.writes()
  lu.assertEquals(core.writes(), anywhere)
  other:fill_(1)
  lu.assertTrue(core.writes() > anywhere)
end

--- Before any library file takes its functions: every function of the engine's modules is put behind one that compares the bytes
--- of the tensors it is given before and after. Then the tests that follow are run.
local watching = [[
  local core, create = require "feral.core.tensor", require "feral.core.create"
  local is_tensor, writes, tobytes, released = core.is_tensor, core.writes, create.tobytes, core.methods.is_released
  local missed, calls = {}, 0

  local function note(found, value)
    if type(value) == "table" then
      for _, v in ipairs(value) do note(found, v) end
    elseif is_tensor(value) and not released(value) and #found < 50 then
      found[#found + 1] = { t = value, bytes = tobytes(value), writes = writes { value } }
    end
  end

  local function watched(name, f)
    return function(...)
      local found, results = {}, nil
      for i = 1, select("#", ...) do note(found, (select(i, ...))) end
      results = table.pack(f(...))
      for _, one in ipairs(found) do
        if not released(one.t) and tobytes(one.t) ~= one.bytes then
          calls = calls + 1
          if writes { one.t } == one.writes then missed[name] = true end
        end
      end
      return table.unpack(results, 1, results.n)
    end
  end

  for line in io.lines "src/host/engine.c" do
    local module = line:match "^  X%(([%w_]+)%)"
    local functions = module and require("feral.core." .. module) or {}
    for name, f in pairs(functions) do
      if type(f) == "function" then functions[name] = watched(module .. "." .. name, f) end
    end
  end
  for name in pairs(package.loaded) do -- what the program has loaded already has taken the functions as they were
    if name:find "^feral" and not name:find "^feral%.core" then package.loaded[name] = nil end
  end
  package.path = "tests/support/?.lua;" .. package.path
  local check, scope = require "check", require "feral.core.scope" -- no lack of memory, no children: they show nothing more here
  check.SHAPES, check.survives_lack_of_memory = 3, function(f) f() end
  scope.fail_after, scope.memory_cap = function() end, function() end
  require("bits").check_same = function() end
  require("threads").run = function() return "" end
  os.exit = function() end
  arg = { [-1] = arg[-1], [0] = "tests/run.lua", "arith", "index", "create", "norm", "optim",
    "sequential", "npy", "draw" }
  dofile "tests/run.lua"
  local names = {}
  for name in pairs(missed) do names[#names + 1] = name end
  table.sort(names)
  print("changed " .. (calls > 500 and "often" or "seldom, " .. calls))
  print("missed: " .. table.concat(names, " "))
]]

function T.test_no_function_of_the_engine_writes_without_counting_it()
  local output = require("threads").run(2, watching)
  lu.assertStrContains(output, "changed often")
  lu.assertEquals(output:match "missed: (.-)\n", "")
end

return T
