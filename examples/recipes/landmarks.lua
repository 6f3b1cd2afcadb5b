-- Trains the network of 68 points on photographs of one face each.
--
--   ./feral examples/recipes/landmarks.lua FACES68 [--run runs/landmarks] [--steps 40000]
--
-- FACES68 holds points.csv and images/ (faces68.lua). The state is kept in the run's folder; the same command goes on from it
-- after a stop of any kind. After each epoch one line says how far the points are off on persons held out, in distances of the
-- outer corners of the eyes (NME), and runs/landmarks/look.png shows some.

local feral = require "feral"
local landmarks = feral.landmarks
local tensor, image, optim, steps = feral.tensor, feral.image, feral.optim, feral.steps
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local faces68, keep = dofile(here .. "/faces68.lua"), dofile(here .. "/keep.lua")

local options = feral.args.read(arg, {
  usage = "feral examples/recipes/landmarks.lua FACES68 [options]",
  about = "Trains the network of 68 points of a face.",
  words = { "FACES68" },
  options = {
    { "run", value = "DIR", default = "runs/landmarks", about = "where checkpoint, log and model go" },
    { "steps", value = "N", type = "integer", least = 1, default = 40000, about = "of training" },
    { "until", value = "N", type = "integer", least = 1, about = "stop here and go on another time" },
    { "epoch", value = "N", type = "integer", least = 1, default = 500, about = "steps between two looks at persons held out" },
    { "batch", value = "N", type = "integer", least = 2, default = 32, about = "faces a step" },
    { "lr", value = "X", type = "number", default = 2e-3, about = "largest learning rate" },
    { "photographs", value = "N", type = "integer", least = 10, about = "at most, for a quick try" },
  },
})
local SIZE, BATCH, SEED = landmarks.SIZE, options.batch, 1
local WIDE = 104 -- side of the pictures that are varied: room to turn them and still show the face's surroundings
local DECAY = 0.999 -- of the averaged weights, which are those that are tested and saved
local ROWS, COLUMNS, SHOWN = 4, 8, 200 -- of the sheet; pixels a face

local variation = steps.list {
  steps.rotate(25), steps.zoom(0.16), steps.shift(0.06), steps.shear(0.1), steps.mirror(0.5), steps.crop(SIZE),
  steps.light(0.4), steps.brightness(0.25), steps.contrast(0.3), steps.gamma(0.3), steps.blur(1.0), steps.noise(0.05),
  steps.erase(0.3, 0.02, 0.15),
}

---- Pictures and points ----

--- Where points of a photograph lie in a picture whose pixels a map takes there.
local function carried(map, points) return steps.map(map):points(points) end

--- Each face upright, with more around it than the network sees.
local function read_faces(held_out)
  local faces = assert(faces68.read(options.faces68, { held_out = held_out, most = options.photographs }))
  for _, f in ipairs(faces) do
    local found = { box = faces68.face_box(faces68.outline(f.points)), points = landmarks.five(f.points) }
    local picture, map = landmarks.crop(f.image, found, WIDE, landmarks.MARGIN * WIDE / SIZE)
    f.picture, f.own = picture:keep(), carried(map, f.points)
    f.found, f.image = found, held_out and f.image:keep() or nil
  end
  return faces
end

--- Points as the network gives them: from the picture's middle, in sides of the picture; a mirrored face's left and right points
--- change places.
local function target_of(points, is_mirrored)
  local target = {}
  for i = 1, landmarks.POINTS do
    local p = points[is_mirrored and landmarks.mirrored[i] or i]
    target[2 * i - 1], target[2 * i] = (p[1] - (SIZE - 1) / 2) / SIZE, (p[2] - (SIZE - 1) / 2) / SIZE
  end
  return target
end

--- The batch of a step: which faces, and how they are varied, follows from the step alone.
local function batch_of(faces, step)
  local dice, pictures, targets = feral.face.dice(SEED, step), {}, {}
  for k = 1, BATCH do
    local f = dice:pick(faces)
    local picture, map = variation:apply(f.picture, { training = true, seed = SEED, epoch = step, index = k })
    pictures[k], targets[k] = picture, target_of(map:points(f.own), map:is_mirrored())
  end
  return landmarks.batch(tensor.stack(pictures)), tensor(targets)
end

---- Loss and score ----

--- Wing loss (Feng et al. 2018): steep near zero, where plain distances hardly matter any more. Errors in pixels of the network's
--- picture.
local function wing(said, target)
  local width, curve = 5, 0.5
  local off = (said - target):abs() * SIZE
  return tensor.where(off:lt(width), (off / curve + 1):log() * width, off + (width - width * math.log(1 + width / curve))):mean()
end

local function draw_points(picture, points)
  local draw = require "feral.core.draw"
  for _, p in ipairs(points) do
    draw.rectangle(picture, math.floor(p[1] + 0.5), math.floor(p[2] + 0.5), 2, 2, { 0, 255, 0 })
  end
end

--- A face with its points, in cell number k of the sheet.
local function show(sheet, k, picture, points)
  local scale, placed = SHOWN / math.max(picture:size(2), picture:size(3)), {}
  local h, w = math.floor(picture:size(2) * scale), math.floor(picture:size(3) * scale)
  for i, p in ipairs(points) do placed[i] = { p[1] * scale, p[2] * scale } end
  picture = image.resize(picture, h, w)
  draw_points(picture, placed)
  sheet:narrow(2, (k - 1) // COLUMNS * SHOWN + 1, h):narrow(3, (k - 1) % COLUMNS * SHOWN + 1, w):copy_(picture)
end

--- Mean and median of the errors on faces held out, found as in use, and a sheet of some.
local function evaluate(net, faces)
  local sheet, off, sum = tensor.zeros(3, ROWS * SHOWN, COLUMNS * SHOWN, "u8"), {}, 0
  local stride = math.max(1, #faces // (ROWS * COLUMNS))
  landmarks.forget(net)
  for n, f in ipairs(faces) do
    local points = landmarks.find(net, f.image, f.found)
    off[n] = landmarks.error(points, f.points)
    sum = sum + off[n]
    if n % stride == 0 and n // stride <= ROWS * COLUMNS then show(sheet, n // stride, f.image, points) end
  end
  assert(image.save(options.run .. "/look.png", sheet))
  table.sort(off)
  return sum / #off, off[(#off + 1) // 2]
end

---- The run ----

tensor.manual_seed(SEED)
local net = landmarks.new()
local run = {
  net = net, optimizer = optim.AdamW(net:parameters(), { lr = options.lr, weight_decay = 1e-2 }),
  ema = optim.ema(net:parameters(), DECAY), step = 0,
}

local function train_step(faces, sums)
  local _open <close> = tensor.scope()
  local x, target = batch_of(faces, run.step)
  local total = wing(net(x), target)
  local value = total:item()
  if value ~= value then error(("the loss is no number at step %d"):format(run.step)) end
  run.optimizer:zero_grad()
  total:backward()
  optim.clip_grad_norm(net:parameters(), 20)
  run.optimizer.lr = keep.rate(options.lr, run.step, options.steps)
  run.optimizer:step()
  run.ema.decay = math.min(DECAY, (1 + run.step) / (10 + run.step)) -- the first weights are soon forgotten
  run.ema:update()
  run.step = run.step + 1
  sums.loss, sums.count = sums.loss + value, sums.count + 1
end

os.execute(("mkdir -p '%s'"):format(options.run))
local faces, held_out = read_faces(false), read_faces(true)
print(("%d parameters; %d faces, %d held out"):format(net:num_parameters(), #faces, #held_out))
keep.resume(options.run .. "/checkpoint.safetensors", run)
local _held <close> = keep.hold_signals()
local last = math.min(options["until"] or options.steps, options.steps)
while run.step < last do
  local sums, started = { loss = 0, count = 0 }, os.time()
  repeat
    train_step(faces, sums)
    keep.heed_signals(options.run .. "/checkpoint.safetensors", run)
  until run.step % options.epoch == 0 or run.step >= last
  local seconds = math.max(1, os.time() - started)
  run.ema:swap()
  local mean, median = evaluate(net, held_out)
  assert(landmarks.save(net, options.run .. "/landmarks.safetensors", { steps = run.step, nme = mean, median = median }))
  run.ema:swap()
  keep.save(options.run .. "/checkpoint.safetensors", run)
  keep.log(options.run .. "/log.txt", ("step %d  loss %.3f  |  off %.2f %% (median %.2f %%)  |  %.0f faces/s"):format(run.step,
    sums.loss / sums.count, 100 * mean, 100 * median, sums.count * BATCH / seconds))
end
