local lu = require "luaunit"
local feral = require "feral"
local core = require "feral.core.tensor"
local engine = require "feral.core.engine"
local catalogue = require "feral.host.catalogue"
local docs = require "feral.host.docs"
local help = require "feral.host.help"
local program = require "program"

local T = {}

--- What help(thing) prints.
local function shown(thing)
  local lines, before = {}, _G.print
  _G.print = function(text) lines[#lines + 1] = text or "" end -- luacheck: ignore
  local _restored <close> = setmetatable({}, { __close = function() _G.print = before end }) -- luacheck: ignore
  help.show(thing)
  return table.concat(lines, "\n")
end

--- Fails unless the text begins with a signature, "name(...)", and says something of it.
local function check_text(text, name, what)
  local title, rest = text:match("^([^\n]*)\n?(.*)$")
  lu.assertStrContains(title, name, false, what .. ": title")
  lu.assertStrContains(title, "(", false, what .. ": signature")
  lu.assertTrue(rest:find("%a%a+ %a+") ~= nil, what .. " says nothing: " .. text)
  lu.assertNil(text:lower():find("not documented", 1, true), what .. " is not documented")
  lu.assertNil(text:find("keeps this for itself", 1, true), what .. " is internal")
end

--- All at once, so that a failure lists all that lack words. Model:logits is a former name, which says what it is called now.
local function check_items(items)
  local faults = {}
  for _, item in ipairs(items) do
    local internal = item.entry and item.entry.internal
    if not internal and item.path ~= "Model:logits" and item.kind ~= "verb" then
      local name = item.kind == "method" and ":" .. item.name or item.name
      for _, thing in ipairs { item.path, item.kind == "function" and item.value or item.path } do
        local ok, problem = pcall(function() check_text(shown(thing), name, item.path) end)
        if not ok then faults[#faults + 1] = type(problem) == "table" and problem.msg or tostring(problem) end
      end
    end
  end
  lu.assertEquals(table.concat(faults, "\n"), "")
end

-- ---- everything has words ----

function T.test_all_public_functions_layers_steps_and_methods_are_described()
  local items = catalogue.all()
  lu.assertTrue(#items > 450, #items .. " items")
  check_items(items)
end

function T.test_functions_of_all_modules_are_in_the_catalogue()
  local known = {}
  for _, item in ipairs(catalogue.all()) do known[item.path] = true end
  for _, name in ipairs(feral.modules()) do
    local module = feral[name]
    for field, value in next, type(module) == "table" and module or {} do
      if type(value) == "function" then lu.assertTrue(known[name .. "." .. field], name .. "." .. field) end
    end
  end
  for name in pairs(core.methods) do lu.assertTrue(known["Tensor:" .. name] or known["tensor." .. name], name) end
end

function T.test_all_modules_are_described()
  for _, name in ipairs(feral.modules()) do
    local text = shown(feral[name])
    lu.assertStrMatches(text, name:gsub("%W", "%%%0") .. "\n  [^\n]*%a%a.*")
    lu.assertEquals(shown(name):sub(1, #text), text)
    for _, item in ipairs(catalogue.of_module(name)) do
      local listed = text:find(item.path .. "[(%s]") ~= nil
      lu.assertEquals(listed, not (item.entry and item.entry.internal), item.path)
    end
  end
end

--- An object of each class that users get.
local function objects()
  local net = feral.nn.Linear(2, 2)
  local set = feral.data.synthetic { count = 20, size = 16 }
  local opt = feral.optim.SGD(net:parameters())
  local schedule = feral.optim.schedule
  local list = {
    set = set, net = net, loader = feral.data.loader(set, { batch = 4 }), paths = feral.data.set {
      images = feral.tensor.zeros(2, 1, 4, 4, "u8"), labels = { 1, 2 }, classes = { "a", "b" },
    }:add_column("path", { "x", "y" }):column "path",
    steps = feral.steps { feral.steps.gray() }, ema = feral.optim.ema(net, 0.9), cosine = schedule.cosine(opt, 3),
    warmup = schedule.warmup(opt, 3), plateau = schedule.plateau(opt),
  }
  for _, kind in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do list[kind] = feral.optim[kind](net:parameters()) end
  return list
end

function T.test_methods_of_objects_are_described()
  for what, object in pairs(objects()) do
    for name, f in pairs(catalogue.methods_of(object)) do
      local entry = catalogue.entry_of(f, name)
      if not (entry and entry.internal) then
        lu.assertTrue(entry ~= nil and entry.summary ~= nil, ("%s:%s is not described"):format(what, name))
        lu.assertNil(shown(f):lower():find("not documented", 1, true), ("%s:%s"):format(what, name))
      end
    end
    lu.assertTrue(#shown(object) > 40, what)
  end
end

function T.test_verbs_print_what_they_take()
  for _, verb in ipairs(require("feral.cli").verbs()) do
    lu.assertStrContains(shown("feral " .. verb), "usage: feral " .. verb)
    lu.assertStrContains(shown(verb), "feral " .. verb)
  end
end

-- ---- what comes first ----

function T.test_a_layer_begins_with_its_constructor()
  for _, kind in ipairs(feral.nn.kinds()) do
    if not engine.source("feral.nn.layers." .. kind:lower()) then goto next_kind end -- another test's own class
    local text = shown(feral.nn[kind])
    lu.assertStrContains(text:match("^[^\n]*"), "nn." .. kind .. "(")
    lu.assertStrContains(text, kind .. ":forward(")
    lu.assertEquals(shown("nn." .. kind):sub(1, #text), text)
    ::next_kind::
  end
  local text = shown(feral.nn.Conv2d(1, 2, 3))
  lu.assertStrContains(text, "nn.Conv2d(inputs, outputs, kernel, options)\n  Convolution of images.")
  lu.assertNil(text:find("Conv2d.geometry", 1, true))
end

function T.test_a_tensor_lists_its_methods_by_groups()
  local text = shown(feral.tensor { 1 })
  for name in pairs(core.methods) do
    local listed = text:find("\n    " .. name .. "(", 1, true) or text:find("\n    tensor." .. name .. "(", 1, true)
    lu.assertTrue(listed ~= nil, name .. " is in no group of feral.tensor.methods")
  end
  lu.assertStrContains(text, "\n  Reductions\n    sum(dim, keep)")
  lu.assertStrContains(text, "    size(dim)")
end

function T.test_a_step_prints_its_options()
  local text = shown(feral.steps.rotate)
  lu.assertStrContains(text, "steps.rotate(degrees, {edge, fill})\n  Turned by a random angle")
  lu.assertStrContains(text, "  degrees: a number from 0 to 180\n")
  lu.assertStrContains(text, "  edge: clamp, reflect, constant (default: clamp)")
  lu.assertStrContains(text, "  fill: a number from 0 to 255 (default: 0)")
  lu.assertEquals(shown "steps.rotate", text)
  lu.assertEquals(shown(feral.steps.rotate(10)), text)
  lu.assertStrContains(shown "steps.crop", "  width: a whole number from 1 to 8192 (default: that of height)")
end

function T.test_optimisers_print_their_options()
  lu.assertStrContains(shown(feral.optim.Adam), "optim.Adam(params, options)\n  Adam (Kingma and Ba 2015)")
  lu.assertStrContains(shown "Adam", "lr = 1e-3, betas = {0.9, 0.999}")
end

function T.test_any_value_gets_an_answer()
  local classes = feral.model.stages
  for _, value in ipairs { 42, true, print, {}, classes, feral.data.emotions, io.stdout, setmetatable({}, {}) } do
    lu.assertTrue(#shown(value) > 10, tostring(value))
  end
  lu.assertStrContains(shown(feral.optim.schedule), "\n\nschedule.step(opt, every, options)")
  lu.assertNil(shown(feral.optim.schedule):match("Schedule:.*\nschedule%."))
  local scope = feral.tensor.scope()
  lu.assertStrContains(shown(scope), ":leave(...)")
  scope:close()
  lu.assertStrContains(program.run({ "-i" }, "help(nosuch)\n"), "nil: nothing has that name here")
end

-- ---- names ----

function T.test_names_are_found_without_their_module()
  lu.assertStrContains(shown "reshape", "Tensor:reshape(...)\n  The same elements in another shape")
  lu.assertStrContains(shown "reshape", "Also: ops.reshape")
  lu.assertStrContains(shown "tensor.reshape", "Tensor:reshape(...)")
  lu.assertStrContains(shown "Conv2d", "nn.Conv2d(inputs")
  lu.assertStrContains(shown "set.split", "Set:split(fraction, options)")
  lu.assertStrContains(shown "cosine", "optim.schedule.cosine(")
end

function T.test_unknown_names_get_the_nearest()
  lu.assertStrMatches(shown "softmx", "nothing is called 'softmx', did you mean '[sS]oftmax'%?; help%(%) lists the modules")
  lu.assertStrContains(shown "nn.Conv2", "did you mean 'nn.Conv2d'?")
  lu.assertEquals(shown "qqqqqqqqqqqqqq", "nothing is called 'qqqqqqqqqqqqqq'; help() lists the modules")
end

function T.test_a_question_mark_asks_for_help()
  local output = program.run({ "-i" }, "x = tensor{1}\nx?\n?nn.Linear\nreshape?\n? x.sum\n?\nx:sum?\n")
  lu.assertStrContains(output, "\n  Reductions\n")
  lu.assertStrContains(output, "nn.Linear(inputs, outputs, options)\n")
  lu.assertStrContains(output, "Tensor:reshape(...)\n")
  lu.assertStrContains(output, "The library's modules;")
  local _, sums = output:gsub("ops%.sum%(x, dim, keep%)\n", "")
  lu.assertEquals(sums, 2)
end

function T.test_a_question_mark_inside_a_chunk_is_none()
  local output, errors = program.run({ "-i" }, "print 'what?' -- ?\n1 +?\nx = y ? z\n")
  lu.assertStrContains(output, "> what?\n")
  lu.assertStrContains(errors, "stdin:1:")
end

-- ---- the blocks ----

function T.test_a_line_with_a_name_describes_what_a_call_makes()
  local file = docs.read [[
--- head

--- exp(x): e to the power
--- of x.
---@return Tensor  of x's shape
--- log(x): The logarithm.
make("exp", "log")

--- Keeps things.
---@internal
function t.hidden(a) end

--- Nothing is named here.
function t.open(a, b) end
]]
  lu.assertEquals(file.header, { "head" })
  lu.assertEquals(file.named.exp.signature, "exp(x)")
  lu.assertEquals(file.named.exp.summary, "e to the power of x.")
  lu.assertEquals(file.named.log.summary, "The logarithm.")
  lu.assertTrue(file.at[11].internal)
  lu.assertEquals(file.at[14].signature, "t.open(a, b)")
  lu.assertFalse(file.at[14].internal)
end

function T.test_functions_of_a_script_are_read_from_its_file()
  --- Twice as much.
  local function double(x) return 2 * x end
  lu.assertEquals(double(1), 2)
  lu.assertEquals(shown(double), "double(x)\n  Twice as much.")
end

return T
