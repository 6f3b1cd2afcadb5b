local nn = require "feral.nn"
local ops = require "feral.tensor.ops"
local core = require "feral.core.tensor"
local lstm = require "feral.core.lstm"
local create = require "feral.core.create"
local view = require "feral.core.view"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local sizes = require "feral.base.sizes"

--- Long short-term memory over whole sequences (Hochreiter and Schmidhuber 1997), gates in PyTorch's order i f g o.
---@class LSTM : Module
local LSTM = nn.class "LSTM"

local node = core.node

--- Another result of the operation that gave y. Its gradient waits in 'gradients' until that operation is unwound.
local function side_result(value, y, gradients, name)
  return autograd.record(value, { y }, function(g)
    gradients[name] = autograd.hold(g)
    return view.expand(create.full({ 1 }, 0), y.shape) -- so that y is unwound even when nothing else depends on it
  end)
end

--- One layer in one direction. w holds weight_ih (4H x I), weight_hh (4H x H) and perhaps bias_ih, bias_hh (4H).
---@param x Tensor  N x T x I
---@param w table
---@param h Tensor|nil  N x H, before the first step; zeros if nil; so is c
---@param c Tensor|nil
---@param reverse boolean|nil  from the last step to the first
---@param lengths Tensor|nil   i32 N
---@return Tensor y  N x T x H
---@return Tensor h  1 x N x H, after the last step (in reverse: the first)
---@return Tensor c  1 x N x H
---@internal
function LSTM.layer(x, w, h, c, reverse, lengths)
  local inputs = { x, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, h, c, n = 7 }
  local y, last_h, last_c, steps, gates, hidden, cells =
    lstm.forward(x, w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh, h, c, reverse, lengths)
  local wanted = false
  for i = 1, 7 do wanted = wanted or autograd.wanted(inputs[i]) end
  if not wanted then return y, last_h, last_c end
  local gradients = {}
  autograd.record(y, inputs, function(g)
    local dx, dw_ih, dw_hh, db, dh, dc = lstm.backward(g, gradients.h, gradients.c, steps, gates, hidden, cells,
      w.weight_ih, w.weight_hh, reverse, lengths, node(x) ~= nil, node(w.weight_ih) ~= nil, node(w.weight_hh) ~= nil,
      node(w.bias_ih) ~= nil or node(w.bias_hh) ~= nil)
    return dx, dw_ih, dw_hh, db, db, dh, dc
  end)
  return y, side_result(last_h, y, gradients, "h"), side_result(last_c, y, gradients, "c")
end

local parts = { "weight_ih", "weight_hh", "bias_ih", "bias_hh" }

--- Parameters are named as PyTorch's: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_ih_l0_reverse ...
---@param inputs integer
---@param hidden integer
---@param options {layers: integer, bias: boolean, bidirectional: boolean, dropout: number}|nil
---       default 1, true, false, 0; dropout stands between layers
function LSTM:init(inputs, hidden, options)
  options = errors.check_options("LSTM", options, { layers = 1, bias = true, bidirectional = false, dropout = 0 })
  inputs, hidden = sizes.whole("LSTM", "inputs", inputs), sizes.whole("LSTM", "hidden", hidden)
  self.inputs, self.hidden, self.layers = inputs, hidden, sizes.whole("LSTM", "layers", options.layers)
  self.suffixes = options.bidirectional and { "", "_reverse" } or { "" }
  local bound = 1 / math.sqrt(hidden)
  for layer = 0, self.layers - 1 do
    local features = layer == 0 and inputs or hidden * #self.suffixes
    local shapes = { { 4 * hidden, features }, { 4 * hidden, hidden }, { 4 * hidden }, { 4 * hidden } }
    for _, suffix in ipairs(self.suffixes) do
      for i = 1, options.bias and 4 or 2 do
        self:add_parameter(parts[i] .. "_l" .. layer .. suffix, nn.uniform(shapes[i], bound))
      end
    end
  end
  if options.dropout ~= 0 then self:add_child("dropout", nn.Dropout(options.dropout)) end
end

local function check_state(self, state, name, sequences)
  local t = state[name]
  local expected = ("%dx%dx%d"):format(self.layers * #self.suffixes, sequences, self.hidden)
  local got = core.is_tensor(t) and table.concat(t.shape, "x") or type(t)
  if got ~= expected then errors.raise("LSTM: state.%s is %s, %s expected", name, got, expected) end
end

--- What layer.h and layer.c of a state are for the k-th layer and direction, N x H.
local function first_state(state, k)
  if not state then return nil, nil end
  return ops.select(state.h, 1, k), ops.select(state.c, 1, k)
end

local function joined(tensors, dim) return #tensors == 1 and tensors[1] or ops.cat(tensors, dim) end

---@param x Tensor  N x T x inputs
---@param state {h: Tensor, c: Tensor}|nil  where to begin; zeros if nil
---@param lengths integer[]|Tensor|nil  how many steps each sequence has (i32 N); behind them outputs are 0, the state stays
---@return Tensor   N x T x hidden (2 hidden when bidirectional): the last layer's output at each step
---@return {h: Tensor, c: Tensor}  the state after the last step, each layers x N x hidden (2 layers when bidirectional)
function LSTM:forward(x, state, lengths)
  if x:dim() ~= 3 or x:size(3) ~= self.inputs then
    errors.raise("LSTM: input is %s, N x T x %d expected", table.concat(x.shape, "x"), self.inputs)
  end
  if state then
    check_state(self, state, "h", #x)
    check_state(self, state, "c", #x)
  end
  if type(lengths) == "table" then lengths = create.from_table(lengths, "i32") end
  local last_h, last_c = {}, {}
  for layer = 0, self.layers - 1 do
    if layer > 0 and self.dropout then x = self.dropout(x) end
    local outputs = {}
    for direction, suffix in ipairs(self.suffixes) do
      local weights, k = {}, #last_h + 1
      for _, part in ipairs(parts) do weights[part] = self[part .. "_l" .. layer .. suffix] end
      local h, c = first_state(state, k)
      outputs[direction], last_h[k], last_c[k] = LSTM.layer(x, weights, h, c, direction == 2, lengths)
    end
    x = joined(outputs, 3)
  end
  return x, { h = joined(last_h, 1), c = joined(last_c, 1) }
end

return LSTM
