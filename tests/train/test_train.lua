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
  lu.assertFalse(net.training)
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

--- Everything at once: soft labels, macro F1 as selection, averages, a warm-up, a participant of the script's own.
local function options_of_all(net, more)
  local optimizer = optim.AdamW(optim.decay_groups(net, 0.01), { lr = 0.02 })
  local counter = { steps = 0 }
  function counter:state() return { steps = self.steps } end
  function counter:load_state(state) self.steps = state.steps end
  local options = options_for(net, {
    train = batches { count = 6, soft = true }, validation = batches { count = 3, seed = 2, soft = true }, optimizer = optimizer,
    schedule = optim.schedule.warmup(optim.schedule.cosine(optimizer, 3), 1), ema = optim.ema(net, 0.8), metrics = { "ece" },
    select = "macro_f1", participants = { counter = counter },
    loss = function(logits, y)
      if net.training then counter.steps = counter.steps + 1 end
      return feral.loss.cross_entropy(logits, y, { smoothing = counter.steps / 1000 })
    end,
  })
  for key, value in pairs(more or {}) do options[key] = value end
  return options
end

function T.test_a_training_with_everything_goes_on_to_the_same_bits_wherever_it_stopped()
  local function trained_with_all(more)
    tensor.manual_seed(7)
    local net = small_net()
    return net, train.fit(net, options_of_all(net, more))
  end
  local net, history = trained_with_all()
  local whole = bytes_of(net)
  for _, stop in ipairs { { 1, 4 }, { 3, 1 }, { 4, 6 } } do
    local dir <close> = temporary.folder()
    local loader = batches { count = 6, soft = true }
    loader.trouble = function(epoch, i)
      if epoch == stop[1] and i == stop[2] then error("stopped on purpose") end
    end
    lu.assertStrContains(check.message(trained_with_all, { train = loader, checkpoint = dir / "c", checkpoint_every = 0 }),
      "on purpose")
    tensor.manual_seed(12345)
    local again = small_net()
    local resumed = train.fit(again, options_of_all(again, { checkpoint = dir / "c", resume = true }))
    lu.assertEquals(bytes_of(again), whole, ("stopped at epoch %d, batch %d"):format(stop[1], stop[2]))
    lu.assertEquals({ resumed.best, resumed[4].learning_rate, resumed[4].validation_ece },
      { history.best, history[4].learning_rate, history[4].validation_ece })
  end
end

--- Four batches of two samples of two classes: as many samples as classes, so that shapes fit where they must not be compared.
function T.test_soft_labels_train_and_are_scored_by_their_largest()
  local function soft(n) return batches { count = 48 // n, n = n, soft = true, seed = 5 } end
  for _, n in ipairs { 2, 16 } do
    local net = small_net()
    local history = train.fit(net, options_for(net, { train = soft(n), validation = soft(n), epochs = 8 }))
    lu.assertTrue(history[8].accuracy > 0.6 and history[8].accuracy <= 1, history[8].accuracy)
    local result = train.evaluate(net, soft(n))
    lu.assertEquals({ result.labels.dtype, result.labels.shape, result.targets.shape }, { "i32", { 48 }, { 48, 2 } })
    lu.assertEquals(feral.metrics.accuracy(result.targets, result.predictions),
      feral.metrics.accuracy(result.labels, result.predictions))
    lu.assertAlmostEquals(feral.metrics.log_loss(result.targets, result.probabilities), result.loss, 1e-5)
    lu.assertEquals(train.score(net, soft(n), { "left", "right" }).count, 48)
  end
end

--- A loader whose batches tell of their samples; the wrong half of the labels weighs nothing.
local function weighted(more)
  local loader = batches(more)
  local plain = loader.batch
  function loader:batch(epoch, i)
    local x, y = plain(self, epoch, i)
    local weights, labels = {}, y:totable()
    for k = 1, #labels do
      weights[k] = k % 2
      if k % 2 == 0 then labels[k] = 3 - labels[k] end
    end
    return x, tensor(labels, "i32"), { weight = tensor(weights), index = y }
  end
  return loader
end

function T.test_weights_of_samples_reach_loss_and_result()
  local net = small_net()
  train.fit(net, options_for(net, {
    train = weighted {}, validation = weighted { seed = 2 }, epochs = 12, schedule = false, select = "loss",
  }))
  local truth = batches { count = 3, seed = 9 }
  local result = train.evaluate(net, truth)
  lu.assertTrue(feral.metrics.accuracy(result.labels, result.predictions) > 0.75)
  result = train.evaluate(net, weighted { count = 3, seed = 9 })
  lu.assertEquals({ result.weight.shape, result.weight:sum():item(), result.index.shape }, { { 48 }, 24, { 48 } })
  lu.assertNil(result.votes)
end

function T.test_an_own_loss_gets_scores_labels_and_what_the_batch_tells()
  local net, seen = small_net(), 0
  local function loss(logits, y, batch)
    lu.assertEquals({ logits.shape, y.shape, batch.weight.shape }, { { 16, 2 }, { 16 }, { 16 } })
    seen = seen + 1
    return feral.loss.cross_entropy(logits, y)
  end
  train.fit(net, options_for(net, { train = weighted {}, validation = weighted { count = 2 }, epochs = 1, loss = loss }))
  lu.assertEquals(seen, 8)
end

--- Numbers to meet instead of classes.
local function numbers()
  local loader = batches { count = 4 }
  local plain = loader.batch
  function loader:batch(epoch, i)
    local x = plain(self, epoch, i)
    return x, x:narrow(2, 1, 3) * 0.5
  end
  return loader
end

function T.test_what_is_no_classification_is_measured_by_loss_or_functions()
  local net = nn.Sequential(nn.Linear(5, 2))
  local function loss(logits, y) return feral.loss.mse(logits, y:narrow(2, 1, 2)) end
  local options = { train = numbers(), validation = numbers(), loss = loss, epochs = 3, progress = false }
  lu.assertStrContains(check.message(train.fit, net, options),
    "fit: metric 'accuracy' needs labels of classes (i32 N or f32 N x K) and scores N x K")
  local function worst(r) return -(r.logits - r.targets:narrow(2, 1, 2)):abs():max():item() end
  options.metrics, options.select = { worst = worst }, "loss"
  local history = train.fit(net, options)
  lu.assertNil(history[3].accuracy)
  lu.assertEquals({ history.best, history.metrics, history.select }, { 3, { "worst", "loss" }, "loss" })
  lu.assertTrue(history[3].validation_worst < 0)
  lu.assertStrContains(check.message(train.score, net, numbers(), { "a", "b" }), "cross_entropy: labels are ")
end

--- A validation that gives these values, one an epoch.
local function scripted(values, select, more)
  local net, epoch = small_net(), 0
  local options = options_for(net, {
    epochs = #values, select = select, metrics = { scripted = function()
      epoch = epoch + 1
      return values[epoch]
    end },
  })
  for name, value in pairs(more or {}) do options[name] = value end
  return train.fit(net, options), net
end

function T.test_the_selection_says_what_is_best()
  lu.assertEquals(scripted({ 1, 3, 3, 2 }, "scripted").best, 2) -- of equal ones the first
  lu.assertEquals(scripted({ 2, 3, 1, 1 }, { "scripted", "min" }).best, 3)
  lu.assertEquals(scripted({ 0 / 0, 1, math.huge, 0.5 }, "scripted").best, 2)
  lu.assertNil(scripted({ 0 / 0, -math.huge }, "scripted").best)
  lu.assertEquals(#scripted({ 5, 4, 3, 2, 1, 0 }, "scripted", { patience = 2 }), 3)
  lu.assertEquals(scripted({ 1, 2, 3 }, function(result) return -result.count * 0 end).best, 1)
end

function T.test_each_metric_is_in_history_and_log()
  local dir <close> = temporary.folder()
  local net, history = trained { metrics = { "balanced", "macro_f1", "log_loss" }, select = "balanced", log = dir / "log",
    epochs = 2 }
  local result = train.evaluate(net, batches { count = 3, seed = 2 })
  local row = history[history.best]
  lu.assertAlmostEquals(row.validation_balanced, feral.metrics.balanced(result.labels, result.predictions), 1e-12)
  lu.assertAlmostEquals(row.validation_macro_f1, feral.metrics.macro_f1(result.labels, result.predictions), 1e-12)
  lu.assertAlmostEquals(row.validation_log_loss, row.validation_loss, 1e-5)
  lu.assertNil(row.validation_accuracy)
  local first = io.lines(dir / "log")()
  lu.assertStrContains(first, "accuracy,validation_loss,validation_balanced,validation_macro_f1,validation_log_loss")
end

function T.test_metrics_and_selections_that_cannot_be_are_named()
  local function refuses(text, more)
    local net = small_net()
    lu.assertStrContains(check.message(train.fit, net, options_for(net, more)), text)
  end
  refuses("fit: metric 'acuracy' is unknown, did you mean 'accuracy'?", { metrics = { "acuracy" } })
  refuses("fit: metric 'f1' is unknown", { select = "f1" })
  refuses("fit: select must say \"min\" or \"max\", got 'low'", { select = { "loss", "low" } })
  refuses("fit: the name 'loss' belongs to a metric of the library's", { metrics = { loss = function() return 1 end } })
  refuses("fit: a metric must be a name, or name = function(result), got mine = number", { metrics = { mine = 3 } })
  refuses("fit: metric 'mine' must give a number, got nil", { metrics = { mine = function() end } })
  refuses("fit: metrics must be a list of names, got string", { metrics = "accuracy" })
  refuses("fit: option 'select' needs option 'validation'", { validation = false, select = "loss" })
  refuses("fit: option 'patience' needs option 'validation'", { validation = false, patience = 3 })
  refuses("fit: schedule must be one of optim.schedule", { schedule = "cosine" })
  refuses("optim.new: optimiser 'sdg' is unknown, did you mean 'sgd'?", { optimizer = "sdg" })
end

function T.test_an_optimiser_by_name_and_a_schedule_of_it()
  local history = select(2, trained {
    optimizer = { "sgd", lr = 0.1, momentum = 0.9 }, schedule = function(opt) return optim.schedule.step(opt, 2) end,
  })
  lu.assertAlmostEquals(history[1].learning_rate, 0.1, 1e-9)
  lu.assertAlmostEquals(history[4].learning_rate, 0.01, 1e-9)
  lu.assertEquals(#select(2, trained { optimizer = "adam", schedule = false, epochs = 1 }), 1)
end

function T.test_a_warm_up_is_followed_within_epochs()
  local rates, net = {}, small_net()
  local optimizer = optim.SGD(net:parameters(), { lr = 0.1 })
  local plain = optimizer.step
  function optimizer:step()
    rates[#rates + 1] = self.lr
    plain(self)
  end
  train.fit(net, options_for(net, {
    optimizer = optimizer, schedule = optim.schedule.warmup(optim.schedule.cosine(optimizer, 3), 1, { start = 0 }),
  }))
  for i, rate in ipairs(rates) do
    local time = (i - 1) / 6
    lu.assertAlmostEquals(rate, time < 1 and 0.1 * time or 0.05 * (1 + math.cos(math.pi * (time - 1) / 3)), 1e-12)
  end
end

function T.test_a_plateau_looks_at_the_loss_or_upwards_at_the_selection()
  local function rate_after(values, mode)
    local opt
    local history = scripted(values, "scripted", { schedule = function(optimizer)
      opt = optimizer
      return optim.schedule.plateau(optimizer, { mode = mode, patience = 0, threshold = 0 })
    end })
    return opt.lr, history
  end
  lu.assertAlmostEquals(rate_after({ 1, 2, 3 }, "max"), 0.02, 1e-12)
  lu.assertAlmostEquals(rate_after({ 3, 2, 1 }, "max"), 0.0002, 1e-12)
  local net = small_net()
  lu.assertStrContains(check.message(train.fit, net, options_for(net, { validation = false, schedule = function(optimizer)
    return optim.schedule.plateau(optimizer, { mode = "max" })
  end })), "fit: a plateau with mode = \"max\" looks at the selection, which needs option 'validation'")
end

function T.test_averages_are_what_is_validated_kept_and_left()
  local kept, net = {}, small_net()
  local ema = optim.ema(net, 0.9)
  local history = train.fit(net, options_for(net, {
    ema = ema, epochs = 3, keep = function(best, row)
      kept[row.epoch] = bytes_of(best)
      return true
    end,
  }))
  lu.assertEquals(bytes_of(net), kept[history.best])
  local result = train.evaluate(net, batches { count = 3, seed = 2 })
  lu.assertEquals(history[history.best].validation_loss, result.loss)
  -- without validation the last averages
  net = small_net()
  ema = optim.ema(net, 0.9)
  train.fit(net, options_for(net, { ema = ema, epochs = 1, validation = false, keep = function(last)
    kept = bytes_of(last)
    return true
  end }))
  lu.assertEquals(bytes_of(net), kept)
  ema:swap()
  lu.assertNotEquals(bytes_of(net), kept)
  lu.assertEquals(#select(2, trained { ema = 0.5, epochs = 1 }), 1)
end

function T.test_averages_follow_each_step()
  local function last(ema) return (trained { ema = ema, validation = false, epochs = 2 }) end
  local plain, without_memory = last():state(), last(0):state()
  for i, pair in ipairs(plain) do check.close(without_memory[i][2], pair[2], 1e-5, pair[1]) end
  lu.assertNotEquals(bytes_of(last(0.9)), bytes_of(last()))
end

function T.test_an_epoch_whose_validation_loss_is_no_number_is_never_best()
  local net, passes = small_net(), 0
  local function loss(logits, y)
    local value = feral.loss.cross_entropy(logits, y)
    if #y ~= 8 then return value end -- training
    passes = passes + 1
    return passes == 1 and value * math.huge or value
  end
  local history = train.fit(net, options_for(net, {
    loss = loss, validation = batches { count = 1, n = 8 }, epochs = 3, metrics = { flat = function() return 1 end },
    select = "flat",
  }))
  lu.assertEquals({ history[1].validation_loss, history.best }, { math.huge, 2 })
end

function T.test_test_data_are_scored_once_with_the_best_weights()
  local test, passes = batches { count = 2, seed = 3 }, 0
  local plain = test.batches
  test.classes = { "left", "right" }
  function test:batches(...)
    passes = passes + 1
    return plain(self, ...)
  end
  local net, history = trained { test = test }
  lu.assertEquals({ passes, history.test.count }, { 1, 32 })
  lu.assertEquals(history.test.accuracy, train.score(net, test).accuracy)
  local validation = batches { count = 2 }
  lu.assertStrContains(check.message(trained, { validation = validation, test = validation }),
    "fit: test is the data of validation: a score on what training has seen is no score")
  local set = feral.data.synthetic { count = 14, size = 8 }
  local function loader() return feral.data.loader(set, { batch = 7 }) end
  lu.assertStrContains(check.message(trained, { train = loader(), test = loader() }), "fit: test is the data of train: ")
end

function T.test_modes_of_the_network()
  local net = small_net()
  net:get(4):eval()
  train.evaluate(net, batches { count = 1 })
  lu.assertEquals({ net.training, net:get(4).training, net:get(1).training }, { true, false, true })
  lu.assertFalse(trained().training)
  local loader = batches {}
  loader.trouble = function() error("on purpose") end
  check.message(train.fit, net, options_for(net, { train = loader }))
  lu.assertFalse(net.training)
end

function T.test_a_loader_without_samples_is_named()
  local net = small_net()
  lu.assertStrContains(check.message(train.evaluate, net, batches { count = 0 }), "evaluate: the loader has no samples")
  lu.assertStrContains(check.message(train.fit, net, options_for(net, { train = batches { count = 0 } })),
    "fit: the training loader has no batches")
end

function T.test_weights_that_are_no_numbers_are_never_written_nor_best()
  local dir <close> = temporary.folder()
  local function spoil(epoch, value)
    local net = small_net()
    local optimizer = optim.SGD(net:parameters(), { lr = 0.01 })
    local steps, plain = 0, optimizer.step
    function optimizer:step()
      plain(self)
      steps = steps + 1
      -- the last step of the epoch: no loss can show it any more
      if steps == epoch * 6 then self.params[1]:detach():fill_(value) end
    end
    return net, options_for(net, { optimizer = optimizer, schedule = false, checkpoint = dir / "c", keep = function(best)
      lu.assertNil(tostring(best:get(1).weight):find("nan"))
      return true
    end })
  end
  for _, value in ipairs { 0 / 0, math.huge } do
    lu.assertStrContains(check.message(train.fit, spoil(2, value)), "'1.weight' holds infinity or NaN after epoch 2, step 6; "
      .. "the checkpoint before it stays in " .. dir / "c")
    lu.assertNil(require "feral.train.checkpoint".not_finite((function()
      local list = {}
      for name, t in pairs(feral.safetensors.load(dir / "c")) do list[#list + 1] = { name, t } end
      return list
    end)()))
    os.remove(dir / "c")
  end
end

function T.test_a_checkpoint_of_an_earlier_training_is_set_aside()
  local dir <close> = temporary.folder()
  trained { checkpoint = dir / "c", epochs = 1 }
  local before = feral.files.read(dir / "c")
  local script = temporary.write(dir / "train.lua", ([[
    package.path = "tests/support/?.lua;" .. package.path
    local feral = require "feral"
    local net = feral.nn.Sequential(feral.nn.Linear(5, 2))
    feral.train.fit(net, { train = require "batches" {}, epochs = 2, progress = false, checkpoint = %q })]]):format(dir / "c"))
  os.execute(("%s %s 2>%s"):format(arg[-1], script, dir / "errors"))
  lu.assertEquals(feral.files.read(dir / "errors"), ("the checkpoint of an earlier training is now %s.old\n"):format(dir / "c"))
  lu.assertTrue(feral.files.read(dir / "c.old") == before)
  lu.assertFalse(feral.files.read(dir / "c") == before)
end

function T.test_finish_makes_do_with_the_best_weights()
  local dir <close> = temporary.folder()
  local loader = batches { count = 6 }
  loader.trouble = function(epoch, i)
    if epoch == 3 and i == 4 then error("stopped on purpose") end
  end
  local kept
  check.message(trained, { train = loader, checkpoint = dir / "c", checkpoint_every = 0, keep = function(net)
    kept = bytes_of(net)
    return true
  end })
  local test = batches { count = 2, seed = 3 }
  test.classes = { "left", "right" }
  local net, history = trained { train = loader, checkpoint = dir / "c", finish = true, test = test }
  lu.assertEquals({ #history, history.test.count }, { 2, 32 })
  lu.assertEquals(bytes_of(net), kept)
  lu.assertStrContains(check.message(trained, { checkpoint = dir / "none", finish = true }),
    "fit: finish: there is no checkpoint " .. dir / "none")
  lu.assertStrContains(check.message(trained, { finish = true }), "fit: finish needs option 'checkpoint'")
  loader.trouble = function(_, i)
    if i == 3 then error("stopped on purpose") end
  end
  check.message(trained, { train = loader, checkpoint = dir / "early", checkpoint_every = 0 })
  lu.assertStrContains(check.message(trained, { checkpoint = dir / "early", finish = true }),
    "fit: finish: no epoch has been validated yet (epoch 1, after step 2)")
end

function T.test_the_best_weights_are_kept_as_a_model()
  local dir <close> = temporary.folder()
  local set, other = feral.data.synthetic { count = 28, size = 8 }, feral.data.synthetic { count = 14, size = 8, seed = 2 }
  local net = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
  local loader, validation = feral.data.loader(set, { batch = 7 }), feral.data.loader(other, { batch = 7 })
  local options = { train = loader, validation = validation, epochs = 2, progress = false, keep = dir / "best" }
  local history = train.fit(net, options)
  local model = assert(feral.model.load(dir / "best"))
  lu.assertEquals({ model.classes, model.card.epoch }, { set.classes, history.best })
  lu.assertEquals(bytes_of(model.net), bytes_of(net))
  options.keep = dir / "no/such/folder"
  lu.assertStrContains(check.message(train.fit, net, options), "fit: the model cannot be kept: ")
  lu.assertStrContains(check.message(trained, { keep = dir / "x" }),
    "fit: keep needs a training loader with classes and preprocessing; else give function(net, row)")
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
