local lu = require "luaunit"
local feral = require "feral"
local create, random = require "feral.core.create", require "feral.tensor.random"
local check, bits = require "check", require "bits"
local tensor = feral.tensor

local T = {}

---- Philox4x32-10 once more, in Lua, held against the published numbers ----

local function philox(counter, key)
  local a, b, c, d = table.unpack(counter)
  local k, l = table.unpack(key)
  for _ = 1, 10 do
    local p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
    a, b, c, d = (q >> 32) ~ b ~ k, q & 0xFFFFFFFF, (p >> 32) ~ d ~ l, p & 0xFFFFFFFF
    k, l = (k + 0x9E3779B9) & 0xFFFFFFFF, (l + 0xBB67AE85) & 0xFFFFFFFF
  end
  return { a, b, c, d }
end

function T.test_the_reference_gives_the_published_numbers()
  -- Random123 1.14 (Salmon et al. 2011), tests/kat_vectors: philox4x32 10
  local ones = 0xFFFFFFFF
  local published = {
    { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
    { { ones, ones, ones, ones }, { ones, ones }, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
    { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 },
      { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
  }
  for _, case in ipairs(published) do lu.assertEquals(philox(case[1], case[2]), case[3]) end
end

local function halves(n) return n & 0xFFFFFFFF, n >> 32 end

--- Number i (from 0) of a stream as 32 bits.
local function word(seed, stream, i)
  local a, b = halves(i // 4)
  local c, d = halves(stream)
  return philox({ a, b, c, d }, { halves(seed) })[i % 4 + 1]
end

--- A seed or stream: small, large or negative.
local function any_name(i)
  if i % 3 == 0 then return check.integer(0, 9) end
  return (check.integer(0, 1 << 22) << 42 ~ check.integer(0, 1 << 22) << 21 ~ check.integer(0, 1 << 22))
end

function T.test_uniform_numbers_are_the_upper_bits_of_philox()
  for i = 1, 200 do
    local seed, stream, n = any_name(i), any_name(i + 1), check.integer(1, 9)
    local got = create.uniform_(tensor.empty(n), seed, stream):totable()
    for k = 1, n do lu.assertEquals(got[k], (word(seed, stream, k - 1) >> 8) / 2 ^ 24) end
  end
end

function T.test_normal_numbers_are_box_and_mullers()
  for i = 1, 200 do
    local seed, stream, n = any_name(i), any_name(i + 1), check.integer(1, 9)
    local expected = {}
    for k = 0, n - 1 do
      local u, v = (word(seed, stream, k // 2 * 2) >> 8) / 2 ^ 24, (word(seed, stream, k // 2 * 2 + 1) >> 8) / 2 ^ 24
      local radius, angle = math.sqrt(-2 * math.log(1 - u)), 2 * math.pi * v
      expected[k + 1] = 2 * radius * (k % 2 == 0 and math.cos(angle) or math.sin(angle))
    end
    check.close(create.normal_(tensor.empty(n), seed, stream, 0, 2), expected, 1e-6)
  end
end

---- What they look like ----

--- Mean, variance, and the third and fourth moment over what a normal distribution has.
local function moments(t)
  local mean = t:mean():item()
  local centred = t - mean
  local variance = (centred ^ 2):mean():item()
  return mean, variance, (centred ^ 3):mean():item() / variance ^ 1.5, (centred ^ 4):mean():item() / variance ^ 2
end

function T.test_moments()
  tensor.manual_seed(5)
  local n = 200000
  local mean, variance, skew, kurtosis = moments(tensor.randn(n))
  lu.assertAlmostEquals(mean, 0, 5 / math.sqrt(n))
  lu.assertAlmostEquals(variance, 1, 5 * math.sqrt(2 / n))
  lu.assertAlmostEquals(skew, 0, 5 * math.sqrt(6 / n))
  lu.assertAlmostEquals(kurtosis, 3, 5 * math.sqrt(24 / n))
  mean, variance = moments(tensor.rand(n))
  lu.assertAlmostEquals(mean, 1 / 2, 5 * math.sqrt(1 / 12 / n))
  lu.assertAlmostEquals(variance, 1 / 12, 5 * math.sqrt(1 / 180 / n))
  mean, variance = moments(tensor.normal({ 400, 500 }, -3, 0.5))
  lu.assertAlmostEquals(mean, -3, 5 * 0.5 / math.sqrt(n))
  lu.assertAlmostEquals(variance, 0.25, 0.25 * 5 * math.sqrt(2 / n))
end

function T.test_numbers_in_a_row_and_of_neighbouring_streams_do_not_hang_together()
  tensor.manual_seed(6)
  local n = 100000
  local a, b = tensor.randn(n), tensor.randn(n)
  lu.assertAlmostEquals((a * b):mean():item(), 0, 5 / math.sqrt(n))
  lu.assertAlmostEquals((a:narrow(1, 1, n - 1) * a:narrow(1, 2, n - 1)):mean():item(), 0, 5 / math.sqrt(n))
end

function T.test_uniform_numbers_stay_below_the_upper_end()
  tensor.manual_seed(1)
  local t = tensor.uniform({ 100000 }, 1000, 1001) -- floats lie 6e-5 apart here, and so would be rounded up to 1001
  lu.assertTrue(t:min():item() >= 1000 and t:max():item() < 1001)
  t = tensor.rand(100000)
  lu.assertTrue(t:min():item() >= 0 and t:max():item() < 1)
end

function T.test_permutations()
  tensor.manual_seed(2)
  for n = 1, 200 do
    local t = tensor.randperm(n)
    lu.assertEquals(t.dtype, "i32")
    local list, seen = t:totable(), {}
    lu.assertEquals(#list, n)
    for _, v in ipairs(list) do
      lu.assertTrue(v >= 1 and v <= n and not seen[v])
      seen[v] = true
    end
  end
  local counts = {}
  for _ = 1, 6000 do
    local name = table.concat(tensor.randperm(3):totable())
    counts[name] = (counts[name] or 0) + 1
  end
  local chi_square, kinds = 0, 0
  for _, count in pairs(counts) do chi_square, kinds = chi_square + (count - 1000) ^ 2 / 1000, kinds + 1 end
  lu.assertEquals(kinds, 6)
  lu.assertTrue(chi_square < 25.7, chi_square) -- passed once in 10,000 times
end

---- Seeds and streams ----

local function draw() return tensor.randn(5):tobytes() .. tensor.rand(3):tobytes() .. tensor.randperm(9):tobytes() end

function T.test_a_seed_starts_the_same_numbers_again()
  tensor.manual_seed(42)
  local first, later = draw(), draw()
  lu.assertNotEquals(first, later)
  tensor.manual_seed(42)
  lu.assertEquals(draw(), first)
  lu.assertEquals(draw(), later)
  tensor.manual_seed(43)
  lu.assertNotEquals(draw(), first)
  tensor.manual_seed(42.0)
  lu.assertEquals(draw(), first)
end

function T.test_the_state_can_be_taken_and_given_back()
  tensor.manual_seed(7)
  draw()
  local state = random.state()
  local first = draw()
  lu.assertEquals(state, { seed = 7, count = 3 })
  random.set_state(state)
  lu.assertEquals(draw(), first)
end

function T.test_the_shape_does_not_change_the_numbers()
  tensor.manual_seed(8)
  local a = tensor.randn(2, 3, 4)
  tensor.manual_seed(8)
  lu.assertEquals(tensor.randn(24):tobytes(), a:tobytes())
  tensor.manual_seed(8)
  lu.assertEquals(tensor.randn(100):narrow(1, 1, 24):tobytes(), a:tobytes())
end

function T.test_the_number_of_threads_does_not_change_the_numbers()
  bits.check_same [[
    tensor.manual_seed(3)
    show(tensor.randn(70001), tensor.rand(70001), tensor.randperm(70001), tensor.uniform({ 300, 301 }, -2, 2))]]
end

function T.test_messages()
  lu.assertStrContains(check.message(tensor.manual_seed, "x"), "the seed must be a whole number, got x")
  lu.assertStrContains(check.message(tensor.manual_seed, 1.5), "the seed must be a whole number, got 1.5")
  lu.assertStrContains(check.message(tensor.randperm, 0), "permutation: n must be 1 or more, got 0")
  lu.assertStrContains(check.message(create.normal_, tensor.zeros(2, 3):transpose(), 1, 1), "need a contiguous tensor")
end

return T
