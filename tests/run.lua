-- Runs the tests: ./feral tests/run.lua [NAME...] [-- luaunit options]
-- NAME picks files or folders: "pool" runs tests/tensor/test_pool.lua, "nn" all of tests/nn.
-- The last line is "N passed, N failed".
package.path = "tests/?.lua;tests/support/?.lua;" .. package.path

local luaunit = require "luaunit"
local check = require "check"

local function test_files()
  local files = {}
  local listing = assert(io.popen("ls tests/*/test_*.lua"))
  for path in listing:lines() do files[#files + 1] = path end
  listing:close()
  return files
end

local function wanted(path, names)
  if #names == 0 then return true end
  for _, name in ipairs(names) do
    local folder, file = path:match("^tests/([%w_]+)/test_([%w_]+)%.lua$")
    if name == folder or name == file then return true end
  end
  return false
end

--- Lets each test begin with the same random inputs, whatever ran before it: so it fails by itself as it failed among others.
local function with_own_inputs(tests)
  for name, f in pairs(tests) do
    if name:find("^test") then
      tests[name] = function(...)
        check.restart()
        return f(...)
      end
    end
  end
  return tests
end

local names, options, after = {}, {}, false
for _, word in ipairs(arg) do
  if word == "--" then after = true else table.insert(after and options or names, word) end
end

local loaded = 0
for _, path in ipairs(test_files()) do
  if wanted(path, names) then
    loaded = loaded + 1
    -- a file returns its table of tests, which luaunit wants among the globals
    local module = path:match("test_([%w_]+)%.lua$")
    _G["Test_" .. module] = with_own_inputs(assert(loadfile(path))())
  end
end
assert(loaded > 0, "no test file matches")

local runner = luaunit.LuaUnit.new()
runner:runSuite("--output", "text", table.unpack(options)) -- never without one: it would read our own arguments
local result = runner.result
local failed = result.failureCount + result.errorCount
if result.skippedCount > 0 then
  print(("%d passed, %d failed, %d skipped"):format(result.successCount, failed, result.skippedCount))
else
  print(("%d passed, %d failed"):format(result.successCount, failed))
end
os.exit(failed == 0 and 0 or 1, true)
