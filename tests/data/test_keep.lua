--- Where the pixels of a data set are: in memory, in a cache, in their files. The set is the same.

local lu = require "luaunit"
local feral = require "feral"
local files = require "feral.core.files"
local check = require "check"
local temporary = require "temporary"
local data, image, tensor = feral.data, feral.image, feral.tensor

local T = {}

--- dir/<class>/<number>.png of random pixels and sizes; the fourth is cut off, the fifth no image.
local function fill(dir, count)
  for i = 1, count do
    local class = i % 3 == 0 and "happy" or "sad"
    assert(files.mkdir(dir / class))
    local bytes = image.encode(tensor.uniform({ 3, check.integer(2, 30), check.integer(2, 30) }, 0, 255.9):to("u8"), "png")
    if i == 4 then bytes = bytes:sub(1, #bytes - 20) end
    if i == 5 then bytes = "no image" end
    temporary.write(dir / ("%s/%02d.png"):format(class, i), bytes)
  end
end

local function collector()
  local messages = {}
  return messages, function(message) messages[#messages + 1] = message end
end

--- Reads a folder in some way. Returns the set and what was reported.
local function read(dir, keep, more)
  local messages, report = collector()
  local options = { size = { 9, 7 }, report = report, keep = keep }
  for name, value in pairs(more or {}) do options[name] = value end
  return assert(data.folder(dir.path, options)), messages
end

local function assert_same(set, other)
  lu.assertEquals(set.classes, other.classes)
  lu.assertEquals(set.labels:totable(), other.labels:totable())
  lu.assertEquals(set.paths:totable(), other.paths:totable())
  lu.assertEquals(set.images.shape, other.images.shape)
  lu.assertTrue(set.images:tobytes() == other.images:tobytes())
  lu.assertEquals(set.steps, other.steps)
end

function T.test_memory_and_cache_give_the_same_set()
  local dir <close> = temporary.folder()
  fill(dir, 20)
  for _, channels in ipairs { 1, 3 } do
    local memory, messages = read(dir, "memory", { channels = channels })
    lu.assertEquals({ #memory, #memory.skipped }, { 18, 2 })
    lu.assertEquals(memory.steps, { { name = channels == 1 and "gray" or "rgb" }, { name = "resize", height = 9, width = 7 } })
    for turn = 1, 2 do -- made, then used
      local cached, said = read(dir, "cache", { channels = channels })
      assert_same(cached, memory)
      lu.assertEquals(said, messages, turn)
      lu.assertEquals(cached.source:kind(), "cache")
    end
  end
end

function T.test_files_are_read_as_needed()
  local dir <close> = temporary.folder()
  fill(dir, 3)
  local memory, set = read(dir, "memory"), read(dir, "files")
  assert_same(set, memory)
  lu.assertStrContains(tostring(set), "3 images of 1 x 9 x 7 (read from files), 2 classes")
  for i = 1, 3 do lu.assertTrue(set:image(i):tobytes() == memory:image(i):tobytes()) end
end

--- A header says nothing of the pixels: what breaks behind it is found when it is wanted, and named.
function T.test_files_that_break_are_named_when_they_are_wanted()
  local dir <close> = temporary.folder()
  fill(dir, 20)
  local set, messages = read(dir, "files")
  lu.assertEquals({ #set, #messages }, { 19, 1 }) -- the text is found, the file that is cut off not yet
  lu.assertStrContains(messages[1], dir / "sad/05.png: is not an image")
  local at
  for i, path in ipairs(set.paths) do at = path == dir / "sad/04.png" and i or at end
  lu.assertEquals({ set:image(at) }, { nil, dir / "sad/04.png: the PNG is cut off" })
  lu.assertEquals({ set:gather() }, { nil, dir / "sad/04.png: the PNG is cut off" })
  lu.assertStrContains(check.message(function() return set.images end), "set.images: " .. dir / "sad/04.png: the PNG is cut off")
  temporary.write(dir / "c.npy", "an old file")
  lu.assertEquals({ set:cache(dir / "c.npy") }, { nil, dir / "sad/04.png: the PNG is cut off" })
  lu.assertEquals(files.read(dir / "c.npy"), "an old file")
  lu.assertEquals((files.list(dir.path)), { "c.npy", "happy", "sad" })
  os.remove(set.paths[1])
  lu.assertEquals({ set:image(1) }, { nil, set.paths[1] .. ": No such file or directory" })
end

function T.test_strict_ends_at_the_first_fault()
  local dir <close> = temporary.folder()
  fill(dir, 20)
  for _, keep in ipairs { "memory", "cache" } do
    lu.assertEquals({ data.folder(dir.path, { strict = true, keep = keep }) }, { nil, keep == "memory" and
      dir / "sad/04.png: the PNG is cut off" or dir / "sad/05.png: is not an image: JPEG, PNG, BMP, PGM and PPM are read" })
  end
end

function T.test_nothing_but_broken_images()
  local dir <close> = temporary.folder()
  assert(files.mkdir(dir / "sad"))
  temporary.write(dir / "sad/a.png", "x")
  for _, keep in ipairs { "memory", "cache", "files" } do
    local _, report = collector()
    local set, message = data.folder(dir.path, { report = report, keep = keep })
    lu.assertNil(set)
    lu.assertStrContains(message, dir.path .. ": none of its images can be read (" .. dir / "sad/a.png: is not an image")
  end
end

--- The inner number of a file tells whether it was written again.
local function written(path)
  local child = assert(io.popen(("ls -i '%s'"):format(path)))
  local text = child:read("a")
  child:close()
  return text
end

function T.test_a_cache_is_made_again_when_an_image_changes()
  local dir <close> = temporary.folder()
  fill(dir, 3)
  local path = dir / "sub/pixels.npy"
  read(dir, "cache", { cache = path })
  local first = written(path)
  read(dir, "cache", { cache = path })
  lu.assertEquals(written(path), first)
  temporary.write(dir / "sad/01.png", image.encode(tensor.full({ 1, 5, 5 }, 7, "u8"), "png"))
  local set = read(dir, "cache", { cache = path })
  lu.assertNotEquals(written(path), first)
  assert_same(set, read(dir, "memory"))
  os.remove(path)
  assert_same(read(dir, "cache", { cache = path }), set)
  temporary.write(path, "broken")
  assert_same(read(dir, "cache", { cache = path }), set)
  temporary.write(path .. ".json", "broken")
  assert_same(read(dir, "cache", { cache = path }), set)
end

function T.test_a_cache_that_cannot_be_written_is_an_error()
  local dir <close> = temporary.folder()
  fill(dir, 3)
  temporary.write(dir / "plain", "")
  local set, message = data.folder(dir.path, { keep = "cache", cache = dir / "plain/c.npy" })
  lu.assertNil(set)
  lu.assertStrContains(message, dir / "plain")
end

function T.test_set_cache_writes_the_rows()
  local dir <close> = temporary.folder()
  local set = data.synthetic { count = 10, size = 12, sequences = 3, keep = "drawn" }
  set:add_column("name", { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j" })
  local some = set:subset { 7, 2, 9 }
  local cached = assert(some:cache(dir / "c.npy"))
  lu.assertEquals({ #cached, #cached.source }, { 3, 3 })
  lu.assertTrue(cached.images:tobytes() == some.images:tobytes())
  lu.assertEquals(cached.images.shape, { 3, 3, 1, 12, 12 })
  lu.assertEquals(cached:column("name"):totable(), { "g", "b", "i" })
  lu.assertEquals(cached.labels:totable(), some.labels:totable())
  lu.assertEquals(feral.tensor.load(dir / "c.npy").shape, { 3, 3, 12, 12, 1 })
  lu.assertStrContains(tostring(cached), "3 sequences of 3 images of 1 x 12 x 12 (0.0 MB in a file), 7 classes")
  lu.assertEquals({ some:cache(dir / "c.npy/x.npy") }, { nil, dir / "c.npy: Not a directory" })
end

function T.test_sizes_of_their_own()
  local dir <close> = temporary.folder()
  fill(dir, 3)
  local set = read(dir, "files", { size = false, channels = 3 })
  for i, path in ipairs(set.paths) do lu.assertTrue(set:image(i):tobytes() == image.load(path):tobytes()) end
  lu.assertEquals(set.steps, { { name = "rgb" } })
  lu.assertStrContains(tostring(set), "3 images of different sizes (read from files)")
  lu.assertStrContains(check.message(read, dir, "memory", { size = false }), 'size = false) need keep = "files"')
  lu.assertStrContains(check.message(read, dir, "disk"), 'data.folder: keep must be "memory", "files" or "cache", got disk')
end

---- Sequences and tables ----

--- dir/<class>/<sequence>/<frame>, sequence s with s frames.
local function fill_sequences(dir, count)
  for s = 1, count do
    for f = 1, s do
      local folder = ("%s/s%d"):format(s % 2 == 0 and "sad" or "happy", s)
      assert(files.mkdir(dir / folder))
      temporary.write(dir / ("%s/%d.pgm"):format(folder, f), "P5\n1 1\n255\n" .. string.char(10 * s + f))
    end
  end
end

function T.test_sequences_of_their_own_lengths()
  local dir <close> = temporary.folder()
  fill_sequences(dir, 4)
  local set = assert(data.sequences(dir.path, { size = 1, frames = false, keep = "files" }))
  lu.assertEquals(set:column("length"):totable(), { 1, 3, 2, 4 })
  lu.assertEquals(set.paths:totable(), { dir / "happy/s1", dir / "happy/s3", dir / "sad/s2", dir / "sad/s4" })
  for i, length in ipairs(set:column("length"):totable()) do
    lu.assertEquals(set.source:frames(set.rows[i]:item()), length)
    for f = 1, length do lu.assertEquals(set:image(i, f):reshape(-1):totable(), { 10 * length + f }) end
  end
  lu.assertStrContains(check.message(set.gather, set), "so they make no tensor")
  lu.assertEquals(set:subset({ 4 }):column("length"):totable(), { 4 })
  lu.assertStrContains(check.message(data.sequences, dir.path, { frames = false }),
    'data.sequences: sequences of their own lengths (frames = false) need keep = "files"')
end

function T.test_sequences_in_all_ways()
  local dir <close> = temporary.folder()
  fill_sequences(dir, 5)
  local sets = {}
  for k, keep in ipairs { "memory", "files", "cache" } do
    sets[k] = assert(data.sequences(dir.path, { size = 2, frames = 3, keep = keep }))
    lu.assertEquals(sets[k].images.shape, { 5, 3, 1, 2, 2 })
    lu.assertTrue(sets[k].images:tobytes() == sets[1].images:tobytes())
    lu.assertEquals(sets[k]:column("length"):totable(), { 3, 3, 3, 3, 3 })
  end
end

function T.test_tables_in_all_ways()
  local dir <close> = temporary.folder()
  fill(dir, 20)
  local lines = { "path,label,who" }
  for i = 1, 20 do lines[#lines + 1] = ("%s/%02d.png,x,s%d"):format(i % 3 == 0 and "happy" or "sad", i, i % 4) end
  local path = temporary.write(dir / "list.csv", table.concat(lines, "\n"))
  local expected
  for _, keep in ipairs { "memory", "cache", "cache" } do
    local messages, report = collector()
    local set = assert(data.csv(path, { size = 5, keep = keep, report = report, subject = "who" }))
    expected = expected or { set.images:tobytes(), set:column("subject"):totable(), messages }
    lu.assertEquals({ set.images:tobytes(), set:column("subject"):totable(), messages }, expected)
    lu.assertStrContains(messages[1], path .. ":5: " .. dir / "sad/04.png: the PNG is cut off")
  end
end

function T.test_readers_survive_lack_of_memory()
  local dir <close> = temporary.folder()
  fill(dir, 6)
  local _, report = collector()
  for _, keep in ipairs { "files", "cache" } do
    check.survives_lack_of_memory(function()
      local _open <close> = tensor.scope()
      data.folder(dir.path, { size = 5, report = report, keep = keep })
    end)
  end
end

return T
