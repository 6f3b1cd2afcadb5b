local nn = require "feral.nn"
local ops = require "feral.tensor.ops"
local core = require "feral.core.tensor"
local convlstm = require "feral.core.convlstm"
local create = require "feral.core.create"
local view = require "feral.core.view"
local autograd = require "feral.tensor.autograd"
local errors = require "feral.base.errors"
local sizes = require "feral.base.sizes"

--- Convolutional long short-term memory over whole sequences of images (Shi et al. 2015), without peepholes; gates in PyTorch's
--- order i f g o.
---@class ConvLSTM2d : Module
local ConvLSTM2d = nn.class "ConvLSTM2d"

local node = core.node

--- The cells after the last step, whose gradient waits in 'gradients' until the operation that gave y is unwound.
local function cells_of(c, y, gradients)
  return autograd.record(c, { y }, function(g)
    gradients.c = autograd.hold(g)
    return view.expand(create.full({ 1 }, 0), y.shape) -- so that y is unwound even when nothing else depends on it
  end)
end

--- The layer as a function. w holds weight_ih (4F x C x KH x KW), weight_hh (4F x F x KH x KW) and perhaps bias (4F).
---@param x Tensor  N x T x C x H x W
---@param w table
---@param h Tensor|nil  N x F x H x W, before the first step; zeros if nil; c goes with it
---@param c Tensor|nil
---@param last boolean|nil  y is of the last step only
---@return Tensor y  N x T x F x H x W, or N x F x H x W
---@return Tensor c  N x F x H x W, after the last step
function ConvLSTM2d.apply(x, w, h, c, last)
  local inputs = { x, w.weight_ih, w.weight_hh, w.bias, h, c, n = 6 }
  local wanted = autograd.wanted(x, w.weight_ih, w.weight_hh) or autograd.wanted(w.bias, h, c)
  local y, last_c, steps, gates, hidden, cells =
    convlstm.forward(x, w.weight_ih, w.weight_hh, w.bias, h, c, last, wanted)
  if not wanted then return y, last_c end
  local gradients = {}
  autograd.record(y, inputs, function(g)
    return convlstm.backward(g, gradients.c, steps, gates, hidden, cells, w.weight_ih, w.weight_hh, node(x) ~= nil,
      node(w.weight_ih) ~= nil, node(w.weight_hh) ~= nil, node(w.bias) ~= nil)
  end)
  return y, cells_of(last_c, y, gradients)
end

--- Parameters are weight_ih, weight_hh and bias; they start uniform within 1/sqrt((inputs + hidden) KH KW).
---@param inputs integer  channels
---@param hidden integer  channels of the state
---@param kernel integer|integer[]  size, or {height, width}; as many zeros around the images as keep their size
---@param options {bias: boolean, last: boolean}|nil  default true, false; with last = true only the output after the last step
---       is given, and in evaluation no other takes memory
function ConvLSTM2d:init(inputs, hidden, kernel, options)
  options = errors.check_options("ConvLSTM2d", options, { bias = true, last = false })
  self.last = options.last
  self.inputs, self.hidden = sizes.whole("ConvLSTM2d", "inputs", inputs), sizes.whole("ConvLSTM2d", "hidden", hidden)
  local kh, kw = sizes.pair("ConvLSTM2d", "kernel", kernel)
  local bound = 1 / math.sqrt((self.inputs + self.hidden) * kh * kw)
  self:add_parameter("weight_ih", nn.uniform({ 4 * self.hidden, self.inputs, kh, kw }, bound))
  self:add_parameter("weight_hh", nn.uniform({ 4 * self.hidden, self.hidden, kh, kw }, bound))
  if options.bias then self:add_parameter("bias", nn.uniform({ 4 * self.hidden }, bound)) end
end

local function check_state(self, state, name, x)
  local t = state[name]
  local expected = table.concat({ #x, self.hidden, x:size(4), x:size(5) }, "x")
  local got = core.is_tensor(t) and table.concat(t.shape, "x") or type(t)
  if got ~= expected then errors.raise("ConvLSTM2d: state.%s is %s, %s expected", name, got, expected) end
end

---@param x Tensor  N x T x inputs x H x W
---@param state {h: Tensor, c: Tensor}|nil  where to begin, each N x hidden x H x W; zeros if nil
---@return Tensor   N x T x hidden x H x W, the output at each step; with last = true N x hidden x H x W
---@return {h: Tensor, c: Tensor}  the state after the last step, each N x hidden x H x W
--- Raises when x has other channels or dimensions.
function ConvLSTM2d:forward(x, state)
  if x:dim() ~= 5 or x:size(3) ~= self.inputs then
    errors.raise("ConvLSTM2d: input is %s, N x T x %d x H x W expected", table.concat(x.shape, "x"), self.inputs)
  end
  if state then
    check_state(self, state, "h", x)
    check_state(self, state, "c", x)
  end
  local y, c = ConvLSTM2d.apply(x, self, state and state.h, state and state.c, self.last)
  return y, { h = self.last and y or ops.select(y, 2, -1), c = c }
end

return ConvLSTM2d
