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
    { '{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', 4, "no dtype that can be read" },
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

return T
