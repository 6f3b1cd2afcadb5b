--- args.lua: the words of a command line, for verbs and for scripts.
---
---     local o = args.read(arg, {
---       usage = "feral examples/fer2013.lua DIR [options]",
---       about = "Trains a network on FER2013.",
---       words = { "DIR" },
---       options = {
---         { "epochs", value = "N", type = "integer", least = 1, default = 30, about = "passes over the training images" },
---         { "net", value = "NAME", choices = { "vgg", "emopy" }, default = "vgg", about = "which network" },
---         { "quiet", about = "print nothing" },
---       },
---     })
---     print(o.dir, o.epochs, o.net, o.quiet)
---
--- Words are named in capitals and found under their name in small letters; the last may be "IMAGE...": a list of one or more,
--- or "[IMAGE...]": of any number.
--- A dash in an option's name becomes an underscore: --class-weights is o.class_weights. What else the help shall say stands in
--- notes, a text.

local errors = require "feral.base.errors"

local args = {}

local function key_of(name) return (name:gsub("-", "_")) end

--- The name under which a word is found, whether it takes all that are left, and whether that may be none.
local function word_key(word)
  local optional, name, many = word:match("^(%[?)([%w_-]+)(%.*)")
  return key_of(name:lower()), many == "...", optional ~= ""
end

local function find_option(spec, name)
  local known = { "--help" }
  for _, option in ipairs(spec.options or {}) do
    if option[1] == name then return option end
    known[#known + 1] = "--" .. option[1]
  end
  return nil, ("unknown option '--%s'%s"):format(name, errors.hint("--" .. name, known))
end

local function number_of(option, text)
  local number = tonumber(text)
  if option.type == "integer" then number = number and math.tointeger(number) end
  if number and number >= (option.least or number) then return number end
  return nil, ("--%s must be a %s%s, got '%s'"):format(option[1], option.type == "integer" and "whole number" or "number",
    option.least and (" of at least %s"):format(option.least) or "", text)
end

local function choice_of(option, text)
  for _, choice in ipairs(option.choices) do
    if choice == text then return text end
  end
  return nil, ("--%s must be one of %s, got '%s'%s"):format(option[1], table.concat(option.choices, ", "), text,
    errors.hint(text, option.choices))
end

local function convert(option, text)
  if option.choices then return choice_of(option, text) end
  if option.type == "integer" or option.type == "number" then return number_of(option, text) end
  return text
end

--- Reads the option in words[i] into values. Returns the index of its last word, or nil and a message.
local function read_option(words, i, spec, values)
  local name, text = words[i]:match("^%-%-([^=]+)=?(.*)$")
  local has_text = words[i]:find("=", 1, true) ~= nil
  local option, message = find_option(spec, name or "")
  if not option then return nil, message end
  if not option.value then
    if has_text then return nil, ("--%s takes no value"):format(name) end
    values[key_of(name)] = true
    return i
  end
  if not has_text then
    i = i + 1
    text = words[i]
  end
  if not text then return nil, ("--%s needs a value: %s"):format(name, option.value) end
  values[key_of(name)], message = convert(option, text)
  if message then return nil, message end
  return i
end

local function is_option(word) return word:sub(1, 1) == "-" and #word > 1 and not tonumber(word) end

--- Puts the words that are no options under their names.
local function assign(found, spec, values)
  local next_word = 1
  for _, word in ipairs(spec.words or {}) do
    local key, many, optional = word_key(word)
    if not found[next_word] and not optional then return nil, ("%s is missing"):format(word:gsub("%.%.%.$", "")) end
    values[key] = many and table.move(found, next_word, #found, 1, {}) or found[next_word]
    next_word = many and #found + 1 or next_word + 1
  end
  if found[next_word] then return nil, ("'%s' is one word too many"):format(found[next_word]) end
  return values
end

--- Reads words by a specification (see above).
---@param words string[]
---@param spec table
---@return table|nil, string|nil  values by name, or nil and what is wrong; with --help or -h no more than {help = true}
function args.parse(words, spec)
  local values, found, only_words = {}, {}, false
  for _, option in ipairs(spec.options or {}) do values[key_of(option[1])] = option.default end
  for _, word in ipairs(words) do
    if word == "--" then break end
    if word == "--help" or word == "-h" then return { help = true } end
  end
  local i = 1
  while i <= #words do
    if words[i] == "--" and not only_words then
      only_words = true
    elseif is_option(words[i]) and not only_words then
      local last, message
      if words[i]:sub(1, 2) == "--" then
        last, message = read_option(words, i, spec, values)
      else
        message = ("unknown option '%s'"):format(words[i])
      end
      if message then return nil, message end
      i = last
    else
      found[#found + 1] = words[i]
    end
    i = i + 1
  end
  return assign(found, spec, values)
end

local function default_text(option)
  if option.default == nil then return "" end
  return (" (%s)"):format(option.default)
end

--- What --help prints.
---@param spec table
---@return string
function args.help(spec)
  local lines, width, rows = { "usage: " .. spec.usage, "", spec.about, "" }, 0, {}
  for _, option in ipairs(spec.options or {}) do
    local left = "--" .. option[1] .. (option.value and " " .. option.value or "")
    local choices = option.choices and ": " .. table.concat(option.choices, ", ") or ""
    rows[#rows + 1] = { left, option.about .. choices .. default_text(option) }
  end
  rows[#rows + 1] = { "--help", "this text" }
  for _, row in ipairs(rows) do width = math.max(width, #row[1]) end
  for _, row in ipairs(rows) do lines[#lines + 1] = ("  %-" .. width .. "s  %s"):format(row[1], row[2]) end
  if spec.notes then lines[#lines + 1] = "\n" .. spec.notes end
  return table.concat(lines, "\n")
end

--- args.parse for a script: prints the help and ends, or says what is wrong and ends with 2.
---@param words string[]  usually 'arg'
---@param spec table
---@return table
function args.read(words, spec)
  local values, message = args.parse(words, spec)
  if values and not values.help then return values end
  if values then
    print(args.help(spec))
  else
    io.stderr:write(("%s\nusage: %s\n"):format(message, spec.usage))
  end
  os.exit(values and 0 or 2, true)
end

return args
