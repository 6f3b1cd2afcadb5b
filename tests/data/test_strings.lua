--- Lists of strings in the engine's memory.

local lu = require "luaunit"
local feral = require "feral"
local strings = require "feral.core.strings"
local files = require "feral.core.files"
local check = require "check"
local temporary = require "temporary"
local tensor = feral.tensor

local T = {}

--- Texts of all lengths, some empty, some twice in a row.
local function random_texts(n)
  local texts = {}
  for i = 1, n do
    local length = check.integer(0, 40)
    texts[i] = i > 1 and check.integer(0, 5) == 0 and texts[i - 1] or string.char(check.integer(1, 255)):rep(length)
  end
  return texts
end

function T.test_a_list_is_what_was_put_in()
  for _, n in ipairs { 0, 1, 2, 63, 64, 65, 3000 } do
    local texts, list = random_texts(n), strings.new()
    for _, text in ipairs(texts) do list:add(text) end
    lu.assertEquals(#list, n)
    lu.assertEquals(list:totable(), texts)
    lu.assertEquals(strings.new(texts):totable(), texts)
    local seen = {}
    for i, text in ipairs(list) do seen[i] = text end
    lu.assertEquals(seen, texts)
    seen = {}
    for i, text in pairs(list) do seen[i] = text end
    lu.assertEquals(seen, texts)
    lu.assertNil(list[0])
    lu.assertNil(list[n + 1])
  end
end

function T.test_selections_share_the_bytes_and_outlive_the_list()
  local texts = random_texts(500)
  local list = strings.new(texts)
  local picked = list:select(tensor({ 500, 1, 1, 77 }, "i32"))
  lu.assertTrue(picked:bytes() <= 4 * 8)
  local again = picked:select(tensor({ 4, 2 }, "i32"))
  list = nil -- luacheck: ignore
  picked = nil -- luacheck: ignore
  collectgarbage()
  collectgarbage()
  lu.assertEquals(again:totable(), { texts[77], texts[1] })
end

function T.test_a_list_in_use_grows_no_more()
  local list = strings.new { "a", "b" }
  list:select(tensor({ 1 }, "i32"))
  lu.assertStrContains(check.message(list.add, list, "c"), "strings: this list is in use and grows no more")
end

function T.test_what_is_refused()
  local list = strings.new()
  lu.assertStrContains(check.message(list.add, list, 7), "strings: a string expected, got number")
  lu.assertStrContains(check.message(list.add, list, "a\0b"), "strings: a string with a zero byte cannot be kept")
  lu.assertStrContains(check.message(strings.new, { "a", {} }), "strings: a string expected, got table")
  list = strings.new { "a" }
  lu.assertStrContains(check.message(list.select, list, tensor({ 2 }, "i32")), "strings: number 2 is outside of 1..1")
end

function T.test_it_prints_its_first_strings()
  lu.assertEquals(tostring(strings.new()), "0 strings")
  lu.assertEquals(tostring(strings.new { "a", "b" }), "2 strings: a, b")
  lu.assertEquals(tostring(strings.new { "a", "b", "c", "d" }), "4 strings: a, b, c ...")
end

--- Files as a listing of folders gives them, name by name, in the order of names.
local function by_listing(dir, depth, found)
  local names, kinds = files.list(dir)
  for _, name in ipairs(names) do
    if kinds[name] == "directory" then
      if depth > 0 then by_listing(dir .. "/" .. name, depth - 1, found) end
    elseif name:lower():find("%.jpg$") or name:lower():find("%.png$") then
      found[#found + 1] = dir .. "/" .. name
    end
  end
  return found
end

function T.test_files_of_a_folder_come_in_the_order_of_its_names()
  local dir <close> = temporary.folder()
  for _, path in ipairs { "a/b", "a/b/c", "a-b", "a b", "empty", ".hidden" } do assert(files.mkdir(dir / path)) end
  for _, path in ipairs { "z.jpg", "a.jpg", "a.PNG", "a/1.jpg", "a/10.jpg", "a/b/x.jpg", "a/b/c/y.png", "a-b/z.jpg", "a b/z.jpg",
    "note.txt", "jpg", "x.jpgg", ".hidden.jpg", ".hidden/a.jpg", "\xFF.jpg", "a.b.jpg" } do
    temporary.write(dir / path, "x")
  end
  for depth = 0, 3 do
    local list = strings.new { "before" }
    local expected = by_listing(dir.path, depth, {})
    lu.assertEquals(list:add_files(dir.path, " jpg png ", depth), #expected)
    table.insert(expected, 1, "before")
    lu.assertEquals(list:totable(), expected)
  end
end

function T.test_a_folder_that_is_not_there()
  local dir <close> = temporary.folder()
  local list = strings.new { "before" }
  lu.assertEquals({ list:add_files(dir / "gone", " jpg ", 1) }, { nil, dir / "gone: No such file or directory" })
  lu.assertEquals(list:totable(), { "before" })
end

function T.test_survives_lack_of_memory()
  local dir <close> = temporary.folder()
  for i = 1, 70 do temporary.write(dir / ("%d.jpg"):format(i), "x") end
  check.survives_lack_of_memory(function()
    local _open <close> = tensor.scope()
    local list = strings.new { "a", ("b"):rep(2000) }
    list:add_files(dir.path, " jpg ", 1)
    list:append(strings.new { ("c"):rep(9000) })
    list:select(tensor({ 1, 2, 3 }, "i32"))
  end)
end

return T
