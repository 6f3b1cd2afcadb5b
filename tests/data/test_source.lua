--- Sources of pixels: each kind gives the pixels that it stands for, keeps what it reads alive, and says what is wrong.

local lu = require "luaunit"
local feral = require "feral"
local sources = require "feral.core.source"
local strings = require "feral.core.strings"
local draw = require "feral.core.face_draw"
local scope = require "feral.core.scope"
local npy = require "feral.formats.npy"
local files = require "feral.core.files"
local steps = require "feral.steps"
local check = require "check"
local pictures = require "pictures"
local temporary = require "temporary"
local data, image, face, tensor = feral.data, feral.image, feral.face, feral.tensor

local T = {}

local function random_images(...) return tensor.uniform({ ... }, 0, 255.99):to("u8") end

--- Images that outlive scopes, channels last.
local function kept(images) return scope.keep(images:as_image()) end

--- Compares frames one by one, and all samples read at once in another order, with expected(i, frame): the bytes C x H x W.
local function assert_source(source, count, frames, expected)
  lu.assertEquals({ #source, source:frames(), source:frames(count) }, { count, frames, frames })
  local channels, height, width = source:image_size()
  local order = tensor.randperm(count)
  local out = tensor.zeros({ count * frames, height, width, channels }, "u8"):permute(1, 4, 2, 3)
  lu.assertEquals(source:read(order, out), {})
  for k, i in ipairs(order:totable()) do
    for f = 1, frames do
      local one = assert(source:fetch(i, f))
      lu.assertEquals(one.shape, { channels, height, width })
      lu.assertTrue(one:tobytes() == expected(i, f))
      lu.assertTrue(out[(k - 1) * frames + f]:tobytes() == expected(i, f))
    end
  end
end

---- Memory ----

function T.test_memory_of_images_and_sequences()
  for _ = 1, 50 do
    local n, c, h, w = check.integer(1, 9), check.integer(1, 4), check.integer(1, 9), check.integer(1, 9)
    local images = kept(random_images(n, c, h, w))
    local source = sources.memory(images)
    lu.assertEquals({ source:image_size() }, { c, h, w })
    lu.assertEquals({ source:kind(), source:is_sequential() }, { "memory", false })
    assert_source(source, n, 1, function(i) return images[i]:tobytes() end)
    local t = check.integer(1, 4)
    local all = kept(random_images(n * t, c, h, w))
    source = sources.memory(scope.keep(all:reshape(n, t, c, h, w)))
    lu.assertTrue(source:is_sequential())
    assert_source(source, n, t, function(i, f) return all[(i - 1) * t + f]:tobytes() end)
  end
end

function T.test_memory_outlives_scope_and_collector()
  local source, bytes
  do
    local _open <close> = tensor.scope()
    local images = kept(random_images(3, 1, 30, 30))
    bytes = images[2]:tobytes()
    source = sources.memory(images)
  end
  collectgarbage()
  collectgarbage()
  for _ = 1, 20 do tensor.zeros({ 3, 1, 30, 30 }, "u8") end -- what was given back would be taken by these
  lu.assertTrue(source:fetch(2):tobytes() == bytes)
end

function T.test_memory_refuses_what_it_cannot_keep()
  local images = tensor.zeros({ 2, 3, 4, 4 }, "u8")
  lu.assertStrContains(check.message(sources.memory, images), "channels last, expected, got 2x3x4x4")
  lu.assertStrContains(check.message(sources.memory, images:as_image()), "source: the tensor must be kept")
  lu.assertStrContains(check.message(sources.memory, tensor.zeros({ 2, 3 }, "u8")), "got 2x3")
end

function T.test_numbers_are_checked()
  local source = sources.memory(kept(random_images(3, 1, 2, 2)))
  lu.assertStrContains(check.message(source.fetch, source, 4), "source: sample 4 is more than 3")
  lu.assertStrContains(check.message(source.fetch, source, 0), "source: sample must be 1 or more, got 0")
  lu.assertStrContains(check.message(source.fetch, source, 1, 2), "source: frame 2 is more than 1")
  local place = tensor.zeros({ 1, 1, 2, 2 }, "u8")
  lu.assertStrContains(check.message(source.read, source, tensor({ 4 }, "i32"), place), "source: sample 4 is not in 1 .. 3")
  lu.assertStrContains(check.message(source.read, source, tensor({ 1, 2 }, "i32"), place),
    "source: no place for 2 samples in 1x1x2x2")
  lu.assertStrContains(tostring(source), "source of 3 samples (memory)")
end

---- A cache file ----

--- Writes a source's samples in some order and opens the file.
local function cached(source, order, path)
  local c, h, w = source:image_size()
  local shape = { #order, h, w, c }
  if source:is_sequential() then table.insert(shape, 2, source:frames()) end
  local header = npy.header("u8", shape)
  lu.assertEquals({ source:write(path, header, order) }, { true, {} })
  return assert(sources.cache(path, #header, shape))
end

function T.test_a_cache_gives_what_was_written_and_numpy_could_read_it()
  local dir <close> = temporary.folder()
  for k = 1, 20 do
    local n, t, c, h, w = check.integer(1, 9), check.integer(1, 3), check.integer(1, 3), check.integer(1, 9), check.integer(1, 9)
    local all = kept(random_images(n * t, c, h, w))
    local source = sources.memory(scope.keep(t > 1 and all:reshape(n, t, c, h, w) or all))
    local order = tensor.randperm(n)
    local path = dir / (k .. ".npy")
    local from_file = cached(source, order, path)
    lu.assertEquals(from_file:kind(), "cache")
    assert_source(from_file, n, t, function(i, f) return all[(order[i]:item() - 1) * t + f]:tobytes() end)
    local array = assert(npy.load(path))
    lu.assertEquals(array.shape, t > 1 and { n, t, h, w, c } or { n, h, w, c })
  end
end

function T.test_a_cache_cut_short_is_an_error_not_a_crash()
  local dir <close> = temporary.folder()
  local path = dir / "a.npy"
  local images = kept(random_images(5, 1, 40, 40))
  local source = cached(sources.memory(images), tensor({ 1, 2, 3, 4, 5 }, "i32"), path)
  local bytes = assert(files.read(path))
  temporary.write(path, bytes:sub(1, 128 + 2 * 1600 + 7))
  lu.assertTrue(source:fetch(2):tobytes() == images[2]:tobytes())
  lu.assertEquals({ source:fetch(3) }, { nil, path .. ": the file has been cut short" })
  lu.assertEquals({ sources.cache(path, 128, { 5, 40, 40, 1 }) }, { nil, path .. ": the file has been cut short" })
  lu.assertEquals({ sources.cache(dir / "gone", 0, { 1, 1, 1, 1 }) }, { nil, dir / "gone: No such file or directory" })
end

function T.test_a_cache_that_cannot_be_written()
  local source = sources.memory(kept(random_images(5, 1, 4, 4)))
  local path = "/no/such/folder/a.npy"
  lu.assertEquals({ source:write(path, "x", tensor({ 1 }, "i32")) }, { nil, path .. ": No such file or directory" })
end

---- Files ----

--- Files of all kinds, sizes and orientations, as paths.
local function random_files(dir, count)
  local paths = {}
  for i = 1, count do
    local picture = random_images(1 + 2 * check.integer(0, 1), check.integer(1, 40), check.integer(1, 40))
    local bytes = image.encode(picture, i % 2 == 0 and "png" or "jpg")
    if i % 5 == 3 then bytes = pictures.with_orientation(image.encode(picture, "jpg"), 1 + i // 5 % 8, true) end
    if i % 17 == 4 then bytes = pictures.cmyk_jpeg end
    if i % 17 == 5 then bytes = pictures.progressive_jpeg end
    if i % 17 == 6 then bytes = ("P5\n%d 2\n255\n"):format(i) .. ("\7"):rep(2 * i) end
    paths[i] = temporary.write(dir / ("%03d"):format(i), bytes)
  end
  return paths
end

function T.test_files_are_decoded_as_alone()
  local dir <close> = temporary.folder()
  local paths = random_files(dir, 80)
  for _, channels in ipairs { 1, 3 } do
    local source = sources.files(strings.new(paths), { 20, 17, channels })
    lu.assertEquals(source:look(1, 80), {})
    lu.assertEquals({ source:kind(), source:image_size() }, { "files", channels, 20, 17 })
    assert_source(source, 80, 1, function(i)
      return assert(steps { channels == 1 and steps.gray() or steps.rgb(), steps.resize(20, 17) }:bytes(paths[i])):tobytes()
    end)
  end
end

function T.test_files_at_their_own_size()
  local dir <close> = temporary.folder()
  local paths = random_files(dir, 40)
  local source = sources.files(strings.new(paths), { 0, 0, 1 })
  lu.assertEquals(source:look(1, 40), {})
  lu.assertEquals({ source:image_size() }, { 1 })
  for i, path in ipairs(paths) do
    local alone = image.gray(assert(image.load(path)))
    local fetched = assert(source:fetch(i))
    lu.assertEquals(fetched.shape, alone.shape)
    lu.assertTrue(fetched:tobytes() == alone:tobytes(), path)
  end
  lu.assertStrContains(check.message(source.read, source, tensor({ 1 }, "i32"), tensor.zeros({ 1, 1, 2, 2 }, "u8")),
    "source: the images differ in size, so they make no tensor")
end

--- All that PNG knows: what a decoder takes for each must fit into the scratch.
function T.test_all_kinds_of_png_find_room()
  local dir <close> = temporary.folder()
  local kinds = { -- type, depth, channels
    { 0, 1, 1 }, { 0, 2, 1 }, { 0, 4, 1 }, { 0, 8, 1 }, { 0, 16, 1 }, { 2, 8, 3 }, { 2, 16, 3 }, { 3, 1, 1 }, { 3, 8, 1 },
    { 4, 8, 2 }, { 4, 16, 2 }, { 6, 8, 4 }, { 6, 16, 4 },
  }
  local paths, palette = {}, pictures.chunk("PLTE", ("\1\2\3"):rep(256))
  for _, kind in ipairs(kinds) do
    for _, side in ipairs { 1, 200 } do
      local rows = {}
      for y = 1, side do rows[y] = ("\1"):rep((side * kind[2] * kind[3] + 7) // 8) end
      local png = pictures.png(rows, { width = side, depth = kind[2], type = kind[1], before = kind[1] == 3 and palette or "" })
      paths[#paths + 1] = temporary.write(dir / (#paths .. ".png"), png)
    end
  end
  local source = sources.files(strings.new(paths), { 0, 0, 3 })
  for i, path in ipairs(paths) do
    lu.assertEquals(source:look(i, i), {})
    lu.assertTrue(assert(source:fetch(i)):tobytes() == assert(image.load(path, { channels = 3 })):tobytes(), path)
  end
end

function T.test_looking_finds_broken_headers_and_fetching_broken_bodies()
  local dir <close> = temporary.folder()
  local png = image.encode(random_images(3, 40, 40), "png")
  local paths = {
    temporary.write(dir / "good.png", png), temporary.write(dir / "cut.png", png:sub(1, #png // 2)),
    temporary.write(dir / "text.png", "no picture"), dir / "gone.png", dir.path,
  }
  local source = sources.files(strings.new(paths), { 8, 8, 1 })
  lu.assertEquals(source:look(1, 5), {
    [3] = paths[3] .. ": is not an image: JPEG, PNG, BMP, PGM and PPM are read",
    [4] = paths[4] .. ": No such file or directory", [5] = paths[5] .. ": is a directory",
  })
  local out = tensor.zeros({ 3, 1, 8, 8 }, "u8")
  lu.assertEquals(source:read(tensor({ 2, 1, 4 }, "i32"), out), { paths[2] .. ": the PNG is cut off",
    [3] = paths[4] .. ": No such file or directory" })
  lu.assertTrue(out[2]:tobytes() == source:fetch(1):tobytes())
end

function T.test_a_file_that_has_changed_says_so()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "a.png", image.encode(random_images(1, 20, 20), "png"))
  local other = temporary.write(dir / "b.png", image.encode(random_images(1, 9, 30), "png"))
  local source = sources.files(strings.new { path, other }, { 8, 8, 1 })
  lu.assertEquals(source:look(1, 2), {})
  assert(source:fetch(1))
  local message = path .. ": the file has changed since it was first looked at"
  temporary.write(path, image.encode(random_images(3, 900, 900), "png"))
  lu.assertEquals({ source:fetch(1) }, { nil, message })
  temporary.write(path, "P5\n4000 4000\n255\n") -- short, but it would take much to decode
  lu.assertEquals({ source:fetch(1) }, { nil, message })
  os.remove(path)
  lu.assertEquals({ source:fetch(1) }, { nil, path .. ": No such file or directory" })
  temporary.write(path, image.encode(random_images(1, 10, 10), "png"))
  assert(source:fetch(1))
end

--- Segments of 65,000 bytes before the header.
function T.test_a_long_header()
  local dir <close> = temporary.folder()
  local jpeg = image.encode(random_images(1, 12, 10), "jpg")
  local comment = "\xFF\xFE" .. string.pack(">I2", 60002) .. ("x"):rep(60000)
  local path = temporary.write(dir / "a.jpg", jpeg:sub(1, 2) .. comment:rep(3) .. jpeg:sub(3))
  local source = sources.files(strings.new { path }, { 0, 0, 1 })
  lu.assertEquals(source:look(1, 1), {})
  lu.assertEquals(source:fetch(1).shape, { 1, 12, 10 })
end

function T.test_sequences_of_files_may_differ_in_length()
  local dir <close> = temporary.folder()
  local paths = random_files(dir, 6)
  local source = sources.files(strings.new(paths), { 5, 5, 1 }, scope.keep(tensor({ 0, 1, 4, 6 }, "i32")))
  lu.assertEquals(source:look(1, 3), {})
  lu.assertEquals({ #source, source:frames(), source:frames(1), source:frames(2), source:frames(3) }, { 3, 3, 1, 3, 2 })
  lu.assertTrue(source:is_sequential())
  local small = steps { steps.gray(), steps.resize(5) }
  lu.assertTrue(source:fetch(3, 2):tobytes() == small:bytes(paths[6]):tobytes())
  lu.assertTrue(source:fetch(2, 3):tobytes() == small:bytes(paths[4]):tobytes())
  lu.assertStrContains(check.message(source.read, source, tensor({ 1 }, "i32"), tensor.zeros({ 3, 1, 5, 5 }, "u8")),
    "source: sample 1 has 1 frames, another 3, so they make no tensor")
  lu.assertStrContains(check.message(source.fetch, source, 1, 2), "source: frame 2 is more than 1")
  lu.assertStrContains(check.message(sources.files, strings.new(paths), { 5, 5, 1 }, scope.keep(tensor({ 0, 5 }, "i32"))),
    "source.files: the sequences do not take up all 6 files")
end

function T.test_a_fingerprint_changes_with_the_files()
  local dir <close> = temporary.folder()
  local paths = random_files(dir, 4)
  local function print_of(size) return sources.files(strings.new(paths), { size, size, 1 }):fingerprint() end
  local first = print_of(8)
  lu.assertEquals(print_of(8), first)
  lu.assertNotEquals(print_of(9), first)
  temporary.write(paths[2], "other")
  lu.assertNotEquals(print_of(8), first)
end

---- Drawn faces ----

function T.test_drawn_faces_are_those_drawn_at_once()
  local faces = {}
  for i = 1, 6 do faces[i] = { { AU12 = i / 6 }, { noise = 0.1 } } end
  local numbers = scope.keep(tensor(face.rows(faces)))
  local all = draw.draw(numbers, 24, 5, 100)
  local source = draw.source(numbers, 24, 5, 100)
  lu.assertEquals({ source:kind(), source:image_size() }, { "drawn", 1, 24, 24 })
  assert_source(source, 6, 1, function(i) return all[i]:tobytes() end)
  assert_source(draw.source(numbers, 24, 5, 100, 3), 2, 3, function(i, f) return all[(i - 1) * 3 + f]:tobytes() end)
  lu.assertStrContains(check.message(draw.source, numbers, 24, 5, 100, 4), "cannot be cut into sequences of 4")
  lu.assertStrContains(check.message(draw.source, tensor(face.rows(faces)), 24), "source: the tensor must be kept")
end

---- Several sources ----

function T.test_joined_sources()
  local a, b = kept(random_images(3, 1, 4, 5)), kept(random_images(1, 1, 4, 5))
  local joined = sources.join { sources.memory(a), sources.memory(b), sources.join { sources.memory(b), sources.memory(a) } }
  local of = { a[1], a[2], a[3], b[1], b[1], a[1], a[2], a[3] }
  collectgarbage()
  assert_source(joined, 8, 1, function(i) return of[i]:tobytes() end)
  local other = sources.join { sources.memory(a), sources.memory(kept(random_images(2, 1, 9, 9))) }
  lu.assertEquals({ other:image_size() }, { 1 })
  lu.assertEquals(other:fetch(4).shape, { 1, 9, 9 })
  lu.assertStrContains(check.message(sources.join, { sources.memory(a), sources.memory(kept(random_images(1, 3, 4, 5))) }),
    "source.join: source 2 has images of 3 channels, the first images of 1")
  lu.assertStrContains(check.message(sources.join, {}), "source.join: no sources given")
end

function T.test_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  local paths = random_files(dir, 6)
  local images = data.synthetic { count = 3, size = 8 }.images
  local order = tensor({ 3, 1, 2 }, "i32")
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    local source = sources.files(strings.new(paths), { 8, 8, 1 })
    source:look(1, 6)
    local joined = sources.join { source, sources.memory(images) }
    joined:fetch(7)
    joined:read(order, tensor.zeros({ 3, 1, 8, 8 }, "u8"))
    assert(joined:write(dir / "c.npy", npy.header("u8", { 3, 8, 8, 1 }), order))
    sources.cache(dir / "c.npy", 128, { 3, 8, 8, 1 })
  end)
end

return T
