--- draw.lua: what was found in a picture, drawn on it: boxes, points, landmarks and labels.

local marks = require "feral.core.marks"
local core = require "feral.core.tensor"
local create = require "feral.core.create"
local arith = require "feral.core.arith"
local view = require "feral.core.view"
local transform = require "feral.core.transform"
local errors = require "feral.base.errors"

local BLACK, WHITE = { 0, 0, 0 }, { 255, 255, 255 }

--- The colours of emotions; what has none is drawn in the last.
local colors = {
  anger = { 235, 64, 52 }, disgust = { 132, 186, 62 }, fear = { 160, 98, 235 }, happiness = { 255, 196, 37 },
  sadness = { 74, 144, 236 }, surprise = { 255, 138, 48 }, neutral = { 168, 184, 194 }, contempt = { 222, 104, 168 },
}
local PLAIN = { 38, 214, 158 }

---- Numbers from what users give ----

local function is_number(x) return type(x) == "number" and x - x == 0 end

local function check_numbers(list, count, what)
  if type(list) ~= "table" or #list ~= count then errors.raise("image.draw: %s must be %d numbers", what, count) end
  for i = 1, count do
    if not is_number(list[i]) then errors.raise("image.draw: %s must be %d numbers, got %s", what, count, tostring(list[i])) end
  end
  return list
end

--- Points as a flat list x1, y1, x2, y2 ...: from a tensor N x 2, a list of pairs, or such a list.
local function flat_points(points, what)
  local list = {}
  if core.is_tensor(points) then
    points = create.totable(points)
  elseif type(points) == "table" and type(points[1]) == "number" then
    if #points % 2 ~= 0 then errors.raise("image.draw: %s must be pairs of numbers, got %d numbers", what, #points) end
    return check_numbers(points, #points, what)
  end
  if type(points) ~= "table" then errors.raise("image.draw: %s must be a list of {x, y} or a tensor N x 2", what) end
  for i, point in ipairs(points) do
    check_numbers(point, 2, ("point %d of %s"):format(i, what))
    list[2 * i - 1], list[2 * i] = point[1], point[2]
  end
  return list
end

---- Sizes and colours ----

--- How wide lines and how high letters are: as the picture's shorter side asks, unless the user says.
local function style_of(picture, o)
  local side = math.min(picture:size(2), picture:size(3))
  local width = o.line_width or math.max(1.25, 0.0045 * side)
  return { width = width, size = o.text_size or math.max(7, 0.021 * side), square = o.corners == "square", color = o.color }
end

local function color_of(one, style) return one.color or style.color or colors[one.class] or PLAIN end

--- Black or white, whichever is read better on a colour.
local function ink_on(color)
  return 0.299 * color[1] + 0.587 * color[2] + 0.114 * color[3] > 140 and { 20, 20, 24 } or WHITE
end

---- Parts ----

--- With a dark edge, so that it shows on any ground.
local function draw_box(sheet, box, color, style)
  local x, y, w, h = table.unpack(box)
  local radius = style.square and 0 or 0.08 * math.min(w, h)
  marks.frame(sheet, x, y, w, h, radius, style.width + math.max(1.5, 0.7 * style.width), BLACK, 0.3)
  marks.frame(sheet, x, y, w, h, radius, style.width, color)
end

local function draw_dots(sheet, points, color, size)
  for i = 1, #points, 2 do
    local at = { points[i], points[i + 1] }
    marks.line(sheet, at, false, size + math.max(1.2, 0.35 * size), BLACK, 0.35)
    marks.line(sheet, at, false, size, color)
  end
end

--- The parts of a face among 68 landmarks (Sagonas et al. 2013, 300-W): first, last, closed.
local parts_of_68 = {
  { 1, 17, false }, { 18, 22, false }, { 23, 27, false }, { 28, 31, false }, { 32, 36, false }, { 37, 42, true },
  { 43, 48, true }, { 49, 60, true }, { 61, 68, true },
}

--- 68 landmarks are joined to the parts of a face, others are dots alone.
local function draw_landmarks(sheet, points, color, style, box)
  local side = box and math.min(box[3], box[4]) or 60 * style.width
  local size = math.max(1.6, math.min(1.6 * style.width, side / 60))
  if #points == 2 * 68 then
    for _, part in ipairs(parts_of_68) do
      local line = table.move(points, 2 * part[1] - 1, 2 * part[2], 1, {})
      marks.line(sheet, line, part[3], math.max(1.2, 0.6 * size), color, 0.85)
    end
  end
  draw_dots(sheet, points, #points == 2 * 68 and WHITE or color, size)
end

local function text_of(one)
  if one.label ~= nil then return tostring(one.label) end
  if one.class == nil then return nil end
  if not is_number(one.probability) then return tostring(one.class) end
  return ("%s %.0f %%"):format(one.class, 100 * one.probability)
end

--- Where a panel goes: over the box, or else under it, or else inside; to the left of where it would be cut.
local function place_panel(sheet, box, width, height, gap, edge)
  local x = math.max(0, math.min(box[1] - edge, sheet:size(3) - width))
  local over, under = box[2] - edge - height - gap, box[2] + box[4] + edge + gap
  if over >= 0 then return x, over end
  if under + height <= sheet:size(2) then return x, under end
  return math.max(0, math.min(box[1] + edge + gap, sheet:size(3) - width)), math.max(0, box[2] + edge + gap)
end

--- A panel with text. It is smaller where the picture is narrow, as far as it can be read.
local function draw_label(sheet, text, box, color, style)
  local size, room = style.size, sheet:size(3) - 2
  local whole = marks.text_size(text, size) + 1.4 * size
  if whole > room then size = math.max(5, size * room / whole) end
  local width, height = marks.text_size(text, size) + 1.4 * size, 2 * size
  local x, y = place_panel(sheet, box, width, height, math.max(1, 0.25 * size), style.width / 2)
  marks.panel(sheet, x, y, width, height, style.square and 0 or 0.45 * size, color, 0.92)
  marks.text(sheet, x + 0.7 * size, math.floor(y + (height + size) / 2 + 0.5), size, text, ink_on(color))
end

---- All of it ----

local function check_style(o)
  for _, name in ipairs { "line_width", "text_size" } do
    local value = o[name]
    if value and not (is_number(value) and value > 0) then
      errors.raise("image.draw: %s must be a number above 0, got %s", name, tostring(value))
    end
  end
  if o.corners ~= "round" and o.corners ~= "square" then
    errors.raise("image.draw: corners are 'round' or 'square', got '%s'", tostring(o.corners))
  end
  if o.color then check_numbers(o.color, 3, "color") end
end

local function check_faces(faces)
  if type(faces) ~= "table" then errors.raise("image.draw: faces must be a list, got %s", type(faces)) end
  for i, one in ipairs(faces) do
    if type(one) ~= "table" then errors.raise("image.draw: face %d must be a table, got %s", i, type(one)) end
    if one.box then
      check_numbers(one.box, 4, ("the box of face %d"):format(i))
    elseif not (one.points or one.landmarks) then
      errors.raise("image.draw: face %d has no box, points or landmarks", i)
    end
    if one.color then check_numbers(one.color, 3, ("the color of face %d"):format(i)) end
  end
end

--- A copy in three channels of bytes.
local function copy_of(picture)
  local is_picture = core.is_tensor(picture) and picture:dim() == 3 and (picture:size(1) == 1 or picture:size(1) == 3)
  if not is_picture then
    local got = core.is_tensor(picture) and table.concat(picture.shape, "x") or type(picture)
    errors.raise("image.draw: a picture is 1 x H x W or 3 x H x W, got %s", got)
  end
  local height, width = picture:size(2), picture:size(3)
  local sheet = create.empty({ 3, height, width }, "u8")
  arith.copy_(sheet, view.expand(transform.to_bytes(picture), 3, height, width))
  return sheet
end

--- What image.draw does.
local function draw(picture, faces, options)
  local o = errors.check_options("image.draw", options, {
    corners = "round", line_width = false, text_size = false, color = false, boxes = true, points = true, landmarks = true,
    labels = true,
  })
  check_style(o)
  check_faces(faces)
  local sheet = copy_of(picture)
  local style = style_of(sheet, o)
  for i, one in ipairs(faces) do
    local color = color_of(one, style)
    if o.boxes and one.box then draw_box(sheet, one.box, color, style) end
    if o.landmarks and one.landmarks then
      draw_landmarks(sheet, flat_points(one.landmarks, ("landmarks of face %d"):format(i)), color, style, one.box)
    end
    if o.points and one.points then
      draw_dots(sheet, flat_points(one.points, ("points of face %d"):format(i)), color, math.max(2.5, 2 * style.width))
    end
  end
  for _, one in ipairs(faces) do -- over all boxes
    local text = o.labels and one.box and text_of(one)
    if text and text ~= "" then draw_label(sheet, text, one.box, color_of(one, style), style) end
  end
  return sheet
end

return draw
