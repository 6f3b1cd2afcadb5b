local lu = require "luaunit"
local feral = require "feral"
local program, temporary = require "program", require "temporary"
local files = require "feral.core.files"
local nn, model, json = feral.nn, feral.model, feral.json

--- Models by name: where they are looked for, and the verb that lists them.
local T = {}

local function small_model(card)
  local net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
  return model.new(net, {
    classes = { "anger", "happiness", "neutral" }, card = card,
    preprocessing = { height = 8, width = 8, channels = 1, mean = 0.5, std = 0.25 },
  })
end

--- Runs the program's copy in dir/bin: it must find nothing of this house, only what the test puts there.
local function run_copy(dir, environment, words)
  local script = 'mkdir -p DIR/bin && cp "$(readlink -f "$F")" DIR/bin/feral && cd DIR && FERAL_MODELS=%s bin/feral %s'
  local output, errors, code = program.shell((script:gsub("DIR", dir.path):format(environment, words)))
  return { output, errors, code }
end

--- Where a name is found by the program in dir/bin.
local function found(dir, environment)
  local output = run_copy(dir, environment, [[-e 'print(require("feral").model.shipped.find "small")']])[1]
  return (output:gsub("\n$", ""))
end

function T.test_the_order_of_the_places()
  local dir <close> = temporary.folder()
  local m = small_model()
  local places = {
    "share/feral/models", "models", "bin/models", "own", -- later ones come first
  }
  for _, place in ipairs(places) do
    assert(files.mkdir(dir / place))
    assert(m:save(dir / (place .. "/small.safetensors")))
    local path = found(dir, dir / "own")
    lu.assertEquals(assert(io.popen("realpath " .. path)):read "l", dir / (place .. "/small.safetensors"))
  end
end

function T.test_what_looks_like_a_path_is_one()
  for _, path in ipairs { "./small", "a/small", "small.safetensors" } do
    lu.assertEquals(model.shipped.find(path), path)
  end
end

function T.test_a_file_of_that_very_name_still_loads()
  local dir <close> = temporary.folder()
  assert(small_model():save(dir / "trained"))
  lu.assertEquals(run_copy(dir, "", "-e 'print(#require(\"feral\").model.load(\"trained\").classes)'"), { "3\n", "", 0 })
end

function T.test_an_unknown_name_gets_the_nearest_and_all_there_are()
  local dir <close> = temporary.folder()
  assert(small_model():save(dir / "fer7.safetensors"))
  assert(small_model():save(dir / "quick.safetensors"))
  lu.assertEquals(run_copy(dir, ".", "predict fer8 x.png"), { "",
    "feral predict: 'fer8' is neither a file nor a model that ships, did you mean 'fer7'? (there: fer7, quick)\n", 1 })
  lu.assertEquals(run_copy(dir, "nowhere", "predict fer7 x.png"), { "",
    "feral predict: 'fer7' is neither a file nor a model that ships (there: none)\n", 1 })
  local ok, message = pcall(model.load, 7)
  lu.assertFalse(ok)
  lu.assertStrContains(message, "model: the name or path of a model expected, got number")
end

function T.test_the_list_says_what_the_headers_say()
  local dir <close> = temporary.folder()
  assert(small_model { accuracy = 0.5, balanced = 0.25 }:save(dir / "plain.safetensors"))
  assert(small_model { measured = { accuracy = 0.75, low = 0.7, high = 0.8, balanced = 0.7, speed = { ms = 1.5 } } }
    :save(dir / "carded.safetensors"))
  temporary.write(dir / "broken.safetensors", "not a model")
  local lines = run_copy(dir, ".", "models")[1]
  lu.assertStrMatches(lines, "model +kind .*\nbroken +%./broken.*not a safetensors file.*\ncarded +network +0%.0 MB +"
    .. "75%.00 %% %(70%.0 to 80%.0%) +70%.00 %% +1%.50 ms\nplain +network .* 50%.00 %% +25%.00 %% +%-\n")
  local list = assert(json.decode(run_copy(dir, ".", "models --json")[1]))
  lu.assertEquals({ list[2].name, list[2].kind, list[2].accuracy, list[2].ms }, { "carded", "network", 0.75, 1.5 })
  local empty <close> = temporary.folder()
  lu.assertStrContains(run_copy(empty, "", "models")[1], "No models ship with this program")
  lu.assertEquals(run_copy(empty, "", "models --json")[1], "[]\n")
end

function T.test_models_with_a_name_prints_the_card()
  local dir <close> = temporary.folder()
  assert(small_model { data = "drawn faces", accuracy = 0.5 }:save(dir / "plain.safetensors"))
  local text = run_copy(dir, ".", "models plain")[1]
  lu.assertEquals(text, model.card.text(assert(model.load(dir / "plain.safetensors")),
    { name = "plain", bytes = select(2, files.look(dir / "plain.safetensors")) }))
  lu.assertStrContains(text, "# plain\n\n- Trained on: drawn faces\n- Classes: anger, happiness, neutral\n")
  lu.assertStrContains(run_copy(dir, ".", "models plian")[2], "did you mean 'plain'?")
  lu.assertEquals(json.decode(run_copy(dir, ".", "models plain --json")[1])[1].card.data, "drawn faces")
end

return T
