--- svm: a support vector machine gives the scores: those of svm's model:scores, of which the highest is what it predicts. They
--- are decision values and votes, so their softmax orders the classes but is no estimate of how often they are right; a
--- temperature behind it (model:calibrate) makes it one.

local stages = require "feral.model.stages"
local svm = require "feral.learn.svm"
local errors = require "feral.base.errors"

---@class SvmStage : Stage
---@field machine SvmModel
local Svm = stages.class("svm", "classify")

Svm.wraps = svm.is_model

---@param machine SvmModel  of svm.train
function Svm:init(machine)
  if not svm.is_model(machine) then errors.raise("model.stages.svm: an SVM (svm.train) expected, got %s", type(machine)) end
  self.machine, self.inputs = machine, machine.features
end

function Svm:describe() return self.machine:describe() end

function Svm:state() return self.machine:state() end

--- The machine's classes are the labels that it was trained on; the model's must be these.
function Svm:names(given)
  local labels, own = self.machine.labels, {}
  local names = self.machine.classes or given
  for k, label in ipairs(labels) do own[k] = names and names[label] or tostring(label) end
  if given and table.concat(given, "\n") ~= table.concat(own, "\n") then
    return nil, ("%d classes are named (%s), but the SVM was trained on %d (%s)"):format(#given, table.concat(given, ", "),
      #own, table.concat(own, ", "))
  end
  return own
end

---@param x Tensor  N x D
---@return Tensor   N x K
function Svm:apply(x) return self.machine:scores(x) end

function Svm:text() return tostring(self.machine):gsub("^SVM: ", "") end

function Svm.build(settings, tensors)
  local machine, message = svm.build(settings, tensors)
  if not machine then return nil, message end
  return Svm(machine)
end

return Svm
