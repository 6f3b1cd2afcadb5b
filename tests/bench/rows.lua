-- What a data set of millions of images takes beside their pixels.
--
--   ./feral tests/bench/rows.lua [--count N]
--
-- Indexes paths, classes, subjects and weights of images that need not be there, then makes subsets, splits, folds and an
-- epoch's order of them. Prints lines name<TAB>value<TAB>unit<TAB>limit; the limits are for 5 million.

local feral = require "feral"
local sources = require "feral.core.source"
local strings = require "feral.core.strings"
local system = require "feral.core.system"
local create = require "feral.core.create"
local builder = require "feral.data.builder"
local data = feral.data

local options = feral.args.read(arg, {
  usage = "feral tests/bench/rows.lua [options]",
  about = "Measures the memory and time that a large data set takes beside its pixels.",
  words = {},
  options = { { "count", value = "N", type = "integer", least = 1000, default = 5000000, about = "rows" } },
})

--- What the process holds in memory now, in MB ("VmRSS"), or held at most ("VmHWM").
local function resident(field)
  local file = io.open("/proc/self/status")
  if not file then return 0 / 0 end
  local kilobytes = file:read("a"):match(field .. ":%s*(%d+)")
  file:close()
  return tonumber(kilobytes) / 1024
end

local function say(name, value, unit, limit)
  print(("%s\t%.2f\t%s\t%s"):format(name, value, unit, limit and "limit " .. limit or ""))
  io.stdout:flush()
end

--- Does something and says how long it took. Returns what it gives.
local function timed(name, limit, f)
  local start = system.clock()
  local result = f()
  say(name, system.clock() - start, "s", limit)
  return result
end

local function index(count)
  local classes = { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral" }
  local paths, subjects = strings.new(), strings.new()
  local labels, weights = builder.numbers "i32", builder.numbers()
  for i = 1, count do
    local label = 1 + i % #classes
    paths:add(("faces/%s/%08d.jpg"):format(classes[label], i))
    subjects:add(("s%05d"):format(i // 50))
    labels:add(label)
    weights:add(1 + i % 3)
  end
  return data.set { source = sources.files(paths, { 48, 48, 1 }), labels = labels:finish(), classes = classes, paths = paths,
    subjects = subjects, weights = weights:finish() }
end

local count = options.count
local before = resident "VmRSS"
local set = timed("index " .. count .. " rows", nil, function() return index(count) end)
collectgarbage()
say("memory of the set", resident "VmRSS" - before, "MB", 600)
say("memory at most while indexing", resident "VmHWM", "MB")

local odd = create.permutation(count, 1, 2):narrow(1, 1, count // 2)
local half = timed("subset of half of them", 0.5, function() return set:subset(odd) end)
timed("split by class", nil, function() return (set:split(0.8)) end)
timed("five folds by subject", nil, function() return set:kfold(5, { by = "subject" }) end)
collectgarbage()

local epoch = timed("order of an epoch", nil, function() return set:shuffle { seed = 1 } end)
timed("a million rows of it at random", nil, function()
  local paths, subjects, letters = epoch.paths, epoch:column "subject", 0
  for k = 1, 1000000 do
    local i = 1 + k * 7919 % count
    letters = letters + #paths[i] + #subjects[i]
  end
  return letters
end)
collectgarbage()
say("memory with half, epoch and columns", resident "VmRSS" - before, "MB", 1000)
say("memory at most", resident "VmHWM", "MB")
assert(#half == count // 2 and #epoch == count)
