local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local temporary = require "temporary"
local batches = require "batches"
local nn, optim, train, tensor = feral.nn, feral.optim, feral.train, feral.tensor

local T = {}

local function small_net()
  return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
end

--- A training that is the same each time but for what is changed in it.
local function options_for(net, more)
  local optimizer = optim.Adam(net:parameters(), { lr = 0.02 })
  local options = {
    train = batches { count = 6 }, validation = batches { count = 3, seed = 2 }, epochs = 4, progress = false,
    optimizer = optimizer, schedule = optim.schedule.cosine(optimizer, 4),
  }
  for key, value in pairs(more or {}) do options[key] = value end
  return options
end

local function bytes_of(net)
  local parts = {}
  for i, pair in ipairs(net:state()) do parts[i] = pair[2]:tobytes() end
  return table.concat(parts)
end

local function trained(more)
  tensor.manual_seed(7)
  local net = small_net()
  local history = train.fit(net, options_for(net, more))
  return net, history
end

function T.test_it_learns_and_tells_how()
  local net, history = trained { epochs = 12 }
  lu.assertEquals(#history, 12)
  lu.assertTrue(history[12].loss < history[1].loss)
  lu.assertTrue(history[history.best].validation_accuracy > 0.8)
  lu.assertTrue(net.training)
  local report = train.score(net, batches { count = 3, seed = 2 }, { "left", "right" })
  lu.assertAlmostEquals(report.accuracy, history[history.best].validation_accuracy, 1e-12)
  lu.assertEquals(report.count, 48)
end

function T.test_the_same_seed_gives_the_same_bits()
  lu.assertEquals(bytes_of((trained())), bytes_of((trained())))
end

function T.test_a_training_stopped_anywhere_goes_on_to_the_same_bits()
  local whole = bytes_of((trained()))
  for _, stop in ipairs { { 1, 2 }, { 2, 1 }, { 2, 4 }, { 4, 6 } } do
    local dir <close> = temporary.folder()
    local loader = batches { count = 6 }
    loader.trouble = function(epoch, i)
      if epoch == stop[1] and i == stop[2] then error("stopped on purpose") end
    end
    -- a checkpoint after each step: the state in the middle of an epoch is in it too
    local ok, message = pcall(trained, { train = loader, checkpoint = dir / "c", checkpoint_every = 0 })
    lu.assertFalse(ok)
    lu.assertStrContains(message, "on purpose")
    tensor.manual_seed(12345)
    tensor.rand(3)
    local net = small_net()
    train.fit(net, options_for(net, { checkpoint = dir / "c", resume = true }))
    lu.assertEquals(bytes_of(net), whole, ("stopped at epoch %d, batch %d"):format(stop[1], stop[2]))
  end
end

function T.test_what_is_no_loader_or_no_count_is_named()
  local net = small_net()
  local set = feral.data.synthetic { count = 7, size = 8 }
  for _, case in ipairs {
    { {}, "fit: option 'train' is missing" }, { { train = set }, "fit: train must be a loader (data.loader), got another table" },
    { { train = batches {}, validation = 5 }, "fit: validation must be a loader (data.loader), got number" },
    { { train = batches {}, epochs = 0 }, "fit: epochs must be a whole number from 1, got 0" },
    { { train = batches {}, epoch = 3 }, "fit: unknown option 'epoch', did you mean 'epochs'?" },
  } do
    lu.assertStrContains(check.message(train.fit, net, case[1]), case[2])
  end
  lu.assertStrContains(check.message(train.score, net, set), "evaluate: the data must be a loader")
  lu.assertStrContains(check.message(train.score, net, batches {}), "score: the names of the classes are missing")
end

function T.test_a_loaders_own_classes_name_the_scores()
  local set = feral.data.synthetic { count = 14, size = 8 }
  local net = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
  lu.assertEquals(train.score(net, feral.data.loader(set, { batch = 5 })).classes, set.classes)
end

function T.test_labels_that_do_not_fit_the_network_are_named()
  local set = feral.data.synthetic { count = 14, size = 8 }
  local net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
  local loader = feral.data.loader(set, { batch = 14, shuffle = false })
  lu.assertStrContains(check.message(train.fit, net, { train = loader, progress = false }), "label")
  lu.assertStrContains(check.message(train.score, net, loader), "label")
end

function T.test_resume_after_the_end_changes_nothing()
  local dir <close> = temporary.folder()
  local whole = bytes_of((trained { checkpoint = dir / "c" }))
  lu.assertEquals(bytes_of((trained { checkpoint = dir / "c", resume = true })), whole)
end

function T.test_a_checkpoint_of_another_network_is_refused()
  local dir <close> = temporary.folder()
  trained { checkpoint = dir / "c" }
  local other = nn.Sequential(nn.Linear(5, 3))
  local message = check.message(train.fit, other, options_for(other, { checkpoint = dir / "c", resume = true }))
  lu.assertStrContains(message, "does not fit this training")
end

function T.test_a_loss_that_is_no_number_is_named_and_the_checkpoint_kept()
  local dir <close> = temporary.folder()
  local loader = batches { count = 6 }
  local plain = loader.batch
  loader.batch = function(self, epoch, i)
    local x, y = plain(self, epoch, i)
    if epoch == 2 and i == 3 then x:fill_(0 / 0) end
    return x, y
  end
  local message = check.message(trained, { train = loader, checkpoint = dir / "c" })
  lu.assertStrMatches(message, ".*the loss is .*nan at epoch 2, step 3; the checkpoint before it stays in .*")
  lu.assertNotNil((feral.safetensors.load(dir / "c")))
end

function T.test_it_stops_when_nothing_gets_better_and_keeps_the_best()
  local net = nn.Sequential(nn.Linear(5, 2))
  local optimizer = optim.SGD(net:parameters(), { lr = 1e-12 })
  local history = train.fit(net, options_for(net, { epochs = 50, optimizer = optimizer, schedule = false, patience = 3 }))
  lu.assertEquals(#history, history.best + 3)
end

function T.test_the_log_is_a_table_of_all_epochs()
  local dir <close> = temporary.folder()
  trained { log = dir / "log.csv", epochs = 3 }
  local lines = {}
  for line in io.lines(dir / "log.csv") do lines[#lines + 1] = line end
  lu.assertEquals(#lines, 4)
  lu.assertStrContains(lines[1], "epoch,seconds,learning_rate,loss,accuracy,validation_loss")
  lu.assertStrMatches(lines[4], "3,.*,.*")
end

function T.test_ten_epochs_need_no_more_memory_than_one()
  local loader = batches { count = 6, n = 20000 }
  local x, y = loader:batch(1, 1)
  function loader.batch() return x, y end -- always the same: no tables that wait for the collector
  local function peak(epochs)
    collectgarbage()
    tensor.trim()
    tensor.reset_peak()
    local before = tensor.memory().live
    trained { epochs = epochs, train = loader }
    return tensor.memory().peak - before
  end
  peak(1)
  local one, ten = peak(1), peak(10)
  lu.assertTrue(ten < 1.2 * one, ("%d bytes for one epoch, %d for ten"):format(one, ten))
end

function T.test_frozen_layers_stay_as_they_are()
  tensor.manual_seed(3)
  local net = small_net()
  net:get(1):freeze()
  net:get(2):freeze()
  local function frozen_bytes()
    return net:get(1).weight:tobytes() .. net:get(2).running_mean:tobytes() .. net:get(2).weight:tobytes()
  end
  local before, head = frozen_bytes(), net:get(5).weight:tobytes()
  train.fit(net, options_for(net))
  lu.assertEquals(frozen_bytes(), before)
  lu.assertNotEquals(net:get(5).weight:tobytes(), head)
end

function T.test_a_step_survives_lack_of_memory_at_every_request()
  local net = small_net()
  local optimizer = optim.SGD(net:parameters(), { lr = 0.01, momentum = 0.9 })
  local x, y = batches {}:batch(1, 1)
  check.survives_lack_of_memory(function()
    local _step <close> = tensor.scope()
    optimizer:zero_grad()
    feral.loss.cross_entropy(net(x), y):backward()
    optimizer:step()
  end)
end

function T.test_signals_write_a_checkpoint_and_give_their_exit_codes()
  local dir <close> = temporary.folder()
  for _, case in ipairs { { "INT", 130 }, { "TERM", 143 } } do
    local checkpoint = dir / case[1]
    local script = temporary.write(dir / "train.lua", ([[
      package.path = "tests/support/?.lua;" .. package.path
      local feral = require "feral"
      local net = feral.nn.Sequential(feral.nn.Linear(5, 2))
      local loader = require "batches" { count = 1000000 }
      loader.trouble = function(_, i)
        if i == 20 then io.popen("kill -%s " .. io.open("/proc/self/stat"):read("n")):close() end
      end
      feral.train.fit(net, { train = loader, epochs = 1, progress = false, checkpoint = %q })]]):format(case[1], checkpoint))
    local _, _, code = os.execute(("exec %s %s 2>%s"):format(arg[-1], script, dir / "errors"))
    lu.assertEquals(code, case[2])
    local tensors, metadata = feral.safetensors.load(checkpoint)
    lu.assertNotNil(tensors)
    lu.assertStrContains(metadata.feral_checkpoint, '"batch":20')
  end
end

--- What the first epoch's line says when a loader has let wait for so many seconds.
local function line_after_waiting(seconds)
  local loader, lines, real_print = batches { count = 1 }, {}, print
  loader.waited = 0
  loader.trouble = function() loader.waited = loader.waited + seconds end
  print = function(line) lines[#lines + 1] = line end -- luacheck: ignore
  local ok, message = pcall(train.fit, small_net(), { train = loader, epochs = 1 })
  print = real_print -- luacheck: ignore
  assert(ok, message)
  return lines[#lines]
end

function T.test_long_waiting_for_data_is_told()
  lu.assertStrContains(line_after_waiting(1000), " % waiting for data")
  lu.assertNotStrContains(line_after_waiting(0), "waiting")
end

return T
