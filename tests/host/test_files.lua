local lu = require "luaunit"
local files, create, view = require "feral.core.files", require "feral.core.create", require "feral.core.view"
local check, temporary = require "check", require "temporary"

local T = {}

function T.test_what_is_written_is_read_back()
  local dir <close> = temporary.folder()
  for _, bytes in ipairs { "", "a", ("\0\1\255x"):rep(50000) } do
    lu.assertTrue(files.write_atomic(dir / "f", bytes))
    lu.assertTrue(files.read(dir / "f") == bytes)
  end
end

function T.test_a_list_of_strings_and_tensors_is_written_in_order_and_tensors_row_major()
  local dir <close> = temporary.folder()
  local t = create.from_table({ { 1, 2, 3 }, { 4, 5, 6 } }, "u8")
  local big = create.full({ 300, 200 }, 7, "i32")
  assert(files.write_atomic(dir / "f", { "head", t, view.transpose(t), "", view.transpose(big) }))
  local bytes = files.read(dir / "f")
  lu.assertEquals(bytes:sub(1, 16), "head\1\2\3\4\5\6\1\4\2\5\3\6")
  lu.assertTrue(bytes:sub(17) == string.pack("<i4", 7):rep(60000))
end

function T.test_strided_tensors_are_written_as_their_contiguous_copy()
  local dir <close> = temporary.folder()
  for _ = 1, 200 do
    local sizes = {}
    for d = 1, check.integer(1, 5) do sizes[d] = check.integer(1, 4) end
    local t = check.randn(table.unpack(sizes))
    if #sizes > 1 then t = view.transpose(t, check.integer(1, #sizes), check.integer(1, #sizes)) end
    assert(files.write_atomic(dir / "f", t))
    lu.assertTrue(files.read(dir / "f") == create.tobytes(t))
  end
end

function T.test_a_part_is_read_and_the_end_is_not_passed()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "f", "0123456789")
  lu.assertEquals(files.read(path, 3), "3456789")
  lu.assertEquals(files.read(path, 3, 2), "34")
  lu.assertEquals(files.read(path, 10), "")
  for _, range in ipairs { { 11 }, { 9, 2 }, { 0, 11 }, { 1, math.maxinteger } } do
    lu.assertEquals({ files.read(path, table.unpack(range)) }, { nil, path .. ": the file ends too early" })
  end
  lu.assertErrorMsgContains("must not be negative", files.read, path, -1)
end

function T.test_bytes_are_read_straight_into_a_tensor()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "f", "head\1\2\3\4\5\6")
  local t = create.full({ 2, 3 }, 0, "u8")
  lu.assertTrue(files.read_into(path, 4, t) == t)
  lu.assertEquals(create.totable(t), { { 1, 2, 3 }, { 4, 5, 6 } })
  lu.assertEquals({ files.read_into(path, 5, t) }, { nil, path .. ": the file ends too early" })
  lu.assertErrorMsgContains("contiguous", files.read_into, path, 4, view.transpose(t))
end

function T.test_what_cannot_be_read_is_named()
  local dir <close> = temporary.folder()
  os.execute(("ln -s nowhere '%s'"):format(dir / "dangling"))
  local cases = {
    [dir.path] = "is a directory", [dir / "none"] = "No such file or directory", ["/dev/full"] = "is not a regular file",
    [dir / "dangling"] = "No such file or directory", [""] = "No such file or directory",
    [dir / ("x"):rep(5000)] = "File name too long",
  }
  for path, what in pairs(cases) do lu.assertEquals({ files.read(path) }, { nil, path .. ": " .. what }) end
  lu.assertErrorMsgContains("zero byte", files.read, "a\0b")
end

function T.test_what_cannot_be_written_is_named()
  local dir <close> = temporary.folder()
  temporary.write(dir / "file", "")
  local cases = {
    [dir.path] = "is a directory", [dir / "no/where"] = "No such file or directory",
    ["/dev/full"] = "No space left on device", [dir / "file/x"] = "Not a directory",
    [dir / ("x"):rep(5000)] = "File name too long",
  }
  for path, what in pairs(cases) do lu.assertEquals({ files.write_atomic(path, "x") }, { nil, path .. ": " .. what }) end
  lu.assertErrorMsgContains("strings and tensors can be written, got nil", files.write_atomic, dir / "f")
  lu.assertErrorMsgContains("got number", files.write_atomic, dir / "f", { "a", 1 })
  lu.assertEquals(files.list(dir.path), { "file" })
end

function T.test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "f", "old")
  local printed = temporary.run_on_full_disk(([[
    local files = require "feral.core.files"
    print(files.write_atomic("%s", {("x"):rep(400), ("y"):rep(4000)}))]]):format(path))
  lu.assertEquals(printed, "nil\t" .. path .. ": File too large\n")
  lu.assertEquals(files.read(path), "old")
  local left = io.popen(("ls -A '%s'"):format(dir.path)):read("a")
  lu.assertEquals(left, "f\n")
end

function T.test_a_link_stays_a_link_and_an_old_file_keeps_its_rights()
  local dir <close> = temporary.folder()
  local path = temporary.write(dir / "f", "old")
  os.execute(("chmod 600 '%s'; ln -s f '%s'"):format(path, dir / "link"))
  assert(files.write_atomic(dir / "link", "new"))
  lu.assertEquals(files.read(path), "new")
  local listing = io.popen(("ls -l '%s'"):format(dir.path)):read("a")
  lu.assertStrContains(listing, "-rw-------")
  lu.assertStrContains(listing, "link -> f")
end

function T.test_a_folder_is_listed_sorted_and_with_kinds()
  local dir <close> = temporary.folder()
  for _, name in ipairs { "b", "B", "a10", "a9", ".hidden", "é" } do temporary.write(dir / name, "") end
  os.execute(("cd '%s'; mkdir d; ln -s d to_d; ln -s b to_b; ln -s x lost; mkfifo pipe"):format(dir.path))
  local names, kinds = files.list(dir.path)
  lu.assertEquals(names, { "B", "a10", "a9", "b", "d", "lost", "pipe", "to_b", "to_d", "é" })
  local expected = { d = "directory", to_d = "directory", lost = "link", pipe = "other" }
  for _, name in ipairs(names) do lu.assertEquals(kinds[name], expected[name] or "file", name) end
  lu.assertEquals({ files.list(dir / "b") }, { nil, dir / "b" .. ": Not a directory" })
  lu.assertEquals({ files.list(dir / "none") }, { nil, dir / "none" .. ": No such file or directory" })
end

function T.test_folders_are_made_with_those_above()
  local dir <close> = temporary.folder()
  lu.assertTrue(files.mkdir(dir / "x/y/z"))
  lu.assertTrue(files.mkdir(dir / "x/y/z/"))
  lu.assertEquals(files.look(dir / "x/y/z"), "directory")
  temporary.write(dir / "x/file", "")
  for _, name in ipairs { "x/file", "x/file/below" } do
    lu.assertEquals({ files.mkdir(dir / name) }, { nil, dir / name .. ": Not a directory" })
  end
  lu.assertEquals({ files.look(temporary.write(dir / "f", "12345")) }, { "file", 5 })
end

function T.test_lack_of_memory_leaves_nothing_behind()
  local dir <close> = temporary.folder()
  for i = 1, 20 do temporary.write(dir / ("a rather long name that is not interned by Lua, number %d"):format(i), "x") end
  check.survives_lack_of_memory(function()
    files.list(dir.path)
    files.write_atomic(dir / "f", { "some text", "more" })
    files.read(dir / "f")
  end)
end

return T
