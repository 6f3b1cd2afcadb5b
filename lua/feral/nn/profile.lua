--- profile.lua: where a network's time and memory go, layer by layer.
---
---     print(net:profile(x))                          -- a training step on the batch x
---     print(net:profile(x, { backward = false }))    -- the forward pass alone
---
--- One account runs at any time, a layer's forward or backward, the loss's, the optimiser's or that of the rest, and each
--- change of hands books the time since the last one: so the accounts add up to the step. Backward time belongs to the
--- layer whose forward wrote it on the tape. Of several steps each account tells its least time, since whatever else the
--- machine does can only add. A network that is not being profiled pays nothing.

local nn = require "feral.nn"
local autograd = require "feral.tensor.autograd"
local random = require "feral.tensor.random"
local arith = require "feral.core.arith"
local create = require "feral.core.create"
local core = require "feral.core.tensor"
local engine = require "feral.core.engine"
local scope = require "feral.core.scope"
local system = require "feral.core.system"
local errors = require "feral.base.errors"

local profile = {}

---@class ProfileRow
---@field path string         the layer's place in the network; "loss" and "optimizer" for what is no layer
---@field kind string
---@field output string       shape; "-" where the layer is not called, as a ReLU that the one before does along the way
---@field parameters integer
---@field forward number      seconds, without those of layers inside it
---@field backward number
---@field operations number   floating-point operations of its forward; convolution counted as direct
---@field back number         the same of its backward
---@field bytes integer       of its output, 0 where that is the output of a layer inside it or its own input
---@field kept integer        bytes in use after its forward that were not before

---@class Profile
---@field rows ProfileRow[]
---@field step number       seconds: rows and outside together
---@field outside number    seconds of the step in no row: the tape, and Lua between the layers
---@field peak integer|nil  bytes in use at most during a step, beyond what was in use before it
---@field batch integer
---@field threads integer
---@field backwards boolean whether the step has a backward pass
local Profile = {}
Profile.__index = Profile

-- ---- counting ----

local item_size = { f32 = 4, f64 = 8, u8 = 1, i32 = 4 }

local function bytes_of(t) return t:numel() * item_size[t.dtype] end

-- Layers that multiply each element of their weights at each place: of the output, whose other dimension is this one, or, over
-- sequences, of the input.
local output_features = { Conv2d = 2, DepthwiseConv2d = 2, Linear = 2 }
local input_features = { LSTM = 3, ConvLSTM2d = 3 }

--- Numbers in the weights of a layer, and in those of them that multiply its input.
local function weights_of(layer)
  local all, first = 0, 0
  for _, name in ipairs(layer.parameter_names) do
    local count = layer[name]:dim() > 1 and layer[name]:numel() or 0
    all = all + count
    if name == "weight" or name == "weight_ih" or name:find("^weight_ih_l0") then first = first + count end
  end
  return all, first
end

--- Floating-point operations of a layer, two a multiply-add, padding included: of its forward, and of its backward, which are as
--- many for the gradients of the weights and again for those of what the weights multiply.
---@param layer Module
---@param x Tensor    its input
---@param out Tensor  its output
---@return number forward
---@return number backward  without gradients that nobody wants
function profile.operations(layer, x, out)
  local of_output, of_input = output_features[layer.kind], input_features[layer.kind]
  if not of_output and not of_input then return 0, 0 end
  local places = of_output and out:numel() // out:size(of_output) or x:numel() // x:size(of_input)
  local all, first = weights_of(layer)
  local trained = core.node(layer[layer.parameter_names[1]]) and all or 0
  local through = core.node(x) and all or all - first
  return 2 * places * all, 2 * places * (trained + through)
end

--- Operations and memory traffic of a forward pass of the network on x, without measuring any time.
---@param net Module
---@param x Tensor
---@return number operations
---@return number traffic  bytes of all layers' outputs, each written once and read once
function profile.count(net, x)
  local _open <close> = scope.scope()
  local operations, traffic, seen, training = 0, 0, { [x] = true }, net.training
  local _restored <close> = setmetatable({}, { __close = function() if training then net:train() end end })
  net:eval()
  local entered = {}
  local function enter(_, input) entered[#entered + 1] = input end
  local function leave(layer, out)
    operations = operations + profile.operations(layer, table.remove(entered), out)
    if not seen[out] then traffic = traffic + 2 * bytes_of(out) end
    seen[out] = true
  end
  local function look() end -- so that each layer computes by itself
  nn.observe(look, function()
    nn.trace(enter, leave, function() autograd.no_grad(net, x) end)
  end)
  return operations, traffic
end

-- ---- accounts ----

--- Rows for all layers, in the order of the network, the loss and the optimiser behind them.
local function new_rows(net, loss_kind, optimizer)
  local rows, of = {}, {}
  local function add(path, kind, output, parameters)
    local row = {
      path = path, kind = kind, output = output, parameters = parameters, forward = 0, backward = 0, operations = 0, back = 0,
      bytes = 0, kept = 0,
    }
    rows[#rows + 1] = row
    return row
  end
  net:walk(function(path, layer)
    if of[layer] then return end
    local parameters = 0
    for _, name in ipairs(layer.parameter_names) do parameters = parameters + layer[name]:numel() end
    of[layer] = add(path, layer.kind, "-", parameters)
  end)
  if loss_kind then of.loss = add("loss", loss_kind, "", 0) end
  if optimizer then of.optimizer = add("optimizer", optimizer.kind or "", "", 0) end
  return rows, of
end

--- Time, by who spends it. self.row and self.field say whose time runs.
local Ledger = {}
Ledger.__index = Ledger

local function new_ledger(of, clock)
  local outside = { forward = 0, backward = 0 }
  return setmetatable({
    of = of, clock = clock, outside = outside, row = outside, field = "forward", since = clock(), entered = {},
  }, Ledger)
end

function Ledger:switch(row, field)
  local now = self.clock()
  local own = self.row
  own[self.field] = own[self.field] + (now - self.since)
  self.row, self.field, self.since = row, field, now
end

function Ledger:enter(layer)
  local entered = self.entered
  entered[#entered + 1] = self.row
  self:switch(self.of[layer] or self.row, "forward")
end

function Ledger:leave() self:switch(table.remove(self.entered), "forward") end

--- Books what is computed within as 'row's.
function Ledger:book(row, f, ...)
  self:switch(row, "forward")
  f(...)
  self:switch(self.outside, "forward")
end

local function back_to(ledger, row, field, ...)
  ledger:switch(row, field)
  return ...
end

--- The backward of an operation that is being recorded, its time booked for the layer that is being computed.
function Ledger:trace(backward)
  local owner = self.row
  return function(grad)
    local row, field = self.row, self.field
    self:switch(owner, "backward")
    return back_to(self, row, field, backward(grad))
  end
end

-- ---- a step ----

--- One step of the net: forward, and where wanted loss, backward and optimiser. book(name, f, ...) calls f.
local function run_step(net, x, options, book)
  local _step <close> = scope.scope()
  if not options.backward then
    autograd.no_grad(net, x)
    return
  end
  if options.optimizer then book("optimizer", options.optimizer.zero_grad, options.optimizer) else net:zero_grad() end
  local out = net(x)
  local grad
  if options.loss then
    book("loss", function() out = options.loss(out) end)
  else
    grad = create.full(out.shape, 1)
  end
  if not core.node(out) then
    errors.raise("profile: nothing in the network is trained; { backward = false } profiles the forward pass alone")
  end
  autograd.backward(out, grad)
  if options.optimizer then book("optimizer", options.optimizer.step, options.optimizer) end
end

--- Shapes, operations and memory, by a step in which no time is measured. Returns the most bytes in use beyond those before.
local function measure_memory(net, x, options, of)
  local running = collectgarbage("isrunning")
  local _restarted <close> = setmetatable({}, { __close = function() if running then collectgarbage("restart") end end })
  collectgarbage()
  collectgarbage("stop") -- what lies about must count as used in every layer alike
  scope.trim()
  local has_pool = scope.memory().live ~= nil
  local function in_use()
    local memory = scope.memory()
    return has_pool and memory.live - memory.recycled or 0
  end
  local seen = { [x] = true }
  local before, inside = in_use(), {} -- inside: for each layer entered, {bytes before it, bytes that layers in it keep, input}
  if has_pool then scope.reset_peak() end
  local function leave(layer, out)
    local own, row = table.remove(inside), of[layer]
    local grown = in_use() - own[1]
    if #inside > 0 then inside[#inside][2] = inside[#inside][2] + grown end
    if not row then return end
    local operations, back = profile.operations(layer, own[3], out)
    row.output = table.concat(out.shape, "x")
    row.operations, row.back = row.operations + operations, row.back + back
    if not seen[out] then row.bytes = row.bytes + bytes_of(out) end
    seen[out] = true
    row.kept = row.kept + math.max(0, grown - own[2])
  end
  nn.trace(function(_, input) inside[#inside + 1] = { in_use(), 0, input } end, leave, function()
    run_step(net, x, options, function(_, f, ...) f(...) end)
  end)
  return has_pool and scope.memory().peak - before or nil
end

--- One step with the time of each account in its row. Returns the time of the rest.
local function measure_time(net, x, options, rows, of)
  for _, row in ipairs(rows) do row.forward, row.backward = 0, 0 end
  local ledger = new_ledger(of, options.clock)
  nn.trace(function(layer) ledger:enter(layer) end, function() ledger:leave() end, function()
    autograd.trace(function(backward) return ledger:trace(backward) end, function()
      run_step(net, x, options, function(name, f, ...) ledger:book(of[name], f, ...) end)
    end)
  end)
  ledger:switch(ledger.outside, "forward")
  return ledger.outside.forward
end

--- The least time of each account in several steps, into the rows. Returns that of the rest, and the sum of all.
local function measure_times(net, x, options, rows, of)
  local least, outside = {}, math.huge
  for i = 1, #rows do least[i] = { math.huge, math.huge } end
  for _ = 1, options.times do
    outside = math.min(outside, measure_time(net, x, options, rows, of))
    for i, row in ipairs(rows) do
      least[i] = { math.min(least[i][1], row.forward), math.min(least[i][2], row.backward) }
    end
  end
  local step = outside
  for i, row in ipairs(rows) do
    row.forward, row.backward = table.unpack(least[i])
    step = step + row.forward + row.backward
  end
  return outside, step
end

--- A guard that puts back what steps change besides weights: running statistics and the stream of random numbers.
local function restoring(net)
  local state, saved = random.state(), {}
  for i, pair in ipairs(net:named_buffers()) do saved[i] = { pair[2], scope.keep(pair[2]:clone()) } end
  return setmetatable({}, {
    __close = function()
      for _, pair in ipairs(saved) do arith.copy_(pair[1], pair[2]) end
      random.set_state(state)
    end,
  })
end

--- Profiles a network: what net:profile(x, options) calls. Running statistics and random numbers are put back afterwards;
--- gradients are forgotten, and with an optimiser weights change, as in any step.
---@param net Module
---@param x Tensor  a batch
---@param options {backward: boolean, loss: (fun(out: Tensor): Tensor), loss_kind: string, optimizer: table, times: integer,
---  clock: fun(): number}|nil
---  backward true: a training step, false: the forward pass alone, without recording; loss: of the output, one number; without
---  one each output gets a gradient of 1; optimizer: takes its step too; times: steps to measure (5); clock: of time
---  that passes; os.clock for one thread's own on a busy machine
---@return Profile
--- Raises when there is something to go back through but nothing is trained.
function profile.run(net, x, options)
  options = errors.check_options("profile", options,
    { backward = true, loss = false, loss_kind = "", optimizer = false, times = 5, clock = system.clock })
  if not core.is_tensor(x) then errors.raise("profile: a batch expected, a tensor, got %s", type(x)) end
  if math.type(options.times) ~= "integer" or options.times < 1 then
    errors.raise("profile: times must be a whole number from 1, got %s", tostring(options.times))
  end
  local _restored <close> = restoring(net)
  local backward = options.backward
  local rows, of = new_rows(net, backward and options.loss and options.loss_kind, backward and options.optimizer)
  run_step(net, x, options, function(_, f, ...) f(...) end) -- what the first step alone does must not count
  local peak = measure_memory(net, x, options, of)
  local outside, step = measure_times(net, x, options, rows, of)
  if options.backward then net:zero_grad() end
  return setmetatable({
    rows = rows, outside = outside, step = step, peak = peak, batch = x:size(1), threads = engine.threads(),
    backwards = options.backward,
  }, Profile)
end

-- ---- for people ----

local function milliseconds(seconds) return seconds > 0 and ("%.3f"):format(1e3 * seconds) or "" end

local function megabytes(bytes) return bytes > 0 and ("%.2f"):format(bytes / 1e6) or "" end

--- Rate of some operations in GFLOP/s.
local function rate(operations, seconds)
  return operations > 0 and seconds > 0 and ("%.1f"):format(1e-9 * operations / seconds) or ""
end

local columns = { "layer", "kind", "output", "parameters", "forward", "backward", "share", "GFLOP/s", "back", "MB", "kept" }

local function row_cells(row, step)
  return {
    row.path == "" and "(whole)" or row.path, row.kind, row.output, row.parameters > 0 and tostring(row.parameters) or "",
    milliseconds(row.forward), milliseconds(row.backward), ("%.1f %%"):format(100 * (row.forward + row.backward) / step),
    rate(row.operations, row.forward), rate(row.back, row.backward), megabytes(row.bytes), megabytes(row.kept),
  }
end

--- Sums of the rows.
---@return ProfileRow
function Profile:total()
  local total = {
    path = "total", kind = "", output = "", parameters = 0, forward = 0, backward = 0, operations = 0, back = 0, bytes = 0,
    kept = 0,
  }
  for _, row in ipairs(self.rows) do
    for _, name in ipairs { "parameters", "forward", "backward", "operations", "back", "bytes", "kept" } do
      total[name] = total[name] + row[name]
    end
  end
  return total
end

local function lines_of(cells)
  local widths, lines = {}, {}
  for _, row in ipairs(cells) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for _, row in ipairs(cells) do
    local parts = {}
    for i, cell in ipairs(row) do parts[i] = ("%" .. (i <= 3 and "-" or "") .. widths[i] .. "s"):format(cell) end
    lines[#lines + 1] = (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  return lines
end

--- The table of layers: times in ms, GFLOP/s forward and back, MB of output, MB that the layer keeps in use.
function Profile:__tostring()
  local cells = { columns }
  for _, row in ipairs(self.rows) do cells[#cells + 1] = row_cells(row, self.step) end
  cells[#cells + 1] = row_cells(self:total(), self.step)
  local lines = lines_of(cells)
  lines[#lines + 1] = ("outside the layers %.3f ms, %.1f %% of a step of %.3f ms; batch %d, %d thread%s%s"):format(
    1e3 * self.outside, 100 * self.outside / self.step, 1e3 * self.step, self.batch, self.threads,
    self.threads > 1 and "s" or "", self.peak and (", peak %.1f MB"):format(self.peak / 1e6) or "")
  return table.concat(lines, "\n")
end

return profile
