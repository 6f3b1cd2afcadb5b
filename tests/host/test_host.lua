local lu = require "luaunit"
local program = require "program"
local args = require "feral.host.args"
local run, signal = program.run, program.signal

local T = {}

local function check(words, input, expected)
  local output, errors, code = run(words, input)
  lu.assertEquals({ output, errors, code }, expected)
end

-- ---- options, arg, exit codes ----

function T.test_code_libraries_and_scripts_run_in_the_order_of_lua()
  check({ "-e", "print(1)", "-e", "print(2)" }, nil, { "1\n2\n", "", 0 })
  check({ "-eprint(3)" }, nil, { "3\n", "", 0 })
  check({ "-l", "s=string", "-e", "print(s.rep('x', 3))" }, nil, { "xxx\n", "", 0 })
  check({ "-lferal", "-e", "print(feral.version)" }, nil, { require("feral").version .. "\n", "", 0 })
  check({ "-" }, "print('from stdin', arg[0])", { "from stdin\t-\n", "", 0 })
  check({}, "print('a script, no terminal')", { "a script, no terminal\n", "", 0 })
  check({ "-W", "-e", "warn('a ', 'b')" }, nil, { "", "Lua warning: a b\n", 0 })
  check({ "-e", "warn('silent')" }, nil, { "", "", 0 })
end

function T.test_arg_and_dots_are_those_of_lua()
  local script = program.file("#!/usr/bin/env feral\nprint(arg[0] == SCRIPT, arg[1], arg[2], #arg, ...) print(arg[-1])", ".lua")
  local set = ("SCRIPT = %q"):format(script)
  check({ "-e", set, script, "a", "-b" }, nil, { "true\ta\t-b\t2\ta\t-b\n" .. set .. "\n", "", 0 })
  check({ "-e", set, "--", script }, nil, { "true\tnil\tnil\t0\n--\n", "", 0 })
  os.remove(script)
  check({ "-e", "print(#arg, arg[1])" }, nil, { "2\t-e\n", "", 0 })
end

function T.test_lua_init_runs_first_unless_e()
  local output = program.shell [[export LUA_INIT='print "init"'; "$F" -e 'print "main"'; "$F" -E -e 'print "main"']]
  lu.assertEquals(output, "init\nmain\nmain\n")
end

function T.test_an_error_ends_with_1_and_a_traceback()
  local script = program.file("local function inner() error('boo') end\ninner()", ".lua")
  local output, errors, code = run { script }
  os.remove(script)
  lu.assertEquals({ output, code }, { "", 1 })
  lu.assertStrContains(errors, "feral: " .. script .. ":1: boo\nstack traceback:\n")
  lu.assertStrContains(errors, script .. ":2: in main chunk")
  check({ "-e", "error(setmetatable({}, {__tostring = function() return 'my error' end}))" }, nil,
    { "", "feral: my error\n", 1 })
  output, errors, code = run { "-e", "error {}" }
  lu.assertEquals(output, "")
  lu.assertStrContains(errors, "feral: (error object is a table value)\n")
  lu.assertEquals(code, 1)
  lu.assertEquals({ run { "-e", "x =" } }, { "", "feral: (command line):1: unexpected symbol near <eof>\n", 1 })
  lu.assertEquals({ run { "-e", "os.exit(7)" } }, { "", "", 7 })
end

function T.test_missing_scripts_and_folders_are_named()
  check({ "no/such.lua" }, nil, { "", "feral: cannot open no/such.lua: No such file or directory\n", 1 })
  local _, errors, code = run { "./tests" }
  lu.assertEquals(code, 1)
  lu.assertStrContains(errors, "feral: cannot read ./tests")
  check({ "tests" }, nil, { "", "feral: cannot read tests: it is a folder\n", 1 })
end

function T.test_unknown_options_and_verbs_name_the_nearest_and_exit_2()
  local output, errors, code = run { "--hlep" }
  lu.assertEquals({ output, code }, { "", 2 })
  lu.assertStrContains(errors, "feral: unknown option '--hlep', did you mean '--help'?\nusage: ")
  output, errors, code = run { "-x" }
  lu.assertEquals(output, "")
  lu.assertStrContains(errors, "feral: unknown option '-x'")
  lu.assertEquals(code, 2)
  output, errors, code = run { "trian", "faces" }
  lu.assertEquals(output, "")
  lu.assertStrContains(errors, "feral: 'trian' is neither a file nor a verb")
  lu.assertEquals(code, 2)
  check({ "-e" }, nil, { "", "feral: '-e' needs an argument\n", 1 })
end

function T.test_help_and_version()
  local output, errors, code = run { "--help" }
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertStrContains(output, "usage: feral")
  output, errors, code = run { "--version" }
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertStrMatches(output, "feral [%d.]+, Lua 5.4, engine %w+ f%d+, %d+ threads\nOpenBLAS .*\n")
  output = run { "-v", "-e", "print 'after'" }
  lu.assertStrMatches(output, "feral .*\nOpenBLAS .*\nafter\n")
end

-- ---- memory, threads ----

function T.test_too_much_memory_is_an_ordinary_error()
  check({ "-e", [[
    require("feral").tensor.memory_cap(50e6 // 1 | 0)
    print(pcall(function() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1 << 20) .. i end end))]] }, nil,
    { "false\tnot enough memory\n", "", 0 })
  local _, errors, code = run { "-e", "require('feral').tensor.zeros(1 << 20, 1 << 20)" }
  lu.assertEquals({ errors, code }, { "feral: not enough memory\n", 1 })
end

function T.test_openblas_takes_one_thread_a_call()
  local code = [[
    local tensor = require("feral").tensor
    local function threads()
      for line in io.lines "/proc/self/status" do
        local count = line:match("^Threads:%s*(%d+)")
        if count then return count end
      end
    end
    tensor.ones(8, 5000):matmul(tensor.ones(5000, 500)) -- few rows are its, outside any parallel region
    io.write(threads(), " ")
    tensor.ones(200, 200):matmul(tensor.ones(200, 200))
    print(threads())]]
  local output = program.shell("OMP_NUM_THREADS=2 \"$F\" -e " .. program.quote(code))
  lu.assertEquals(output, "1 2\n")
end

-- ---- Ctrl-C ----

local interrupted = "ready\nferal: [^\n]*interrupted!\nstack traceback:\n.*"

local function check_interrupted(code)
  local output, exit_code = signal(code, "INT")
  lu.assertStrMatches(output, interrupted)
  lu.assertEquals(exit_code, 130)
end

function T.test_ctrl_c_ends_any_lua_code()
  check_interrupted "print 'ready' while true do end"
  check_interrupted "print 'ready' while true do pcall(function() while true do end end) end"
  check_interrupted "print 'ready' while true do xpcall(function() while true do end end, function() end) end"
  check_interrupted "print 'ready' while true do load(function() while true do end end) end"
end

function T.test_ctrl_c_ends_coroutines()
  check_interrupted [[print 'ready' local co = coroutine.create(function() while true do end end)
    while true do coroutine.resume(co) end]]
  check_interrupted [[print 'ready' while true do
    pcall(coroutine.wrap(function() pcall(function() while true do coroutine.yield(pcall(string.rep, 'x', 9)) end end) end)) end]]
  check_interrupted "print 'ready' while true do local co = coroutine.create(print) coroutine.close(co) end"
end

function T.test_ctrl_c_lets_closers_run()
  local output, code = signal([[
    local n, m = 0, 0
    local function closer() for i = 1, 100 do i = i + 1 end n = n + 1 end
    print 'ready'
    local last <close> = setmetatable({}, {__close = function() print(n >= m and 'all closed' or 'one is open') end})
    while true do
      local x <close> = setmetatable({}, {__close = closer})
      m = m + 1
    end]], "INT")
  lu.assertStrContains(output, "ready\nall closed\nferal: ")
  lu.assertEquals(code, 130)
end

function T.test_a_second_ctrl_c_ends_what_does_not_notice()
  local output, code = signal([[
    setmetatable({}, {__gc = function() print 'ready' while true do end end})
    collectgarbage()]], "INT", "0.2", "INT")
  lu.assertEquals({ output, code }, { "ready\n", 130 })
end

function T.test_held_signals_wait_for_the_script()
  local code = [[
    local signals = require 'feral.core.signals'
    local guard <close> = signals.hold()
    local shown <close> = setmetatable({}, {__close = function() print 'closed' end})
    print 'ready'
    while not signals.pending() do end
    print(signals.pending())
    signals.stop(signals.pending(), 'all saved')]]
  lu.assertEquals({ signal(code, "INT") }, { "ready\nINT\nferal: all saved\nclosed\n", 130 })
  lu.assertEquals({ signal(code, "TERM") }, { "ready\nTERM\nferal: all saved\nclosed\n", 143 })
end

function T.test_a_second_signal_ends_a_holding_script_at_once()
  local code = [[
    local guard <close> = require 'feral.core.signals'.hold()
    print 'ready'
    while true do end]]
  lu.assertEquals({ signal(code, "INT", "0.2", "INT") }, { "ready\n", 130 })
  lu.assertEquals({ signal(code, "TERM", "0.2", "TERM") }, { "ready\n", 143 })
end

function T.test_signals_are_as_before_after_release()
  local code = [[do local guard <close> = require 'feral.core.signals'.hold() end print 'ready' while true do end]]
  local output, exit_code = signal(code, "INT")
  lu.assertStrMatches(output, interrupted)
  lu.assertEquals(exit_code, 130)
  lu.assertEquals({ signal(code, "TERM") }, { "ready\n", 143 })
end

-- ---- pcall and coroutines behave as Lua's own ----

function T.test_protected_calls_behave_as_lua_s()
  lu.assertEquals({ pcall(function(...) return ... end, 1, nil, 3) }, { true, 1, nil, 3 })
  lu.assertEquals({ pcall(error, "x", 0) }, { false, "x" })
  lu.assertEquals({ xpcall(function(a, b) return b, a end, print, 1, 2) }, { true, 2, 1 })
  lu.assertEquals({ xpcall(error, function(m) return m .. "!" end, "y", 0) }, { false, "y!" })
  lu.assertErrorMsgContains("value expected", pcall)
  local co = coroutine.wrap(function()
    local results = { pcall(function() return coroutine.yield(1) end) }
    results[#results + 1] = select(2, xpcall(function(a) error(a .. coroutine.yield(2), 0) end, string.upper, "q"))
    return table.unpack(results)
  end)
  lu.assertEquals({ co(), co("in"), co("p") }, { 1, 2, true, "in", "QP" })
end

function T.test_coroutines_behave_as_lua_s()
  local co = coroutine.create(function(a) error("in " .. coroutine.yield(a + 1), 0) end)
  lu.assertEquals({ coroutine.resume(co, 1) }, { true, 2 })
  lu.assertEquals({ coroutine.resume(co, "x") }, { false, "in x" })
  lu.assertEquals({ coroutine.resume(co) }, { false, "cannot resume dead coroutine" })
  lu.assertErrorMsgContains("cannot resume dead coroutine", function()
    local f = coroutine.wrap(print)
    f()
    f()
  end)
  local closed
  local open = coroutine.create(function()
    local _x <close> = setmetatable({}, { __close = function() closed = true end })
    coroutine.yield()
  end)
  coroutine.resume(open)
  lu.assertEquals({ coroutine.close(open), closed, coroutine.status(open) }, { true, true, "dead" })
  lu.assertErrorMsgContains("cannot close a running coroutine", function() coroutine.close(coroutine.running()) end)
  local _, message = pcall(coroutine.wrap(function()
    local _x <close> = setmetatable({}, { __close = function(_, e) error(e .. " and closing", 0) end })
    error("failed", 0)
  end))
  lu.assertEquals(message:match("failed and closing$"), "failed and closing")
end

-- ---- words of a command line ----

local spec = {
  usage = "prog DIR IMAGE... [options]", about = "Does things.", words = { "DIR", "IMAGE..." },
  options = {
    { "epochs", value = "N", type = "integer", least = 1, default = 10, about = "passes" },
    { "rate", value = "X", type = "number", about = "step" },
    { "net", value = "NAME", choices = { "vgg", "emopy" }, default = "vgg", about = "which" },
    { "class-weights", about = "weigh" },
  },
}

function T.test_words_and_options_are_found_by_name()
  lu.assertEquals(args.parse({ "d", "--epochs", "3", "a", "--rate=-0.5", "--class-weights", "--", "--b" }, spec),
    { dir = "d", image = { "a", "--b" }, epochs = 3, rate = -0.5, net = "vgg", class_weights = true })
  lu.assertEquals(args.parse({ "--help" }, spec), { help = true })
end

function T.test_words_in_brackets_may_be_any_number_or_none()
  local optional = { words = { "DIR", "[IMAGE...]" } }
  lu.assertEquals(args.parse({ "d" }, optional), { dir = "d", image = {} })
  lu.assertEquals(args.parse({ "d", "a", "b" }, optional), { dir = "d", image = { "a", "b" } })
  lu.assertEquals(select(2, args.parse({}, optional)), "DIR is missing")
end

function T.test_the_number_of_threads_can_be_set()
  local engine = require "feral.core.engine"
  local before = engine.threads()
  local _restored <close> = setmetatable({}, { __close = function() engine.threads(before) end })
  lu.assertEquals({ engine.threads(1), engine.threads() }, { 1, 1 })
  lu.assertEquals({ engine.threads(3), engine.threads() }, { 3, 3 })
  for _, wrong in ipairs { 0, -1, 1 << 40 } do
    lu.assertStrContains(select(2, pcall(engine.threads, wrong)), "1 to 256 threads")
  end
end

function T.test_wrong_words_are_refused_by_name()
  local function message(...) return (select(2, args.parse({ "d", "i", ... }, spec))) end
  lu.assertEquals(message("--epoch", "3"), "unknown option '--epoch', did you mean '--epochs'?")
  lu.assertEquals(message("--epochs", "many"), "--epochs must be a whole number of at least 1, got 'many'")
  lu.assertEquals(message("--epochs=0"), "--epochs must be a whole number of at least 1, got '0'")
  lu.assertEquals(message("--rate"), "--rate needs a value: X")
  lu.assertEquals(message("--class-weights=1"), "--class-weights takes no value")
  lu.assertEquals(message("--net", "vg"), "--net must be one of vgg, emopy, got 'vg', did you mean 'vgg'?")
  lu.assertEquals(message("-q"), "unknown option '-q'")
  lu.assertEquals(select(2, args.parse({ "d" }, spec)), "IMAGE is missing")
  lu.assertEquals(select(2, args.parse({ "a", "b" }, { words = { "DIR" } })), "'b' is one word too many")
end

return T
