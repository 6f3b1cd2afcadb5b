--- feral card: measures a model, and writes it with its card.

local eval = require "feral.cli.eval"

local card = {
  usage = "feral card MODEL DIR [options]",
  about = "Measures a model on faces it was not trained on; writes it with its card.",
  words = { "MODEL", "DIR" },
  options = {
    { "part", value = "NAME", choices = { "train", "test", "private" },
      about = "of FER2013 (a folder of splits, or the CSV)" },
    { "calibrate", value = "SHARE", type = "number", least = 0, default = 0.5,
      about = "of the faces that the temperature is fitted to; calibration is measured on the others" },
    { "seed", value = "N", type = "integer", default = 0, about = "of that choice" },
    { "mirror", about = "judge each image and its mirror image" },
    { "half", about = "write the weights as halves (f16), and measure them so" },
    { "save", value = "FILE", about = "where the model goes (default: MODEL itself), and FILE's .md beside it" },
    { "batch", value = "N", type = "integer", least = 1, default = 128, about = "images at a time" },
    { "strict", about = "stop at the first image that cannot be read" },
  },
}

--- What the processor calls itself; nil where the system does not say.
local function processor()
  local file = io.open "/proc/cpuinfo"
  local text = file and file:read("a") or ""
  if file then file:close() end
  return text:match("model name%s*:%s*([^\n]+)")
end

--- The model as it will be judged: with mirror images, and with weights that have been through their file.
local function prepare(trained, values)
  local message
  if values.mirror then
    trained, message = trained:mirrored(true)
    if not trained then return nil, message end
  end
  if not values.half then return trained end
  local path = os.tmpname()
  local _removed <close> = setmetatable({}, { __close = function() os.remove(path) end })
  local saved, problem = trained:save(path, { dtype = "f16" })
  if not saved then return nil, problem end
  return require("feral.model").load(path)
end

--- Loaders of the part that the temperature is fitted to and of the rest.
local function open_parts(trained, values)
  local set, message = eval.open(values, trained)
  if not set then return nil, message end
  set, message = eval.relabel(set, trained.classes)
  if not set then return nil, ("%s: %s"):format(values.dir, message) end
  if #set < 2 then return nil, values.dir .. ": two images at least are needed, some to calibrate on and some to measure" end
  local function loader(part)
    return require("feral.data").loader(part, { batch = values.batch, shuffle = false, preprocessing = trained.preprocessing })
  end
  local fit, rest = set:split(values.calibrate, { seed = values.seed })
  return { fit = loader(fit), rest = loader(rest) }, loader(set)
end

local function write_text(path, text) return require("feral.core.files").write_atomic(path, { text }) end

--- Says what halves cost.
local function print_loss(before, after)
  print(("accuracy with weights of full size %.2f %%, with halves %.2f %%"):format(100 * before.accuracy, 100 * after.accuracy))
end

local function write(m, values, target)
  local saved, message = m:save(target, { dtype = values.half and "f16" or nil })
  if not saved then return nil, message end
  local page = target:gsub("%.safetensors$", "") .. ".md"
  local _, bytes = require("feral.core.files").look(target)
  local text = require("feral.model.card").text(m, { name = page:match("([^/]+)%.md$"), bytes = bytes })
  saved, message = write_text(page, text)
  if not saved then return nil, message end
  print(text)
  print(("saved %s and %s"):format(target, page))
  return true
end

function card.run(values)
  local model, measure = require "feral.model", require "feral.model.measure"
  if not (values.calibrate > 0 and values.calibrate < 1) then
    return nil, ("--calibrate must lie between 0 and 1, got %g"):format(values.calibrate)
  end
  local path, unknown = model.shipped.find(values.model)
  if not path then return nil, unknown end
  local target = values.save or path
  local given, message = model.load(path)
  if not given then return nil, message end
  local loaders, all = open_parts(given, values)
  if not loaders then return nil, all end
  local before = values.half and given:evaluate(all)
  local prepared, problem = prepare(given, values)
  if not prepared then return nil, problem end
  local made, figures = measure.all(prepared, loaders)
  if before then print_loss(before, figures.views and figures.views[1] or figures) end
  figures.data = values.part and ("%s (%s)"):format(values.dir, values.part) or values.dir
  figures.calibration.fitted_how = ("a random %g %% of %s, stratified, seed %d"):format(100 * values.calibrate, figures.data,
    values.seed)
  if figures.speed then figures.speed.machine = processor() end
  made.card.measured = figures
  return write(made, values, target)
end

return card
