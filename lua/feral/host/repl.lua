--- repl.lua: the dialogue at the prompt. Keyboard, history and protected calls come from src/host/repl.c.

local core = require "feral.core.tensor"
local errors = require "feral.base.errors"
local show = require "feral.host.show"

local repl = {}

-- ---- the library as globals ----

--- The names that the prompt knows without require: the library's modules.
---@return string[]  sorted
function repl.names() return require("feral").modules() end

--- Makes the library's modules globals that load when they are first used.
local function preset_globals()
  local known, meta = {}, getmetatable(_G) or {}
  local before = meta.__index
  known.feral = true
  for _, name in ipairs(repl.names()) do known[name] = true end
  function meta.__index(globals, name)
    if known[name] then
      local feral = require "feral"
      local value = name == "feral" and feral or feral[name]
      rawset(globals, name, value)
      return value
    elseif type(before) == "function" then
      return before(globals, name)
    end
    return before and before[name]
  end
  setmetatable(_G, meta)
end

-- ---- completion ----

local keywords = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or",
  "repeat", "return", "then", "true", "until", "while",
}

--- True when the text ends inside a string.
local function in_string(text)
  local open
  for char in text:gsub("\\.", ""):gmatch("[\"']") do
    if not open then open = char elseif open == char then open = nil end
  end
  return open ~= nil
end

--- The value of "net.layers[2]", a path of names and whole numbers; nothing where it leads nowhere.
local function value_of(path)
  local value = _G
  for dot, name, index in path:gmatch("([.:]?)([%a_]?[%w_]*)%[?(%d*)%]?") do
    if dot .. name .. index == "" then break end
    if name ~= "" then value = value[name] end
    if index ~= "" then value = value[math.tointeger(index)] end
  end
  return value
end

--- Names of fields that a module has, but has not loaded yet.
local function lazy_names(value)
  local loaded = package.loaded
  if value == loaded["feral"] then return repl.names() end
  if value == loaded["feral.nn"] then return value.kinds() end
  return {}
end

--- Collects the names of a value's fields: its own, and those that it has from its metatable's __index.
local function add_names(value, found, depth)
  if core.is_tensor(value) then
    for name, method in pairs(core.methods) do found[name] = method end
    for name in pairs(core.getters) do found[name] = false end
    return
  end
  for _, name in ipairs(lazy_names(value)) do found[name] = false end
  local meta = debug.getmetatable(value)
  local index = type(meta) == "table" and rawget(meta, "__index")
  if type(index) == "table" and depth < 10 then add_names(index, found, depth + 1) end
  if type(value) ~= "table" then return end
  for name, field in next, value do
    if type(name) == "string" then found[name] = field end
  end
end

local function matching(found, start, only_functions)
  local words = {}
  for name, value in pairs(found) do
    local hidden = name:sub(1, 1) == "_" and start == ""
    if name:sub(1, #start) == start and name:find("^[%a_][%w_]*$") and not hidden and
      (not only_functions or type(value) == "function") then
      words[#words + 1] = name
    end
  end
  table.sort(words)
  return words
end

local function global_names()
  local found = { feral = false }
  add_names(_G, found, 1)
  for _, name in ipairs(repl.names()) do found[name] = found[name] or false end
  for _, name in ipairs(keywords) do found[name] = false end
  return found
end

--- Names that go on from what is typed.
---@param before string  the line up to the word under the cursor
---@param word string    that word up to the cursor: letters, dots and colons
---@return string[]|nil  whole words in its place, sorted; nil inside a string, where file names are wanted
function repl.complete(before, word)
  if in_string(before) then return nil end
  local head, mark, start = word:match("^(.-)([.:]?)([%w_]*)$")
  if mark == "" then
    return word == "" and {} or matching(global_names(), word)
  end
  local path = (before .. head):match("[%a_][%w_.:%[%]]*$")
  path = path and path:gsub("^.*%[([^%d%]])", "%1") -- of "f[x" the x
  local ok, value = pcall(value_of, path or "")
  if not path or not ok or value == nil then return {} end
  local found = {}
  add_names(value, found, 1)
  local words = matching(found, start, mark == ":")
  for i, name in ipairs(words) do words[i] = head .. mark .. name end
  return words
end

-- ---- reading and running ----

--- Compiles what was typed, an expression or statements.
---@param text string
---@return function|nil chunk, string|nil message  no message: the text is not complete yet
function repl.compile(text)
  local chunk, message = load("return " .. text, "=stdin", "t")
  if not chunk then chunk, message = load(text, "=stdin", "t") end
  if not chunk and message:find("<eof>$") then return nil end
  return chunk, message
end

--- What "?x" and "x?" ask about: the value where the words have one, else the words themselves.
local function subject_of(words)
  local chunk = load("return " .. words:gsub(":([%a_][%w_]*)$", ".%1"), "=stdin", "t")
  if not chunk then return nil end
  if not words:find("^[%a_][%w_.:]*$") then return chunk end
  return function()
    local ok, value = pcall(chunk)
    return ok and value ~= nil and value or words
  end
end

--- "?x" and "x?" as help(x), "?" alone as help(); nil for other lines.
---@param text string
---@return function|nil chunk
function repl.question(text)
  local words = text:match("^%s*%?%s*(.-)%s*$") or text:match("^%s*(.-)%s*%?%s*$")
  if not words then return nil end
  local subject = words == "" and function() end or subject_of(words)
  return subject and function() require("feral.host.help").show(subject()) end
end

--- Reads lines until they make a chunk. Returns it and its text; false after Ctrl-C or an error; nil at the end.
local function read_chunk(host)
  local text = host.read("> ")
  while text do
    local chunk, message = repl.compile(text)
    if message then chunk = repl.question(text) end
    if chunk then return chunk, text end
    local line = not message and host.read(">> ")
    if message then
      io.stderr:write(message, "\n")
      return false
    end
    text = line and text .. "\n" .. line
    if line == nil then return nil end
  end
  return text
end

local function name_of(info)
  if info.what == "main" then return "the main chunk" end
  return info.name and ("function '%s'"):format(info.name) or ("function <%s:%d>"):format(info.short_src, info.linedefined)
end

--- Functions of the user's between the error and the prompt, the innermost first. A single one is in the message already.
local function callers()
  local lines, level = {}, 3
  while #lines < 10 do
    local info = debug.getinfo(level, "Sln")
    if not info or (info.what == "main" and info.source == "=stdin") then break end
    if not errors.is_library(info.source) then
      lines[#lines + 1] = ("\n  %s:%d: in %s"):format(info.short_src, info.currentline, name_of(info))
    end
    level = level + 1
  end
  return #lines > 1 and table.concat(lines) or ""
end

--- An error value as text, with the way to it where that tells more than the message.
local function describe(problem)
  local text = type(problem) == "string" and problem or show.value(problem)
  if text:find("interrupted!", 1, true) then return text end
  return text .. callers()
end

local function print_values(values)
  for i = 1, values.n do io.stdout:write(show.value(values[i]), "\n") end
end

local function run_chunk(host, chunk)
  local results = table.pack(host.call(describe, chunk))
  local ok = table.remove(results, 1)
  results.n = results.n - 1
  if ok and results.n > 0 then
    if results[1] ~= nil then _G._ = results[1] end
    ok, results[1] = host.call(describe, print_values, results)
  end
  io.stdout:flush()
  if not ok then io.stderr:write(tostring(results[1]), "\n") end
end

local function wants_to_leave(text)
  local word = text:match("^%s*(%a+)%s*%(?%s*%)?%s*$")
  return (word == "exit" or word == "quit") and rawget(_G, word) == nil
end

local greeted, told_of_locals

local function greet()
  if greeted then return end
  greeted = true
  preset_globals()
  print(require("feral.cli").version_text():match("^[^\n]*") .. "\nhelp() shows the way, Ctrl-D leaves.")
end

--- A local at the prompt is gone with its line, which puzzles everybody once.
local function tell_of_locals(text)
  if told_of_locals or not text:find("^%s*local%s+[%a_][%w_, ]*=?[^\n;]*$") then return end
  told_of_locals = true
  print("(a local ends with its line: leave 'local' out to keep the variable)")
end

--- The dialogue: reads, runs and prints until the input ends.
---@param host {read: function, call: function}
function repl.run(host)
  greet()
  local chunk, text = read_chunk(host)
  while chunk ~= nil do
    if chunk then
      if wants_to_leave(text) then return end
      run_chunk(host, chunk)
      tell_of_locals(text)
    end
    chunk, text = read_chunk(host)
  end
  print "" -- the prompt stands there
end

return repl
