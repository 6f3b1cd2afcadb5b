local lu = require "luaunit"
local feral = require "feral"
local cli = require "feral.cli"
local json = require "feral.formats.json"
local csv = require "feral.formats.csv"
local bright, program, temporary = require "bright", require "program", require "temporary"
local tensor, image, files, face = feral.tensor, feral.image, feral.files, feral.face

local T = {}

local dir

--- The program's path, whatever the folder.
local program_path = program.quote(program.path)
if program.path:sub(1, 1) ~= "/" then
  local pwd <close> = assert(io.popen "pwd")
  program_path = program.quote(pwd:read "l" .. "/" .. program.path)
end

function T.setUp()
  bright.there, bright.found = true, {}
  dir = temporary.folder()
  assert(bright.model():save(dir / "m.safetensors"))
end

function T.tearDown()
  bright.there = false
  getmetatable(dir).__close()
end

local function gray(value, height, width) return tensor.full({ 1, height, width or height }, value, "u8") end

--- A picture file of 300 x 120 pixels with a bright square of 40 at (60, 20); the detector finds it.
local function scene(name)
  local picture = gray(0, 120, 300)
  image.crop(picture, 21, 61, 40, 40):copy_(gray(250, 40))
  assert(image.save(dir / (name or "scene.png"), picture))
  bright.found = { { box = { 60, 20, 40, 40 }, score = 0.875, points = { { 70, 30 } } } }
  return dir / (name or "scene.png")
end

--- Runs the verb in this process, where the detector is. Returns standard output, standard error, exit code.
local function predict(words, input)
  local output, complaints = {}, {}
  local before = { print = print, stderr = io.stderr, read = io.read }
  local _back <close> = setmetatable({}, { __close = function()
    _G.print, io.stderr, io.read = before.print, before.stderr, before.read -- luacheck: ignore
  end })
  _G.print = function(text) output[#output + 1] = text .. "\n" end
  io.stderr = { write = function(_, text, ...) complaints[#complaints + 1] = table.concat { text, ... } end } -- luacheck: ignore
  io.read = function() return input end -- luacheck: ignore
  local code = cli.run("predict", table.unpack(words))
  return table.concat(output), table.concat(complaints), code
end

local function predicted(words, input)
  local output, complaints, code = predict({ "--json", table.unpack(words) }, input)
  return assert(json.decode(output)), complaints, code
end

local P = ("%.1f"):format(100 * bright.probability(250))

---- What is said ----

function T.test_a_line_a_face()
  local path = scene()
  table.insert(bright.found, { box = { 200, 20, 30, 30 }, score = 0.5 })
  lu.assertEquals({ predict { dir / "m.safetensors", path } }, {
    ("%s: 60,20 40x40: bright %s %%, dark %.1f %%\n"):format(path, P, 100 - P)
      .. ("%s: 200,20 30x30: dark %.1f %%, bright %.1f %%\n"):format(path, 100 * (1 - bright.probability(0)),
        100 * bright.probability(0)), "", 0 })
  lu.assertEquals((predict { dir / "m.safetensors", path, "--top", "1", "--largest" }),
    ("%s: 60,20 40x40: bright %s %%\n"):format(path, P))
  lu.assertEquals((predict { dir / "m.safetensors", path, "--top", "1", "--score", "0.6" }),
    ("%s: 60,20 40x40: bright %s %%\n"):format(path, P))
end

function T.test_json_holds_all()
  local path = scene()
  local found, complaints, code = predicted { dir / "m.safetensors", path }
  lu.assertEquals({ complaints, code, found.model, found.classes }, { "", 0, dir / "m.safetensors", { "bright", "dark" } })
  local one = found.predictions[1]
  lu.assertEquals({ #found.predictions, one.image, one.width, one.height, #one.faces }, { 1, path, 300, 120, 1 })
  local f = one.faces[1]
  lu.assertEquals({ f.box, f.score, f.points, f.class }, { { 60, 20, 40, 40 }, 0.875, { { 70, 30 } }, "bright" })
  lu.assertAlmostEquals(f.probabilities.bright, bright.probability(250), 1e-5)
  lu.assertEquals(f.probability, f.probabilities.bright)
end

function T.test_csv_is_a_row_a_face()
  local path = scene 'with, "quotes".png'
  local output = predict { dir / "m.safetensors", path, "--csv" }
  local lines = {}
  for line in output:gmatch "[^\n]+" do lines[#lines + 1] = assert(csv.split(line)) end
  lu.assertEquals(lines[1], { "image", "face", "x", "y", "w", "h", "score", "class", "probability", "bright", "dark" })
  lu.assertEquals(#lines, 2)
  lu.assertEquals(table.move(lines[2], 1, 8, 1, {}), { path, "1", "60", "20", "40", "40", "0.875", "bright" })
  lu.assertAlmostEquals(tonumber(lines[2][11]), 1 - bright.probability(250), 1e-5)
end

function T.test_a_photograph_without_a_face_is_no_failure()
  local path = scene()
  bright.found = {}
  lu.assertEquals({ predict { dir / "m.safetensors", path } }, { path .. ": no face found\n", "", 0 })
  local output, _, code = predict { dir / "m.safetensors", path, "--json" }
  lu.assertStrContains(output, '"faces":[]')
  lu.assertEquals({ code, json.decode(output).predictions[1].width }, { 0, 300 })
  lu.assertStrMatches((predict { dir / "m.safetensors", path, "--crop" }), ".*scene.png: dark [%d.]+ %%, bright [%d.]+ %%\n")
end

function T.test_unknown_and_some_emotions_alone()
  local path = scene()
  assert(bright.model { threshold = 0.999 }:save(dir / "sure.safetensors"))
  lu.assertStrContains((predict { dir / "sure.safetensors", path }), ("40x40: unknown (bright %s %%, dark "):format(P))
  local m = bright.model()
  m.named, m.classes = { "fear", "anger" }, { "fear", "anger" }
  assert(m:save(dir / "named.safetensors"))
  lu.assertEquals(predicted({ dir / "named.safetensors", path, "--emotions", "anger, fear" }).classes, { "anger", "fear" })
  lu.assertEquals({ predict { dir / "named.safetensors", path, "--emotions", "anger,feer" } }, { "",
    "feral predict: --emotions: there is no class 'feer', did you mean 'fear'? (known: fear, anger)\n", 1 })
  lu.assertEquals({ predict { dir / "named.safetensors", path, "--emotions", "anger" } }, { "",
    "feral predict: --emotions: two classes or more expected, as happiness,neutral\n", 1 })
end

---- Many photographs ----

function T.test_files_that_cannot_be_read_are_reported_and_the_rest_done()
  local path = scene()
  temporary.write(dir / "text.jpg", "no picture")
  assert(image.save(dir / "dot.png", gray(255, 1)))
  local output, complaints, code = predict { dir / "m.safetensors", dir / "text.jpg", path, dir / "none.png", dir / "dot.png",
    "--top", "1" }
  lu.assertEquals(output, ("%s: 60,20 40x40: bright %s %%\n%s: bright %.1f %%\n"):format(path, P, dir / "dot.png",
    100 * bright.probability(255)))
  lu.assertStrContains(complaints, "feral predict: " .. dir / "text.jpg: ")
  lu.assertStrContains(complaints, dir / "none.png: No such file or directory\n")
  lu.assertStrContains(complaints,
    "4 photographs: 2 faces, 2 could not be read\nferal predict: 2 of 4 images could not be read\n")
  lu.assertEquals(code, 1)
  local found = predicted { dir / "m.safetensors", dir / "text.jpg", path }
  lu.assertEquals({ found.predictions[1].image, #found.predictions[2].faces }, { dir / "text.jpg", 1 })
  lu.assertStrContains(found.predictions[1].error, dir / "text.jpg: ")
end

function T.test_a_folder_gives_its_pictures_and_those_below()
  assert(files.mkdir(dir / "photos/deep/er"))
  assert(files.mkdir(dir / "empty"))
  for _, name in ipairs { "photos/b.png", "photos/a.png", "photos/deep/er/c.PNG" } do
    assert(files.write_atomic(dir / name, image.encode(gray(250, 9), "png")))
  end
  temporary.write(dir / "photos/notes.txt", "no picture")
  local output, complaints, code = predict { dir / "m.safetensors", dir / "photos/", "--top", "1" }
  local order = {}
  for line in output:gmatch "[^\n]+" do order[#order + 1] = line:match "photos/(.-): bright" end
  lu.assertEquals(order, { "a.png", "b.png", "deep/er/c.PNG" })
  lu.assertEquals({ complaints, code }, { "3 photographs: 3 faces\n", 0 })
  output, complaints, code = predict { dir / "m.safetensors", dir / "empty" }
  lu.assertEquals({ output, code }, { "", 1 })
  lu.assertEquals(complaints, ("feral predict: %s: this folder holds no pictures\n"
    .. "feral predict: 1 word could not be followed\n"):format(dir / "empty"))
end

function T.test_a_list_on_standard_input_and_names_of_any_kind()
  local names = { "two words.png", "two\nlines.png", "-dash.png", "'quote'.png" }
  for _, name in ipairs(names) do assert(image.save(dir / name, gray(250, 8))) end
  local listed = {}
  for i, name in ipairs(names) do listed[i] = dir / name end
  local found = predicted({ dir / "m.safetensors", "-" }, table.concat(listed, "\0") .. "\0")
  for i, name in ipairs(names) do lu.assertEquals(found.predictions[i].image, dir / name) end
  found = predicted({ dir / "m.safetensors", "-" }, listed[1] .. "\r\n\n" .. listed[4])
  lu.assertEquals({ #found.predictions, found.predictions[2].image }, { 2, listed[4] })
  local output = predict { dir / "m.safetensors", listed[2], "--top", "1" }
  lu.assertStrContains(output, "two\\nlines.png: bright")
  output = program.shell(("cd %s; %s predict --top 1 m.safetensors -- -dash.png"):format(dir.path, program_path))
  lu.assertStrContains(output, "-dash.png: bright ")
end

---- Drawing ----

function T.test_drawing()
  local path = scene()
  local function reds() -- of the drawing's left border of the box
    local drawn = assert(image.load(dir / "out.png"))
    lu.assertEquals(drawn.shape, { 3, 120, 300 })
    return drawn[1][41][61]:item() ~= drawn[3][41][61]:item()
  end
  lu.assertEquals(select(3, predict { dir / "m.safetensors", path, "--draw", dir / "out.png" }), 0)
  lu.assertTrue(reds())
  assert(files.mkdir(dir / "b"))
  assert(files.write_atomic(dir / "b/scene.png", assert(files.read(path))))
  lu.assertEquals(select(3, predict { dir / "m.safetensors", path, dir / "b", "--draw", dir / "new/" }), 0)
  lu.assertEquals(files.list(dir / "new"), { "scene-2.png", "scene.png" })
  local message = ("feral predict: --draw %s: of 2 photographs; name a folder, as %s/\n"):format(dir / "out.png", dir / "out.png")
  lu.assertEquals({ predict { dir / "m.safetensors", path, dir / "b", "--draw", dir / "out.png" } }, { "", message, 1 })
  message = ("feral predict: --draw %s: a name that ends in .png, .jpg or .jpeg expected, or a folder\n"):format(dir / "x.gif")
  lu.assertEquals({ predict { dir / "m.safetensors", path, "--draw", dir / "x.gif" } }, { "", message, 1 })
  local _, complaints, code = predict { dir / "m.safetensors", path, "--draw", path }
  lu.assertEquals({ complaints:match "[^\n]+", code },
    { "feral predict: --draw would write over the photograph itself", 2 })
  _, complaints, code = predict { dir / "m.safetensors", path, "--draw", dir / "no/such/out.png" }
  lu.assertEquals({ complaints, code }, { ("feral predict: %s: No such file or directory\n"):format(dir / "no/such/out.png"), 1 })
end

---- The model ----

function T.test_the_first_word_may_name_a_model()
  local path = scene()
  assert(files.mkdir(dir / "models"))
  local bytes = assert(files.read(dir / "m.safetensors"))
  for _, name in ipairs { "models/fer7.safetensors", "models/other.safetensors", "plain" } do
    assert(files.write_atomic(dir / name, bytes))
  end
  local function model_of(words)
    local output, complaints, code = program.shell(("cd %s; FERAL_MODELS=models %s predict %s --json --crop"):format(dir.path,
      program_path, words))
    local found = json.decode(output)
    return code == 0 and { found.model, #found.predictions } or complaints
  end
  for words, expected in pairs {
    [path] = { "fer7", 1 }, ["other scene.png"] = { "other", 1 }, ["plain scene.png scene.png"] = { "plain", 2 },
    ["./plain scene.png"] = { "./plain", 1 }, ["fer7 ./scene.png"] = { "fer7", 1 },
  } do lu.assertEquals(model_of(words), expected, words) end
  lu.assertStrContains(model_of "fer8 scene.png",
    "feral predict: 'fer8' is neither a file nor a model that ships, did you mean 'fer7'?")
  lu.assertStrContains(model_of "none.safetensors scene.png", "none.safetensors: No such file or directory")
  lu.assertStrContains(model_of "nothing.png", "nothing.png: No such file or directory")
  lu.assertStrContains(model_of "fer7", "feral predict: PHOTO is missing\nusage: feral predict [MODEL] PHOTO... [options]\n")
end

function T.test_what_excludes_each_other()
  for _, pair in ipairs { { "--json", "--csv" }, { "--all", "--largest" } } do
    local _, complaints, code = predict { dir / "m.safetensors", "x.png", pair[1], pair[2] }
    lu.assertEquals({ complaints:match "[^\n]+", code },
      { ("feral predict: %s and %s exclude each other"):format(pair[1], pair[2]), 2 })
  end
  lu.assertEquals({ predict { dir / "m.safetensors", "x.png", "--detector", "stab" } }, { "",
    ("feral predict: --detector: there is no 'stab', did you mean 'stub'? (known: %s)\n"):format(
      table.concat(require("feral.vision.detect").names(), ", ")), 1 })
end

function T.test_the_help_says_what_labels_are_not()
  local output = predict { "--help" }
  lu.assertStrContains(output, "they do not tell what somebody feels")
  lu.assertStrContains(output, "usage: feral predict [MODEL] PHOTO... [options]")
end

---- Faces themselves ----

--- Drawn faces in a larger picture, found by OpenCV's cascade: each is judged as its own pixels are.
function T.test_drawn_faces_in_a_photograph()
  if not io.open(face.haar_cascade) then
    io.stdout:write "\nopencv-data is not installed: no faces are looked for\n"
    lu.skip "opencv-data is not installed"
  end
  local photo = gray(128, 300, 560)
  for i, at in ipairs { 20, 300 } do
    local drawn = face.render({ AU12 = 0.5 }, { hair = 0, skin = i == 1 and 0.9 or 0.6 }, 200)
    image.paste(photo, drawn, { 1, 0, -at, 0, 1, -40 })
  end
  assert(image.save(dir / "photo.png", photo))
  local found = predicted { dir / "m.safetensors", dir / "photo.png", "--detector", "haar" }
  local faces = found.predictions[1].faces
  lu.assertEquals(#faces, 2)
  table.sort(faces, function(a, b) return a.box[1] < b.box[1] end)
  for i, f in ipairs(faces) do
    local x, y, w, h = table.unpack(f.box)
    local left = i == 1 and 20 or 300
    lu.assertTrue(x >= left - 10 and x + w <= left + 210 and y >= 30 and y + h <= 250, table.concat(f.box, " "))
    local cut = image.crop(photo, y + 1, x + 1, h, w)
    lu.assertAlmostEquals(f.probabilities.bright, bright.model():predict(cut).probabilities[1], 1e-6)
  end
end

return T
