--- svm.lua: support vector machines over feature vectors: of two classes and more, linear, polynomial and RBF.
---
---     local model = svm.train(x, y, { C = 10 })           -- x: N x D, y: N labels; RBF kernel
---     local labels = model:predict(more)
---     model:save("faces.svm")

local core = require "feral.core.tensor"
local engine = require "feral.core.svm"
local create = require "feral.core.create"
local view = require "feral.core.view"
local index = require "feral.core.index"
local arith = require "feral.core.arith"
local reduce = require "feral.core.reduce"
local matmul = require "feral.core.matmul"
local scope = require "feral.core.scope"
local system = require "feral.core.system"
local errors = require "feral.base.errors"

local svm = {}

local kernels = { "rbf", "linear", "poly" }
local tensor_fields = { "support", "coef", "weight", "bias", "indices", "shift", "scale" }

---@class SvmModel
---@field kernel string          "rbf", "linear" or "poly"
---@field multiclass string      "ovo": a machine for each pair of classes; "ovr": one for each class against the rest
---@field labels integer[]       the labels that occurred in training, rising: the columns of scores
---@field classes string[]|nil   names by label
---@field features integer       features a sample
---@field support Tensor|nil     S x D: support vectors, prepared (shift, scale); not for the linear kernel
---@field coef Tensor|nil        S x machines: y alpha of each support vector in each machine; not for the linear kernel
---@field weight Tensor|nil      machines x D, for the linear kernel
---@field bias Tensor            machines
---@field indices Tensor|nil     i32 S: the rows of the training features that are the support vectors; not for "ovr" linear
---@field shift Tensor|nil       D, subtracted from features
---@field scale Tensor|nil       D, by which features are divided after that
---@field gamma number
---@field coef0 number
---@field degree integer
---@field C number
---@field violation number       how far the optimality conditions were from holding at the end of training
---@field unfinished integer     machines that did not reach the tolerance
---@field card table             free facts, saved with the model
local Model = {}
Model.__index = Model

-- ---- checking what users give ----

local function positive(options, name)
  local value = options[name]
  if type(value) ~= "number" or not (value > 0 and value < math.huge) then
    errors.raise("svm.train: %s must be a number above 0, got %s", name, tostring(value))
  end
end

local function one_of(options, name, known)
  for _, value in ipairs(known) do
    if options[name] == value then return end
  end
  errors.raise("svm.train: %s is '%s'%s (known: %s)", name, tostring(options[name]), errors.hint(options[name], known),
    table.concat(known, ", "))
end

local function whole(options, name)
  local value = math.tointeger(options[name])
  if not value or value < 1 then
    errors.raise("svm.train: %s must be a whole number of 1 or more, got %s", name, tostring(options[name]))
  end
  options[name] = value
end

local function check_options(given)
  local options = errors.check_options("svm.train", given, {
    kernel = "rbf", C = 1, gamma = "scale", degree = 3, coef0 = 0, multiclass = false, loss = "squared_hinge",
    class_weight = false, standardize = false, classes = false, card = false, tolerance = false, max_iter = false,
    cache_mb = 1000, progress = true,
  })
  one_of(options, "kernel", kernels)
  options.multiclass = options.multiclass or (options.kernel == "linear" and "ovr" or "ovo")
  one_of(options, "multiclass", { "ovo", "ovr" })
  one_of(options, "loss", { "hinge", "squared_hinge" })
  options.tolerance = options.tolerance or 1e-3
  for _, name in ipairs { "C", "tolerance", "cache_mb" } do positive(options, name) end
  if options.card and type(options.card) ~= "table" then
    errors.raise("svm.train: card must be a table, got %s", type(options.card))
  end
  if options.gamma ~= "scale" then positive(options, "gamma") end
  whole(options, "degree")
  if options.max_iter then whole(options, "max_iter") end
  if type(options.coef0) ~= "number" or options.coef0 - options.coef0 ~= 0 then
    errors.raise("svm.train: coef0 must be a number, got %s", tostring(options.coef0))
  end
  return options
end

local function check_features(where, x)
  if not core.is_tensor(x) then errors.raise("%s: features must be a tensor N x D, got %s", where, type(x)) end
  if x.dtype ~= core.real then errors.raise("%s: features must be %s, got %s", where, core.real, x.dtype) end
  if x:dim() ~= 2 then
    errors.raise("%s: features must be N x D, got %s", where, table.concat(x.shape, " x "))
  end
end

--- The labels as a list.
local function check_labels(y, count)
  if core.is_tensor(y) then
    if y.dtype ~= "i32" then errors.raise("svm.train: labels must be i32, got %s", y.dtype) end
    if y:dim() ~= 1 then errors.raise("svm.train: labels must have 1 dimension, got %s", table.concat(y.shape, " x ")) end
    y = create.totable(y)
  elseif type(y) ~= "table" then
    errors.raise("svm.train: labels must be a tensor of i32 or a list, got %s", type(y))
  end
  if #y ~= count then errors.raise("svm.train: %d samples but %d labels", count, #y) end
  for i, label in ipairs(y) do
    if math.type(label) ~= "integer" or label < 1 then
      errors.raise("svm.train: label %d is %s; labels are whole numbers from 1", i, tostring(label))
    end
  end
  return y
end

--- Sorts samples by class: the labels that occur, how many samples each has, and the samples' rows, class after class.
local function group_by_class(labels)
  local rows_of, occurring, sizes, order = {}, {}, {}, {}
  for row, label in ipairs(labels) do
    if not rows_of[label] then
      rows_of[label] = {}
      occurring[#occurring + 1] = label
    end
    table.insert(rows_of[label], row)
  end
  table.sort(occurring)
  for k, label in ipairs(occurring) do
    sizes[k] = #rows_of[label]
    table.move(rows_of[label], 1, sizes[k], #order + 1, order)
  end
  if #occurring < 2 then
    errors.raise("svm.train: all %d samples have label %d; two classes are needed", #labels, occurring[1])
  end
  return occurring, sizes, order
end

local function check_class_names(classes, labels)
  if not classes then return nil end
  if type(classes) ~= "table" then errors.raise("svm.train: classes must be a list of names, got %s", type(classes)) end
  local last = labels[#labels]
  if #classes < last then errors.raise("svm.train: label %d has no name: classes names %d", last, #classes) end
  return table.move(classes, 1, #classes, 1, {})
end

--- The largest alpha of each class: C times the class's weight.
local function class_bounds(options, labels, sizes)
  local given, bounds, total, is_label = options.class_weight or {}, {}, 0, {}
  for k, label in ipairs(labels) do total, is_label[label] = total + sizes[k], true end
  if given ~= "balanced" and type(given) ~= "table" then
    errors.raise("svm.train: class_weight must be \"balanced\" or a table of weights by label, got %s", tostring(given))
  end
  for label in pairs(given == "balanced" and {} or given) do
    if not is_label[label] then errors.raise("svm.train: class_weight names label %s, which no sample has", tostring(label)) end
  end
  for k, label in ipairs(labels) do
    local weight = given == "balanced" and total / (#labels * sizes[k]) or given[label] or 1
    if type(weight) ~= "number" or not (weight > 0 and weight < math.huge) then
      errors.raise("svm.train: class_weight of label %d must be a number above 0, got %s", label, tostring(weight))
    end
    bounds[k] = options.C * weight
  end
  return bounds
end

-- ---- training ----

--- Features as machines see them, class after class, and what is done to them; sets options.gamma.
local function prepare(x, order, options)
  local mean, deviation, variance = engine.moments(x)
  -- distances do not change when all samples move, nor a linear machine whose bias is free, but floats resolve both best around 0
  local moves = options.kernel == "rbf" or (options.kernel == "linear" and options.multiclass == "ovo")
  local shift = (options.standardize or moves) and mean or nil
  local scale = options.standardize and deviation or nil
  local rows = engine.prepare(x, create.from_table(order, "i32"), shift, scale)
  if options.gamma == "scale" then
    if options.standardize then variance = select(3, engine.moments(rows)) end
    options.gamma = variance > 0 and 1 / (x:size(2) * variance) or 1
  end
  return rows, shift, scale
end

--- Keeps the rows that are a support vector of any machine.
local function compact(rows, coef, order)
  local largest, positions, sources = create.totable(reduce.max(arith.abs(coef), 2)), {}, {}
  for i, value in ipairs(largest) do
    if value > 0 then
      positions[#positions + 1] = i
      sources[#sources + 1] = order[i]
    end
  end
  if #positions == 0 then positions, sources = { 1 }, { order[1] } end -- a tensor has a row at least
  local picked = create.from_table(positions, "i32")
  return index.index_select(rows, 1, picked), index.index_select(coef, 1, picked), create.from_table(sources, "i32")
end

local function train_kernel(model, rows, sizes, bounds, order, options)
  local coef, bias, outcome = engine.train_kernel(rows, sizes, bounds, options)
  scope.trim() -- the kernel values' memory
  local support, support_coef, indices = compact(rows, coef, order)
  model.bias, model.indices = bias, indices
  if model.kernel == "linear" then
    model.weight = matmul.matmul(view.transpose(support_coef), support)
  else
    model.support, model.coef = support, support_coef
  end
  return outcome
end

--- What the engine is told.
local function engine_settings(model, options, descent)
  return {
    kernel = options.kernel, gamma = options.gamma, coef0 = options.coef0, degree = options.degree, cost = options.C,
    tolerance = options.tolerance, steps = options.max_iter or (descent and 1000 or 0), budget = options.cache_mb * 1e6,
    squared = options.loss == "squared_hinge", one_vs_rest = model.multiclass == "ovr",
    progress = options.progress and system.width(2) ~= nil,
  }
end

--- Trains a support vector machine.
---
--- Options: kernel "rbf" (default), "linear", "poly"; C (1); gamma ("scale": 1 / (D times the variance of x), or a number);
--- degree (3) and coef0 (0) of (gamma x.z + coef0)^degree; multiclass "ovo" (a machine for each pair of classes; default) or
--- "ovr" (each class against the rest; default for "linear", and then by coordinate descent with the loss "squared_hinge"
--- or "hinge"; there the bias is regularised as the weights are); class_weight, "balanced" or {[label] = weight}, times C;
--- standardize (false): features less their mean over their deviation, also in prediction; classes, names by label;
--- tolerance (1e-3) and max_iter, where training ends (steps a machine; for "ovr" linear passes, 1000); cache_mb (1000),
--- megabytes for kernel values; progress (true): a line on the terminal; card, a table saved with the model.
---
--- Features may lie anywhere for "rbf" and for "linear" by pairs ("ovo"): their mean is subtracted first, which changes no
--- such machine. It would change one of "poly", and a linear one against the rest, whose bias is regularised: features far from 0
--- beside their deviation (mean 1,000, deviation 1) are lost there in the rounding of x.z, or take very many passes. Give them
--- standardize = true, or features around 0.
---
--- The result is the same for any number of threads. Methods: Fan, Chen, Lin 2005; Wen et al. 2018; Hsieh et al. 2008.
---@param x Tensor            N x D features
---@param y Tensor|integer[]  N labels from 1 (i32); not all need occur
---@param options table|nil
---@return SvmModel
--- Raises when a feature is not finite (naming row and column), when all labels are equal, and for options out of range.
function svm.train(x, y, options)
  options = check_options(options)
  check_features("svm.train", x)
  local labels, sizes, order = group_by_class(check_labels(y, x:size(1)))
  local bounds = class_bounds(options, labels, sizes)
  local model = setmetatable({
    kernel = options.kernel, multiclass = #labels == 2 and "ovo" or options.multiclass, labels = labels, C = options.C,
    classes = check_class_names(options.classes, labels), features = x:size(2), coef0 = options.coef0,
    degree = options.degree, card = options.card or {},
  }, Model)
  local _trim <close> = setmetatable({}, { __close = scope.trim })
  local _open <close> = scope.scope()
  local rows, shift, scale = prepare(x, order, options)
  model.shift, model.scale, model.gamma = shift, scale, options.gamma
  local descent, outcome = options.kernel == "linear" and options.multiclass == "ovr"
  local settings = engine_settings(model, options, descent)
  if descent then
    model.weight, model.bias, outcome = engine.train_linear(rows, sizes, bounds, settings)
  else
    outcome = train_kernel(model, rows, sizes, bounds, order, settings)
  end
  model.violation, model.unfinished = outcome.violation, outcome.unfinished
  for _, name in ipairs(tensor_fields) do
    if model[name] then scope.keep(model[name]) end
  end
  return model
end

-- ---- using a model ----

--- The values of the machines: positive where the first class of a pair (ovo: pairs (1,2), (1,3) ... (2,3) ... of the
--- model's labels), or the class itself (ovr), is found. Two classes have one machine.
---@param x Tensor  N x D
---@return Tensor   N x machines
function Model:decisions(x)
  check_features("svm", x)
  if x:size(2) ~= self.features then
    errors.raise("svm: the model was trained on %d features a sample, got %s", self.features, table.concat(x.shape, " x "))
  end
  local open <close> = scope.scope()
  local rows = engine.prepare(x, nil, self.shift, self.scale)
  if not self.weight then return open:leave(engine.decide(rows, self.support, self.coef, self.bias, self)) end
  return open:leave(arith.add(matmul.matmul(rows, view.transpose(self.weight)), self.bias))
end

--- Scores of the classes, in the order of model.labels; the class of the highest is predicted. For two classes the value of
--- their machine and its negative; for ovr the machines' values; for ovo of more classes the number of pairs that a class
--- wins, plus a share between -1/3 and 1/3 that orders classes of as many wins by the sum of their values.
---@param x Tensor  N x D
---@return Tensor   N x #model.labels
function Model:scores(x)
  local open <close> = scope.scope()
  local values = self:decisions(x)
  if #self.labels == 2 then return open:leave(index.cat({ values, arith.neg(values) }, 2)) end
  if self.multiclass == "ovr" then return open:leave(values) end
  return open:leave(engine.votes(values, #self.labels))
end

--- The label of each row: the class of the highest score. So, where two classes win as many pairs, the one with the larger sum of
--- values, as scikit-learn's with break_ties; libsvm takes the one with the lower label. Equal scores go to the lower label.
---@param x Tensor  N x D
---@return Tensor   N (i32)
function Model:predict(x)
  local open <close> = scope.scope()
  local _, best = reduce.max(self:scores(x), 2)
  local labels = create.totable(best)
  for i, k in ipairs(labels) do labels[i] = self.labels[k] end
  return open:leave(create.from_table(labels, "i32"))
end

local function describe_kernel(model)
  if model.kernel == "linear" then return ("linear (C %g)"):format(model.C) end
  if model.kernel == "rbf" then return ("rbf (C %g, gamma %.4g)"):format(model.C, model.gamma) end
  return ("poly (C %g, gamma %.4g, coef0 %g, degree %d)"):format(model.C, model.gamma, model.coef0, model.degree)
end

function Model:__tostring()
  local names = {}
  for k, label in ipairs(self.labels) do names[k] = self.classes and self.classes[label] or tostring(label) end
  local text = ("SVM: %s, %s, %d classes (%s), %d features"):format(describe_kernel(self),
    self.multiclass == "ovr" and "one against the rest" or "one against one", #names, table.concat(names, ", "), self.features)
  if self.indices then text = ("%s, %d support vectors"):format(text, #self.indices) end
  if self.unfinished > 0 then
    text = ("%s; %d of %d machines stopped early (violation %.2g)"):format(text, self.unfinished, #self.bias, self.violation)
  end
  return text
end

-- ---- files ----

local plain_fields = {
  "kernel", "multiclass", "features", "C", "gamma", "coef0", "degree", "violation", "unfinished", "labels", "classes", "card",
}

--- True for what svm.train returns.
function svm.is_model(value) return getmetatable(value) == Model end

--- All of it but the tensors, as plain data: svm.build makes the machine from it and them.
---@return table
function Model:describe()
  local settings = {}
  for _, name in ipairs(plain_fields) do settings[name] = self[name] end
  return settings
end

--- Pairs {name, tensor}.
---@return table[]
function Model:state()
  local tensors = {}
  for _, name in ipairs(tensor_fields) do
    if self[name] then tensors[#tensors + 1] = { name, self[name] } end
  end
  return tensors
end

--- Writes a model file of this machine alone, which judges features: what feral.model.new { machine } saves. To judge
--- photographs a model needs the stages before it too.
---@param path string
---@return boolean|nil, string|nil  true, or nil and a message
function Model:save(path) return require("feral.model").new({ self }, { card = self.card }):save(path) end

local function is_number(value) return type(value) == "number" and value - value == 0 end

local function are_labels(labels)
  if type(labels) ~= "table" or #labels < 2 then return false end
  for k, label in ipairs(labels) do
    if math.type(label) ~= "integer" or label <= (labels[k - 1] or 0) then return false end
  end
  return true
end

local function are_names(classes, labels)
  if classes == nil then return true end
  if type(classes) ~= "table" or #classes < labels[#labels] then return false end
  for _, name in ipairs(classes) do
    if type(name) ~= "string" then return false end
  end
  return true
end

--- What is wrong with the settings; nil when nothing is.
local function check_settings(h)
  if h.kernel ~= "rbf" and h.kernel ~= "linear" and h.kernel ~= "poly" then return "its kernel is unknown" end
  if h.multiclass ~= "ovo" and h.multiclass ~= "ovr" then return "its machines are of no known kind" end
  for _, name in ipairs { "C", "gamma", "coef0", "violation" } do
    if not is_number(h[name]) then return ("its %s is damaged"):format(name) end
  end
  for _, name in ipairs { "features", "degree", "unfinished" } do
    if math.type(h[name]) ~= "integer" or h[name] < 0 then return ("its %s is damaged"):format(name) end
  end
  if not are_labels(h.labels) then return "its labels are damaged" end
  if not are_names(h.classes, h.labels) then return "its class names are damaged" end
  if type(h.card) ~= "table" then return "its card is damaged" end
end

--- What is wrong with a tensor of the file: missing, or not of these sizes (0: any).
local function check_tensor(tensors, name, dtype, sizes)
  local t = tensors[name]
  if not t then return ("its tensor '%s' is missing"):format(name) end
  local fits = t.dtype == dtype and t:dim() == #sizes
  for d, size in ipairs(sizes) do fits = fits and (size == 0 or t:size(d) == size) end
  if not fits then return ("its tensor '%s' does not fit: %s %s"):format(name, t.dtype, table.concat(t.shape, " x ")) end
end

local function check_tensors(h, tensors)
  local k, wrong = #h.labels, nil
  local machines = h.multiclass == "ovr" and k or k * (k - 1) // 2
  local function check(name, dtype, ...) wrong = wrong or check_tensor(tensors, name, dtype, { ... }) end
  check("bias", core.real, machines)
  if h.kernel == "linear" then
    check("weight", core.real, machines, h.features)
  else
    check("support", core.real, 0, h.features)
    if not wrong then check("coef", core.real, tensors.support:size(1), machines) end
    if not wrong then check("indices", "i32", tensors.support:size(1)) end
  end
  if tensors.shift then check("shift", core.real, h.features) end
  if tensors.scale then check("scale", core.real, h.features) end
  return wrong
end

--- A machine as describe and state gave it.
---@param settings table                   not believed: it may come from a file
---@param tensors table<string, Tensor>
---@return SvmModel|nil, string|nil  or nil and what is wrong
function svm.build(settings, tensors)
  local wrong = check_settings(settings) or check_tensors(settings, tensors)
  if wrong then return nil, wrong end
  local model = setmetatable({}, Model)
  for _, name in ipairs(plain_fields) do model[name] = settings[name] end
  for _, name in ipairs(tensor_fields) do
    if tensors[name] then model[name] = scope.keep(tensors[name]) end
  end
  return model
end

--- The machine in a model file.
---@param path string
---@return SvmModel|nil, string|nil  or nil and a message
function svm.load(path)
  local loaded, message = require("feral.model").load(path)
  if not loaded then return nil, message end
  for _, stage in ipairs(loaded.stages) do
    if stage.machine then return stage.machine end
  end
  return nil, ("%s: a model, but no SVM in it"):format(path)
end

return svm
