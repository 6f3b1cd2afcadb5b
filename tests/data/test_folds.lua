--- Splits by groups, folds and balance: nobody on both sides, nothing lost, classes as even as can be.

local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local data, tensor = feral.data, feral.tensor

local T = {}

--- n samples, sample i of subject[i], of random classes.
local function of_subjects(n, subjects, classes)
  local labels, who, names = {}, {}, {}
  for c = 1, classes do names[c] = "class " .. c end
  for i = 1, n do
    labels[i] = i <= classes and i or check.integer(1, classes)
    who[i] = "s" .. (i <= subjects and i or check.integer(1, subjects))
  end
  return data.set { images = tensor.zeros({ n, 1, 1, 1 }, "u8"), labels = labels, classes = names, subjects = who }
end

--- How often each sample of the source is in some sets.
local function times_in(...)
  local times = {}
  for _, set in ipairs { ... } do
    for _, i in ipairs(set.rows:totable()) do times[i] = (times[i] or 0) + 1 end
  end
  return times
end

local function assert_each_once(n, ...)
  local times = times_in(...)
  for i = 1, n do lu.assertEquals(times[i], 1) end
end

local function assert_nobody_on_both_sides(a, b)
  local on_one = {}
  for _, who in ipairs(a:column("subject")) do on_one[who] = true end
  for _, who in ipairs(b:column("subject")) do lu.assertNil(on_one[who]) end
end

---- Split ----

function T.test_split_by_subject()
  for _ = 1, 50 do
    local n, subjects = check.integer(10, 80), check.integer(2, 10)
    local set = of_subjects(n, subjects, 2)
    local first, second = set:split(0.7, { by = "subject", seed = n })
    assert_each_once(n, first, second)
    assert_nobody_on_both_sides(first, second)
    if subjects == 10 then lu.assertTrue(math.abs(#first - 0.7 * n) < 0.25 * n) end
    lu.assertEquals((set:split(0.7, { by = "subject", seed = n })).rows:totable(), first.rows:totable())
  end
  local one = of_subjects(5, 1, 2)
  lu.assertStrContains(check.message(one.split, one, 0.5, { by = "subject" }),
    "split: column 'subject' makes 1 groups, too few for 2 parts")
  lu.assertStrContains(check.message(one.split, one, 0.5, { by = "who" }), "column: there is no 'who'")
end

---- Folds ----

function T.test_folds_lose_nothing_and_share_all()
  for _ = 1, 50 do
    local n, k, classes = check.integer(10, 90), check.integer(2, 10), check.integer(1, 4)
    local set = of_subjects(n, 2, classes)
    local stratified = check.integer(0, 1) == 1
    local folds = set:kfold(k, { seed = k, stratified = stratified })
    lu.assertEquals(#folds, k)
    local tests = {}
    for f, fold in ipairs(folds) do
      assert_each_once(n, fold.train, fold.test)
      lu.assertIs(fold.train.source, set.source)
      lu.assertIs(fold.train.columns, set.columns)
      tests[f] = fold.test
      lu.assertTrue(#fold.test >= n // k and #fold.test <= n // k + 1)
      for c, count in ipairs(stratified and fold.test:counts() or {}) do
        local of_class = set:counts()[c]
        lu.assertTrue(count >= of_class // k and count <= of_class // k + 1)
      end
    end
    assert_each_once(n, table.unpack(tests))
  end
end

function T.test_folds_by_subject()
  for _ = 1, 50 do
    local n, k = check.integer(30, 120), check.integer(2, 5)
    local set = of_subjects(n, k + check.integer(0, 20), 3)
    local tests = {}
    for f, fold in ipairs(set:kfold(k, { by = "subject", seed = 3 })) do
      assert_each_once(n, fold.train, fold.test)
      assert_nobody_on_both_sides(fold.train, fold.test)
      tests[f] = fold.test
    end
    assert_each_once(n, table.unpack(tests))
  end
end

function T.test_folds_leave_one_subject_out()
  local set = of_subjects(20, 6, 2)
  local folds = set:kfold(nil, { by = "subject" })
  lu.assertEquals(#folds, 6)
  for _, fold in ipairs(folds) do
    local who = fold.test:column("subject"):totable()
    for _, name in ipairs(who) do lu.assertEquals(name, who[1]) end
  end
end

function T.test_folds_of_a_subset_and_of_numbers()
  local set = of_subjects(40, 8, 2):add_column("session", tensor.arange(1, 40):to("i32"))
  local some = set:subset(function(i) return i % 2 == 0 end)
  local folds = some:kfold(4, { by = "session", stratified = false })
  local tests = {}
  for f, fold in ipairs(folds) do tests[f] = fold.test end
  local times = times_in(table.unpack(tests))
  for i = 1, 40 do lu.assertEquals(times[i], i % 2 == 0 and 1 or nil) end
end

function T.test_folds_depend_on_their_seed_alone()
  local set = of_subjects(60, 12, 3)
  for _, by in ipairs { false, "subject" } do
    local function rows(seed) return set:kfold(3, { by = by, seed = seed })[2].test.rows:totable() end
    lu.assertEquals(rows(1), rows(1))
    lu.assertNotEquals(rows(1), rows(2))
  end
end

function T.test_folds_outlive_the_scope_they_were_made_in()
  local folds
  do
    local _open <close> = tensor.scope()
    folds = of_subjects(10, 5, 2):kfold(2, { by = "subject" })
  end
  assert_each_once(10, folds[1].train, folds[1].test)
end

function T.test_fold_messages()
  local set = of_subjects(6, 3, 2)
  lu.assertStrContains(check.message(set.kfold, set, 1), "kfold: the number of folds must be a whole number from 2, got 1")
  lu.assertStrContains(check.message(set.kfold, set), "kfold: the number of folds must be a whole number from 2, got nil")
  lu.assertStrContains(check.message(set.kfold, set, 7), "kfold: 7 folds of 6 samples")
  lu.assertStrContains(check.message(set.kfold, set, 4, { by = "subject" }),
    "kfold: column 'subject' makes 3 groups, too few for 4 parts")
  set:add_column("box", tensor.zeros(6, 4))
  lu.assertStrContains(check.message(set.kfold, set, 2, { by = "box" }), "column 'box' has several values for a sample")
  lu.assertStrContains(check.message(set.kfold, set, 2, { buy = "x" }), "kfold: unknown option 'buy', did you mean 'by'?")
end

---- Balance ----

--- Samples of classes in these numbers.
local function of_classes(...)
  local labels, classes = {}, {}
  for c, n in ipairs { ... } do
    classes[c] = "class " .. c
    for _ = 1, n do labels[#labels + 1] = c end
  end
  return data.set { images = tensor.zeros({ #labels, 1, 1, 1 }, "u8"), labels = labels, classes = classes }
end

local function spread_of_times(set, n)
  local times, least, most = times_in(set), math.huge, 0
  for i = 1, n do least, most = math.min(least, times[i] or 0), math.max(most, times[i] or 0) end
  return least, most
end

function T.test_balance()
  local set = of_classes(10, 4, 0, 1)
  local over = set:balance()
  lu.assertEquals(over:counts(), { 10, 10, 0, 10 })
  local times = times_in(over)
  for i = 11, 14 do lu.assertTrue(times[i] == 2 or times[i] == 3) end
  lu.assertEquals(times[15], 10)
  lu.assertEquals(set:balance("under"):counts(), { 1, 1, 0, 1 })
  lu.assertEquals(set:balance(5):counts(), { 5, 5, 0, 5 })
  lu.assertEquals({ spread_of_times(of_classes(3, 3):balance "under", 6) }, { 1, 1 })
  local rows = over.rows:totable()
  for k = 2, #rows do lu.assertTrue(rows[k] >= rows[k - 1]) end
  lu.assertNotEquals(set:balance("under", { seed = 1 }).rows:totable(), set:balance("under", { seed = 2 }).rows:totable())
  lu.assertStrContains(check.message(set.balance, set, "more"),
    'balance: "over", "under" or a number of samples expected, got more')
  lu.assertStrContains(check.message(set.balance, set, 0), "got 0")
end

---- Shuffle ----

function T.test_shuffle()
  local set = of_classes(30, 20)
  local shuffled = set:shuffle { seed = 4 }
  assert_each_once(50, shuffled)
  lu.assertNotEquals(shuffled.rows:totable(), set.rows:totable())
  lu.assertEquals(set:shuffle({ seed = 4 }).rows:totable(), shuffled.rows:totable())
  lu.assertEquals(set:shuffle().columns, set.columns)
end

return T
