--- Lines of a table: what stands in them is in tests/data/test_data.lua.

local lu = require "luaunit"
local feral = require "feral"
local csv = require "feral.formats.csv"
local temporary = require "temporary"
local data = feral.data

local T = {}

function T.test_a_file_that_cannot_be_read_on_is_no_end()
  local dir <close> = temporary.folder()
  local next_line = assert(csv.lines(dir.path)) -- a folder can be opened, not read
  lu.assertEquals({ next_line() }, { nil, dir.path .. ": Is a directory" })
  local rest, seen = csv.rest(assert(csv.lines(dir.path))), {}
  for number, line in rest do seen[#seen + 1] = { number, line } end
  lu.assertEquals(seen, { { false, dir.path .. ": Is a directory" } })
  lu.assertEquals({ data.csv(dir.path) }, { nil, dir.path .. ": Is a directory" })
end

function T.test_rest_gives_the_lines_that_are_left()
  local dir <close> = temporary.folder()
  local next_line = assert(csv.lines(temporary.write(dir / "a.csv", "\xEF\xBB\xBFhead\r\n\na\r\n  \nb")))
  lu.assertEquals({ next_line() }, { 1, "head" })
  local seen = {}
  for number, line in csv.rest(next_line) do seen[#seen + 1] = number .. line end
  lu.assertEquals(seen, { "3a", "5b" })
end

return T
