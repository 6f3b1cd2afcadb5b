local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local threads = require "threads"
local draw = require "feral.core.face_draw"
local data, face, tensor = feral.data, feral.face, feral.tensor

local T = {}

--- Mean absolute difference of two images, in gray levels.
local function difference(a, b) return (a:to(b.dtype) - b):abs():mean():item() end

---- Single faces ----

function T.test_a_face_is_gray_bytes_of_the_size_asked_for()
  lu.assertEquals(face.render().shape, { 1, 48, 48 })
  lu.assertEquals(face.render({ AU12 = 1 }, {}, 131).shape, { 1, 131, 131 })
  lu.assertEquals(face.render({}, {}, 8).dtype, "u8")
end

function T.test_every_action_unit_moves_something()
  local needs = { AU16 = { AU25 = 1 } } -- lips that are shut hide the lower teeth
  for _, unit in ipairs(face.action_units) do
    local with, without = { [unit.name] = 1 }, {}
    for name, value in pairs(needs[unit.name] or {}) do with[name], without[name] = value, value end
    lu.assertTrue(difference(face.render(with, {}, 96), face.render(without, {}, 96)) > 0.05, unit.name)
    lu.assertNotNil(face.action_unit_names[unit.name])
  end
end

function T.test_every_look_shows()
  for _, look in ipairs(face.looks) do
    local low, high = face.render({}, { [look.name] = look.least }, 96), face.render({}, { [look.name] = look.most }, 96)
    lu.assertTrue(difference(low, high) > 0.05, look.name)
  end
end

function T.test_all_expressions_of_one_person_differ()
  local faces = {}
  for i, name in ipairs(face.names) do faces[i] = { face.expressions[name][1], {} } end
  local drawn = face.render_all(faces, 48)
  for i = 1, #faces do
    for j = 1, i - 1 do
      lu.assertTrue(difference(drawn[i], drawn[j]) > 1.5, face.names[i] .. " and " .. face.names[j])
    end
  end
end

function T.test_values_are_held_to_their_range()
  lu.assertEquals(difference(face.render { AU12 = 7 }, face.render { AU12 = 1 }), 0)
  lu.assertEquals(difference(face.render { AU12 = -7 }, face.render {}), 0)
end

function T.test_wrong_names_and_values()
  lu.assertStrContains(check.message(face.render, { AU11 = 1 }), "face: there is no 'AU11', did you mean 'AU1'?")
  lu.assertStrContains(check.message(face.render, {}, { glases = 1 }), "face: there is no 'glases', did you mean 'glasses'?")
  lu.assertStrContains(check.message(face.render, { AU12 = "much" }), "face: AU12 must be a number, got string")
  local columns = #face.action_units + #face.looks
  lu.assertStrContains(check.message(draw.draw, tensor.zeros(2, 3), 48),
    ("face_draw: parameters are 2x3, N x %d expected"):format(columns))
  lu.assertStrContains(check.message(draw.draw, tensor.zeros(1, columns), 5000), "face_draw: size 5000 is more than 2048")
end

function T.test_values_that_are_no_numbers_draw_something()
  local columns = #face.action_units + #face.looks
  for _, value in ipairs { 0 / 0, math.huge, -math.huge, 1e30 } do
    lu.assertEquals(draw.draw(tensor.full({ 1, columns }, value), 16).shape, { 1, 1, 16, 16 })
  end
end

function T.test_survives_lack_of_memory()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    face.render({ AU6 = 1, AU12 = 1 }, {}, 16)
  end)
end

---- Data sets ----

function T.test_shapes_labels_and_classes()
  local set = data.synthetic { count = 16, size = 24 }
  lu.assertEquals(set.images.shape, { 16, 1, 24, 24 })
  lu.assertEquals(set.classes, { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral" })
  lu.assertEquals(set.labels:totable(), { 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 1, 2 })
  local two = data.synthetic { count = 4, size = 24, classes = { "surprise", "neutral" } }
  lu.assertEquals(two.classes, { "surprise", "neutral" })
  lu.assertEquals(two:counts(), { 2, 2 })
end

function T.test_a_sample_depends_on_seed_and_number_alone()
  local many = data.synthetic { count = 300, size = 16, seed = 3 } -- more than are drawn at a time
  local few = data.synthetic { count = 7, size = 16, seed = 3 }
  lu.assertEquals(many.images:narrow(1, 1, 7):tobytes(), few.images:tobytes())
  local again = data.synthetic { count = 300, size = 16, seed = 3 }
  lu.assertEquals(many.images:tobytes(), again.images:tobytes())
  local other = data.synthetic { count = 7, size = 16, seed = 4 }
  lu.assertNotEquals(few.images:tobytes(), other.images:tobytes())
end

function T.test_no_two_faces_are_alike()
  local set, seen = data.synthetic { count = 200, size = 16, variation = 0 }, {}
  for i = 1, #set do
    local bytes = set.images[i]:tobytes()
    lu.assertNil(seen[bytes])
    seen[bytes] = true
  end
end

function T.test_options_are_checked()
  local function message(options) return check.message(data.synthetic, options) end
  lu.assertStrContains(message { cout = 3 }, "data.synthetic: unknown option 'cout', did you mean 'count'?")
  lu.assertStrContains(message { count = 0 }, "data.synthetic: count must be a whole number from 1")
  lu.assertStrContains(message { classes = { "anger", "suprise" } },
    "data.synthetic: no face can be drawn for class 'suprise', did you mean 'surprise'?")
  lu.assertStrContains(message { task = "direction" }, "data.synthetic: task 'direction' needs sequences = frames")
  lu.assertStrContains(message { sequences = 1 }, "data.synthetic: sequences is the number of frames, 2 or more")
  lu.assertStrContains(message { task = "age" }, "data.synthetic: task 'age' is unknown: expression or direction")
  lu.assertStrContains(message { task = "direction", sequences = 4, classes = { "neutral" } }, "a neutral face does not move")
end

---- Drawn when they are wanted ----

function T.test_faces_drawn_later_are_those_in_memory()
  for _, options in ipairs {
    { count = 300, size = 16, seed = 3 }, { count = 1, size = 9 },
    { count = 70, size = 16, sequences = 5 }, { count = 4, size = 16, sequences = 3, task = "direction" },
  } do
    local memory = data.synthetic(options)
    options.keep = "drawn"
    local drawn = data.synthetic(options)
    lu.assertEquals(drawn.images.shape, memory.images.shape)
    lu.assertTrue(drawn.images:tobytes() == memory.images:tobytes())
    lu.assertEquals(drawn.labels:totable(), memory.labels:totable())
    lu.assertEquals(drawn.classes, memory.classes)
  end
  lu.assertStrContains(check.message(data.synthetic, { keep = "files" }),
    'data.synthetic: keep must be "memory" or "drawn", got files')
end

function T.test_faces_drawn_later_take_no_memory_for_pixels()
  local function live()
    collectgarbage()
    collectgarbage()
    return tensor.memory().live
  end
  local before = live()
  local set = data.synthetic { count = 300, size = 200, keep = "drawn" }
  lu.assertTrue(live() - before < 300 * 500)
  lu.assertStrContains(tostring(set), "300 images of 1 x 200 x 200 (drawn on demand), 7 classes")
end

function T.test_the_number_of_threads_does_not_matter_to_faces_drawn_later()
  local script = [[
    local data = require("feral").data
    print((data.synthetic { count = 60, size = 24, keep = "drawn" }).images:tobytes():byte(1, 20000))]]
  lu.assertEquals(threads.run(1, script), threads.run(3, script))
end

---- Sequences ----

function T.test_sequences_rise_to_their_expression()
  local set = data.synthetic { count = 6, size = 32, sequences = 5, classes = { "surprise" }, variation = 0 }
  lu.assertEquals(set.images.shape, { 6, 5, 1, 32, 32 })
  for i = 1, 6 do
    local rest, last = set.images[i][1], 0
    for t = 2, 5 do
      local moved = difference(set.images[i][t], rest)
      lu.assertTrue(moved >= last, "the expression grows")
      last = moved
    end
    lu.assertTrue(last > 2, "the apex differs from rest")
  end
end

function T.test_backwards_sequences_end_at_rest()
  local set = data.synthetic { count = 8, size = 32, sequences = 5, task = "direction", variation = 0 }
  lu.assertEquals(set.classes, { "forwards", "backwards" })
  lu.assertEquals(set.labels:totable(), { 1, 2, 1, 2, 1, 2, 1, 2 })
  for i = 1, 8 do
    local rest, apex = 1, 5
    if set.labels[i]:item() == 2 then rest, apex = 5, 1 end
    local frames = set.images[i]
    lu.assertTrue(difference(frames[3], frames[rest]) <= difference(frames[apex], frames[rest]))
  end
end

--- A nearest-mean classifier of the frames' averages must stay at chance: it sees which frames there are, not their order.
function T.test_the_mean_of_the_frames_does_not_tell_the_direction()
  local set = data.synthetic { count = 400, size = 16, sequences = 4, task = "direction", seed = 5 }
  local means = set.images:to(tensor.zeros(1).dtype):mean(2):reshape(400, 256)
  local known, unseen = means:narrow(1, 1, 200), means:narrow(1, 201, 200)
  local centres = known:reshape(100, 2, 256):mean(1)
  local right = 0
  for i = 1, 200 do
    local far = ((unseen[i]:reshape(1, 256) - centres) ^ 2):sum(2):totable()
    if (far[1] < far[2] and 1 or 2) == set.labels[200 + i]:item() then right = right + 1 end
  end
  lu.assertTrue(right > 75 and right < 125, ("%d of 200 right"):format(right))
end

return T
