-- A set of photographs with 68 points a face, in the order of 300-W (Sagonas et al. 2013), as the recipes read it:
-- DIR/points.csv has the columns image, person, width, height, x1, y1 ... x68, y68 in pixels; DIR/images/ the files.

local feral = require "feral"
local csv, image = feral.csv, feral.image
local landmarks = feral.landmarks

local faces68 = { POINTS = 68 }

local BROWS = { 18, 27 }
local FOREHEAD = 0.66 -- it ends so far above the brows, in distances from eyes to mouth
local EARS = 0.03     -- the part of the points' width that a box leaves out on each side, as WIDER FACE's do

--- All points, and some where the hair begins: what a face's box goes around.
function faces68.outline(points)
  local five, outline = landmarks.five(points), table.move(points, 1, #points, 1, {})
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
