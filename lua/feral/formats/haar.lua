--- haar.lua: cascades of Haar-like features as OpenCV keeps them: XML of type opencv-cascade-classifier. A reader of just this
--- format: elements and their text, comments left out, no entities.

local files = require "feral.core.files"

local haar = {}

local RECTS_MOST, WINDOW_LEAST, WINDOW_MOST = 3, 4, 1024

---- The text of elements ----

--- The numbers of a text, or nil and a message where there are fewer than 'least', more than 'most', or something else.
local function numbers(text, least, most)
  local list = {}
  for word in text:gmatch("%S+") do
    local x = word:find("^[-+%d.eE]+$") and tonumber(word)
    if not x or x - x ~= 0 then return nil, ("'%s' is no number"):format(word:sub(1, 40)) end
    list[#list + 1] = x
  end
  if #list < least or #list > (most or least) then
    return nil, ("%s expected, got %d"):format(least == 1 and not most and "one number" or least .. " numbers", #list)
  end
  return list
end

local function is_whole(x, least, most) return math.type(x) == "integer" and x >= least and x <= most end

local function read_side(name)
  return function(c, text)
    local list, message = numbers(text, 1)
    if not list then return message end
    if not is_whole(list[1], WINDOW_LEAST, WINDOW_MOST) then
      return ("a window has sides of %d to %d pixels, got %s"):format(WINDOW_LEAST, WINDOW_MOST, list[1])
    end
    c[name] = list[1]
  end
end

local function read_feature_type(_, text)
  local kind = text:match("^%s*(.-)%s*$")
  if kind ~= "HAAR" then return ("features are of type '%s', HAAR expected"):format(kind:sub(1, 40)) end
end

local function read_threshold(c, text)
  local list, message = numbers(text, 1)
  if not list then return message end
  c.threshold = list[1]
end

--- A way out of a node: another node further on, or minus a leaf.
local function is_way(way, node, nodes) return is_whole(way, -nodes, nodes - 1) and (way <= 0 or way > node) end

local function read_nodes(c, text, at)
  local list, message = numbers(text, 4, math.huge)
  if not list then return message end
  local nodes = #list // 4
  if #list % 4 ~= 0 then return ("nodes are four numbers each, got %d numbers"):format(#list) end
  for i = 0, nodes - 1 do
    local left, right, feature = list[4 * i + 1], list[4 * i + 2], list[4 * i + 3]
    if not (is_way(left, i, nodes) and is_way(right, i, nodes)) then
      return ("node %d leads to %s and %s, which are no nodes or leaves behind it"):format(i, left, right)
    end
    if not is_whole(feature, 0, math.huge) then return ("node %d has no feature '%s'"):format(i, feature) end
    if feature > c.last_feature then c.last_feature, c.last_at = feature, at end
  end
  table.move(list, 1, #list, #c.nodes + 1, c.nodes)
  c.tree_nodes = nodes
end

local function read_leaves(c, text)
  local list, message = numbers(text, 1, math.huge)
  if not list then return message end
  table.move(list, 1, #list, #c.leaves + 1, c.leaves)
  c.tree_leaves = #list
end

local function end_tree(c)
  if not c.tree_nodes then return "a tree has no nodes" end
  if c.tree_leaves ~= c.tree_nodes + 1 then
    return ("a tree of %d nodes has %d leaves, %d expected"):format(c.tree_nodes, c.tree_leaves or 0, c.tree_nodes + 1)
  end
  c.trees[#c.trees + 1] = c.tree_nodes
  c.tree_nodes, c.tree_leaves = nil, nil
end

local function end_stage(c)
  local trees = #c.trees - c.trees_before
  if trees == 0 then return "a stage has no trees" end
  if not c.threshold then return "a stage has no threshold" end
  table.move({ trees, c.threshold }, 1, 2, #c.stages + 1, c.stages)
  c.trees_before, c.threshold = #c.trees, nil
end

local function read_rectangle(c, text)
  local list, message = numbers(text, 5)
  if not list then return message end
  local x, y, width, height = table.unpack(list)
  if not (c.width and c.height) then return "the size of the window must come before its features" end
  if not (is_whole(x, 0, c.width - 1) and is_whole(y, 0, c.height - 1) and is_whole(width, 1, c.width - x)
      and is_whole(height, 1, c.height - y)) then
    return ("the rectangle %s %s %s %s does not lie in the window of %d x %d"):format(x, y, width, height, c.width, c.height)
  end
  table.move(list, 1, 5, #c.rectangles + 1, c.rectangles)
end

local function refuse_tilted(_, text)
  if text:match("%S+") ~= "0" then return "tilted features are not supported: take a cascade of upright ones" end
end

local function end_feature(c)
  local count = #c.rectangles // 5 - c.rectangles_before
  if count < 1 or count > RECTS_MOST then
    return ("a feature has %d rectangles, 1 to %d expected"):format(count, RECTS_MOST)
  end
  c.features[#c.features + 1] = count
  c.rectangles_before = #c.rectangles // 5
end

local function check_type(_, attributes)
  local kind = attributes:match('type_id%s*=%s*"([^"]*)"')
  if kind and kind ~= "opencv-cascade-classifier" then
    return ("a cascade of type '%s', opencv-cascade-classifier expected"):format(kind)
  end
end

--- What the elements hold that are read; 'open' sees an element's attributes, 'close' its text. All others are left out.
local elements = {
  opencv_storage = { cascade = {
    open = check_type,
    featureType = { close = read_feature_type },
    width = { close = read_side "width" },
    height = { close = read_side "height" },
    stages = { _ = {
      close = end_stage,
      stageThreshold = { close = read_threshold },
      weakClassifiers = { _ = {
        close = end_tree, internalNodes = { close = read_nodes }, leafValues = { close = read_leaves },
      } },
    } },
    features = { _ = {
      close = end_feature, rects = { _ = { close = read_rectangle } }, tilted = { close = refuse_tilted },
    } },
  } },
}
local left_out = {}

---- The file ----

local function line_at(text, at)
  local line = 1
  for _ in text:sub(1, at - 1):gmatch("\n") do line = line + 1 end
  return line
end

local brackets = { ["<!--"] = "-->", ["<?"] = "?>" }

--- Where what begins at 'at' ends, if it is a comment or a declaration; 0 where it has no end.
local function skip(text, at)
  for open, close in pairs(brackets) do
    if text:sub(at, at + #open - 1) == open then
      local _, last = text:find(close, at, true)
      return last or 0
    end
  end
end

--- Opens an element. Returns a message where it must not be there.
local function begin_element(open, name, attributes, c)
  local layout = open[#open].layout[name] or left_out
  open[#open + 1] = { name = name, layout = layout }
  return layout.open and layout.open(c, attributes)
end

--- Closes the innermost element, whose last text is given, at a place in the file.
local function end_element(open, name, c, text, at)
  if open[#open].name ~= name then return ("</%s> closes what is not open"):format(name) end
  local layout = table.remove(open).layout
  return layout.close and layout.close(c, text, at)
end

--- Goes through the elements. Returns nil, or a message and where it belongs.
local function walk(text, c)
  local open, at = { { layout = elements } }, 1 -- the elements that are open, outermost first
  while true do
    local tag = text:find("<", at, true)
    if not tag then break end
    local last = skip(text, tag)
    if last == 0 then return "a comment or declaration has no end", tag end
    if not last then
      local closing, name, attributes, after = text:match("^<(/?)([%w_]+)([^<>]*)>()", tag)
      if not name then return "no tag that can be read", tag end
      local message = closing == "" and begin_element(open, name, attributes, c)
        or closing ~= "" and end_element(open, name, c, text:sub(at, tag - 1), tag)
      if message then return message, tag end
      last = after - 1
    end
    at = last + 1
  end
  if #open > 1 then return ("the file ends inside of <%s>"):format(open[#open].name), #text end
end

--- What only the whole file shows.
local function check_whole(c, text)
  if not (c.width and c.height) or #c.stages == 0 or #c.features == 0 then
    return "no cascade of OpenCV's: it must have a width, a height, stages and features", #text
  end
  if c.last_feature >= #c.features then
    return ("feature %d of %d features, counted from 0"):format(c.last_feature, #c.features), c.last_at
  end
end

---@class HaarCascade  flat lists, in the order of the file
---@field width integer        of the window in pixels
---@field height integer
---@field stages number[]      trees, threshold of each
---@field trees integer[]      nodes of each
---@field nodes number[]       left, right, feature, threshold of each; features count from 0
---@field leaves number[]      one more than nodes of each tree
---@field features integer[]   rectangles of each
---@field rectangles number[]  x, y, width, height, weight of each

--- Reads a cascade. Features must be upright, trees may have any number of nodes.
---@param path string
---@return HaarCascade|nil, string|nil  or nil and "path:line: what is wrong"
function haar.load(path)
  local text, trouble = files.read(path)
  if not text then return nil, trouble end
  local c = {
    stages = {}, trees = {}, nodes = {}, leaves = {}, features = {}, rectangles = {}, -- and while it is read:
    trees_before = 0, rectangles_before = 0, last_feature = -1,
  }
  local message, at = walk(text, c)
  if not message then message, at = check_whole(c, text) end
  if message then return nil, ("%s:%d: %s"):format(path, line_at(text, at), message) end
  return c
end

return haar
