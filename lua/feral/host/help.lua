--- help.lua: help(thing) prints what the library's sources say of a module, a function, a layer, an object or a name.

local core = require "feral.core.tensor"
local errors = require "feral.base.errors"
local catalogue = require "feral.host.catalogue"
local docs = require "feral.host.docs"
local stephelp = require "feral.host.stephelp"

local help = {}

local WIDTH = 120 -- columns of a list

local function print_block(title, block)
  print(title)
  for _, line in ipairs(block) do print((("  " .. line):match("^(.-)%s*$"))) end
end

-- ---- lists ----

--- Rows of a name and what it does, each on a line of its own.
local function print_rows(rows, indent)
  local width = 0
  for _, row in ipairs(rows) do width = math.max(width, math.min(#row[1], 34)) end
  for _, row in ipairs(rows) do
    local left = ("%s%-" .. width .. "s  "):format(indent or "  ", row[1])
    local text, room = row[2] or "", math.max(40, WIDTH - #left)
    if #text > room then text = text:sub(1, room - 3):gsub("%s+%S*$", "") .. "..." end
    print(left .. text)
  end
end

local function arguments_of(entry) return entry.signature:match("%b()") or "()" end

--- The arguments of a function that is called as a method: without the object.
local function method_arguments(entry)
  local arguments = arguments_of(entry)
  if entry.signature:find(":", 1, true) then return arguments end
  return "(" .. arguments:gsub("^%(%s*[%w_.]+%s*,?%s*", ""):gsub("%)$", "") .. ")"
end

--- How a thing of the catalogue is written, with its arguments.
local function title_of(item)
  if item.kind == "step" then return stephelp.signature(item.name) end
  if item.kind == "verb" then return item.value.usage end
  if item.kind == "layer" or not item.entry then return item.path end
  return item.path .. (item.kind == "method" and method_arguments or arguments_of)(item.entry)
end

--- The file that defines a class of layers, or that of one of its objects, the library's or a script's.
local function layer_file(value)
  local class = rawget(value, "child_names") and getmetatable(value) or value
  local f = rawget(class, "forward") or rawget(class, "init")
  return f and docs.of_source(debug.getinfo(f, "S").source)
end

local function summary_of(item)
  if item.kind == "step" then return stephelp.summary(item.name) end
  if item.kind == "verb" then return item.value.about end
  if item.kind == "layer" then
    local file = layer_file(item.value)
    local class = file and file.classes[item.name]
    return class and docs.sentence(class.text)
  end
  return item.entry and item.entry.summary
end

-- ---- functions ----

--- What the sources say of a function, under the title that fits it best.
local function print_function(f, path, module)
  local found, where = catalogue.path_of(f)
  path, module = path or found, module or where
  local name = path and path:match("[%w_]+$")
  if path and path:find("^steps%.") and stephelp.is_kind(name) then
    return print_block(stephelp.signature(name), stephelp.text(name))
  end
  local entry = catalogue.entry_of(f, name, module)
  if not entry or #entry.text == 0 then
    local info = debug.getinfo(f, "S")
    local title = entry and entry.signature or path or "function"
    return print_block(title, { info.what == "C" and "Not documented: a function in C."
      or ("Not documented; defined in %s:%d."):format(info.short_src, info.linedefined) })
  end
  local arguments = path and (path:find(":", 1, true) and method_arguments or arguments_of)(entry)
  print_block(path and path .. arguments or entry.signature, entry.text)
  if entry.internal then print "  (The library keeps this for itself: it may change.)" end
end

-- ---- modules, classes and objects ----

--- Prints a module: what its file says at the head, and a line for each thing in it.
local function print_module(name, module)
  print_block(name, docs.of_module(module).header)
  local rows, layers = {}, {}
  for _, item in ipairs(catalogue.of_module(name)) do
    local list = item.kind == "layer" and layers or rows
    if not (item.entry and item.entry.internal) then list[#list + 1] = { title_of(item), summary_of(item) } end
  end
  if name == "tensor" then rows[#rows + 1] = { "help(tensor{1})", "The methods that tensors have." } end
  if #rows > 0 then print "" end
  print_rows(rows)
  if #layers > 0 then print "\n  Layers; help(nn.Linear) tells all of one:\n" end
  print_rows(layers)
end

--- A file that is no public module, all that it says: first its functions, then the methods of its classes.
local function print_file(module)
  local file = docs.of_module(module)
  print_block((module:gsub("^feral%.", "")), file.header)
  for _, owners in ipairs { "^%l", "^%u" } do
    for _, entry in ipairs(file.entries) do
      if entry.owner:find(owners) and entry.summary and not entry.internal then
        print ""
        print_block(entry.signature, entry.text)
      end
    end
  end
end

local function print_method(file, class, entry, title)
  local full = entry.summary and entry or docs.method(file, class, entry.name)
  print ""
  local text = entry.summary and entry.text or { full and full.summary or "", table.unpack(entry.text) }
  print_block(title or entry.signature, text)
end

--- A layer: how it is made, what it computes, and a list of what it has as all layers do.
local function print_layer(kind, file)
  local own = { init = false, forward = false }
  for _, entry in ipairs(file.entries) do
    if entry.owner == kind then own[entry.name] = entry end
  end
  local class = file.classes[kind]
  print_block("nn." .. kind .. (own.init and arguments_of(own.init) or "()"), class and class.text or {})
  if own.init and #own.init.text > 0 then print_block("", own.init.text) end
  if own.forward then print_method(file, kind, own.forward) end
  for _, entry in ipairs(file.entries) do
    local is_further = entry.owner == kind and entry.name ~= "init" and entry.name ~= "forward"
    if is_further and not entry.internal then print_method(file, kind, entry) end
  end
  print "\nhelp(nn.Module) lists the methods that all layers have."
end

--- Rows of the methods of a class or an object, by name.
local function method_rows(methods)
  local names, rows = {}, {}
  for name in pairs(methods) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local entry = catalogue.entry_of(methods[name], name)
    if entry and entry.summary and not entry.internal then
      rows[#rows + 1] = { ":" .. name .. method_arguments(entry), entry.summary }
    end
  end
  return rows
end

--- The class whose methods these are, and its block; nil where no file names it.
local function class_of(methods)
  for _, f in pairs(methods) do
    local file = docs.of_source(debug.getinfo(f, "S").source)
    local entry = file and file.at[debug.getinfo(f, "S").linedefined]
    local class = entry and file.classes[entry.owner]
    if entry and entry.owner:find("^%u") and not (class and class.parent) then return entry.owner, class and class.text end
  end
end

local function print_object(value)
  local methods = catalogue.methods_of(value)
  local name, text = class_of(methods)
  local kind = type(value) == "table" and rawget(value, "kind") or nil
  local meta = debug.getmetatable(value)
  local other = type(meta) == "table" and rawget(meta, "__name") or "An object"
  print_block(type(kind) == "string" and kind or name or other, text or {})
  local rows = method_rows(methods)
  if #rows > 0 then print "" end
  print_rows(rows)
end

--- A class of optimisers: how it is made, and its methods.
local function print_class(path, value)
  local item
  for _, known in ipairs(catalogue.all()) do
    if known.path == path or rawequal(known.value, value) then item = item or known end
  end
  if item and item.entry then print_block(title_of(item), item.entry.text) end
  local methods = catalogue.methods_of(value)
  for name, f in next, value do
    if type(name) == "string" and type(f) == "function" and name:sub(1, 1) ~= "_" then methods[name] = f end
  end
  print ""
  print_rows(method_rows(methods))
end

-- ---- tensors ----

--- A line of the list: of a method, of a field, or of a function of the module: "tensor.cat".
local function tensor_row(name)
  local short = name:match("[%w_]+$")
  local f = core.methods[short]
  local entry = f and catalogue.entry_of(f, short, "feral.tensor") or docs.of_module("feral.tensor.methods").named[short]
  if f then name = name .. (name == short and method_arguments or arguments_of)(entry) end
  return { name, entry.summary }
end

--- Methods of tensors by groups, a line each.
local function print_tensor()
  print_block("Tensor", {
    "t:name(...) calls a method; help(\"name\") tells all of one. Shapes are N x C x H x W, indices count from 1.",
  })
  for _, group in ipairs(require "feral.tensor.methods") do
    print("\n  " .. group[1])
    local rows = {}
    for name in group[2]:gmatch("%S+") do
      rows[#rows + 1] = tensor_row(name)
    end
    print_rows(rows, "    ")
  end
end

-- ---- names ----

--- The value of a path such as "nn.Conv2d", from the public modules on.
local function value_at(path)
  local value = require "feral"
  for part in path:gmatch("[^.:]+") do
    local ok, field = pcall(function() return value[part] end)
    if not ok or field == nil then return nil end
    value = field
  end
  return value
end

local function print_item(item)
  if item.kind == "verb" then return print(require("feral.host.args").help(item.value)) end
  if item.kind == "layer" or item.kind == "class" then return help.show(item.value) end
  if type(item.value) == "function" and item.kind ~= "method" then return print_function(item.value, item.path, item.module) end
  print_block(title_of(item), item.entry.summary and item.entry.text or { "Not documented." })
end

--- True where a name is that of an item: "split", "Set:split", "set.split", "tensor.reshape" for a method of tensors.
local function is_named(item, name)
  if item.name == name or item.path == name then return true end
  local first, last = name:match("^(.-)[.:]?([%w_]+)$")
  return first ~= "" and item.name == last and item.path:lower():gsub("[.:]?[%w_]+$", "") == first:lower()
end

--- Things of that name, those first that stand first in the catalogue; nothing of the library's own.
local function find(name)
  local found = {}
  for _, item in ipairs(catalogue.all()) do
    local public = is_named(item, name) and not (item.entry and item.entry.internal)
    if public then table.insert(found, item.path == name and 1 or #found + 1, item) end
  end
  return found
end

local function others_line(found, first)
  local paths, seen = {}, {}
  for i = first, #found do
    local path = found[i].path
    if not seen[path] then paths[#paths + 1] = path end
    seen[path] = true
  end
  if #paths > 0 then print("\nAlso: " .. table.concat(paths, ", ")) end
end

local function unknown(name)
  local names = require("feral").modules()
  for _, item in ipairs(catalogue.all()) do names[#names + 1] = name:find("[.: ]") and item.path or item.name end
  print(("nothing is called '%s'%s; help() lists the modules"):format(name, errors.hint(name, names)))
end

local function show_name(name)
  local found, value = find(name), value_at(name)
  if value ~= nil and not (#found > 0 and found[1].path == name) then
    help.show(value)
    return others_line(found, 1)
  elseif #found == 0 then
    return unknown(name)
  end
  print_item(found[1])
  others_line(found, 2)
end

local function overview()
  print "The library's modules; help(nn) tells more of one, help(nn.Conv2d) or help(\"zeros\") of what is in it:\n"
  local rows = {}
  for _, name in ipairs(require("feral").modules()) do
    rows[#rows + 1] = { name, docs.sentence(docs.of_module(require("feral").module_of(name)).header) }
  end
  print_rows(rows)
  print "\nhelp(x) tells of the object x and its methods; so do x? and ?x. Verbs: feral --help, help(\"feral train\")."
end

local function public_name(module)
  for _, name in ipairs(require("feral").modules()) do
    if require("feral").module_of(name) == module then return name end
  end
end

--- A table: a module, a layer or its class, a class, a step, an object.
local function show_table(value)
  local module = catalogue.module_of(value)
  local public = module and public_name(module)
  if public then return print_module(public, module) end
  local nn = require "feral.nn"
  local kind = rawget(value, "kind")
  if value == nn.Module then return print_object(setmetatable({}, nn.Module)) end
  if nn.is_layer(value) or kind and nn.find_class(kind) == value then
    return print_layer(value.kind, layer_file(value) or docs.read "")
  end
  if type(kind) == "string" and rawget(value, "defaults") then return print_class("optim." .. kind, value) end
  if module then return print_file(module) end
  local step = rawget(value, "name")
  if type(step) == "string" and stephelp.is_kind(step) then return print_block(stephelp.signature(step), stephelp.text(step)) end
  if next(catalogue.methods_of(value)) then return print_object(value) end
  local meta = debug.getmetatable(value)
  if type(meta) == "table" and type(meta.__call) == "function" then return print_function(meta.__call) end
  print(("a %s; help() lists what is documented"):format(type(value)))
end

--- Prints what the library knows of a thing: a module, a function, a layer, an object such as a tensor or a data set, or a name
--- as a string ("reshape", "nn.Conv2d", "Set:split", "feral train"). Without one: an overview.
---@param thing any
function help.show(thing)
  if thing == nil then return overview() end
  if type(thing) == "string" then return show_name(thing) end
  if type(thing) == "function" then return print_function(thing) end
  if core.is_tensor(thing) then return print_tensor() end
  if type(thing) == "table" then return show_table(thing) end
  if type(thing) == "userdata" and next(catalogue.methods_of(thing)) then return print_object(thing) end
  print(("a %s; help() lists what is documented"):format(type(thing)))
end

return setmetatable(help, {
  __call = function(_, ...)
    if select("#", ...) > 0 and (...) == nil then
      return print "nil: nothing has that name here; help(\"name\") looks a name up, help() lists the modules"
    end
    help.show(...)
  end,
  __tostring = function() return "help() lists the modules; help(thing) tells of a module, a function, a layer or a name" end,
})
