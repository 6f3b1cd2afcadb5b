--- help.lua: help(thing) prints what the library's sources say of a module, a function, a class or a name.

local engine = require "feral.core.engine"
local core = require "feral.core.tensor"

local help = {}

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

--- The lines of the file that a function comes from; nil where it is not there to be read.
local function source_lines(source)
  local path = source:match("^@(.*)")
  if not path then return nil end
  local module = path:match("^lua/(feral/.*)%.lua$")
  local text = module and engine.source((module:gsub("/init$", ""):gsub("/", ".")))
  if not text then
    local file = io.open(path)
    text = file and file:read("a")
    if file then file:close() end
  end
  return text and lines_of(text)
end

--- A line of a doc block for people: "@param x Tensor  N x C" becomes "  x: Tensor  N x C".
local function readable(line)
  line = line:gsub("^%s*%-%-%- ?", "")
  line = line:gsub("^@param (%S+) (.*)", "  %1: %2"):gsub("^@return (.*)", "  returns %1"):gsub("^@field (%S+) (.*)", "  .%1: %2")
  return (line:gsub("^@class (.*)", "%1"))
end

--- The doc block that ends above a line: a list of lines, empty where there is none.
local function block_above(lines, number)
  local block = {}
  while number > 1 and lines[number - 1]:find("^%s*%-%-%-") do
    number = number - 1
    table.insert(block, 1, readable(lines[number]))
  end
  return block
end

--- The doc block at the head of a file.
local function header_of(lines)
  local last = 0
  while lines[last + 1] and lines[last + 1]:find("^%-%-%-") do last = last + 1 end
  local block = block_above(lines, last + 1)
  if block[1] then block[1] = block[1]:gsub("^[%w_.]+: ", "") end
  return block
end

local function print_block(title, block)
  print(title)
  local indent = title:match("( *)[^\n]*$") .. "  "
  for _, line in ipairs(block) do print((indent .. line):match("^(.-)%s*$")) end
end

local function print_function(f)
  local info = debug.getinfo(f, "S")
  local lines = source_lines(info.source)
  local block = lines and block_above(lines, info.linedefined) or {}
  if #block == 0 then
    print(lines and ("not documented; defined in %s:%d"):format(info.short_src, info.linedefined) or "not documented")
    return
  end
  local title = lines[info.linedefined]:gsub("^%s*local%s+", ""):gsub("^%s*function%s+", ""):gsub("%s+return .*", "")
  print_block(title, block)
end

--- Prints a module: what its file says at the head, and of each public function the first line, or all it says.
local function print_module(module, all)
  local lines = lines_of(engine.source(module))
  print_block(module:gsub("^feral%.", ""), header_of(lines))
  for number, line in ipairs(lines) do
    local signature = line:match("^function ([%w_]+[.:][%w_]+%b())")
    local block = signature and block_above(lines, number) or {}
    if block[1] and (all or not block[1]:find("^  ")) then
      print_block("\n  " .. signature, { table.unpack(block, 1, all and #block or 1) })
    end
  end
end

local function module_of(value)
  for _, module in ipairs(engine.modules()) do
    if package.loaded[module] == value then return module end
  end
end

--- A class of layers, or one of its objects: the file that defines it.
local function layer_module(value)
  local kind = rawget(value, "kind")
  local module = type(kind) == "string" and "feral.nn.layers." .. kind:lower()
  return module and engine.source(module) and module
end

--- Finds what a name like "nn.Conv2d" or "zeros" stands for.
local function find(name)
  local feral = require "feral"
  local value = feral
  for part in name:gmatch("[^.:]+") do
    local ok, field = pcall(function() return value[part] end)
    value = ok and field or nil
    if value == nil then break end
  end
  if value ~= nil then return value end
  for _, module in ipairs { "tensor", "ops", "nn", "loss", "optim", "data", "train" } do
    local ok, field = pcall(function() return feral[module][name] end)
    if ok and field then return field end
  end
end

local function overview()
  print "The library's modules; help(nn) tells more of one, help(nn.Conv2d) or help(\"zeros\") of what is in it:\n"
  for _, name in ipairs(require("feral.host.repl").names()) do
    local text = engine.source(require("feral").module_of(name))
    local first = text and header_of(lines_of(text))[1]
    if first then print(("  %-12s %s"):format(name, first)) end
  end
end

--- Prints what the library knows of a thing: a module, a function, a layer, or a name as a string. Without one: an overview.
---@param thing any
function help.show(thing)
  if thing == nil then return overview() end
  if type(thing) == "string" then
    local found = find(thing)
    if found == nil then return print(("nothing is called '%s'; help() lists the modules"):format(thing)) end
    thing = found
  end
  if type(thing) == "function" then return print_function(thing) end
  if core.is_tensor(thing) then return print_module("feral.tensor") end
  local module, layer = module_of(thing), type(thing) == "table" and layer_module(thing)
  if module or layer then return print_module(module or layer, layer) end
  local meta = debug.getmetatable(thing)
  if type(meta) == "table" and type(meta.__call) == "function" then return print_function(meta.__call) end
  print(("a %s; help() lists what is documented"):format(type(thing)))
end

return setmetatable(help, {
  __call = function(_, ...) help.show(...) end,
  __tostring = function() return "help() lists the modules; help(thing) tells of a module, a function, a layer or a name" end,
})
