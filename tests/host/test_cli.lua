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
  lu.assertEquals({ errors, code }, { "70 photographs: 70 faces\n", 0 })
  local right = 0
  for _, prediction in ipairs(assert(json.decode(output)).predictions) do
    if prediction.image:find("/" .. prediction.faces[1].class .. "/", 1, true) then right = right + 1 end
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

local function card_of(path) return assert(require("feral.model").load(root .. "/" .. path)).card end

--- The test part must not choose the epoch whose score on it is told.
function T.test_a_split_folder_chooses_on_a_part_of_train_and_scores_test_once()
  feral "-e 'os.execute [[mkdir both && cp -r faces both/train && cp -r faces both/test && rm -r both/test/anger]]'"
  local output = feral "train both --net emopy --size 22 --epochs 2 --select balanced --json --seed 3"
  local result = assert(json.decode(output))
  lu.assertEquals({ result.count, #result.classes, result.part, result.select }, { 60, 7, "test", "balanced" })
  lu.assertEquals(result.validation.count, 14)
  output = feral "eval model.safetensors both --part test --json"
  lu.assertEquals(json.decode(output).accuracy, result.accuracy)
  local card = card_of "model.safetensors"
  lu.assertEquals({ card.accuracy, card.images, card.scored_on }, { result.accuracy, 56, 60 })
  lu.assertEquals(card.protocol, {
    split = "0.15 of train, stratified, by seed 3, is validation", seed = 3, selection = "balanced on validation",
    scored = "on test, once, with the weights of the chosen epoch", train = 56, validation = 14, test = 60,
  })
  lu.assertEquals(card.validation.accuracy, result.validation.accuracy)
end

function T.test_the_three_parts_of_fer2013_are_used_as_they_are()
  feral "-e 'os.execute [[mkdir all && cp -r faces all/train && cp -r faces all/test && cp -r faces all/private]]'"
  feral "-e 'os.execute [[rm -r all/test/anger all/private/fear all/private/anger]]'"
  local result = assert(json.decode((feral "train all --net emopy --size 22 --epochs 1 --json")))
  lu.assertEquals({ result.count, result.validation.count, card_of("model.safetensors").images }, { 50, 60, 70 })
  lu.assertStrContains(card_of("model.safetensors").protocol.split, "test/ chooses, private/ scores")
  result = assert(json.decode((feral "train all --net emopy --size 22 --epochs 1 --json --validation 0.3")))
  lu.assertEquals({ result.count, result.validation.count }, { 50, 21 })
end

function T.test_without_validation_the_last_weights_count()
  local output, errors, code = feral(quick .. "--validation 0 --json")
  lu.assertEquals({ errors, code }, { "", 0 })
  local result = assert(json.decode(output))
  lu.assertEquals({ result.part, result.epochs, result.best_epoch, result.accuracy }, { "none", 2 })
  local card = card_of "model.safetensors"
  lu.assertEquals({ card.images, card.protocol.selection }, { 70, "the last epoch" })
  output = feral(quick .. "--validation 0")
  lu.assertStrContains(output, "scored not at all: no images were held out\nsaved model.safetensors")
end

--- Interrupts a training once the file of this name is there; returns what it said.
local function interrupted(line, name)
  return program.shell(([[
    cd %s
    "$F" %s > out 2>&1 & pid=$!
    n=0; until [ -s %s ] || [ $n -gt 1500 ]; do sleep 0.02; n=$((n + 1)); done
    kill -TERM $pid; wait $pid; echo code $?; cat out]]):format(program.quote(root), line, name))
end

function T.test_a_stopped_training_can_be_made_a_model_as_it_is()
  local line = "train faces --net emopy --size 22 --batch 16 --epochs 3000 --select macro_f1 --save 'a model'"
  local output = interrupted(line, "'a model.best'")
  lu.assertStrContains(output, "code 143\n")
  local go_on = "feral train faces --save 'a model' --net emopy --epochs 3000 --size 22 --batch 16 --select macro_f1 "
    .. "--checkpoint 'a model.checkpoint' "
  lu.assertStrContains(output, "the state is in a model.checkpoint\n")
  lu.assertStrContains(output, go_on .. "--resume\n")
  lu.assertStrContains(output, go_on .. "--finish\n")
  local kept = assert(require("feral.model").load(root .. "/a model.best"))
  local errors, code
  output, errors, code = feral(go_on:gsub("^feral ", "") .. "--finish --json")
  lu.assertEquals({ errors, code }, { "", 0 })
  local result = assert(json.decode(output))
  lu.assertTrue(result.best_epoch >= 1 and result.epochs < 3000)
  local model = assert(require("feral.model").load(root .. "/a model"))
  lu.assertEquals(model.net:state()[1][2]:tobytes(), kept.net:state()[1][2]:tobytes())
  lu.assertEquals(model.card.accuracy, result.accuracy)
  lu.assertNil(files.look(root .. "/a model.checkpoint"))
  lu.assertNil(files.look(root .. "/a model.best"))
  errors, code = select(2, feral(line .. " --finish"))
  lu.assertEquals({ errors, code }, { "feral train: --finish: there is no checkpoint a model.checkpoint\n", 1 })
end

function T.test_a_checkpoint_is_not_gone_on_from_with_other_settings_nor_written_over()
  local line = "train faces --net emopy --size 22 --batch 16 --epochs 3000"
  interrupted(line, "model.safetensors.checkpoint")
  local before = read "model.safetensors.checkpoint"
  local _, errors, code = feral "train faces --net emopy --size 22 --batch 8 --lr 0.02 --epochs 3000 --resume"
  lu.assertEquals(code, 1)
  lu.assertStrContains(errors, "fit: cannot resume: model.safetensors.checkpoint is of another training: batch was 16, is 8; "
    .. "batches was 3, is 7; lr was 0.01, is 0.02")
  lu.assertTrue(read "model.safetensors.checkpoint" == before)
  _, errors, code = feral(quick)
  lu.assertEquals({ errors, code },
    { "the checkpoint of an earlier training is now model.safetensors.checkpoint.old\n", 0 })
  lu.assertTrue(read "model.safetensors.checkpoint.old" == before)
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
  check_refused("predict m.safetensors", 2, "feral predict: PHOTO is missing\nusage: feral predict [MODEL] PHOTO... [options]\n")
  local _, errors, code = feral "trian faces"
  lu.assertStrContains(errors,
    "feral: 'trian' is neither a file nor a verb, did you mean 'train'?\nverbs: bench, card, eval, models, predict, ")
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

--- An SVM of bands in three directions, over HOG and over features alone, as files were before models had stages.
function T.test_verbs_take_models_that_are_no_networks()
  for _, name in ipairs { "svm_hog_v1", "svm_v1" } do
    local bytes = assert(files.read(("tests/model/old/%s.safetensors"):format(name)))
    assert(files.write_atomic(root .. "/" .. name, bytes))
  end
  local output, errors, code = feral "predict svm_hog_v1 faces/anger/1.png --top 3"
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertStrMatches(output, "faces/anger/1.png: %l+ %d+%.%d %%, %l+ %d+%.%d %%, %l+ %d+%.%d %%\n")
  feral "-e 'os.execute [[mkdir -p three && cp -r faces/anger faces/happiness faces/neutral three]]'"
  output, errors, code = feral "eval svm_hog_v1 three --json"
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertEquals({ json.decode(output).count, json.decode(output).loss }, { 30 })
  for _, line in ipairs { "predict svm_v1 faces/anger/1.png", "eval svm_v1 three" } do
    check_refused(line, 1, ("feral %s: svm_v1: this model judges features, not images: it has no stage that preprocesses\n")
      :format(line:match("%l+")))
  end
  check_refused("bench --model svm_hog_v1", 1,
    "feral bench: svm_hog_v1: bench measures networks that see images, this model is none\n")
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
