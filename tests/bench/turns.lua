-- Measures feral and other software in turn on the same networks, and says how they compare.
--
--   ./feral tests/bench/turns.lua [--rounds N] [--seconds S] [--threads N] [--peers DIR] [NET...]
--
-- For each network the sides take turns, A B C A B C ..., so that whatever else the machine does meets all alike; the medians
-- count. DIR holds the other sides' scripts, which print the lines that nets.lua prints. 'make bench PEER=1' calls this.

package.path = arg[0]:match("^(.-)[^/]*$") .. "?.lua;" .. package.path

local args = require "feral.host.args"
local files = require "feral.core.files"
local workloads = require "workloads"

local options = args.read(arg, {
  usage = "feral tests/bench/turns.lua [NET...] [options]",
  about = "Measures feral and other software in turn: " .. table.concat(workloads.names, ", ") .. ".",
  words = { "[NET...]" },
  options = {
    { "rounds", value = "N", type = "integer", least = 1, default = 3, about = "turns of each side" },
    { "seconds", value = "S", type = "number", least = 0, default = 4, about = "for each figure" },
    { "threads", value = "N", type = "integer", least = 1, default = 2, about = "of each side" },
    { "peers", value = "DIR", default = "../shared/bench", about = "where the other sides' scripts are" },
    { "python", value = "FILE", default = "/usr/bin/python3", about = "a Python that has PyTorch" },
    { "runtimes", value = "FILE", default = "runs/peers/bin/python", about = "a Python that has OpenVINO and ONNX Runtime" },
    { "exported", value = "DIR", default = "runs/peers/onnx", about = "the networks as files for those, made when missing" },
  },
})

--- The program that runs this script.
local function program()
  local i = 0
  while arg[i - 1] do i = i - 1 end
  return arg[i]
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function command_of(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = quote(tostring(word)) end
  return table.concat(quoted, " ")
end

--- The last line of a file, which is removed.
local function last_line(path)
  local last = ""
  for line in io.lines(path) do last = line end
  os.remove(path)
  return last
end

--- Runs a command. Returns the lines that it prints, or nil and how it ended.
local function run(words)
  local problems = os.tmpname()
  local lines, pipe = {}, assert(io.popen(("%s 2> %s"):format(command_of(words), problems)))
  for line in pipe:lines() do lines[#lines + 1] = line end
  local ok, how, code = pipe:close()
  local problem = last_line(problems)
  if not ok then return nil, ("%s %d: %s"):format(how, code, problem) end
  return lines
end

local function has_module(python, module) return files.look(python) and run { python, "-c", "import " .. module } ~= nil end

-- ---- the sides ----

--- name, command, the word between the options and the network (none), and the networks that it can do (all)
local sides = { { name = "feral", words = { program(), (arg[0]:gsub("turns%.lua$", "nets.lua")) } } }

local function absent(name, why) print(("absent: %s (%s)"):format(name, why)) end

local function add_torch()
  local script = options.peers .. "/peer_torch.py"
  if not files.look(script) then return absent("PyTorch", "there is no " .. script) end
  if not has_module(options.python, "torch") then return absent("PyTorch", options.python .. " cannot import torch") end
  sides[#sides + 1] = { name = "torch", words = { options.python, script } }
  sides[#sides + 1] = {
    name = "torch-cl", words = { options.python, script, "--channels-last" },
    nets = { emopy_cnn = true, vgg_fer = true, resnet18 = true },
  }
end

--- Writes the networks for the runtimes, once.
local function export()
  if files.look(options.exported .. "/emopy_cnn_1.onnx") then return true end
  local made = files.look(options.exported) or files.mkdir(options.exported)
  return made and run { options.python, options.peers .. "/peer_runtimes_export.py", options.exported } ~= nil
end

local function add_runtimes()
  local script = options.peers .. "/peer_runtimes.py"
  for _, engine in ipairs { "openvino", "onnxruntime" } do
    if not files.look(script) then
      absent(engine, "there is no " .. script)
    elseif not has_module(options.runtimes, engine) then
      absent(engine, options.runtimes .. " cannot import it; 'make peers' gets it")
    elseif not export() then
      absent(engine, "the networks could not be written to " .. options.exported)
    else
      sides[#sides + 1] = { name = engine, words = { options.runtimes, script, "--engine", engine },
        word = options.exported }
    end
  end
end

-- ---- measuring ----

local has_time = files.look("/usr/bin/time") ~= nil

--- One turn of a side on a network: its figures by kind, with peak_memory among them.
local function turn(side, net)
  local words, report = {}, os.tmpname()
  if has_time then table.move({ "/usr/bin/time", "-f", "%M", "-o", report }, 1, 5, 1, words) end
  table.move(side.words, 1, #side.words, #words + 1, words)
  table.move({ "--threads", options.threads, "--seconds", options.seconds }, 1, 4, #words + 1, words)
  if side.word then words[#words + 1] = side.word end
  words[#words + 1] = net
  local lines, how = run(words)
  local found = {}
  for _, line in ipairs(lines or {}) do
    local name, kind, value = line:match("^(%S+)\t(%S+)\t(%S+)\t%S+$")
    if name == net then found[kind] = tonumber(value) end
  end
  if has_time and lines then
    local file = assert(io.open(report))
    found.peak_memory = file:read("n") / 1024
    file:close()
  end
  os.remove(report)
  if how then print(("%s on %s ended with %s"):format(side.name, net, how)) end
  return found
end

local function median(values)
  table.sort(values)
  local n = #values
  if n == 0 then return nil end
  return (values[(n + 1) // 2] + values[n // 2 + 1]) / 2
end

-- Kinds of figures, and whether less is better. Memory is that of the whole process, the training step's being the most.
local kinds = {
  { "params" }, { "train_batch64" }, { "infer_batch64" }, { "infer_latency", less = true }, { "peak_memory", less = true },
}
local unit = {
  params = "float32", train_batch64 = "samples/s", infer_batch64 = "samples/s", infer_latency = "ms/sample", peak_memory = "MB",
}

--- Medians of all rounds on a network: medians[kind][side].
local function measure(net)
  local medians, all = {}, {}
  for _ = 1, options.rounds do
    for _, side in ipairs(sides) do
      if not side.nets or side.nets[net] then
        for kind, value in pairs(turn(side, net)) do
          local key = kind .. " " .. side.name
          all[key] = all[key] or {}
          table.insert(all[key], value)
        end
      end
    end
  end
  for _, kind in ipairs(kinds) do
    medians[kind[1]] = {}
    for _, side in ipairs(sides) do medians[kind[1]][side.name] = median(all[kind[1] .. " " .. side.name] or {}) end
  end
  return medians
end

--- The best of the other sides, and its name. The memory of a runtime, which trains nothing, is none to compare with.
local function best_peer(kind, values)
  local best, name
  for i = 2, #sides do
    local side, value = sides[i].name, values[sides[i].name]
    local comparable = kind[1] ~= "peak_memory" or side:find("^torch")
    if value and comparable and (not best or (kind.less and value < best or not kind.less and value > best)) then
      best, name = value, side
    end
  end
  return best, name
end

local function figure(value)
  if not value then return "-" end
  local whole = math.tointeger(value)
  return whole and tostring(whole) or ("%.5g"):format(value)
end

local function print_line(net, kind, values)
  local cells = { net, kind[1] }
  for _, side in ipairs(sides) do cells[#cells + 1] = figure(values[side.name]) end
  local best, name = best_peer(kind, values)
  local ratio = "-"
  if best and values.feral then
    ratio = kind[1] == "params" and (values.feral == best and "equal" or "DIFFERENT")
      or ("%.2f of %s"):format(values.feral / best, name)
  end
  cells[#cells + 1], cells[#cells + 2] = unit[kind[1]], ratio
  print(table.concat(cells, "\t"))
  io.stdout:flush()
end

local names, message = workloads.chosen(options.net)
if not names then
  io.stderr:write(message, "\n")
  os.exit(2, true)
end
add_torch()
add_runtimes()
if not has_time then absent("peak memory", "there is no /usr/bin/time") end
local head = { "network", "kind" }
for _, side in ipairs(sides) do head[#head + 1] = side.name end
head[#head + 1], head[#head + 2] = "unit", "feral to the best peer"
print(table.concat(head, "\t"))
for _, net in ipairs(names) do
  local medians = measure(net)
  for _, kind in ipairs(kinds) do print_line(net, kind, medians[kind[1]]) end
end
