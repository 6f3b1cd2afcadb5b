-- Pictures with faces whose boxes and points are known, composed of parts of others: photographs of one face each (faces68.lua),
-- FER2013's small faces, and what is in neither a face.
--
-- A scene is a background and faces laid onto it at any size and angle, each with more or less of what was around it; then things
-- that hide parts of faces; then light, blur, noise and compression for the whole. All of it is drawn from (seed, index) alone.

local feral = require "feral"
local tensor, image, face, steps, data = feral.tensor, feral.image, feral.face, feral.steps, feral.data
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local detector, landmarks = feral.detector, feral.landmarks
local faces68 = dofile(here .. "/faces68.lua")

local scenes = {}

local LEAST_SEEN = 0.5 -- part of a face that must be inside the picture for it to count as one
local LEAST_SIZE = 9   -- pixels; smaller ones are neither asked for nor refused
local DRAWN_BOX = { 0.23, 0.19, 0.54, 0.69 } -- the same in drawn faces of usual size and place
local FER_BOX = { 0.10, 0.02, 0.81, 0.98 } -- where the face is in FER2013's pictures: x, y, width, height of the whole

---- The parts ----

local function halved(t)
  return image.resize(t, math.max(1, t:size(2) // 2), math.max(1, t:size(3) // 2))
end

--- The picture at all sizes from its own down by halves, so that a small copy has seen all pixels of the large one.
local function pyramid(t)
  local levels = { t:keep() }
  while math.min(t:size(2), t:size(3)) >= 32 and #levels < 5 do
    t = halved(t)
    levels[#levels + 1] = t:keep()
  end
  return levels
end

local function read_photographs(dir, options)
  local photographs = assert(faces68.read(dir, options))
  for _, p in ipairs(photographs) do
    p.levels, p.outline = pyramid(p.image), faces68.outline(p.points)
    p.box, p.five, p.image = faces68.face_box(p.outline), landmarks.five(p.points), nil
  end
  return photographs
end

---@class Parts  what scenes are made of
local Parts = {}
Parts.__index = Parts

--- Reads what scenes are made of.
---@param options {faces68: string, fer2013: string|nil, held_out: boolean, most: integer|nil, drawn: number|nil}  two folders;
---  held_out: persons and pictures that training does not see; most: of photographs; drawn: this part of the faces is (0.05)
---@return Parts
function scenes.read(options)
  local photographs = read_photographs(options.faces68, { held_out = options.held_out, most = options.most })
  local parts = { photographs = photographs, drawn = options.drawn or 0.05 }
  if options.fer2013 then
    local sets = assert(data.fer2013(options.fer2013))
    parts.small = (options.held_out and sets.test or sets.train).images
  end
  return setmetatable(parts, Parts)
end

---- Background ----

--- A rectangle of a photograph beside its face: image, or nil where there is no room.
local function empty_part(parts, dice)
  local p = dice:pick(parts.photographs)
  local t = p.levels[1]
  local h, w = t:size(2), t:size(3)
  local x, y, bw, bh = table.unpack(p.box)
  local margin = 0.12 * bw
  local sides = {
    { 0, 0, x - margin, h }, { x + bw + margin, 0, w - x - bw - margin, h }, { 0, 0, w, y - margin },
    { 0, y + bh + margin, w, h - y - bh - margin },
  }
  local side = dice:pick(sides)
  local left, top = math.max(0, math.floor(side[1])), math.max(0, math.floor(side[2]))
  local width, height = math.min(w - left, math.floor(side[3])), math.min(h - top, math.floor(side[4]))
  if width < 16 or height < 16 then return nil end
  local cut_w = math.max(12, math.floor(width * dice:between(0.5, 1)))
  local cut_h = math.max(12, math.floor(height * dice:between(0.5, 1)))
  left, top = left + math.floor(dice:between(0, width - cut_w + 1)), top + math.floor(dice:between(0, height - cut_h + 1))
  return image.crop(t, top + 1, left + 1, cut_h, cut_w)
end

--- A small part of a face, to be shown so large that it is none.
local function part_of_face(parts, dice)
  local p = dice:pick(parts.photographs)
  local t, size = p.levels[1], math.floor(p.box[3] * dice:between(0.2, 0.35))
  if size < 12 then return nil end
  local left = math.floor(p.box[1] + dice:between(0, p.box[3] - size))
  local top = math.floor(p.box[2] + dice:between(0, p.box[4] - size))
  if left < 0 or top < 0 or left + size > t:size(3) or top + size > t:size(2) then return nil end
  return image.crop(t, top + 1, left + 1, size, size)
end

--- Colours that run into each other.
local function gradient(dice)
  local k, numbers = dice:pick { 1, 2, 2, 3, 5, 9 }, {}
  local middle, spread = dice:between(20, 235), dice:between(5, 120)
  for i = 1, 3 * k * k do numbers[i] = math.max(0, math.min(255, math.floor(dice:around(middle, spread)))) end
  return tensor(numbers, "u8"):reshape(3, k, k)
end

local function tile(parts, dice)
  local kind = dice:between(0, 1)
  local part = kind < 0.72 and empty_part(parts, dice) or kind > 0.92 and part_of_face(parts, dice)
  return part or gradient(dice)
end

local function random_gain(dice, spread)
  local all = 2 ^ dice:around(0, spread)
  return { all * dice:around(1, 0.15), all * dice:around(1, 0.15), all * dice:around(1, 0.15) }
end

--- Fills a rectangle of the canvas; what does not have its proportions is cut, or stretched.
local function fill(canvas, part, left, top, width, height, dice, feather)
  local sx, sy = part:size(3) / width, part:size(2) / height
  if dice:chance(0.6) then
    local w, h = math.max(1, math.floor(width * math.min(sx, sy))), math.max(1, math.floor(height * math.min(sx, sy)))
    part = image.crop(part, 1 + (part:size(2) - h) // 2, 1 + (part:size(3) - w) // 2, h, w)
    sx, sy = w / width, h / height
  end
  local mirror = dice:chance(0.5)
  local map = { mirror and -sx or sx, 0, (mirror and (left + width) or -left) * sx + (mirror and -0.5 * sx or 0.5 * sx) - 0.5,
    0, sy, (0.5 - top) * sy - 0.5 }
  image.paste(canvas, part, map, { feather = feather * math.min(part:size(2), part:size(3)),
    gain = random_gain(dice, 0.4), offset = dice:around(0, 20) })
end

local function lay_background(canvas, parts, dice)
  local height, width = canvas:size(2), canvas:size(3)
  fill(canvas, tile(parts, dice), 0, 0, width, height, dice, 0)
  local feather = dice:chance(0.5) and 0 or dice:between(0, 0.3)
  for _ = 1, dice:pick { 0, 2, 4, 8, 12 } do
    local w, h = width * dice:between(0.15, 0.7), height * dice:between(0.15, 0.7)
    local left, top = dice:between(-w / 2, width - w / 2), dice:between(-h / 2, height - h / 2)
    fill(canvas, tile(parts, dice), left, top, w, h, dice, feather)
  end
end

---- Faces ----

--- The map from the canvas to a picture that shows its point (fx, fy) at (x, y), turned, and scaled by 'scale'.
local function placing(fx, fy, x, y, scale, degrees, mirror)
  local c, s, m = math.cos(math.rad(degrees)) / scale, math.sin(math.rad(degrees)) / scale, mirror and -1 or 1
  local a, b, d, e = m * c, m * s, -s, c
  return { a, b, fx - a * x - b * y, d, e, fy - d * x - e * y }
end

--- The same for a picture that was made smaller by so many halves.
local function at_level(map, from, to)
  local fx, fy = to:size(3) / from:size(3), to:size(2) / from:size(2)
  return { map[1] * fx, map[2] * fx, (map[3] + 0.5) * fx - 0.5, map[4] * fy, map[5] * fy, (map[6] + 0.5) * fy - 0.5 }
end

local function level_for(levels, scale)
  local level = 1
  while scale < 0.6 and levels[level + 1] do level, scale = level + 1, scale * 2 end
  return levels[level]
end

local swapped = { 2, 1, 3, 5, 4 }

--- What is known of a face that lies on the canvas through a map.
local function mark(map, outline, five, mirror)
  map = steps.map(map)
  local marks = { box = (five and faces68.face_box or faces68.box)(map:points(outline)) }
  if five then
    local points = map:points(five)
    marks.points = {}
    for i = 1, 5 do marks.points[i] = points[mirror and swapped[i] or i] end
  end
  return marks
end

local function random_angle(dice)
  return dice:chance(0.65) and dice:around(0, 14) or dice:around(0, 45)
end

--- How much of box a lies in box b.
local function covered(a, b)
  local w = math.min(a[1] + a[3], b[1] + b[3]) - math.max(a[1], b[1])
  local h = math.min(a[2] + a[4], b[2] + b[4]) - math.max(a[2], b[2])
  return w > 0 and h > 0 and w * h / (a[3] * a[4]) or 0
end

--- True where a whole picture, laid on through a map, would hide faces that are there already.
local function hides_faces(faces, whole, map)
  local w, h = whole:size(3), whole:size(2)
  local box = faces68.box(steps.map(map):points { { 0, 0 }, { w, 0 }, { 0, h }, { w, h } })
  for _, f in ipairs(faces) do
    if covered(f.box, box) > 0.08 then return true end
  end
  return false
end

--- A photograph, or the part of it around its face, so that the face is 'size' wide with its middle at (x, y).
local function lay_photograph(canvas, parts, dice, x, y, size, faces)
  local p = dice:pick(parts.photographs)
  local scale, degrees, mirror = size / p.box[3], random_angle(dice), dice:chance(0.5)
  local map = placing(p.box[1] + p.box[3] / 2, p.box[2] + p.box[4] / 2, x, y, scale, degrees, mirror)
  local marks = mark(map, p.outline, p.five, mirror)
  local source, whole = level_for(p.levels, scale), p.levels[1]
  local options = { gain = random_gain(dice, 0.5), offset = dice:around(0, 25) }
  local kind = dice:between(0, 1)
  if kind < 0.55 and hides_faces(faces, whole, map) then kind = dice:between(0.55, 1) end
  map = at_level(map, whole, source)
  if kind < 0.55 then
    options.feather = dice:chance(0.4) and 0 or dice:between(0, 0.12) * source:size(3)
  else
    local more = kind < 0.8 and dice:between(0.3, 0.8) or dice:between(0.25, 0.45)
    options.shape = kind < 0.8 and "rectangle" or "ellipse"
    local f = source:size(3) / whole:size(3)
    local left = math.max(0, math.floor(f * (p.box[1] - more / 2 * p.box[3])))
    local top = math.max(0, math.floor(f * (p.box[2] - more / 2 * p.box[4])))
    local right = math.min(source:size(3), math.ceil(f * (p.box[1] + (1 + more / 2) * p.box[3])))
    local bottom = math.min(source:size(2), math.ceil(f * (p.box[2] + (1 + more / 2) * p.box[4])))
    source = image.crop(source, top + 1, left + 1, bottom - top, right - left)
    map[3], map[6] = map[3] - left, map[6] - top
    options.feather = dice:between(0, 0.15) * source:size(3)
  end
  image.paste(canvas, source, map, options)
  return marks
end

local function corners(box)
  local x, y, w, h = table.unpack(box)
  -- an oval's box: its corners are not part of the face, so they do not count when it is turned
  local points = {}
  for k = 0, 15 do
    points[k + 1] = { x + w / 2 * (1 + math.cos(k * math.pi / 8)), y + h / 2 * (1 + math.sin(k * math.pi / 8)) }
  end
  return points
end

--- A gray picture of one face, whose eyes and mouth are not known: 'part' says where the face is, in sides of the picture.
local function lay_gray(canvas, t, part, dice, x, y, size)
  local side = t:size(3)
  local box = { part[1] * side, part[2] * side, part[3] * side, part[4] * side }
  local scale, degrees, mirror = size / box[3], dice:around(0, 30), dice:chance(0.5)
  local map = placing(box[1] + box[3] / 2, box[2] + box[4] / 2, x, y, scale, degrees, mirror)
  local marks = mark(map, corners(box), nil, mirror)
  local levels = { t, scale < 0.6 and halved(t) or nil }
  local source = level_for(levels, scale)
  local tint = dice:chance(0.3) and { 1, 1, 1 } or { 1.15, dice:between(0.8, 1), dice:between(0.6, 0.9) }
  local all = 2 ^ dice:around(0, 0.5)
  image.paste(canvas, source, at_level(map, t, source), {
    shape = dice:chance(0.6) and "ellipse" or "rectangle", feather = dice:between(0, 0.2) * source:size(3),
    gain = { all * tint[1], all * tint[2], all * tint[3] }, offset = dice:around(0, 20),
  })
  return marks
end

--- One of FER2013's faces.
local function lay_small(canvas, parts, dice, x, y, size)
  local t = parts.small[1 + math.floor(dice:between(0, parts.small:size(1)))]
  return lay_gray(canvas, t, FER_BOX, dice, x, y, size)
end

--- A drawn face, seen nearly from the front.
local function lay_drawn(canvas, _, dice, x, y, size)
  local look = face.random_look(dice)
  look.roll, look.shift_x, look.shift_y, look.scale, look.yaw = 0, 0, 0, 1, dice:around(0, 0.2)
  local side = math.floor(math.max(32, math.min(160, 1.8 * size)))
  local t = face.render(face.random_expression(dice, dice:pick(face.names), dice:between(0, 1)), look, side)
  return lay_gray(canvas, t, DRAWN_BOX, dice, x, y, size)
end

--- A place where a face of this size with what is around it leaves the others to be seen; nil where none is found.
local function find_room(canvas, faces, dice, size)
  local height, width = canvas:size(2), canvas:size(3)
  for _ = 1, 12 do
    local x, y = dice:between(0, width), dice:between(0, height)
    local spread, free = 0.95 * size, true
    local here_box = { x - spread, y - spread, 2 * spread, 2 * spread }
    local face_box = { x - size / 2, y - 0.6 * size, size, 1.2 * size }
    for _, f in ipairs(faces) do free = free and covered(f.box, here_box) < 0.08 and covered(face_box, f.box) < 0.1 end
    if free then return x, y end
  end
end

--- A photograph that fills the canvas.
local function lay_frame(canvas, parts, dice, faces)
  local height, width = canvas:size(2), canvas:size(3)
  local p = dice:pick(parts.photographs)
  local whole, mirror = p.levels[1], dice:chance(0.5)
  local scale = math.max(width / whole:size(3), height / whole:size(2)) * (1 + dice:between(0, 0.8) ^ 2)
  local left = dice:between(0, math.max(0, whole:size(3) - width / scale))
  local top = dice:between(0, math.max(0, whole:size(2) - height / scale))
  local map = placing(left + width / scale / 2, top + height / scale / 2, width / 2, height / 2, scale, 0, mirror)
  faces[#faces + 1] = mark(map, p.outline, p.five, mirror)
  local source = level_for(p.levels, scale)
  image.paste(canvas, source, at_level(map, whole, source), { gain = random_gain(dice, 0.4), offset = dice:around(0, 20) })
end

local function lay_face(canvas, parts, dice, faces, size)
  local x, y = find_room(canvas, faces, dice, size)
  if not x then return end
  local small = parts.small and size < 90 and dice:chance(0.35)
  local lay = dice:chance(parts.drawn) and lay_drawn or small and lay_small or lay_photograph
  local marks = lay(canvas, parts, dice, x, y, size, faces)
  faces[#faces + 1] = marks
end

--- Something in front of a face.
local function hide_part(canvas, parts, dice, marks)
  local x, y, w, h = table.unpack(marks.box)
  local part = dice:chance(0.5) and empty_part(parts, dice) or gradient(dice)
  local kind = dice:pick { "low", "side", "somewhere", "eyes" }
  local box = { x + dice:between(-0.2, 0.9) * w, y + dice:between(-0.2, 0.9) * h, 0.35 * w, 0.35 * h }
  if kind == "low" then box = { x - 0.1 * w, y + dice:between(0.6, 0.8) * h, 1.2 * w, 0.6 * h } end
  if kind == "side" then box = { dice:chance(0.5) and x - 0.3 * w or x + 0.7 * w, y - 0.1 * h, 0.6 * w, 1.2 * h } end
  if kind == "eyes" then
    part, box = tensor({ 10, 10, 14 }, "u8"):reshape(3, 1, 1), { x + 0.08 * w, y + 0.3 * h, 0.84 * w, 0.2 * h }
  end
  fill(canvas, part, box[1], box[2], box[3], box[4], dice, dice:between(0, 0.1))
end

---- The whole ----

local weathers = {
  steps.list { steps.brightness(0.25), steps.contrast(0.35), steps.gamma(0.35) },
  steps.list { steps.light(0.5), steps.noise(0.06) },
  steps.list { steps.blur(1.6), steps.noise(0.03) },
  steps.list { steps.brightness(0.3), steps.blur(1.0), steps.contrast(0.3) },
}

local function weather(canvas, dice, seed, index)
  if dice:chance(0.15) then canvas = image.gray(canvas):expand(3, canvas:size(2), canvas:size(3)):contiguous() end
  if dice:chance(0.6) then
    canvas = assert(dice:pick(weathers):apply(canvas, { training = true, seed = seed, epoch = 1, index = index }))
  end
  if dice:chance(0.5) then
    local bytes = image.encode(canvas, "jpeg", { quality = math.floor(dice:between(25, 95)) })
    canvas = assert(image.decode(bytes, { channels = 3 }))
  end
  return canvas
end

--- Cuts a face's box to the picture. Faces of which too little is seen are marked: they are neither right nor wrong.
local function clip(marks, height, width)
  local x, y, w, h = table.unpack(marks.box)
  local left, top = math.max(0, x), math.max(0, y)
  local right, bottom = math.min(width, x + w), math.min(height, y + h)
  if right <= left or bottom <= top then return nil end
  marks.ignore = (right - left) * (bottom - top) < LEAST_SEEN * w * h or math.min(right - left, bottom - top) < LEAST_SIZE
    or nil
  marks.box = { left, top, right - left, bottom - top }
  return marks
end

--- A random scene.
---@param parts Parts
---@param height integer
---@param width integer
---@param seed integer
---@param index integer
---@param options {least: number, most: number}|nil  widths of faces: 10 pixels to 0.9 of the smaller side
---@return Tensor  u8 3 x height x width
---@return table[] faces  each {box = {x, y, w, h}, points = five {x, y} or nil, ignore = true where it does not count}
function scenes.compose(parts, height, width, seed, index, options)
  local open <close> = tensor.scope()
  local dice = face.dice(seed, index)
  local canvas, marks = tensor.zeros(3, height, width, "u8"), {}
  canvas = image.flip(canvas) -- channels last
  if dice:chance(0.3) then lay_frame(canvas, parts, dice, marks) else lay_background(canvas, parts, dice) end
  local least = options and options.least or 10
  local most = options and options.most or 0.9 * math.min(height, width)
  local sizes = {}
  for i = 1, dice:pick { 0, 1, 1, 2, 3, 4, 5, 6, 8, 10 } do
    sizes[i] = least * (most / least) ^ (i == 1 and dice:between(0, 1) or dice:between(0, 0.75))
  end
  table.sort(sizes, function(a, b) return a > b end)
  for _, size in ipairs(sizes) do lay_face(canvas, parts, dice, marks, size) end
  for _, m in ipairs(marks) do
    if dice:chance(0.15) then hide_part(canvas, parts, dice, m) end
  end
  local faces = {}
  for _, m in ipairs(marks) do faces[#faces + 1] = clip(m, height, width) end
  return open:leave(weather(canvas, dice, seed, index)), faces
end

---- Scoring ----

--- The found face's counterpart among a scene's: the one that it overlaps most, and by how much.
local function counterpart(found, faces)
  local best, most = nil, 0
  for _, f in ipairs(faces) do
    local overlap = detector.overlap(found.box, f.box)
    if overlap > most and not f.taken then best, most = f, overlap end
  end
  return best, most
end

--- How far the points are off, in widths of the face.
local function points_off(found, f)
  local sum = 0
  for k = 1, 5 do
    local dx, dy = found.points[k][1] - f.points[k][1], found.points[k][2] - f.points[k][2]
    sum = sum + math.sqrt(dx * dx + dy * dy)
  end
  return sum / 5 / f.box[3]
end

--- Sorts out what was found in one scene: each face that was found is {score, right}; what lies on a face that does not count
--- is left out.
local function judge(found, faces, least, sum)
  for _, f in ipairs(faces) do f.taken = nil end
  table.sort(found, function(a, b) return a.score > b.score end)
  for _, box in ipairs(found) do
    local f, overlap = counterpart(box, faces)
    local right = f ~= nil and overlap >= least and not f.ignore
    local on_ignored = false
    for _, other in ipairs(faces) do
      on_ignored = on_ignored or other.ignore and covered(box.box, other.box) > 0.5 or false
    end
    if right then
      f.taken = true
      if f.points and box.points then
        sum.points, sum.with_points = sum.points + points_off(box, f), sum.with_points + 1
      end
    end
    if right or not on_ignored then sum.found[#sum.found + 1] = { score = box.score, right = right } end
  end
end

--- How well faces were found in scenes.
---@param results table[]  each {found = faces with box and score, faces = those of the scene}
---@param options {overlap: number, rates: number[]}|nil  intersection over union from which a box is right (0.5); false boxes a
---  scene at which recall is read off (0.01, 0.1, 1)
---@return table  {recall, threshold: by rate, points: their mean error in widths of the face, faces: their number}
function scenes.score(results, options)
  local rates = options and options.rates or { 0.01, 0.1, 1 }
  local sum = { found = {}, points = 0, with_points = 0, faces = 0 }
  for _, result in ipairs(results) do
    judge(result.found, result.faces, options and options.overlap or 0.5, sum)
    for _, f in ipairs(result.faces) do sum.faces = sum.faces + (f.ignore and 0 or 1) end
  end
  table.sort(sum.found, function(a, b) return a.score > b.score end)
  local score = { recall = {}, threshold = {}, points = sum.points / math.max(1, sum.with_points), faces = sum.faces }
  for _, rate in ipairs(rates) do
    local right, wrong, threshold = 0, 0, 1
    for _, box in ipairs(sum.found) do
      if box.right then right = right + 1 else wrong = wrong + 1 end
      if wrong > rate * #results then break end
      threshold = box.score
    end
    score.recall[rate], score.threshold[rate] = right / math.max(1, sum.faces), threshold
  end
  return score
end

scenes.faces68 = faces68

return scenes
