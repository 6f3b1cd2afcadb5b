-- How long a training waits for its data.
--
--   ./feral tests/bench/loader.lua [--fer2013 DIR] [--steps N]
--
-- Prints lines name<TAB>kind<TAB>value<TAB>unit: files read a second, and which share of a training step the network waits for
-- the next batch, for faces of 48 pixels (FER2013 where its folder is named, else drawn ones) and for a folder of JPEGs of 224
-- pixels, drawn too. All images are turned, moved, mirrored and lit.

local feral = require "feral"
local system = require "feral.core.system"
local files = require "feral.core.files"
local data, nets, optim, loss, tensor = feral.data, feral.nets, feral.optim, feral.loss, feral.tensor

local steps = feral.steps
local variation = steps {
  steps.rotate(10), steps.shift(0.1), steps.zoom(0.1), steps.mirror(0.5), steps.brightness(0.2), steps.contrast(0.2),
}

local options = feral.args.read(arg, {
  usage = "feral tests/bench/loader.lua [options]",
  about = "Measures how long training waits for its data.",
  words = {},
  options = {
    { "fer2013", value = "DIR", about = "where FER2013 is" },
    { "steps", value = "N", type = "integer", least = 1, default = 40, about = "of each training" },
  },
})

local function say(name, kind, value, unit)
  print(("%s\t%s\t%.2f\t%s"):format(name, kind, value, unit))
  io.stdout:flush()
end

--- Trains for some steps and says which share of them went into waiting.
local function measure(name, net, set, batch)
  local loader = data.loader(set, { batch = batch, augment = variation })
  local optimizer = optim.SGD(net:parameters(), { lr = 0.01 })
  local next_batch, _, _, batches <close> = loader:batches(1) -- luacheck: ignore
  local start = system.clock()
  for step = 1, math.min(options.steps, #loader) do
    local _step <close> = tensor.scope()
    local x, y = next_batch()
    if step == 1 then start, loader.waited = system.clock(), 0 end -- nothing could be ahead of the first
    optimizer:zero_grad()
    loss.cross_entropy(net(x), y):backward()
    optimizer:step()
  end
  say(name, "waiting", 100 * loader.waited / (system.clock() - start), "% of a step")
end

--- A folder of drawn faces in colour, read back.
local function jpeg_folder(count, size)
  local dir = os.tmpname()
  os.remove(dir)
  local drawn = data.synthetic { count = count, size = size }
  for i, label in ipairs(drawn.labels:totable()) do
    local class = dir .. "/" .. drawn.classes[label]
    assert(files.mkdir(class))
    assert(feral.image.save(("%s/%d.jpg"):format(class, i), drawn.images[i]:expand(3, size, size)))
  end
  local start = system.clock()
  local set = assert(data.folder(dir, { size = size, channels = 3, progress = false }))
  say("jpeg224", "reading", count / (system.clock() - start), "files/s")
  os.execute("rm -r '" .. dir .. "'")
  return set
end

local function faces()
  if not options.fer2013 then return data.synthetic { count = 64 * options.steps } end
  local start = system.clock()
  local set = assert(data.fer2013(options.fer2013, { progress = false })).train
  say("fer2013", "reading", #set / (system.clock() - start), "files/s")
  return set
end

tensor.manual_seed(1)
local small, large = faces(), jpeg_folder(8 * options.steps, 224)
measure("mini_xception 48", nets.mini_xception(7), small, 64)
measure("vgg 48", nets.vgg(7), small, 64)
measure("mini_xception 224", nets.mini_xception(7, { channels = 3, size = 224 }), large, 8)
