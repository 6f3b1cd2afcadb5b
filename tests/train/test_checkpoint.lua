local lu = require "luaunit"
local feral = require "feral"
local files = require "feral.core.files"
local check, temporary, batches = require "check", require "temporary", require "batches"
local nn, optim, train, tensor = feral.nn, feral.optim, feral.train, feral.tensor
local json, safetensors = feral.json, feral.safetensors

local T = {}

--- Trains a small network for so many epochs, keeping and perhaps resuming a checkpoint.
local function fit(path, epochs, more)
  tensor.manual_seed(3)
  local net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm(4), nn.Linear(4, 2))
  local optimizer = optim.Adam(net:parameters(), { lr = 0.02 })
  local options = {
    train = batches { count = 3 }, validation = batches { count = 2, seed = 2 }, epochs = epochs, progress = false,
    optimizer = optimizer, schedule = optim.schedule.cosine(optimizer, 4), checkpoint = path, resume = true,
  }
  for name, value in pairs(more or {}) do options[name] = value end
  return train.fit(net, options), net
end

--- What resuming from these bytes says.
local function refused(dir, bytes)
  local path = temporary.write(dir / "damaged", bytes)
  local message = check.message(fit, path, 2)
  lu.assertStrContains(message, "fit: cannot resume: " .. path)
  return message
end

function T.test_a_file_cut_at_any_byte_is_refused_by_name()
  local dir <close> = temporary.folder()
  fit(dir / "c", 1)
  local bytes = files.read(dir / "c")
  for length = 0, #bytes - 1, 3 do refused(dir, bytes:sub(1, length)) end
end

--- The checkpoint with its state changed by f.
local function changed(dir, f)
  local tensors, metadata = safetensors.load(dir / "c")
  local state = json.decode(metadata.feral_checkpoint)
  state = f(state, tensors) or state
  local list, names = {}, {}
  for name in pairs(tensors) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do list[i] = { name, tensors[name] } end
  assert(safetensors.save(dir / "x", list, { feral_checkpoint = type(state) == "string" and state or json.encode(state) }))
  return files.read(dir / "x")
end

function T.test_a_damaged_state_is_refused_before_anything_is_believed()
  local dir <close> = temporary.folder()
  fit(dir / "c", 2)
  local incomplete = "is no checkpoint: its state is not complete"
  local cases = {
    { function() return "{" end, "is no checkpoint: " }, { function() return "5" end, "is no checkpoint: no object" },
    { function(s) s.epoch = nil end, incomplete }, { function(s) s.epoch = 0 end, incomplete },
    { function(s) s.batch = -1 end, incomplete }, { function(s) s.rows = 7 end, incomplete },
    { function(s) s.random = nil end, incomplete }, { function(s) s.random.count = "x" end, incomplete },
    { function(s) s.sums = {} end, incomplete }, { function(s) s.best = 50 end, incomplete },
    { function(s) s.optimizer = nil end, "does not fit this training: " },
    { function(s) s.schedule = nil end, "does not fit this training: " },
    { function(_, t) t["net.1.weight"] = tensor.zeros(4, 6) end,
      "does not fit this training: load_state: '1.weight' is 4x6, the network expects 4x5" },
    { function(_, t) t["net.1.bias"] = nil end, "does not fit this training: load_state: there is no tensor '1.bias'" },
    { function(_, t) t["best.1.bias"] = nil end, "does not fit this training: load_state: there is no tensor '1.bias'" },
    { function(_, t) t["best.3.bias"] = tensor.zeros(3) end,
      "does not fit this training: load_state: '3.bias' is 3, the network expects 2" },
    { function(_, t) t["net.9.bias"] = tensor.zeros(3) end,
      "does not fit this training: load_state: the network has no tensor '9.bias'" },
    { function(_, t) t["optimizer.1.exp_avg"] = nil end, "does not fit this training: Adam: load_state: there is no tensor" },
  }
  for i, case in ipairs(cases) do
    lu.assertStrContains(refused(dir, changed(dir, case[1])), case[2], false, i)
  end
  lu.assertStrContains(check.message(fit, dir.path, 2), dir.path .. ": is a directory")
  local m = feral.model.new(nn.Linear(2, 2), { classes = { "a", "b" }, preprocessing = {
    height = 1, width = 2, channels = 1, mean = 0, std = 1,
  } })
  assert(m:save(dir / "model"))
  lu.assertStrContains(check.message(fit, dir / "model", 2), "is no checkpoint: ")
end

function T.test_a_checkpoint_that_cannot_be_written_is_named()
  local dir <close> = temporary.folder()
  lu.assertStrContains(check.message(fit, dir / "no/such/folder/c", 1),
    "fit: the checkpoint cannot be written: " .. dir / "no/such/folder/c: No such file or directory")
end

function T.test_the_history_goes_on_where_it_was()
  local dir <close> = temporary.folder()
  local whole = fit(nil, 4, { resume = false })
  fit(dir / "c", 2)
  local resumed = fit(dir / "c", 4)
  lu.assertEquals(#resumed, 4)
  lu.assertEquals(resumed.best, whole.best)
  for i, row in ipairs(whole) do
    for _, name in ipairs { "epoch", "count", "loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate" } do
      lu.assertEquals(resumed[i][name], row[name], name)
    end
  end
end

function T.test_resume_without_a_checkpoint_is_a_mistake_and_without_a_file_a_beginning()
  local dir <close> = temporary.folder()
  lu.assertStrContains(check.message(fit, false, 1), "fit: resume needs option 'checkpoint'")
  lu.assertEquals(#fit(dir / "new", 1), 1)
  lu.assertNotNil((files.look(dir / "new")))
end

return T
