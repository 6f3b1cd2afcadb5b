--- shipped.lua: models that come with the program, by name.
---
---     feral.model.load "fer7"              -- what models/fer7.safetensors holds
---     feral.model.shipped.list()           -- what there is
---
--- They are looked for in the folder that FERAL_MODELS names, then models/ beside the program and beside its folder, then
--- share/feral/models of the place where it is installed, then ./models. The first that has a name has it.

local files = require "feral.core.files"
local system = require "feral.core.system"
local errors = require "feral.base.errors"

local shipped = {}

local ENDING <const> = ".safetensors"

--- The folders, in the order in which they are looked at; not all of them are there.
---@return string[]
function shipped.folders()
  local folders = {}
  local own, program = os.getenv "FERAL_MODELS", system.file()
  if own and own ~= "" then folders[1] = own end
  local dir = program and program:match("^(.*)/[^/]*$")
  for _, place in ipairs { "/models", "/../models", "/../share/feral/models", "/../../../share/feral/models" } do
    if dir then folders[#folders + 1] = dir .. place end
  end
  folders[#folders + 1] = "models"
  return folders
end

--- The models that ship, by name; of equal names the one that find gives.
---@return {name: string, path: string, bytes: integer}[]
function shipped.list()
  local list, seen = {}, {}
  for _, folder in ipairs(shipped.folders()) do
    for _, file in ipairs(files.list(folder) or {}) do
      local name, path = file:match("^(.+)%.safetensors$"), folder .. "/" .. file
      local kind, bytes = files.look(path)
      if name and not seen[name] and kind == "file" then
        seen[name] = true
        list[#list + 1] = { name = name, path = path, bytes = bytes }
      end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function unknown(name)
  local names = {}
  for i, entry in ipairs(shipped.list()) do names[i] = entry.name end
  return ("'%s' is neither a file nor a model that ships%s (there: %s)"):format(name, errors.hint(name, names),
    #names > 0 and table.concat(names, ", ") or "none")
end

--- The path of a model. What holds a slash or ends in .safetensors is a path already; another name is looked for among the models
--- that ship, and is the path of a file of just that name where none is called so.
---@param name string
---@return string|nil, string|nil  nil and a message with the nearest name and all there are
function shipped.find(name)
  if type(name) ~= "string" then errors.raise("model: the name or path of a model expected, got %s", type(name)) end
  if name:find("/", 1, true) or name:sub(-#ENDING) == ENDING then return name end
  for _, folder in ipairs(shipped.folders()) do
    local path = ("%s/%s%s"):format(folder, name, ENDING)
    if files.look(path) == "file" then return path end
  end
  if files.look(name) then return name end
  return nil, unknown(name)
end

return shipped
