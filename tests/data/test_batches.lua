--- The thread that makes batches ahead: what it makes, and that it ends.

local lu = require "luaunit"
local feral = require "feral"
local core = require "feral.core.batches"
local source = require "feral.core.source"
local scope = require "feral.core.scope"
local check = require "check"
local naive_batches = require "naive_batches"
local program = require "program"
local threads = require "threads"
local data, tensor = feral.data, feral.tensor

local T = {}

local steps = feral.steps
local full = steps {
  steps.rotate(25), steps.shift(0.2), steps.zoom(0.2), steps.mirror(0.5), steps.brightness(0.3), steps.contrast(0.3),
  steps.noise(0.1), steps.erase(),
}

--- n samples of random bytes in three classes.
local function random_set(n, channels, height, width, frames)
  local shape, labels = { n, channels, height, width }, {}
  if frames then table.insert(shape, 2, frames) end
  for i = 1, n do labels[i] = check.integer(1, 3) end
  local images = tensor.uniform(shape, 0, 255.99):to("u8")
  return data.set { images = images, labels = labels, classes = { "a", "b", "c" } }
end

local function random_loader()
  local n, frames = check.integer(1, 30), check.integer(1, 4)
  local set = random_set(n, 1 + 2 * check.integer(0, 1), check.integer(1, 20), check.integer(1, 20), frames > 1 and frames or nil)
  local batch = check.integer(1, 12)
  return data.loader(set, {
    batch = batch, seed = n, shuffle = check.integer(0, 2) > 0, drop_last = batch <= n and check.integer(0, 1) == 0,
    augment = check.integer(0, 2) > 0 and full or nil, mean = 0.4,
  })
end

local function assert_batch(x, y, expected)
  lu.assertEquals(x.shape, expected[1].shape)
  if x:size(-3) > 1 then lu.assertEquals(x:strides(), expected[1]:strides()) end
  lu.assertTrue(x:tobytes() == expected[1]:tobytes())
  lu.assertEquals(y:totable(), expected[2])
  lu.assertEquals(y.dtype, "i32")
end

function T.test_batches_are_those_made_one_after_another()
  for _ = 1, 200 do
    local loader <const>, epoch <const> = random_loader(), check.integer(0, 5)
    local _open <close> = tensor.scope()
    local expected, b = naive_batches(loader, epoch), check.integer(1, #loader)
    for x, y in loader:batches(epoch, b) do
      assert_batch(x, y, expected[b])
      b = b + 1
    end
    lu.assertEquals(b, #loader + 1)
  end
end

--- So large that the caller's threads help.
function T.test_large_images()
  local loader = data.loader(random_set(5, 3, 70, 90), { batch = 2, augment = full })
  local expected, b = naive_batches(loader, 1), 0
  for x, y in loader:batches(1) do
    b = b + 1
    assert_batch(x, y, expected[b])
  end
  lu.assertEquals(b, 3)
end

function T.test_the_number_of_threads_does_not_matter()
  local script = [[
    local feral = require "feral"
    local images = feral.tensor.uniform({ 40, 1, 60, 60 }, 0, 255.99):to "u8"
    local labels = {}
    for i = 1, 40 do labels[i] = 1 + i % 2 end
    local set = feral.data.set { images = images, labels = labels, classes = { "a", "b" } }
    local options = { batch = 16, normalize = "set",
      augment = { feral.steps.rotate(20), feral.steps.mirror(), feral.steps.contrast(0.2), feral.steps.mixup() } }
    for x, y in feral.data.loader(set, options):batches(3) do
      local sum = 0
      for word in x:tobytes():gmatch "...." do sum = (sum * 31 + string.unpack("<I4", word)) & 0xFFFFFFFF end
      print(sum, table.concat(y:argmax(2):totable(), " "))
    end]]
  local one = threads.run(1, script)
  lu.assertStrMatches(one, "%d+\t[12 ]+\n%d+\t[12 ]+\n%d+\t[12 ]+\n")
  lu.assertEquals(threads.run(2, script), one)
  lu.assertEquals(threads.run(5, script), one)
end

function T.test_epochs_may_run_side_by_side()
  local loader = data.loader(random_set(20, 1, 9, 9), { batch = 3, augment = full })
  local expected = { naive_batches(loader, 1), naive_batches(loader, 2), naive_batches(loader, 2) }
  local running = { loader:batches(1), (loader:batches(2)), (loader:batches(2)) }
  running[2], running[3] = loader:batches(2), (loader:batches(2))
  for b = 1, #loader do
    for k, next_batch in ipairs(running) do
      local x, y = next_batch()
      assert_batch(x, y, expected[k][b])
    end
  end
  for _, next_batch in ipairs(running) do
    lu.assertNil(next_batch())
    lu.assertNil(next_batch())
  end
end

---- The end ----

--- How many threads this process has; nil where the system does not tell.
local function thread_count()
  local file = io.open("/proc/self/status")
  if not file then return nil end
  local count = file:read("a"):match("Threads:%s*(%d+)")
  file:close()
  return math.tointeger(count)
end

--- That there are so many threads again. Linux counts a thread for a moment after it has been joined, so some readings may pass.
local function assert_back_at(count)
  local found
  for _ = 1, 20000 do
    found = thread_count()
    if found == count then return end
  end
  lu.assertEquals(found, count)
end

function T.test_the_thread_ends_in_every_way()
  local loader = data.loader(random_set(40, 1, 80, 80), { batch = 4, augment = full })
  for _ in loader:batches(1) do tensor.trim() end -- OpenMP's own threads are there from here on
  local before = thread_count()
  if not before then return print("\nskipped: this system does not tell how many threads there are") end
  --- Whether f succeeds; the thread must have ended then.
  local function ends(f)
    local ok, message = pcall(f)
    assert_back_at(before)
    return ok, message
  end
  assert(ends(function()
    for _ in loader:batches(1) do lu.assertEquals(thread_count(), before + 1) end
  end))
  assert(ends(function()
    for _ in loader:batches(1) do break end -- luacheck: ignore
  end))
  lu.assertFalse(ends(function()
    for _ in loader:batches(1) do error("in the middle") end
  end))
  assert(ends(function()
    local _, _, _, batches = loader:batches(1)
    lu.assertEquals(thread_count(), before + 1)
    batches:close()
    batches:close()
    lu.assertNil(batches:next())
  end))
  assert(ends(function()
    local next_batch = loader:batches(1)
    next_batch()
    next_batch = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end))
  assert(ends(function()
    local epoch = coroutine.create(function()
      for _ in loader:batches(1) do coroutine.yield() end
    end)
    assert(coroutine.resume(epoch))
    lu.assertEquals(thread_count(), before + 1)
    assert(coroutine.close(epoch))
  end))
end

--- However the program ends while the thread works, it ends, with its own exit code.
function T.test_the_program_may_end_in_the_middle()
  local start = [[
    local feral = require "feral"
    local images = feral.tensor.zeros({ 64, 1, 200, 200 }, "u8")
    local labels = {}
    for i = 1, 64 do labels[i] = 1 end
    local set = feral.data.set { images = images, labels = labels, classes = { "a" } }
    next_batch = feral.data.loader(set, { batch = 16, augment = { feral.steps.rotate(20) } }):batches(1)
    next_batch()
    print(io.popen("echo child"):read())
  ]]
  for _, finish in ipairs { "", "os.exit(true)", "os.exit(true, true)", "next_batch = nil collectgarbage()" } do
    lu.assertEquals(threads.run(2, start .. finish), "child\n")
  end
end

--- A training that fails, or is interrupted, leaves nothing running behind.
function T.test_the_thread_ends_with_the_training()
  local net = feral.nn.Sequential(feral.nn.Flatten(), feral.nn.Linear(36, 3))
  local loader = data.loader(random_set(40, 1, 6, 6), { batch = 4 })
  local before = thread_count()
  if not before then return print("\nskipped: this system does not tell how many threads there are") end
  local function fails() error("in the middle") end
  lu.assertFalse(pcall(feral.train.fit, net, { train = loader, loss = fails, epochs = 1, progress = false }))
  lu.assertFalse(pcall(feral.train.evaluate, net, loader, fails))
  assert_back_at(before)
end

function T.test_signals_go_to_the_main_thread()
  local code = [[
    local feral = require "feral"
    local images = feral.tensor.zeros({ 500, 1, 90, 90 }, "u8")
    local labels = {}
    for i = 1, 500 do labels[i] = 1 end
    local set = feral.data.set { images = images, labels = labels, classes = { "a" } }
    local loader = feral.data.loader(set, { batch = 2, augment = { feral.steps.rotate(20) } })
    for epoch = 1, math.huge do
      for _ in loader:batches(epoch) do
        local _open <close> = feral.tensor.scope()
        if epoch == 1 then io.write("ready\n") io.flush() epoch = 0 end
      end
    end]]
  local output, exit = program.signal(code, "INT")
  lu.assertStrContains(output, "interrupted!")
  lu.assertEquals(exit, 130)
end

---- Memory ----

function T.test_a_batch_that_finds_no_memory_can_be_had_later()
  local loader = data.loader(random_set(13, 1, 5, 5, 2), { batch = 3, augment = full })
  local expected = naive_batches(loader, 1)
  local next_batch, _, _, batches <close> = loader:batches(1) -- luacheck: ignore
  for b = 1, #loader do
    local _open <close> = tensor.scope()
    local x, y
    for n = 0, 100 do
      tensor.trim()
      scope.fail_after(n)
      local ok
      ok, x, y = pcall(next_batch)
      scope.fail_after()
      if ok then break end
      lu.assertStrContains(x, "not enough memory")
    end
    assert_batch(x, y, expected[b])
  end
end

function T.test_survives_lack_of_memory()
  local loader = data.loader(random_set(9, 3, 6, 5), { batch = 2, augment = full })
  check.survives_lack_of_memory(function()
    for _ in loader:batches(1) do
      local _open <close> = tensor.scope()
    end
  end)
end

--- Three batches: the one in use and two ahead.
function T.test_memory_is_bounded()
  local loader = data.loader(random_set(64, 1, 40, 40), { batch = 8 })
  local size = 8 * 40 * 40 * (check.is_double and 8 or 4)
  local function epoch()
    local next_batch, _, _, batches <close> = loader:batches(1) -- luacheck: ignore
    repeat
      local _open <close> = tensor.scope()
    until not next_batch()
  end
  epoch()
  tensor.trim()
  collectgarbage()
  local before = tensor.memory().live
  tensor.reset_peak()
  epoch()
  local peak = tensor.memory().peak - before
  local rooms = 3 * 2 * size // 8 -- two images for the thread and for each of two helpers
  lu.assertTrue(peak < 3.5 * size + rooms + 40000, ("%.2f batches"):format(peak / size))
end

function T.test_released_images_stay_while_a_queue_reads_them()
  local queue
  do
    local _open <close> = tensor.scope()
    local images, all = scope.keep(tensor.full({ 4, 1, 3, 3 }, 7, "u8"):as_image()), tensor({ 1, 2, 3, 4 }, "i32")
    queue = core.queue(source.memory(images), all, all, 2, steps {}.core, false, 0, 0, 1)
    lu.assertEquals(queue:next().shape, { 2, 1, 3, 3 })
  end
  collectgarbage()
  lu.assertEquals(queue:next():totable()[2][1][3][3], 7)
  queue:close()
end

function T.test_what_is_wrong_is_said()
  local images, all = source.memory(scope.keep(tensor.zeros({ 4, 1, 3, 3 }, "u8"):as_image())), tensor({ 1, 2, 3, 4 }, "i32")
  local function message(order, numbers, batch, list, first)
    return check.message(core.queue, images, order, numbers, batch, (list or steps {}).core, false, 0, 0, first or 1)
  end
  lu.assertStrContains(message(tensor({ 5 }, "i32"), all, 2), "loader: order: 5 at place 1 is not in 1 .. 4")
  lu.assertStrContains(message(all, tensor({ 1 }, "i32"), 2), "loader: 1 numbers for 4 samples")
  lu.assertStrContains(message(all, all, 0), "loader: batch must be 1 or more, got 0")
  lu.assertStrContains(message(all, all, 2, steps {}, 3), "loader: batch 3 of 2")
  lu.assertStrContains(message(all, all, 2, steps { steps.crop(4) }),
    "loader: crop: 4 x 4 from row 1, column 1 on is not inside of 3 x 3")
end

function T.test_the_time_that_users_waited_is_counted()
  local loader = data.loader(random_set(20, 1, 30, 30), { batch = 5, augment = full })
  lu.assertEquals(loader.waited, 0)
  local start = os.clock()
  for _ in loader:batches(1) do lu.assertTrue(loader.waited > 0) end
  lu.assertTrue(loader.waited < 60 + os.clock() - start)
end

return T
