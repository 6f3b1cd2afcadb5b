--- temperature: scores over a number, so that probabilities are as sure as they are right (Guo et al. 2017). What is predicted
--- stays.

local stages = require "feral.model.stages"
local arith = require "feral.core.arith"
local scope = require "feral.core.scope"
local loss = require "feral.nn.loss"
local errors = require "feral.base.errors"

---@class TemperatureStage : Stage
---@field temperature number
local Temperature = stages.class("temperature", "calibrate")

local LEAST, MOST = 0.01, 100 -- where fit looks
local GOLDEN, ENOUGH = (math.sqrt(5) - 1) / 2, 1e-3

---@param temperature number  above 1: less sure; below 1: more
function Temperature:init(temperature)
  if type(temperature) ~= "number" or not (temperature > 0 and temperature < math.huge) then
    errors.raise("model.stages.temperature: a number above 0 expected, got %s", tostring(temperature))
  end
  self.temperature = temperature
end

function Temperature:describe() return { temperature = self.temperature } end

function Temperature:apply(scores) return arith.div(scores, self.temperature) end

function Temperature:text() return ("%.4g"):format(self.temperature) end

function Temperature.build(settings)
  local made, stage = errors.attempt(Temperature, settings.temperature)
  if not made then return nil, stage end
  return stage
end

--- The temperature at which the scores of samples that were not trained on have the least cross entropy, by golden section
--- over its logarithm.
---@param scores Tensor  N x K
---@param labels Tensor  i32 N
---@return TemperatureStage
function Temperature.fit(scores, labels)
  local function cost(t)
    local _open <close> = scope.scope()
    return loss.cross_entropy(arith.div(scores, math.exp(t)), labels):item()
  end
  local low, high = math.log(LEAST), math.log(MOST)
  local a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
  local at_a, at_b = cost(a), cost(b)
  while high - low > ENOUGH do
    if at_a <= at_b then
      high, b, at_b = b, a, at_a
      a = high - GOLDEN * (high - low)
      at_a = cost(a)
    else
      low, a, at_a = a, b, at_b
      b = low + GOLDEN * (high - low)
      at_b = cost(b)
    end
  end
  return Temperature(math.exp((low + high) / 2))
end

return Temperature
