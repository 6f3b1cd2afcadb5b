local lu = require "luaunit"
local feral = require "feral"
local files = require "feral.core.files"
local check, temporary, layouts = require "check", require "temporary", require "layouts"
local tensor = feral.tensor

local T = {}
local REAL = check.is_double and "f64" or "f32"

--- A file of this version, header and numbers.
local function npy(header, numbers, version)
  version = version or 1
  local length = version == 1 and string.pack("<I2", #header) or string.pack("<I4", #header)
  return "\x93NUMPY" .. string.char(version, 0) .. length .. header .. numbers
end

local function header(descr, fortran, shape)
  return ("{'descr': %s, 'fortran_order': %s, 'shape': %s, }"):format(descr, fortran, shape)
end

local function load_bytes(bytes)
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "a.npy", bytes)
  local t, message = tensor.load(path)
  if t == nil then
    lu.assertEquals(message:sub(1, #path + 2), path .. ": ")
    message = message:sub(#path + 3)
  end
  return t, message
end

--- What numpy 1.24 writes, to the byte: a header of 118 (or 116) characters, then the numbers.
local function of_numpy(text, numbers, version)
  return npy(text .. (" "):rep((version == 3 and 116 or 118) - #text - 1) .. "\n", numbers, version)
end

-- numpy.save of numpy.asfortranarray(numpy.arange(6.).reshape(2, 3) / 4), of int64, bool and, in version 3.0, of 7.5
local from_numpy = {
  { of_numpy("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3), }", string.pack("<dddddd", 0, 0.75, 0.25, 1, 0.5, 1.25)),
    { { 0, 0.25, 0.5 }, { 0.75, 1, 1.25 } } },
  { of_numpy("{'descr': '<i8', 'fortran_order': False, 'shape': (2, 1), }", string.pack("<i8i8", 1, -2147483648)),
    { { 1 }, { -2147483648 } }, "i32" },
  { of_numpy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", "\1\0\1"), { 1, 0, 1 }, "u8" },
  { of_numpy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "\0\0\xf0\x40", 3), 7.5 },
}

function T.test_files_of_numpy()
  for _, case in ipairs(from_numpy) do
    local t = assert(load_bytes(case[1]))
    lu.assertEquals(t:totable(), case[2])
    lu.assertEquals(t.dtype, case[3] or REAL)
  end
end

function T.test_what_is_written_is_what_numpy_writes()
  local dir <close> = temporary.folder()
  local cases = {
    { tensor({ { 1 }, { -7 } }, "i32"), "'<i4'", "(2, 1)", string.pack("<i4i4", 1, -7) },
    { tensor({ 1, 2, 255 }, "u8"), "'|u1'", "(3,)", "\1\2\xff" },
    { tensor(0.5), check.is_double and "'<f8'" or "'<f4'", "()", string.pack(check.is_double and "<d" or "<f", 0.5) },
  }
  for _, case in ipairs(cases) do
    assert(tensor.save(dir / "a", case[1]))
    lu.assertTrue(files.read(dir / "a") == of_numpy(header(case[2], "False", case[3]), case[4]))
  end
end

function T.test_round_trip_of_odd_shapes_layouts_and_dtypes()
  local dir <close> = temporary.folder()
  for i = 1, 240 do
    local shape = {}
    for d = 1, i % 7 do shape[d] = check.integer(1, 4) end
    local dtype = ({ REAL, "u8", "i32" })[i % 3 + 1]
    local t = (check.randn(table.unpack(shape)) * 50):to(dtype)
    if #shape > 0 then t = layouts.vary(t) end
    assert(tensor.save(dir / "a", t))
    local back = assert(tensor.load(dir / "a"))
    lu.assertEquals(back.shape, t.shape)
    lu.assertEquals(back.dtype, dtype)
    lu.assertTrue(back:tobytes() == t:tobytes())
    lu.assertEquals(files.read(dir / "a"):find("\n", 1, true) % 64, 0)
  end
end

function T.test_column_major_files_of_odd_shapes()
  for i = 1, 60 do
    local shape, strides, count = {}, {}, 1
    for d = 1, i % 6 + 1 do
      shape[d], strides[d] = check.integer(1, 4), count
      count = count * shape[d]
    end
    local numbers = {}
    for k = 1, count do numbers[k] = string.pack("<i2", k - 5) end
    local t = assert(load_bytes(npy(header("'<i2'", "True", "(" .. table.concat(shape, ", ") .. ",)"), table.concat(numbers))))
    lu.assertEquals(t.shape, shape)
    local expected = {}
    local function go(d, offset)
      if d > #shape then
        expected[#expected + 1] = offset - 4
        return
      end
      for k = 0, shape[d] - 1 do go(d + 1, offset + k * strides[d]) end
    end
    go(1, 0)
    lu.assertEquals(check.flat(t), expected)
  end
end

function T.test_every_kind_of_number()
  local cases = {
    { "<f4", "f", { 1.5, -2 } }, { "<f8", "d", { 1.5, -2 } }, { "|u1", "B", { 0, 255 } }, { "|b1", "B", { 0, 1 } },
    { "|i1", "b", { -128, 127 } }, { "<i2", "i2", { -32768, 32767 } }, { "<u2", "I2", { 0, 65535 } },
    { "<i4", "i4", { -2147483648, 2147483647 } }, { "<u4", "I4", { 0, 2147483647 } },
    { "<i8", "i8", { -2147483648, 2147483647 } }, { "<u8", "I8", { 0, 2147483647 } },
  }
  for _, case in ipairs(cases) do
    local many = {} -- more than one piece of the reader
    for k = 1, 20001 do many[k] = case[3][k % 2 + 1] end
    local numbers = {}
    for k, v in ipairs(many) do numbers[k] = string.pack("<" .. case[2], v) end
    local t = assert(load_bytes(npy(header("'" .. case[1] .. "'", "False", "(20001,)"), table.concat(numbers))))
    lu.assertTrue(table.concat(t:totable(), " ") == table.concat(check.flat(tensor(many, t.dtype)), " "), case[1])
  end
end

function T.test_whole_numbers_that_do_not_fit_are_named()
  for _, case in ipairs { { "<i8", "<i8", 5000000000 }, { "<i8", "<i8", -2147483649 }, { "<u4", "<I4", 2147483648 },
    { "<u8", "<I8", -1 }, { "<i8", "<i8", math.mininteger } } do
    local bytes = npy(header("'" .. case[1] .. "'", "False", "(2,)"), string.pack(case[2] .. case[2]:sub(2), 7, case[3]))
    lu.assertEquals({ load_bytes(bytes) }, { nil, "element 2 does not fit into i32" })
  end
end

function T.test_headers_may_be_written_in_other_ways()
  local numbers = "\1\2\3\4\5\6"
  for _, text in ipairs {
    "{'shape':(2,3),'fortran_order':False,'descr':'|u1'}", '{"descr": "|u1", "fortran_order": False, "shape": (2, 3)}\n',
    "  { 'descr' : '|u1' , 'shape' : ( 2 , 3 , ) , 'fortran_order' : False , }  \n", header("'|u1'", "False", "(2L, 3L)"),
  } do
    for version = 1, 3 do
      local t, message = load_bytes(npy(text, numbers, version))
      lu.assertEquals(t and t:totable(), { { 1, 2, 3 }, { 4, 5, 6 } }, message)
    end
  end
end

function T.test_a_file_cut_at_any_byte_is_refused()
  for version = 1, 3 do
    local bytes = npy(header("'<i4'", "False", "(2, 3)") .. "\n", ("\1"):rep(24), version)
    lu.assertNotNil((load_bytes(bytes)))
    for length = 0, #bytes - 1 do lu.assertNil((load_bytes(bytes:sub(1, length)))) end
  end
end

function T.test_a_file_with_any_byte_changed_is_read_or_refused()
  local bytes = npy(header("'<i4'", "False", "(2, 3)") .. "\n", ("\1"):rep(24))
  for place = 1, #bytes - 24 do
    for _, byte in ipairs { "\0", "\xff", "9", "(", "'" } do
      local t = load_bytes(bytes:sub(1, place - 1) .. byte .. bytes:sub(place + 1))
      lu.assertTrue(t == nil or t:numel() * (t.dtype == "i32" and 4 or 1) <= 24)
    end
  end
end

function T.test_damage_is_named()
  local good = header("'<f4'", "False", "(2,)")
  local cases = {
    { "", "not a .npy file: shorter than 10 bytes" },
    { "P5 2 2 255 abcdefgh", "not a .npy file" },
    { npy(good, ("\0"):rep(8), 4), "version 4.0, 1.0 to 3.0 can be read" },
    { npy(good, ("\0"):rep(8), 0), "version 0.0, 1.0 to 3.0 can be read" },
    { npy(good, ("\0"):rep(4)), "4 bytes of elements, its shape (2) of '<f4' takes 8" },
    { npy(good, ("\0"):rep(9)), "9 bytes of elements, its shape (2) of '<f4' takes 8" },
    { "\x93NUMPY\2\0\xff\xff\xff\xff{}", "damaged or cut off: its header would take 4294967295 bytes of 14" },
    { npy((" "):rep(70000), "", 2), "damaged or cut off: its header would take 70000 bytes of 70012" },
    { npy(header("'>f4'", "False", "(2,)"), ("\0"):rep(8)), "dtype '>f4' is big-endian" },
    { npy(header("'<b2'", "False", "(2,)"), ("\0"):rep(4)), "dtype '<b2' is unknown" },
    { npy(header("'<c16'", "False", "(2,)"), ("\0"):rep(32)), "dtype '<c16' is unknown" },
    { npy(header("'|f4'", "False", "(2,)"), ("\0"):rep(8)), "dtype '|f4' is unknown" },
    { npy(header("'<M8[ns]'", "False", "(2,)"), ("\0"):rep(16)), "dtype '<M8[ns]' is unknown" },
    { npy(header("'|O'", "False", "(2,)"), "\x80\4."), "an array of Python objects" },
    { npy(header("[('a', '<f4'), ('b', '<i4')]", "False", "(2,)"), ("\0"):rep(16)), "an array of records" },
    { npy(header("'<f4'", "False", "(0, 3)"), ""), "an array without elements" },
    { npy(header("'<f4'", "False", "(1, 1, 1, 1, 1, 1, 1)"), "\0\0\0\0"), "an array of 7 dimensions, at most 6 are possible" },
    { npy(header("'<f4'", "False", "(4294967296, 4294967296)"), ""), "a shape that cannot be" },
    { npy(header("'<f4'", "False", "(9223372036854775807,)"), ""), "its header is damaged" },
    { npy(header("'<f4'", "False", "(-1,)"), ""), "its header is damaged" },
    { npy(header("'<f4'", "False", "(2)"), ("\0"):rep(8)), "its header is damaged" },
    { npy(header("'<f4'", "False", "(,)"), ("\0"):rep(8)), "its header is damaged" },
    { npy(header("'<f4'", "False", "(2,,)"), ("\0"):rep(8)), "its header is damaged" },
    { npy(header("'<f4'", "0", "(2,)"), ("\0"):rep(8)), "its header is damaged" },
    { npy(header("os.remove('x')", "False", "(2,)"), ("\0"):rep(8)), "its header is damaged" },
    { npy("{'descr': '<f4', 'shape': (2,)}", ("\0"):rep(8)), "its header lacks descr, fortran_order or shape" },
    { npy("{'descr': (2,), 'fortran_order': False, 'shape': '<f4'}", ("\0"):rep(8)),
      "its header lacks descr, fortran_order or shape" },
    { npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", ("\0"):rep(8)), "its header is damaged" },
    { npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': True}", ("\0"):rep(8)),
      "its header has entries too many" },
    { npy(good .. " print(1)", ("\0"):rep(8)), "its header is damaged" },
    { npy("", ("\0"):rep(8)), "its header is damaged" },
    { npy("{", ("\0"):rep(8)), "its header is damaged" },
    { npy("{'descr", ("\0"):rep(8)), "its header is damaged" },
  }
  for _, case in ipairs(cases) do lu.assertEquals({ load_bytes(case[1]) }, { nil, case[2] }) end
end

function T.test_what_cannot_be_read_or_written_is_named()
  local dir <close> = temporary.folder()
  lu.assertEquals({ tensor.load(dir / "none") }, { nil, dir / "none" .. ": No such file or directory" })
  lu.assertEquals({ tensor.load(dir.path) }, { nil, dir.path .. ": is a directory" })
  lu.assertEquals({ tensor.save(dir / "no/such", tensor.zeros(2)) }, { nil, dir / "no/such" .. ": No such file or directory" })
  lu.assertStrContains(check.message(tensor.save, dir / "a", { 1, 2 }), "save: a tensor expected, got table")
end

function T.test_a_full_disk_leaves_the_old_file_whole()
  local dir <close> = temporary.folder()
  assert(tensor.save(dir / "x", tensor { 1, 2 }))
  local output = temporary.run_on_full_disk(([[
    local feral = require "feral"
    print(feral.tensor.save(%q, feral.tensor.zeros(10000)))]]):format(dir / "x"))
  lu.assertStrMatches(output, "nil\t.*x: .*\n")
  lu.assertEquals(assert(tensor.load(dir / "x")):totable(), { 1, 2 })
end

function T.test_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  temporary.write(dir / "f", from_numpy[1][1])
  check.survives_lack_of_memory(function()
    local t = tensor.load(dir / "f")
    tensor.save(dir / "g", t)
  end)
end

return T
