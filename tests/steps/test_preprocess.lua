local lu = require "luaunit"
local feral = require "feral"
local files = require "feral.core.files"
local check, temporary, pictures = require "check", require "temporary", require "pictures"
local tensor, data, image, preprocess = feral.tensor, feral.data, feral.image, require "feral.steps.preprocess"

local T = {}

local function picture(channels, height, width)
  return (check.randn(channels, height, width) * 60 + 128):to("u8")
end

--- A folder of one class with one image file of each kind; returns their paths.
local function folder_of_all_kinds(dir)
  assert(files.mkdir(dir / "neutral"))
  local paths = {}
  local function add(name, write)
    paths[#paths + 1] = dir / ("neutral/" .. name)
    write(paths[#paths])
  end
  for i, sizes in ipairs { { 1, 12, 10 }, { 3, 12, 10 }, { 1, 40, 31 }, { 3, 33, 57 }, { 1, 5, 7 }, { 3, 1, 1 }, { 3, 12, 9 } } do
    local t = picture(table.unpack(sizes))
    add(("%d.png"):format(i), function(path) assert(image.save(path, t)) end)
    add(("%d.jpg"):format(i), function(path) assert(image.save(path, t)) end)
  end
  add("turned.jpg", function(path)
    temporary.write(path, pictures.with_orientation(image.encode(picture(3, 20, 30), "jpeg"), 6))
  end)
  add("cmyk.jpg", function(path) temporary.write(path, pictures.cmyk_jpeg) end)
  add("gray.pgm", function(path) temporary.write(path, "P5\n4 3\n255\n" .. picture(1, 3, 4):tobytes()) end)
  return paths
end

--- What a loader without augmentation gives for all samples, in their order.
local function loaded(set, options)
  options.shuffle, options.batch = false, 5
  local parts = {}
  local loader = data.loader(set, options)
  for x in loader:batches() do parts[#parts + 1] = x end
  return tensor.cat(parts), loader.preprocessing
end

function T.test_a_raw_image_gives_the_network_the_numbers_of_the_training()
  local dir <close> = temporary.folder()
  local paths = folder_of_all_kinds(dir)
  for _, case in ipairs {
    { { channels = 1 }, {} }, { { channels = 3 }, {} }, { { channels = 1 }, { normalize = "set" } },
    { { channels = 3 }, { mean = 0.485, std = 0.229 } },
  } do
    case[1].size, case[1].strict = { 12, 10 }, true
    local set = assert(data.folder(dir.path, case[1]))
    lu.assertEquals(#set, #paths)
    local x, settings = loaded(set, case[2])
    local position = {}
    for i, path in ipairs(set.paths) do position[path:match("[^/]+$")] = i end
    for _, path in ipairs(paths) do
      local i = position[path:match("[^/]+$")]
      local raw = assert(preprocess.batch({ path }, settings))
      lu.assertEquals(raw.shape, { 1, case[1].channels, 12, 10 })
      lu.assertTrue(raw:tobytes() == x:narrow(1, i, 1):tobytes(), path)
      local decoded = assert(image.load(path)) -- and the image that somebody loaded
      lu.assertTrue(assert(preprocess.batch({ decoded }, settings)):tobytes() == raw:tobytes(), path .. " as a tensor")
    end
    local all = assert(preprocess.batch(set.paths, settings))
    lu.assertTrue(all:tobytes() == x:tobytes())
  end
end

function T.test_the_way_an_image_lies_in_memory_does_not_matter()
  local settings = { height = 9, width = 8, channels = 3, mean = 0.5, std = 0.25 }
  local t = picture(3, 11, 13)
  local other = t:permute(2, 3, 1):contiguous():permute(3, 1, 2)
  local part = tensor.cat({ t, t }, 3):narrow(3, 14, 13)
  local expected = preprocess.batch({ t }, settings):tobytes()
  lu.assertTrue(preprocess.batch({ other }, settings):tobytes() == expected)
  lu.assertTrue(preprocess.batch({ part }, settings):tobytes() == expected)
end

function T.test_values_are_scaled_by_mean_and_deviation()
  local settings = { height = 1, width = 3, channels = 1, mean = 0.5, std = 0.25 }
  local x = preprocess.batch({ tensor({ { { 0, 51, 255 } } }, "u8") }, settings)
  check.close(x, { -2, (0.2 - 0.5) / 0.25, 2 }, 1e-6)
  settings = { height = 1, width = 3, channels = 3, mean = 0, std = 1 }
  local rgb = preprocess.batch({ tensor({ { { 0, 51, 255 } } }, "u8") }, settings)
  check.close(rgb, { 0, 0.2, 1, 0, 0.2, 1, 0, 0.2, 1 }, 1e-6)
end

function T.test_settings_of_the_first_model_files_become_steps()
  local good = { height = 4, width = 5, channels = 3, mean = 0.5, std = 0.3 }
  lu.assertEquals(tostring(preprocess.check(good)), "{ rgb(), resize(4, 5), normalize(0.5, 0.3) }")
  local list = feral.steps { feral.steps.gray() }
  lu.assertIs(preprocess.check(list), list)
  lu.assertEquals(tostring(preprocess.check(list:describe())), "{ gray() }")
  local function refused(field, value, message)
    local bad = {}
    for name, v in pairs(good) do bad[name] = v end
    bad[field] = value
    lu.assertStrMatches(check.message(preprocess.check, bad), ".*preprocessing: " .. message:gsub("%p", "%%%0"))
  end
  local sides = "height and width must be whole numbers from 1 to 8192, got "
  refused("height", 0, sides .. "0 and 5")
  refused("width", 8193, sides .. "4 and 8193")
  refused("width", 2.5, sides .. "4 and 2.5")
  refused("height", nil, sides .. "nil and 5")
  refused("channels", 2, "channels must be 1 or 3, got 2")
  refused("channels", "1", "channels must be 1 or 3, got 1")
  local numbers = "mean must be a number and std one above 0, got "
  refused("mean", math.huge, numbers .. "inf and 0.3")
  refused("std", 0, numbers .. "0.5 and 0")
  refused("std", -1, numbers .. "0.5 and -1")
  refused("mean", "0", numbers .. "0 and 0.3")
  lu.assertStrContains(check.message(preprocess.check, 5), "preprocessing must be a list of steps, got number")
end

function T.test_the_first_image_that_cannot_be_read_is_named()
  local dir <close> = temporary.folder()
  local settings = { height = 4, width = 4, channels = 1, mean = 0.5, std = 0.25 }
  assert(image.save(dir / "good.png", picture(1, 4, 4)))
  local batch, message = preprocess.batch({ dir / "good.png", dir / "none.png", dir / "nor.png" }, settings)
  lu.assertNil(batch)
  lu.assertEquals(message, dir / "none.png: No such file or directory")
end

function T.test_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  assert(image.save(dir / "a.png", picture(3, 9, 7)))
  local settings = { height = 5, width = 4, channels = 1, mean = 0.5, std = 0.25 }
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    preprocess.batch({ dir / "a.png" }, settings)
  end)
end

return T
