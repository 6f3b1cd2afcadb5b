--- docs.lua: the doc blocks of source files, read for help().
---
--- A doc block is a run of lines that begin with three dashes. It describes the function under it. Functions that are made by a
--- call, or that come from C, have no such line: for them a line of the form "name(arguments): what it does" stands in a block,
--- and describes name, with the lines that follow it:
---
---     --- exp(x): e^x of each element.
---     unary("exp", function(g, _, y) return arith.mul(g, y) end)
---
--- A block with the line "---@internal" is of a function that the library keeps for itself, and stands in no list.

local engine = require "feral.core.engine"

local docs = {}

---@class DocEntry  what a source file says of one function
---@field name string       "zeros"
---@field owner string      the table that it is in: "tensor", "Set"; "" where the file does not say
---@field signature string  "tensor.zeros(...)"
---@field text string[]     the block, for people
---@field summary string|nil  its first sentence; nil where it has none
---@field internal boolean|nil

---@class DocFile
---@field header string[]  the block at the head of the file
---@field entries DocEntry[]  in the order of the file
---@field at table<integer, DocEntry>  by the line of the function
---@field named table<string, DocEntry>  by name: those that are described by a line "name(arguments): ..."
---@field classes table<string, {text: string[], parent: string|nil}>

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

local function is_doc(line) return line ~= nil and line:find("^%s*%-%-%-") ~= nil and not line:find("^%s*%-%-%-%-") end

--- A line of a doc block for people: "@param x Tensor  N x C" becomes "  x: Tensor  N x C".
local function readable(line)
  line = line:gsub("^%s*%-%-%- ?", "")
  line = line:gsub("^@class [%w_]+ : [%w_]+%s+", ""):gsub("^@class [%w_]+%s+", "")
  line = line:gsub("^@param (%S+) (.*)", "  %1: %2"):gsub("^@return (.*)", "  returns %1")
  return (line:gsub("^@field (%S+) (.*)", "  .%1: %2"))
end

--- A line that is for tools alone; the line of a class is left out where it has no words of its own.
local function is_for_tools(line)
  return line:find("@internal", 1, true) or line:find("@class [%w_]+%s*$") or line:find("@class [%w_]+ : [%w_]+%s*$")
end

--- The first sentence of a block that is not about a parameter, however many lines it takes; nil where there is none.
---@param text string[]
---@return string|nil
function docs.sentence(text)
  local words = {}
  for _, line in ipairs(text) do
    local is_prose = line ~= "" and not line:find("^%s")
    if not is_prose and #words > 0 then break end
    if is_prose then words[#words + 1] = line end
  end
  local prose = table.concat(words, " ")
  local first = prose:match("^(.-%.)%s+[%u]") or prose
  return first:find("%a%a") and first or nil
end

local function complete(entry)
  entry.summary = docs.sentence(entry.text)
  return entry
end

--- Takes apart a block in which lines name what they describe; nil where its first line does not.
local function named_entries(block)
  local found
  for _, line in ipairs(block) do
    local name, arguments, text = line:match("^([%a_][%w_]*)(%b()): (.+)")
    if name then
      found = found or {}
      found[#found + 1] = { name = name, owner = "", signature = name .. arguments, text = { text } }
    elseif not found then
      return nil
    else
      table.insert(found[#found].text, line)
    end
  end
  return found
end

--- The function that a line of code begins, if it does: its owner, name and signature.
local function function_in(line)
  local owner, mark, name, arguments = line:match("^function ([%w_.]+)([.:])([%w_]+)(%b())")
  if owner then return owner, name, owner .. mark .. name .. arguments end
  arguments = line:match("^return function(%b())")
  if arguments then return "", "function", "function" .. arguments end
  name, arguments = line:match("^%s*local function ([%w_]+)(%b())")
  if not name then name, arguments = line:match("^%s*function ([%w_]+)(%b())") end
  if name then return "", name, name .. arguments end
end

--- Takes up the block that ends above a line of code.
local function take(file, block, raw, code, number)
  local class = raw:match("@class ([%w_]+)")
  if class then file.classes[class] = { text = block, parent = raw:match("@class [%w_]+ : ([%w_]+)") } end
  local owner, name, signature = function_in(code)
  local internal = raw:find("@internal", 1, true) ~= nil
  if name then
    local entry = complete { owner = owner, name = name, signature = signature, text = block }
    entry.internal = internal
    file.entries[#file.entries + 1], file.at[number] = entry, entry
    return
  end
  local method_of = code:match("^(%u[%w_]*)%.[%w_]+ = ")
  for _, entry in ipairs(named_entries(block) or {}) do
    if method_of then entry.owner, entry.signature = method_of, method_of .. ":" .. entry.signature end
    entry.internal = internal
    file.entries[#file.entries + 1], file.named[entry.name] = complete(entry), entry
  end
end

--- Reads a source text.
---@param text string
---@return DocFile
function docs.read(text)
  local lines = lines_of(text)
  local file = { header = {}, entries = {}, at = {}, named = {}, classes = {} }
  local block, raw = {}, {}
  for number, line in ipairs(lines) do
    if is_doc(line) then
      raw[#raw + 1] = line
      if not is_for_tools(line) then block[#block + 1] = readable(line) end
    else
      if number == #raw + 1 then file.header = block end
      if #raw > 0 or function_in(line) then take(file, block, table.concat(raw, "\n"), line, number) end
      block, raw = {}, {}
    end
  end
  if file.header[1] then file.header[1] = file.header[1]:gsub("^[%w_.]+: ", "") end
  return file
end

local known = {} -- by module

--- What a module's file says.
---@param module string  "feral.tensor"
---@return DocFile|nil  nil where it is no module of the library's
function docs.of_module(module)
  if known[module] == nil then
    local text = engine.source(module)
    known[module] = text and docs.read(text) or false
  end
  return known[module] or nil
end

--- The module whose file a function's source names; nil for a script's.
---@param source string  as debug.getinfo gives it
---@return string|nil
function docs.module_of(source)
  local path = source:match("^@lua/(feral/.*)%.lua$") or source:match("^@.*/(feral/.*)%.lua$")
  local module = path and path:gsub("/init$", ""):gsub("/", ".")
  return module and engine.source(module) and module
end

--- What the file says that a function comes from; nil where it is not there to be read.
---@param source string  as debug.getinfo gives it
---@return DocFile|nil
function docs.of_source(source)
  local module = docs.module_of(source)
  if module then return docs.of_module(module) end
  local path = source:match("^@(.*)")
  local file = path and io.open(path)
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return docs.read(text)
end

--- The entry of a class's method, its own or the one that it overrides.
---@param file DocFile
---@param class string
---@param name string
---@return DocEntry|nil
function docs.method(file, class, name)
  for _, entry in ipairs(file.entries) do
    if entry.owner == class and entry.name == name and entry.summary then return entry end
  end
  local parent = file.classes[class] and file.classes[class].parent
  if not parent then return nil end
  local other = file.classes[parent] and file or docs.of_module "feral.nn"
  return docs.method(other, parent, name)
end

return docs
