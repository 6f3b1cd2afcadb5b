-- Ten steps as one list: printed, saved, run in training and in prediction to the same bits, with the box of the face carried
-- along.
--
--   ./feral examples/steps.lua [--show runs/steps.png]

local feral = require "feral"
local data, steps, tensor, image = feral.data, feral.steps, feral.tensor, feral.image

local options = feral.args.read(arg, {
  usage = "feral examples/steps.lua [options]",
  about = "Shows what a list of steps is, on drawn faces.",
  words = {},
  options = { { "show", value = "FILE", about = "a picture of what training sees" } },
})
tensor.manual_seed(1)

-- 1. A list. What is random acts in training alone; random_crop then takes the middle.
local list = steps {
  steps.gray(), steps.crop(88, 80, { top = 6, left = 9 }), steps.equalize(), steps.resize(56, 52), steps.random_crop(48),
  steps.rotate(12), steps.mirror(0.5), steps.light(0.5), steps.erase(0.5), steps.normalize(0.5, 0.25),
}
print("1. the list:", list)

-- 2. Saved as plain data in a model's file, and built again.
local text = feral.json.encode(list:describe())
local again = assert(steps.build(feral.json.decode(text)))
print(("2. %d letters of JSON; the same list: %s"):format(#text, again == list))

-- 3. The set and the network's raw image go the same road.
local set = data.synthetic { count = 28, size = 100 }
local loader = data.loader(set, { batch = 28, shuffle = false, preprocess = list })
local x = loader:batches(1)()
local raw = {}
for i = 1, #set do raw[i] = set:image(i) end
print(("3. training and prediction give the same bits: %s"):format(again:batch(raw):tobytes() == x:tobytes()))

-- 4. Boxes and points go where the picture goes, also when it is turned and mirrored.
local face_box = { 22, 18, 56, 66 } -- x, y, width, height in the image of 100 x 100
for i = 1, 3 do
  local _, map = list:apply(set:image(i), { training = true, seed = 7, index = i })
  local b = map:boxes({ face_box })[1]
  print(("4. face %d: the box goes to x %.1f, y %.1f, %.1f wide, %.1f high%s"):format(i, b[1], b[2], b[3], b[4],
    map:is_mirrored() and ", mirrored" or ""))
end

-- 5. A look.
if options.show then
  local rows = {}
  for i = 1, 4 do
    local row = {}
    for k = 1, 8 do
      local seen = list:apply(set:image(i), { training = true, seed = k, index = i })
      row[k] = image.to_bytes(seen * 0.25 + 0.5)
    end
    rows[i] = tensor.cat(row, 3)
  end
  assert(image.save(options.show, tensor.cat(rows, 2)))
  print("5. saved " .. options.show)
end
