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
  local incomplete, misfit = "is no checkpoint: its state is not complete", "does not fit this training: "
  local run, dice = misfit .. "the state of 'run' is not complete", misfit .. "the state of 'random' is not complete"
  local cases = {
    { function() return "{" end, "is no checkpoint: " }, { function() return "5" end, "is no checkpoint: no object" },
    { function(s) s.data = nil end, incomplete }, { function(s) s.data = 3 end, incomplete },
    { function(s) s.version = 3 end, "is no checkpoint: it is of version 3, this feral reads 2" },
    { function(s) s.data.run.epoch = nil end, run }, { function(s) s.data.run.epoch = 0 end, run },
    { function(s) s.data.run.batch = -1 end, run }, { function(s) s.data.run.rows = 7 end, run },
    { function(s) s.data.run.sums = {} end, run }, { function(s) s.data.run.best = 50 end, run },
    { function(s) s.data.run = 5 end, run }, { function(s) s.data.run = nil end, misfit .. "it holds no state of 'run'" },
    { function(s) s.data.random = {} end, dice }, { function(s) s.data.random.count = "x" end, dice },
    { function(s) s.data.optimizer = nil end, misfit .. "it holds no state of 'optimizer'" },
    { function(s) s.data.schedule = nil end, misfit .. "it holds no state of 'schedule'" },
    { function(s) s.data.ema = {} end, misfit .. "it holds a state of 'ema', which takes no part in this one" },
    { function(_, t) t["net.1.weight"] = tensor.zeros(4, 6) end,
      misfit .. "load_state: '1.weight' is 4x6, the network expects 4x5" },
    { function(_, t) t["net.1.bias"] = nil end, misfit .. "load_state: there is no tensor '1.bias'" },
    { function(_, t) t["run.best.1.bias"] = nil end, misfit .. "load_state: there is no tensor '1.bias'" },
    { function(_, t) t["run.best.3.bias"] = tensor.zeros(3) end,
      misfit .. "load_state: '3.bias' is 3, the network expects 2" },
    { function(_, t) t["net.9.bias"] = tensor.zeros(3) end, misfit .. "load_state: the network has no tensor '9.bias'" },
    { function(_, t) t["optimizer.1.exp_avg"] = nil end, misfit .. "Adam: load_state: there is no tensor" },
  }
  for i, case in ipairs(cases) do
    lu.assertStrContains(refused(dir, changed(dir, case[1])), case[2], false, i)
  end
  lu.assertStrContains(check.message(fit, dir.path, 2), dir.path .. ": is a directory")
  local m = feral.model.new(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), { classes = { "a", "b" }, preprocessing = {
    height = 1, width = 2, channels = 1, mean = 0, std = 1,
  } })
  assert(m:save(dir / "model"))
  lu.assertStrContains(check.message(fit, dir / "model", 2), "is no checkpoint: ")
end

--- As they were written before a checkpoint was made of participants.
function T.test_a_checkpoint_of_the_first_version_goes_on_to_the_same_bits()
  local dir <close> = temporary.folder()
  local whole, whole_net = fit(nil, 4, { resume = false })
  fit(dir / "c", 2)
  local bytes = changed(dir, function(s, tensors)
    local names = {}
    for name in pairs(tensors) do names[#names + 1] = name end
    for _, name in ipairs(names) do
      local path = name:match("^run%.(best%..*)")
      if path then tensors[path], tensors[name] = tensors[name], nil end
    end
    local run = s.data.run
    run.sums.classified = nil
    return { epoch = run.epoch, batch = run.batch, sums = run.sums, rows = run.rows, best = run.best,
      optimizer = s.data.optimizer, schedule = s.data.schedule, random = s.data.random }
  end)
  local resumed, net = fit(temporary.write(dir / "old", bytes), 4)
  lu.assertEquals({ #resumed, resumed.best }, { 4, whole.best })
  for i, pair in ipairs(net:state()) do lu.assertEquals(pair[2]:tobytes(), whole_net:state()[i][2]:tobytes()) end
end

function T.test_another_training_is_refused_in_words()
  local dir <close> = temporary.folder()
  local mine = { batch = 64, seed = 1, net = "vgg", mirror = true, lr = 0.1 }
  fit(dir / "c", 1, { settings = mine })
  lu.assertEquals(#fit(dir / "c", 2, { settings = mine }), 2)
  local function refuses(text, more)
    lu.assertStrContains(check.message(fit, dir / "c", 3, more),
      ("fit: cannot resume: %s is of another training: %s"):format(dir / "c", text))
  end
  refuses("batch was 64, is 32; lr was 0.1, is 0.2; mirror was true, is not given",
    { settings = { batch = 32, seed = 1, net = "vgg", lr = 0.2 } })
  refuses("batches was 3, is 4", { settings = mine, train = batches { count = 4 } })
  refuses("select was accuracy, is loss", { settings = mine, select = "loss" })
  local net = nn.Linear(5, 2)
  refuses("optimizer was Adam, is SGD", { settings = mine, optimizer = optim.SGD(net:parameters()), schedule = false })
  local named = batches { count = 3 }
  named.classes = { "left", "right" }
  refuses("classes was not given, is left right", { settings = mine, train = named })
  lu.assertStrContains(check.message(fit, dir / "c", 3, { settings = { batch = {} } }),
    "fit: a setting must be a name with a text, number or boolean, got batch = table")
end

function T.test_who_takes_part_is_checked()
  local dir <close> = temporary.folder()
  fit(dir / "c", 1)
  lu.assertStrContains(check.message(fit, dir / "c", 2, { ema = 0.9 }), "does not fit this training: it holds no state of 'ema'")
  fit(dir / "e", 1, { ema = 0.9 })
  lu.assertStrContains(check.message(fit, dir / "e", 2),
    "does not fit this training: it holds a state of 'ema', which takes no part in this one")
  local function refuses(text, participants)
    lu.assertStrContains(check.message(fit, dir / "n", 1, { participants = participants }), text)
  end
  refuses("checkpoint: participant 'mine' must have state() and load_state()", { mine = {} })
  refuses("checkpoint: two participants have the name 'net'", { net = nn.Linear(1, 1) })
  refuses("checkpoint: a participant's name must be of letters, digits and _, got 'a.b'", { ["a.b"] = nn.Linear(1, 1) })
end

function T.test_a_loader_with_a_state_takes_part()
  local dir <close> = temporary.folder()
  local function loader()
    local new = batches { count = 3 }
    new.drawn = 0
    new.trouble = function() new.drawn = new.drawn + 1 end
    function new:state() return { drawn = self.drawn } end
    function new:load_state(state) self.drawn = state.drawn end
    return new
  end
  local second = loader()
  fit(dir / "c", 2, { train = loader() })
  fit(dir / "c", 3, { train = second })
  lu.assertEquals(second.drawn, 9)
end

function T.test_a_state_with_infinity_is_not_written()
  local dir <close> = temporary.folder()
  local function part(state) return { state = function() return state end, load_state = function() end } end
  lu.assertStrContains(check.message(fit, dir / "c", 1, { participants = { mine = part { a = { 1, 1 / 0 } } } }),
    "fit: the checkpoint cannot be written: " .. dir / "c: 'data.mine.a.2' holds infinity or NaN")
  lu.assertStrContains(check.message(fit, dir / "c", 1, { participants = { mine = part { { "t", tensor { 0 / 0 } } } } }),
    dir / "c: 'mine.t' holds infinity or NaN")
  lu.assertNil((files.look(dir / "c")))
end

function T.test_a_validation_of_infinity_is_no_obstacle()
  local dir <close> = temporary.folder()
  local values = { 0 / 0, 0.5 }
  local function metric() return table.remove(values, 1) or 1 end
  local history = fit(dir / "c", 2, { metrics = { mine = metric }, select = "mine" })
  lu.assertEquals(history.best, 2)
  history = fit(dir / "c", 3, { metrics = { mine = metric }, select = "mine" })
  lu.assertEquals({ history.best, history[1].validation_mine, history[2].validation_mine }, { 3, nil, 0.5 })
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
