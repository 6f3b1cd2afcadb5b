-- Trains the face detector on composed scenes (scenes.lua).
--
--   ./feral examples/recipes/detector.lua FACES68 [--fer2013 DIR] [--run runs/detector] [--steps 60000] [--save FILE]
--
-- FACES68 holds points.csv and images/ (faces68.lua). The state is kept in the run's folder; the same command goes on from it
-- after a stop of any kind. After each epoch one line says how many faces of held-out persons are found at 0.01, 0.1 and 1 false
-- boxes a scene, and runs/detector/look.png shows some.

local feral = require "feral"
local detector = feral.detector
local tensor, image, optim, loss = feral.tensor, feral.image, feral.optim, feral.loss
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local scenes, keep = dofile(here .. "/scenes.lua"), dofile(here .. "/keep.lua")

local options = feral.args.read(arg, {
  usage = "feral examples/recipes/detector.lua FACES68 [options]",
  about = "Trains the face detector on scenes composed of photographs.",
  words = { "FACES68" },
  options = {
    { "fer2013", value = "DIR", about = "small faces" },
    { "run", value = "DIR", default = "runs/detector", about = "where checkpoint, log and model go" },
    { "steps", value = "N", type = "integer", least = 1, default = 60000, about = "of training" },
    { "until", value = "N", type = "integer", least = 1, about = "stop here and go on another time" },
    { "epoch", value = "N", type = "integer", least = 1, default = 1000, about = "steps between two looks at held-out scenes" },
    { "batch", value = "N", type = "integer", least = 1, default = 16, about = "scenes a step" },
    { "size", value = "N", type = "integer", least = 64, default = 256, about = "side of a scene, a multiple of 32" },
    { "lr", value = "X", type = "number", default = 2e-3, about = "largest learning rate" },
    { "photographs", value = "N", type = "integer", least = 10, about = "at most, for a quick try" },
    { "scenes", value = "N", type = "integer", least = 1, default = 150, about = "held-out scenes" },
  },
})
local SIZE, BATCH = options.size, options.batch
local DECAY = 0.999 -- of the averaged weights, which are those that are tested and saved
local SEED, HELD_OUT_SEED = 1, 2

---- Which cell answers for which face ----

-- Widths of faces that each grid looks for; where two overlap both do.
local RANGE = { [8] = { 0, 44 }, [16] = { 28, 110 }, [32] = { 70, math.huge } }

--- The grids of a scene of side x side pixels, and the number of all their cells.
local function grids_of(side)
  local grids, cells = {}, 0
  for i, stride in ipairs(detector.strides) do
    grids[i] = { stride = stride, side = side // stride, first = cells }
    cells = cells + grids[i].side * grids[i].side
  end
  return grids, cells
end

--- Calls f(number of the cell, its middle) for the cells of a grid whose middles lie within a rectangle.
local function for_cells(grid, left, top, right, bottom, f)
  local s, most = grid.stride, grid.side - 1
  for row = math.max(0, math.ceil(top / s - 0.5)), math.min(most, math.floor(bottom / s - 0.5)) do
    for column = math.max(0, math.ceil(left / s - 0.5)), math.min(most, math.floor(right / s - 0.5)) do
      f(grid.first + row * grid.side + column + 1, (column + 0.5) * s, (row + 0.5) * s)
    end
  end
end

--- What cells around a face's middle have to say of it, in cells.
local function claim(claims, grid, face)
  local x, y, w, h = table.unpack(face.box)
  local s, size = grid.stride, math.sqrt(w * h)
  local middle_x, middle_y = x + w / 2, y + h / 2
  local reach = math.max(0.75 * s, 0.2 * size)
  for_cells(grid, middle_x - reach, middle_y - reach, middle_x + reach, middle_y + reach, function(cell, cx, cy)
    local target = { (middle_x - cx) / s, (middle_y - cy) / s, w / s, h / s, face.points and s / w or 0 }
    for k = 1, 5 do
      target[4 + 2 * k] = face.points and (face.points[k][1] - cx) / s or 0
      target[5 + 2 * k] = face.points and (face.points[k][2] - cy) / s or 0
    end
    claims[cell] = target
  end)
end

--- For one scene: the cells that answer for a face, with what they should say, and those that are asked nothing.
local function assign(faces, grids)
  local claims, spared = {}, {}
  -- a smaller face takes a larger one's cell
  table.sort(faces, function(a, b) return a.box[3] * a.box[4] > b.box[3] * b.box[4] end)
  for _, face in ipairs(faces) do
    local x, y, w, h = table.unpack(face.box)
    local size = math.sqrt(w * h)
    for _, grid in ipairs(grids) do
      if face.ignore then
        for_cells(grid, x, y, x + w, y + h, function(cell) spared[cell] = true end)
      elseif size >= RANGE[grid.stride][1] and size < RANGE[grid.stride][2] then
        claim(claims, grid, face)
      end
    end
  end
  return claims, spared
end

--- The same for a batch, as tensors: rows of the answering cells (from 1, over all scenes), what they should say (rows x 15:
--- middle, size, 1 / width or 0 where points are not known, points), and a weight for each cell.
local function targets_of(batch, side)
  local rows, targets, weights = {}, {}, {}
  local grids, cells = grids_of(side)
  for i = 1, #batch * cells do weights[i] = 1 end
  for n, faces in ipairs(batch) do
    local claims, spared = assign(faces, grids)
    for cell in pairs(spared) do weights[(n - 1) * cells + cell] = claims[cell] and 1 or 0 end
    for cell = 1, cells do
      if claims[cell] then rows[#rows + 1], targets[#targets + 1] = (n - 1) * cells + cell, claims[cell] end
    end
  end
  if #rows == 0 then return nil, nil, tensor(weights) end
  return tensor(rows, "i32"), tensor(targets), tensor(weights)
end

---- The loss ----

local function product(t) return t:narrow(2, 1, 1) * t:narrow(2, 2, 1) end
local function sum_of_squares(t) return (t * t):sum(2, true) end

--- 1 - intersection over union, and how far middle and size are off, by what encloses both (EIoU; Zhang et al. 2021).
local function box_loss(said, target)
  local middle, size = said:narrow(2, 2, 2), said:narrow(2, 4, 2):clamp(-5, 6):exp()
  local true_middle, true_size = target:narrow(2, 1, 2), target:narrow(2, 3, 2)
  local low, high = middle - size / 2, middle + size / 2
  local true_low, true_high = true_middle - true_size / 2, true_middle + true_size / 2
  local both = product((high:minimum(true_high) - low:maximum(true_low)):clamp(0))
  local overlap = both / (product(size) + product(true_size) - both + 1e-6)
  local around = high:maximum(true_high) - low:minimum(true_low)
  local off = sum_of_squares(middle - true_middle) / sum_of_squares(around) + sum_of_squares((size - true_size) / around)
  return (1 - overlap + off):mean(), overlap
end

--- Smooth L1 of the points, in widths of the face.
local function point_loss(said, target)
  local known = target:narrow(2, 5, 1)
  local off = ((said:narrow(2, 6, 10) - target:narrow(2, 6, 10)) * known):abs()
  local curved = tensor.where(off:lt(0.05), off * off * 10, off - 0.025)
  return curved:sum() / (10 * known:gt(0):to("f32"):sum():item() + 1)
end

--- Each cell's score shall be the overlap of its box with the face, 0 where it answers for none; what is nearly so counts little
--- (quality focal loss; Li et al. 2020).
local function score_loss(scores, rows, overlap, weights)
  local target = {}
  for i = 1, scores:numel() do target[i] = 0 end
  if rows then
    overlap = overlap:detach():reshape(-1):totable()
    for i, row in ipairs(rows:totable()) do target[row] = overlap[i] end
  end
  target = tensor(target)
  local off = feral.autograd.no_grad(function()
    local d = target - scores:sigmoid()
    return d * d * weights
  end)
  return (loss.bce(scores, target, { logits = true, reduction = "none" }) * off):sum() / (rows and #rows or 1)
end

local function total_loss(output, batch, side)
  local said = output:reshape(-1, detector.outputs)
  local rows, target, weights = targets_of(batch, side)
  local scores = said:narrow(2, 1, 1):reshape(-1)
  if not rows then return score_loss(scores, nil, nil, weights), 0, 0 end
  local picked = said:index_select(1, rows)
  local boxes, overlap = box_loss(picked, target)
  local points = point_loss(picked, target)
  local found = score_loss(scores, rows, overlap, weights)
  return found + boxes * 2 + points * 10, boxes:item(), points:item()
end

---- Scenes ----

local function batch_of(parts, seed, first, count, side)
  local pictures, faces = {}, {}
  for i = 1, count do
    pictures[i], faces[i] = scenes.compose(parts, side, side, seed, first + i)
  end
  return detector.batch(tensor.stack(pictures)), faces, pictures
end

---- The run ----

local function path_of(name) return options.run .. "/" .. name end

feral.tensor.manual_seed(SEED)
local net = detector.new()
local run = {
  net = net, optimizer = optim.AdamW(net:parameters(), { lr = options.lr, weight_decay = 1e-3 }),
  ema = optim.ema(net:parameters(), DECAY), step = 0,
}

local function train_step(parts, sums)
  local _open <close> = tensor.scope()
  -- each fourth step has fewer and larger scenes, for faces larger than the others can hold
  local scale = run.step % 4 == 3 and BATCH >= 4 and 2 or 1
  local x, faces = batch_of(parts, SEED, run.step * BATCH, BATCH // (scale * scale), scale * SIZE)
  local total, boxes, points = total_loss(net(x), faces, scale * SIZE)
  local value = total:item()
  if value ~= value then error(("the loss is no number at step %d"):format(run.step)) end
  run.optimizer:zero_grad()
  total:backward()
  optim.clip_grad_norm(net:parameters(), 5)
  run.optimizer.lr = keep.rate(options.lr, run.step, options.steps)
  run.optimizer:step()
  run.ema.decay = math.min(DECAY, (1 + run.step) / (10 + run.step)) -- the first weights are soon forgotten
  run.ema:update()
  run.step = run.step + 1
  sums.loss, sums.boxes, sums.points, sums.count = sums.loss + value, sums.boxes + boxes, sums.points + points, sums.count + 1
  sums.scenes = sums.scenes + #faces
end

--- Boxes and points drawn into a picture.
local function draw_faces(picture, found)
  local draw = require "feral.core.draw"
  for _, f in ipairs(found) do
    local x, y, w, h = math.floor(f.box[1]), math.floor(f.box[2]), math.floor(f.box[3]), math.floor(f.box[4])
    for _, r in ipairs { { x, y, w, 1 }, { x, y + h, w, 1 }, { x, y, 1, h }, { x + w, y, 1, h } } do
      draw.rectangle(picture, r[1], r[2], r[3], r[4], { 0, 255, 0 })
    end
    for _, p in ipairs(f.points) do draw.rectangle(picture, math.floor(p[1]), math.floor(p[2]), 2, 2, { 255, 255, 0 }) end
    draw.text(picture, x + 2, y + 2, ("%.2f"):format(f.score), 1, { 255, 255, 0 })
  end
end

--- Finds the faces of held-out scenes, and draws the first of them.
local function evaluate(parts)
  local results, sheet = {}, tensor.zeros(3, 3 * SIZE, 4 * SIZE, "u8")
  net:eval()
  for first = 0, options.scenes - 1, 10 do
    local _open <close> = tensor.scope()
    local x, faces, pictures = batch_of(parts, HELD_OUT_SEED, first, math.min(10, options.scenes - first), SIZE)
    local output = feral.autograd.no_grad(net, x)
    for i = 1, #faces do
      local found = detector.decode(output:select(1, i), SIZE, SIZE, { score = 0.02 })
      local n = first + i
      results[n] = { found = found, faces = faces[i] }
      if n <= 12 then
        local shown, sure = pictures[i]:clone(), {}
        for _, f in ipairs(found) do sure[#sure + 1] = f.score >= 0.4 and f or nil end
        draw_faces(shown, sure)
        sheet:narrow(2, (n - 1) // 4 * SIZE + 1, SIZE):narrow(3, (n - 1) % 4 * SIZE + 1, SIZE):copy_(shown)
      end
    end
  end
  net:train()
  assert(image.save(path_of "look.png", sheet))
  return scenes.score(results)
end

local function report(sums, seconds, score)
  keep.log(path_of "log.txt", ("step %d  loss %.3f  boxes %.3f  points %.4f  |  found %.1f %% %.1f %% %.1f %% at 0.01, 0.1, 1 "
    .. "false boxes a scene, points off %.3f  |  %.1f scenes/s"):format(run.step, sums.loss / sums.count, sums.boxes / sums.count,
    sums.points / sums.count, 100 * score.recall[0.01], 100 * score.recall[0.1], 100 * score.recall[1], score.points,
    sums.scenes / seconds))
end

os.execute(("mkdir -p '%s'"):format(options.run))
local function read(held_out)
  return scenes.read {
    faces68 = options.faces68, fer2013 = options.fer2013, held_out = held_out, most = options.photographs,
  }
end
local parts, held_out = read(false), read(true)
print(("%d parameters; %d photographs, %d held out"):format(net:num_parameters(), #parts.photographs, #held_out.photographs))
keep.resume(path_of "checkpoint.safetensors", run)
local _held <close> = keep.hold_signals()
local last = math.min(options["until"] or options.steps, options.steps)
while run.step < last do
  local sums, started = { loss = 0, boxes = 0, points = 0, count = 0, scenes = 0 }, os.time()
  repeat
    train_step(parts, sums)
    keep.heed_signals(options.run .. "/checkpoint.safetensors", run)
  until run.step % options.epoch == 0 or run.step >= last
  local seconds = math.max(1, os.time() - started)
  run.ema:swap()
  local score = evaluate(held_out)
  assert(detector.save(net, path_of "detector.safetensors",
    { steps = run.step, recall = score.recall[0.1], threshold = score.threshold[0.1], points = score.points }))
  run.ema:swap()
  keep.save(path_of "checkpoint.safetensors", run)
  report(sums, seconds, score)
end
