-- Cross-validation by person: ten folds over drawn faces, and nobody who is trained on is tested on.
--
--   ./feral examples/folds.lua [--count 100000] [--folds 10] [--size 48]
--
-- The faces are drawn when they are wanted, and all folds share them: only the numbers of samples differ, so a hundred thousand
-- faces in ten folds take some tens of megabytes. A data set of files works the same way:
--   data.folder(dir, { keep = "files" }), data.csv(path, { subject = "person", keep = "files" })

local feral = require "feral"
local data, tensor = feral.data, feral.tensor

local options = feral.args.read(arg, {
  usage = "feral examples/folds.lua [options]",
  about = "Cuts drawn faces into folds by person and checks that nobody is on both sides.",
  words = {},
  options = {
    { "count", value = "N", type = "integer", least = 100, default = 100000, about = "faces" },
    { "folds", value = "K", type = "integer", least = 2, default = 10, about = "folds" },
    { "size", value = "N", type = "integer", least = 8, default = 48, about = "pixels a side" },
    { "seed", value = "N", type = "integer", default = 1, about = "another seed draws other faces" },
  },
})

local faces = data.synthetic { count = options.count, size = options.size, seed = options.seed, keep = "drawn" }

--- Each person shows 70 faces: what a folder's names or a table's column would tell.
local people = {}
for i = 1, #faces do people[i] = ("person %04d"):format((i - 1) // 70 + 1) end
faces:add_column("subject", people)
people = nil -- luacheck: ignore
print(faces)

--- The names in a list, each once.
local function names_in(subjects)
  local seen, count = {}, 0
  for _, name in ipairs(subjects) do
    if not seen[name] then seen[name], count = true, count + 1 end
  end
  return seen, count
end

for i, fold in ipairs(faces:kfold(options.folds, { by = "subject", seed = options.seed })) do
  local trained_on = names_in(fold.train:column "subject")
  local tested_on, count = names_in(fold.test:column "subject")
  for name in pairs(tested_on) do assert(not trained_on[name], name .. " is on both sides") end
  local face = assert(fold.test:image(1)) -- drawn now
  print(("fold %2d: %6d to train, %5d to test, %4d people, classes of %d to %d, first face %.1f gray"):format(i, #fold.train,
    #fold.test, count, math.min(table.unpack(fold.test:counts())), math.max(table.unpack(fold.test:counts())),
    face:to(tensor.zeros(1).dtype):mean():item()))
end
print "nobody is on both sides of any fold"
