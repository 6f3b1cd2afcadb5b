local lu = require "luaunit"
require "feral.tensor"
local image = require "feral.vision.image"
local core, transform = require "feral.core.image", require "feral.core.transform"
local create, view, files = require "feral.core.create", require "feral.core.view", require "feral.core.files"
local check, temporary = require "check", require "temporary"
local pictures, pixels = require "pictures", require "pixels"
local ramp = pixels.ramp

local T = {}

---- Files: what is written comes back ----

function T.test_png_gives_back_the_same_pixels()
  for i = 1, check.SHAPES do
    local channels, height, width = i % 2 == 0 and 3 or 1, check.integer(1, 40), check.integer(1, 40)
    local t = i % 3 == 0 and ramp(channels, height, width) or pixels.random("u8", channels, height, width)
    local back = assert(image.decode(image.encode(t, "png")))
    lu.assertEquals(back.shape, t.shape)
    lu.assertTrue(create.tobytes(back) == create.tobytes(t))
  end
end

function T.test_png_of_many_blocks_and_far_matches()
  local noise = pixels.random("u8", 3, 60, 70)
  local tiled = view.contiguous(view.reshape(view.expand(view.reshape(noise, 3, 60, 1, 70), 3, 60, 4, 70), 3, 240, 70))
  local flat = create.full({ 1, 700, 300 }, 9, "u8")
  for _, t in ipairs { tiled, flat } do
    local bytes = image.encode(t, "png")
    lu.assertTrue(create.tobytes(assert(image.decode(bytes))) == create.tobytes(t))
    lu.assertTrue(#bytes < t:numel() / 2)
  end
  lu.assertTrue(#image.encode(flat, "png") < 3000)
end

function T.test_jpeg_comes_back_nearly_the_same()
  for _, channels in ipairs { 1, 3 } do
    for _, quality in ipairs { 100, 80 } do
      local t = ramp(channels, 11, 15) -- without a jump
      local back = assert(image.decode(image.encode(t, "jpeg", { quality = quality })))
      lu.assertEquals(back.shape, t.shape)
      local worst = 0
      local a, b = check.flat(back), check.flat(t)
      for i = 1, #a do worst = math.max(worst, math.abs(a[i] - b[i])) end
      lu.assertTrue(worst <= (quality == 100 and 4 or 60), worst)
    end
  end
end

function T.test_an_image_lies_channels_last_and_gray_stays_gray()
  local colour = assert(image.decode(image.encode(ramp(3, 4, 5), "jpeg")))
  lu.assertEquals(colour:strides(), { 1, 15, 3 })
  local gray = assert(image.decode(image.encode(ramp(1, 4, 5), "jpeg")))
  lu.assertEquals(gray.shape, { 1, 4, 5 })
  lu.assertEquals(assert(image.decode(image.encode(ramp(1, 4, 5), "png"))).shape, { 1, 4, 5 })
end

function T.test_channels_can_be_asked_for()
  local gray, colour = ramp(1, 6, 7), ramp(3, 6, 7)
  for _, format in ipairs { "png", "jpeg" } do
    local three = assert(image.decode(image.encode(gray, format), { channels = 3 }))
    lu.assertEquals(three.shape, { 3, 6, 7 })
    local one = create.totable(assert(image.decode(image.encode(gray, format))))
    for c = 1, 3 do lu.assertEquals(create.totable(three[c]), one[1]) end
    lu.assertEquals(assert(image.decode(image.encode(colour, format), { channels = 1 })).shape, { 1, 6, 7 })
  end
  local one = assert(image.decode(image.encode(colour, "png"), { channels = 1 }))
  lu.assertEquals(create.totable(one), create.totable(image.gray(colour)))
  lu.assertStrContains(check.message(image.load, "x", { channels = 2 }),
    "channels must be 1 (gray) or 3 (red, green, blue), got 2")
  lu.assertStrContains(check.message(image.load, "x", { chanels = 1 }), "did you mean 'channels'?")
end

function T.test_save_and_load_by_any_extension()
  local dir <close> = temporary.folder()
  local t = ramp(3, 9, 8)
  lu.assertTrue(image.save(dir / "a.PNG", t))
  os.rename(dir / "a.PNG", dir / "a.jpg")
  lu.assertEquals(create.totable(assert(image.load(dir / "a.jpg"))), create.totable(t))
  lu.assertEquals({ image.size(dir / "a.jpg") }, { 3, 9, 8 })
  lu.assertTrue(image.save(dir / "f.png", transform.normalise(t))) -- reals of 0..1
  lu.assertEquals(create.totable(assert(image.load(dir / "f.png"))), create.totable(t))
  lu.assertStrContains(check.message(image.save, dir / "a.gif", t), "a.gif' must end in .png, .jpg or .jpeg")
  lu.assertStrContains(check.message(image.save, dir / "a.png", create.full({ 2, 3, 3 }, 0, "u8")),
    "image.save: u8 1 x H x W or 3 x H x W expected, got u8 2x3x3")
  lu.assertStrContains(check.message(image.save, dir / "a.jpg", t, { quality = 0 }), "quality goes from 1 to 100, got 0")
  lu.assertEquals({ image.save(dir / "no/a.png", t) }, { nil, dir / "no/a.png" .. ": No such file or directory" })
  lu.assertEquals({ files.write_atomic("/dev/full", image.encode(t, "png")) }, { nil, "/dev/full: No space left on device" })
end

function T.test_a_full_disk_while_saving_leaves_the_old_picture()
  local dir <close> = temporary.folder()
  local path = dir / "a.png"
  assert(image.save(path, ramp(1, 3, 3)))
  local printed = temporary.run_on_full_disk(([[
    local image, create = require "feral.vision.image", require "feral.core.create"
    local t = create.uniform_(create.empty {1, 64, 64}, 1, 2)
    print(image.save("%s", t))]]):format(path))
  lu.assertEquals(printed, "nil\t" .. path .. ": File too large\n")
  lu.assertEquals(create.totable(assert(image.load(path))), create.totable(ramp(1, 3, 3)))
end

---- Files: kinds that are only read ----

function T.test_png_of_all_depths_and_kinds()
  local two = { width = 2 }
  local function decoded(rows, options, channels)
    local merged = { width = 2 }
    for k, v in pairs(options) do merged[k] = v end
    return create.totable(assert(image.decode(pictures.png(rows, merged), { channels = channels })))
  end
  lu.assertEquals(two.width, 2)
  lu.assertEquals(decoded({ "\x80", "\x40" }, { depth = 1 }), { { { 255, 0 }, { 0, 255 } } })
  lu.assertEquals(decoded({ "\xB0" }, { depth = 2 }), { { { 170, 255 } } })
  lu.assertEquals(decoded({ "\x5F" }, { depth = 4 }), { { { 85, 255 } } })
  lu.assertEquals(decoded({ "\x12\x34\xFF\xFF" }, { depth = 16 }), { { { 0x12, 255 } } })
  lu.assertEquals(decoded({ "\1\2\3\4\5\6" }, { type = 2 }), { { { 1, 4 } }, { { 2, 5 } }, { { 3, 6 } } })
  lu.assertEquals(decoded({ "\1\xF0\2\0\3\0\4\0\5\0\xFE\0" }, { type = 2, depth = 16 }),
    { { { 2, 4 } }, { { 2, 5 } }, { { 3, 253 } } })
  local colours = pictures.chunk("PLTE", "\10\20\30\40\50\60")
  lu.assertEquals(decoded({ "\1\0" }, { type = 3, before = colours }), { { { 40, 10 } }, { { 50, 20 } }, { { 60, 30 } } })
  local grays = pictures.chunk("PLTE", "\10\10\10\40\40\40")
  lu.assertEquals(decoded({ "\x40" }, { type = 3, depth = 1, before = grays }), { { { 10, 40 } } })
end

function T.test_transparency_is_laid_over_white()
  local function decoded(rows, options) return create.totable(assert(image.decode(pictures.png(rows, options)))) end
  lu.assertEquals(decoded({ "\100\255\100\0\100\128" }, { width = 3, type = 4 }), { { { 100, 255, 177 } } })
  lu.assertEquals(decoded({ "\0\50\100\0\0\50\100\255" }, { width = 2, type = 6 }),
    { { { 255, 0 } }, { { 255, 50 } }, { { 255, 100 } } })
  local transparent = pictures.chunk("tRNS", "\0\7")
  lu.assertEquals(decoded({ "\7\8" }, { width = 2, before = transparent }), { { { 255, 8 } } })
end

function T.test_interlaced_png()
  -- Adam7 of 2 x 2: the first pass has the pixel 1, 1; the sixth 2, 1; the seventh the second row
  local bytes = pictures.png({ "\1", "\2", "\3\4" }, { width = 2, height = 2, interlaced = true })
  lu.assertEquals(create.totable(assert(image.decode(bytes))), { { { 1, 2 }, { 3, 4 } } })
end

function T.test_bmp_of_several_depths()
  local function decoded(rows, options) return create.totable(assert(image.decode(pictures.bmp(rows, options)))) end
  lu.assertEquals(decoded({ "\3\2\1\6\5\4", "\9\8\7\12\11\10" }, { width = 2, bits = 24 }),
    { { { 1, 4 }, { 7, 10 } }, { { 2, 5 }, { 8, 11 } }, { { 3, 6 }, { 9, 12 } } })
  lu.assertEquals(decoded({ "\3\2\1\0" }, { width = 1, bits = 32 }), { { { 1 } }, { { 2 } }, { { 3 } } })
  local grays, colours = {}, {}
  for i = 0, 255 do
    grays[#grays + 1] = string.char(i, i, i, 0)
    colours[#colours + 1] = string.char(i, 0, 255 - i, 0)
  end
  grays, colours = table.concat(grays), table.concat(colours)
  lu.assertEquals(decoded({ "\1\2\3", "\4\5\6" }, { width = 3, bits = 8, palette = grays }), { { { 1, 2, 3 }, { 4, 5, 6 } } })
  lu.assertEquals(decoded({ "\1" }, { width = 1, bits = 8, palette = colours }), { { { 254 } }, { { 0 } }, { { 1 } } })
  lu.assertEquals(decoded({ "\x80" }, { width = 2, bits = 1, palette = grays:sub(1, 8) }), { { { 1, 0 } } })
  local upside_down = pictures.bmp({ "\1\2\3", "\4\5\6" }, { width = 3, height = -2, bits = 8, palette = grays })
  lu.assertEquals(create.totable(assert(image.decode(upside_down))), { { { 4, 5, 6 }, { 1, 2, 3 } } })
end

function T.test_png_samples_of_16_bits_are_rounded()
  local function decoded(row, width, kind)
    return create.totable(assert(image.decode(pictures.png({ row }, { width = width, type = kind, depth = 16 }))))
  end
  local samples, expected = {}, {}
  for v = 0, 65535, 61 do
    samples[#samples + 1] = string.pack(">I2", v)
    expected[#expected + 1] = math.floor(v * 255 / 65535 + 0.5)
  end
  local row = table.concat(samples)
  lu.assertEquals(decoded(row, #expected, 0), { { expected } })
  local colours = decoded(row:sub(1, #expected // 3 * 6), #expected // 3, 2)
  for c = 1, 3 do
    for i, v in ipairs(colours[c][1]) do lu.assertEquals(v, expected[3 * i - 3 + c]) end
  end
  lu.assertEquals(decoded("\x80\xFF\xFF\xFF", 1, 4), { { { 128 } } }) -- gray with alpha
end

function T.test_pnm_plain_and_raw_of_8_and_16_bits()
  local cases = {
    ["P2 2 2 255 1 2 3 4"] = { { { 1, 2 }, { 3, 4 } } },
    ["P2\n# made by hand\n2 1\n# white is\n1\n0 1\n"] = { { { 0, 255 } } },
    ["P2 3 1 1000 0 500 1000"] = { { { 0, 128, 255 } } },
    ["P3 1 2 15 0 15 3  5 6 7"] = { { { 0 }, { 85 } }, { { 255 }, { 102 } }, { { 51 }, { 119 } } },
    ["P5 2 1 255\nAB"] = { { { 65, 66 } } },
    ["P5#x\n2#y\n1#z\n255\nAB"] = { { { 65, 66 } } },
    ["P5 2 1 255\n# "] = { { { 35, 32 } } }, -- behind the header nothing is a comment
    ["P5 2 1 65535\n\0\0\xFF\xFF"] = { { { 0, 255 } } },
    ["P5 1 1 256\n\1\0"] = { { { 255 } } },
    ["P6 1 1 255\nABC\n"] = { { { 65 } }, { { 66 } }, { { 67 } } },
  }
  for bytes, expected in pairs(cases) do lu.assertEquals(create.totable(assert(image.decode(bytes))), expected, bytes) end
end

function T.test_cmyk_and_progressive_jpeg()
  local t = create.totable(assert(image.decode(pictures.cmyk_jpeg)))
  for c, expected in ipairs { { 0, 0 }, { 255, 128 }, { 255, 128 } } do
    lu.assertAlmostEquals(t[c][1][4], expected[1], 3)
    lu.assertAlmostEquals(t[c][8][4], expected[2], 3)
  end
  local p = create.totable(assert(image.decode(pictures.progressive_jpeg)))
  for y = 1, 8 do for x = 1, 8 do lu.assertAlmostEquals(p[1][y][x], (8 * y + x - 9) * 4, 4) end end
end

---- EXIF ----

function T.test_exif_orientation_is_applied()
  local dir <close> = temporary.folder()
  for _, channels in ipairs { 1, 3 } do
    local jpeg = image.encode(ramp(channels, 12, 20), "jpeg", { quality = 100 })
    local plain = create.totable(assert(image.decode(jpeg)))
    for orientation = 1, 8 do
      for _, big in ipairs { false, true } do
        local bytes = pictures.with_orientation(jpeg, orientation, big)
        local t = assert(image.decode(bytes))
        for c = 1, channels do lu.assertEquals(create.totable(t[c]), pixels.upright(plain[c], orientation)) end
        local path = temporary.write(dir / "a.jpg", bytes)
        lu.assertEquals({ image.size(path) }, t.shape)
      end
    end
  end
end

function T.test_exif_that_makes_no_sense_is_passed_over()
  local jpeg = image.encode(ramp(1, 5, 9), "jpeg")
  local good = "II" .. string.pack("<I2I4I2I2I2I4I2I2", 42, 8, 1, 0x0112, 3, 1, 6, 0)
  lu.assertEquals(assert(image.decode(pictures.with_exif(jpeg, good))).shape, { 1, 9, 5 })
  for length = 0, #good - 1 do
    lu.assertEquals(assert(image.decode(pictures.with_exif(jpeg, good:sub(1, length)))).shape, { 1, 5, 9 })
  end
  local far = { 0, 9, 17, 18, 19, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF }
  for _, offset in ipairs(far) do
    local tiff = good:sub(1, 4) .. string.pack("<I4", offset) .. good:sub(9)
    lu.assertEquals(assert(image.decode(pictures.with_exif(jpeg, tiff))).shape, { 1, 5, 9 })
  end
  for _, orientation in ipairs { 0, 9, 65535 } do
    lu.assertEquals(assert(image.decode(pictures.with_orientation(jpeg, orientation))).shape, { 1, 5, 9 })
  end
end

---- Files: bad input ----

local function sample_files()
  local noise = create.uniform_(create.empty { 3, 24, 31 }, 5, 5)
  return {
    jpeg = image.encode(noise, "jpeg"), gray = image.encode(image.gray(noise), "jpeg"), progressive = pictures.progressive_jpeg,
    turned = pictures.with_orientation(image.encode(noise, "jpeg"), 6), cmyk = pictures.cmyk_jpeg,
    png = image.encode(noise, "png"), raw = "P6 4 5 255\n" .. ("x"):rep(60), plain = "P2 3 2 255 10 20 30 40 50 60\n",
    bmp = pictures.bmp({ ("x"):rep(30), ("y"):rep(30) }, { width = 10, bits = 24 }),
  }
end

function T.test_a_file_cut_off_anywhere_is_an_error()
  for name, bytes in pairs(sample_files()) do
    lu.assertEquals(image.decode(bytes):dim(), 3, name)
    for length = 0, #bytes - 1 do
      if not (name == "plain" and length >= #bytes - 2) then -- the last number and a space may go without notice
        local t, message = image.decode(bytes:sub(1, length), { name = name })
        lu.assertNil(t, ("%s cut at %d of %d"):format(name, length, #bytes))
        lu.assertStrContains(message, name .. ": ")
      end
    end
  end
end

function T.test_a_large_file_cut_at_every_64th_byte_is_an_error()
  local dir <close> = temporary.folder()
  local noise = create.uniform_(create.empty { 3, 90, 110 }, 5, 6)
  for _, format in ipairs { "png", "jpeg" } do
    local bytes = image.encode(noise, format)
    for length = 64, #bytes - 1, 64 do
      local path = temporary.write(dir / "cut", bytes:sub(1, length))
      local t, message = image.load(path)
      lu.assertNil(t)
      lu.assertStrContains(message, path .. ": the " .. format:upper())
    end
  end
end

function T.test_damaged_bytes_raise_nothing_and_a_png_notices_each()
  for name, bytes in pairs(sample_files()) do
    for _ = 1, check.SHAPES do
      local at = check.integer(1, #bytes)
      local changed = bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ check.integer(1, 255)) .. bytes:sub(at + 1)
      local t, message = image.decode(changed)
      lu.assertTrue(t ~= nil or type(message) == "string")
      if name == "png" then lu.assertNil(t) end
    end
  end
end

function T.test_extra_bytes_before_a_jpegs_marker_are_forgiven_but_not_when_it_is_cut()
  local bytes = image.encode(ramp(1, 16, 16), "jpeg")
  lu.assertEquals(bytes:sub(-2), "\xFF\xD9")
  lu.assertEquals(assert(image.decode(bytes:sub(1, -3) .. "\0\0\0\0" .. bytes:sub(-2))).shape, { 1, 16, 16 })
  lu.assertNil((image.decode(bytes:sub(1, -3) .. "\0\0\0\0")))
  lu.assertEquals(assert(image.decode(bytes .. "trailing")).shape, { 1, 16, 16 })
end

function T.test_what_is_no_image_is_named()
  local cases = {
    [""] = "is empty",
    ["Just some text.\n"] = "is not an image: JPEG, PNG, BMP, PGM and PPM are read",
    ["\0\0\0\0"] = "is not an image: JPEG, PNG, BMP, PGM and PPM are read",
    ["GIF89a......"] = "is a GIF image: JPEG, PNG, BMP, PGM and PPM are read",
    ["RIFF....WEBPVP8 "] = "is a WebP image: JPEG, PNG, BMP, PGM and PPM are read",
    ["P4 1 1\n\0"] = "is a bitmap of one bit a pixel: JPEG, PNG, BMP, PGM and PPM are read",
    ["BM, the letters"] = "the BMP is cut off in its header",
    ["P5 hello"] = "the PNM header does not give a width, a height and a maximum of 1 to 65535",
    ["P5 1 1 0\nx"] = "the PNM header does not give a width, a height and a maximum of 1 to 65535",
    ["P5 1 1 65536\nxx"] = "the PNM header does not give a width, a height and a maximum of 1 to 65535",
    ["P5 -1 1 255\nx"] = "the PNM header does not give a width, a height and a maximum of 1 to 65535",
    ["P5 2 2 255\nxxx"] = "the PNM image is cut off",
    ["P5 1 1 255\nxx"] = "the PNM file goes on behind the image",
    ["P2 1 1 100 101"] = "the PNM image holds a sample that is no number or above the maximum",
    ["P2 1 1 100 1.5"] = "the PNM file goes on behind the image",
    ["P2 2 1 100 1 x"] = "the PNM image holds a sample that is no number or above the maximum",
    ["P5 1 1 100\nz"] = "the PNM image holds a sample that is no number or above the maximum",
    ["P5 0 1 255\n"] = "the image has no pixels",
  }
  local dir <close> = temporary.folder()
  local path = dir / "face.jpg"
  for bytes, what in pairs(cases) do
    temporary.write(path, bytes)
    lu.assertEquals({ image.load(path) }, { nil, path .. ": " .. what }, bytes)
  end
end

function T.test_files_that_cannot_be_read()
  local dir <close> = temporary.folder()
  os.execute(("ln -s nowhere '%s'"):format(dir / "lost.png"))
  for _, f in ipairs { image.load, image.size } do
    lu.assertEquals({ f(dir / "lost.png") }, { nil, dir / "lost.png" .. ": No such file or directory" })
    lu.assertEquals({ f(dir.path) }, { nil, dir.path .. ": is a directory" })
    lu.assertEquals({ f("/dev/null") }, { nil, "/dev/null: is not a regular file" })
  end
end

function T.test_one_pixel()
  for _, channels in ipairs { 1, 3 } do
    local t = ramp(channels, 1, 1)
    for _, format in ipairs { "png", "jpeg" } do
      lu.assertEquals(assert(image.decode(image.encode(t, format))).shape, { channels, 1, 1 })
    end
    lu.assertEquals(image.resize(t, 3, 2).shape, { channels, 3, 2 })
    lu.assertEquals(image.rotate(t, 30).shape, { channels, 1, 1 })
  end
end

function T.test_images_that_are_too_large_are_refused_before_they_are_decoded()
  local side, area = "the image is too large: at most 8192 pixels a side", "the image is too large: at most 64 million pixels"
  local jpeg = image.encode(ramp(1, 8, 8), "jpeg")
  local frame = jpeg:find("\xFF\xC0", 1, true)
  local function jpeg_of(height, width)
    return jpeg:sub(1, frame + 4) .. string.pack(">I2I2", height, width) .. jpeg:sub(frame + 9)
  end
  local cases = {
    [pictures.png({ "" }, { width = 20000, height = 20000 })] = side, [pictures.png({ "" }, { width = 1, height = 8193 })] = side,
    [pictures.png({ "" }, { width = 0xFFFFFFFF, height = 1 })] = side,
    [pictures.png({ "" }, { width = 8192, height = 8192 })] = area,
    [jpeg_of(20000, 20000)] = side, [jpeg_of(8192, 8192)] = area, ["P5 20000 20000 255\n"] = side, ["P6 8192 8192 255\n"] = area,
    [pictures.bmp({ "" }, { width = 20000, height = -20000, bits = 24 })] = side,
    [pictures.bmp({ "" }, { width = 8192, height = 8192, bits = 1 })] = area,
    [pictures.bmp({ "" }, { width = 1, height = -0x80000000, bits = 1 })] = side,
  }
  local scope = require "feral.core.scope"
  if scope.memory().live then scope.reset_peak() end
  local before = scope.memory().live
  for bytes, what in pairs(cases) do lu.assertEquals({ image.decode(bytes) }, { nil, "image: " .. what }) end
  if before then lu.assertTrue(scope.memory().peak - before < 1000000) end
end

function T.test_a_png_that_unpacks_to_more_than_its_pixels_takes_little_memory()
  local scope = require "feral.core.scope"
  local bomb = image.encode(create.full({ 1, 4000, 4000 }, 0, "u8"), "png")
  local small = bomb:sub(1, 8) .. pictures.chunk("IHDR", string.pack(">I4I4BBBBB", 8, 8, 8, 0, 0, 0, 0)) .. bomb:sub(34)
  collectgarbage()
  scope.trim()
  if scope.memory().live then scope.reset_peak() end
  local before = scope.memory().live
  lu.assertEquals({ image.decode(small) }, { nil, "image: the PNG is damaged" })
  if before then lu.assertTrue(scope.memory().peak - before < 2000000) end
end

---- Memory ----

function T.test_lack_of_memory_leaves_nothing_behind()
  local dir <close> = temporary.folder()
  local jpeg = pictures.with_orientation(image.encode(ramp(3, 20, 30), "jpeg"), 6)
  local path, png = temporary.write(dir / "a.jpg", jpeg), image.encode(ramp(3, 20, 30), "png")
  local bmp = pictures.bmp({ ("x"):rep(30) }, { width = 10, bits = 24 })
  check.survives_lack_of_memory(function()
    local t = assert(core.load(path))
    assert(core.decode(png))
    assert(core.decode(bmp))
    core.encode_png(t)
    core.encode_jpeg(t, 80)
  end)
end

return T
