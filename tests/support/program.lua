--- program.lua: runs this very program as its users do, and looks at what it prints and how it ends.

local program = {}

local function lowest(list)
  local i = 0
  while list[i - 1] do i = i - 1 end
  return list[i]
end

program.path = lowest(arg)

--- A word for the shell.
function program.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function read_all(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function write_all(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- A file that holds this text; the caller removes it.
function program.file(text, suffix)
  local path = os.tmpname()
  if suffix then
    os.remove(path)
    path = path .. suffix
  end
  write_all(path, text)
  return path
end

--- Runs a shell script with $F set to the program. Returns standard output, standard error, exit code.
function program.shell(script)
  local out, err = os.tmpname(), os.tmpname()
  local file = program.file("F=" .. program.quote(program.path) .. "\n" .. script .. "\n")
  local _, _, code = os.execute(("LUA_INIT= FERAL_HISTORY= sh %s > %s 2> %s"):format(file, out, err))
  local output, errors = read_all(out), read_all(err)
  os.remove(file)
  os.remove(out)
  os.remove(err)
  return output, errors, code
end

--- Runs the program with these words; 'input' is its standard input.
function program.run(words, input)
  local quoted, path = {}, program.file(input or "")
  for i, word in ipairs(words) do quoted[i] = program.quote(word) end
  local output, errors, code = program.shell('"$F" ' .. table.concat(quoted, " ") .. " < " .. path)
  os.remove(path)
  return output, errors, code
end

--- Runs code that prints "ready", then sends it signals ("INT", or a number of seconds to wait between two).
--- Returns what it printed (both outputs) and the exit code.
function program.signal(code, ...)
  local path, steps = program.file("io.stdout:setvbuf('no') " .. code), {}
  for i, step in ipairs { ... } do
    steps[i] = tonumber(step) and "sleep " .. step or ("kill -%s $pid"):format(step)
  end
  local output, _, exit_code = program.shell(([[
    out=$(mktemp)
    "$F" %s > $out 2>&1 &
    pid=$!
    n=0; until grep -q ready $out || [ $n -gt 500 ]; do sleep 0.02; n=$((n + 1)); done
    %s
    wait $pid; code=$?
    cat $out; rm -f $out
    exit $code]]):format(path, table.concat(steps, "\n")))
  os.remove(path)
  return output, exit_code
end

--- Types at the prompt in a pseudo terminal. A step is {text, keys}: keys to type once the text has appeared (again); or keys
--- alone; or seconds to wait. Keys may be escaped as for printf. Returns what the terminal showed, and the exit code.
function program.type(steps, environment)
  local lines, times = { [[
    out=$(mktemp)
    shown() { tr -d '\r' < $out | tr '\n' '@' | grep -oF -e "$1" | wc -l; }
    await() { n=0; until [ $(shown "$1") -ge $2 ] || [ $n -gt 500 ]; do sleep 0.02; n=$((n + 1)); done; }
    (]] }, {}
  for _, step in ipairs(steps) do
    if type(step) == "number" then
      lines[#lines + 1] = "sleep " .. step
    else
      local text, keys = "", step
      if type(step) == "table" then text, keys = step[1], step[2] end
      times[text] = (times[text] or 0) + 1
      if text ~= "" then
        lines[#lines + 1] = ("await %s %d"):format(program.quote(text:gsub("\n", "@")), times[text])
      end
      lines[#lines + 1] = "printf '%b' " .. program.quote(keys)
    end
  end
  lines[#lines + 1] = ([[
    ) | env TERM=dumb %s script -qefc "exec $F" /dev/null > $out 2>&1
    code=$?
    cat $out; rm -f $out
    exit $code]]):format(environment or "")
  local output, _, code = program.shell(table.concat(lines, "\n"))
  return output:gsub("\r", ""), code
end

return program
