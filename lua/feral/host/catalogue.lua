--- catalogue.lua: what users can name, and what the sources say of it, for help().

local core = require "feral.core.tensor"
local engine = require "feral.core.engine"
local docs = require "feral.host.docs"

local catalogue = {}

---@class CatalogueItem
---@field path string  as a user writes it: "tensor.zeros", "nn.Conv2d", "steps.rotate", "Set:split", "feral train"
---@field name string  its last part
---@field kind "function"|"method"|"layer"|"class"|"step"|"verb"
---@field value any
---@field module string|nil  the module that it was found in: "feral.tensor"
---@field entry DocEntry|nil

--- The order in which a bare name is looked for.
local first_modules = { "tensor", "nn", "loss", "optim", "data", "train", "steps", "image" }

--- Files that describe methods and functions made by calls or in C, beside the one where they are found.
local further_files = { "feral.tensor.methods", "feral.tensor.ops", "feral.tensor.activations", "feral.tensor" }

--- Classes whose objects users get, and the files that describe their methods.
local classes = {
  { "Set", "feral.data.set", "feral.data.picking", "feral.data.concat", "feral.data.cache" },
  { "Loader", "feral.data.loader" }, { "StringList", "feral.data.columns" }, { "StepList", "feral.steps", as = "List" },
  { "Map", "feral.steps" }, { "Module", "feral.nn" }, { "Optimiser", "feral.optim" }, { "Schedule", "feral.optim.schedule" },
  { "Ema", "feral.optim.ema" }, { "Model", "feral.model" }, { "Model", "feral.learn.svm", shown = "SVM" },
  { "Profile", "feral.nn.profile" }, { "Dice", "feral.vision.face" },
}

--- The public modules, those in front where a name is looked for first.
---@return string[]
function catalogue.modules()
  local names, seen = {}, {}
  for _, name in ipairs(first_modules) do names[#names + 1], seen[name] = name, true end
  for _, name in ipairs(require("feral").modules()) do
    if not seen[name] then names[#names + 1] = name end
  end
  return names
end

--- What the first of some files says of a name in a line "name(arguments): ...".
local function in_a_line(name, ...)
  local files = table.pack(...)
  for i = 1, files.n do
    local entry = files[i] and files[i].named[name]
    if entry then return entry end
  end
end

--- What the sources say of a function.
---@param f function
---@param name string|nil    under which it was found
---@param module string|nil  in which
---@return DocEntry|nil
function catalogue.entry_of(f, name, module)
  local info = debug.getinfo(f, "S")
  local file = info.what ~= "C" and docs.of_source(info.source) or nil
  local entry = file and file.at[info.linedefined]
  if entry and entry.summary then return entry end
  local parent = entry and docs.method(file, entry.owner, entry.name)
  if parent then
    return setmetatable({ summary = parent.summary, text = { parent.summary, table.unpack(entry.text) } }, { __index = entry })
  end
  if name then
    local further = {}
    for i, other in ipairs(further_files) do further[i] = docs.of_module(other) end
    local own = docs.of_module(module or "")
    local named = in_a_line(name, file or own, own, table.unpack(further))
    if named then return named end
  end
  return entry
end

local function add(items, path, kind, value, module, entry)
  local name = path:match("[%w_]+$")
  if not entry and type(value) == "function" then entry = catalogue.entry_of(value, name, module) end
  items[#items + 1] = { path = path, name = name, kind = kind, value = value, module = module, entry = entry }
end

local function sorted_names(t)
  local names = {}
  for name in next, t do
    if type(name) == "string" and name:sub(1, 1) ~= "_" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- Names in the module 'data': those that its head lists, since each lies in a file of its own.
local function data_names()
  local names = {}
  for _, line in ipairs(docs.of_module("feral.data").header) do names[#names + 1] = line:match("^data%.([%w_]+)") end
  return names
end

local function names_in(name, module)
  if name == "data" then return data_names() end
  if name == "nn" then
    local names = sorted_names(module)
    for _, kind in ipairs(module.kinds()) do names[#names + 1] = not rawget(module, kind) and kind or nil end
    return names
  end
  return type(module) == "table" and sorted_names(module) or {}
end

local function is_class(value) return type(value) == "table" and type(rawget(value, "kind")) == "string" end

local function kind_of(module_name, name, value)
  if is_class(value) then return module_name == "nn" and "layer" or "class" end
  if type(value) ~= "function" then return nil end
  if module_name == "steps" and require("feral.host.stephelp").is_kind(name) then return "step" end
  return "function"
end

--- Functions, layers, steps and classes of a public module.
---@param name string  "tensor"
---@return CatalogueItem[]
function catalogue.of_module(name)
  local feral, items = require "feral", {}
  local module, file = feral[name], feral.module_of(name)
  for _, field in ipairs(names_in(name, module)) do
    local value = module[field]
    local kind = kind_of(name, field, value)
    local where = name == "data" and "feral.data." .. field or file
    local described = kind == "class" and docs.of_module(file).named[field] or nil
    if kind then add(items, name .. "." .. field, kind, value, where, described) end
  end
  return items
end

local takes_lists = { cat = true, stack = true } -- of tensors: called as tensor.cat { a, b }

--- Methods of tensors.
---@return CatalogueItem[]
function catalogue.of_tensors()
  local items = {}
  for _, name in ipairs(sorted_names(core.methods)) do
    if not takes_lists[name] then add(items, "Tensor:" .. name, "method", core.methods[name], "feral.tensor") end
  end
  return items
end

--- Methods of a class as its files describe them.
local function of_class(items, class)
  for i = 2, #class do
    for _, entry in ipairs(docs.of_module(class[i]).entries) do
      local own = entry.owner == (class.as or class[1]) or i > 2 and entry.owner == class[i]:match("[%w_]+$")
      if own and not entry.internal and entry.name:sub(1, 2) ~= "__" then
        add(items, ("%s:%s"):format(class.shown or class[1], entry.name), "method", nil, class[i], entry)
      end
    end
  end
end

--- All that users can name, in the order in which a bare name is looked for.
---@return CatalogueItem[]
function catalogue.all()
  local items = {}
  local function append(more) table.move(more, 1, #more, #items + 1, items) end
  for i, name in ipairs(catalogue.modules()) do
    append(catalogue.of_module(name))
    if i == 1 then append(catalogue.of_tensors()) end
  end
  local schedule = require "feral.optim.schedule"
  for _, name in ipairs(sorted_names(schedule)) do
    add(items, "optim.schedule." .. name, "function", schedule[name], "feral.optim.schedule")
  end
  for _, class in ipairs(classes) do of_class(items, class) end
  for _, verb in ipairs(require("feral.cli").verbs()) do
    items[#items + 1] = { path = "feral " .. verb, name = verb, kind = "verb", value = require("feral.cli." .. verb) }
  end
  return items
end

--- The public path of a function; nil where it has none. Modules that are not loaded yet are left alone.
---@param f function
---@return string|nil path, string|nil module
function catalogue.path_of(f)
  for _, name in ipairs(catalogue.modules()) do
    local file = require("feral").module_of(name)
    local module = package.loaded[file]
    for field, value in next, type(module) == "table" and module or {} do
      if rawequal(value, f) then return name .. "." .. tostring(field), file end
    end
  end
  local nn = package.loaded["feral.nn"]
  for _, class in ipairs { { "Tensor", core.methods, "feral.tensor" }, { "Module", nn and nn.Module or {}, "feral.nn" } } do
    for field, value in next, class[2] do
      if rawequal(value, f) then return class[1] .. ":" .. field, class[3] end
    end
  end
  return nil
end

--- The module that is this value, public or not: "feral.nn.layers.relu"; nil where none is.
---@param value any
---@return string|nil
function catalogue.module_of(value)
  for _, module in ipairs(engine.modules()) do
    if package.loaded[module] == value then return module end
  end
end

--- The methods of an object, its class's and those of the classes under that: by name.
---@param value any
---@return table<string, function>
function catalogue.methods_of(value)
  local found, meta = {}, debug.getmetatable(value)
  for _ = 1, 10 do
    if type(meta) ~= "table" then break end
    local index = rawget(meta, "__index")
    local from = type(index) == "table" and index or meta
    for name, f in next, from do
      if type(name) == "string" and name:sub(1, 1) ~= "_" and type(f) == "function" then found[name] = found[name] or f end
    end
    meta = getmetatable(from)
  end
  return found
end

return catalogue
