--- errors.lua: how the library says that something is wrong.
--- A programmer's mistake raises with the script's own line in front and the layer's path behind it. What the
--- world does wrong (files, images, rows of a CSV) is returned as nil, message instead, and does not pass here.

local errors = {}

local tensor_core = require "feral.core.tensor"

local layer_call -- the function that every layer is called through, set by feral.nn
local library_root = os.getenv("FERAL_LUA")

--- True for the source (debug.getinfo) of a function of the library's, or of C.
---@param source string
function errors.is_library(source)
  if library_root and library_root ~= "" and source:sub(1, #library_root + 2) == "@" .. library_root .. "/" then return true end
  return source:sub(1, 11) == "@lua/feral/" or source == "=[C]"
end

--- Under which name the layer stands in the one that calls it; without one, under which it was put somewhere last.
local function name_in(outer, layer)
  for _, name in ipairs(outer and outer.child_names or {}) do
    if rawget(outer, name) == layer then return name end
  end
  return layer.name
end

--- The path of the innermost of these layers, which come from the inside out.
local function path_of(layers)
  local path
  for i, layer in ipairs(layers) do
    local name = name_in(layers[i + 1], layer)
    if name then path = path and name .. "." .. path or name end
  end
  return path, layers[1] and layers[1].kind
end

--- The innermost line that is not the library's own, and the path of the layer being computed.
local function where(level)
  local line, layers = nil, {}
  while true do
    local info = debug.getinfo(level, "Slf")
    if not info then break end
    if not line and info.what ~= "C" and not errors.is_library(info.source) and info.currentline > 0 then
      line = ("%s:%d: "):format(info.short_src, info.currentline)
    end
    if layer_call and info.func == layer_call then
      local _, layer = debug.getlocal(level, 1)
      layers[#layers + 1] = layer
    end
    level = level + 1
  end
  return line or "", path_of(layers)
end

--- "script.lua:12", the innermost line that is not the library's own; nil where there is none.
---@return string|nil
function errors.script_line()
  return (where(3):match("^(.*): $"))
end

local attempts = 0

--- Calls f as pcall does, but what the library raises comes as its bare message: for the world's mistakes, which are found out
--- by trying, and in which the script's line has no part.
---@param f function
---@return boolean, ...
function errors.attempt(f, ...)
  local _done <close> = setmetatable({}, { __close = function() attempts = attempts - 1 end })
  attempts = attempts + 1 -- after what may fail for want of memory
  return pcall(f, ...)
end

--- Adds the script's line and the layer's path to a message.
---@param message string
---@return string
function errors.locate(message)
  if attempts > 0 then return message end
  local line, path, kind = where(3)
  if path then message = ("%s\n  in layer %s (%s)"):format(message, path, kind) end
  return line .. message
end

--- Raises a formatted message, located.
---@param format string  as string.format's
function errors.raise(format, ...)
  error(errors.locate(format:format(...)), 0)
end

function errors.set_layer_call(f) layer_call = f end

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

--- The known name that is nearest to 'name' by edit distance (Levenshtein 1966), or nil where none is near.
---@param name string
---@param known string[]
---@return string|nil
function errors.nearest(name, known)
  local best, least = nil, math.max(2, #name // 2) + 1
  for _, candidate in ipairs(known) do
    local d = distance(name:lower(), candidate:lower())
    if d < least or (d == least and best and candidate < best) then best, least = candidate, d end
  end
  return best
end

--- ", did you mean 'x'?" or "".
function errors.hint(name, known)
  local near = errors.nearest(tostring(name), known)
  return near and (", did you mean '%s'?"):format(near) or ""
end

--- Checks a table of named options: unknown names are refused. Returns a copy with defaults filled in.
---@param where_name string  who takes the options, for the message
---@param given table|nil
---@param known table  names (list part) and defaults (name = default); false: no default
---@return table
function errors.check_options(where_name, given, known)
  if given ~= nil and type(given) ~= "table" then
    errors.raise("%s: options must be a table, got %s", where_name, type(given))
  end
  local names, options, unknown = {}, {}, {}
  for key, value in pairs(known) do
    local name = math.type(key) and value or key
    names[#names + 1] = name
    if name == key and value ~= false then options[name] = value end
  end
  table.sort(names)
  local is_known = {}
  for _, name in ipairs(names) do is_known[name] = true end
  for name, value in pairs(given or {}) do
    if is_known[name] then options[name] = value else unknown[#unknown + 1] = tostring(name) end
  end
  if #unknown > 0 then
    table.sort(unknown)
    errors.raise("%s: unknown option '%s'%s (known: %s)", where_name, unknown[1], errors.hint(unknown[1], names),
      #names > 0 and table.concat(names, ", ") or "none")
  end
  return options
end

tensor_core.set_locate(errors.locate)

return errors
