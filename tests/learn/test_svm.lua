local lu = require "luaunit"
local feral = require "feral"
local check, clouds, temporary = require "check", require "clouds", require "temporary"
local files, scope, core = require "feral.core.files", require "feral.core.scope", require "feral.core.tensor"
local svm, tensor, metrics = feral.svm, feral.tensor, feral.metrics

local T = {}

-- ---- problems ----

local function kernel_of(o)
  return function(a, b)
    local dot, distance = 0, 0
    for j = 1, #a do
      dot, distance = dot + a[j] * b[j], distance + (a[j] - b[j]) ^ 2
    end
    if o.kernel == "poly" then return (o.gamma * dot + o.coef0) ^ o.degree end
    return math.exp(-o.gamma * distance)
  end
end

local function random_options()
  local kernel = ({ "rbf", "poly" })[check.integer(1, 2)]
  return {
    kernel = kernel, multiclass = check.integer(1, 3) == 1 and "ovr" or "ovo",
    C = 10.0 ^ check.integer(-1, 2), gamma = ({ 0.1, 0.5, 2 })[check.integer(1, kernel == "poly" and 2 or 3)],
    coef0 = check.integer(0, 1), degree = check.integer(1, 3), progress = false,
  }
end

--- The samples that machine m of a model was trained on: {row, sign, largest alpha}.
local function samples_of(model, m, y, weights)
  local samples, machine = {}, 0
  local function add(a, b)
    machine = machine + 1
    if machine ~= m then return end
    for row, label in ipairs(y) do
      if label == a then samples[#samples + 1] = { row = row, sign = 1, most = model.C * (weights[label] or 1) } end
      if label == b or (not b and label ~= a) then
        samples[#samples + 1] = { row = row, sign = -1, most = model.C * (b and weights[label] or 1) }
      end
    end
  end
  for i, a in ipairs(model.labels) do
    if model.multiclass == "ovr" then add(a) end
    for j = i + 1, model.multiclass == "ovr" and 0 or #model.labels do add(a, model.labels[j]) end
  end
  return samples
end

--- The coefficients of machine m by row of the training features.
local function betas(model, m)
  local list = {}
  for s, row in ipairs(model.indices:totable()) do list[row] = model.coef[s][m]:item() end
  return list
end

--- Checks that machine m satisfies the conditions of optimality (Karush, Kuhn, Tucker) on its training samples.
local function check_optimal(model, m, x, y, weights, tolerance, message)
  local f, beta, sum, scale = model:decisions(tensor(x)):totable(), betas(model, m), 0, 1
  for _, s in ipairs(samples_of(model, m, y, weights or {})) do
    local alpha, margin = s.sign * (beta[s.row] or 0), s.sign * f[s.row][m]
    sum, scale = sum + s.sign * alpha, math.max(scale, alpha)
    lu.assertTrue(alpha >= 0 and alpha <= s.most * (1 + 1e-6), message)
    if alpha == 0 then lu.assertTrue(margin >= 1 - tolerance, ("%s: margin %g at alpha 0"):format(message, margin)) end
    if alpha > 0 and alpha < s.most * (1 - 1e-6) then lu.assertAlmostEquals(margin, 1, tolerance, message) end
    if alpha >= s.most * (1 - 1e-6) then
      lu.assertTrue(margin <= 1 + tolerance, ("%s: margin %g at the largest alpha"):format(message, margin))
    end
  end
  lu.assertAlmostEquals(sum, 0, 1e-5 * scale * #y, message)
end

-- ---- against a naive solver ----

--- The dual's optimum by moving every pair in turn, in double, until none moves: beta by sample, objective, bias.
local function solve_naively(samples, x, k)
  local n, beta, gram, value = #samples, {}, {}, {}
  for i = 1, n do
    beta[i], value[i], gram[i] = 0, samples[i].sign, {}
    for j = 1, n do gram[i][j] = k(x[samples[i].row], x[samples[j].row]) end
  end
  local function room(i, direction)
    local s = samples[i]
    local high, low = s.sign > 0 and s.most or 0, s.sign > 0 and 0 or -s.most
    return direction > 0 and high - beta[i] or beta[i] - low
  end
  for _ = 1, 3000 do
    local moved = 0
    for i = 1, n do
      for j = 1, n do
        local gap = value[i] - value[j]
        local step = math.min(room(i, 1), room(j, -1), gap / math.max(gram[i][i] + gram[j][j] - 2 * gram[i][j], 1e-12))
        if gap > 0 and step > 0 then
          beta[i], beta[j] = beta[i] + step, beta[j] - step
          for t = 1, n do value[t] = value[t] - step * (gram[i][t] - gram[j][t]) end
          moved = math.max(moved, gap)
        end
      end
    end
    if moved < 1e-7 then break end
  end
  local objective, up, down = 0, -math.huge, math.huge
  for i = 1, n do
    objective = objective + beta[i] * (samples[i].sign + value[i]) / 2
    if room(i, 1) > 1e-9 then up = math.max(up, value[i]) end
    if room(i, -1) > 1e-9 then down = math.min(down, value[i]) end
  end
  return beta, objective, (up + down) / 2
end

local function dual_objective(samples, x, k, beta)
  local sum = 0
  for _, a in ipairs(samples) do
    local b = beta[a.row] or 0
    sum = sum + b * a.sign
    for _, c in ipairs(samples) do sum = sum - b * (beta[c.row] or 0) * k(x[a.row], x[c.row]) / 2 end
  end
  return sum
end

function T.test_objective_and_decisions_are_those_of_a_naive_solver()
  for round = 1, 200 do
    local o = random_options()
    o.tolerance, o.C = 1e-5, math.min(o.C, 10)
    local x, y = clouds(check.integer(4, 14), check.integer(1, 4), check.integer(2, 3), 1)
    local model, k = svm.train(tensor(x), y, o), kernel_of(o)
    local f = model:decisions(tensor(x)):totable()
    for m = 1, #model.bias do
      local samples = samples_of(model, m, y, {})
      local expected, objective, bias = solve_naively(samples, x, k)
      local got = dual_objective(samples, x, k, betas(model, m))
      lu.assertAlmostEquals(got, objective, 1e-3 * math.max(1, objective), ("round %d: objective"):format(round))
      local scale = 1
      for _, b in ipairs(expected) do scale = math.max(scale, math.abs(b)) end
      for i, s in ipairs(samples) do
        local value = 0
        for j, other in ipairs(samples) do value = value + expected[j] * k(x[other.row], x[s.row]) end
        -- where no alpha lies between its bounds any bias between two values is optimal
        local free = false
        for j, b in ipairs(expected) do free = free or (math.abs(b) > 1e-6 and math.abs(b) < samples[j].most - 1e-6) end
        if free then lu.assertAlmostEquals(f[s.row][m], value + bias, 1e-3 * scale, ("round %d, sample %d"):format(round, i)) end
      end
    end
  end
end

function T.test_conditions_of_optimality_hold_in_every_machine()
  for round = 1, 200 do
    local o = random_options()
    local x, y = clouds(check.integer(6, 60), check.integer(1, 6), check.integer(2, 4), 0.7)
    local weights = {}
    if round % 3 == 0 then
      for label = 1, 2 do weights[label] = check.integer(1, 4) / 2 end
      o.class_weight = weights
    end
    local model = svm.train(tensor(x), y, o)
    for m = 1, #model.bias do
      check_optimal(model, m, x, y, weights, 2e-3 + 1e-5 * o.C, ("round %d machine %d %s"):format(round, m, model))
    end
  end
end

function T.test_many_samples_with_all_kernel_values_and_with_few_rows_of_them()
  local x, y = clouds(1500, 6, 2, 0.3)
  local whole = svm.train(tensor(x), y, { C = 5, progress = false })
  local rows = svm.train(tensor(x), y, { C = 5, cache_mb = 1, progress = false })
  check_optimal(whole, 1, x, y, {}, 2e-3, "all values")
  check_optimal(rows, 1, x, y, {}, 2e-3, "few rows")
  check.close(rows:decisions(tensor(x)), whole:decisions(tensor(x)), 3e-3)
end

function T.test_the_number_of_threads_changes_no_bit()
  local code = [[
    local feral = require "feral"
    local x, y = feral.tensor.randn(1400, 7), {}
    for i = 1, 1400 do y[i] = 1 + (i * i + i // 3) % 5 % 4 end
    for _, o in ipairs { {}, { cache_mb = 0.1 }, { cache_mb = 8 }, { multiclass = "ovr" }, { kernel = "poly", coef0 = 1 },
      { kernel = "linear" }, { kernel = "linear", loss = "hinge" }, { standardize = true } } do
      o.progress, o.max_iter = false, 3000
      local m, hash = feral.svm.train(x, y, o), 5381
      for _, t in ipairs { m.coef or m.weight, m.bias, m:scores(x) } do
        for byte in t:tobytes():gmatch "." do hash = (hash * 33 + byte:byte()) % 4294967296 end
      end
      print(hash)
    end]]
  local script = temporary.write(os.tmpname(), code)
  local printed = {}
  for _, threads in ipairs { 1, 2, 4, 7 } do
    local child = assert(io.popen(("OMP_NUM_THREADS=%d '%s' '%s' 2>&1"):format(threads, arg[-1], script)))
    printed[threads] = child:read("a")
    child:close()
  end
  os.remove(script)
  lu.assertStrMatches(printed[1], ("%d+\n"):rep(8))
  for _, threads in ipairs { 2, 4, 7 } do lu.assertEquals(printed[threads], printed[1]) end
end


-- ---- against libsvm and liblinear ----

--- The same features in Python: sin(0.7 i j + j) + 0.3 cos(1.3 i j^2) for rows i from first, columns j.
local function formula_rows(first, count)
  local rows = {}
  for i = first, first + count - 1 do
    local row = {}
    for j = 1, 4 do row[j] = math.sin(i * j * 0.7 + j) + 0.3 * math.cos(i * 1.3 * j * j) end
    rows[#rows + 1] = row
  end
  return rows
end

local function formula_labels(rows)
  local y = {}
  for i, r in ipairs(rows) do
    local s = r[1] + 0.5 * r[2] * r[3] + 0.4 * math.sin(3 * i)
    y[i] = s > 0.4 and 1 or s > -0.3 and 2 or 4
  end
  return y
end

-- decision values of rows 101 to 104 by scikit-learn 1.2.1 (libsvm: SVC with tol 1e-6; liblinear: LinearSVC, tol 1e-8)
local reference = {
  { { C = 10 }, { { 0.484058, -0.419880, -1.783082 }, { -0.873472, 1.256198, 1.018398 },
    { 0.400314, -2.130087, -2.443351 }, { -0.943173, -1.503345, -2.072098 } } },
  { { C = 2, gamma = 0.5, class_weight = "balanced" }, { { -0.393853, 0.526652, 0.260727 },
    { -0.638367, 0.748466, 0.972179 }, { -0.245452, -1.386223, -1.226337 }, { -0.692357, -1.166677, -1.357467 } } },
  { { kernel = "poly", gamma = 0.4, coef0 = 1 }, { { -0.093887, 0.254452, -0.858289 }, { -0.252341, 0.575562, 0.873893 },
    { -0.713114, -1.672721, -1.411106 }, { -1.967374, -1.644246, -1.898584 } } },
  { { kernel = "linear", multiclass = "ovo" }, { { -1.043404, 1.501898, 2.428176 }, { 0.331574, 0.287933, 0.257079 },
    { 0.064653, -1.469241, -1.620417 }, { -1.569595, -1.894872, -2.232699 } } },
  { { kernel = "linear" }, { { -0.041738, 0.188385, -1.845061 }, { -0.132588, -0.694717, -0.482691 },
    { -1.093817, -0.973833, 0.865857 }, { -2.061830, -0.670308, 1.428561 } } },
  { { kernel = "linear", loss = "hinge" }, { { -0.021192, -1.000000, -3.403833 }, { -0.179352, -1.000000, -0.740714 },
    { -1.664578, -1.000000, 1.580838 }, { -2.915301, -1.000000, 2.172005 } } },
  { { kernel = "linear", class_weight = { [1] = 2, [4] = 0.5 } }, { { 0.312400, 0.188385, -2.142297 },
    { 0.064484, -0.694717, -0.635551 }, { -0.929569, -0.973833, 0.707597 }, { -1.793952, -0.670308, 1.189420 } } },
}

function T.test_decisions_are_those_of_libsvm_and_liblinear()
  local rows = formula_rows(1, 60)
  local x, y, more = tensor(rows), formula_labels(rows), tensor(formula_rows(101, 4))
  for i, case in ipairs(reference) do
    local o = case[1]
    o.tolerance, o.max_iter, o.progress = 1e-5, 1000000, false
    check.close(svm.train(x, y, o):decisions(more), tensor(case[2]), 1e-3, ("case %d"):format(i))
  end
end

function T.test_two_classes_are_those_of_libsvm_and_liblinear()
  local rows, x, y = formula_rows(1, 60), {}, {}
  for i, label in ipairs(formula_labels(rows)) do
    if label < 4 then x[#x + 1], y[#y + 1] = rows[i], label end
  end
  local more = tensor(formula_rows(101, 4))
  local model = svm.train(tensor(x), y, { C = 10, gamma = 0.3, tolerance = 1e-5 })
  check.close(model:decisions(more), { 0.34077, -0.298566, -0.284323, -1.438585 }, 1e-3)
  check.close(model:scores(more):select(2, 2), { -0.34077, 0.298566, 0.284323, 1.438585 }, 1e-3)
  model = svm.train(tensor(x), y, { kernel = "linear", tolerance = 1e-6, max_iter = 100000 })
  check.close(model:decisions(more), { -0.365054, 0.144134, -0.30489, -1.322318 }, 1e-3)
end

-- ---- linear machines ----

--- The primal objective of class 'label' against the rest for weights w (the bias last).
local function primal(x, y, label, w, o)
  local value = 0
  for _, v in ipairs(w) do value = value + v * v / 2 end
  for i, row in ipairs(x) do
    local f = w[#w]
    for j, v in ipairs(row) do f = f + w[j] * v end
    local loss = math.max(0, 1 - (y[i] == label and f or -f))
    value = value + o.C * (o.loss == "hinge" and loss or loss * loss)
  end
  return value
end

function T.test_no_step_from_linear_weights_lowers_the_primal_objective()
  for round = 1, 200 do
    local classes, width = check.integer(2, 4), check.integer(1, 7)
    local x, y = clouds(check.integer(5, 40), width, classes, 0.7)
    local o = { kernel = "linear", C = 10.0 ^ check.integer(-2, 1), loss = round % 2 == 0 and "hinge" or nil,
      tolerance = 1e-7, max_iter = 100000 }
    local model = svm.train(tensor(x), y, o)
    for m = 1, #model.bias do
      local w = model.weight[m]:totable()
      w[width + 1] = model.bias[m]:item()
      local least = primal(x, y, m, w, o)
      for _ = 1, 20 do
        local step, size = check.randn(width + 1):totable(), 10.0 ^ check.integer(-4, 0)
        for j, v in ipairs(step) do step[j] = w[j] + size * v end
        lu.assertTrue(primal(x, y, m, step, o) >= least - 1e-5 * (1 + least), ("round %d, class %d"):format(round, m))
      end
    end
  end
end

function T.test_coordinate_descent_and_the_kernel_solver_find_the_same_linear_machine()
  for _ = 1, 20 do
    local half, y = check.randn(check.integer(3, 30), 3):totable(), {}
    local x = {}
    for i, row in ipairs(half) do -- mirrored, so that the best bias is 0 whether it is regularised or not
      x[2 * i - 1], y[2 * i - 1] = { row[1] + 0.5, row[2], row[3] }, 1
      x[2 * i], y[2 * i] = { -row[1] - 0.5, -row[2], -row[3] }, 2
    end
    local o = { kernel = "linear", loss = "hinge", C = 0.3, tolerance = 1e-6, max_iter = 100000 }
    local direct = svm.train(tensor(x), y, o)
    o.multiclass = "ovo"
    local pairs_of = svm.train(tensor(x), y, o)
    check.close(direct.weight, pairs_of.weight, 2e-3)
    lu.assertAlmostEquals(pairs_of.bias:item(), 0, 2e-2)
  end
end

-- ---- what people rely on ----

function T.test_separable_classes_are_learnt_without_error()
  local x, y = {}, {}
  for i = 1, 80 do -- exclusive or: no line separates it
    local a, b = i % 2, i // 2 % 2
    x[i], y[i] = { a + 0.2 * math.sin(i), b + 0.2 * math.cos(3 * i) }, (a + b) % 2 + 1
  end
  for _, o in ipairs { { C = 10 }, { kernel = "poly", degree = 2, coef0 = 1, C = 100 } } do
    lu.assertEquals(svm.train(tensor(x), y, o):predict(tensor(x)):totable(), y)
  end
  for i = 1, 80 do -- four places on a circle
    y[i] = i % 4 + 1
    x[i] = { 4 * math.sin(1.5 * y[i]) + 0.3 * math.sin(i), 4 * math.cos(1.5 * y[i]) + 0.3 * math.cos(i) }
  end
  for _, o in ipairs { {}, { kernel = "linear" }, { kernel = "linear", multiclass = "ovo" }, { multiclass = "ovr" } } do
    local model = svm.train(tensor(x), y, o)
    lu.assertEquals(model:predict(tensor(x)):totable(), y)
    lu.assertEquals(model.unfinished, 0)
  end
end

function T.test_the_order_of_samples_does_not_matter()
  for _, o in ipairs { { C = 10, tolerance = 1e-5 }, { kernel = "linear", tolerance = 1e-6, max_iter = 100000 } } do
    local x, y = clouds(90, 4, 3, 0.6)
    local px, py = {}, {}
    for i, from in ipairs(tensor.randperm(90):totable()) do px[i], py[i] = x[from], y[from] end
    local a, b = svm.train(tensor(x), y, o), svm.train(tensor(px), py, o)
    check.close(b:decisions(tensor(x)), a:decisions(tensor(x)), 1e-3)
  end
end

function T.test_labels_need_not_all_occur()
  local x, y = clouds(60, 3, 3, 2)
  for i = 1, 60 do y[i] = ({ 2, 5, 9 })[y[i]] end
  local names = { "a", "b", "c", "d", "e", "f", "g", "h", "i" }
  local model = svm.train(tensor(x), tensor(y, "i32"), { classes = names })
  lu.assertEquals(model.labels, { 2, 5, 9 })
  lu.assertEquals(model:scores(tensor(x)).shape, { 60, 3 })
  local predicted = model:predict(tensor(x))
  lu.assertEquals(predicted.dtype, "i32")
  for _, label in ipairs(predicted:totable()) do lu.assertTrue(label == 2 or label == 5 or label == 9) end
  lu.assertStrContains(tostring(model), "3 classes (b, e, i), 3 features")
end

function T.test_scores_of_pairs_are_votes_ordered_by_values()
  local x, y = clouds(70, 3, 4, 1)
  local model = svm.train(tensor(x), y)
  local scores, f = model:scores(tensor(x)):totable(), model:decisions(tensor(x)):totable()
  local labels = model:predict(tensor(x)):totable()
  for i, row in ipairs(f) do
    local votes, sums, m = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, 0
    for a = 1, 4 do
      for b = a + 1, 4 do
        m = m + 1
        local winner = row[m] > 0 and a or b
        votes[winner], sums[a], sums[b] = votes[winner] + 1, sums[a] + row[m], sums[b] - row[m]
      end
    end
    for c = 1, 4 do lu.assertAlmostEquals(scores[i][c], votes[c] + sums[c] / (3 * (math.abs(sums[c]) + 1)), 1e-5) end
    for c = 1, 4 do lu.assertTrue(scores[i][labels[i]] >= scores[i][c]) end
  end
end

function T.test_class_weights_favour_a_rare_class()
  local x, y = check.randn(200, 2):totable(), {}
  for i = 1, 200 do
    y[i] = i % 20 == 0 and 2 or 1
    x[i][1] = x[i][1] + y[i]
  end
  local function found(o)
    local counts = metrics.confusion(y, svm.train(tensor(x), y, o):predict(tensor(x)), 2)
    return counts[2][2]
  end
  for _, kernel in ipairs { "rbf", "linear" } do
    local plain = found { kernel = kernel, gamma = 0.1 }
    local balanced = found { kernel = kernel, gamma = 0.1, class_weight = "balanced" }
    lu.assertTrue(balanced > plain, ("%s: %d of the rare class, balanced %d"):format(kernel, plain, balanced))
    lu.assertEquals(found { kernel = kernel, gamma = 0.1, class_weight = { 200 / 380, 200 / 20 } }, balanced)
  end
end

function T.test_standardized_features_may_lie_on_any_scale()
  local x, y = clouds(80, 3, 3, 1)
  local scaled = {}
  for i, row in ipairs(x) do scaled[i] = { 1000 * row[1] + 5000, row[2] / 100 - 3, row[3], 7 } end
  for i, row in ipairs(x) do x[i] = { row[1], row[2], row[3], 0 } end
  for _, kernel in ipairs { "rbf", "linear", "poly" } do
    local o = { kernel = kernel, standardize = true, tolerance = 1e-4, coef0 = 1, max_iter = 100000 }
    local a, b = svm.train(tensor(x), y, o), svm.train(tensor(scaled), y, o)
    check.close(b:decisions(tensor(scaled)), a:decisions(tensor(x)), 5e-3, kernel)
  end
end

function T.test_rbf_features_may_lie_far_from_the_origin()
  local x, y = clouds(80, 3, 2, 1)
  local far = {}
  for i, row in ipairs(x) do -- to 1/64, which float32 resolves at 4096 and more
    for j = 1, 3 do row[j] = math.floor(row[j] * 64) / 64 end
    far[i] = { row[1] + 4096, row[2] - 8192, row[3] + 4096 }
  end
  local a, b = svm.train(tensor(x), y, { C = 10, gamma = 0.5 }), svm.train(tensor(far), y, { C = 10, gamma = 0.5 })
  check.close(b:decisions(tensor(far)), a:decisions(tensor(x)), 1e-2)
end

function T.test_linear_pairs_may_lie_far_from_the_origin()
  local x, y = clouds(150, 5, 3, 1)
  for _, row in ipairs(x) do
    for j = 1, 5 do row[j] = math.floor(row[j] * 64) / 64 end
  end
  local near, far = tensor(x), tensor(x) + 4096
  local o = { kernel = "linear", multiclass = "ovo" }
  local a, b = svm.train(near, y, o), svm.train(far, y, o)
  check.close(b:decisions(far), a:decisions(near), 1e-2)
  lu.assertEquals(b:predict(far):totable(), a:predict(near):totable())
  local folder <close> = temporary.folder()
  assert(b:save(folder / "far.svm"))
  lu.assertEquals(assert(svm.load(folder / "far.svm")):decisions(far):totable(), b:decisions(far):totable())
end

--- Pairs of near rows that lie far from each other and from their mean: float32 does not hold |a|^2 + |b|^2 - 2 a.b.
function T.test_rbf_values_of_near_rows_far_out()
  local engine = require "feral.core.svm"
  for _, width in ipairs { 1, 7, 40 } do
    local centre = check.randn(30, width)
    local x = (tensor.cat { centre, centre, centre + check.randn(30, width) * 1e-3 } * 64):round() / 64 * 500
    local rows, gamma = x:totable(), 0.5 / width
    local k = engine.decide(x, x, tensor.eye(90), tensor.zeros(90),
      { kernel = "rbf", gamma = gamma, coef0 = 0, degree = 1 }):totable()
    for i, a in ipairs(rows) do
      lu.assertEquals(k[i][i], 1)
      if i <= 30 then lu.assertEquals(k[i][i + 30], 1) end
      for j, b in ipairs(rows) do
        local d = 0
        for c = 1, width do d = d + (a[c] - b[c]) ^ 2 end
        lu.assertAlmostEquals(k[i][j], math.exp(-gamma * d), 1e-5)
      end
    end
  end
end

function T.test_equal_samples_of_different_classes_and_constant_features()
  local x, y = {}, {}
  for i = 1, 40 do x[i], y[i] = { 1, 2 }, i % 2 + 1 end
  for _, o in ipairs { {}, { kernel = "linear" }, { kernel = "poly" }, { standardize = true } } do
    for _, value in ipairs(svm.train(tensor(x), y, o):decisions(tensor(x)):totable()) do
      lu.assertAlmostEquals(value[1], 0, 1e-3)
    end
  end
end

function T.test_steps_can_be_limited()
  local x, y = clouds(300, 3, 2, 0.1)
  local model = svm.train(tensor(x), y, { C = 1000, max_iter = 1 })
  lu.assertEquals(model.unfinished, 1)
  lu.assertStrContains(tostring(model), "1 of 1 machines stopped early")
end

function T.test_views_and_strided_features()
  local x, y = clouds(50, 4, 2, 1)
  local model = svm.train(tensor(x), y)
  local wide = tensor(x):transpose():contiguous():transpose()
  check.close(svm.train(wide, y):decisions(wide), model:decisions(tensor(x)), 1e-6)
end

-- ---- mistakes ----

function T.test_mistakes_are_named()
  local x, y = tensor((clouds(10, 3, 2, 1))), { 1, 2, 1, 2, 1, 2, 1, 2, 1, 2 }
  local function refused(expected, ...)
    lu.assertStrContains(check.message(svm.train, ...), expected)
  end
  refused("all 10 samples have label 2", x, { 2, 2, 2, 2, 2, 2, 2, 2, 2, 2 })
  refused("10 samples but 9 labels", x, { 1, 2, 1, 2, 1, 2, 1, 2, 1 })
  refused("label 3 is 0", x, { 1, 2, 0, 2, 1, 2, 1, 2, 1, 2 })
  refused("label 2 is 1.5", x, { 1, 1.5, 0, 2, 1, 2, 1, 2, 1, 2 })
  refused("labels must be i32, got " .. core.real, x, tensor(y))
  refused("labels must have 1 dimension, got 2 x 5", x, tensor(y, "i32"):reshape(2, 5))
  refused("labels must be a tensor of i32 or a list, got nil", x)
  refused("features must be N x D, got 30", x:reshape(30), y)
  refused(("features must be %s, got u8"):format(core.real), tensor.zeros(10, 3, "u8"), y)
  refused("features must be a tensor N x D, got table", {}, y)
  refused("C must be a number above 0, got 0", x, y, { C = 0 })
  refused("C must be a number above 0, got -1", x, y, { C = -1 })
  refused("C must be a number above 0, got inf", x, y, { C = math.huge })
  refused("gamma must be a number above 0, got 0", x, y, { gamma = 0 })
  refused("gamma must be a number above 0, got auto", x, y, { gamma = "auto" })
  refused("tolerance must be a number above 0, got 0", x, y, { tolerance = 0 })
  refused("cache_mb must be a number above 0, got 0", x, y, { cache_mb = 0 })
  refused("degree must be a whole number of 1 or more, got 2.5", x, y, { kernel = "poly", degree = 2.5 })
  refused("max_iter must be a whole number of 1 or more, got 0", x, y, { max_iter = 0 })
  refused("coef0 must be a number", x, y, { coef0 = "1" })
  refused("kernel is 'rfb', did you mean 'rbf'?", x, y, { kernel = "rfb" })
  refused("multiclass is 'ova'", x, y, { multiclass = "ova" })
  refused("loss is 'hinges', did you mean 'hinge'?", x, y, { kernel = "linear", loss = "hinges" })
  refused("unknown option 'gama', did you mean 'gamma'?", x, y, { gama = 1 })
  refused("class_weight names label 3, which no sample has", x, y, { class_weight = { [3] = 1 } })
  refused("class_weight of label 2 must be a number above 0, got 0", x, y, { class_weight = { [2] = 0 } })
  refused("class_weight must be \"balanced\"", x, y, { class_weight = "even" })
  refused("label 2 has no name: classes names 1", x, y, { classes = { "one" } })
  refused("card must be a table", x, y, { card = "me" })
  refused("kernel values pass the largest number", x * 1e30, y, { kernel = "poly", gamma = 1e30, degree = 9 })
end

function T.test_a_feature_that_is_no_number_is_named_by_row_and_column()
  for _, bad in ipairs { 0 / 0, math.huge, -math.huge } do
    for _ = 1, 30 do
      local n, d = check.integer(4, 30), check.integer(1, 40)
      local x, y = clouds(n, d, 2, 1)
      local row, column = check.integer(1, n), check.integer(1, d)
      local model = svm.train(tensor(x), y)
      x[row][column] = bad
      local where = ("row %d, column %d of the features is"):format(row, column)
      lu.assertStrContains(check.message(svm.train, tensor(x), y), where)
      lu.assertStrContains(check.message(model.predict, model, tensor(x)), where)
    end
  end
end

function T.test_prediction_wants_the_features_of_training()
  local x, y = clouds(20, 3, 2, 1)
  local model = svm.train(tensor(x), y)
  lu.assertStrContains(check.message(model.predict, model, tensor.zeros(5, 4)), "trained on 3 features a sample, got 5 x 4")
  lu.assertStrContains(check.message(model.scores, model, tensor.zeros(3)), "features must be N x D, got 3")
end

-- ---- memory and interrupts ----

function T.test_survives_lack_of_memory()
  local x, y = clouds(30, 3, 3, 1)
  x = tensor(x)
  for _, o in ipairs { { standardize = true }, { kernel = "linear" }, { multiclass = "ovr", cache_mb = 0.001 } } do
    check.survives_lack_of_memory(function()
      local _open <close> = tensor.scope()
      svm.train(x, y, o):predict(x)
    end)
  end
end

function T.test_a_model_outlives_the_scope_it_was_made_in_and_leaves_nothing_else()
  local x, y = clouds(200, 3, 3, 1)
  x = tensor(x)
  local function made()
    local _open <close> = tensor.scope()
    return svm.train(x, y)
  end
  made()
  collectgarbage() collectgarbage()
  local before = scope.memory().live
  local model = made()
  lu.assertEquals(#model:predict(x), 200)
  model = nil -- luacheck: ignore
  collectgarbage() collectgarbage()
  scope.trim()
  lu.assertTrue(scope.memory().live <= before + 4096, ("%d bytes stay"):format(scope.memory().live - before))
end

function T.test_training_can_be_interrupted()
  local script = temporary.write(os.tmpname(), [[
    local feral = require "feral"
    local x, y = feral.tensor.randn(3000, 40), {}
    for i = 1, 3000 do y[i] = i % 2 + 1 end
    local o = ({ { C = 1e6, gamma = 1 }, { C = 1e6, gamma = 1, cache_mb = 10 },
      { kernel = "linear", C = 1e6, max_iter = 1e8 } })[tonumber(arg[1])]
    os.execute "(sleep 0.3; kill -INT $PPID) &"
    while true do feral.svm.train(x, y, o) end]])
  for kind = 1, 3 do
    local child = assert(io.popen(("'%s' '%s' %d 2>&1"):format(arg[-1], script, kind)))
    local printed = child:read("a")
    child:close()
    lu.assertStrContains(printed, "interrupted!")
  end
  os.remove(script)
end

function T.test_the_example_trains_scores_and_saves()
  local dir <close> = temporary.folder()
  for part, count in pairs { train = 84, test = 42 } do
    local set = feral.data.synthetic { count = count, seed = count }
    for i, label in ipairs(set.labels:totable()) do
      local class = ("%s/%s/%s"):format(dir.path, part, set.classes[label])
      assert(files.mkdir(class))
      assert(feral.image.save(("%s/%d.png"):format(class, i), set.images[i]))
    end
  end
  local child = assert(io.popen(("'%s' examples/svm.lua '%s' --save '%s' 2>&1"):format(arg[-1], dir.path, dir / "m")))
  local printed = child:read("a")
  lu.assertTrue(child:close(), printed)
  lu.assertStrMatches(printed, "84 images.*svm: rbf.*<%- predicted.*accuracy %d.*saved .*")
  lu.assertEquals(assert(svm.load(dir / "m")).features, 900)
end

return T
