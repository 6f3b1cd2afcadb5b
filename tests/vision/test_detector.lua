local lu = require "luaunit"
local feral = require "feral"
local check, pixels, temporary = require "check", require "pixels", require "temporary"
local detector = require "feral.vision.detector"
local tensor, safetensors = feral.tensor, feral.safetensors

local T = {}

--- A network of few channels, as after some training.
local function small_net()
  feral.tensor.manual_seed(3)
  local net = detector.new(8)
  net:walk(function(_, layer)
    if layer.running_mean then
      layer:load_state { running_mean = tensor.randn(layer.running_mean:numel()) * 0.1,
        running_var = tensor.rand(layer.running_var:numel()) + 0.5, weight = layer.weight, bias = layer.bias }
    end
  end)
  return net:eval()
end

--- An output of the network where it says of one cell what 'row' holds, and of all others that there is nothing.
local function output_with(rows, height, width)
  local numbers = {}
  for i = 1, detector.count_cells(height, width) do numbers[i] = { -9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } end
  for cell, row in pairs(rows) do numbers[cell] = row end
  return tensor(numbers)
end

function T.test_cells_are_counted_grid_by_grid_row_by_row()
  lu.assertEquals(detector.count_cells(64, 96), 8 * 12 + 4 * 6 + 2 * 3)
  for number, cell in pairs { { 4, 4, 8 }, { 12, 4, 8 }, [13] = { 4, 12, 8 }, [96] = { 92, 60, 8 }, [97] = { 8, 8, 16 },
    [121] = { 16, 16, 32 }, [126] = { 80, 48, 32 } } do
    lu.assertEquals({ detector.cell(number, 64, 96) }, cell)
  end
  lu.assertStrContains(check.message(detector.cell, 127, 64, 96), "detector.cell: there is no cell 127 in 64 x 96")
end

function T.test_a_cell_becomes_a_box_and_points_in_pixels()
  local row = { 2, 0.5, -0.25, math.log(3), math.log(4), -1, -1, 1, -1, 0, 0, -1, 1, 1, 1 }
  local faces = detector.decode(output_with({ [14] = row }, 64, 96), 64, 96)
  lu.assertEquals(#faces, 1)
  lu.assertAlmostEquals(faces[1].score, 1 / (1 + math.exp(-2)), 1e-6)
  for k, v in ipairs { 12 + 4 - 12, 12 - 2 - 16, 24, 32 } do lu.assertAlmostEquals(faces[1].box[k], v, 1e-4) end
  lu.assertEquals(faces[1].points, { { 4, 4 }, { 20, 4 }, { 12, 12 }, { 4, 20 }, { 20, 20 } })
end

function T.test_of_faces_on_each_other_the_best_is_kept()
  local function row(score, x) return { score, x, 0, math.log(4), math.log(4), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } end
  local rows = { [14] = row(1, 0), [15] = row(3, 0), [16] = row(2, 0), [20] = row(0.5, 0), [21] = row(-1, 0) }
  local output = output_with(rows, 64, 96)
  local function scores(options)
    local list = {}
    for i, f in ipairs(detector.decode(output, 64, 96, options)) do list[i] = math.floor(f.score * 100) end
    return list
  end
  lu.assertEquals(scores(), { 95, 62 })
  lu.assertEquals(scores { overlap = 0.7 }, { 95, 88, 73, 62 })
  lu.assertEquals(scores { overlap = 1, score = 0.2 }, { 95, 88, 73, 62, 26 })
  lu.assertEquals(scores { overlap = 1, most = 2 }, { 95, 88 })
end

function T.test_overlap_is_intersection_over_union()
  lu.assertAlmostEquals(detector.overlap({ 0, 0, 2, 2 }, { 1, 1, 2, 2 }), 1 / 7, 1e-12)
  lu.assertEquals(detector.overlap({ 0, 0, 2, 2 }, { 2, 0, 2, 2 }), 0)
  lu.assertEquals(detector.overlap({ 1, 2, 3, 4 }, { 1, 2, 3, 4 }), 1)
end

function T.test_a_plan_gives_the_networks_numbers()
  local net, x = small_net(), check.randn(2, 3, 64, 96)
  local expected = feral.autograd.no_grad(net, x)
  lu.assertEquals(expected.shape, { 2, detector.count_cells(64, 96), detector.outputs })
  check.close(net:compile(x)(x), expected, 1e-4)
end

function T.test_gradients_reach_all_parameters()
  local net = detector.new(8)
  local loss = (net(check.randn(2, 3, 64, 64)) * check.randn(2, detector.count_cells(64, 64), detector.outputs)):sum()
  loss:backward()
  for _, pair in ipairs(net:named_parameters()) do
    lu.assertNotNil(pair[2].grad, pair[1])
    lu.assertTrue(pair[2].grad:abs():max():item() > 0 or pair[1]:find("1.bias"), pair[1])
  end
end

--- What is found lies in the picture's own pixels, whatever size the network saw.
function T.test_boxes_are_in_pixels_of_the_picture()
  local net, small = small_net(), pixels.random("u8", 3, 64, 96)
  local large = feral.image.resize(small, 128, 192)
  local least = { score = 0.001, longest = 96 }
  local a, b = detector.detect(net, feral.image.resize(large, 64, 96), least), detector.detect(net, large, least)
  lu.assertTrue(#a > 0)
  lu.assertEquals(#b, #a)
  for i, f in ipairs(a) do
    for k = 1, 4 do lu.assertAlmostEquals(b[i].box[k], 2 * f.box[k], 1e-3) end
    for k = 1, 5 do lu.assertAlmostEquals(b[i].points[k][1], 2 * f.points[k][1], 1e-3) end
  end
end

function T.test_gray_pictures_and_odd_sizes_are_taken()
  local net = small_net()
  for _, sizes in ipairs { { 1, 33, 7 }, { 3, 1, 1 }, { 1, 70, 64 } } do
    lu.assertEquals(type(detector.detect(net, pixels.random("u8", table.unpack(sizes)))), "table")
  end
  local gray = pixels.random("u8", 1, 40, 40)
  lu.assertEquals(detector.detect(net, gray, { score = 0.001 }),
    detector.detect(net, gray:expand(3, 40, 40):contiguous(), { score = 0.001 }))
end

function T.test_a_file_gives_the_network_back()
  local dir <close> = temporary.folder()
  local net = small_net()
  assert(detector.save(net, dir / "faces.safetensors", { recall = 0.5 }))
  local back, card = assert(detector.load(dir / "faces.safetensors"))
  lu.assertEquals(card, { recall = 0.5 })
  local x = check.randn(1, 3, 32, 32)
  check.close(feral.autograd.no_grad(back, x), feral.autograd.no_grad(net, x), 1e-7)
end

function T.test_what_is_no_detectors_file_is_said()
  local dir <close> = temporary.folder()
  local other, path = dir / "other.safetensors", dir / "wrong.safetensors"
  assert(safetensors.save(other, { { "a", tensor.zeros(1) } }))
  local net, message = detector.load(other)
  lu.assertNil(net)
  lu.assertEquals(message, other .. ": no face detector")
  assert(safetensors.save(path, { { "a", tensor.zeros(1) } }, { feral_detector = '{"width":8}' }))
  net, message = detector.load(path)
  lu.assertNil(net)
  lu.assertStrContains(message, path .. ": load_state: there is no tensor")
  assert(safetensors.save(path, { { "a", tensor.zeros(1) } }, { feral_detector = '{"width":7}' }))
  lu.assertStrContains(select(2, detector.load(path)), "the width must be a multiple of 4, got 7")
  lu.assertNil(detector.load(dir / "none"))
end

function T.test_wrong_arguments_are_named()
  local net = small_net()
  lu.assertStrContains(check.message(detector.detect, net, tensor.zeros(3, 8, 8)),
    "detector.detect: a u8 image C x H x W expected, got " .. (check.is_double and "f64" or "f32") .. " 3x8x8")
  lu.assertStrContains(check.message(net, tensor.zeros(1, 3, 40, 64)),
    "FaceDetector: input is 1x3x40x64, height and width must be multiples of 32")
end

return T
