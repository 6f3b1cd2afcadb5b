local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local pictures = require "pictures"
local temporary = require "temporary"
local files = require "feral.core.files"
local csv = require "feral.formats.csv"
local steps = require "feral.steps"
local data, image, face, tensor = feral.data, feral.image, feral.face, feral.tensor

local T = {}

--- A gray picture of height x width pixels of one value, as the bytes of a PGM file.
local function pgm(value, height, width)
  height, width = height or 2, width or 2
  return ("P5\n%d %d\n255\n%s"):format(width, height, string.char(value):rep(height * width))
end

--- Writes files under a folder: path -> bytes.
local function fill(dir, contents)
  for path, bytes in pairs(contents) do
    local folder = path:match("^(.*)/[^/]*$")
    if folder then assert(files.mkdir(dir / folder)) end
    temporary.write(dir / path, bytes)
  end
end

local function collector()
  local messages = {}
  return messages, function(message) messages[#messages + 1] = message end
end

--- The single pixels of a set of 1 x 1 images.
local function values(set) return set.images:reshape(-1):totable() end

---- Folders ----

function T.test_folder_maps_names_and_orders_classes()
  local dir <close> = temporary.folder()
  fill(dir, { ["sad/b.pgm"] = pgm(20), ["sad/a.pgm"] = pgm(10), ["Angry/x.pgm"] = pgm(30), ["bored/y.PGM"] = pgm(40),
    ["HA/z.pgm"] = pgm(50) })
  local set = assert(data.folder(dir.path, { size = 1 }))
  lu.assertEquals(set.classes, { "anger", "happiness", "sadness", "bored" })
  lu.assertEquals(values(set), { 30, 50, 40, 10, 20 })
  lu.assertEquals(set.labels:totable(), { 1, 2, 4, 3, 3 })
  lu.assertEquals(set.paths[1], dir / "Angry/x.pgm")
end

function T.test_folder_takes_a_map()
  local dir <close> = temporary.folder()
  fill(dir, { ["1/a.pgm"] = pgm(1), ["2/b.pgm"] = pgm(2), ["happy/c.pgm"] = pgm(3) })
  local set = assert(data.folder(dir.path, { size = 1, map = { ["1"] = "surprise", ["2"] = "fear" } }))
  lu.assertEquals(set.classes, { "fear", "surprise", "happy" })
end

function T.test_two_folders_of_one_class_are_joined()
  local dir <close> = temporary.folder()
  fill(dir, { ["happy/a.pgm"] = pgm(1), ["joy/b.pgm"] = pgm(2), ["fear/c.pgm"] = pgm(3) })
  local set = assert(data.folder(dir.path, { size = 1 }))
  lu.assertEquals(set.classes, { "fear", "happiness" })
  lu.assertEquals(set:counts(), { 1, 2 })
end

function T.test_folder_looks_deeper_and_skips_other_files()
  local dir <close> = temporary.folder()
  fill(dir, { ["fear/one/a.pgm"] = pgm(1), ["fear/notes.txt"] = "no image", ["fear/.hidden.pgm"] = "x", ["readme"] = "x" })
  local set = assert(data.folder(dir.path, { size = 1 }))
  lu.assertEquals(#set, 1)
  lu.assertEquals(#set.skipped, 0)
end

function T.test_folder_resizes_and_converts()
  local dir <close> = temporary.folder()
  assert(files.mkdir(dir / "fear"))
  assert(image.save(dir / "fear/colour.png", tensor.full({ 3, 31, 17 }, 90, "u8")))
  local gray = assert(data.folder(dir.path, { size = { 12, 10 } }))
  lu.assertEquals(gray.images.shape, { 1, 1, 12, 10 })
  lu.assertEquals(gray.images:to(tensor.zeros(1).dtype):mean():item(), 90)
  local colour = assert(data.folder(dir.path, { size = 8, channels = 3 }))
  lu.assertEquals(colour.images.shape, { 1, 3, 8, 8 })
  lu.assertEquals({ colour:image_size() }, { 3, 8, 8 })
end

function T.test_folder_without_images()
  local dir <close> = temporary.folder()
  local set, message = data.folder(dir.path)
  lu.assertNil(set)
  lu.assertEquals(message, ("%s: no images (%s/<class>/<image> expected)"):format(dir.path, dir.path))
  fill(dir, { ["a.pgm"] = pgm(1) })
  lu.assertStrContains(select(2, data.folder(dir.path)), "images, but no class folders")
  lu.assertStrContains(select(2, data.folder(dir / "gone")), dir / "gone: No such file")
  lu.assertStrContains(select(2, data.folder(dir / "a.pgm")), dir / "a.pgm: ")
end

function T.test_folder_of_splits_says_so()
  local dir <close> = temporary.folder()
  fill(dir, { ["train/fear/a.pgm"] = pgm(1), ["test/fear/a.pgm"] = pgm(1) })
  lu.assertEquals(select(2, data.folder(dir.path)), dir.path .. ": holds test and train; name one of them")
end

function T.test_an_empty_class_folder_is_reported_and_stays_a_class()
  local dir <close> = temporary.folder()
  fill(dir, { ["happy/a.pgm"] = pgm(1) })
  assert(files.mkdir(dir / "sad"))
  local messages, report = collector()
  local set = assert(data.folder(dir.path, { size = 1, report = report }))
  lu.assertEquals(messages, { dir / "sad: no images in this class folder" })
  lu.assertEquals(set.classes, { "happiness", "sadness" })
  lu.assertEquals(set:counts(), { 1, 0 })
  lu.assertEquals({ data.folder(dir.path, { strict = true }) }, { nil, dir / "sad: no images in this class folder" })
end

--- A PNG and a JPEG of a face, cut at every 64th byte, and other things that are no images.
local function broken_files()
  local picture, broken = face.render({ AU12 = 1 }, {}, 64), {}
  for _, kind in ipairs { "png", "jpg" } do
    local bytes = image.encode(picture, kind)
    for cut = 0, #bytes - 1, 64 do broken[("happy/cut%05d.%s"):format(cut, kind)] = bytes:sub(1, cut) end
  end
  broken["happy/text.jpg"] = "this is no picture"
  broken["happy/huge.pgm"] = "P5\n20000 20000\n255\n"
  return broken, picture
end

function T.test_broken_images_are_reported_once_counted_and_skipped()
  local dir <close> = temporary.folder()
  local broken, picture = broken_files()
  fill(dir, broken)
  os.execute(("ln -s nowhere '%s'"):format(dir / "happy/gone.png"))
  broken["happy/gone.png"] = ""
  assert(image.save(dir / "happy/good.png", picture))
  fill(dir, { ["sad/dot.pgm"] = pgm(7, 1, 1) })
  local messages, report = collector()
  local set = assert(data.folder(dir.path, { size = 64, report = report }))
  local count = 0
  for path in pairs(broken) do
    count = count + 1
    local mentions = 0
    for _, message in ipairs(messages) do
      if message:find(path, 1, true) then mentions = mentions + 1 end
    end
    lu.assertEquals(mentions, 1, path)
  end
  lu.assertEquals(#messages, count)
  lu.assertEquals(#set.skipped, count)
  lu.assertStrContains(tostring(set), ("%d could not be read"):format(count))
  lu.assertEquals(#set, 2)
  lu.assertEquals(set.images[1]:tobytes(), picture:tobytes())
  lu.assertEquals(set.images[2]:to(tensor.zeros(1).dtype):std():item(), 0)
  lu.assertStrContains(select(2, data.folder(dir.path, { strict = true })), dir / "happy/")
end

--- Files of all kinds and sizes, more than are read together, broken ones between: each picture is in its place, and is
--- what it is when it is read alone.
function T.test_many_files_read_together_are_those_read_one_by_one()
  local dir <close> = temporary.folder()
  local files_of, kinds = {}, { "png", "jpg" }
  for i = 1, 300 do
    local name = ("fear/%03d"):format(i)
    local picture = tensor.uniform({ 1 + 2 * check.integer(0, 1), check.integer(1, 40), check.integer(1, 40) }, 0, 255.9)
    local bytes = image.encode(picture:to("u8"), kinds[1 + i % 2])
    if i % 9 == 4 then bytes = bytes:sub(1, #bytes // 2) end
    if i % 10 == 3 then bytes = pictures.with_orientation(image.encode(picture:to("u8"), "jpg"), 1 + i // 10 % 8, true) end
    if i == 100 then bytes = pictures.cmyk_jpeg end
    files_of[name .. ".jpg"] = bytes
  end
  fill(dir, files_of)
  for _, channels in ipairs { 1, 3 } do
    local messages, report = collector()
    local set = assert(data.folder(dir.path, { size = { 20, 17 }, channels = channels, report = report }))
    lu.assertEquals(#messages, #set.skipped)
    lu.assertEquals(#set + #set.skipped, 300)
    lu.assertTrue(#set.skipped > 20)
    for i = 2, #set.skipped do lu.assertTrue(set.skipped[i - 1] < set.skipped[i]) end
    local list = steps { channels == 1 and steps.gray() or steps.rgb(), steps.resize(20, 17) }
    for i, path in ipairs(set.paths) do
      local alone = assert(list:bytes(path))
      lu.assertTrue(set.images[i]:tobytes() == alone:tobytes(), path)
    end
    local _, message = list:bytes(set.skipped[1]:match("^(.-): "))
    lu.assertEquals(message, set.skipped[1])
  end
end

function T.test_reading_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  local picture = tensor.uniform({ 3, 9, 7 }, 0, 255.9):to("u8")
  fill(dir, { ["fear/a.png"] = image.encode(picture, "png"), ["fear/b.jpg"] = image.encode(picture, "jpg"),
    ["fear/c.png"] = image.encode(picture, "png"), ["fear/d.png"] = "broken" })
  local _, report = collector()
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    data.folder(dir.path, { size = 5, report = report })
  end)
end

function T.test_an_unreadable_file_is_reported()
  local dir <close> = temporary.folder()
  fill(dir, { ["fear/a.pgm"] = pgm(1), ["fear/b.pgm"] = pgm(2) })
  os.execute(("chmod 000 '%s'"):format(dir / "fear/a.pgm"))
  if io.open(dir / "fear/a.pgm") then
    print("\nskipped: this user may read files of mode 000")
    return
  end
  local messages, report = collector()
  local set = assert(data.folder(dir.path, { size = 1, report = report }))
  lu.assertEquals(#set, 1)
  lu.assertStrContains(messages[1], "Permission denied (skipped)")
end

function T.test_folder_of_nothing_but_broken_images()
  local dir <close> = temporary.folder()
  fill(dir, { ["fear/a.png"] = "", ["joy/b.png"] = "x" })
  local _, report = collector()
  local set, message = data.folder(dir.path, { report = report })
  lu.assertNil(set)
  lu.assertStrContains(message, dir.path .. ": none of its images can be read (" .. dir.path .. "/fear/a.png: ")
end

function T.test_options_of_readers_are_checked()
  lu.assertStrContains(check.message(data.folder, ".", { sise = 3 }), "data.folder: unknown option 'sise', did you mean 'size'?")
  lu.assertStrContains(check.message(data.folder, ".", { size = 0 }), "data.folder: size must be a number or {height, width}")
  lu.assertStrContains(check.message(data.csv, "x", { channels = 2 }), "data.csv: channels must be 1 (gray) or 3")
  lu.assertStrContains(check.message(data.sequences, "x", { frames = 0 }), "data.sequences: frames must be a whole number from 1")
end

---- FER2013 as CSV ----

local function row(label, value, usage, count)
  return ("%s,%s,%s"):format(label, (tostring(value) .. " "):rep((count or 2304) - 1) .. value, usage)
end

local function fer_csv(dir, lines, ending)
  return temporary.write(dir / "fer2013.csv", table.concat(lines, ending or "\n") .. (ending or "\n"))
end

function T.test_fer2013_csv()
  local dir <close> = temporary.folder()
  local path = fer_csv(dir, { "emotion,pixels,Usage", row(0, 10, "Training"), row(6, 255, "PublicTest"),
    row(3, 0, "PrivateTest"), row(1, 7, "Training") })
  for _, from in ipairs { path, dir.path } do
    local sets = assert(data.fer2013(from))
    lu.assertEquals(sets.train.images.shape, { 2, 1, 48, 48 })
    lu.assertEquals(sets.train.labels:totable(), { 1, 2 })
    lu.assertEquals(sets.train.classes, { "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral" })
    lu.assertEquals(sets.train.images[2]:tobytes(), ("\7"):rep(2304))
    lu.assertEquals(sets.test.labels:totable(), { 7 })
    lu.assertEquals(sets.private.images[1]:tobytes(), ("\0"):rep(2304))
  end
end

function T.test_fer2013_csv_in_another_order_with_quotes_and_windows_lines()
  local dir <close> = temporary.folder()
  local pixels = ("3 "):rep(2304)
  local path = fer_csv(dir, { "\xEF\xBB\xBFemotion, Usage, pixels", ('4, Training, "%s"'):format(pixels), "" }, "\r\n")
  local sets = assert(data.fer2013(path))
  lu.assertEquals(sets.train.labels:totable(), { 5 })
  lu.assertEquals(sets.train.images[1]:tobytes(), ("\3"):rep(2304))
  lu.assertNil(sets.test)
end

function T.test_fer2013_csv_faults_name_file_and_line()
  local dir <close> = temporary.folder()
  local good, head = row(0, 1, "Training"), "emotion,pixels,Usage"
  local faults = {
    { row(0, 1, "Training", 2303), ":3: 2303 pixels, 2304 expected" },
    { row(0, 1, "Training", 2305), ":3: more than the 2304 pixels expected" },
    { row(0, 256, "Training"), ":3: pixel 1 is above 255" },
    { row(0, 99999999999, "Training"), ":3: pixel 1 is above 255" },
    { row(0, "x", "Training"), ":3: pixel 1 is no whole number from 0 to 255" },
    { row(0, "-1", "Training"), ":3: pixel 1 is no whole number from 0 to 255" },
    { row(0, "1.5", "Training"), ":3: pixel 1 is no whole number from 0 to 255" },
    { row(7, 1, "Training"), ":3: label '7' is none of 0 to 6" },
    { row(-1, 1, "Training"), ":3: label '-1' is none of 0 to 6" },
    { row("", 1, "Training"), ":3: label '' is none of 0 to 6" },
    { row(0, 1, "Testing"), ":3: usage 'Testing' is none of Training, PublicTest, PrivateTest" },
    { "0,1 2 3", ":3: a cell is missing: emotion, pixels and Usage expected" },
  }
  for _, fault in ipairs(faults) do
    local path = fer_csv(dir, { head, good, fault[1], good })
    lu.assertEquals({ data.fer2013(path) }, { nil, path .. fault[2] })
  end
end

function T.test_fer2013_csv_without_rows_or_columns()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "fer2013.csv", "")
  lu.assertEquals({ data.fer2013(path) }, { nil, path .. ": the file is empty" })
  fer_csv(dir, { "emotion,pixels,Usage" })
  lu.assertEquals({ data.fer2013(path) }, { nil, path .. ": no rows below the head" })
  fer_csv(dir, { "label,pixels,Usage" })
  lu.assertEquals({ data.fer2013(path) },
    { nil, path .. ":1: no column 'emotion' (the columns are label, pixels, Usage)" })
  lu.assertStrContains(select(2, data.fer2013(dir / "gone")), dir / "gone: No such file")
end

function T.test_fer2013_folders()
  local dir <close> = temporary.folder()
  local set, message = data.fer2013(dir.path)
  lu.assertEquals({ set, message }, { nil, dir.path .. ": neither train/ nor fer2013.csv is in it" })
  fill(dir, { ["train/happy/a.pgm"] = pgm(1, 48, 48), ["train/sad/b.pgm"] = pgm(2, 48, 48), ["test/sad/c.pgm"] = pgm(3, 48, 48),
    ["test/happy/d.pgm"] = pgm(3, 48, 48) })
  local sets = assert(data.fer2013(dir.path))
  lu.assertEquals({ #sets.train, #sets.test, sets.private }, { 2, 2, nil })
end

--- The published images, where they are.
function T.test_the_real_fer2013()
  local path = os.getenv("FERAL_FER2013") or "../shared/data/fer2013"
  if not files.look(path .. "/train") then
    print("\nskipped: FER2013 is not at " .. path .. " (FERAL_FER2013 says where)")
    return
  end
  collectgarbage()
  collectgarbage()
  local before = tensor.memory().live
  local sets = assert(data.fer2013(path))
  collectgarbage()
  collectgarbage()
  lu.assertTrue(tensor.memory().live - before < 120e6, "FER2013 takes less than 120 MB")
  lu.assertEquals({ #sets.train, #sets.test }, { 28709, 3589 })
  lu.assertEquals(sets.train:counts(), { 3995, 436, 4097, 7215, 4830, 3171, 4965 })
  lu.assertEquals(sets.test.classes, sets.train.classes)
end

---- CSV of paths ----

function T.test_cells_of_a_row()
  local rows = {
    { "a,b", { "a", "b" } }, { " a b , c ", { "a b", "c" } }, { "a,,", { "a", "", "" } }, { "", { "" } },
    { '"a,b",c', { "a,b", "c" } }, { '"say ""no""", "" ', { 'say "no"', "" } }, { 'a"b,c', { 'a"b', "c" } },
  }
  for _, case in ipairs(rows) do lu.assertEquals(csv.split(case[1]), case[2]) end
  lu.assertEquals({ csv.split('"open,b') }, { nil, "a quote is not closed" })
  lu.assertEquals({ csv.split('"a"b,c') }, { nil, "text follows a closing quote" })
end

function T.test_csv_of_paths_and_labels()
  local dir <close> = temporary.folder()
  fill(dir, { ["images/a.pgm"] = pgm(1), ["images/b, c.pgm"] = pgm(2),
    ["list.csv"] = 'who,Path,label\nx,images/a.pgm,happy\ny,"images/b, c.pgm",Fear\n' })
  local set = assert(data.csv(dir / "list.csv", { size = 1 }))
  lu.assertEquals(set.classes, { "fear", "happiness" })
  lu.assertEquals(values(set), { 1, 2 })
  lu.assertEquals(set.labels:totable(), { 2, 1 })
  local by_person = assert(data.csv(dir / "list.csv", { size = 1, label = "who", root = dir.path }))
  lu.assertEquals(by_person.classes, { "x", "y" })
end

function T.test_csv_faults_name_file_and_line()
  local dir <close> = temporary.folder()
  fill(dir, { ["a.pgm"] = pgm(1), ["bad.pgm"] = "no picture",
    ["list.csv"] = 'path,label\na.pgm,x\nbad.pgm,x\ngone.pgm,y\na.pgm\n,x\na.pgm,\n"a.pgm,x\n' })
  local messages, report = collector()
  local path = dir / "list.csv"
  local set = assert(data.csv(path, { size = 1, report = report }))
  lu.assertEquals({ #set, #set.skipped, #messages }, { 1, 6, 6 })
  lu.assertEquals(set.classes, { "x", "y" })
  local expected = { ":5: 1 cells, at least 2 expected", ":6: the path is empty", ":7: the label is empty",
    ":8: a quote is not closed", ":3: " .. dir / "bad.pgm: ", ":4: " .. dir / "gone.pgm: No such file" }
  for i, text in ipairs(expected) do lu.assertStrContains(messages[i], path .. text) end
  lu.assertEquals({ data.csv(path, { strict = true }) }, { nil, path .. ":5: 1 cells, at least 2 expected" })
  fill(dir, { ["list.csv"] = "path,label\na.pgm,x\nbad.pgm,x\n" })
  lu.assertStrContains(select(2, data.csv(path, { strict = true })), path .. ":3: " .. dir / "bad.pgm: ")
end

function T.test_csv_without_rows_or_columns()
  local dir <close> = temporary.folder()
  fill(dir, { ["list.csv"] = "" })
  local path = dir / "list.csv"
  lu.assertEquals({ data.csv(path) }, { nil, path .. ": the file is empty" })
  fill(dir, { ["list.csv"] = "path,label\n\n" })
  lu.assertEquals({ data.csv(path) }, { nil, path .. ": no images" })
  fill(dir, { ["list.csv"] = "file,label\n" })
  lu.assertEquals({ data.csv(path) }, { nil, path .. ":1: no column 'path' (the columns are file, label)" })
  lu.assertStrContains(select(2, data.csv(dir / "gone.csv")), "gone.csv: No such file")
end

---- Sequences ----

function T.test_sequences_in_the_order_of_their_numbers()
  local dir <close> = temporary.folder()
  fill(dir, { ["happy/s1/f1.pgm"] = pgm(1), ["happy/s1/f2.pgm"] = pgm(2), ["happy/s1/f10.pgm"] = pgm(10),
    ["happy/s1/f9.pgm"] = pgm(9), ["happy/s1/f100.pgm"] = pgm(100), ["sad/s2/only.pgm"] = pgm(50) })
  local set = assert(data.sequences(dir.path, { size = 1, frames = 3 }))
  lu.assertEquals(set.images.shape, { 2, 3, 1, 1, 1 })
  lu.assertEquals(values(set), { 1, 9, 100, 50, 50, 50 })
  lu.assertEquals(set.classes, { "happiness", "sadness" })
  lu.assertEquals(set.paths, { dir / "happy/s1", dir / "sad/s2" })
  lu.assertEquals(values(assert(data.sequences(dir.path, { size = 1, frames = 1 }))), { 1, 50 })
  lu.assertStrContains(tostring(set), "2 sequences of 3 images of 1 x 1 x 1")
end

function T.test_sequences_in_colour_keep_their_pixels()
  local dir <close> = temporary.folder()
  assert(files.mkdir(dir / "fear/s"))
  local frames = {}
  for t = 1, 2 do
    frames[t] = (tensor.rand(3, 4, 5) * 255):to("u8")
    assert(image.save(dir / ("fear/s/%d.png"):format(t), frames[t]))
  end
  local set = assert(data.sequences(dir.path, { size = { 4, 5 }, channels = 3, frames = 2 }))
  for t = 1, 2 do lu.assertEquals(set.images[1][t]:tobytes(), frames[t]:tobytes()) end
end

function T.test_sequences_that_are_wrong()
  local dir <close> = temporary.folder()
  fill(dir, { ["happy/good/1.pgm"] = pgm(1), ["happy/bad/1.pgm"] = "x", ["happy/empty/readme.txt"] = "x",
    ["sad/readme.txt"] = "x" })
  local messages, report = collector()
  local set = assert(data.sequences(dir.path, { size = 1, frames = 2, report = report }))
  lu.assertEquals(#set, 1)
  lu.assertEquals(messages[1], dir / "happy/empty: no images in this sequence")
  lu.assertEquals(messages[2], dir / "sad: no sequences in this class folder")
  lu.assertStrContains(messages[3], dir / "happy/bad/1.pgm: ")
  lu.assertEquals(#messages, 3)
  lu.assertEquals(select(2, data.sequences(dir.path, { strict = true })), dir / "happy/empty: no images in this sequence")
  lu.assertStrContains(select(2, data.sequences(dir / "sad")), "no class folders")
  lu.assertStrContains(select(2, data.sequences(dir / "gone")), dir / "gone: No such file")
end

return T
