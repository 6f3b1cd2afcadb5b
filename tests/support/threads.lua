--- threads.lua: runs the program again with another number of threads, to see that the numbers stay the same.

local threads = {}

--- What a script prints when it runs with so many threads.
---@param count integer
---@param script string  Lua
---@return string
function threads.run(count, script)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(script)
  file:close()
  local program = assert(arg[-1], "the tests must run in the feral program")
  local pipe = assert(io.popen(("OMP_NUM_THREADS=%d %s %s 2>&1"):format(count, program, path)))
  local text = pipe:read("a")
  local ok = pipe:close()
  os.remove(path)
  assert(ok, text)
  return text
end

return threads
