-- Each script of examples/ run as its users do, on a small folder of drawn faces.
local lu = require "luaunit"
local feral = require "feral"
local program, temporary = require "program", require "temporary"
local files, json = require "feral.core.files", feral.json
local data, image = feral.data, feral.image

local T = {}

local faces -- the folder, made once

--- DIR/train/<class>/<number>.png and DIR/test/...
local function faces_dir()
  if faces then return faces.path end
  faces = temporary.folder()
  for _, part in ipairs { { "train", 210, 1 }, { "test", 70, 2 } } do
    local set = data.synthetic { count = part[2], size = 48, seed = part[3] }
    for i = 1, #set do
      local dir = ("%s/%s/%s"):format(faces.path, part[1], set.classes[set.labels[i]:item()])
      assert(files.mkdir(dir))
      assert(image.save(("%s/%d.png"):format(dir, i), set.images[i]))
    end
  end
  return faces.path
end

--- Removes the folder when the program ends.
T.ending = setmetatable({}, { __gc = function() if faces then getmetatable(faces).__close() end end })

local ran = {}

--- Runs an example, which must end well, and returns what it printed.
local function run(name, words)
  ran[name] = true
  local output, errors, code = program.shell(('"$F" examples/%s.lua %s'):format(name, words or ""))
  lu.assertEquals({ code, errors }, { 0, "" }, name)
  return output
end

--- The number in front of " %" that a pattern finds.
local function percent(output, pattern)
  return assert(tonumber(output:match(pattern .. "%s*([%d.]+) %%")), output)
end

function T.test_demo()
  local dir <close> = temporary.folder()
  local output = run("demo", "--epochs 3 --count 490 --out " .. dir / "a/b")
  for _, text in ipairs {
    "490 images of 1 x 48 x 48", "BatchNorm", "epoch 3/3", "<- predicted", "700 images\n", "model of 7 classes (anger, disgust",
    "the first face: ", dir / "a/b/faces.png",
  } do
    lu.assertStrContains(output, text)
  end
  lu.assertTrue(percent(output, "\naccuracy") > 30) -- chance is 14; a whole run passes 90
  local model = assert(feral.model.load(dir / "a/b/faces.safetensors"))
  lu.assertEquals(#model.classes, 7)
  lu.assertEquals({ image.size(dir / "a/b/faces.png") }, { 3, 4 * 112 + 4, 7 * 100 + 4 })
end

function T.test_fer2013_and_eval_give_the_same_figures()
  local dir <close> = temporary.folder()
  local path = dir / "m.safetensors"
  local output = run("fer2013", ("%s --epochs 2 --net emopy --batch 20 --seed 3 --save %s"):format(faces_dir(), path))
  for _, text in ipairs {
    "210 images of 1 x 48 x 48", "emopy: 8437 parameters", "epoch 2/2", "best epoch: ", "saved " .. path,
  } do
    lu.assertStrContains(output, text)
  end
  local scores, errors, code = program.shell(('"$F" eval %s %s/test --json'):format(path, faces_dir()))
  lu.assertEquals({ code, errors }, { 0, "" })
  scores = assert(json.decode(scores))
  lu.assertEquals(("%.2f"):format(100 * scores.accuracy), ("%.2f"):format(percent(output, "\naccuracy")))
  lu.assertEquals(feral.model.load(path).card.accuracy, scores.accuracy)
  lu.assertStrContains(run("cnn_svm", ("%s --model %s"):format(faces_dir(), path)), ("own head: %.2f %%"):format(
    100 * scores.accuracy))
end

function T.test_fer2013_trains_each_of_its_networks()
  for _, net in ipairs(feral.nets.names) do
    local output = run("fer2013", ("%s --epochs 1 --net %s --batch 70"):format(faces_dir(), net))
    lu.assertStrContains(output, net .. ": ")
    lu.assertStrContains(output, "best epoch: 1 of 1")
  end
end

--- Byte-identical models: with one thread and with two, and after a kill in the middle.
function T.test_fer2013_gives_the_same_bytes_whatever_happens()
  local dir <close> = temporary.folder()
  local command = ('"$F" examples/fer2013.lua %s --epochs 3 --net mini_xception --batch 30 --seed 5 --save '):format(faces_dir())
  for threads = 1, 2 do
    local _, errors, code = program.shell(("OMP_NUM_THREADS=%d %s %s"):format(threads, command, dir / threads))
    lu.assertEquals({ code, errors }, { 0, "" })
  end
  local resumable = ("%s%s --resume %s"):format(command, dir / "resumed", dir / "checkpoint")
  local killed = program.shell(([[
    %s > %s 2>&1 &
    pid=$!
    n=0; until [ -e %s ] || [ $n -gt 3000 ]; do sleep 0.01; n=$((n + 1)); done
    kill -9 $pid && echo killed
    wait $pid]]):format(resumable, dir / "output", dir / "checkpoint"))
  lu.assertEquals(killed, "killed\n")
  lu.assertNil((files.look(dir / "resumed")))
  local output, errors, code = program.shell(resumable)
  lu.assertEquals({ code, errors }, { 0, "" })
  lu.assertStrMatches(output, ".*\ngoing on from .*checkpoint: epoch [23], after step %d+\n.*")
  local whole = files.read(dir / "1")
  lu.assertTrue(files.read(dir / "2") == whole, "with two threads")
  lu.assertTrue(files.read(dir / "resumed") == whole, "after a kill")
end

--- What feral eval says of a model and the folder's test part.
local function evaluate(path)
  local scores, errors, code = program.shell(('"$F" eval %s %s/test --json'):format(path, faces_dir()))
  lu.assertEquals({ code, errors }, { 0, "" })
  return assert(json.decode(scores))
end

function T.test_svm()
  local dir <close> = temporary.folder()
  local path = dir / "s"
  local output = run("svm", ("%s --save %s"):format(faces_dir(), path))
  lu.assertTrue(percent(output, "\naccuracy") > 60)
  lu.assertStrContains(output, "svm: rbf (C 10")
  lu.assertStrContains(output, "saved " .. path)
  lu.assertEquals(("%.2f"):format(100 * evaluate(path).accuracy), ("%.2f"):format(percent(output, "\naccuracy")))
  local photo = faces_dir() .. "/test/happiness/4.png"
  local said, errors, code = program.shell(('"$F" predict %s %s --top 1'):format(path, photo))
  lu.assertEquals({ code, errors }, { 0, "" })
  lu.assertStrMatches(said, photo:gsub("%p", "%%%0") .. ": %l+ [%d.]+ %%\n")
  output = run("svm", faces_dir() .. " --kernel linear --C 0.1 --limit 140")
  lu.assertStrContains(output, "140 images of 1 x 48 x 48")
  lu.assertStrContains(output, "svm: linear")
end

function T.test_cnn_svm()
  local dir <close> = temporary.folder()
  local output = run("cnn_svm", ("%s --epochs 2 --limit 140 --save %s"):format(faces_dir(), dir / "s"))
  lu.assertStrContains(output, "epoch 2/2")
  lu.assertStrContains(output, "features: 128 numbers an image")
  percent(output, "the network's own head:")
  lu.assertEquals(("%.2f"):format(100 * evaluate(dir / "s").accuracy),
    ("%.2f"):format(percent(output, "an RBF SVM on its features:")))
end

--- Each kind of model is scored by its script, by the verb eval and picture by picture by the verb predict.
function T.test_stages()
  local dir <close> = temporary.folder()
  local output = run("stages", "--count 350 --epochs 2 --out " .. dir / "a/b")
  for _, name in ipairs { "hog_svm", "projection", "ensemble" } do
    local path = dir / "a/b/" .. name .. ".safetensors"
    local before, after = output:match(name
      .. "%.safetensors: model.-([%d.]+) %% of the unseen faces are right; loaded again ([%d.]+)")
    lu.assertEquals(before, after, name)
    local scores, errors, code = program.shell(('"$F" eval %s %s --json'):format(path, dir / "a/b/faces"))
    lu.assertEquals({ code, errors }, { 0, "" })
    scores = assert(json.decode(scores))
    lu.assertEquals({ scores.count, ("%.2f"):format(100 * scores.accuracy) }, { 210, before })
    lu.assertTrue(scores.accuracy > 0.2, name) -- chance is 14
    local said = program.shell(('"$F" predict %s %s/*/*.png --json'):format(path, dir / "a/b/faces"))
    local right = 0
    for _, prediction in ipairs(assert(json.decode(said)).predictions) do
      if prediction.image:find("/" .. prediction.faces[1].class .. "/", 1, true) then right = right + 1 end
    end
    lu.assertEquals(right, scores.right)
  end
  percent(output, "and calibrated")
end

function T.test_sequence()
  local output = run("sequence", "--epochs 1 --count 60")
  lu.assertStrContains(output, "60 sequences of 8 images of 1 x 32 x 32")
  percent(output, "\n  CNN and LSTM")
  lu.assertAlmostEquals(percent(output, "\n  mean over time"), 50, 7) -- chance, whatever it has learnt
end

function T.test_folds()
  local output = run("folds", "--count 700 --folds 4 --size 16")
  lu.assertStrContains(output, "700 images of 1 x 16 x 16 (drawn on demand), 7 classes")
  local people = 0
  for tested in output:gmatch("(%d+) people") do people = people + tested end
  lu.assertEquals(people, 10)
  lu.assertStrContains(output, "nobody is on both sides of any fold")
end

function T.test_steps()
  local dir <close> = temporary.folder()
  local output = run("steps", "--show " .. dir / "seen.png")
  lu.assertStrContains(output, "random_crop(48), rotate(12), mirror()")
  lu.assertStrContains(output, "the same list: true")
  lu.assertStrContains(output, "training and prediction give the same bits: true")
  lu.assertEquals(assert(feral.image.load(dir / "seen.png")).shape, { 1, 4 * 48, 8 * 48 })
end

--- The recipe goes on where it stopped, and its model scores what it printed.
function T.test_recipe_fer7()
  local dir <close> = temporary.folder()
  local words = ("%s --run %s --save %s --epochs 2 --width 8 --depth 1 --batch 32 --look 1"):format(faces_dir(), dir / "run",
    dir / "fer7")
  local output = run("recipes/fer7", words)
  lu.assertStrContains(output, "test/ now: ")
  lu.assertStrContains(output, "saved " .. dir / "fer7")
  lu.assertEquals(("%.2f"):format(100 * evaluate(dir / "fer7").accuracy), ("%.2f"):format(percent(output, "\naccuracy")))
  lu.assertStrContains(run("recipes/fer7", words), "going on from " .. dir / "run/checkpoint")
end

function T.test_custom_layer()
  local output = run "custom_layer"
  local tape, differences = output:match("gradient by the tape ([-%d.]+), by differences ([-%d.]+)")
  lu.assertAlmostEquals(tonumber(tape), tonumber(differences), 2e-3)
  lu.assertTrue(percent(output, "right on unseen samples:") > 90)
  lu.assertStrContains(output, "built again from its description: true")
  lu.assertStrContains(output, "(2) FeatureGate(")
end

function T.test_help_and_mistakes_on_the_command_line()
  for _, name in ipairs { "demo", "fer2013", "svm", "cnn_svm", "sequence", "folds" } do
    lu.assertStrContains(run(name, "--help"), "usage: feral examples/" .. name .. ".lua")
    local _, errors, code = program.shell(('"$F" examples/%s.lua --seeed 5'):format(name))
    lu.assertEquals(code, 2)
    lu.assertStrContains(errors, "unknown option '--seeed', did you mean '--seed'?")
  end
  for _, name in ipairs { "fer2013", "svm", "cnn_svm" } do
    local _, errors, code = program.shell(('"$F" examples/%s.lua'):format(name))
    lu.assertEquals(code, 2)
    lu.assertStrContains(errors, "DIR")
    _, errors, code = program.shell(('"$F" examples/%s.lua no/such/folder'):format(name))
    lu.assertEquals(code, 1)
    lu.assertStrContains(errors, "no/such/folder: No such file or directory")
  end
end

--- The last by its name, so all others have run before it.
function T.test_zzz_every_example_has_been_run()
  for _, name in ipairs(assert(files.list "examples")) do
    local script = name:match("^(.*)%.lua$")
    if script then lu.assertTrue(ran[script], "no test runs examples/" .. name) end
  end
end

return T
