-- Holds the faces that face.detect finds by OpenCV's cascade against those of OpenCV itself.
--
--   ./feral tests/bench/haar.lua [--images DIR] [--count N] [--sheets N] [--neighbors N] [--cascade FILE]
--
-- Pictures: files of a folder as they are, and sheets of several of them side by side in different sizes, a drawn face among
-- them. Both sides read the same PNG files. Prints lines name<TAB>value<TAB>unit: how many boxes each side finds, which part of
-- OpenCV's boxes has one of feral's with an intersection over union above 0.9, how many are equal to the pixel, and what a
-- picture costs each side in time, both on two threads (or OMP_NUM_THREADS), in turn picture by picture.

local feral = require "feral"
local files = require "feral.core.files"
local system = require "feral.core.system"
local image, face, tensor = feral.image, feral.face, feral.tensor

local options = feral.args.read(arg, {
  usage = "feral tests/bench/haar.lua [options]",
  about = "Compares face.detect with OpenCV's own search by the same cascade.",
  words = {},
  options = {
    { "images", value = "DIR", default = "../shared/data/faces68/images", about = "a folder of pictures with faces" },
    { "count", value = "N", type = "integer", least = 1, default = 300, about = "pictures of the folder to take" },
    { "sheets", value = "N", type = "integer", least = 0, default = 20, about = "pictures of several faces to make of them" },
    { "neighbors", value = "N", type = "integer", least = 0, default = 5, about = "windows beside the first that a face has" },
    { "cascade", value = "FILE", default = face.haar_cascade, about = "another one than that of frontal faces" },
    { "python", value = "FILE", default = "/usr/bin/python3", about = "a Python that has OpenCV" },
  },
})

-- Answers each path of its input with: milliseconds x y w h score x y w h score ...
local PEER = [[
import sys, time, cv2
cv2.setNumThreads(int(sys.argv[1]))
cascade = cv2.CascadeClassifier(sys.argv[2])
for line in sys.stdin:
    gray = cv2.cvtColor(cv2.imread(line.strip()), cv2.COLOR_BGR2GRAY)
    start = time.time()
    boxes, scores = cascade.detectMultiScale2(gray, 1.1, int(sys.argv[3]))
    words = ["%.3f" % (1000 * (time.time() - start))]
    for box, score in zip(boxes, scores):
        words += [str(int(v)) for v in box] + [str(int(score))]
    print(" ".join(words), flush=True)
]]

local SHEET = { height = 720, width = 960, across = 4, down = 3 }

--- Some of a folder's files, evenly out of all.
local function choose_files()
  local names = assert(files.list(options.images))
  local chosen, count = {}, math.min(options.count, #names)
  for i = 1, count do chosen[i] = options.images .. "/" .. names[(i - 1) * #names // count + 1] end
  return chosen
end

local function place(sheet, picture, top, left)
  image.crop(sheet, top, left, picture:size(2), picture:size(3)):copy_(picture)
end

--- Several pictures in the cells of a sheet, each in a size of its own.
local function make_sheet(paths, number)
  local sheet = tensor.full({ 3, SHEET.height, SHEET.width }, 40 * (number % 6), "u8")
  local cell_height, cell_width = SHEET.height // SHEET.down, SHEET.width // SHEET.across
  for i = 0, SHEET.across * SHEET.down - 1 do
    local picture = i == 0 and face.render({ AU12 = 1 }, nil, 200):expand(3, 200, 200)
      or assert(image.load(paths[(number * 12 + i * 7) % #paths + 1], { channels = 3 }))
    local scale = (0.3 + 0.06 * i) * math.min(cell_height / picture:size(2), cell_width / picture:size(3))
    local small = image.resize(picture, math.max(1, picture:size(2) * scale // 1), math.max(1, picture:size(3) * scale // 1))
    place(sheet, small, i // SHEET.across * cell_height + 1, i % SHEET.across * cell_width + 1)
  end
  return sheet
end

local function overlap(a, b)
  local width = math.min(a[1] + a[3], b[1] + b[3]) - math.max(a[1], b[1])
  local height = math.min(a[2] + a[4], b[2] + b[4]) - math.max(a[2], b[2])
  if width <= 0 or height <= 0 then return 0 end
  return width * height / (a[3] * a[4] + b[3] * b[4] - width * height)
end

--- The best partner of a box: the intersection over union, and whether all numbers are equal.
local function best_partner(box, others)
  local best, equal = 0, false
  for _, other in ipairs(others) do
    best = math.max(best, overlap(box, other))
    equal = equal or table.concat(box, " ") == table.concat(other, " ")
  end
  return best, equal
end

--- OpenCV as a process of its own, which answers path by path.
local function start_peer(folder)
  local script, answers = folder .. "/peer.py", folder .. "/answers"
  assert(files.write_atomic(script, PEER))
  assert(os.execute(("mkfifo '%s'"):format(answers)))
  local threads = os.getenv("OMP_NUM_THREADS") or 2
  local questions = assert(io.popen(("'%s' '%s' %d '%s' %d > '%s'"):format(options.python, script, threads,
    options.cascade, options.neighbors, answers), "w"))
  local lines = assert(io.open(answers))
  return function(path)
    questions:write(path, "\n")
    questions:flush()
    local numbers, boxes = {}, {}
    for word in assert(lines:read("l"), "OpenCV does not answer"):gmatch("%S+") do numbers[#numbers + 1] = tonumber(word) end
    for i = 2, #numbers, 5 do boxes[#boxes + 1] = table.move(numbers, i, i + 4, 1, {}) end
    return boxes, numbers[1]
  end
end

local function own_boxes(path)
  local picture = assert(image.load(path))
  local start, boxes = system.clock(), {}
  local found = assert(face.detect(picture, {
    detector = "haar", cascade = options.cascade, min_neighbors = options.neighbors,
  }))
  local spent = 1000 * (system.clock() - start)
  for i, one in ipairs(found) do boxes[i] = { one.box[1], one.box[2], one.box[3], one.box[4], one.score } end
  return boxes, spent
end

local function compare(name, paths, peer)
  local sums = { own = 0, peer = 0, near = 0, equal = 0, own_time = 0, peer_time = 0 }
  for _, path in ipairs(paths) do
    local theirs, their_time = peer(path)
    local ours, our_time = own_boxes(path)
    sums.own, sums.peer = sums.own + #ours, sums.peer + #theirs
    sums.own_time, sums.peer_time = sums.own_time + our_time, sums.peer_time + their_time
    for _, box in ipairs(theirs) do
      local share, equal = best_partner(box, ours)
      if share > 0.9 then sums.near = sums.near + 1 end
      if equal then sums.equal = sums.equal + 1 end
    end
  end
  local function say(what, format, value, unit) print(("%s %s\t" .. format .. "\t%s"):format(name, what, value, unit)) end
  say("pictures", "%d", #paths, "")
  say("feral", "%d", sums.own, "boxes")
  say("opencv", "%d", sums.peer, "boxes")
  say("found by feral", "%.2f", 100 * sums.near / math.max(1, sums.peer), "% of opencv's")
  say("equal", "%.2f", 100 * sums.equal / math.max(1, sums.peer), "% of opencv's")
  say("feral time", "%.2f", sums.own_time / #paths, "ms a picture")
  say("opencv time", "%.2f", sums.peer_time / #paths, "ms a picture")
end

local function as_png(paths, folder)
  local written = {}
  for i, path in ipairs(paths) do
    written[i] = ("%s/%d.png"):format(folder, i)
    assert(image.save(written[i], assert(image.load(path))))
  end
  return written
end

local function sheets_of(paths, folder)
  local written = {}
  for i = 1, options.sheets do
    written[i] = ("%s/sheet%d.png"):format(folder, i)
    assert(image.save(written[i], make_sheet(paths, i)))
  end
  return written
end

local has_opencv = os.execute(("'%s' -c 'import cv2' 2>/dev/null"):format(options.python))
if not has_opencv or not files.look(options.cascade) then
  print("absent: OpenCV (Debian's packages python3-opencv and opencv-data)")
  return
end
local folder = os.tmpname()
os.remove(folder)
assert(files.mkdir(folder))
local paths, peer = choose_files(), start_peer(folder)
compare("faces", as_png(paths, folder), peer)
if options.sheets > 0 then compare("sheets", sheets_of(paths, folder), peer) end
os.execute(("rm -r '%s'"):format(folder))
