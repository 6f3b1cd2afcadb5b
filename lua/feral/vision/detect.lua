--- detect.lua: where faces are in a picture. Detectors have names, and take options of their own.

local cascade = require "feral.core.cascade"
local core = require "feral.core.tensor"
local image = require "feral.vision.image"
local haar = require "feral.formats.haar"
local files = require "feral.core.files"
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"

local detect = {}

---- What is found ----

---@class Faces  a list of faces, best first; prints as a table
local Faces = { __name = "Faces" }

function Faces.__tostring(faces)
  local lines = { ("%d face%s"):format(#faces, #faces == 1 and "" or "s") }
  if #faces > 0 then lines[2] = ("%7s%7s%7s%7s%10s"):format("x", "y", "w", "h", "score") end
  for i, face in ipairs(faces) do
    local x, y, w, h = table.unpack(face.box)
    lines[i + 2] = ("%7.4g%7.4g%7.4g%7.4g%10.4g"):format(x, y, w, h, face.score)
  end
  return table.concat(lines, "\n")
end

--- Best first; what is left is decided by size and place, so that the order is always the same.
local function better(a, b)
  if a.score ~= b.score then return a.score > b.score end
  if a.box[3] ~= b.box[3] then return a.box[3] > b.box[3] end
  if a.box[2] ~= b.box[2] then return a.box[2] < b.box[2] end
  return a.box[1] < b.box[1]
end

--- A list of faces in order, which prints itself.
---@param faces table[]  {box = {x, y, w, h}, score = number} each
---@return Faces
function detect.faces(faces)
  table.sort(faces, better)
  return setmetatable(faces, Faces)
end

---- OpenCV's cascades ----

--- The cascade that detector "haar" takes unless another one is named: frontal faces, of Debian's package opencv-data.
detect.haar_cascade = "/usr/share/opencv4/haarcascades/haarcascade_frontalface_default.xml"

local loaded = {} -- cascades by path

local function load_cascade(path)
  if loaded[path] then return loaded[path] end
  local c, message = haar.load(path)
  if not c and not files.look(path) then
    message = message .. " (OpenCV's cascades come with Debian's package opencv-data)"
  end
  if not c then return nil, message end
  loaded[path] = cascade.new(c.width, c.height, c.stages, c.trees, c.nodes, c.leaves, c.features, c.rectangles)
  return loaded[path]
end

local function check_haar(o)
  if type(o.cascade) ~= "string" then errors.raise("face.detect: cascade must be a path, got %s", type(o.cascade)) end
  local factor = math.type(o.scale_factor) and o.scale_factor + 0.0 or 0
  if factor < 1.01 or factor ~= factor then
    errors.raise("face.detect: scale_factor must be a number from 1.01, got %s", tostring(o.scale_factor))
  end
  for _, name in ipairs { "min_neighbors", "min_size", "max_size" } do
    local value = o[name]
    if value and (math.type(value) ~= "integer" or value < 0) then
      errors.raise("face.detect: %s must be a whole number from 0, got %s", name, tostring(value))
    end
  end
end

local haar_detector = {
  name = "haar",
  options = { cascade = detect.haar_cascade, scale_factor = 1.1, min_neighbors = 5, min_size = 0, max_size = false },
}

function haar_detector.is_there() return files.look(detect.haar_cascade) ~= nil end

function haar_detector.run(picture, o)
  check_haar(o)
  local found, message = load_cascade(o.cascade)
  if not found then return nil, message end
  local gray = image.gray(picture)
  local side = math.max(picture:size(2), picture:size(3))
  local numbers = cascade.detect(found, gray, o.scale_factor, o.min_neighbors, o.min_size, o.max_size or side)
  if not numbers then
    return nil, ("%s: more than %d windows of the picture pass this cascade"):format(o.cascade, cascade.most_windows) end
  local faces = {}
  for i = 1, #numbers, 5 do
    faces[#faces + 1] = { box = table.move(numbers, i, i + 3, 1, {}), score = numbers[i + 4] }
  end
  return faces
end

---- The trained network ----

local networks = {} -- by path

local function load_network(path)
  local detector = require "feral.vision.detector"
  if not networks[path] then
    local net, message = detector.load(path)
    if not net then return nil, message end
    networks[path] = net
  end
  return networks[path]
end

--- The network that ships, or nil and why there is none.
local function shipped_network() return require("feral.model.shipped").find "faces" end

local network_detector = {
  name = "feral", options = { network = false, longest = 640, score = 0.5, overlap = 0.4, most = 100 },
}

function network_detector.is_there() return shipped_network() ~= nil end

function network_detector.run(picture, o)
  local path, message = o.network, nil
  if not path then path, message = shipped_network() end
  if not path then return nil, message end
  local net
  net, message = load_network(path)
  if not net then return nil, message end
  return require("feral.vision.detector").detect(net, picture,
    { longest = o.longest, score = o.score, overlap = o.overlap, most = o.most })
end

---- Detectors by name ----

---@class Detector
---@field name string
---@field options table               its options and their defaults, as errors.check_options takes them
---@field is_there fun(): boolean     whether what it needs (a model) is on this machine
---@field run fun(picture: Tensor, options: table): table[]|nil, string|nil  u8 1|3 x H x W -> faces; or nil, message

local detectors = {} -- in the order in which they are preferred

--- Adds a detector, which is preferred to all that are there where its is_there() says so.
---@param detector Detector
function detect.add(detector) table.insert(detectors, 1, detector) end

detect.add(haar_detector)
detect.add(network_detector)

--- The names of all detectors, the preferred one first.
---@return string[]
function detect.names()
  local names = {}
  for i, detector in ipairs(detectors) do names[i] = detector.name end
  return names
end

--- The detector of that name; nil where there is none.
---@param name string
---@return Detector|nil
function detect.find(name)
  for _, detector in ipairs(detectors) do
    if name == detector.name then return detector end
  end
end

local COMMON = { "detector", "score" } -- options that any detector takes

local function takes(detector, options)
  local known = {}
  for _, name in ipairs(COMMON) do known[name] = true end
  for name in pairs(options) do
    if detector.options[name] == nil and not known[name] then return false end
  end
  return true
end

--- The preferred one of those that are there and take these options; where none takes them, the first that is there.
local function preferred(options)
  local first
  for _, detector in ipairs(detectors) do
    if detector.is_there() then
      if takes(detector, options) then return detector end
      first = first or detector
    end
  end
  if first then return first end
  for _, detector in ipairs(detectors) do
    if next(options) ~= nil and takes(detector, options) then return detector end -- it says itself what it lacks
  end
  return nil, "no face detector is there: neither the network 'faces' among the models, nor OpenCV's cascades, which come with "
    .. "Debian's package opencv-data"
end

local function choose(options)
  local name = options.detector
  if name == nil then return preferred(options) end
  local names = detect.names()
  return detect.find(name) or errors.raise("face.detect: there is no detector '%s'%s (known: %s)", tostring(name),
    errors.hint(name, names), table.concat(names, ", "))
end

local function check_picture(picture)
  local is_picture = core.is_tensor(picture) and picture:dim() == 3 and (picture:size(1) == 1 or picture:size(1) == 3)
  if not is_picture then
    local got = core.is_tensor(picture) and table.concat(picture.shape, "x") or type(picture)
    errors.raise("face.detect: a picture is 1 x H x W or 3 x H x W, got %s", got)
  end
end

--- A detector's own options and those of all, checked.
local function options_of(detector, options)
  local known = { detector = detector.name, score = false }
  for name, value in pairs(detector.options) do known[name] = value end
  local o = errors.check_options("face.detect", options, known)
  if o.score and type(o.score) ~= "number" then
    errors.raise("face.detect: score must be a number, got %s", type(o.score))
  end
  return o
end

--- What face.detect does.
function detect.detect(picture, options)
  check_picture(picture)
  local _open <close> = scope.scope()
  local detector, message = choose(type(options) == "table" and options or {})
  if not detector then return nil, message end
  local o = options_of(detector, options)
  local found
  found, message = detector.run(image.to_bytes(picture), o)
  if not found then return nil, message end
  local faces = {}
  for _, face in ipairs(found) do
    if not o.score or face.score >= o.score then faces[#faces + 1] = face end
  end
  return detect.faces(faces)
end

return detect
