local lu = require "luaunit"
local feral = require "feral"
local check = require "check"
local temporary = require "temporary"
local tensor, safetensors = feral.tensor, feral.safetensors

local T = {}

local function sample()
  return {
    { "b.weight", check.randn(3, 4) }, { "a", tensor({ 1, 2, 255 }, "u8") }, { "single", tensor(7) },
    { "i", tensor({ { -1 }, { 2147483647 } }, "i32") },
  }
end

function T.test_round_trip_keeps_every_bit()
  local dir <close> = temporary.folder()
  local list = sample()
  list[5] = { "view", check.randn(2, 3, 4, 5):permute(4, 1, 3, 2) }
  assert(safetensors.save(dir / "x", list, { note = "a \"quoted\" text\n" }))
  local tensors, metadata = safetensors.load(dir / "x")
  lu.assertEquals(metadata, { note = "a \"quoted\" text\n" })
  for _, pair in ipairs(list) do
    lu.assertEquals(tensors[pair[1]].shape, pair[2].shape)
    lu.assertEquals(tensors[pair[1]].dtype, pair[2].dtype)
    lu.assertEquals(tensors[pair[1]]:tobytes(), pair[2]:tobytes())
  end
end

function T.test_a_file_cut_at_any_byte_is_refused_with_its_name()
  local dir <close> = temporary.folder()
  assert(safetensors.save(dir / "x", sample()))
  local file = assert(io.open(dir / "x", "rb"))
  local bytes = file:read("a")
  file:close()
  for length = 0, #bytes - 1 do
    local tensors, message = safetensors.load(temporary.write(dir / "cut", bytes:sub(1, length)))
    lu.assertNil(tensors)
    lu.assertStrContains(message, dir / "cut: ")
  end
end

--- A file with this header text and so many bytes of data.
local function crafted(dir, header, data)
  return temporary.write(dir / "bad", string.pack("<I8", #header) .. header .. ("\0"):rep(data))
end

function T.test_headers_that_lie_are_refused()
  local dir <close> = temporary.folder()
  local cases = {
    { '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}', 12, "has 12 bytes, its shape takes 8" },
    { '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 4, "passes the end" },
    { '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8,
      "overlaps" },
    { '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8, "leaves a gap" },
    { '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 8, "belong to no tensor" },
    { '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', 4, "a shape that cannot be" },
    { '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', 4, "a shape that cannot be" },
    { '{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', 2, "no dtype that can be read" },
    { '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0.5,4.5]}}', 5, "has no offsets" },
    { '{"a":7}', 0, "no dtype" }, { '[1,2]', 8, "its header is damaged" },
    { '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}9"b"9}', 4, "its header is damaged" },
    { '{"a":', 4, "its header is damaged" }, { "", 0, "its header is damaged" },
    { ("["):rep(200000), 0, "damaged" },
  }
  for _, case in ipairs(cases) do
    local tensors, message = safetensors.load(crafted(dir, case[1], case[2]))
    lu.assertNil(tensors, case[1]:sub(1, 80))
    lu.assertStrContains(message, case[3])
  end
  local _, message = safetensors.load(temporary.write(dir / "huge", string.pack("<I8", 1 << 32) .. "{}"))
  lu.assertStrContains(message, "cut off: its header would take 4294967296 bytes")
  _, message = safetensors.load(temporary.write(dir / "negative", string.pack("<i8", -1) .. "{}"))
  lu.assertStrContains(message, "its header would take")
  _, message = safetensors.load(dir / "absent")
  lu.assertStrContains(message, dir / "absent")
end

function T.test_a_full_disk_leaves_the_old_file_whole()
  local dir <close> = temporary.folder()
  assert(safetensors.save(dir / "x", { { "a", tensor { 1 } } }))
  local output = temporary.run_on_full_disk(([[
    local feral = require "feral"
    print(feral.safetensors.save(%q, { { "a", feral.tensor.zeros(10000) } }))]]):format(dir / "x"))
  lu.assertStrMatches(output, "nil\t.*x.*\n")
  lu.assertEquals(safetensors.load(dir / "x").a:totable(), { 1 })
end

function T.test_numbers_of_headers_survive_exactly()
  local json = feral.json
  local value = { a = 0.1 + 0.2, b = 1 / 3, c = { 1, 2, 3 }, d = "é\n", e = true, f = 123456789012 }
  lu.assertEquals(json.decode(json.encode(value)), value)
  lu.assertEquals(json.encode(value), json.encode(json.decode(json.encode(value))))
  lu.assertNil((json.decode("{")))
end

---- Other sizes of numbers ----

--- A file of one tensor 'a', of these bytes.
local function one(dir, dtype, shape, bytes)
  local header = ('{"a":{"dtype":"%s","shape":%s,"data_offsets":[0,%d]}}'):format(dtype, shape, #bytes)
  return temporary.write(dir / "one", string.pack("<I8", #header) .. header .. bytes)
end

--- A half by its definition: sign, five bits of exponent, ten of fraction.
local function half_value(bits)
  local sign, exponent, fraction = bits >> 15 == 1 and -1.0 or 1.0, bits >> 10 & 31, bits & 1023
  if exponent == 31 then return fraction == 0 and sign * math.huge or 0 / 0 end
  if exponent == 0 then return sign * fraction * 2.0 ^ -24 end
  return sign * (1024 + fraction) * 2.0 ^ (exponent - 25)
end

local function all_halves()
  local parts = {}
  for bits = 0, 65535 do parts[bits + 1] = string.pack("<I2", bits) end
  return table.concat(parts)
end

function T.test_all_halves_are_read_to_the_bit_and_come_back()
  local dir <close> = temporary.folder()
  local a = assert(safetensors.load(one(dir, "F16", "[256,256]", all_halves()))).a
  lu.assertEquals({ a.dtype, a.shape }, { tensor.zeros(1).dtype, { 256, 256 } })
  local numbers, back = a:reshape(65536):totable(), a:tobytes("f2")
  for bits = 0, 65535 do
    local expected, got, again = half_value(bits), numbers[bits + 1], string.unpack("<I2", back, 2 * bits + 1)
    if expected ~= expected then
      lu.assertTrue(got ~= got, bits)
      lu.assertEquals(again & 0x7fff, 0x7e00) -- one NaN stands for all
    else
      lu.assertTrue(got == expected and 1 / got == 1 / expected, bits)
      lu.assertEquals(again, bits)
    end
  end
end

--- Between each two neighbours, the middle goes to the even one, and what lies a little beside it to the nearer.
function T.test_halves_are_rounded_to_the_nearest_and_to_even()
  local values, expected = {}, {}
  local function add(value, bits)
    values[#values + 1], expected[#expected + 1] = value, bits
    values[#values + 1], expected[#expected + 1] = -value, bits | 0x8000
  end
  for bits = 0, 0x7bff do
    local low, high = half_value(bits), bits == 0x7bff and 65536 or half_value(bits + 1)
    local middle, little = (low + high) / 2, (high - low) / 256
    add(middle, bits % 2 == 0 and bits or bits + 1)
    add(middle - little, bits)
    add(middle + little, bits + 1)
  end
  add(2.0 ^ -25, 0)
  add(2.0 ^ -126, 0)
  add(1e30, 0x7c00)
  local bytes = tensor(values):tobytes("f2")
  for i, bits in ipairs(expected) do
    if string.unpack("<I2", bytes, 2 * i - 1) ~= bits then
      lu.fail(("%g: %04x expected, got %04x"):format(values[i], bits, string.unpack("<I2", bytes, 2 * i - 1)))
    end
  end
end

function T.test_a_file_of_halves_is_half_as_large_and_keeps_vectors()
  local dir <close> = temporary.folder()
  local list = {
    { "weight", check.randn(8, 4, 3, 3):permute(1, 4, 2, 3) }, { "mean", tensor { 1e6, 0.1 } },
    { "labels", tensor({ { 70000 } }, "i32") },
  }
  assert(safetensors.save(dir / "half", list, nil, { dtype = "f16" }))
  local _, entries = safetensors.look(dir / "half")
  lu.assertEquals({ entries[1].dtype, entries[1].shape }, { "F16", { 8, 3, 4, 3 } })
  local t = assert(safetensors.load(dir / "half"))
  lu.assertEquals({ t.mean:tobytes(), t.labels:totable() }, { list[2][2]:tobytes(), { { 70000 } } })
  check.close(t.weight, list[1][2], 2e-3)
  assert(safetensors.save(dir / "again", { { "weight", t.weight } }, nil, { dtype = "f16" })) -- rounded once is rounded for good
  lu.assertEquals(safetensors.load(dir / "again").weight:tobytes(), t.weight:tobytes())
end

function T.test_what_no_half_can_hold_is_refused()
  local dir <close> = temporary.folder()
  for _, value in ipairs { 65505, -1e5, 1 / 0, 0 / 0 } do
    local saved, message = safetensors.save(dir / "x", { { "w", tensor { { 1, value } } } }, nil, { dtype = "f16" })
    lu.assertNil(saved)
    lu.assertEquals(message, dir / "x: tensor 'w' has numbers that no f16 can hold (beyond 65504)")
  end
  local message = check.message(safetensors.save, dir / "x", {}, nil, { dtype = "f8" })
  lu.assertStrContains(message, "dtype must be 'f16' or nil, got f8")
end

function T.test_numbers_of_other_software()
  local dir <close> = temporary.folder()
  local function load(dtype, format, ...)
    local bytes = {}
    for i, number in ipairs { ... } do bytes[i] = string.pack(format, number) end
    local t = assert(safetensors.load(one(dir, dtype, ("[%d]"):format(#bytes), table.concat(bytes)))).a
    return { t.dtype, t:totable() }
  end
  local real = tensor.zeros(1).dtype
  lu.assertEquals(load("F64", "<d", 0.5, -2), { real, { 0.5, -2 } })
  lu.assertEquals(load("F32", "<f", 0.25, 3), { real, { 0.25, 3 } })
  lu.assertEquals(load("BF16", "<I2", 0x3f80, 0xc040, 0x0001), { real, { 1, -3, 2.0 ^ -133 } })
  lu.assertEquals(load("I64", "<i8", 70000, -1), { "i32", { 70000, -1 } })
  lu.assertEquals(load("I16", "<i2", -300), { "i32", { -300 } })
  lu.assertEquals(load("I8", "<i1", -3), { "i32", { -3 } })
  lu.assertEquals(load("U16", "<I2", 65535), { "i32", { 65535 } })
  lu.assertEquals(load("U32", "<I4", 7), { "i32", { 7 } })
  lu.assertEquals(load("BOOL", "B", 1, 0), { "u8", { 1, 0 } })
  local counter = assert(safetensors.load(one(dir, "I64", "[]", string.pack("<i8", 12)))).a -- as PyTorch's num_batches_tracked
  lu.assertEquals({ counter.shape, counter:item() }, { {}, 12 })
end

function T.test_a_whole_number_that_does_not_fit_is_named()
  local dir <close> = temporary.folder()
  local tensors, message = safetensors.load(one(dir, "I64", "[2]", string.pack("<i8i8", 1, 1 << 40)))
  lu.assertNil(tensors)
  lu.assertEquals(message, dir / "one: element 2 does not fit into i32 (tensor 'a')")
end

function T.test_look_reads_no_numbers()
  local dir <close> = temporary.folder()
  assert(safetensors.save(dir / "x", sample(), { note = "n" }))
  local metadata, list = safetensors.look(dir / "x")
  lu.assertEquals(metadata, { note = "n" })
  lu.assertEquals({ list[1].name, list[1].shape, list[3].shape }, { "b.weight", { 3, 4 }, {} })
  local _, message = safetensors.look(dir.path)
  lu.assertStrContains(message, "is a directory")
end

return T
