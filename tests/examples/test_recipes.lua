-- The recipes of examples/recipes/, run as their users do on a few drawn faces. That they learn is seen by running them for long.
local lu = require "luaunit"
local feral = require "feral"
local program, temporary = require "program", require "temporary"
local files = require "feral.core.files"
local data, image = feral.data, feral.image

local T = {}

--- 68 points on an oval, with eyes and a mouth at their places, in a picture of 64 pixels.
local function points()
  local list = {}
  for i = 1, 68 do
    local angle = 2 * math.pi * i / 68
    list[i] = { 32 + 16 * math.cos(angle), 34 + 20 * math.sin(angle) }
  end
  for i = 37, 42 do list[i], list[i + 6] = { 25 + (i - 40) / 2, 30 }, { 39 + (i - 40) / 2, 30 } end
  list[31], list[49], list[55] = { 32, 38 }, { 27, 45 }, { 37, 45 }
  return list
end

--- DIR/points.csv and DIR/images/: two photographs of each of 20 persons, two of whom are held out; and DIR/fer/.
local function write_data(dir)
  assert(files.mkdir(dir / "images"))
  local set = data.synthetic { count = 40, size = 64, seed = 5 }
  local rows, numbers = { "image,person,width,height" }, {}
  for i, p in ipairs(points()) do
    rows[1] = rows[1] .. (",x%d,y%d"):format(i, i)
    numbers[i] = ("%.0f,%.0f"):format(p[1], p[2])
  end
  for i = 1, 40 do
    assert(image.save(dir / ("images/%d.jpg"):format(i), set.images[i]))
    rows[#rows + 1] = ("%d.jpg,%d,64,64,%s"):format(i, (i + 1) // 2, table.concat(numbers, ","))
    local fer = dir / ("fer/%s/happy"):format(i % 2 == 0 and "train" or "test")
    assert(files.mkdir(fer))
    assert(image.save(("%s/%d.png"):format(fer, i), image.resize(set.images[i], 48, 48)))
  end
  temporary.write(dir / "points.csv", table.concat(rows, "\n") .. "\n")
end

local function run(dir, words)
  local output, errors, code = program.shell(('"$F" examples/recipes/%s'):format(words:gsub("DIR", dir.path)))
  lu.assertEquals({ code, errors }, { 0, "" }, words)
  return output
end

function T.test_the_detectors_run_stops_and_goes_on()
  local dir <close> = temporary.folder()
  write_data(dir)
  local words = "detector.lua DIR --fer2013 DIR/fer --run DIR/run --size 64 --batch 4 --epoch 2 --scenes 3 --steps 5"
  lu.assertStrContains(run(dir, words .. " --until 2"), "36 photographs, 4 held out\nstep 2  loss ")
  lu.assertStrContains(run(dir, words), "going on after step 2\nstep 4  loss ")
  assert(require("feral.vision.detector").load(dir / "run/detector.safetensors"))
  lu.assertEquals(assert(image.load(dir / "run/look.png")).shape, { 3, 192, 256 })
end

function T.test_the_landmarks_run_stops_and_goes_on()
  local dir <close> = temporary.folder()
  write_data(dir)
  local words = "landmarks.lua DIR --run DIR/run --batch 2 --epoch 2 --steps 3"
  lu.assertStrContains(run(dir, words .. " --until 2"), "36 faces, 4 held out\nstep 2  loss ")
  lu.assertStrContains(run(dir, words), "going on after step 2\nstep 3  loss ")
  assert(require("feral.vision.landmarks").load(dir / "run/landmarks.safetensors"))
end

--- Stopped and taken up again, or not: the same weights.
function T.test_stopping_changes_nothing()
  local dir <close> = temporary.folder()
  write_data(dir)
  local words = "landmarks.lua DIR --batch 2 --epoch 2 --steps 4 --run DIR/"
  run(dir, words .. "once")
  run(dir, words .. "twice --until 2")
  run(dir, words .. "twice")
  local function bytes(name)
    local file = assert(io.open(dir / (name .. "/landmarks.safetensors"), "rb"))
    local text = file:read("a")
    file:close()
    return text
  end
  lu.assertTrue(bytes "once" == bytes "twice")
end

return T
