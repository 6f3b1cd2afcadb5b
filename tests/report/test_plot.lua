local lu = require "luaunit"
local feral = require "feral"
local draw = require "feral.core.draw"
local check, arrays = require "check", require "arrays"
local tensor, plot = feral.tensor, feral.plot

local T = {}

local GAP, TEXT = 4, 12 -- pixels between images, and of a line of text

local function picture(channels, height, width) return (check.randn(channels, height, width) * 30 + 100):to("u8") end

--- The sheet's expected pixels: white, with the images where they belong.
local function sheet_of(images, columns, scale, text)
  local height, width = images[1]:size(2), images[1]:size(3)
  local wide, high = width * scale + GAP, height * scale + GAP + text
  local numbers = {}
  for i, image in ipairs(images) do numbers[i] = image:totable() end
  local shape = { 3, (#images + columns - 1) // columns * high + GAP, columns * wide + GAP }
  return shape, arrays.build(shape, function(at)
    local y, x = at[2] - 1 - GAP, at[3] - 1 - GAP
    local row, column = y // high, x // wide
    local inner_y, inner_x = y % high // scale, x % wide // scale
    local image = y >= 0 and x >= 0 and column < columns and numbers[row * columns + column + 1]
    if not image or inner_y >= height or inner_x >= width then return 255 end
    return image[#image == 3 and at[1] or 1][inner_y + 1][inner_x + 1]
  end)
end

function T.test_images_stand_in_rows()
  for i = 1, 60 do
    local count, scale = check.integer(1, 7), check.integer(1, 3)
    local height, width = check.integer(1, 5), check.integer(1, 5)
    local images = {}
    for k = 1, count do images[k] = picture(check.integer(0, 1) * 2 + 1, height, width) end
    local columns = i % 3 > 0 and check.integer(1, 8) or nil
    local sheet = plot.grid(images, { columns = columns, scale = scale })
    local shape, expected = sheet_of(images, columns or math.ceil(math.sqrt(count)), scale, 0)
    lu.assertEquals(sheet.shape, shape)
    lu.assertEquals(sheet.dtype, "u8")
    lu.assertEquals(arrays.flat(sheet), expected)
  end
end

function T.test_a_batch_is_as_good_as_a_list()
  local batch = tensor.stack { picture(1, 4, 5), picture(1, 4, 5), picture(1, 4, 5) }
  lu.assertEquals(plot.grid(batch):tobytes(), plot.grid({ batch[1], batch[2], batch[3] }):tobytes())
  lu.assertEquals(plot.grid(feral.ops.as_image(batch)):tobytes(), plot.grid(batch):tobytes())
end

function T.test_labels_stand_under_their_images_in_their_colours()
  local images = { picture(1, 20, 30), picture(3, 20, 30), picture(1, 20, 30) }
  local sheet = plot.grid(images, { columns = 3, labels = { "fear", "joy" }, colors = { { 200, 0, 0 } } })
  local shape, expected = sheet_of(images, 3, 2, TEXT)
  lu.assertEquals(sheet.shape, shape)
  local plain = tensor(expected, "u8"):reshape(shape)
  draw.text(plain, 4, 4 + 40 + 2, "fear", 1, { 200, 0, 0 })
  draw.text(plain, 4 + 64, 4 + 40 + 2, "joy", 1, 0)
  lu.assertEquals(arrays.flat(sheet), arrays.flat(plain))
end

function T.test_a_label_that_is_too_long_does_not_reach_its_neighbour()
  local images = { picture(1, 10, 10), picture(1, 10, 10) }
  for _, text in ipairs { "a very long name of a class", ("W"):rep(100000), "äöüäöüäöüäöü" } do
    local sheet = plot.grid(images, { columns = 2, labels = { text, "" } })
    local gap_and_neighbour = sheet:narrow(2, 25, TEXT):narrow(3, GAP + 20 + 1, GAP + 20)
    lu.assertEquals(gap_and_neighbour:to("f32"):min():item(), 255)
    lu.assertTrue(sheet:narrow(2, 25, TEXT):narrow(3, GAP + 1, 20):to("f32"):min():item() < 255)
  end
end

function T.test_messages()
  local a = picture(1, 4, 5)
  local cases = {
    { {}, nil, "plot.grid: images must be a list of tensors, or one of M x C x H x W" },
    { a, nil, "plot.grid: images must be a list of tensors, or one of M x C x H x W" },
    { nil, nil, "plot.grid: images must be a list of tensors, or one of M x C x H x W" },
    { { a, "x.png" }, nil, "plot.grid: image 2 must be u8 1 x H x W or 3 x H x W" },
    { { a:to("f32") }, nil, "plot.grid: image 1 must be u8 1 x H x W or 3 x H x W" },
    { { picture(2, 4, 5) }, nil, "plot.grid: image 1 must be u8 1 x H x W or 3 x H x W" },
    { { a, picture(1, 5, 4) }, nil, "plot.grid: image 2 is 5x4, the first 4x5" },
    { { a }, { columns = 0 }, "plot.grid: columns must be a whole number from 1, got 0" },
    { { a }, { scale = 1.5 }, "plot.grid: scale must be a whole number from 1, got 1.5" },
    { { a }, { colums = 2 }, "plot.grid: unknown option 'colums', did you mean 'columns'?" },
  }
  for _, case in ipairs(cases) do lu.assertStrContains(check.message(plot.grid, case[1], case[2]), case[3]) end
end

return T
