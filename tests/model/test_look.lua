local lu = require "luaunit"
local feral = require "feral"
local look = require "feral.model.look"
local bright, check, pixels, temporary = require "bright", require "check", require "pixels", require "temporary"
local tensor, image = feral.tensor, feral.image

local T = {}

function T.setUp() bright.there, bright.found = true, {} end

function T.tearDown() bright.there = false end

--- A dark picture with a bright square of 40 pixels at (60, 20), and less bright ones around it.
local function scene(channels)
  local picture = tensor.full({ channels or 1, 100, 200 }, 0, "u8")
  image.crop(picture, 11, 51, 60, 60):copy_(tensor.full({ 1, 60, 60 }, 150, "u8"):expand(channels or 1, 60, 60))
  image.crop(picture, 21, 61, 40, 40):copy_(tensor.full({ 1, 40, 40 }, 250, "u8"):expand(channels or 1, 40, 40))
  return picture
end

local function face(x, y, w, h, score) return { box = { x, y, w, h }, score = score or 1 } end

---- Cutting out ----

--- Against the plain rule: a pixel outside is the nearest one inside.
function T.test_a_face_is_the_square_around_its_box()
  for _ = 1, 200 do
    local channels, height, width = check.integer(1, 3), check.integer(1, 12), check.integer(1, 12)
    if channels == 2 then channels = 3 end
    local picture = pixels.random("u8", channels, height, width)
    local box = { check.integer(-5, 12), check.integer(-5, 12), check.integer(1, 9), check.integer(1, 9) }
    local margin = ({ 0.5, 1, 1.5, 2 })[check.integer(1, 4)]
    local side = math.max(1, math.floor(margin * math.max(box[3], box[4]) + 0.5))
    local left = math.floor(box[1] + box[3] / 2 - side / 2 + 0.5)
    local top = math.floor(box[2] + box[4] / 2 - side / 2 + 0.5)
    local got, all = look.cut(picture, box, margin), picture:totable()
    lu.assertEquals(got.shape, { channels, side, side })
    got = got:totable()
    for c = 1, channels do
      for y = 1, side do
        for x = 1, side do
          local from_y, from_x = math.max(1, math.min(height, top + y)), math.max(1, math.min(width, left + x))
          lu.assertEquals(got[c][y][x], all[c][from_y][from_x])
        end
      end
    end
  end
end

---- What is seen ----

function T.test_each_face_is_judged_by_its_own_pixels()
  local m = bright.model()
  for _, channels in ipairs { 1, 3 } do
    bright.found = { face(0, 60, 30, 30, 0.5), { box = { 60, 20, 40, 40 }, score = 0.9, points = { { 70, 30 }, { 90, 30 } } } }
    local seen = assert(m:look(scene(channels)))
    lu.assertEquals({ #seen, seen.width, seen.height }, { 2, 200, 100 })
    lu.assertEquals({ seen[1].box, seen[1].score, seen[1].points, seen[1].class },
      { { 60, 20, 40, 40 }, 0.9, { { 70, 30 }, { 90, 30 } }, "bright" })
    lu.assertAlmostEquals(seen[1].probability, bright.probability(250), 1e-5)
    lu.assertAlmostEquals(seen[1].probabilities.dark, 1 - bright.probability(250), 1e-5)
    lu.assertEquals({ seen[2].class, seen[2].box[1] }, { "dark", 0 })
    lu.assertAlmostEquals(seen[2].probabilities.bright, bright.probability(0), 1e-5)
  end
end

function T.test_the_margin_is_the_options_or_the_cards()
  bright.found = { face(60, 20, 40, 40) }
  local mean = (250 * 1600 + 150 * 2000) / 3600 -- of the square of 60 pixels, whose resized bytes are rounded
  lu.assertAlmostEquals(bright.model():look(scene(), { margin = 1.5 })[1].probabilities.bright, bright.probability(mean), 2e-3)
  local m = bright.model { crop = 1.5 }
  lu.assertAlmostEquals(m:look(scene())[1].probabilities.bright, bright.probability(mean), 2e-3)
  lu.assertAlmostEquals(m:look(scene(), { margin = 1 })[1].probabilities.bright, bright.probability(250), 1e-5)
  for _, damaged in ipairs { "x", 0, -1, 100, 0 / 0 } do
    lu.assertAlmostEquals(bright.model { crop = damaged }:look(scene())[1].probabilities.bright, bright.probability(250), 1e-5)
  end
end

function T.test_under_the_cards_threshold_the_class_is_unknown()
  bright.found = { face(60, 20, 40, 40, 2), face(52, 12, 6, 6, 1) } -- of 250 and of 150
  local seen = bright.model { threshold = 0.9 }:look(scene())
  lu.assertEquals({ seen[1].class, seen[2].class }, { "bright", "unknown" })
  lu.assertAlmostEquals(seen[2].probability, bright.probability(150), 1e-5)
  lu.assertEquals(bright.model { threshold = "high" }:look(scene())[2].class, "bright")
end

function T.test_faces_may_be_known_and_the_largest_be_asked_for()
  bright.found = "must not be asked"
  local faces = { face(0, 0, 10, 10), face(60, 20, 40, 40) }
  lu.assertEquals(#bright.model():look(scene(), { faces = faces }), 2)
  lu.assertEquals(bright.model():look(scene(), { faces = faces, largest = true })[1].box, { 60, 20, 40, 40 })
  lu.assertEquals(#bright.model():look(scene(), { faces = {}, largest = true }), 0)
end

function T.test_small_pictures_are_faces_and_large_ones_without_faces_are_not()
  local m = bright.model()
  local function boxes(height, width, options)
    local seen, message = m:look(tensor.full({ 1, height, width }, 200, "u8"), options)
    if not seen then return message end
    local list = {}
    for i, f in ipairs(seen) do list[i] = table.concat(f.box, " ") .. (f.score and " found" or "") end
    return table.concat(list, ", ")
  end
  bright.found = { face(1, 2, 3, 4) }
  lu.assertEquals(boxes(64, 30), "0 0 30 64")
  lu.assertEquals(boxes(1, 1), "0 0 1 1")
  lu.assertEquals(boxes(64, 30, { crop = false }), "1 2 3 4 found")
  lu.assertEquals(boxes(65, 30), "1 2 3 4 found")
  lu.assertEquals(boxes(300, 400, { crop = true }), "0 0 400 300")
  bright.found = {}
  lu.assertEquals(boxes(256, 205), "0 0 205 256")
  lu.assertEquals(boxes(256, 204), "")
  lu.assertEquals(boxes(257, 257), "")
  lu.assertEquals(boxes(100, 100, { crop = false }), "")
  bright.found = "the detector's file is damaged"
  lu.assertEquals(boxes(300, 300), "the detector's file is damaged")
  lu.assertEquals(boxes(100, 100), "0 0 100 100")
  lu.assertEquals(boxes(100, 100, { detector = "stub" }), "the detector's file is damaged")
end

function T.test_only_scores_from_the_least_on_count()
  bright.found = { face(0, 0, 10, 10, 0.4), face(60, 20, 40, 40, 0.8) }
  lu.assertEquals(#bright.model():look(scene(), { score = 0.5 }), 1)
end

function T.test_what_is_seen_prints_as_a_table()
  bright.found = { face(60, 20, 40, 40, 0.9) }
  lu.assertStrContains(tostring(bright.model():look(scene())), [[
1 face
      x      y      w      h     score  class
     60     20     40     40       0.9  bright ]])
  lu.assertStrContains(tostring(bright.model():look(scene(), { crop = true })), "      0      0    200    100         -  dark ")
end

function T.test_a_path_and_reals_are_pictures_too()
  local dir <close> = temporary.folder()
  bright.found = { face(60, 20, 40, 40) }
  local m = bright.model()
  assert(image.save(dir / "scene.png", scene()))
  local expected = m:look(scene())[1]
  lu.assertEquals(m:look(dir / "scene.png")[1], expected)
  lu.assertEquals(m:look(image.to_float(scene()))[1], expected)
  lu.assertEquals({ m:look(dir / "none.png") }, { nil, dir / "none.png: No such file or directory" })
end

---- Some classes only ----

function T.test_keep_leaves_the_others_out()
  local m = bright.model()
  local turned = m:keep { "dark", "bright" }
  lu.assertEquals(turned.classes, { "dark", "bright" })
  lu.assertEquals(turned:keep({ "bright", "dark" }).classes, { "bright", "dark" })
  local face_of = tensor.full({ 1, 9, 9 }, 200, "u8")
  lu.assertAlmostEquals(turned:predict(face_of).probability, m:predict(face_of).probability, 1e-6)
  lu.assertStrContains(check.message(m.keep, m, { "bright", "drak" }),
    "model:keep: there is no class 'drak', did you mean 'dark'? (known: bright, dark)")
  lu.assertStrContains(check.message(m.keep, m, { "bright" }), "a list of two names or more expected")
end

---- What is refused ----

function T.test_messages()
  local m = bright.model()
  local features = feral.model.new({ feral.model.stages.knn(tensor.randn(4, 3), tensor({ 1, 2, 1, 2 }, "i32"), { k = 1 }) },
    { classes = { "a", "b" } })
  lu.assertStrContains(check.message(features.look, features, scene()), "model:look: this model judges features, not images")
  for _, case in ipairs {
    { { 5 }, "model:look: a path or a picture 1 x H x W or 3 x H x W expected, got number" },
    { { tensor.zeros(2, 9, 9) }, "1 x H x W or 3 x H x W expected, got 2x9x9" },
    { { scene(), { cut = true } }, "model:look: unknown option 'cut'" },
    { { scene(), { crop = 1 } }, "model:look: crop must be true, false or nil, got 1" },
    { { scene(), { margin = 0 } }, "model:look: margin must be a number above 0 and at most 4, got 0" },
    { { scene(), { faces = 5 } }, "model:look: faces must be a list, got number" },
    { { scene(), { faces = { { box = { 1, 2, 3 } } } } }, "model:look: face 1 must have a box {x, y, w, h} with sides above 0" },
    { { scene(), { faces = { face(1, 2, 0, 3) } } }, "model:look: face 1 must have a box" },
    { { scene(), { detector = "stab" } }, "face.detect: there is no detector 'stab', did you mean 'stub'?" },
  } do
    lu.assertStrContains(check.message(m.look, m, table.unpack(case[1])), case[2])
  end
end

function T.test_survives_lack_of_memory()
  local m, picture = bright.model(), scene()
  bright.found = { face(60, 20, 40, 40), face(-5, -5, 20, 20) }
  m:look(picture)
  check.survives_lack_of_memory(function() m:look(picture) end)
end

return T
