local lu = require "luaunit"
local program = require "program"
local tensor = require "feral.tensor"
local show = require "feral.host.show"
local repl = require "feral.host.repl"
local core = require "feral.core.tensor"

local T = {}

--- What the prompt answers, without greeting and prompts.
local function answers(input)
  local output, errors, code = program.run({ "-i" }, input)
  lu.assertEquals(code, 0)
  output = output:gsub("^.-leaves%.\n", "")
  return output, errors
end

-- ---- the dialogue ----

function T.test_expressions_print_and_statements_do_not()
  lu.assertEquals(answers "1+1\nx = 5\nx\n_\n1, nil, 'a'\nf = print\nf 'b'\n", "> 2\n> > 5\n> 5\n> 1\nnil\na\n> > b\n> \n")
end

function T.test_incomplete_chunks_go_on()
  lu.assertEquals(answers "for i = 1, 2 do\nprint(i)\nend\nstring.rep('x',\n3)\n", "> >> >> 1\n2\n> >> xxx\n> \n")
end

function T.test_errors_leave_the_prompt_and_its_variables()
  local output, errors = answers "x = 1\nx.y.z\nx x\nerror()\nerror { 1 }\nx\n"
  lu.assertEquals(output, "> > > > > > 1\n> \n")
  lu.assertStrContains(errors, "stdin:1: attempt to index a number value (global 'x')")
  lu.assertStrContains(errors, "stdin:1: syntax error near 'x'")
  lu.assertStrContains(errors, "nil\n{1}\n")
end

function T.test_an_error_inside_functions_shows_the_way()
  local _, errors = answers "function f(n) if n == 0 then error 'deep' end f(n - 1) end\nf(1)\n"
  lu.assertEquals(errors, "stdin:1: deep\n  stdin:1: in function 'f'\n  stdin:1: in function <stdin:1>\n")
end

function T.test_the_library_is_there_without_require()
  lu.assertEquals(answers "tensor.ones(2)\nferal.tensor == tensor\nundefined\n",
    "> tensor([1., 1.], shape=2, dtype=" .. core.real .. ")\n> true\n> nil\n> \n")
end

function T.test_the_prompt_survives_a_lack_of_memory()
  local output = answers "tensor.memory_cap(1)\nx = {}\ntensor.memory_cap(1 << 30)\n1+1\ntensor.zeros(1 << 20, 1 << 20)\n2+2\n"
  lu.assertStrMatches(output, ".*> 2\n> > 4\n> \n")
end

function T.test_exit_and_quit_leave()
  lu.assertEquals(answers "exit\nprint 'not reached'\n", "> ")
  lu.assertEquals(answers "quit()\nprint 'not reached'\n", "> ")
end

function T.test_a_local_is_explained_once()
  local output = answers "local x = 1\nlocal y = 2\n"
  lu.assertEquals(output, "> (a local ends with its line: leave 'local' out to keep the variable)\n> > \n")
end

-- ---- at a terminal ----

function T.test_ctrl_c_keeps_the_prompt_and_its_variables()
  local output, code = program.type {
    { "> ", "x = 42\\n" },
    { "x = 42", "print('lo' .. 'op') while true do pcall(function() while true do end end) end\\n" },
    { "\nloop", "\\003" },
    { "interrupted!\n> ", "x + 1\\n" },
    { "43\n> ", "half a line\\003" },
    { "^C\n> ", "x + 2\\n" },
    { "44\n> ", "for i = 1, 2 do\\n" },
    { ">> ", "\\003" },
    { "^C\n> ", "x + 3\\n" },
    { "45\n> ", "\\004" },
  }
  lu.assertStrContains(output, "stdin:1: interrupted!")
  lu.assertStrContains(output, "\n45\n")
  lu.assertNotStrContains(output, "near 'a'")
  lu.assertEquals(code, 0)
end

function T.test_held_work_comes_back_to_the_prompt()
  local output, code = program.type {
    { "> ", "s = require 'feral.core.signals'\\n" },
    { "signals'\n> ", "do local g <close> = s.hold()\\n" },
    { ">> ", "print('lo' .. 'op') while not s.pending() do end pcall(s.stop, s.pending(), 'is ' .. 'saved') end\\n" },
    { "\nloop", "\\003" },
    { "is saved\n> ", "40 + 2\\n" },
    { "42\n> ", "\\004" },
  }
  lu.assertStrContains(output, "^Cis saved\n")
  lu.assertEquals(code, 0)
end

function T.test_a_third_ctrl_c_ends_what_does_not_notice()
  local output, code = program.type {
    { "> ", "setmetatable({}, {__gc = function() print('lo' .. 'op') while true do end end}) collectgarbage()\\n" },
    { "\nloop", "\\003" }, 0.2, "\\003", 0.2, "\\003",
  }
  lu.assertStrContains(output, "\nloop\n^C^C^C")
  lu.assertEquals(code, 130)
end

function T.test_history_is_kept_and_tab_completes()
  local path = os.tmpname()
  os.remove(path)
  program.type({ { "> ", "5 * 9\\n" }, { "45", "\\004" } }, "FERAL_HISTORY=" .. path)
  local file = io.open(path)
  lu.skipIf(not file, "this program is built without readline")
  lu.assertEquals(file:read("a"), "5 * 9\n")
  file:close()
  local output = program.type({ { "> ", "\\020\\n" }, { "\n45", "math.fl\\t(2.5)\\n" }, { "\n2\n", "\\004" } },
    "FERAL_HISTORY=" .. path)
  lu.assertStrContains(output, "math.floor(2.5)\n2\n")
  os.remove(path)
end

-- ---- completion ----

function T.test_globals_fields_and_methods_complete()
  _G.tensor, _G.nn = tensor, require "feral.nn"
  lu.assertEquals(repl.complete("", "tensor.zero"), { "tensor.zeros", "tensor.zeros_like" })
  lu.assertEquals(repl.complete("x = ", "tosting"), {})
  lu.assertEquals(repl.complete("x = ", "tostr"), { "tostring" })
  lu.assertEquals(repl.complete("", "whil"), { "while" })
  lu.assertEquals(repl.complete("nn.Sequential(", "nn.Lin"), { "nn.Linear" })
  lu.assertEquals(repl.complete("", "no.such.thing"), {})
  lu.assertIsNil(repl.complete("data.folder('", "REA"))
  lu.assertEquals(repl.complete("f('a', ", "whil"), { "while" })
  _G.tensor, _G.nn = nil, nil
end

function T.test_tensors_and_objects_complete()
  _G.probe = { t = tensor.ones(2, 2), list = { tensor.ones(3) }, s = "text" }
  lu.assertEquals(repl.complete("", "probe.t.sha"), { "probe.t.shape" })
  lu.assertEquals(repl.complete("", "probe.t:resh"), { "probe.t:reshape" })
  lu.assertEquals(repl.complete("", "probe.t:sha"), {}) -- a field, no method
  lu.assertEquals(repl.complete("2 * probe.list[1]", ":resh"), { ":reshape" })
  lu.assertEquals(repl.complete("probe.list[", "probe.s:upp"), { "probe.s:upper" })
  _G.probe = nil
end

-- ---- tensors as text ----

local dtype = core.real

local function check_text(t, ...)
  local lines = { ... }
  lines[#lines] = lines[#lines]:gsub("f32", dtype)
  lu.assertEquals(tostring(t), table.concat(lines, "\n"))
end

function T.test_tensors_print_as_pytorch_s()
  check_text(tensor { { 1, 2 }, { 3, 4 } }, "tensor([[1., 2.],", "        [3., 4.]], shape=2x2, dtype=f32)")
  check_text(tensor { 1.5, -22.25, 0 }, "tensor([  1.5000, -22.2500,   0.0000], shape=3, dtype=f32)")
  check_text(tensor(3), "tensor(3., dtype=f32)")
  check_text(tensor { 0, 0 }, "tensor([0., 0.], shape=2, dtype=f32)")
  check_text(tensor({ { 1, 20 }, { 3, 255 } }, "u8"), "tensor([[  1,  20],", "        [  3, 255]], shape=2x2, dtype=u8)")
  check_text(tensor({ -1, 20 }, "i32"), "tensor([-1, 20], shape=2, dtype=i32)")
  check_text(tensor { 1e-5, 0.5 }, "tensor([1.0000e-05, 5.0000e-01], shape=2, dtype=f32)")
  check_text(tensor { 1, 2048 }, "tensor([1.0000e+00, 2.0480e+03], shape=2, dtype=f32)")
  check_text(tensor { 1 / 0, -1 / 0, 0 / 0, 2.5 }, "tensor([   inf,   -inf,    nan, 2.5000], shape=4, dtype=f32)")
end

function T.test_deeper_tensors_separate_their_slices()
  check_text(tensor.ones(2, 1, 2), "tensor([[[1., 1.]],", "", "        [[1., 1.]]], shape=2x1x2, dtype=f32)")
  check_text(tensor.ones(2, 1, 1, 2), "tensor([[[[1., 1.]]],", "", "", "        [[[1., 1.]]]], shape=2x1x1x2, dtype=f32)")
end

function T.test_long_rows_wrap_and_long_tensors_show_their_edges()
  check_text(tensor.arange(1, 20), "tensor([ 1.,  2.,  3.,  4.,  5.,  6.,  7.,  8.,  9., 10., 11., 12., 13., 14.,",
    "        15., 16., 17., 18., 19., 20.], shape=20, dtype=f32)")
  check_text(tensor.ones(1001), "tensor([1., 1., 1.,  ..., 1., 1., 1.], shape=1001, dtype=f32)")
  local row = "        [1., 1., 1.,  ..., 1., 1., 1.]"
  check_text(tensor.ones(2, 501), "tensor([" .. row:sub(9) .. ",", row .. "], shape=2x501, dtype=f32)")
  check_text(tensor.ones(100, 100), "tensor([" .. row:sub(9) .. ",", row .. ",", row .. ",", "        ...,", row .. ",",
    row .. ",", row .. "], shape=100x100, dtype=f32)")
end

function T.test_views_print_what_they_show_and_released_tensors_say_so()
  local t = tensor { { 1, 2 }, { 3, 4 } }
  check_text(t:transpose(1, 2), "tensor([[1., 3.],", "        [2., 4.]], shape=2x2, dtype=f32)")
  local released
  do
    local _open <close> = tensor.scope()
    released = tensor.ones(2)
  end
  lu.assertEquals(tostring(released), "tensor(released: its scope has ended)")
end

-- ---- other values as text ----

function T.test_tables_print_short_and_sorted()
  lu.assertEquals(show.value { 1, 2, "x", b = true, a = { 1.5 }, ["a b"] = 1, [10] = 2 },
    '{1, 2, "x", [10] = 2, a = {1.5}, ["a b"] = 1, b = true}')
  lu.assertEquals(show.value { tensor.ones(2, 3), print, "two\nlines" },
    ('{tensor(2x3 %s), function, "two\\nlines"}'):format(dtype))
  lu.assertEquals(show.value { {}, { { { { 1 } } } } }, "{{}, {{{{...}}}}}")
  lu.assertEquals(show.value "as it is\n", "as it is\n")
  lu.assertEquals(show.value(setmetatable({}, { __tostring = function() return "an object" end })), "an object")
end

function T.test_long_and_cyclic_tables_end()
  local cyclic = { name = "x" }
  cyclic.self = cyclic
  lu.assertEquals(show.value(cyclic), '{name = "x", self = {cycle}}')
  local long = {}
  for i = 1, 1000 do long[i] = i end
  lu.assertStrContains(show.value(long), "  50,\n  ... 950 more\n}")
  lu.assertEquals(show.value { alpha = ("x"):rep(40), beta = ("y"):rep(40) },
    ('{\n  alpha = "%s",\n  beta = "%s"\n}'):format(("x"):rep(40), ("y"):rep(40)))
end

-- ---- help ----

function T.test_help_reads_the_sources()
  local output = answers 'help(tensor.linspace)\nhelp("zeros")\nhelp("no_such")\n'
  lu.assertStrContains(output, "tensor.linspace(first, last, n)\n  n numbers from first to last")
  lu.assertStrContains(output, "A tensor of zeros")
  lu.assertStrContains(output, "nothing is called 'no_such'")
  output = answers "help()\nhelp(nn.Linear)\nhelp(nn)\n"
  lu.assertStrContains(output, "  tensor       making tensors")
  lu.assertStrContains(output,
    "Linear:forward(x, relu)\n  Computes the layer's output; layer(x) calls it.\n    x: Tensor  N x inputs")
end

return T
