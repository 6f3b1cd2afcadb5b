local lu = require "luaunit"
local feral = require "feral"
local check, layouts, bits = require "check", require "layouts", require "bits"
local tensor, loss = feral.tensor, feral.loss

local T = {}

local function log_softmax(row)
  local most, sum, out = -math.huge, 0, {}
  for _, v in ipairs(row) do most = math.max(most, v) end
  for _, v in ipairs(row) do sum = sum + math.exp(v - most) end
  for c, v in ipairs(row) do out[c] = v - most - math.log(sum) end
  return out
end

--- Losses of the samples, reduced; a mean divides by 'divisor'.
local function reduced(losses, reduction, divisor)
  if reduction == "none" then return losses end
  local sum = 0
  for _, v in ipairs(losses) do sum = sum + v end
  return { reduction == "mean" and sum / divisor or sum }
end

local function random_labels(n, k)
  local labels = {}
  for i = 1, n do labels[i] = check.integer(1, k) end
  return labels
end

local function random_weights(k)
  local weights = {}
  for c = 1, k do weights[c] = check.integer(1, 20) / 8 end
  return weights
end

local function ones(k)
  local list = {}
  for c = 1, k do list[c] = 1 end
  return list
end

local reductions = { "mean", "sum", "none" }

local function total(labels, weights)
  local sum = 0
  for _, label in ipairs(labels) do sum = sum + weights[label] end
  return sum
end

function T.test_cross_entropy_of_hard_labels()
  for _ = 1, check.SHAPES do
    local n, k = check.integer(1, 9), check.integer(1, 11)
    local labels, smoothing, reduction = random_labels(n, k), check.integer(0, 2) / 10, reductions[check.integer(1, 3)]
    local weights = check.integer(0, 1) == 1 and random_weights(k)
    local x, losses = check.randn(n, k) * 3, {}
    for i, row in ipairs(x:totable()) do
      local w, smooth = weights or ones(k), 0
      local p = log_softmax(row)
      for c = 1, k do smooth = smooth - w[c] * p[c] end
      losses[i] = (1 - smoothing) * -w[labels[i]] * p[labels[i]] + smoothing / k * smooth
    end
    local got = loss.cross_entropy(layouts.vary(x), tensor(labels, "i32"),
      { weight = weights and tensor(weights) or nil, smoothing = smoothing, reduction = reduction })
    lu.assertEquals(got.shape, reduction == "none" and { n } or {})
    check.close(got, reduced(losses, reduction, total(labels, weights or ones(k))), 2e-6)
  end
end

function T.test_cross_entropy_of_soft_labels()
  for _ = 1, check.SHAPES do
    local n, k = check.integer(1, 9), check.integer(1, 11)
    local target, weights, reduction = check.randn(n, k):softmax(2), random_weights(k), reductions[check.integer(1, 3)]
    local x, losses, rows = check.randn(n, k) * 3, {}, target:totable()
    for i, row in ipairs(x:totable()) do
      losses[i] = 0
      for c, p in ipairs(log_softmax(row)) do losses[i] = losses[i] - weights[c] * (0.9 * rows[i][c] + 0.1 / k) * p end
    end
    local got = loss.cross_entropy(layouts.vary(x), layouts.vary(target),
      { weight = tensor(weights), smoothing = 0.1, reduction = reduction })
    check.close(got, reduced(losses, reduction, n), 2e-6)
  end
end

function T.test_soft_labels_of_one_class_equal_hard_ones()
  local x, labels = check.randn(5, 4), tensor({ 1, 4, 2, 2, 3 }, "i32")
  local soft = labels:one_hot(4):to(x.dtype)
  check.close(loss.cross_entropy(x, soft), { loss.cross_entropy(x, labels):item() }, 1e-7)
end

function T.test_focal_loss()
  for i = 1, check.SHAPES do
    local n, k = check.integer(1, 9), check.integer(1, 11)
    local labels, weights, reduction = random_labels(n, k), random_weights(k), reductions[check.integer(1, 3)]
    local gamma = ({ 0, 0.5, 2, 5 })[i % 4 + 1]
    local x, losses = check.randn(n, k), {}
    for s, row in ipairs(x:totable()) do
      local p = log_softmax(row)[labels[s]]
      losses[s] = -weights[labels[s]] * (1 - math.exp(p)) ^ gamma * p
      if k == 1 then losses[s] = 0 end
    end
    local got = loss.focal(layouts.vary(x), tensor(labels, "i32"),
      { gamma = gamma, weight = tensor(weights), reduction = reduction })
    check.close(got, reduced(losses, reduction, total(labels, weights)), 1e-5)
  end
  local x, labels = check.randn(5, 4), tensor({ 1, 4, 2, 2, 3 }, "i32")
  lu.assertEquals(loss.focal(x, labels, { gamma = 0 }):item(), loss.cross_entropy(x, labels):item())
end

function T.test_multi_margin()
  for _ = 1, check.SHAPES do
    local n, k = check.integer(1, 9), check.integer(1, 11)
    local labels, weights, reduction = random_labels(n, k), random_weights(k), reductions[check.integer(1, 3)]
    local p, margin = check.integer(1, 2), check.integer(0, 4) / 2
    local x, losses = check.randn(n, k), {}
    for s, row in ipairs(x:totable()) do
      losses[s] = 0
      for c, v in ipairs(row) do
        local gap = math.max(0, margin - row[labels[s]] + v)
        if c ~= labels[s] then losses[s] = losses[s] + weights[labels[s]] * gap ^ p / k end
      end
    end
    local got = loss.multi_margin(layouts.vary(x), tensor(labels, "i32"),
      { p = p, margin = margin, weight = tensor(weights), reduction = reduction })
    check.close(got, reduced(losses, reduction, n), 2e-6)
  end
end

--- The losses of a classifier with sample weights against those of each sample by itself.
function T.test_sample_weights()
  for _ = 1, check.SHAPES do
    local n, k = check.integer(1, 9), check.integer(2, 11)
    local labels, weights, own = random_labels(n, k), random_weights(k), random_weights(n)
    local x = check.randn(n, k) * 3
    for name, by_class in pairs { cross_entropy = true, focal = true, multi_margin = false } do
      local options = { weight = tensor(weights), reduction = "none" }
      local losses, divisor = loss[name](x, tensor(labels, "i32"), options):totable(), 0
      for i, label in ipairs(labels) do
        losses[i] = losses[i] * own[i]
        divisor = divisor + own[i] * (by_class and weights[label] or 1)
      end
      for _, reduction in ipairs(reductions) do
        options.reduction, options.sample_weight = reduction, layouts.vary(tensor(own))
        check.close(loss[name](x, tensor(labels, "i32"), options), reduced(losses, reduction, divisor), 3e-6, name)
      end
    end
  end
end

function T.test_sample_weights_of_soft_labels_divide_by_their_sum()
  local x, soft = check.randn(3, 4), check.randn(3, 4):softmax(2)
  local each, own = loss.cross_entropy(x, soft, { reduction = "none" }):totable(), tensor { 2, 0, 0.5 }
  local got = loss.cross_entropy(x, soft, { sample_weight = own, weight = tensor.ones(4) })
  check.close(got, { (2 * each[1] + 0.5 * each[3]) / 2.5 }, 1e-6)
end

function T.test_a_batch_in_which_no_sample_counts_has_no_say()
  local x = check.randn(2, 3):requires_grad()
  local value = loss.cross_entropy(x, tensor({ 1, 3 }, "i32"), { sample_weight = tensor.zeros(2) })
  value:backward()
  lu.assertEquals({ value:item(), x.grad:abs():sum():item() }, { 0, 0 })
end

--- The losses that compare number by number, and probabilities to compare.
local pointwise = {
  mse = function(x, t) return (x - t) ^ 2 end,
  bce = function(x, t) return -(t * math.log(x) + (1 - t) * math.log(1 - x)) end,
  kl = function(x, t) return t * (math.log(t) - x) end,
}

function T.test_pointwise_losses()
  for i = 1, check.SHAPES do
    local sizes = {}
    for d = 1, check.integer(1, 4) do sizes[d] = check.integer(1, 6) end
    local x, t = check.randn(table.unpack(sizes)):sigmoid(), check.randn(table.unpack(sizes)):sigmoid()
    local a, b, reduction = check.flat(x), check.flat(t), reductions[i % 3 + 1]
    for name, f in pairs(pointwise) do
      local losses = {}
      for k, v in ipairs(a) do losses[k] = f(v, b[k]) end
      local got = loss[name](layouts.vary(x), layouts.vary(t), { reduction = reduction })
      check.close(got, reduced(losses, reduction, #a), 2e-5, name)
    end
    local scores, losses = (x / (1 - x)):log(), {}
    for k, v in ipairs(a) do losses[k] = pointwise.bce(v, b[k]) end
    check.close(loss.bce(layouts.vary(scores), layouts.vary(t), { logits = true, reduction = reduction }),
      reduced(losses, reduction, #a), 2e-5, "bce of scores")
  end
end

function T.test_cosine_proximity()
  for i = 1, check.SHAPES do
    local n, d, reduction = check.integer(1, 7), check.integer(1, 9), reductions[i % 3 + 1]
    local x, t, losses = check.randn(n, d):abs(), check.randn(n, d):abs() * (-1) ^ i, {} -- none at right angles
    local rows = t:totable()
    for s, row in ipairs(x:totable()) do
      local dot, xx, tt = 0, 0, 0
      for k, v in ipairs(row) do dot, xx, tt = dot + v * rows[s][k], xx + v * v, tt + rows[s][k] ^ 2 end
      losses[s] = -dot / math.sqrt(xx * tt)
    end
    check.close(loss.cosine_proximity(layouts.vary(x), layouts.vary(t), { reduction = reduction }),
      reduced(losses, reduction, n), 5e-6)
  end
  local zero = tensor.zeros(1, 3):requires_grad()
  local value = loss.cosine_proximity(zero, tensor.ones(1, 3))
  lu.assertEquals(value:item(), 0.0)
  value:backward()
  lu.assertEquals(zero.grad:isnan():sum():item(), 0.0)
end

function T.test_gradients()
  local labels, k = tensor({ 2, 5, 1 }, "i32"), 5
  local weight, soft, own = tensor(random_weights(k)), check.randn(3, k):softmax(2), tensor { 0.5, 0, 3 }
  for _, reduction in ipairs(reductions) do
    local function with(options)
      options.reduction = reduction
      return options
    end
    for name, f in pairs {
      plain = function(x) return loss.cross_entropy(x, labels, with {}) end,
      weighted = function(x) return loss.cross_entropy(x, labels, with { weight = weight, smoothing = 0.2 }) end,
      soft = function(x) return loss.cross_entropy(x, soft, with { weight = weight, smoothing = 0.1 }) end,
      of_samples = function(x) return loss.cross_entropy(x, labels, with { weight = weight, sample_weight = own }) end,
      soft_samples = function(x) return loss.cross_entropy(x, soft, with { sample_weight = own, smoothing = 0.1 }) end,
      focal_samples = function(x) return loss.focal(x, labels, with { sample_weight = own }) end,
      margin_samples = function(x) return loss.multi_margin(x, labels, with { sample_weight = own }) end,
      focal = function(x) return loss.focal(x, labels, with { weight = weight }) end,
      focal_half = function(x) return loss.focal(x, labels, with { gamma = 0.5 }) end,
      margin = function(x) return loss.multi_margin(x, labels, with { weight = weight, margin = 1.5 }) end,
      margin_squared = function(x) return loss.multi_margin(x, labels, with { p = 2 }) end,
      bce = function(x) return loss.bce(x:sigmoid(), soft, with {}) end,
      bce_scores = function(x) return loss.bce(x:transpose(), soft:transpose(), with { logits = true }) end,
      kl = function(x) return loss.kl(x:log_softmax(2), soft, with {}) end,
      mse = function(x) return loss.mse(x, soft, with {}) end,
      cosine = function(x) return loss.cosine_proximity(x, soft, with {}) end,
    } do
      check.gradients(f, { check.randn(3, k) }, nil, name)
    end
  end
  check.gradients(function(x, t) return loss.mse(x, t) end, { check.randn(3, 2), check.randn(3, 2) })
  check.gradients(function(x) return loss.kl(x:log_softmax(2), soft) end, { check.randn(3, k) })
end

function T.test_certain_predictions_keep_losses_and_gradients_finite()
  local x = tensor { { 200, -200 }, { -200, 200 } }:requires_grad()
  local labels = tensor({ 1, 1 }, "i32")
  check.close(loss.cross_entropy(x, labels, { reduction = "none" }), { 0, 400 })
  for _, gamma in ipairs { 0.5, 2 } do
    local value = loss.focal(x, labels, { gamma = gamma, reduction = "sum" })
    check.close(value, { 400 })
    value:backward()
    lu.assertEquals(x.grad:isnan():sum():item(), 0.0)
  end
  check.close(loss.bce(tensor { 0, 1, 0 }, tensor { 0, 1, 1 }, { reduction = "none" }), { 0, 0, 100 })
  check.close(loss.bce(tensor { -300, 300 }, tensor { 1, 0 }, { logits = true, reduction = "none" }), { 300, 300 })
  lu.assertEquals(loss.kl(tensor { { 0, -100 } }, tensor { { 1, 0 } }):item(), 0.0)
end

function T.test_scores_without_end()
  local inf = math.huge
  local labels = tensor({ 1 }, "i32")
  local function value_and_gradient(f, x)
    x:requires_grad()
    local value = f(x)
    value:backward()
    return value:item(), x.grad:reshape(-1):totable()
  end
  local value, gradient = value_and_gradient(function(x) return loss.cross_entropy(x, labels) end, tensor { { 0, 0, -inf } })
  lu.assertAlmostEquals(value, math.log(2), 1e-6)
  lu.assertEquals(gradient, { -0.5, 0.5, 0 })
  for _, f in ipairs { loss.cross_entropy, loss.focal } do
    value, gradient = value_and_gradient(function(x) return f(x, labels) end, tensor { { -inf, 0 } })
    lu.assertEquals(value, inf)
    lu.assertEquals(gradient, { -1, 1 })
  end
  for _, case in ipairs { { inf, 1, 0, 0 }, { -inf, 0, 0, 0 }, { inf, 0, inf, 1 }, { -inf, 1, inf, -1 } } do
    value, gradient = value_and_gradient(function(x) return loss.bce(x, tensor { case[2] }, { logits = true }) end,
      tensor { case[1] })
    lu.assertEquals({ value, gradient[1] }, { case[3], case[4] })
  end
end

function T.test_nan_reaches_the_loss()
  local x, labels = tensor { { 0 / 0, 1 } }, tensor({ 2 }, "i32")
  for _, value in ipairs {
    loss.cross_entropy(x, labels), loss.focal(x, labels), loss.multi_margin(x, labels), loss.bce(x, tensor { { 1, 0 } }),
  } do
    lu.assertNotEquals(value:item(), value:item())
  end
end

function T.test_an_input_without_gradient_costs_none()
  local x, labels = check.randn(3, 2), tensor({ 1, 2, 1 }, "i32")
  lu.assertNil(require "feral.core.tensor".node(loss.cross_entropy(x, labels)))
end

--- Made with torch 1.13.1 from these scores: losses, and their gradients.
local scores = { { 1.5, -0.25, 0.75, 2 }, { -1, 0.5, 3, 0.125 }, { 0, -2, 1.25, -0.5 } }
local targets = { { 0.1, 0.2, 0.3, 0.4 }, { 0.7, 0.1, 0.1, 0.1 }, { 0.25, 0.25, 0.5, 0 } }
local class_weights = { 0.5, 2, 1, 4 }
local hard = { 4, 1, 2 }
local torch = {
  { loss = "cross_entropy", soft = false, weighted = false, reduction = "mean", options = {  },
    value = 2.83095661,
    slopes = { 0.101167623, 0.0175802968, 0.0477882014, -0.166536121, -0.328055736, 0.0236525496,
      0.288147043, 0.0162561438, 0.0637079558, -0.324711399, 0.222362615, 0.0386408285 } },
  { loss = "cross_entropy", soft = false, weighted = true, reduction = "mean", options = {  },
    value = 1.8695323,
    slopes = { 0.186770996, 0.0324559326, 0.0882243717, -0.307451301, -0.0757051699, 0.00545828068,
      0.0664954714, 0.00375141779, 0.0588073438, -0.299733599, 0.205257798, 0.035668457 } },
  { loss = "cross_entropy", soft = false, weighted = true, reduction = "mean", options = { smoothing = 0.1 },
    value = 1.86698878,
    slopes = { 0.17492571, 0.0230394035, 0.0796912982, -0.277656412, -0.0696010147, -0.000732999826,
      0.0809355722, -0.0106015577, 0.056516721, -0.276706418, 0.200128783, 0.0200609138 } },
  { loss = "cross_entropy", soft = true, weighted = true, reduction = "mean", options = { smoothing = 0.1 },
    value = 2.90956416,
    slopes = { 0.213771785, -0.0961880333, 0.0116990003, -0.129282753, -0.103189788, -0.0498801542,
      0.287993193, -0.134923251, 0.0347828803, -0.156320346, 0.108501804, 0.0130356608 } },
  { loss = "multi_margin", soft = false, weighted = true, reduction = "mean", options = {  },
    value = 2.19270833,
    slopes = { 0.333333333, 0, 0, -0.333333333, -0.125, 0.0416666667,
      0.0416666667, 0.0416666667, 0.166666667, -0.5, 0.166666667, 0.166666667 } },
  { loss = "multi_margin", soft = false, weighted = false, reduction = "mean", options = { p = 2, margin = 0.5 },
    value = 4.26692708,
    slopes = { 0, 0, 0, 0, -1.35416667, 0.333333333,
      0.75, 0.270833333, 0.416666667, -1.375, 0.625, 0.333333333 } },
  { loss = "bce", soft = true, weighted = false, reduction = "mean", options = { logits = true },
    value = 1.04318817,
    slopes = { 0.059797873, 0.0198186249, 0.0315982249, 0.0400664232, -0.0359215482, 0.0435382776,
      0.0710478439, 0.0359341144, 0.0208333333, -0.0108997565, 0.0231083218, 0.0314617224 } },
  { loss = "mse", soft = true, weighted = false, reduction = "mean", options = {  },
    value = 1.86026042,
    slopes = { 0.233333333, -0.075, 0.075, 0.266666667, -0.283333333, 0.0666666667,
      0.483333333, 0.00416666667, -0.0416666667, -0.375, 0.125, -0.0833333333 } },
  { loss = "cross_entropy", soft = false, weighted = false, reduction = "sum", options = {  },
    value = 8.49286983,
    slopes = { 0.303502869, 0.0527408904, 0.143364604, -0.499608364, -0.984167208, 0.0709576488,
      0.864441128, 0.0487684313, 0.191123867, -0.974134197, 0.667087845, 0.115922485 } },
  { loss = "cross_entropy", soft = false, weighted = true, reduction = "sum", options = {  },
    value = 12.15196,
    slopes = { 1.21401148, 0.210963562, 0.573458416, -1.99843346, -0.492083604, 0.0354788244,
      0.432220564, 0.0243842156, 0.382247735, -1.94826839, 1.33417569, 0.231844971 } },
  { loss = "cross_entropy", soft = false, weighted = true, reduction = "sum", options = { smoothing = 0.1 },
    value = 12.1354271,
    slopes = { 1.13701712, 0.149756123, 0.517993438, -1.80476668, -0.452406595, -0.00476449887,
      0.526081219, -0.0689101251, 0.367358686, -1.79859172, 1.30083709, 0.13039594 } },
  { loss = "cross_entropy", soft = true, weighted = true, reduction = "sum", options = { smoothing = 0.1 },
    value = 8.72869248,
    slopes = { 0.641315356, -0.2885641, 0.0350970009, -0.387848258, -0.309569364, -0.149640463,
      0.863979578, -0.404769752, 0.104348641, -0.468961037, 0.325505413, 0.0391069824 } },
  { loss = "multi_margin", soft = false, weighted = true, reduction = "sum", options = {  },
    value = 6.578125,
    slopes = { 1, 0, 0, -1, -0.375, 0.125,
      0.125, 0.125, 0.5, -1.5, 0.5, 0.5 } },
  { loss = "multi_margin", soft = false, weighted = false, reduction = "sum", options = { p = 2, margin = 0.5 },
    value = 12.8007812,
    slopes = { 0, 0, 0, 0, -4.0625, 1,
      2.25, 0.8125, 1.25, -4.125, 1.875, 1 } },
  { loss = "bce", soft = true, weighted = false, reduction = "sum", options = { logits = true },
    value = 12.518258,
    slopes = { 0.717574476, 0.237823499, 0.379178699, 0.480797078, -0.431058579, 0.522459331,
      0.852574127, 0.431209373, 0.25, -0.130797078, 0.277299861, 0.377540669 } },
  { loss = "mse", soft = true, weighted = false, reduction = "sum", options = {  },
    value = 22.323125,
    slopes = { 2.8, -0.9, 0.9, 3.2, -3.4, 0.8,
      5.8, 0.05, -0.5, -4.5, 1.5, -1 } },
  { loss = "kl", soft = true, weighted = false, reduction = "mean", options = {  },
    value = 0.27669557,
    slopes = { 0.0169585724, -0.0122715925, -0.0130529497, 0.00836596969, -0.057013934, -0.00242019593,
      0.0637034274, -0.00426929739, -0.00490634438, -0.0186778498, 0.013923987, 0.00966020711 } },
  { loss = "kl", soft = true, weighted = false, reduction = "batchmean", options = {  },
    value = 1.10678228,
    slopes = { 0.0678342897, -0.0490863699, -0.0522117986, 0.0334638787, -0.228055736, -0.00968078372,
      0.254813709, -0.0170771896, -0.0196253775, -0.0747113991, 0.0556959482, 0.0386408285 } },
}

function T.test_stored_values_of_pytorch()
  for _, case in ipairs(torch) do
    local x = tensor(scores):requires_grad()
    local target = case.soft and tensor(targets) or tensor(hard, "i32")
    local options = { reduction = case.reduction }
    for key, value in pairs(case.options) do options[key] = value end
    options.weight = case.weighted and tensor(class_weights) or nil
    local value = loss[case.loss](case.loss == "kl" and x:log_softmax(2) or x, target, options)
    check.close(value, { case.value }, 1e-6, case.loss)
    value:backward()
    check.close(x.grad, case.slopes, 1e-6, case.loss .. " slope")
  end
end

function T.test_messages()
  local x = tensor.zeros(4, 7)
  local function message(name, ...)
    local arguments = table.pack(...)
    return check.message(function() loss[name](table.unpack(arguments, 1, arguments.n)) end)
  end
  local real = x.dtype
  for _, name in ipairs { "cross_entropy", "focal", "multi_margin" } do
    lu.assertStrContains(message(name, x, tensor({ 1, 7, 8, 9 }, "i32")), name .. ": label 8 of sample 3 is outside of 1..7")
    lu.assertStrContains(message(name, x, tensor({ 1, 0, 2, 3 }, "i32")), name .. ": label 0 of sample 2 is outside of 1..7")
    lu.assertStrContains(message(name, tensor.zeros(4), tensor({ 1 }, "i32")),
      name .. ": scores must have 2 dimensions, got 4")
    lu.assertStrContains(message(name, x, { 1, 2 }), name .. ": labels must be a tensor, got table")
    lu.assertStrContains(message(name, x, tensor({ 1, 2, 3, 4 }, "i32"), { weight = tensor.ones(3) }),
      name .. ": weight has 3 elements, the scores have 7 classes")
    lu.assertStrContains(message(name, x, tensor({ 1, 2, 3, 4 }, "i32"), { sample_weight = tensor.ones(7) }),
      name .. ": sample_weight has 7 elements, the scores have 4 samples")
    lu.assertStrContains(message(name, x, tensor({ 1, 2, 3, 4 }, "i32"), { sample_weight = tensor { 1, 1, -0.5, 1 } }),
      name .. ": sample_weight 3 is -0.5, at least 0 expected")
    lu.assertStrContains(message(name, x, tensor({ 1, 2, 3, 4 }, "i32"), { reduction = "men" }),
      name .. ": reduction 'men' is unknown, did you mean 'mean'? (known: mean, sum, none)")
  end
  lu.assertStrContains(message("cross_entropy", x, tensor { 1, 2, 3, 4 }),
    ("cross_entropy: labels are %s 4, i32 4 or %s 4x7 expected for scores 4x7"):format(real, real))
  lu.assertStrContains(message("focal", x, x), ("focal: labels are %s 4x7, i32 4 expected for scores 4x7"):format(real))
  lu.assertStrContains(message("cross_entropy", x, x, { weights = 1 }),
    "cross_entropy: unknown option 'weights', did you mean 'weight'?")
  lu.assertStrContains(message("cross_entropy", x, x, { smoothing = 2 }), "cross_entropy: smoothing must lie in 0..1, got 2")
  lu.assertStrContains(message("cross_entropy", x, tensor.zeros(4, 7):requires_grad()),
    "cross_entropy: labels have no gradient here; detach() them")
  lu.assertStrContains(message("focal", x, x, { gamma = -1 }), "focal: gamma must be 0 or more, got -1")
  lu.assertStrContains(message("multi_margin", x, x, { p = 3 }), "multi_margin: p must be 1 or 2, got 3")
  lu.assertStrContains(message("bce", x, tensor.zeros(7, 4)), "bce: the prediction is 4x7, the target 7x4")
  lu.assertStrContains(message("bce", tensor { 0, 1.5 }, tensor { 0, 1 }),
    "bce: element 2 is 1.5, a probability in 0..1 expected (for scores: logits = true)")
  lu.assertStrContains(message("mse", x, tensor.zeros(4)), "mse: the prediction is 4x7, the target 4")
  lu.assertStrContains(message("kl", x, tensor.zeros(4)), "kl: the prediction is 4x7, the target 4")
end

function T.test_survives_lack_of_memory()
  local x, labels = check.randn(3, 4):requires_grad(), tensor({ 1, 2, 4 }, "i32")
  local weight = tensor.ones(4)
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    loss.cross_entropy(x, labels, { weight = weight, sample_weight = weight:narrow(1, 1, 3) }):backward()
    loss.multi_margin(x, labels, { reduction = "none" }):sum():backward()
    loss.bce(x, x:detach():clone(), { logits = true }):backward()
  end)
end

function T.test_threads_do_not_show()
  bits.check_same [[
    local loss = feral.loss
    local x, labels = check.randn(5003, 7):requires_grad(), {}
    for i = 1, 5003 do labels[i] = check.integer(1, 7) end
    labels = tensor(labels, "i32")
    for _, name in ipairs { "cross_entropy", "focal", "multi_margin" } do
      local value = loss[name](x, labels)
      value:backward()
      show(value, x.grad)
    end
    show(loss.bce(x, x:detach(), { logits = true }), loss.mse(x, check.randn(5003, 7)))
  ]]
end

return T
