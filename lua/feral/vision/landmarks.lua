--- landmarks.lua: 68 points on a face, and what follows from them: the head's pose, an upright picture of the face.
---
---     local net = assert(landmarks.load("models/landmarks.safetensors"))
---     local points = landmarks.find(net, photo, face)          -- face from detector.detect
---     local pose = landmarks.pose(points)                      -- yaw, pitch, roll in degrees
---     local upright = landmarks.align(photo, landmarks.five(points), 112)
---
--- The points stand in the order of 300-W (Sagonas et al. 2013): 1-17 jaw from the picture's left, 18-27 brows, 28-36 nose,
--- 37-42 and 43-48 eyes, 49-60 outer and 61-68 inner lips.

local core = require "feral.core.tensor"
local create = require "feral.core.create"
local scope = require "feral.core.scope"
local view = require "feral.core.view"
local autograd = require "feral.tensor.autograd"
local nn = require "feral.nn"
local image = require "feral.vision.image"
local safetensors = require "feral.formats.safetensors"
local json = require "feral.formats.json"
local errors = require "feral.base.errors"

local landmarks = {}

landmarks.POINTS = 68
landmarks.SIZE = 64    -- side of the picture that the network sees, in pixels
landmarks.MARGIN = 1.3 -- side of the square that it shows, in the longer sides of the face's box

--- The point with which each changes places in a mirrored picture.
landmarks.mirrored = {}
for _, span in ipairs { { 1, 17 }, { 18, 27 }, { 32, 36 }, { 49, 55 }, { 56, 60 }, { 61, 65 }, { 66, 68 } } do
  for i = span[1], span[2] do landmarks.mirrored[i] = span[1] + span[2] - i end
end
for i = 28, 31 do landmarks.mirrored[i] = i end
for i, j in pairs { [37] = 46, [38] = 45, [39] = 44, [40] = 43, [41] = 48, [42] = 47 } do
  landmarks.mirrored[i], landmarks.mirrored[j] = j, i
end

local function check_points(where, points, count)
  if type(points) ~= "table" or #points ~= count then
    errors.raise("%s: a list of %d points {x, y} expected, got %s", where, count,
      type(points) == "table" and ("one of %d"):format(#points) or type(points))
  end
end

local function mean(points, first, last)
  local x, y = 0, 0
  for i = first, last do x, y = x + points[i][1], y + points[i][2] end
  return { x / (last - first + 1), y / (last - first + 1) }
end

--- The eyes' centres, the tip of the nose and the corners of the mouth, from the picture's left.
---@param points number[][]  68
---@return number[][]  5
function landmarks.five(points)
  check_points("landmarks.five", points, landmarks.POINTS)
  return { mean(points, 37, 42), mean(points, 43, 48), points[31], points[49], points[55] }
end

---- The network ----

local function block(from, to, stride)
  return nn.Sequential(nn.Conv2d(from, to, 3, { stride = stride, padding = 1, bias = false }), nn.BatchNorm(to), nn.ReLU())
end

--- Depthwise and pointwise, added to what came in.
local function residual(width)
  return nn.Residual(nn.Sequential(nn.DepthwiseConv2d(width, 3, { padding = 1, bias = false }), nn.BatchNorm(width),
    nn.Conv2d(width, width, 1, { bias = false }), nn.BatchNorm(width)), { activation = nn.ReLU() })
end

local function down(from, to)
  return nn.Sequential(nn.DepthwiseConv2d(from, 3, { stride = 2, padding = 1, bias = false }), nn.BatchNorm(from),
    nn.Conv2d(from, to, 1, { bias = false }), nn.BatchNorm(to), nn.ReLU())
end

--- A network with fresh weights: N x 1 x 64 x 64, from landmarks.batch, to N x 136: x and y of each point from the picture's
--- middle, in sides of the picture.
---@return Module
function landmarks.new()
  return nn.Sequential(
    block(1, 16, 1), block(16, 32, 2), residual(32), block(32, 48, 2), residual(48), residual(48),
    down(48, 96), residual(96), residual(96), down(96, 128), residual(128), residual(128),
    nn.Conv2d(128, 48, 1, { bias = false }), nn.BatchNorm(48), nn.ReLU(), nn.Flatten(),
    nn.Linear(48 * 4 * 4, 2 * landmarks.POINTS))
end

--- Pictures as the network takes them.
---@param t Tensor  u8 N x 1 x 64 x 64 or 1 x 64 x 64
---@return Tensor  f32 N x 1 x 64 x 64
function landmarks.batch(t)
  local batch = image.normalize(t, { mean = 0.5, std = 0.25 })
  return batch:dim() == 3 and view.unsqueeze(batch, 1) or batch
end

---- Pictures of one face ----

--- The square of a picture with its middle at (x, y), turned by 'angle' radians, as size x size pixels; and the map from the
--- result to the picture. What lies outside of it goes on with its border.
local function square(t, x, y, side, angle, size)
  local reach = side * (math.abs(math.cos(angle)) + math.abs(math.sin(angle))) / 2 + 2
  local left = math.max(0, math.min(t:size(3) - 1, math.floor(x - reach)))
  local top = math.max(0, math.min(t:size(2) - 1, math.floor(y - reach)))
  local width = math.max(1, math.min(t:size(3), math.ceil(x + reach)) - left)
  local height = math.max(1, math.min(t:size(2), math.ceil(y + reach)) - top)
  local part = image.crop(t, top + 1, left + 1, height, width)
  local fx, fy = 1, 1
  if side > 1.5 * size then -- all pixels shall count
    local h, w = math.max(1, math.floor(height * size / side)), math.max(1, math.floor(width * size / side))
    part, fx, fy = image.resize(part, h, w), w / width, h / height
  end
  local scale, c, s = side / size, math.cos(angle), math.sin(angle)
  local middle = (size - 1) / 2
  local map = { scale * c, -scale * s, x - scale * (c - s) * middle, scale * s, scale * c, y - scale * (s + c) * middle }
  local own = { map[1] * fx, map[2] * fx, (map[3] - left + 0.5) * fx - 0.5, map[4] * fy, map[5] * fy,
    (map[6] - top + 0.5) * fy - 0.5 }
  return image.affine(part, own, { height = size, width = size }), map
end

local function check_image(where, t)
  if core.is_tensor(t) and t:dim() == 3 and t.dtype == "u8" and (t:size(1) == 1 or t:size(1) == 3) then return end
  errors.raise("%s: a u8 image 1 x H x W or 3 x H x W expected, got %s", where,
    core.is_tensor(t) and ("%s %s"):format(t.dtype, table.concat(t.shape, "x")) or type(t))
end

--- A face as the network sees it, held upright by its eyes where they are known.
---@param t Tensor  u8 C x H x W
---@param face table  {box = {x, y, w, h}, points = five {x, y} or nil}
---@param size integer|nil  64
---@param margin number|nil  1.3
---@return Tensor  u8 1 x size x size
---@return number[] map  six numbers, from pixels of the result to those of t
function landmarks.crop(t, face, size, margin)
  check_image("landmarks.crop", t)
  local x, y, w, h = table.unpack(face.box)
  local angle = 0
  if face.points then
    angle = math.atan(face.points[2][2] - face.points[1][2], face.points[2][1] - face.points[1][1])
  end
  local side = (margin or landmarks.MARGIN) * math.max(w, h, 1)
  local part, map = square(t, x + w / 2 - 0.5, y + h / 2 - 0.5, side, angle, size or landmarks.SIZE)
  return image.gray(part), map
end

local plans = setmetatable({}, { __mode = "k" })

--- The 68 points of a face.
---@param net Module  from landmarks.load
---@param t Tensor  u8 C x H x W
---@param face table  {box = {x, y, w, h}, points = five {x, y} or nil}, as detector.detect finds them
---@return number[][]  68 {x, y}, in pixels of t
--- The network's weights are taken to stay as they are at the first call; landmarks.forget(net) makes it look again.
function landmarks.find(net, t, face)
  local open <close> = scope.scope() -- luacheck: ignore
  local part, map = landmarks.crop(t, face)
  local x = landmarks.batch(part)
  plans[net] = plans[net] or net:compile(x)
  local numbers, points = create.totable(plans[net](x))[1], {}
  for i = 1, landmarks.POINTS do
    local u, v = landmarks.pixel(numbers[2 * i - 1]), landmarks.pixel(numbers[2 * i])
    points[i] = { map[1] * u + map[2] * v + map[3], map[4] * u + map[5] * v + map[6] }
  end
  return points
end

--- A number that the network gives as a place in the picture that it saw, in pixels.
function landmarks.pixel(number) return number * landmarks.SIZE + (landmarks.SIZE - 1) / 2 end

--- Forgets what was worked out of a network's weights: for use after they have changed.
---@param net Module
function landmarks.forget(net) plans[net] = nil end

--- Mean distance of points from the true ones, over the distance of the outer corners of the eyes (NME).
---@param points number[][]  68
---@param truth number[][]  68
---@return number
function landmarks.error(points, truth)
  check_points("landmarks.error", points, landmarks.POINTS)
  check_points("landmarks.error: the truth", truth, landmarks.POINTS)
  local function distance(a, b) return math.sqrt((a[1] - b[1]) ^ 2 + (a[2] - b[2]) ^ 2) end
  local sum = 0
  for i, p in ipairs(points) do sum = sum + distance(p, truth[i]) end
  return sum / #points / distance(truth[37], truth[46])
end

---- Pose ----

-- Where points of a head lie, in millimetres from between the eyes' outer corners: to the picture's right, down, and towards
-- the camera. Width and height are means over faces seen from the front, depth is a grown head's usual; lips and jaw, which move
-- most, are left out but for corners and chin.
landmarks.head = {
  [9] = { 0, 117, 12 }, [18] = { -59, -16, -4 }, [22] = { -19, -20, 18 }, [23] = { 19, -20, 18 }, [27] = { 59, -16, -4 },
  [28] = { 0, 1, 20 }, [31] = { 0, 38, 42 }, [32] = { -13, 45, 22 }, [34] = { 0, 48, 28 }, [36] = { 13, 45, 22 },
  [37] = { -45, 0, 0 }, [40] = { -20, 1, 8 }, [43] = { 20, 1, 8 }, [46] = { 45, 0, 0 }, [49] = { -26, 70, 14 },
  [55] = { 26, 70, 14 },
}
local HEAD, HEAD_POINTS = landmarks.head, { 9, 18, 22, 23, 27, 28, 31, 32, 34, 36, 37, 40, 43, 46, 49, 55 }

--- Solves the symmetric 3 x 3 system m x = v by Cramer's rule.
local function solve(m, v)
  local function determinant(a, b, c)
    return a[1] * (b[2] * c[3] - b[3] * c[2]) - a[2] * (b[1] * c[3] - b[3] * c[1]) + a[3] * (b[1] * c[2] - b[2] * c[1])
  end
  local whole = determinant(m[1], m[2], m[3])
  return { determinant(v, m[2], m[3]) / whole, determinant(m[1], v, m[3]) / whole, determinant(m[1], m[2], v) / whole }
end

--- The head seen from far away: how x and y of the picture follow from the head's three directions, by least squares.
local function projection(points)
  local middle, seen = { 0, 0, 0 }, { 0, 0 }
  for _, i in ipairs(HEAD_POINTS) do
    for k = 1, 3 do middle[k] = middle[k] + HEAD[i][k] / #HEAD_POINTS end
    for k = 1, 2 do seen[k] = seen[k] + points[i][k] / #HEAD_POINTS end
  end
  local m, vx, vy = { { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } }, { 0, 0, 0 }, { 0, 0, 0 }
  for _, i in ipairs(HEAD_POINTS) do
    for a = 1, 3 do
      local p = HEAD[i][a] - middle[a]
      for b = 1, 3 do m[a][b] = m[a][b] + p * (HEAD[i][b] - middle[b]) end
      vx[a], vy[a] = vx[a] + p * (points[i][1] - seen[1]), vy[a] + p * (points[i][2] - seen[2])
    end
  end
  return solve(m, vx), solve(m, vy)
end

local function norm(v) return math.sqrt(v[1] ^ 2 + v[2] ^ 2 + v[3] ^ 2) end

--- How the head is turned, from the points of a face, as if seen from far away.
---@param points number[][]  68
---@return {yaw: number, pitch: number, roll: number}  degrees: yaw is positive where the face looks to the picture's right, pitch
---  where it looks up, roll where it leans against the clock; for faces up to profile
function landmarks.pose(points)
  check_points("landmarks.pose", points, landmarks.POINTS)
  local x, y = projection(points)
  local size_x, size_y = norm(x), norm(y)
  for k = 1, 3 do x[k], y[k] = x[k] / size_x, y[k] / size_y end
  -- the nearest pair at right angles: half of what is missing comes from each
  local slant = (x[1] * y[1] + x[2] * y[2] + x[3] * y[3]) / 2
  local down_x, down_y = x[2] - slant * y[2], y[2] - slant * x[2] -- where the head's chin goes in the picture
  local ahead_x, ahead_y = x[3] - slant * y[3], y[3] - slant * x[3] -- and where it looks
  local roll = math.atan(down_x, down_y)
  ahead_x, ahead_y = ahead_x * math.cos(roll) - ahead_y * math.sin(roll), ahead_x * math.sin(roll) + ahead_y * math.cos(roll)
  local yaw = math.asin(math.max(-1, math.min(1, ahead_x)))
  local pitch = math.atan(-ahead_y, math.max(1e-6, math.cos(yaw)) * math.sqrt(down_x ^ 2 + down_y ^ 2))
  return { yaw = math.deg(yaw), pitch = math.deg(pitch), roll = math.deg(roll) }
end

---- Alignment ----

-- Where eyes, nose and mouth of an upright face are put, in sides of the picture.
local UPRIGHT = { { 0.31, 0.40 }, { 0.69, 0.40 }, { 0.50, 0.60 }, { 0.345, 0.78 }, { 0.655, 0.78 } }

--- The turn, scale and shift that bring one list of points nearest to another, by least squares (Umeyama 1991).
local function similarity(from, to)
  local n, fx, fy, tx, ty = #from, 0, 0, 0, 0
  for i = 1, n do
    fx, fy, tx, ty = fx + from[i][1] / n, fy + from[i][2] / n, tx + to[i][1] / n, ty + to[i][2] / n
  end
  local along, across, size = 0, 0, 0
  for i = 1, n do
    local x, y, u, v = from[i][1] - fx, from[i][2] - fy, to[i][1] - tx, to[i][2] - ty
    along, across, size = along + x * u + y * v, across + x * v - y * u, size + x * x + y * y
  end
  local a, b = along / size, across / size
  return { a, -b, tx - a * fx + b * fy, b, a, ty - b * fx - a * fy }
end

--- The face upright, its eyes and mouth at the same places of the picture for all faces.
---@param t Tensor  u8 C x H x W
---@param points number[][]  five, as detector.detect and landmarks.five give them
---@param size integer|nil  side of the result in pixels (112)
---@return Tensor  u8 C x size x size
---@return number[] map  six numbers, from pixels of the result to those of t
function landmarks.align(t, points, size)
  check_image("landmarks.align", t)
  check_points("landmarks.align", points, 5)
  size = size or 112
  local places, used = {}, {}
  for k, i in ipairs { 1, 2, 4, 5 } do -- a nose is never where a flat face would have it
    places[k], used[k] = { UPRIGHT[i][1] * size - 0.5, UPRIGHT[i][2] * size - 0.5 }, points[i]
  end
  local map = similarity(places, used)
  local angle, middle = math.atan(map[4], map[1]), (size - 1) / 2
  local x, y = map[1] * middle + map[2] * middle + map[3], map[4] * middle + map[5] * middle + map[6]
  return square(t, x, y, size * math.sqrt(map[1] ^ 2 + map[4] ^ 2), angle, size)
end

---- Files ----

--- Writes a network.
---@param net Module
---@param path string
---@param card table|nil  how it was made and how it scores
---@return true|nil, string|nil
function landmarks.save(net, path, card)
  return safetensors.save(path, net:state(), { feral_landmarks = json.encode { points = landmarks.POINTS, card = card } })
end

--- Reads a network that landmarks.save wrote.
---@param path string
---@return Module|nil, table|string|nil  the network in eval mode and its card; or nil and what is wrong
function landmarks.load(path)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  local about = json.decode(metadata.feral_landmarks or "")
  if type(about) ~= "table" or about.points ~= landmarks.POINTS then return nil, path .. ": no network of 68 points" end
  local net = landmarks.new()
  local fits, message = errors.attempt(net.load_state, net, tensors)
  if not fits then return nil, path .. ": " .. message end
  return autograd.no_grad(net.eval, net), about.card
end

return landmarks
