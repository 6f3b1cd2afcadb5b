local lu = require "luaunit"
local feral = require "feral"
local detect = require "feral.vision.detect"
local core = require "feral.core.cascade"
local cascades, check, temporary = require "cascades", require "check", require "temporary"
local layouts, pixels, program, threads = require "layouts", require "pixels", require "program", require "threads"
local tensor, face, image = feral.tensor, feral.face, feral.image

local T = {}

--- Writes a cascade to a file of the folder.
local function write(dir, cascade, name) return temporary.write(dir / (name or "cascade.xml"), cascades.xml(cascade)) end

--- Spots of light, so that neighbouring windows see about the same.
local function spots(channels, height, width)
  local rough = pixels.random("u8", channels, (height + 3) // 4, (width + 3) // 4)
  return image.resize(rough, height, width)
end

local function lines_of(faces)
  local lines = {}
  for i, one in ipairs(faces) do lines[i] = table.concat(one.box, " ") .. " " .. one.score end
  table.sort(lines)
  return lines
end

--- Every window passes this one.
local function passes_all(width, height)
  local tree = { nodes = { { 0, -1, 0, 0 } }, leaves = { 1, 1 } }
  return { width = width, height = height, stages = { { threshold = 0, trees = { tree } } },
    features = { { { 0, 0, 1, 1, 1 } } } }
end

---- What is found ----

function T.test_faces_are_those_of_the_plain_search()
  local dir <close> = temporary.folder()
  local found, grouped, sizes = 0, 0, { 1, 60 }
  for i = 1, 60 do
    local c = cascades.random()
    local path = write(dir, c, i .. ".xml")
    local picture = spots(1, check.integer(sizes[1], sizes[2]), check.integer(sizes[1], sizes[2]))
    local o = { cascade = path, scale_factor = ({ 1.1, 1.25, 1.5 })[i % 3 + 1], min_neighbors = ({ 0, 1, 3 })[i // 3 % 3 + 1],
      min_size = i % 5 == 0 and 8 or 0, max_size = i % 7 == 0 and 20 or 100 }
    local faces = lines_of(assert(face.detect(layouts.vary(picture), o)))
    lu.assertEquals(faces, cascades.find(c, picture[1]:totable(), o), "case " .. i)
    if o.min_neighbors == 0 then found = found + #faces else grouped = grouped + #faces end
  end
  lu.assertTrue(found > 500 and grouped > 20, ("%d and %d faces say little"):format(found, grouped))
end

function T.test_any_number_of_threads_finds_the_same()
  local dir <close> = temporary.folder()
  local script = ([[
    local feral = require "feral"
    local picture = assert(feral.image.load "%s")
    for _, f in ipairs(feral.face.detect(picture, { cascade = "%s", min_neighbors = 0 })) do print(table.concat(f.box, " ")) end
  ]]):format(dir / "picture.png", write(dir, cascades.random()))
  assert(image.save(dir / "picture.png", spots(1, 150, 200)))
  local expected = threads.run(1, script)
  lu.assertStrContains(expected, "\n")
  lu.assertEquals(threads.run(2, script), expected)
  lu.assertEquals(threads.run(3, script), expected)
end

function T.test_colour_counts_by_its_brightness_and_reals_as_bytes()
  local dir <close> = temporary.folder()
  local o = { cascade = write(dir, cascades.random()), min_neighbors = 0 }
  local colour = spots(3, 40, 50)
  local expected = lines_of(face.detect(image.gray(colour), o))
  lu.assertTrue(#expected > 0)
  lu.assertEquals(lines_of(face.detect(colour, o)), expected)
  lu.assertEquals(lines_of(face.detect(image.to_float(colour), o)), lines_of(face.detect(colour, o)))
end

function T.test_pictures_smaller_than_the_window_have_no_faces()
  local dir <close> = temporary.folder()
  local o = { cascade = write(dir, passes_all(6, 5)), min_neighbors = 0 }
  for _, size in ipairs { { 1, 1 }, { 4, 60 }, { 60, 5 }, { 5, 5 } } do
    lu.assertEquals(#face.detect(pixels.random("u8", 1, size[1], size[2]), o), 0)
  end
  lu.assertEquals(lines_of(face.detect(pixels.random("u8", 1, 5, 6), o)), { "0 0 6 5 1" })
end

function T.test_flat_pictures_have_no_faces()
  local dir <close> = temporary.folder()
  local o = { cascade = write(dir, passes_all(6, 6)), min_neighbors = 0 }
  lu.assertEquals(#face.detect(tensor.full({ 1, 30, 30 }, 255, "u8"), o), 0)
end

function T.test_the_best_face_comes_first_and_the_list_prints()
  local faces = detect.faces { { box = { 5, 6, 70, 80 }, score = 3 }, { box = { 0, 0, 9.5, 9 }, score = 12 },
    { box = { 1, 0, 9.5, 9 }, score = 12 }, { box = { 1, 0, 12, 9 }, score = 12 } }
  lu.assertEquals(tostring(faces), [[
4 faces
      x      y      w      h     score
      1      0     12      9        12
      0      0    9.5      9        12
      1      0    9.5      9        12
      5      6     70     80         3]])
  lu.assertEquals(tostring(detect.faces {}), "0 faces")
  lu.assertStrContains(tostring(detect.faces { { box = { 1, 2, 3, 4 }, score = 1 } }), "1 face\n")
end

function T.test_opencvs_own_cascade_finds_a_drawn_face()
  if not io.open(face.haar_cascade) then lu.skip "opencv-data is not installed" end
  local sheet = tensor.full({ 1, 300, 420 }, 128, "u8")
  image.crop(sheet, 51, 101, 200, 200):copy_(face.render({ AU12 = 0.5 }, { hair = 0 }, 200))
  local faces = assert(face.detect(sheet, { detector = "haar" }))
  lu.assertEquals(#faces, 1)
  local x, y, w, h = table.unpack(faces[1].box)
  lu.assertTrue(x > 90 and y > 40 and x + w < 310 and y + h < 270, table.concat(faces[1].box, " "))
end

---- Detectors by name ----

function T.test_a_detector_that_is_there_is_preferred_and_gets_its_own_options()
  local there, seen = false, nil
  detect.add { name = "test", options = { depth = 2 }, is_there = function() return there end, run = function(picture, o)
    seen = { picture.dtype, o }
    return { { box = { 1, 2, 3, 4 }, score = 0.5 }, { box = { 0, 0, 1, 1 }, score = 0.75 } }
  end }
  local picture = tensor.zeros(3, 8, 8)
  lu.assertEquals(detect.names()[1], "test")
  lu.assertEquals(face.detect(picture, { detector = "test", depth = 5 })[1].score, 0.75)
  lu.assertEquals(seen, { "u8", { detector = "test", depth = 5 } })
  there = true
  lu.assertEquals(#face.detect(picture), 2)
  lu.assertEquals(seen[2].depth, 2)
  lu.assertEquals(#face.detect(picture, { score = 0.6 }), 1)
  lu.assertEquals(#face.detect(picture, { score = 0.5, depth = 1 }), 2)
  lu.assertStrContains(check.message(face.detect, picture, { score = "0.5" }), "face.detect: score must be a number, got string")
  local dir <close> = temporary.folder() -- an option of another detector's chooses that one
  lu.assertEquals(#face.detect(pixels.random("u8", 1, 5, 6), { cascade = write(dir, passes_all(6, 5)), min_neighbors = 0 }), 1)
  there = false
  if io.open(face.haar_cascade) then lu.assertEquals(#assert(face.detect(picture)), 0) end
  lu.assertStrContains(check.message(face.detect, picture, { detector = "test", dept = 1 }),
    "face.detect: unknown option 'dept', did you mean 'depth'? (known: depth, detector, score)")
end

--- A network with fresh weights whose first cell says of itself that it is a face.
function T.test_the_network_is_a_detector_where_its_weights_are()
  local dir <close> = temporary.folder()
  lu.assertEquals({ face.detect(tensor.zeros(1, 40, 40), { detector = "feral", network = dir / "none" }) },
    { nil, dir / "none: No such file or directory" })
  tensor.manual_seed(3)
  local net = feral.detector.new(8):eval()
  assert(feral.detector.save(net, dir / "faces.safetensors"))
  local picture = pixels.random("u8", 3, 40, 70)
  local found = assert(face.detect(picture, { detector = "feral", network = dir / "faces.safetensors", score = 0.01, most = 3 }))
  local expected = feral.detector.detect(net, picture, { score = 0.01, most = 3 })
  lu.assertEquals(#found, #expected)
  lu.assertTrue(#found > 0)
  for i, one in ipairs(found) do
    lu.assertAlmostEquals(one.score, expected[i].score, 1e-6)
    lu.assertEquals(#one.points, 5)
  end
  assert(image.save(dir / "picture.png", picture))
  temporary.write(dir / "script.lua", [[
    local feral = require "feral"
    print(feral.face.detect(assert(feral.image.load(arg[1])), { score = 0.01 })[1].points[5] ~= nil)]])
  lu.assertEquals(program.shell(('FERAL_MODELS=%s "$F" %s %s'):format(dir.path, dir / "script.lua", dir / "picture.png")),
    "true\n")
end

---- What is refused ----

function T.test_files_that_cannot_be_read()
  local dir <close> = temporary.folder()
  local picture = tensor.zeros({ 1, 9, 9 }, "u8")
  local faces, message = face.detect(picture, { cascade = dir / "none.xml" })
  lu.assertNil(faces)
  lu.assertEquals(message,
    dir / "none.xml" .. ": No such file or directory (OpenCV's cascades come with Debian's package opencv-data)")
  temporary.write(dir / "cut.xml", "<opencv_storage>\n<cascade")
  faces, message = face.detect(picture, { cascade = dir / "cut.xml" })
  lu.assertNil(faces)
  lu.assertEquals(message, dir / "cut.xml" .. ":2: no tag that can be read")
end

function T.test_a_cascade_that_lets_all_pass()
  local dir <close> = temporary.folder()
  local path = write(dir, passes_all(4, 4))
  local faces, message = face.detect(pixels.random("u8", 1, 600, 600), { cascade = path })
  lu.assertNil(faces)
  lu.assertEquals(message, path .. ": more than 65536 windows of the picture pass this cascade")
end

function T.test_messages()
  local picture = tensor.zeros({ 1, 9, 9 }, "u8")
  local cases = {
    { { "x" }, "face.detect: a picture is 1 x H x W or 3 x H x W, got string" },
    { { tensor.zeros(2, 9, 9) }, "face.detect: a picture is 1 x H x W or 3 x H x W, got 2x9x9" },
    { { tensor.zeros(4, 1, 9, 9) }, "face.detect: a picture is 1 x H x W or 3 x H x W, got 4x1x9x9" },
    { { tensor.zeros({ 1, 9, 9 }, "i32") }, "an image is of u8 or f32, got i32" },
    { { picture, "haar" }, "face.detect: options must be a table, got string" },
    { { picture, { detector = "har" } }, "face.detect: there is no detector 'har', did you mean 'haar'? (known: " },
    { { picture, { detector = "haar", scale = 1 } }, "face.detect: unknown option 'scale'" },
    { { picture, { detector = "haar", scale_factor = 1 } }, "face.detect: scale_factor must be a number from 1.01, got 1" },
    { { picture, { detector = "haar", scale_factor = 0 / 0 } }, "face.detect: scale_factor must be a number from 1.01, got " },
    { { picture, { detector = "haar", min_neighbors = -1 } },
      "face.detect: min_neighbors must be a whole number from 0, got -1" },
    { { picture, { detector = "haar", min_size = 1.5 } }, "face.detect: min_size must be a whole number from 0, got 1.5" },
    { { picture, { detector = "haar", max_size = "x" } }, "face.detect: max_size must be a whole number from 0, got x" },
    { { picture, { detector = "haar", cascade = 1 } }, "face.detect: cascade must be a path, got number" },
  }
  for _, case in ipairs(cases) do lu.assertStrContains(check.message(face.detect, table.unpack(case[1])), case[2]) end
end

--- The engine's own checks: whoever calls it, no number leads outside of memory.
function T.test_the_engine_refuses_lists_that_do_not_fit()
  local good = { 6, 5, { 1, 0 }, { 1 }, { 0, -1, 0, 0 }, { 1, 2 }, { 1 }, { 0, 0, 6, 5, 1 } }
  local cases = {
    { 1, 3, "a window has sides of 4 to 1024 pixels, got 5 x 3" },
    { 3, {}, "stages are lists of 2 numbers, got 0 in all" },
    { 3, { 2, 0 }, "trees must lie between 1 and 1, got 2" },
    { 3, { 1, "x" }, "number expected, got string" },
    { 3, { 1, 0, 1, 0 }, "stage 2 lacks trees" },
    { 4, { 2 }, "nodes must lie between 1 and 1, got 2" },
    { 4, { 1, 1 }, "tree 2 lacks nodes or leaves" },
    { 5, { 1, -1, 0, 0 }, "left must lie between -1 and 0, got 1" },
    { 5, { 0, -2, 0, 0 }, "right must lie between -1 and 0, got -2" },
    { 5, { 0, -1, 1, 0 }, "feature must lie between 0 and 0, got 1" },
    { 5, { 0, 0.5, 0, 0 }, "right must be a whole number, got 0.5" },
    { 5, { 0, -1, 0 }, "nodes are lists of 4 numbers, got 3 in all" },
    { 6, { 1 }, "tree 1 lacks nodes or leaves" },
    { 7, { 4 }, "rectangles must lie between 1 and 3, got 4" },
    { 7, { 2 }, "feature 1 lacks rectangles" },
    { 8, { 6, 0, 1, 1, 1 }, "x must lie between 0 and 5, got 6" },
    { 8, { 1, 0, 6, 1, 1 }, "width must lie between 1 and 5, got 6" },
    { 8, { 0, 1, 6, 5, 1 }, "height must lie between 1 and 4, got 5" },
  }
  core.new(table.unpack(good))
  for _, case in ipairs(cases) do
    local lists = table.move(good, 1, #good, 1, {})
    lists[case[1]] = case[2]
    lu.assertStrContains(check.message(core.new, table.unpack(lists)), case[3])
  end
  local back = table.move(good, 1, #good, 1, {})
  back[4], back[5], back[6] = { 3 }, { 1, 2, 0, 0, 0, 1, 0, 0, -2, -3, 0, 0 }, { 1, 2, 3, 4 }
  lu.assertStrContains(check.message(core.new, table.unpack(back)), "node 1 of a tree leads back")
end

function T.test_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  local path, picture = write(dir, cascades.random()), spots(3, 30, 40)
  check.survives_lack_of_memory(function() face.detect(picture, { cascade = path, min_neighbors = 0 }) end)
end

return T
