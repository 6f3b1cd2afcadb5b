local lu = require "luaunit"
local program = require "program"

local T = {}

--- What the code shows on a terminal of so many columns.
local function on_terminal(columns, code)
  local path = program.file("local progress = require 'feral.host.progress' " .. code)
  local output = program.shell(("script -qefc \"stty cols %d; '$F' %s\" /dev/null"):format(columns, path))
  os.remove(path)
  return output
end

local whole = [[
  local bar = progress.new()
  bar:start("epoch 1/2", 10)
  bar:update(5, "loss 0.5", 64)
  bar.drawn_at = 0
  bar:update(10, "loss 0.4", 64)
  bar:clear() print "done" ]]

function T.test_a_bar_fills_and_is_wiped_off()
  local output = on_terminal(120, whole)
  lu.assertStrContains(output, "\repoch 1/2 [" .. ("="):rep(15) .. (" "):rep(15) .. "] 5/10  loss 0.5  ")
  lu.assertStrContains(output, "\repoch 1/2 [" .. ("="):rep(30) .. "] 10/10  loss 0.4  ")
  lu.assertStrMatches(output, ".*/s  0:00 left\27%[K\r\27%[Kdone\r?\n")
end

function T.test_it_never_reaches_the_end_of_a_narrow_line()
  for _, columns in ipairs { 8, 30, 50, 79 } do
    for line in on_terminal(columns, whole):gmatch("\r([^\r\n\27]+)\27") do
      lu.assertTrue(#line < columns, line)
    end
  end
end

function T.test_time_left()
  local output = on_terminal(120, [[
    local system = require "feral.core.system"
    local bar = progress.new()
    for _, seconds in ipairs { 65, 3725 } do
      bar:start("x", 100)
      bar.started = system.clock() - seconds
      bar:update(50)
    end ]])
  lu.assertStrContains(output, "1:05 left")
  lu.assertStrContains(output, "1:02:05 left")
end

function T.test_what_was_done_before_does_not_count_for_the_time_left()
  lu.assertStrContains(on_terminal(120, [[
    local bar = progress.new()
    bar:start("x", 100, 90)
    bar.started = bar.started - 50
    bar:update(95, "", 5) ]]), "0:50 left")
end

function T.test_nothing_is_shown_where_there_is_no_terminal_or_nobody_wants_it()
  local _, errors = program.shell(('"$F" -e \'local progress = require "feral.host.progress" %s\''):format(whole))
  lu.assertEquals(errors, "")
  lu.assertEquals(on_terminal(80, (whole:gsub("progress.new%(%)", "progress.new(false)"))):gsub("\r", ""), "done\n")
end

return T
