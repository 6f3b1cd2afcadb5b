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
