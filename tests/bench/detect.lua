-- How many faces of composed scenes are found, by our detector and by others, on persons that training does not see.
--
--   ./feral tests/bench/detect.lua FACES68 [--fer2013 DIR] [--model FILE] [--scenes 200] [--peers DIR] [--runtimes PYTHON]
--
-- DIR holds peer_detect.py, which runs YuNet (Wu, Peng and Yu 2023) in ONNX Runtime and OpenCV's Haar cascade; what cannot be
-- run is left out. Scenes have faces of 16 to 400 pixels. Prints recall at 0.01, 0.1 and 1 false boxes a scene, recall by the
-- faces' width at 0.1, how far the five points are off, in widths of the face, and milliseconds a picture.

local feral = require "feral"
local detector = feral.detector
local scenes = dofile "examples/recipes/scenes.lua"
local system = require "feral.core.system"
local args, files, image = feral.args, feral.files, feral.image

local options = args.read(arg, {
  usage = "feral tests/bench/detect.lua FACES68 [options]",
  about = "Compares face detectors on composed scenes.",
  words = { "FACES68" },
  options = {
    { "fer2013", value = "DIR", about = "small faces" },
    { "model", value = "FILE", default = "models/faces.safetensors", about = "our detector" },
    { "scenes", value = "N", type = "integer", least = 1, default = 200, about = "how many" },
    { "seed", value = "N", type = "integer", default = 77, about = "of the scenes" },
    { "height", value = "N", type = "integer", least = 64, default = 480, about = "of a scene" },
    { "width", value = "N", type = "integer", least = 64, default = 640, about = "of a scene" },
    { "overlap", value = "X", type = "number", default = 0.5, about = "intersection over union from which a box is right" },
    { "longest", value = "N", type = "integer", least = 32, default = 640, about = "longest side that the detectors see" },
    { "peers", value = "DIR", default = "../shared/bench", about = "where the other sides' script is" },
    { "runtimes", value = "FILE", default = "runs/peers/bin/python", about = "a Python that has ONNX Runtime and OpenCV" },
  },
})
local LEAST, MOST, LOW = 16, 400, 0.05 -- widths of faces; the least score that counts
local CLASSES = { { 16, 32 }, { 32, 64 }, { 64, 128 }, { 128, 1000 } }

--- The scenes as files, since that is what the others read.
local function write_scenes(dir)
  local list = {}
  local parts = scenes.read { faces68 = options.faces68, fer2013 = options.fer2013, held_out = true, drawn = 0 }
  for i = 1, options.scenes do
    local picture, faces = scenes.compose(parts, options.height, options.width, options.seed, i, { least = LEAST, most = MOST })
    for _, f in ipairs(faces) do f.ignore = f.ignore or f.box[3] < LEAST or nil end
    list[i] = { picture = picture:keep(), faces = faces, path = ("%s/%04d.png"):format(dir, i) }
    assert(image.save(list[i].path, picture))
  end
  return list
end

---- The sides ----

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local function ours(list)
  local net, message = detector.load(options.model)
  if not net then return nil, message end
  local found, spent = {}, {}
  for i, scene in ipairs(list) do
    local started = system.clock()
    found[i] = detector.detect(net, scene.picture, { score = LOW, longest = options.longest })
    spent[i] = 1000 * (system.clock() - started)
  end
  return found, median(spent)
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function points_of(text)
  if text == "-" then return nil end
  local points = {}
  for x, y in text:gmatch("(%S+),(%S+)") do points[#points + 1] = { tonumber(x), tonumber(y) } end
  return points
end

--- What peer_detect.py prints: a line a face.
local function peer(name, list, dir)
  local script = options.peers .. "/peer_detect.py"
  if not files.look(script) then return nil, "no " .. script end
  local command = ("%s %s --detector %s --score %g --longest %d %s/*.png 2>%s/problem"):format(quote(options.runtimes),
    quote(script), name, LOW, options.longest, quote(dir), quote(dir))
  local found, number, took = {}, {}, nil
  for i, scene in ipairs(list) do found[i], number[scene.path] = {}, i end
  local pipe = assert(io.popen(command))
  for line in pipe:lines() do
    local path, x, y, w, h, score, points = line:match("^(.-)\t(%S+)\t(%S+)\t(%S+)\t(%S+)\t(%S+)\t(.+)$")
    if number[path] then
      local box = { tonumber(x), tonumber(y), tonumber(w), tonumber(h) }
      table.insert(found[number[path]], { box = box, score = tonumber(score), points = points_of(points) })
    end
    took = tonumber(line:match("^detect\t(%S+)")) or took
  end
  if not pipe:close() then return nil, assert(io.open(dir .. "/problem")):read("a"):match("([^\n]*)\n*$") end
  return found, took
end

---- The table ----

local function score(list, found, class)
  local results = {}
  for i, scene in ipairs(list) do
    local faces = {}
    for k, f in ipairs(scene.faces) do
      local counts = not class or f.box[3] >= class[1] and f.box[3] < class[2]
      faces[k] = { box = f.box, points = f.points, ignore = f.ignore or not counts or nil }
    end
    results[i] = { found = found[i], faces = faces }
  end
  return scenes.score(results, { overlap = options.overlap })
end

local function percent(x) return ("%6.1f"):format(100 * x) end

local function report(name, list, found, took)
  local whole = score(list, found)
  local cells = { ("%-6s"):format(name) }
  for _, rate in ipairs { 0.01, 0.1, 1 } do cells[#cells + 1] = percent(whole.recall[rate]) end
  for _, class in ipairs(CLASSES) do cells[#cells + 1] = percent(score(list, found, class).recall[0.1]) end
  cells[#cells + 1] = whole.points > 0 and ("%6.3f"):format(whole.points) or "     -"
  print(table.concat(cells, "  ") .. ("  %6.2f ms  (score %.2f at 0.1)"):format(took, whole.threshold[0.1]))
end

local dir = os.tmpname()
os.remove(dir)
assert(files.mkdir(dir))
local _removed <close> = setmetatable({}, { __close = function() os.execute("rm -rf " .. quote(dir)) end })
local list = write_scenes(dir)
print(("%d scenes of %d x %d, %d faces that count"):format(#list, options.width, options.height,
  score(list, setmetatable({}, { __index = function() return {} end })).faces))
print("found %, at 0.01, 0.1, 1 false boxes a scene; at 0.1 by width 16, 32, 64, 128 and more; points off; time")
for _, side in ipairs { "feral", "yunet", "haar" } do
  local found, took
  if side == "feral" then found, took = ours(list) else found, took = peer(side, list, dir) end
  if found then report(side, list, found, took) else print(side .. ": " .. tostring(took)) end
end
