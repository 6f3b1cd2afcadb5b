--- feral predict: finds the faces of photographs and says what a model sees on each.

local errors = require "feral.base.errors"
local files = require "feral.core.files"
local json = require "feral.formats.json"
local reader = require "feral.data.reader"
local scope = require "feral.core.scope"

local predict = {
  usage = "feral predict [MODEL] PHOTO... [options]",
  about = "Finds the faces of photographs and says what a model sees on each.",
  words = { "PHOTO..." },
  options = {
    { "draw", value = "OUT", about = "draw what was found: a .png or .jpg, for many photographs a folder" },
    { "json", about = "print all as JSON, places in pixels of the picture as a viewer shows it" },
    { "csv", about = "print a row a face" },
    { "all", about = "all faces, as without this option" },
    { "largest", about = "of each photograph the largest face alone" },
    { "top", value = "N", type = "integer", least = 1, default = 3, about = "how many classes to name, the most probable first" },
    { "emotions", value = "A,B,...", about = "tell these classes apart alone" },
    { "crop", about = "each picture is a face: take it whole" },
    { "detector", value = "NAME", about = "what finds faces: feral or haar; without it the best that is there" },
    { "score", value = "S", type = "number", about = "the least score with which a found face counts" },
  },
  notes = [[
MODEL is the name of a model that comes with the program, or a model file; without it fer7. PHOTO is a picture, a folder of
them, or - for a list on standard input, a line each or with a zero byte behind each.

The labels name expressions as people who saw the picture alone would name them; they do not tell what somebody feels,
thinks or intends. Do not decide about people by them.]],
}

local DEFAULT = "fer7"

---- Words ----

--- True for a file that begins as safetensors do: the length of a header, and the header.
local function is_tensors(path)
  local kind, size = files.look(path)
  if kind ~= "file" or size < 10 then return false end
  local bytes = files.read(path, 0, 9)
  if not bytes then return false end
  local length = string.unpack("<I8", bytes)
  return bytes:sub(9) == "{" and length > 0 and length <= size - 8
end

--- Whether the first word names a model and not a photograph. What is not there, and could not be a picture, is one too: the
--- message then says that there is no such model.
local function names_model(word)
  if word:find("%.safetensors$") then return true end
  if word == "-" or word:find("/", 1, true) then return is_tensors(word) end
  if require("feral.model.shipped").find(word) then return true end
  if files.look(word) then return is_tensors(word) end
  return not word:find(".", 1, true)
end

local function refuse_pairs(values)
  for _, pair in ipairs { { "json", "csv" }, { "all", "largest" }, { "crop", "detector" }, { "crop", "score" } } do
    if values[pair[1]] and values[pair[2]] then return ("--%s and --%s exclude each other"):format(pair[1], pair[2]) end
  end
end

--- Tells the model from the photographs.
---@return table|nil, string|nil  nil and how the words are misused
function predict.arrange(values)
  local wrong = refuse_pairs(values)
  if wrong then return nil, wrong end
  values.model = DEFAULT
  if names_model(values.photo[1]) then values.model = table.remove(values.photo, 1) end
  if #values.photo == 0 then return nil, "PHOTO is missing" end
  for _, path in ipairs(values.photo) do
    if path == values.draw then return nil, "--draw would write over the photograph itself" end
  end
  return values
end

---- Photographs ----

local FOLDERS_DEEP = 16 -- so that a link to a folder above ends

--- Adds the pictures in a folder and those below it to a list; nil and a message where one cannot be read.
local function add_folder(list, path, deep)
  local names, kinds = files.list(path)
  if not names then return nil, kinds end
  for _, name in ipairs(names) do
    local inside = path:gsub("/+$", "") .. "/" .. name
    if kinds[name] == "directory" then
      if deep < FOLDERS_DEEP then
        local done, message = add_folder(list, inside, deep + 1)
        if not done then return nil, message end
      end
    elseif reader.is_image(name) then
      list[#list + 1] = inside
    end
  end
  return true
end

--- Adds the names on standard input: find -print0 ends each with a zero byte, so that names may hold line ends.
local function add_list(list)
  local text = io.read "a" or ""
  for name in text:gmatch(text:find("\0", 1, true) and "[^\0]+" or "[^\r\n]+") do list[#list + 1] = name end
  return true
end

--- The paths of all photographs, and how many words could not be followed.
local function photographs(words)
  local list, failed = {}, 0
  for _, word in ipairs(words) do
    local before, done, message = #list, true, nil
    if word == "-" then
      done = add_list(list)
    elseif files.look(word) == "directory" then
      done, message = add_folder(list, word, 1)
      if done and #list == before then done, message = false, word .. ": this folder holds no pictures" end
    else
      list[#list + 1] = word
    end
    if not done then
      failed = failed + 1
      io.stderr:write("feral predict: ", message, "\n")
    end
  end
  return list, failed
end

---- What is said ----

--- On one line, whatever a file is called.
local function on_a_line(path)
  return (path:gsub("%c", function(c) return c == "\n" and "\\n" or ("\\%03d"):format(c:byte()) end))
end

--- "happiness 97.3 %, neutral 1.2 %, ..."
local function ranked(face, classes, top)
  local order, words, place = table.move(classes, 1, #classes, 1, {}), {}, {}
  for i, name in ipairs(classes) do place[name] = i end
  local p = face.probabilities
  table.sort(order, function(a, b)
    if p[a] ~= p[b] then return p[a] > p[b] end
    return place[a] < place[b]
  end)
  for k = 1, math.min(top, #order) do words[k] = ("%s %.1f %%"):format(order[k], 100 * p[order[k]]) end
  local text = table.concat(words, ", ")
  return face.class == "unknown" and ("unknown (%s)"):format(text) or text
end

local writers = {} -- what is printed: before all, for each photograph, behind all

writers.text = {
  photograph = function(path, seen, classes, values)
    if #seen == 0 then print(on_a_line(path) .. ": no face found") end
    for _, face in ipairs(seen) do
      local place = ""
      if face.score then place = (" %.0f,%.0f %.0fx%.0f:"):format(table.unpack(face.box)) end
      print(("%s:%s %s"):format(on_a_line(path), place, ranked(face, classes, values.top)))
    end
  end,
}

local function cell(value)
  if value == nil then return "" end
  if type(value) == "number" then return ("%.9g"):format(value) end
  return value:find('[",\r\n]') and '"' .. value:gsub('"', '""') .. '"' or value
end

local function print_row(values, count)
  local cells = {}
  for i = 1, count do cells[i] = cell(values[i]) end
  print(table.concat(cells, ","))
end

local FACE_COLUMNS = { "image", "face", "x", "y", "w", "h", "score", "class", "probability" }

writers.csv = {
  begin = function(classes)
    local names = table.move(FACE_COLUMNS, 1, #FACE_COLUMNS, 1, {})
    table.move(classes, 1, #classes, #names + 1, names)
    print_row(names, #names)
  end,
  photograph = function(path, seen, classes)
    for i, face in ipairs(seen) do
      local x, y, w, h = table.unpack(face.box)
      local row = { path, i, x, y, w, h, face.score, face.class, face.probability }
      for c, name in ipairs(classes) do row[#FACE_COLUMNS + c] = face.probabilities[name] end
      print_row(row, #FACE_COLUMNS + #classes)
    end
  end,
}

writers.json = {
  photograph = function(path, seen, _, _, all)
    local faces = {}
    for i, face in ipairs(seen) do
      faces[i] = { box = face.box, score = face.score, points = face.points, class = face.class,
        probability = face.probability, probabilities = face.probabilities }
    end
    all[#all + 1] = { image = path, width = seen.width, height = seen.height, faces = faces }
  end,
  finish = function(classes, values, all)
    print(json.encode { model = values.model, classes = classes, predictions = all })
  end,
}

---- Drawing ----

--- Where drawings go: a function from a photograph's path to that of its drawing; nil and what does not fit.
local function drawings(values, count)
  local out = values.draw
  local is_folder = files.look(out) == "directory" or out:sub(-1) == "/"
  if not is_folder then
    local ending = (out:match("%.(%w+)$") or ""):lower()
    if ending ~= "png" and ending ~= "jpg" and ending ~= "jpeg" then
      return nil, ("--draw %s: a name that ends in .png, .jpg or .jpeg expected, or a folder"):format(out)
    end
    if count > 1 then return nil, ("--draw %s: of %d photographs; name a folder, as %s/"):format(out, count, out) end
    return function() return out end
  end
  local made, message = files.mkdir(out)
  if not made then return nil, message end
  local used = {}
  return function(path)
    local name = path:match("([^/]*)$"):gsub("%.%w+$", "")
    used[name] = (used[name] or 0) + 1
    local again = used[name] > 1 and ("-%d"):format(used[name]) or ""
    return ("%s/%s%s.png"):format(out:gsub("/+$", ""), name, again)
  end
end

local function draw(path, seen, place_of)
  local image = require "feral.vision.image"
  local picture, message = image.load(path)
  if not picture then return nil, message end
  return image.save(place_of(path), image.draw(picture, seen))
end

---- All of it ----

--- The model, with the classes that were asked for.
local function open_model(values)
  local path, message = values.model, nil
  if not files.look(path) or not is_tensors(path) then path, message = require("feral.model.shipped").find(values.model) end
  if not path then return nil, message end
  local trained
  trained, message = require("feral.model").load(path)
  if not trained then return nil, message end
  local sees, why = trained:image_size()
  if not sees then return nil, ("%s: %s"):format(values.model, why) end
  if not values.emotions then return trained end
  local names = {}
  for name in values.emotions:gmatch "[^,%s]+" do names[#names + 1] = name end
  if #names < 2 then return nil, "--emotions: two classes or more expected, as happiness,neutral" end
  local kept, masked = errors.attempt(trained.keep, trained, names)
  if not kept then return nil, "--emotions: " .. tostring(masked):gsub("^model[.:][%w.]+: ", "") end
  return masked
end

--- How many faces a photograph has, printed and drawn; nil and what is wrong, and whether the others are to go on.
local function do_one(path, trained, values, writer, place_of, all)
  local _open <close> = scope.scope()
  local crop = values.crop or nil
  local seen, message = trained:look(path, { detector = values.detector, score = values.score, largest = values.largest,
    crop = crop })
  if not seen then return nil, message, true end
  writer.photograph(path, seen, trained.classes, values, all)
  if place_of then
    local drawn, problem = draw(path, seen, place_of)
    if not drawn then return nil, problem end
  end
  return #seen
end

local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

local function summary(counts)
  local text = ("%s: %s"):format(plural(counts.photographs, "photograph"), plural(counts.faces, "face"))
  if counts.without > 0 then text = text .. (", none in %d"):format(counts.without) end
  if counts.failed > 0 then text = text .. (", %d could not be read"):format(counts.failed) end
  return text
end

--- A detector of that name, or a message: the world's mistake here, since a user types it.
local function check_detector(name)
  local detect = require "feral.vision.detect"
  if not name or detect.find(name) then return true end
  return nil, ("--detector: there is no '%s'%s (known: %s)"):format(name, errors.hint(name, detect.names()),
    table.concat(detect.names(), ", "))
end

local function each(list, trained, values, place_of)
  local counts, all = { photographs = #list, faces = 0, without = 0, failed = 0 }, {}
  local writer = writers[values.json and "json" or values.csv and "csv" or "text"]
  if writer.begin then writer.begin(trained.classes) end
  for _, path in ipairs(list) do
    local faces, problem, others = do_one(path, trained, values, writer, place_of, all)
    if not faces and not others then return nil, problem end
    if not faces then
      counts.failed = counts.failed + 1
      all[#all + 1] = { image = path, error = problem }
      io.stderr:write("feral predict: ", problem, "\n")
    else
      counts.faces, counts.without = counts.faces + faces, counts.without + (faces == 0 and 1 or 0)
    end
  end
  if writer.finish then writer.finish(trained.classes, values, all) end
  return counts
end

function predict.run(values)
  local known, unknown = check_detector(values.detector)
  if not known then return nil, unknown end
  local trained, message = open_model(values)
  if not trained then return nil, message end
  local list, lost = photographs(values.photo)
  local place_of
  if values.draw then
    place_of, message = drawings(values, #list)
    if not place_of then return nil, message end
  end
  local counts
  counts, message = each(list, trained, values, place_of)
  if not counts then return nil, message end
  if #list > 1 then io.stderr:write(summary(counts), "\n") end
  if counts.failed > 0 then return nil, ("%d of %d images could not be read"):format(counts.failed, #list) end
  if lost > 0 then return nil, ("%s could not be followed"):format(plural(lost, "word")) end
  return true
end

return predict
