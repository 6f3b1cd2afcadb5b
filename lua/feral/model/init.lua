--- model.lua: a trained model with all it needs to judge a raw photograph: stages, one after the other, and its classes.
---
---     local m = model.new(net, { classes = set.classes, preprocessing = loader.preprocessing })      -- a network
---     local m = model.new({ stages.hog { cell = 8 }, machine }, { preprocessing = p })               -- HOG and an SVM
---     m:predict("photo.png").class    m:save("m.safetensors")    model.load("m.safetensors")
---
--- scores, probabilities and predict mean the same for all: scores are N x K, and their softmax are the probabilities. See
--- help(model.stages) for the kinds of stages, and model/file.lua for the file.

local random = require "feral.tensor.random"
local core = require "feral.core.tensor"
local create = require "feral.core.create"
local index = require "feral.core.index"
local reduce = require "feral.core.reduce"
local softmax = require("feral.core.softmax").softmax
local scope = require "feral.core.scope"
local errors = require "feral.base.errors"
local loss = require "feral.nn.loss"
local chain = require "feral.model.chain"
local file = require "feral.model.file"
local shipped = require "feral.model.shipped"
local stages = require "feral.model.stages"

local model = { stages = stages, shipped = shipped, card = require "feral.model.card" }

---@class Model
---@field stages Stage[]
---@field classes string[]  of the scores
---@field named string[]    of the scores of the classifier, of which a mask may keep some
---@field preprocessing Preprocessing|nil  the first stage's; nil for a model of features
---@field net Module|nil    where the classifier is a network
---@field card table  free facts about the model: data, accuracy, settings
local Model = {}
Model.__index = Model

local function listed(names) return table.concat(names, ", ") end

local function sizes(t) return table.concat(t.shape, "x") end

---- Making ----

--- A model of stages that fit; nil and what does not.
local function assemble(list, named, card)
  local classifier, at = chain.classifier(list)
  if not classifier then return nil, "no stage classifies" end
  local classifier_names, message = chain.names({ table.unpack(list, 1, at) }, named)
  if message then return nil, message end
  if not classifier_names then return nil, "its classes have no names" end
  local names
  names, message = chain.names(list, classifier_names)
  if message then return nil, message end
  local first = list[1]
  return setmetatable({
    stages = list, named = classifier_names, classes = names, card = card, classifier = at, net = classifier.net,
    preprocessing = first.role == "preprocess" and first.settings or nil,
  }, Model)
end

--- Raises unless a classifier's scores have a column for each of its classes.
local function check_columns(self, scores, where)
  if scores:dim() == 2 and scores:size(2) == #self.named then return end
  local kind = self.stages[self.classifier].kind
  if scores:dim() == 2 then
    errors.raise("%s: %d classes are named (%s), but stage %d (%s) gives %d scores", where, #self.named, listed(self.named),
      self.classifier, kind, scores:size(2))
  end
  errors.raise("%s: stage %d (%s) gives %s, N x %d expected for its classes", where, self.classifier, kind, sizes(scores),
    #self.named)
end

--- Zeros as the stages behind preprocessing may be given them: images; where these do not fit, short sequences of them.
local function examples(self, frames)
  local first = self.stages[1]
  if first.role ~= "preprocess" then return { { 1, first.inputs } } end
  local c, h, w = first:size()
  if frames then return { { 1, frames, c, h, w } } end
  return { { 1, c, h, w }, { 1, 2, c, h, w } }
end

--- Sends zeros through the stages. Raises where they do not fit each other or the classes.
local function try_out(self, frames)
  local before, problem = random.state(), nil
  for _, shape in ipairs(examples(self, frames)) do
    local _open <close> = scope.scope()
    local x, failed = create.full(shape, 0), nil
    for i = self.preprocessing and 2 or 1, self.classifier do
      local fits, y = errors.attempt(self.stages[i].apply, self.stages[i], x)
      if not fits then
        failed = ("stage %d (%s) does not take %s: %s"):format(i, self.stages[i].kind, sizes(x), tostring(y))
        break
      end
      x = y
    end
    random.set_state(before)
    if not failed then return check_columns(self, x, "model.new") end
    problem = problem or failed
  end
  errors.raise("model.new: %s", problem)
end

--- The stages that were given, with that of the option preprocessing in front.
local function stages_of(what, preprocessing)
  local one = stages.of(what)
  if not one and (type(what) ~= "table" or #what == 0) then
    errors.raise("model.new: a network, an SVM or a list of stages expected, got %s", type(what))
  end
  local list = one and { one } or chain.wrap(what, "model.new")
  if preprocessing then table.insert(list, 1, stages.preprocess(preprocessing)) end
  return chain.new(list, "model.new")
end

--- Makes a model: of a network, or of a list of stages, in which networks and SVMs stand for stages.
---
--- Options: classes, names in the order of the classifier's scores (an SVM that was trained with names knows them);
--- preprocessing, a data set's or loader's, for the stage in front (without one the model judges features N x D); card, a
--- table of free facts; frames, how long the sequences are of a network that takes sequences of that one length.
---@param what Module|SvmModel|any[]
---@param options {classes: string[], preprocessing: table, card: table|nil, frames: integer|nil}
---@return Model
--- Raises when the stages do not fit each other, the preprocessing or the classes: they are tried with zeros.
function model.new(what, options)
  options = errors.check_options("model.new", options, { classes = false, preprocessing = false, card = {}, frames = false })
  local list = stages_of(what, options.preprocessing)
  if options.classes and not chain.are_names(options.classes) then errors.raise("model.new: classes must be a list of names") end
  local made, message = assemble(list, options.classes or nil, options.card)
  if message == "its classes have no names" then errors.raise("model.new: option 'classes' is missing: a list of names") end
  if not made then errors.raise("model.new: %s", message) end
  if not made.preprocessing and not list[1].inputs then
    errors.raise("model.new: option 'preprocessing' is missing (a data set's or loader's)")
  end
  try_out(made, options.frames)
  return made
end

--- Writes the model. An old file of that name stays whole until the new one is complete.
---
--- Option dtype = "f16": weights are rounded to halves, in half the space; what that does to the scores is to be measured.
---@param path string
---@param options {dtype: string|nil}|nil
---@return boolean|nil, string|nil  true, or nil and a message, also where a weight is beyond what halves can hold
function Model:save(path, options)
  options = errors.check_options("model:save", options, { dtype = false })
  return file.write(path, { stages = self.stages, classes = self.named, card = self.card }, { dtype = options.dtype })
end

--- Reads a model, of any kind: a file by its path, or one that ships by its name, as in model.load("fer7").
---@param name string         see model.shipped.find
---@return Model|nil, string|nil  networks in eval mode, or nil and a message
function model.load(name)
  local path, unknown = shipped.find(name)
  if not path then return nil, unknown end
  local parts, message = file.read(path)
  if not parts then return nil, message end
  local made, problem = assemble(parts.stages, parts.classes, parts.card)
  if not made then return nil, ("%s: %s"):format(path, problem) end
  return made
end

---- Judging ----

--- Of an image as its stages see it; nil and why where the model judges features.
---@return integer|nil channels, integer|string height, integer width
function Model:image_size()
  if not self.preprocessing then return nil, "this model judges features, not images: it has no stage that preprocesses" end
  return self.stages[1]:size()
end

--- Scores of what is preprocessed already.
--- No gradients; networks compute in eval mode. What a score is depends on the classifier: a network's logit, an SVM's decision
--- values or votes, the logarithm of a probability for an ensemble and for neighbours.
---@param x Tensor  N x C x H x W as loaders give it, or features N x D for a model without preprocessing
---@return Tensor  N x classes
function Model:scores_of(x)
  local open <close> = scope.scope()
  for i = self.preprocessing and 2 or 1, #self.stages do
    x = self.stages[i]:apply(x)
    if i == self.classifier then check_columns(self, x, "model") end
  end
  return open:leave(x)
end

function Model:logits() errors.raise("model: logits(x) is called scores_of(x), since not only networks have scores") end

--- Scores of raw images; see scores_of.
---@param images Tensor|string|table  a u8 image C x H x W, a path, or a list of them
---@return Tensor|nil, string|nil     N x classes, or nil and a message when an image cannot be read
function Model:scores(images)
  local sees, why = self:image_size()
  if not sees then errors.raise("model: %s; scores_of(features)", why) end
  if core.is_tensor(images) or type(images) == "string" then images = { images } end
  local open <close> = scope.scope()
  local batch, message = self.stages[1]:apply(images)
  if not batch then return nil, message end
  return open:leave(self:scores_of(batch))
end

--- Probabilities of the classes for raw images: the softmax of the scores.
--- An SVM's are no estimates of how often it is right; see calibrate.
---@param images Tensor|string|table  as for scores
---@return Tensor|nil, string|nil     N x classes, or nil and a message when an image cannot be read
function Model:probabilities(images)
  local scores, message = self:scores(images)
  if not scores then return nil, message end
  return softmax(scores, 2)
end

---@class Prediction
---@field class string  the most probable class
---@field index integer  its number
---@field probability number
---@field probabilities number[]  of all classes, in the order of model.classes

--- Says what is on raw images.
---@param images Tensor|string|table  as for scores
---@return Prediction|Prediction[]|nil, string|nil  one for one image, a list for a list; nil and a message on failure
function Model:predict(images)
  local single = core.is_tensor(images) or type(images) == "string"
  local p, message = self:probabilities(images)
  if not p then return nil, message end
  local found = {}
  for i, row in ipairs(create.totable(p)) do
    local best = 1
    for c = 2, #row do
      if row[c] > row[best] then best = c end
    end
    found[i] = { class = self.classes[best], index = best, probability = row[best], probabilities = row }
  end
  return single and found[1] or found
end

---- Photographs ----

--- Finds the faces of a photograph and says what is on each.
---
---     print(m:look "family.jpg")
---     m:look("family.jpg", { detector = "haar", largest = true })[1].class
---
--- Each face is cut out as a square around its box, as far as the picture's border goes on outside, and goes through the model's
--- preprocessing. A picture that is a face already is taken whole: one of at most 64 pixels a side, or an about square one of at
--- most 256 in which no face is found. Options:
---   detector  which one finds faces (default: the best one that is there, see feral.face.detect)
---   score     the least with which a found face counts
---   faces     a list of {box = {x, y, w, h}} instead of a detector: the faces are known
---   margin    side of the square, in the box's longer sides (default: the number 'crop' of the model's card, else 1)
---   crop      true: the picture is a face, taken whole; false: it never is
---   largest   true: the largest face alone
---@param picture Tensor|string  u8, or f32 of 0..1: 1 x H x W or 3 x H x W; or a path
---@param options table|nil
---@return Seen|nil  best first: {box = {x, y, w, h}, score, points = list of {x, y}, class, probability, probabilities = by name}
---  each, places in pixels of the picture as viewers show it; score and points only where the detector gives them; class is
---  "unknown" where the probability is under the number 'threshold' of the model's card. The list's height and width are the
---  picture's.
---@return string|nil  nil and a message where the picture cannot be read or no detector is there
--- Raises for a model of features.
function Model:look(picture, options) return require("feral.model.look").look(self, picture, options) end

--- The same model for some of its classes only: their probabilities sum to 1 among themselves.
---@param names string[]  two or more of model.classes
---@return Model
--- Raises for a name that the model does not have.
function Model:keep(names)
  local list = {}
  for i, stage in ipairs(self.stages) do
    if stage.role ~= "mask" then list[i] = stage end
  end
  for _, name in ipairs(type(names) == "table" and names or {}) do
    local known = false
    for _, class in ipairs(self.classes) do known = known or class == name end
    if not known then
      errors.raise("model:keep: there is no class '%s'%s (known: %s)", tostring(name), errors.hint(name, self.classes),
        listed(self.classes))
    end
  end
  list[#list + 1] = stages.mask(names)
  local made, message = assemble(list, self.named, self.card)
  return made or errors.raise("model:keep: %s", message)
end

---- Judging a data set ----

local function check_loader(loader)
  if type(loader) == "table" and loader.batches then return end
  errors.raise("model: a loader (data.loader) expected, got %s", type(loader) == "table" and "another table" or type(loader))
end

--- Labels as numbers: of soft ones (shares of votes, N x K) the class with most.
local function hard(y) return y:dim() == 2 and select(2, reduce.max(y, 2)) or y end

--- What f makes of a loader's batches, one below the other, and their labels.
local function over(loader, f)
  check_loader(loader)
  local open <close> = scope.scope()
  local next_batch, _, _, batches = loader:batches(0)
  local _batches <close> = batches
  local parts, labels = {}, {}
  while true do
    local inner <close> = scope.scope()
    local x, y = next_batch()
    if not x then break end
    table.move(create.totable(hard(y)), 1, #y, #labels + 1, labels)
    parts[#parts + 1] = inner:leave(f(x))
  end
  return open:leave(index.cat(parts, 1), create.from_table(labels, "i32"))
end

--- Features of a loader's samples, to train a classifier on what it will then see in a model.
---@param list any[]     stages without a classifier, as stages.hog { cell = 8 }
---@param loader Loader  its preprocessing is then the model's
---@return Tensor x      N x D
---@return Tensor y      i32 N, labels
function model.features(list, loader)
  if stages.is_stage(list) then list = { list } end
  if type(list) ~= "table" or #list == 0 then errors.raise("model.features: a list of stages expected, got %s", type(list)) end
  list = chain.new(list, "model.features")
  for i, stage in ipairs(list) do
    if stage.role ~= "feature" then errors.raise("model.features: stage %d (%s) gives no features", i, stage.kind) end
  end
  return over(loader, function(x) return chain.apply(list, x) end)
end

--- Raises where a loader's batches are not what this model's preprocessing gives.
local function check_preprocessing(self, loader)
  check_loader(loader)
  local theirs = loader.preprocessing
  if theirs and self.preprocessing and not self.stages[1]:equals(theirs) then
    errors.raise("model: the loader preprocesses otherwise (%s) than the model (%s); give data.loader the option "
      .. "preprocessing = model.preprocessing", stages.preprocess(theirs):text(), self.stages[1]:text())
  end
end

--- Scores of a loader's samples.
---@param loader Loader
---@return Tensor scores  N x classes
---@return Tensor labels  i32 N, as the loader numbers its classes
--- Raises when the loader preprocesses otherwise than the model.
function Model:scores_on(loader)
  check_preprocessing(self, loader)
  return over(loader, function(x) return self:scores_of(x) end)
end

--- The model's numbers of a data set's classes; nil and the class that it does not know.
local function numbers_of(self, names)
  local number_of, map = {}, {}
  for i, name in ipairs(self.classes) do number_of[name] = i end
  for i, name in ipairs(names or self.classes) do
    map[i] = number_of[name]
    if not map[i] then
      return nil, ("the data's class '%s' is none of the model's%s (it knows %s)"):format(name,
        errors.hint(name, self.classes), listed(self.classes))
    end
  end
  return map
end

--- Scores of a loader's samples and labels by the model's numbers; nil and the class that it does not know.
local function judge(self, loader)
  check_preprocessing(self, loader)
  local map, message = numbers_of(self, loader.classes)
  if not map then return nil, message end
  local scores, given = self:scores_on(loader)
  local labels = create.totable(given)
  for i, label in ipairs(labels) do labels[i] = map[label] end
  return scores, create.from_table(labels, "i32")
end

--- Scores the model on a data set, whose classes may be numbered otherwise or be fewer.
---@param loader Loader
---@return Report|nil, string|nil  metrics.report's, and loss, the mean cross entropy, where probabilities are meant as such;
---  nil and a message when the data have a class that the model does not know
--- Raises when the loader preprocesses otherwise than the model.
function Model:evaluate(loader)
  local metrics = require "feral.train.metrics"
  local _open <close> = scope.scope()
  local scores, labels = judge(self, loader)
  if not scores then return nil, labels end
  local _, best = reduce.max(scores, 2)
  local report = metrics.report(metrics.confusion(labels, best, #self.classes), self.classes)
  if chain.is_probabilistic(self.stages) then report.loss = loss.cross_entropy(scores, labels):item() end
  return report
end

--- The same model with a temperature behind its classifier, fitted to samples that it was not trained on.
--- What it predicts stays; its probabilities come near how often it is right.
---@param loader Loader
---@return Model|nil, string|nil  nil and a message as for evaluate
function Model:calibrate(loader)
  local list = {}
  for _, stage in ipairs(self.stages) do
    if stage.role ~= "calibrate" then list[#list + 1] = stage end
  end
  local plain = assemble(list, self.named, self.card)
  local _open <close> = scope.scope()
  local scores, labels = judge(plain, loader)
  if not scores then return nil, labels end
  table.insert(list, plain.classifier + 1, stages.temperature.fit(scores, labels))
  return assemble(list, self.named, self.card)
end

--- The same model, of whose network each image and its mirror image are judged, or the image alone.
---@param mirror boolean
---@return Model|nil, string|nil  nil and why where the classifier is no network that judges images
function Model:mirrored(mirror)
  local classifier = self.stages[self.classifier]
  if classifier.kind ~= "network" or self.classifier ~= 2 or not self.preprocessing then
    return nil, "only a network that judges images can judge their mirror images too"
  end
  local list = table.move(self.stages, 1, #self.stages, 1, {})
  list[self.classifier] = stages.network(classifier.net, { mirror = mirror })
  return assemble(list, self.named, self.card)
end

--- Its classes, and a line for each stage.
function Model:__tostring()
  local lines = { ("model of %d classes (%s)"):format(#self.classes, listed(self.classes)) }
  for i, stage in ipairs(self.stages) do lines[i + 1] = ("  %d %s"):format(i, tostring(stage)) end
  return table.concat(lines, "\n")
end

return model
