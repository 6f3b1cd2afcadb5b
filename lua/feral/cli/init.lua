--- cli: the verbs of the command line, and what the program says of itself.
---
--- A verb is a file here, lua/feral/cli/<verb>.lua. It returns a specification as args.parse takes it, with run(values) in it:
--- run returns true, or nil and a message when it failed. What more is to be said of the words than args.parse knows, the
--- function arrange(values) says: it returns values, or nil and how the verb is misused.

local engine = require "feral.core.engine"
local args = require "feral.host.args"
local errors = require "feral.base.errors"

require "feral"

local cli = {}

--- The names of all verbs.
---@return string[]
function cli.verbs()
  local verbs = {}
  for _, module in ipairs(engine.modules()) do verbs[#verbs + 1] = module:match("^feral%.cli%.([%w_]+)$") end
  table.sort(verbs)
  return verbs
end

local function is_verb(word)
  for _, verb in ipairs(cli.verbs()) do
    if verb == word then return true end
  end
  return false
end

local function complain(format, ...)
  io.stderr:write("feral", format:format(...), "\n")
end

local function unknown_verb(word)
  local file = io.open(word) -- a folder, since a file would have been run
  if file then
    file:close()
    complain(": cannot read %s: it is a folder", word)
    return 1
  end
  local verbs = cli.verbs()
  complain(": '%s' is neither a file nor a verb%s\nverbs: %s", word, errors.hint(word, verbs), table.concat(verbs, ", "))
  return 2
end

--- An error as text. One of the library's own making gets a traceback; what it says of its arguments stands for itself.
local function describe(problem)
  local text = tostring(problem)
  return text:find("^lua/feral/[%w_/]+%.lua:%d+:") and debug.traceback(text, 2) or text
end

--- Runs a verb.
---@param verb string
---@param ... string  its words
---@return integer  exit code: 0, 1 when it failed, 2 when it was misused
function cli.run(verb, ...)
  if not is_verb(verb) then return unknown_verb(verb) end
  local command = require("feral.cli." .. verb)
  local values, message = args.parse({ ... }, command)
  if values and not values.help and command.arrange then values, message = command.arrange(values) end
  if not values then
    complain(" %s: %s\nusage: %s", verb, message, command.usage)
    return 2
  elseif values.help then
    print(args.help(command))
    return 0
  end
  local ok, done, problem = xpcall(command.run, describe, values)
  if not ok or not done then
    complain(" %s: %s", verb, ok and problem or done)
    return 1
  end
  return 0
end

local host_options = {
  { "-e code", "run this code" },
  { "-l module", "require a module into a global of its name; -l g=module into the global g" },
  { "-i", "go to the prompt after the script" },
  { "-v", "print the version" },
  { "-E", "ignore the environment variables of Lua" },
  { "-W", "turn Lua's warnings on" },
  { "--", "the options end here" },
  { "-", "the script comes from standard input" },
  { "--help", "this text" },
  { "--version", "version, instruction set, threads, libraries" },
}

local environment = {
  { "OMP_NUM_THREADS", "how many threads compute" },
  { "FERAL_HISTORY", "where the prompt keeps what was typed, nowhere if empty; else XDG_STATE_HOME or the home folder" },
  { "FERAL_ISA", "avx512, avx2 or baseline, instead of the best that the processor has" },
  { "FERAL_MODELS", "a folder in which models are looked for by name before those that ship" },
  { "FERAL_LUA", "a folder to read the library from instead of the program" },
}

--- feral --help
function cli.help()
  print "usage: feral [options] [script.lua [arguments]]\n       feral VERB [arguments]\n\nWithout either: the prompt.\n"
  for _, verb in ipairs(cli.verbs()) do
    print(("  %-12s %s"):format(verb, require("feral.cli." .. verb).about))
  end
  print ""
  for _, row in ipairs(host_options) do print(("  %-12s %s"):format(row[1], row[2])) end
  print "\nEnvironment:"
  for _, row in ipairs(environment) do print(("  %-16s %s"):format(row[1], row[2])) end
  print "\nA script may use 80 % of the memory there is; beyond that it gets \"not enough memory\"."
  print "feral VERB --help tells more of a verb, help() at the prompt of the library."
  return 0
end

--- What is running: for --version, and its first line for the prompt.
---@return string
function cli.version_text()
  return ("feral %s, %s, engine %s %s, %d threads\n%s"):format(require("feral").version, _VERSION, engine.isa,
    require("feral.core.tensor").real, engine.threads(), engine.blas)
end

--- feral --version
function cli.version()
  print(cli.version_text())
  return 0
end

--- An option that the program does not have.
---@return integer  exit code
function cli.unknown_option(word)
  local known = {}
  for _, row in ipairs(host_options) do
    local name = row[1]:match("^%-+%a%S*")
    if name then known[#known + 1] = name end
  end
  complain(": unknown option '%s'%s\nusage: feral [options] [script.lua [arguments]], feral --help tells more", word,
    errors.hint(word, known))
  return 2
end

return cli
