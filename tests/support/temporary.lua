--- temporary.lua: folders and files that last for one test.

local files = require "feral.core.files"

local temporary = {}

--- A new empty folder, removed with all it holds when the variable goes out of scope:
--- local dir <close> = temporary.folder(); dir.path, dir / "name"
function temporary.folder()
  local path = os.tmpname()
  os.remove(path)
  assert(files.mkdir(path))
  return setmetatable({ path = path }, {
    __close = function() os.execute(("chmod -R u+rwx '%s'; rm -rf '%s'"):format(path, path)) end,
    __div = function(_, name) return path .. "/" .. name end,
  })
end

--- Writes bytes to a path and returns the path.
function temporary.write(path, bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
  return path
end

--- Runs Lua code in another process of this program that may write no more than 512 bytes a file, as on a full disk.
--- Returns what it prints.
function temporary.run_on_full_disk(code)
  local script = temporary.write(os.tmpname(), code)
  local command = ("trap '' XFSZ; ulimit -f 1; exec '%s' '%s' 2>&1"):format(arg[-1], script)
  local child = assert(io.popen(("sh -c \"%s\""):format(command)))
  local output = child:read("a")
  child:close()
  os.remove(script)
  return output
end

return temporary
