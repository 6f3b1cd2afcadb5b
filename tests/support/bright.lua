--- bright.lua: a model that says of a picture whether it is bright or dark, by its mean, so that tests know its answers; and a
--- detector that finds what tests tell it to.

local autograd = require "feral.tensor.autograd"
local nn = require "feral.nn"
local model = require "feral.model"
local steps = require "feral.steps"
local detect = require "feral.vision.detect"
local preprocess = require "feral.steps.preprocess"

local bright = { found = {} } -- what the detector "stub" finds next: a list of faces, or a message

local SHARPNESS = 8

--- A model of the classes "bright" and "dark".
---@param card table|nil
function bright.model(card)
  local _guard <close> = autograd.no_grad()
  local net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
  net[2].weight:zero_()
  net[2].weight[1] = SHARPNESS / 16
  net[2].bias:zero_()
  net[2].bias[2] = SHARPNESS / 2
  return model.new(net, { classes = { "bright", "dark" }, card = card or {},
    preprocessing = preprocess { steps.gray(), steps.resize(4), steps.normalize(0, 1) } })
end

--- Its probability of "bright" for a mean of 0 to 255.
function bright.probability(mean) return 1 / (1 + math.exp(SHARPNESS / 2 - SHARPNESS * mean / 255)) end

detect.add {
  name = "stub", options = {}, is_there = function() return bright.there end,
  run = function()
    if type(bright.found) == "string" then return nil, bright.found end
    return table.move(bright.found, 1, #bright.found, 1, {})
  end,
}

return bright
