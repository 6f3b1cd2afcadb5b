--- feral: facial expression recognition. The modules load when they are first used.
---
---     local feral = require "feral"
---     local nn, data = feral.nn, feral.data

local feral = { version = "0.1.0" }

feral.tensor = require "feral.tensor" -- at once: it gives tensors their methods

--- What users may name as feral.<name>, and the module behind it: a name does not tell in which folder a module lies.
local public = {
  args = "host.args", augment = "steps.augment", autograd = "tensor.autograd", compile = "plan.compile", csv = "formats.csv",
  data = "data", detector = "vision.detector", face = "vision.face", feature = "learn.feature", files = "base.files",
  help = "host.help", image = "vision.image", json = "formats.json", landmarks = "vision.landmarks", loss = "nn.loss",
  machine = "host.machine", metrics = "train.metrics", model = "model", nets = "nn.nets", nn = "nn", npy = "formats.npy",
  ops = "tensor.ops", optim = "optim", plot = "report.plot", preprocess = "steps.preprocess", profile = "nn.profile",
  random = "tensor.random", safetensors = "formats.safetensors", steps = "steps", svm = "learn.svm", tensor = "tensor",
  train = "train",
}

--- The names of the public modules, sorted.
---@return string[]
function feral.modules()
  local names = {}
  for name in pairs(public) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The module behind a public name, as require takes it; nil where there is none.
---@param name string
---@return string|nil
function feral.module_of(name) return public[name] and "feral." .. public[name] end

return setmetatable(feral, {
  __index = function(self, name)
    local module = feral.module_of(name)
    if not module then return nil end
    rawset(self, name, require(module))
    return rawget(self, name)
  end,
})
