local lu = require "luaunit"
local program = require "program"
local json = require "feral.formats.json"

require "feral"

local data = require "feral.data"
local image = require "feral.vision.image"
local files = require "feral.core.files"

local T = {}

local root

--- A folder of drawn faces, count of each class: faces/<class>/<number>.png.
function T.setUp()
  root = os.tmpname()
  os.remove(root)
  local set = data.synthetic { count = 70, size = 24, seed = 5 }
  for i = 1, #set do
    local dir = ("%s/faces/%s"):format(root, set.classes[set.labels[i]:item()])
    assert(files.mkdir(dir))
    assert(image.save(("%s/%d.png"):format(dir, i), set.images[i]))
  end
end

function T.tearDown() os.execute("rm -rf " .. program.quote(root)) end

local function feral(line)
  return program.shell(("cd %s; \"$F\" %s"):format(program.quote(root), line))
end

--- The path of the program must not depend on the folder.
local function absolute()
  if program.path:sub(1, 1) == "/" then return end
  local pwd = assert(io.popen("pwd"))
  program.path = pwd:read("l") .. "/" .. program.path
  pwd:close()
end
absolute()

local quick = "train faces --net emopy --size 22 --batch 16 --epochs 2 "

local function read(path)
  local file = assert(io.open(root .. "/" .. path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

function T.test_train_eval_and_predict_tell_the_same_story()
  local output, errors, code = feral(quick .. "--save m.safetensors --log log.csv --json")
  lu.assertEquals({ errors, code }, { "", 0 })
  local trained = assert(json.decode(output))
  lu.assertEquals({ trained.model, trained.epochs, trained.count }, { "m.safetensors", 2, 14 }) -- 2 of 10 a class
  lu.assertNil(files.look(root .. "/m.safetensors.checkpoint"))
  lu.assertStrMatches(read "log.csv", "epoch,.*\n1,.*\n2,.*\n")

  output, errors, code = feral "eval m.safetensors faces --json"
  lu.assertEquals({ errors, code }, { "", 0 })
  local scored = assert(json.decode(output))
  lu.assertEquals({ scored.count, scored.skipped, scored.classes }, { 70, 0, trained.classes })

  output, errors, code = feral "predict m.safetensors faces/*/*.png --json"
  lu.assertEquals({ errors, code }, { "", 0 })
  local right = 0
  for _, prediction in ipairs(assert(json.decode(output)).predictions) do
    if prediction.image:find("/" .. prediction.class .. "/", 1, true) then right = right + 1 end
  end
  lu.assertEquals(right, scored.right)
end

function T.test_text_for_people()
  local output, errors, code = feral(quick)
  lu.assertEquals({ errors, code }, { "", 0 })
  for _, text in ipairs { "56 images", "epoch 2/2", "<- predicted", "accuracy", "saved model.safetensors" } do
    lu.assertStrContains(output, text)
  end
  output = feral "eval model.safetensors faces"
  lu.assertStrContains(output, "70 images")
  output = feral "predict model.safetensors faces/anger/1.png --top 1"
  lu.assertStrMatches(output, "faces/anger/1.png: %l+ %d+%.%d %%\n")
end

function T.test_a_split_folder_validates_on_test()
  feral "-e 'os.execute [[mkdir both && cp -r faces both/train && cp -r faces both/test && rm -r both/test/anger]]'"
  local output = feral "train both --net emopy --size 22 --epochs 1 --json"
  local result = assert(json.decode(output))
  lu.assertEquals({ result.count, #result.classes }, { 60, 7 })
  output = feral "eval model.safetensors both --part test --json"
  lu.assertEquals(json.decode(output).accuracy, result.accuracy)
end

--- Interrupts a training after its first epoch, goes on from the checkpoint, and expects the model of a training in one go.
function T.test_an_interrupted_training_goes_on_to_the_same_model()
  local line = "train faces --net emopy --size 22 --batch 16 --epochs 30 --save "
  local output, _, code = feral(line .. [[one.safetensors > /dev/null
    "$F" ]] .. line .. [[two.safetensors > out 2>&1 & pid=$!
    n=0; until [ -s two.safetensors.checkpoint ] || [ $n -gt 1500 ]; do sleep 0.02; n=$((n + 1)); done
    kill -TERM $pid; wait $pid; echo code $?; cat out
    "$F" ]] .. line .. "two.safetensors --resume")
  lu.assertStrContains(output, "code 143\n")
  lu.assertStrMatches(output, ".*training interrupted in epoch %d+ after step %d+.*")
  lu.assertStrContains(output, "going on from two.safetensors.checkpoint")
  lu.assertEquals(code, 0)
  lu.assertTrue(read "one.safetensors" == read "two.safetensors")
end

local function check_refused(line, code, message)
  local output, errors, exit_code = feral(line)
  lu.assertEquals({ output, errors, exit_code }, { "", message, code })
end

function T.test_what_is_wrong_is_named()
  check_refused("train nowhere", 1, "feral train: nowhere: No such file or directory\n")
  check_refused("train faces --epochs none", 2,
    "feral train: --epochs must be a whole number of at least 1, got 'none'\nusage: feral train DIR [options]\n")
  check_refused("train faces --save no/such/dir/m", 1, "feral train: no/such/dir/m: No such file or directory\n")
  check_refused("eval nowhere.safetensors faces", 1, "feral eval: nowhere.safetensors: No such file or directory\n")
  check_refused("predict m.safetensors", 2, "feral predict: IMAGE is missing\nusage: feral predict MODEL IMAGE... [options]\n")
  local _, errors, code = feral "trian faces"
  lu.assertStrContains(errors,
    "feral: 'trian' is neither a file nor a verb, did you mean 'train'?\nverbs: bench, eval, predict, ")
  lu.assertEquals(code, 2)
end

function T.test_data_that_the_model_does_not_know_is_refused()
  feral(quick)
  feral "-e 'os.execute [[mkdir -p other/boredom && cp faces/anger/* other/boredom]]'"
  check_refused("eval model.safetensors other", 1, "feral eval: other: the data's class 'boredom' is none of the model's "
    .. "(it knows anger, disgust, fear, happiness, sadness, surprise, neutral)\n")
end

function T.test_bad_images_are_reported_and_the_others_go_on()
  feral(quick .. "; echo text > faces/anger/text.jpg")
  local output, errors, code = feral "predict model.safetensors faces/anger/text.jpg faces/anger/1.png"
  lu.assertStrContains(output, "faces/anger/1.png: ")
  lu.assertStrContains(errors, "faces/anger/text.jpg: ")
  lu.assertStrContains(errors, "1 of 2 images could not be read")
  lu.assertEquals(code, 1)
  output, errors, code = feral "eval model.safetensors faces --json"
  lu.assertEquals({ json.decode(output).skipped, code }, { 1, 0 })
  lu.assertStrContains(errors, "faces/anger/text.jpg: ")
  output, errors, code = feral "eval model.safetensors faces --json --strict"
  lu.assertEquals({ output, code }, { "", 1 })
  lu.assertStrContains(errors, "faces/anger/text.jpg: ")
end

function T.test_bench_measures_networks_and_models()
  local output, errors, code = feral "bench --net emopy --size 22 --batch 2 --times 1 --threads 1 --json"
  lu.assertEquals({ errors, code }, { "", 0 })
  local found = assert(json.decode(output))
  lu.assertEquals({ found.net, found.batch, found.threads, found.input }, { "emopy", 2, 1, { 1, 22, 22 } })
  local parameters = 0
  for _, row in ipairs(found.training.rows) do parameters = parameters + row.parameters end
  lu.assertEquals(parameters, found.parameters)
  for _, name in ipairs { "train_step", "predict_batch", "predict_one" } do lu.assertTrue(found[name] > 0) end
  feral(quick)
  output, errors, code = feral "bench --model model.safetensors --batch 2 --times 1"
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertStrContains(output, "model.safetensors: 1x22x22, batch 2, ")
  for _, text in ipairs { "layer ", "outside the layers", "training ", "GFLOP/s at most" } do
    lu.assertStrContains(output, text)
  end
  check_refused("bench --net emopy --size 12", 1, "feral bench: nets.emopy: images of 12 pixels are too small\n")
end

function T.test_each_verb_has_help()
  for _, verb in ipairs { "train", "eval", "predict", "bench" } do
    local output, errors, code = feral(verb .. " --help")
    lu.assertEquals({ errors, code }, { "", 0 })
    lu.assertStrContains(output, "usage: feral " .. verb)
    lu.assertStrContains(output, "--json")
    lu.assertStrContains(feral "--help", "  " .. verb)
  end
end

return T
