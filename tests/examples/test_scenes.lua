-- The scenes that the face detector is trained and tested on (examples/recipes/scenes.lua).
local lu = require "luaunit"
local feral = require "feral"
local scenes = dofile "examples/recipes/scenes.lua"
local tensor, image = feral.tensor, feral.image

local T = {}

--- Photographs of nothing but a face, whose outline is an oval: enough for where things go.
local function parts()
  local outline, five = {}, { { 24, 30 }, { 40, 30 }, { 32, 40 }, { 26, 48 }, { 38, 48 } }
  for i = 1, 78 do outline[i] = { 32 + 16 * math.cos(i), 36 + 20 * math.sin(i) } end
  local levels = { image.flip(tensor.full({ 3, 64, 64 }, 200, "u8")):keep() }
  return {
    drawn = 0.2, small = tensor.full({ 2, 1, 48, 48 }, 90, "u8"):keep(),
    photographs = { { levels = levels, outline = outline, five = five, box = { 16, 16, 32, 40 } } },
  }
end

function T.test_a_scene_follows_from_seed_and_index()
  local p = parts()
  for index = 1, 20 do
    local a, faces = scenes.compose(p, 96, 128, 7, index)
    local b, again = scenes.compose(p, 96, 128, 7, index)
    lu.assertEquals(a.shape, { 3, 96, 128 })
    lu.assertTrue(a:tobytes() == b:tobytes())
    lu.assertEquals(faces, again)
  end
  local a, b = scenes.compose(p, 96, 128, 7, 1), scenes.compose(p, 96, 128, 8, 1)
  lu.assertFalse(a:tobytes() == b:tobytes())
end

function T.test_boxes_lie_inside_and_points_in_their_order()
  local p, count = parts(), 0
  for index = 1, 60 do
    local _, faces = scenes.compose(p, 96, 128, 3, index)
    for _, f in ipairs(faces) do
      local x, y, w, h = table.unpack(f.box)
      lu.assertTrue(x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 128 + 1e-6 and y + h <= 96 + 1e-6)
      if f.points then -- heads are turned by less than a right angle
        lu.assertTrue(f.points[1][1] < f.points[2][1] and f.points[4][1] < f.points[5][1])
        lu.assertTrue(f.points[1][2] < f.points[5][2] and f.points[2][2] < f.points[4][2] or f.points[1][2] < f.points[4][2])
        count = count + 1
      end
    end
  end
  lu.assertTrue(count > 50)
end

local function found(score, x) return { score = score, box = { x, 0, 10, 10 } } end

function T.test_recall_is_read_off_at_so_many_false_boxes()
  local faces = { { box = { 0, 0, 10, 10 } }, { box = { 100, 0, 10, 10 } }, { box = { 200, 0, 10, 10 } } }
  local boxes = { found(0.9, 1), found(0.8, 50), found(0.7, 101), found(0.6, 150), found(0.5, 202) }
  local results = { { faces = faces, found = boxes } }
  local score = scenes.score(results, { rates = { 0.5, 1, 2 } })
  lu.assertEquals(score.faces, 3)
  lu.assertEquals(score.recall, { [0.5] = 1 / 3, [1] = 2 / 3, [2] = 1 })
  lu.assertEquals(score.threshold, { [0.5] = 0.9, [1] = 0.7, [2] = 0.5 })
end

--- A second box on a face is false; one on a face that does not count is neither right nor false.
function T.test_each_face_is_found_once_and_some_do_not_count()
  local faces = { { box = { 0, 0, 10, 10 } }, { box = { 100, 0, 10, 10 }, ignore = true } }
  local results = { { faces = faces, found = { found(0.9, 101), found(0.8, 1), found(0.7, 0) } } }
  local score = scenes.score(results, { rates = { 0.5, 1 } })
  lu.assertEquals(score.faces, 1)
  lu.assertEquals(score.threshold, { [0.5] = 0.8, [1] = 0.7 })
  lu.assertEquals(score.recall[0.5], 1)
end

function T.test_boxes_are_right_from_an_overlap_on()
  local results = { { faces = { { box = { 0, 0, 10, 10 } } }, found = { found(0.9, 4) } } } -- 60 of 140
  lu.assertEquals(scenes.score(results, { rates = { 1 } }).recall[1], 0)
  lu.assertEquals(scenes.score(results, { rates = { 1 }, overlap = 0.4 }).recall[1], 1)
end

function T.test_points_are_measured_in_widths_of_the_face()
  local five, off = {}, {}
  for k = 1, 5 do five[k], off[k] = { k, k }, { k + 3, k + 4 } end
  local f = { score = 0.9, box = { 0, 0, 10, 10 }, points = off }
  local results = { { faces = { { box = { 0, 0, 10, 10 }, points = five } }, found = { f } } }
  lu.assertAlmostEquals(scenes.score(results).points, 0.5, 1e-12)
end

return T
