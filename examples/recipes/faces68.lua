-- A set of photographs with 68 points a face, in the order of 300-W (Sagonas et al. 2013), as the recipes read it:
-- DIR/points.csv has the columns image, person, width, height, x1, y1 ... x68, y68 in pixels; DIR/images/ the files.

local feral = require "feral"
local csv, image = feral.csv, feral.image

local faces68 = { POINTS = 68 }

local EYES = { { 37, 42 }, { 43, 48 } } -- first and last point of each, the one on the picture's left first
local NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT = 31, 49, 55
local BROWS = { 18, 27 }
local FOREHEAD = 0.66 -- it ends so far above the brows, in distances from eyes to mouth
local EARS = 0.03     -- the part of the points' width that a box leaves out on each side, as WIDER FACE's do

--- The point with which each changes places in a mirrored picture.
faces68.mirrored = {}
for _, span in ipairs { { 1, 17 }, { 18, 27 }, { 32, 36 }, { 49, 55 }, { 56, 60 }, { 61, 65 }, { 66, 68 } } do
  for i = span[1], span[2] do faces68.mirrored[i] = span[1] + span[2] - i end
end
for i = 28, 31 do faces68.mirrored[i] = i end
for i, j in pairs { [37] = 46, [38] = 45, [39] = 44, [40] = 43, [41] = 48, [42] = 47 } do
  faces68.mirrored[i], faces68.mirrored[j] = j, i
end

local function mean(points, first, last)
  local x, y = 0, 0
  for i = first, last do x, y = x + points[i][1], y + points[i][2] end
  return { x / (last - first + 1), y / (last - first + 1) }
end

--- The eyes' centres, the tip of the nose and the corners of the mouth, from the picture's left.
---@param points number[][]  68
---@return number[][]  5
function faces68.five(points)
  return { mean(points, table.unpack(EYES[1])), mean(points, table.unpack(EYES[2])), points[NOSE_TIP], points[MOUTH_LEFT],
    points[MOUTH_RIGHT] }
end

--- All points, and some where the hair begins: what a face's box goes around.
function faces68.outline(points)
  local five, outline = faces68.five(points), table.move(points, 1, #points, 1, {})
  local up_x = (five[1][1] + five[2][1] - five[4][1] - five[5][1]) / 2
  local up_y = (five[1][2] + five[2][2] - five[4][2] - five[5][2]) / 2
  for i = BROWS[1], BROWS[2] do
    outline[#outline + 1] = { points[i][1] + FOREHEAD * up_x, points[i][2] + FOREHEAD * up_y }
  end
  return outline
end

--- The box around points: {x, y, width, height}.
function faces68.box(points)
  local left, top, right, bottom = math.huge, math.huge, -math.huge, -math.huge
  for _, p in ipairs(points) do
    left, right, top, bottom = math.min(left, p[1]), math.max(right, p[1]), math.min(top, p[2]), math.max(bottom, p[2])
  end
  return { left, top, right - left, bottom - top }
end

--- The face's box, from its outline: {x, y, width, height}.
function faces68.face_box(outline)
  local x, y, w, h = table.unpack(faces68.box(outline))
  return { x + EARS * w, y, w * (1 - 2 * EARS), h }
end

local function read_row(dir, cells)
  local points = {}
  for i = 1, faces68.POINTS do points[i] = { tonumber(cells[3 + 2 * i]), tonumber(cells[4 + 2 * i]) } end
  return { path = dir .. "/images/" .. cells[1], person = math.tointeger(tonumber(cells[2])), points = points }
end

--- Reads the set.
---@param dir string
---@param options {held_out: boolean, most: integer}|nil  held_out: only persons whose number is a multiple of ten, else all
---  others; most: so many pictures at most, spread over the persons
---@return table[]|nil  each {image = u8 3 x H x W, person, points}
---@return string|nil  message
function faces68.read(dir, options)
  local rows, number = {}, 0
  local lines, message = csv.lines(dir .. "/points.csv")
  if not lines then return nil, message end
  for _, line in lines do
    number = number + 1
    if number > 1 then
      local row = read_row(dir, assert(csv.split(line)))
      if (row.person % 10 == 0) == (options.held_out or false) then rows[#rows + 1] = row end
    end
  end
  local stride, chosen = options.most and math.max(1, #rows / options.most) or 1, {}
  for k = 1, #rows, stride do
    local row = rows[math.floor(k)]
    row.image, message = image.load(row.path, { channels = 3 })
    if not row.image then return nil, message end
    chosen[#chosen + 1] = row
  end
  return chosen
end

return faces68
