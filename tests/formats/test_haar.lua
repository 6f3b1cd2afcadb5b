local lu = require "luaunit"
local haar = require "feral.formats.haar"
local cascades, temporary = require "cascades", require "temporary"

local T = {}

local tree = { nodes = { { 0, -1, 1, 0.5 } }, leaves = { -1.5, 2 } }
local branched = { nodes = { { 1, -2, 0, -0.25 }, { 0, -1, 1, 1e-3 } }, leaves = { 1, 2, 3 } }
local small = {
  width = 6, height = 5,
  stages = { { threshold = -0.5, trees = { tree, branched } }, { threshold = 1, trees = { tree } } },
  features = { { { 0, 0, 6, 5, -1 }, { 2, 1, 4, 4, 2 } }, { { 1, 1, 1, 1, 3 } } },
}

local function load(text)
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "c.xml", text)
  local c, message = haar.load(path)
  return c, message and message:gsub(path:gsub("%p", "%%%0"), "c.xml")
end

function T.test_what_a_file_holds_comes_as_lists()
  local c = assert(load(cascades.xml(small)))
  lu.assertEquals({ c.width, c.height }, { 6, 5 })
  lu.assertEquals(c.stages, { 2, -0.5, 1, 1 })
  lu.assertEquals(c.trees, { 1, 2, 1 })
  lu.assertEquals(c.nodes, { 0, -1, 1, 0.5, 1, -2, 0, -0.25, 0, -1, 1, 1e-3, 0, -1, 1, 0.5 })
  lu.assertEquals(c.leaves, { -1.5, 2, 1, 2, 3, -1.5, 2 })
  lu.assertEquals(c.features, { 2, 1 })
  lu.assertEquals(c.rectangles, { 0, 0, 6, 5, -1, 2, 1, 4, 4, 2, 1, 1, 1, 1, 3 })
end

function T.test_a_file_cut_anywhere_is_refused_with_its_line()
  local text = cascades.xml(small)
  for size = 0, #text - #"\n</opencv_storage>" do
    local c, message = load(text:sub(1, size))
    lu.assertNil(c, "cut after " .. size)
    lu.assertNotNil(message:find("^c%.xml:%d+: %S"), message)
  end
  local _, message = load(text:sub(1, text:find("<leafValues>", 1, true) + 20))
  lu.assertEquals(message, "c.xml:17: the file ends inside of <leafValues>")
end

function T.test_damage_is_named_with_its_line()
  local cases = { -- what, in the place of what, line, message
    { "opencv-haar-classifier", "opencv%-cascade%-classifier", 4,
      "a cascade of type 'opencv-haar-classifier', opencv-cascade-classifier expected" },
    { "LBP", "HAAR", 5, "features are of type 'LBP', HAAR expected" },
    { "<width>3<", "<width>6<", 7, "a window has sides of 4 to 1024 pixels, got 3" },
    { "<width>6 6<", "<width>6<", 7, "one number expected, got 2" },
    { "<width>six<", "<width>6<", 7, "'six' is no number" },
    { "<width>6.5<", "<width>6<", 7, "a window has sides of 4 to 1024 pixels, got 6.5" },
    { "1e999<", "%-0%.5<", 11, "'1e999' is no number" },
    { "nan<", "%-0%.5<", 11, "'nan' is no number" },
    { "0 -1 1<", "0 %-1 1 0%.5<", 15, "4 numbers expected, got 3" },
    { "0 -1 1 0.5 1<", "0 %-1 1 0%.5<", 15, "nodes are four numbers each, got 5 numbers" },
    { "0 -2 1 0.5<", "0 %-1 1 0%.5<", 15, "node 0 leads to 0 and -2, which are no nodes or leaves behind it" },
    { "0 -1 -1 0.5<", "0 %-1 1 0%.5<", 15, "node 0 has no feature '-1'" },
    { "0 -1 2 0.5<", "0 %-1 1 0%.5<", 15, "feature 2 of 2 features, counted from 0" },
    { "-1.5 2 3<", "%-1%.5 2<", 17, "a tree of 1 nodes has 3 leaves, 2 expected" },
    { "x</leafV", "2</leafV", 17, "'x' is no number" },
    { "0 0 7 5", "0 0 6 5", 39, "the rectangle 0 0 7 5 does not lie in the window of 6 x 5" },
    { "1 1 1 1<", "1 1 1 1 3<", 46, "5 numbers expected, got 4" },
    { "</rects><tilted>1</tilted></_>", "</rects></_>", 42,
      "tilted features are not supported: take a cascade of upright ones" },
    { "<leaf", "<leafValues", 17, "</leafValues> closes what is not open" },
    { "<%", "<leafValues", 16, "no tag that can be read" },
    { "<!-- ", "<leafValues", 16, "a comment or declaration has no end" },
  }
  local text = cascades.xml(small)
  for _, case in ipairs(cases) do
    local damaged, count = text:gsub(case[2], (case[1]:gsub("%%", "%%%%")), 1)
    lu.assertEquals(count, 1, case[2])
    local c, message = load(damaged)
    lu.assertNil(c, case[1])
    lu.assertEquals(message, ("c.xml:%d: %s"):format(case[3], case[4]))
  end
end

function T.test_parts_that_are_missing()
  local text = cascades.xml(small)
  local cases = { -- removed, message
    { "<stageThreshold>.-</stageThreshold>", "a stage has no threshold" },
    { "<internalNodes>.-</internalNodes>", "a tree has no nodes" },
    { "<leafValues>.-</leafValues>", "a tree of 1 nodes has 0 leaves, 2 expected" },
    { "<weakClassifiers>.-</weakClassifiers>", "a stage has no trees" },
    { "<width>.-</width>", "the size of the window must come before its features" },
    { "<rects>.-</rects>", "a feature has 0 rectangles, 1 to 3 expected" },
    { "<stages>.-</stages>", "no cascade of OpenCV's: it must have a width, a height, stages and features" },
    { "<cascade.*</cascade>", "no cascade of OpenCV's: it must have a width, a height, stages and features" },
  }
  for _, case in ipairs(cases) do
    local c, message = load((text:gsub(case[1], "", 1)))
    lu.assertNil(c, case[1])
    lu.assertStrContains(message, case[2])
  end
  lu.assertStrContains(select(2, load "one, two\nthree"), "c.xml:2: no cascade of OpenCV's")
end

function T.test_a_cascade_need_not_name_its_type()
  lu.assertEquals(assert(load((cascades.xml(small):gsub(' type_id="[%w-]+"', "")))).width, 6)
end

function T.test_a_missing_file()
  local _, message = haar.load "/nowhere/c.xml"
  lu.assertEquals(message, "/nowhere/c.xml: No such file or directory")
end

return T
