local lu = require "luaunit"
local feral = require "feral"
local program, temporary = require "program", require "temporary"

package.path = "tests/bench/?.lua;" .. package.path
local workloads, grids = require "workloads", require "grids"

local T = {}

--- Lines of tab-separated cells.
local function cells_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    local cells = {}
    for cell in (line .. "\t"):gmatch("([^\t]*)\t") do cells[#cells + 1] = cell end
    lines[#lines + 1] = cells
  end
  return lines
end

-- counted in PyTorch 1.13, from the definitions that the other sides of the comparison use
local parameters = {
  emopy_cnn = 13477, vgg_fer = 1764519, mini_xception = 56951, resnet18 = 11171271, convlstm = 25991, lstm = 330631,
}

function T.test_networks_have_the_parameters_of_the_other_sides()
  for _, name in ipairs(workloads.names) do
    local _open <close> = feral.tensor.scope()
    lu.assertEquals(workloads.make(name, 1).net:num_parameters(), parameters[name], name)
  end
end

function T.test_nets_prints_the_lines_that_all_sides_print()
  local output, errors, code = program.shell "\"$F\" tests/bench/nets.lua --threads 1 --seconds 0 --batch 2 lstm emopy_cnn"
  lu.assertEquals({ errors, code }, { "", 0 })
  local lines = cells_of(output)
  lu.assertEquals(#lines, 8)
  for i, expected in ipairs { { "params", "float32" }, { "train_batch2", "samples/s" }, { "infer_batch2", "samples/s" },
    { "infer_latency", "ms/sample" } } do
    lu.assertEquals({ lines[i][1], lines[i][2], lines[i][4], #lines[i] }, { "lstm", expected[1], expected[2], 4 })
    lu.assertTrue(tonumber(lines[i][3]) > 0)
    lu.assertEquals(lines[i + 4][1], "emopy_cnn")
  end
  local _, message, wrong = program.shell "\"$F\" tests/bench/nets.lua lstn"
  lu.assertStrContains(message, "no network is called 'lstn', did you mean 'lstm'?")
  lu.assertEquals(wrong, 2)
end

function T.test_shares_follow_from_the_figures_and_the_limits()
  local lines = cells_of(program.shell "\"$F\" tests/bench/nets.lua --threads 1 --seconds 0 --batch 2 --shares lstm")
  lu.assertEquals({ lines[1][2], lines[2][2] }, { "multiply_adds", "memcpy" })
  local peak = 1e9 * tonumber(lines[1][3])
  local operations = 2 * 16 * (512 * 256 + 512 * 128 + 2 * 512 * 128) + 2 * 128 * 7
  for row, passes in pairs { [4] = 3, [5] = 1 } do
    local rate = tonumber(lines[row][3])
    local share = 100 * passes * operations * rate / peak
    local rounding = 0.051 + share * (0.0051e9 / peak + 0.051 / rate)  -- of the three printed figures
    lu.assertAlmostEquals(tonumber(lines[row][5]:match "^([%d.]+) %% FMA$"), share, rounding)
    lu.assertStrMatches(lines[row][6], "[%d.]+ %% memcpy")
  end
end

--- A program that says it is a Python, and prints other figures each time that it is called.
local python = [[
#!/bin/sh
case "$1" in
  -c) case "$2" in *torch*|*openvino*) exit 0;; esac; exit 1;;
  *export*) mkdir -p "$2"; touch "$2/emopy_cnn_1.onnx"; exit 0;;
esac
n=$(cat DIR/count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > DIR/count
case "$*" in
  *runtimes*) printf 'lstm\tinfer_batch64\t5e9\tsamples/s\nlstm\tinfer_latency\t1e-6\tms/sample\n';;
  *) printf "lstm\tparams\t330631\tfloat32\nlstm\ttrain_batch64\t${n}000000\tsamples/s\nlstm\tinfer_batch64\t1\tsamples/s\n"
     printf 'lstm\tinfer_latency\t1e6\tms/sample\n';;
esac
]]

function T.test_sides_take_turns_and_medians_are_compared()
  local dir <close> = temporary.folder()
  temporary.write(dir / "python", (python:gsub("DIR", dir.path)))
  temporary.write(dir / "peer_torch.py", "")
  temporary.write(dir / "peer_runtimes.py", "")
  local output, errors, code = program.shell(([[
    chmod +x %s/python
    "$F" tests/bench/turns.lua --seconds 0 --threads 1 --rounds 3 --peers %s --python %s/python --runtimes %s/python \
      --exported %s/onnx lstm]]):gsub("%%s", dir.path), nil)
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertStrContains(output, "absent: onnxruntime (" .. dir / "python" .. " cannot import it; 'make peers' gets it)\n")
  local rows = {}
  for _, cells in ipairs(cells_of(output)) do rows[cells[2] or cells[1]] = cells end
  lu.assertEquals({ table.unpack(rows.kind, 1, 6) }, { "network", "kind", "feral", "torch", "torch-cl", "openvino" })
  lu.assertEquals(rows.params, { "lstm", "params", "330631", "330631", "-", "-", "float32", "equal" })
  lu.assertEquals({ table.unpack(rows.train_batch64, 4, 6) }, { "3000000", "-", "-" }) -- of its calls 1, 3 and 5
  lu.assertStrMatches(rows.train_batch64[8], "0%.00 of torch")
  lu.assertStrMatches(rows.infer_batch64[8], "0%.00 of openvino")
  lu.assertStrMatches(rows.infer_latency[8], "[%d.]+ of openvino")
end

function T.test_turns_go_on_without_other_sides()
  local dir <close> = temporary.folder()
  local output, errors, code = program.shell(
    ('"$F" tests/bench/turns.lua --seconds 0 --threads 1 --rounds 1 --peers %s lstm'):format(dir.path))
  lu.assertEquals({ errors, code }, { "", 0 })
  lu.assertStrContains(output, ("absent: PyTorch (there is no %s/peer_torch.py)\n"):format(dir.path))
  lu.assertStrContains(output, "absent: openvino (")
  lu.assertStrMatches(output, ".*\nlstm\tparams\t330631\tfloat32\t%-\n.*")
end

function T.test_every_operation_of_the_grids_runs()
  for _, name in ipairs(grids.names) do
    for _, make in ipairs(grids.cases(name)) do lu.assertEquals(type(make), "function", name) end
  end
  local output, errors, code = program.shell [[
    for op in matmul maxpool cross_entropy sgd hog; do
      "$F" tests/bench/ops.lua --op $op --quick --seconds 0 --cpu | grep -v ^machine || exit 1
    done]]
  lu.assertEquals({ errors, code }, { "", 0 })
  for _, cells in ipairs(cells_of(output)) do
    lu.assertEquals(#cells, 6)
    lu.assertTrue(tonumber(cells[4]) > 0)
  end
  local _, message, wrong = program.shell "\"$F\" tests/bench/ops.lua --op convv"
  lu.assertStrContains(message, "no operation is called 'convv', did you mean 'conv'?")
  lu.assertEquals(wrong, 2)
end

function T.test_neighbours_on_a_line_differ_in_one_size()
  local seen = {}
  for _, line in ipairs(grids.lines()) do
    lu.assertTrue(#line >= 2)
    for _, at in ipairs(line) do seen[at.shape:match "k(%d+) s%d+" .. " " .. at.shape:match "^%d+x(%d+)"] = true end
  end
  for _, shape in ipairs { "1 32", "3 24", "3 48", "3 96", "4 10", "5 32", "7 128" } do lu.assertTrue(seen[shape], shape) end
end

return T
