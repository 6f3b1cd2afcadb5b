local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local metrics, tensor = feral.metrics, feral.tensor

local T = {}

function T.test_confusion_and_scores_of_a_worked_example()
  local labels = tensor({ 1, 1, 1, 2, 2, 3 }, "i32")
  local counts = metrics.confusion(labels, { 1, 1, 2, 2, 2, 1 }, 3)
  lu.assertEquals(counts, { { 2, 1, 0 }, { 0, 2, 0 }, { 1, 0, 0 } })
  local report = metrics.report(counts, { "anger", "fear", "neutral" })
  lu.assertAlmostEquals(report.accuracy, 4 / 6, 1e-12)
  lu.assertAlmostEquals(report.balanced, (2 / 3 + 1 + 0) / 3, 1e-12)
  lu.assertAlmostEquals(report.per_class[1].precision, 2 / 3, 1e-12)
  lu.assertAlmostEquals(report.per_class[2].f1, 2 * (2 / 3) * 1 / (2 / 3 + 1), 1e-12)
  lu.assertEquals(report.per_class[3].precision, 0)
  lu.assertAlmostEquals(metrics.balanced(labels, { 1, 1, 2, 2, 2, 1 }), report.balanced, 1e-12)
  lu.assertStrContains(tostring(report), "accuracy 66.67 %")
  lu.assertStrContains(metrics.confusion_text(counts, report.classes), "fear        0     2     0")
end

function T.test_a_class_without_samples_does_not_count_in_the_balanced_accuracy()
  local report = metrics.report({ { 3, 1 }, { 0, 0 } }, { "a", "b" })
  lu.assertAlmostEquals(report.balanced, 0.75, 1e-12)
end

-- labels 1 1 2 2, predictions 1 3 2 1: scikit-learn's f1_score(average="macro") takes the mean over 1, 2 and 3
function T.test_macro_f1_counts_a_class_that_is_predicted_and_never_true()
  local labels, predictions = { 1, 1, 2, 2 }, { 1, 3, 2, 1 }
  local expected = (0.5 + 2 / 3 + 0) / 3
  lu.assertAlmostEquals(metrics.report(metrics.confusion(labels, predictions, 4)).macro_f1, expected, 1e-12)
  lu.assertAlmostEquals(metrics.macro_f1(labels, predictions), expected, 1e-12)
  lu.assertAlmostEquals(metrics.balanced(labels, predictions), 0.5, 1e-12)
end

function T.test_soft_labels_count_as_their_largest_and_of_equal_ones_the_first()
  local soft = tensor { { 0.2, 0.5, 0.3 }, { 0.4, 0.4, 0.2 }, { 0, 0, 1 } }
  lu.assertEquals(metrics.hard_labels(soft):totable(), { 2, 1, 3 })
  lu.assertEquals(metrics.hard_labels { 3, 1 }, { 3, 1 })
  lu.assertAlmostEquals(metrics.accuracy(soft, { 2, 2, 3 }), 2 / 3, 1e-12)
  lu.assertEquals(metrics.confusion(tensor({ 2, 1, 3 }, "i32"), soft, 3), { { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } })
end

--- More samples than are a table at a time.
function T.test_many_samples_are_counted_piece_by_piece()
  local n = 150001
  local labels = tensor.arange(1, n):mul_(0):add_(2):to "i32"
  local predictions = labels:clone()
  predictions:narrow(1, n, 1):fill_(1)
  lu.assertEquals(metrics.confusion(labels, predictions, 2), { { 0, 0 }, { 1, n - 1 } })
  lu.assertEquals(metrics.accuracy(labels, predictions), (n - 1) / n)
  predictions:narrow(1, n, 1):fill_(3)
  lu.assertStrContains(check.message(metrics.confusion, labels, predictions, 2), "sample 150001 has label 2, prediction 3")
end

function T.test_log_loss()
  local p = { { 0.7, 0.2, 0.1 }, { 0.1, 0.1, 0.8 }, { 0, 1, 0 } }
  local hard = (-math.log(0.7) - math.log(0.1) + 23 * math.log(2)) / 3
  lu.assertAlmostEquals(metrics.log_loss({ 1, 2, 3 }, p), hard, 1e-5)
  lu.assertAlmostEquals(metrics.log_loss(tensor({ 1, 2, 3 }, "i32"), tensor(p)), hard, 1e-5)
  local soft = tensor { { 0.5, 0.5, 0 }, { 0, 0, 1 }, { 0, 1, 0 } }
  lu.assertAlmostEquals(metrics.log_loss(soft, p), -(math.log(0.7) / 2 + math.log(0.2) / 2 + math.log(0.8)) / 3, 1e-5)
end

function T.test_expected_calibration_error()
  -- two bins of 2: (0, 0.5] holds 0.5 (right) and 0.4 (wrong), (0.5, 1] holds 0.9 (right) and 0.75 (wrong)
  local p = { { 0.5, 0.25, 0.25 }, { 0.3, 0.4, 0.3 }, { 0.05, 0.9, 0.05 }, { 0.75, 0.25, 0 } }
  lu.assertAlmostEquals(metrics.ece({ 1, 1, 2, 2 }, p, 2), (math.abs(1 - 0.9) + math.abs(1 - 1.65)) / 4, 1e-6)
  lu.assertAlmostEquals(metrics.ece({ 1, 1, 2, 2 }, p), (0.5 + 0.4 + 0.1 + 0.75) / 4, 1e-6)
  lu.assertAlmostEquals(metrics.ece({ 1, 2 }, { { 1, 0 }, { 0, 1 } }), 0, 1e-12)
end

function T.test_what_are_no_probabilities_is_named()
  for _, name in ipairs { "log_loss", "ece" } do
    local function refuses(text, ...) lu.assertStrContains(check.message(metrics[name], ...), name .. ": " .. text) end
    refuses("the probabilities of sample 2 sum to 3, not to 1", { 1, 1 }, { { 1, 0 }, { 2, 1 } })
    refuses("2 labels but probabilities of 1 samples", { 1, 1 }, { { 1, 0 } })
    refuses(("probabilities must be %s N x K, got i32 2"):format(tensor.zeros(1).dtype), { 1, 1 }, tensor({ 1, 2 }, "i32"))
  end
  lu.assertStrContains(check.message(metrics.ece, { 1 }, { { 1, 0 } }, 0), "ece: bins must be a whole number from 1, got 0")
  for _, name in ipairs { "accuracy", "balanced", "macro_f1" } do
    lu.assertStrContains(check.message(metrics[name], {}, {}), name .. ": there are no samples")
  end
end

function T.test_wilson_against_published_values()
  -- Newcombe 1998, table I: 81 of 263, and 0 of 20
  local low, high = metrics.wilson(81, 263)
  lu.assertAlmostEquals(low, 0.2553, 5e-5)
  lu.assertAlmostEquals(high, 0.3662, 5e-5)
  low, high = metrics.wilson(0, 20)
  lu.assertAlmostEquals(low, 0, 1e-12)
  lu.assertAlmostEquals(high, 0.1611, 5e-5)
end

function T.test_what_does_not_fit_is_named()
  lu.assertStrContains(check.message(metrics.confusion, { 1, 2 }, { 1 }, 2), "2 labels but 1 predictions")
  lu.assertStrContains(check.message(metrics.confusion, { 1, 3 }, { 1, 1 }, 2), "sample 2 has label 3")
end

function T.test_tables_of_other_letters_stand_straight()
  local counts, classes = { { 3, 1 }, { 0, 12 } }, { "Überraschung", "人" }
  lu.assertEquals(metrics.confusion_text(counts, classes), table.concat({
    "             Überr     人   <- predicted",
    "Überraschung     3     1",
    "人                0    12",
  }, "\n"))
  local first, second = tostring(metrics.report(counts, classes)):match("\n(.-)\n(.-)\n")
  lu.assertEquals(utf8.len(first), utf8.len(second))
  lu.assertStrContains(metrics.confusion_text(counts), "1         3     1")
  lu.assertEquals(metrics.report(counts).classes, { "1", "2" })
end

function T.test_scores_of_lists_and_tensors()
  lu.assertEquals(metrics.accuracy({ 1, 2, 3, 1 }, tensor({ 1, 2, 1, 1 }, "i32")), 0.75)
  lu.assertEquals(metrics.balanced({ 1, 1, 1, 2 }, { 1, 1, 1, 1 }), 0.5)
  lu.assertEquals({ metrics.wilson(0, 0) }, { 0, 1 })
  lu.assertStrContains(check.message(metrics.accuracy, { 1 }, {}), "accuracy: 1 labels but 0 predictions")
  lu.assertStrContains(check.message(metrics.accuracy, tensor({ { 1 } }, "i32"), { 1 }), "labels must have 1 dimension, got 2")
end

return T
