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

return T
