local lu = require "luaunit"
local feral = require "feral"
local check, pixels, temporary = require "check", require "pixels", require "temporary"
local landmarks = require "feral.vision.landmarks"
local tensor, safetensors, steps = feral.tensor, feral.safetensors, feral.steps

local T = {}

--- A head's points seen from far away, turned about the vertical, then about the horizontal axis, then in the picture; degrees.
local function seen(yaw, pitch, roll, points)
  local a, b, c = math.rad(yaw), math.rad(pitch), math.rad(roll)
  local list = {}
  for i, p in ipairs(points) do
    local x, z = p[1] * math.cos(a) + p[3] * math.sin(a), p[3] * math.cos(a) - p[1] * math.sin(a)
    local y = p[2] * math.cos(b) - z * math.sin(b)
    list[i] = { 300 + 2 * (x * math.cos(c) + y * math.sin(c)), 200 + 2 * (y * math.cos(c) - x * math.sin(c)) }
  end
  return list
end

--- 68 points of which those that the pose follows from are a head's.
local function head_points()
  local points = {}
  for i = 1, 68 do points[i] = landmarks.head[i] or { 0, 0, 0 } end
  return points
end

function T.test_pose_is_how_the_head_was_turned()
  for _, turn in ipairs { { 0, 0, 0 }, { 30, 0, 0 }, { -45, 0, 0 }, { 0, 20, 0 }, { 0, -25, 0 }, { 0, 0, 35 }, { 0, 0, -120 },
    { 20, 10, 0 }, { -30, 15, -10 } } do
    local pose = landmarks.pose(seen(turn[1], turn[2], turn[3], head_points()))
    for _, name in ipairs { "yaw", "pitch", "roll" } do lu.assertAlmostEquals(pose[name], table.remove(turn, 1), 1e-6, name) end
  end
end

function T.test_mirrored_points_change_places_in_pairs()
  for i = 1, 68 do lu.assertEquals(landmarks.mirrored[landmarks.mirrored[i]], i) end
  local alone = {}
  for i = 1, 68 do alone[#alone + 1] = landmarks.mirrored[i] == i and i or nil end
  lu.assertEquals(alone, { 9, 28, 29, 30, 31, 34, 52, 58, 63, 67 })
end

local five = { { 40, 50 }, { 70, 46 }, { 56, 65 }, { 46, 82 }, { 70, 79 } }

function T.test_alignment_puts_eyes_and_mouth_at_their_places()
  local picture = pixels.random("u8", 3, 120, 110)
  local _, map = landmarks.align(picture, five, 112)
  local first = steps.map(map):points(five)
  for _, turn in ipairs { { 1.4, 25 }, { 0.5, -80 }, { 3, 170 } } do
    local moved, c, s = {}, math.cos(math.rad(turn[2])), math.sin(math.rad(turn[2]))
    for k, p in ipairs(five) do moved[k] = { turn[1] * (c * p[1] - s * p[2]) + 7, turn[1] * (s * p[1] + c * p[2]) - 5 } end
    local upright, other = landmarks.align(picture, moved, 112)
    lu.assertEquals(upright.shape, { 3, 112, 112 })
    for k, p in ipairs(steps.map(other):points(moved)) do
      lu.assertAlmostEquals(p[1], first[k][1], 1e-6)
      lu.assertAlmostEquals(p[2], first[k][2], 1e-6)
    end
  end
  lu.assertAlmostEquals(first[1][2], first[2][2], 3) -- the eyes are level
  lu.assertTrue(first[1][1] < first[2][1] and first[1][2] < first[4][2])
end

--- A pixel of the result is the one that the map names, inside and where the picture was made smaller first.
function T.test_a_crop_shows_what_its_map_says()
  local picture = tensor.zeros(1, 200, 240, "u8")
  for y = 1, 200 do picture:select(2, y):fill_(y) end
  for _, face in ipairs { { box = { 60, 50, 40, 50 } }, { box = { 20, 10, 150, 150 } }, { box = { 90, 60, 40, 44 },
    points = { { 95, 80 }, { 118, 92 }, {}, {}, {} } } } do
    local part, map = landmarks.crop(picture, face)
    lu.assertEquals(part.shape, { 1, 64, 64 })
    local rows = part:totable()[1]
    for _, at in ipairs { { 20, 20 }, { 32, 32 }, { 45, 25 } } do
      local y = map[4] * at[1] + map[5] * at[2] + map[6]
      lu.assertAlmostEquals(rows[at[2] + 1][at[1] + 1], y + 1, 1.6)
    end
  end
end

function T.test_eyes_are_level_in_a_crop()
  local face = { box = { 90, 60, 40, 44 }, points = { { 95, 80 }, { 118, 92 }, {}, {}, {} } }
  local _, map = landmarks.crop(tensor.zeros(1, 200, 240, "u8"), face)
  local eyes = steps.map(map):points { face.points[1], face.points[2] }
  lu.assertAlmostEquals(eyes[1][2], eyes[2][2], 1e-6)
  lu.assertTrue(eyes[1][1] < eyes[2][1])
end

--- A network that always says the same: its points must lie where the crop's map puts them.
function T.test_points_are_in_pixels_of_the_picture()
  local net = landmarks.new()
  local last = net:get(#net.child_names)
  feral.autograd.no_grad(function()
    last.weight:fill_(0)
    last.bias:fill_(0.25)
  end)
  local face = { box = { 90, 60, 40, 44 }, points = { { 95, 80 }, { 118, 92 }, {}, {}, {} } }
  local picture = pixels.random("u8", 3, 200, 240)
  local points, _, map = landmarks.find(net, picture, face), landmarks.crop(picture, face)
  lu.assertEquals(#points, 68)
  local back = steps.map(map):points { points[7] }[1]
  lu.assertAlmostEquals(back[1], 31.5 + 16, 1e-3)
  lu.assertAlmostEquals(back[2], 31.5 + 16, 1e-3)
end

function T.test_error_is_in_distances_of_the_eyes()
  local truth, off = {}, {}
  for i = 1, 68 do
    truth[i] = { i, 2 * i }
    off[i] = { i + 3, 2 * i + 4 }
  end
  lu.assertAlmostEquals(landmarks.error(off, truth), 5 / math.sqrt(81 + 324), 1e-12)
end

function T.test_a_file_gives_the_network_back()
  local dir <close> = temporary.folder()
  local net = landmarks.new():eval()
  assert(landmarks.save(net, dir / "points.safetensors", { nme = 0.05 }))
  local back, card = assert(landmarks.load(dir / "points.safetensors"))
  lu.assertEquals(card, { nme = 0.05 })
  local x = check.randn(1, 1, 64, 64)
  check.close(feral.autograd.no_grad(back, x), feral.autograd.no_grad(net, x), 1e-7)
  local other = dir / "other.safetensors"
  assert(safetensors.save(other, { { "a", tensor.zeros(1) } }))
  lu.assertEquals(select(2, landmarks.load(other)), other .. ": no network of 68 points")
end

function T.test_wrong_arguments_are_named()
  local picture = tensor.zeros(3, 9, 9, "u8")
  lu.assertStrContains(check.message(landmarks.pose, five), "landmarks.pose: a list of 68 points {x, y} expected, got one of 5")
  lu.assertStrContains(check.message(landmarks.align, picture, {}),
    "landmarks.align: a list of 5 points {x, y} expected, got one of 0")
  lu.assertStrContains(check.message(landmarks.crop, tensor.zeros(3, 9, 9), { box = { 1, 1, 2, 2 } }),
    "landmarks.crop: a u8 image 1 x H x W or 3 x H x W expected, got " .. (check.is_double and "f64" or "f32") .. " 3x9x9")
end

return T
