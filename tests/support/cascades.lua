--- cascades.lua: small cascades of Haar-like features made at random, as files, and the plainest way to find faces by one.

local check = require "check"

local cascades = {}

--- To single precision, in which the search compares.
local function f32(x) return (string.unpack("f", string.pack("f", x))) end

--- To the nearest whole number, halves to the even one.
local function nearest(x)
  local low = math.floor(x)
  local part = x - low
  if part > 0.5 or (part == 0.5 and low % 2 == 1) then low = low + 1 end
  return math.tointeger(low)
end

---- Making ----

local function between(low, high) return low + (high - low) * check.integer(0, 4096) / 4096 end

local function random_feature(c)
  local rects = {}
  for r = 1, check.integer(1, 3) do
    local x, y = check.integer(0, c.width - 1), check.integer(0, c.height - 1)
    rects[r] = { x, y, check.integer(1, c.width - x), check.integer(1, c.height - y), between(-2, 2) }
  end
  local total = 0 -- of weights, so that brightness by itself gives nothing
  for r = 2, #rects do total = total + rects[r][3] * rects[r][4] * rects[r][5] end
  if #rects > 1 then rects[1][5] = f32(-total / (rects[1][3] * rects[1][4])) end
  return rects
end

local function random_tree(features)
  local nodes, leaves = {}, {}
  local count = check.integer(1, 3) == 3 and 2 or 1
  for i = 1, count do
    local way = count == 2 and i == 1 and { 1, -2 } or { -(i - 1), -i }
    if count == 2 and i == 2 then way = { 0, -1 } end
    nodes[i] = { way[1], way[2], check.integer(0, features - 1), between(-0.1, 0.1) }
  end
  for i = 1, count + 1 do leaves[i] = between(-1, 1) end
  return { nodes = nodes, leaves = leaves }
end

--- A cascade of some stages that lets about a half of the windows pass each.
---@return table  {width, height, stages = {{threshold, trees = {{nodes, leaves}}}}, features = {{{x, y, w, h, weight}}}}
function cascades.random()
  local c = { width = check.integer(4, 9), height = check.integer(4, 9), stages = {}, features = {} }
  for i = 1, 8 do c.features[i] = random_feature(c) end
  for s = 1, check.integer(1, 4) do
    local stage = { threshold = between(-0.8, 0.2), trees = {} }
    for t = 1, check.integer(1, 5) do stage.trees[t] = random_tree(#c.features) end
    c.stages[s] = stage
  end
  return c
end

local function words(list) return table.concat(list, " ") end

--- The file's text, in the way of OpenCV.
function cascades.xml(c)
  local lines = {}
  local function add(...) lines[#lines + 1] = (...):format(select(2, ...)) end
  add '<?xml version="1.0"?>\n<!-- a <small> cascade -->\n<opencv_storage>'
  add '<cascade type_id="opencv-cascade-classifier"><stageType>BOOST</stageType>\n  <featureType>HAAR</featureType>'
  add("  <height>%d</height>\n  <width>%d</width>\n  <stages>", c.height, c.width)
  for _, stage in ipairs(c.stages) do
    add("    <_>\n      <maxWeakCount>%d</maxWeakCount>", #stage.trees)
    add("      <stageThreshold>%.17g</stageThreshold>\n      <weakClassifiers>", stage.threshold)
    for _, tree in ipairs(stage.trees) do
      local nodes = {}
      for i, node in ipairs(tree.nodes) do nodes[i] = ("%d %d %d %.17g"):format(table.unpack(node)) end
      add("        <_>\n          <internalNodes>\n            %s</internalNodes>", words(nodes))
      add("          <leafValues>\n            %s</leafValues></_>", words(tree.leaves))
    end
    add "        </weakClassifiers></_>"
  end
  add "  </stages>\n  <features>"
  for _, rects in ipairs(c.features) do
    add "    <_>\n      <rects>"
    for _, rect in ipairs(rects) do add("        <_>\n          %d %d %d %d %.17g</_>", table.unpack(rect)) end
    add "      </rects></_>"
  end
  add "  </features></cascade>\n</opencv_storage>"
  return table.concat(lines, "\n") .. "\n"
end

---- Finding ----

local function tap(from, to, i)
  local at = from / to * (i + 0.5) - 0.5
  local low = math.floor(at)
  if low < 0 then return 0, 0 end
  if low > from - 2 then return from - 2, 256 end
  return low, nearest((at - low) * 256)
end

--- Bilinear, pixels [y][x] counted from 0, in whole numbers.
local function shrunk(picture, height, width, to_height, to_width)
  local small = {}
  for y = 0, to_height - 1 do
    local row, below = tap(height, to_height, y)
    small[y] = {}
    for x = 0, to_width - 1 do
      local column, right = tap(width, to_width, x)
      local function blend(r) return picture[r][column] * (256 - right) + picture[r][column + 1] * right end
      small[y][x] = (blend(row) * (256 - below) + blend(row + 1) * below + 32768) >> 16
    end
  end
  return small
end

local function sum_of(pixels, left, top, width, height)
  local sum, squares = 0, 0
  for y = top, top + height - 1 do
    for x = left, left + width - 1 do
      sum, squares = sum + pixels[y][x], squares + pixels[y][x] ^ 2
    end
  end
  return sum, squares
end

local function norm_of(c, pixels, x, y)
  local area = (c.width - 2) * (c.height - 2)
  local sum, squares = sum_of(pixels, x + 1, y + 1, c.width - 2, c.height - 2)
  local spread = area * squares - sum * sum
  if spread <= 0 then return nil end
  local norm = f32(1 / math.sqrt(spread))
  return area * norm < 0.1 and norm or nil
end

local function tree_says(c, tree, pixels, x, y, norm)
  local i = 0
  repeat
    local node, value = tree.nodes[i + 1], 0
    for _, r in ipairs(c.features[node[3] + 1]) do
      value = f32(value + f32(f32(r[5]) * (sum_of(pixels, x + r[1], y + r[2], r[3], r[4]))))
    end
    i = f32(value * norm) < f32(node[4]) and node[1] or node[2]
  until i <= 0
  return f32(tree.leaves[1 - i])
end

--- The number of the stage that turns a window down, from 0; nil where none does.
local function turned_down(c, pixels, x, y, norm)
  for s, stage in ipairs(c.stages) do
    local score = 0
    for _, tree in ipairs(stage.trees) do score = score + tree_says(c, tree, pixels, x, y, norm) end
    if score < f32(f32(stage.threshold) - f32(1e-5)) then return s - 1 end
  end
end

--- All windows that pass: a list of {x, y, width, height}.
local function windows(c, picture, height, width, o)
  local found, factor = {}, 1
  local stripes
  while nearest(c.width * factor) <= width and nearest(c.height * factor) <= height do
    local scale = f32(factor)
    local w, h = nearest(c.width * scale), nearest(c.height * scale)
    factor = factor * o.scale_factor
    if math.max(w, h) > o.max_size then break end
    if math.min(w, h) >= o.min_size then
      local small_width, small_height = nearest(f32(width / scale)), nearest(f32(height / scale))
      local small, step = shrunk(picture, height, width, small_height, small_width), scale >= 2 and 1 or 2
      local columns, rows = small_width - c.width + 1, small_height - c.height + 1
      stripes = stripes or (columns + 31) // 32
      rows = math.min(rows, stripes * math.max((rows // step + stripes - 1) // stripes, 1) * step)
      for y = 0, rows - 1, step do
        local x = 0
        while x < columns do
          local norm = norm_of(c, small, x, y)
          local stage = norm and turned_down(c, small, x, y, norm)
          if norm and not stage then found[#found + 1] = { nearest(x * scale), nearest(y * scale), w, h } end
          x = x + (stage == 0 and 2 * step or step)
        end
      end
    end
  end
  return found
end

local function alike(a, b)
  local most = 0.2 * (math.min(a[3], b[3]) + math.min(a[4], b[4])) * 0.5
  return math.abs(a[1] - b[1]) <= most and math.abs(a[2] - b[2]) <= most
    and math.abs(a[1] + a[3] - b[1] - b[3]) <= most and math.abs(a[2] + a[4] - b[2] - b[4]) <= most
end

local function join(group_of, from, to)
  for i, group in ipairs(group_of) do
    if group == from then group_of[i] = to end
  end
end

local function groups_of(found)
  local group_of, groups = {}, {}
  for i = 1, #found do group_of[i] = i end
  for i = 1, #found do
    for j = 1, i - 1 do
      if alike(found[i], found[j]) then join(group_of, group_of[i], group_of[j]) end
    end
  end
  for i, box in ipairs(found) do
    local g = groups[group_of[i]] or { 0, 0, 0, 0, 0 }
    groups[group_of[i]] = g
    for k = 1, 4 do g[k] = g[k] + box[k] end
    g[5] = g[5] + 1
  end
  local list = {}
  for i = 1, #found do
    local g = groups[i]
    if g then
      local share = f32(1 / g[5])
      for k = 1, 4 do g[k] = nearest(f32(g[k] * share)) end
      list[#list + 1] = g
    end
  end
  return list
end

local function inside(a, b)
  local dx, dy = nearest(b[3] * 0.2), nearest(b[4] * 0.2)
  return a[1] >= b[1] - dx and a[2] >= b[2] - dy and a[1] + a[3] <= b[1] + b[3] + dx and a[2] + a[4] <= b[2] + b[4] + dy
end

local function outdone(group, groups, least)
  for _, other in ipairs(groups) do
    if other ~= group and other[5] > least and inside(group, other)
      and (other[5] > math.max(3, group[5]) or group[5] < 3) then return true end
  end
  return false
end

--- Faces as sorted lines "x y width height score".
---@param c table  as cascades.random makes it
---@param picture integer[][]  rows of pixels
---@param o table  scale_factor, min_neighbors, min_size, max_size
---@return string[]
function cascades.find(c, picture, o)
  local height, width, from_0, lines = #picture, #picture[1], {}, {}
  for y, row in ipairs(picture) do from_0[y - 1] = table.move(row, 1, width, 0, {}) end
  local found = windows(c, from_0, height, width, o)
  local groups = o.min_neighbors > 0 and groups_of(found) or {}
  if o.min_neighbors == 0 then
    for i, box in ipairs(found) do groups[i] = { box[1], box[2], box[3], box[4], 1 } end
  end
  for _, g in ipairs(groups) do
    if o.min_neighbors == 0 or (g[5] > o.min_neighbors and not outdone(g, groups, o.min_neighbors)) then
      local x, y = math.max(g[1], 0), math.max(g[2], 0)
      local w, h = math.min(g[1] + g[3], width) - x, math.min(g[2] + g[4], height) - y
      if w > 0 and h > 0 then lines[#lines + 1] = words { x, y, w, h, g[5] } end
    end
  end
  table.sort(lines)
  return lines
end

return cascades
