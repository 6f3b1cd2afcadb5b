local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local nets, tensor = feral.nets, feral.tensor

local T = {}

local function numbers_in(pairs_of_state)
  local count = 0
  for _, pair in ipairs(pairs_of_state) do count = count + pair[2]:numel() end
  return count
end

function T.test_mini_xception_has_the_published_number_of_parameters()
  -- Keras prints for the authors' own: 58,423 in all, 56,951 of them trainable
  local net = nets.mini_xception(7, { size = 64 })
  lu.assertEquals({ net:num_parameters(), numbers_in(net:state()) }, { 56951, 58423 })
end

function T.test_each_network_takes_other_sizes_channels_and_numbers_of_classes()
  for _, name in ipairs(nets.names) do
    for _, case in ipairs { { 7, 48, 1 }, { 3, 64, 3 }, { 2, 33, 1 } } do
      local _open <close> = tensor.scope()
      local classes, size, channels = table.unpack(case)
      local net = nets.make(name, classes, { size = size, channels = channels })
      lu.assertEquals(net(check.randn(2, channels, size, size)).shape, { 2, classes }, name)
    end
  end
  lu.assertEquals(nets.vgg(4, { widths = { 4, 8 }, dense = 16, size = 12 })(check.randn(2, 1, 12, 12)).shape, { 2, 4 })
end

function T.test_the_same_seed_makes_the_same_weights()
  for _, name in ipairs(nets.names) do
    local function weights()
      tensor.manual_seed(11)
      local parts = {}
      for i, p in ipairs(nets.make(name, 7):parameters()) do parts[i] = p:tobytes() end
      return table.concat(parts)
    end
    lu.assertTrue(weights() == weights())
  end
end

function T.test_messages()
  lu.assertStrContains(check.message(nets.make, "vg", 7),
    "no network is called 'vg', did you mean 'vgg'? (known: vgg, mini_xception, emopy)")
  lu.assertStrContains(check.message(nets.make, nil, 7), "no network is called 'nil'")
  lu.assertStrContains(check.message(nets.vgg, 7, { size = 15 }), "nets.vgg: images of 15 pixels are too small for 4 poolings")
  lu.assertStrContains(check.message(nets.emopy, 7, { size = 10 }), "nets.emopy: images of 10 pixels are too small")
  lu.assertStrContains(check.message(nets.vgg, 7, { sise = 48 }), "nets.vgg: unknown option 'sise', did you mean 'size'?")
end

return T
