--- detector.lua: where the faces are in a picture, by a small network that looks at all places and sizes at once.
---
---     local net = assert(detector.load("models/faces.safetensors"))
---     for _, face in ipairs(detector.detect(net, image.load("group.jpg"))) do
---       print(face.score, table.unpack(face.box))
---     end
---
--- The network is fully convolutional and has no anchors; its blocks are those of YuNet (Wu, Peng and Yu 2023), depthwise after
--- pointwise convolutions. Each cell of three grids, of 8, 16 and 32 pixels a cell, says how well a face lies there, its box, and
--- where its eyes, nose and mouth are.

local core = require "feral.core.tensor"
local view = require "feral.core.view"
local create = require "feral.core.create"
local scope = require "feral.core.scope"
local autograd = require "feral.tensor.autograd"
local ops = require "feral.tensor.ops"
local nn = require "feral.nn"
local image = require "feral.vision.image"
local safetensors = require "feral.formats.safetensors"
local json = require "feral.formats.json"
local errors = require "feral.base.errors"

local detector = {}

--- Pixels a cell of each grid, and what the network says of a cell: the score before the sigmoid; the middle of the box from the
--- cell's, its width's and height's logarithm; five points from the cell's middle, x and y each: all in cells.
detector.strides = { 8, 16, 32 }
detector.outputs = 15

local LARGEST = detector.strides[#detector.strides]
local RARE = -4 -- the score with which each cell begins
local MEAN, STD = 0.5, 0.25 -- of pixels, as the network sees them

---- The network ----

--- Pointwise, then depthwise.
local function unit(from, to)
  return nn.Sequential(nn.Conv2d(from, to, 1), nn.DepthwiseConv2d(to, 3, { padding = 1, bias = false }), nn.BatchNorm(to),
    nn.ReLU())
end

--- To half as many cells a side.
local function down(from, to)
  return nn.Sequential(nn.DepthwiseConv2d(from, 3, { stride = 2, padding = 1 }), nn.Conv2d(from, to, 1, { bias = false }),
    nn.BatchNorm(to), nn.ReLU())
end

--- The same by a whole convolution, where channels are few.
local function dense(from, to)
  return nn.Sequential(nn.Conv2d(from, to, 3, { stride = 2, padding = 1, bias = false }), nn.BatchNorm(to), nn.ReLU())
end

---@class FaceDetector : Module
local FaceDetector = nn.class "FaceDetector"

---@param width integer|nil  channels of the grids (64)
function FaceDetector:init(width)
  local _guard <close> = autograd.no_grad()
  width = width or 64
  if math.type(width) ~= "integer" or width < 4 or width % 4 ~= 0 then
    errors.raise("FaceDetector: the width must be a multiple of 4, got %s", tostring(width))
  end
  local half, quarter = width // 2, width // 4
  self:add_child("stem", nn.Sequential(dense(3, quarter), dense(quarter, half), unit(half, half)))
  self:add_child("stage8", nn.Sequential(down(half, width), unit(width, width), unit(width, width)))
  self:add_child("stage16", nn.Sequential(down(width, width), unit(width, width), unit(width, width)))
  self:add_child("stage32", nn.Sequential(down(width, width), unit(width, width), unit(width, width)))
  self:add_child("up", nn.Upsample(2))
  self:add_child("pixels", nn.Pixels())
  for _, stride in ipairs(detector.strides) do
    self:add_child("merge" .. stride, unit(width, width))
    local says = nn.DepthwiseConv2d(detector.outputs, 3, { padding = 1 })
    says.bias[1] = RARE
    self:add_child("head" .. stride, nn.Sequential(unit(width, width), nn.Conv2d(width, detector.outputs, 1), says))
  end
end

---@param x Tensor  N x 3 x H x W, H and W multiples of 32, as detector.batch makes it
---@return Tensor   N x cells x 15, the cells of the grids of 8, 16 and 32 pixels one after the other, each row by row
--- Raises when H or W is no multiple of 32.
function FaceDetector:forward(x)
  if x:size(3) % LARGEST ~= 0 or x:size(4) % LARGEST ~= 0 then
    errors.raise("FaceDetector: input is %s, height and width must be multiples of %d", table.concat(x.shape, "x"), LARGEST)
  end
  local c8 = self.stage8(self.stem(x))
  local c16 = self.stage16(c8)
  local p32 = self.merge32(self.stage32(c16))
  local p16 = self.merge16(c16 + self.up(p32))
  local p8 = self.merge8(c8 + self.up(p16))
  return self.pixels(self.head8(p8), self.head16(p16), self.head32(p32))
end

--- A network with fresh weights.
---@param width integer|nil  channels of the grids (64)
---@return Module
function detector.new(width) return FaceDetector(width) end

--- Pictures as the network takes them.
---@param t Tensor  u8 N x 3 x H x W or 3 x H x W
---@return Tensor  f32 N x 3 x H x W
function detector.batch(t)
  local batch = image.normalize(t, { mean = MEAN, std = STD })
  return batch:dim() == 3 and view.unsqueeze(batch, 1) or batch
end

--- How many cells there are for a picture.
---@param height integer
---@param width integer
---@return integer
function detector.count_cells(height, width)
  local count = 0
  for _, stride in ipairs(detector.strides) do count = count + (height // stride) * (width // stride) end
  return count
end

--- A cell's middle, in pixels from the picture's edge, and the pixels of a cell.
---@param number integer  from 1, in the network's order
---@param height integer  of the picture
---@param width integer
---@return number x
---@return number y
---@return integer stride
function detector.cell(number, height, width)
  local at = number - 1
  for _, stride in ipairs(detector.strides) do
    local columns, rows = width // stride, height // stride
    if at < rows * columns then return (at % columns + 0.5) * stride, (at // columns + 0.5) * stride, stride end
    at = at - rows * columns
  end
  errors.raise("detector.cell: there is no cell %d in %d x %d", number, height, width)
end

---- From what it says to faces ----

--- How much two boxes overlap: the area that both cover over the area that either covers (intersection over union), 0 to 1.
---@param a number[]  {x, y, width, height}
---@param b number[]
---@return number
local function overlap(a, b)
  local w = math.min(a[1] + a[3], b[1] + b[3]) - math.max(a[1], b[1])
  local h = math.min(a[2] + a[4], b[2] + b[4]) - math.max(a[2], b[2])
  if w <= 0 or h <= 0 then return 0 end
  return w * h / (a[3] * a[4] + b[3] * b[4] - w * h)
end

--- Intersection over union of two boxes {x, y, width, height}: 0 where they do not touch, 1 where they are the same.
detector.overlap = overlap

--- The best of faces that lie on each other: those with a better one that overlaps them by more than 'most' are left out.
---@param faces table[]  best first
---@param most number
---@return table[]
function detector.suppress(faces, most)
  local kept = {}
  for _, f in ipairs(faces) do
    local free = true
    for _, better in ipairs(kept) do
      if overlap(f.box, better.box) > most then free = false break end
    end
    if free then kept[#kept + 1] = f end
  end
  return kept
end

--- One cell's outputs as a face in pixels.
local function face_of(row, x, y, stride)
  local w, h = stride * math.exp(math.min(row[4], 8)), stride * math.exp(math.min(row[5], 8))
  local f = {
    box = { x + row[2] * stride - w / 2, y + row[3] * stride - h / 2, w, h }, score = 1 / (1 + math.exp(-row[1])), points = {},
  }
  for k = 1, 5 do f.points[k] = { x + row[4 + 2 * k] * stride, y + row[5 + 2 * k] * stride } end
  return f
end

local CANDIDATES = 500 -- of the best cells that are looked at

--- The faces in one picture's output.
---@param output Tensor  cells x 15
---@param height integer  of the picture that the network saw
---@param width integer
---@param options {score: number, overlap: number, most: integer}|nil  least score (0.5); faces that overlap a better one by more
---  (0.4) are left out; most: so many at most (100)
---@return table[]  {box = {x, y, w, h}, score, points = five {x, y}}, best first
function detector.decode(output, height, width, options)
  local o = errors.check_options("detector.decode", options, { score = 0.5, overlap = 0.4, most = 100 })
  local cells = detector.count_cells(height, width)
  local open <close> = scope.scope() -- luacheck: ignore
  local scores, places = ops.topk(ops.reshape(ops.narrow(output, 2, 1, 1), -1), math.min(CANDIDATES, cells))
  scores = create.totable(scores)
  local rows, at = create.totable(ops.index_select(output, 1, places)), create.totable(places)
  local least, faces = -math.log(1 / o.score - 1), {}
  for i, row in ipairs(rows) do
    if scores[i] < least then break end
    faces[i] = face_of(row, detector.cell(at[i], height, width))
  end
  faces = detector.suppress(faces, o.overlap)
  return table.move(faces, 1, math.min(#faces, o.most), 1, {})
end

local function rounded_up(n) return (n + LARGEST - 1) // LARGEST * LARGEST end

--- The picture with its longest side at most so many pixels, on a canvas of a size that the network takes; and what it was
--- scaled by.
local function fitted(t, longest)
  local h, w = t:size(2), t:size(3)
  local scale = math.min(1, longest / math.max(h, w))
  if scale < 1 then t = image.resize(t, math.max(1, math.floor(h * scale + 0.5)), math.max(1, math.floor(w * scale + 0.5))) end
  local canvas = view.as_image(create.full({ 1, 3, rounded_up(t:size(2)), rounded_up(t:size(3)) }, 0, "u8"))
  local inside = view.narrow(view.narrow(view.select_first(canvas, 1), 2, 1, t:size(2)), 3, 1, t:size(3))
  ops.copy_(inside, t:size(1) == 1 and view.expand(t, { 3, t:size(2), t:size(3) }) or t)
  return canvas, t:size(3) / w, t:size(2) / h
end

local SIZES = 16 -- of pictures for which a plan is kept
local plans = setmetatable({}, { __mode = "k" }) -- by network: plans by size, and how many

local function plan_for(net, x)
  local key, known = table.concat(x.shape, "x"), plans[net]
  if not known or known.count >= SIZES and not known[key] then
    known = { count = 0 }
    plans[net] = known
  end
  if not known[key] then known[key], known.count = net:compile(x), known.count + 1 end
  return known[key]
end

--- The faces in a picture.
---@param net Module  from detector.load
---@param t Tensor  u8 C x H x W, C 1 or 3
---@param options {longest: integer, score: number, overlap: number, most: integer}|nil  longest: a picture's longer side is
---  brought down to so many pixels (640); the others as for detector.decode
---@return table[]  {box = {x, y, w, h}, score, points = five {x, y}: eyes, nose, corners of the mouth, from the picture's left},
---  in pixels of t, best first
--- The network's weights are taken to stay as they are at the first call; detector.forget(net) makes it look again.
function detector.detect(net, t, options)
  local o = errors.check_options("detector.detect", options, { longest = 640, score = 0.5, overlap = 0.4, most = 100 })
  if not core.is_tensor(t) or t:dim() ~= 3 or t.dtype ~= "u8" then
    errors.raise("detector.detect: a u8 image C x H x W expected, got %s", core.is_tensor(t)
      and ("%s %s"):format(t.dtype, table.concat(t.shape, "x")) or type(t))
  end
  local open <close> = scope.scope() -- luacheck: ignore
  local canvas, sx, sy = fitted(t, o.longest)
  local x = detector.batch(canvas)
  local output = view.select_first(plan_for(net, x)(x), 1)
  local faces = detector.decode(output, x:size(3), x:size(4), { score = o.score, overlap = o.overlap, most = o.most })
  for _, f in ipairs(faces) do
    f.box = { f.box[1] / sx, f.box[2] / sy, f.box[3] / sx, f.box[4] / sy }
    for k, p in ipairs(f.points) do f.points[k] = { p[1] / sx, p[2] / sy } end
  end
  return faces
end

--- Forgets what was worked out of a network's weights: for use after they have changed.
---@param net Module
function detector.forget(net) plans[net] = nil end

---- Files ----

--- Writes a network.
---@param net Module
---@param path string
---@param card table|nil  how it was made and how it scores
---@return true|nil, string|nil
function detector.save(net, path, card)
  return safetensors.save(path, net:state(), { feral_detector = json.encode { width = net.arguments[1] or 64, card = card } })
end

--- Reads a network that detector.save wrote.
---@param path string
---@return Module|nil, table|string|nil  the network in eval mode and its card; or nil and what is wrong
function detector.load(path)
  local tensors, metadata = safetensors.load(path)
  if not tensors then return nil, metadata end
  local about = json.decode(metadata.feral_detector or "")
  if type(about) ~= "table" then return nil, path .. ": no face detector" end
  local made, net = errors.attempt(FaceDetector, about.width)
  if not made then return nil, path .. ": " .. net end
  local fits, message = errors.attempt(net.load_state, net, tensors)
  if not fits then return nil, path .. ": " .. message end
  return autograd.no_grad(net.eval, net), about.card
end

return detector
