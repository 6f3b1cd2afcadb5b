--- schedule.lua: how the learning rate changes while training goes on.
---
---     local schedule = optim.schedule.cosine(opt, 30)
---     for epoch = 1, 30 do
---       ... train ...
---       schedule:step(validation_loss)   -- an epoch is over (the number is needed by plateau alone)
---     end
---
--- Time is counted in epochs, or in whatever step() is called after. All but plateau are functions of time alone and can
--- be followed within an epoch too, as train.fit does: schedule:set(epoch - 1 + batch / batches).

local errors = require "feral.base.errors"

local schedule = {}

---@class Schedule
---@field kind string   "cosine", "plateau" ...
---@field opt Optimiser
---@field base number   the optimiser's learning rate when the schedule was made
---@field time integer  how often step() was called
local Schedule = {}
Schedule.__index = Schedule

--- The learning rate at a time, which may lie between two epochs.
---@param time number
---@return number
function Schedule:at(time) return self.rate(self.base, time) end

--- Sets the learning rate for a time without counting an epoch.
function Schedule:set(time) self.opt.lr = self:at(time) end

--- An epoch is over: sets the learning rate for the next.
function Schedule:step(_)
  self.time = self.time + 1
  self:set(self.time)
end

Schedule.remembered = { "base", "time" }

--- Plain data, for a checkpoint.
---@return table
function Schedule:state()
  local state = { kind = self.kind }
  for _, name in ipairs(self.remembered) do state[name] = self[name] end
  return state
end

--- Goes on from what state() gave. Raises when that is another kind's.
---@return Schedule self
function Schedule:load_state(state)
  if type(state) ~= "table" or state.kind ~= self.kind then
    errors.raise("schedule.%s: load_state: the state is of %s", self.kind,
      type(state) == "table" and "schedule." .. tostring(state.kind) or "no schedule")
  end
  for _, name in ipairs(self.remembered) do self[name] = state[name] end
  self:set(self.time)
  return self
end

local function check_number(name, value, least, most)
  if type(value) ~= "number" or not (value >= least and value <= (most or math.huge)) then
    errors.raise("schedule.%s must be a number %s, got %s", name,
      most and ("from %g to %g"):format(least, most) or ("of at least %g"):format(least), tostring(value))
  end
end

local function check_epochs(name, epochs)
  if type(epochs) ~= "number" or not (epochs > 0 and epochs < math.huge) then
    errors.raise("schedule.%s must be a number above 0, got %s", name, tostring(epochs))
  end
end

local function check_optimiser(name, opt)
  if type(opt) ~= "table" or type(opt.lr) ~= "number" or not opt.params then
    errors.raise("schedule.%s: the first argument must be an optimiser, got %s", name, type(opt))
  end
end

--- A schedule whose learning rate is rate(base, time).
local function new(name, opt, rate)
  check_optimiser(name, opt)
  local self = setmetatable({ kind = name, opt = opt, base = opt.lr, time = 0, rate = rate }, Schedule)
  self:set(0)
  return self
end

--- Times gamma after every so many epochs, or at each of a list of epochs.
---@param opt Optimiser
---@param every number|number[]
---@param options {gamma: number}|nil  default 0.1
---@return Schedule
function schedule.step(opt, every, options)
  options = errors.check_options("schedule.step", options, { gamma = 0.1 })
  check_number("step: gamma", options.gamma, 0)
  local marks = type(every) == "table" and every
  for _, mark in ipairs(marks or { every }) do check_epochs("step: the number of epochs", mark) end
  return new("step", opt, function(base, time)
    local passed = 0
    for _, mark in ipairs(marks or {}) do passed = passed + (time >= mark and 1 or 0) end
    return base * options.gamma ^ (marks and passed or time // every)
  end)
end

--- From a to b along half a cosine wave, for part in [0, 1].
local function ease(a, b, part) return b + (a - b) * (1 + math.cos(math.pi * math.min(part, 1))) / 2 end

--- Down to eta_min along half a cosine wave over so many epochs (Loshchilov and Hutter 2017). It reaches eta_min when they are
--- over and stays there; PyTorch's CosineAnnealingLR would rise again.
---@param opt Optimiser
---@param epochs number
---@param options {eta_min: number}|nil  default 0
---@return Schedule
function schedule.cosine(opt, epochs, options)
  options = errors.check_options("schedule.cosine", options, { eta_min = 0 })
  check_epochs("cosine: the number of epochs", epochs)
  check_number("cosine: eta_min", options.eta_min, 0)
  return new("cosine", opt, function(base, time) return ease(base, options.eta_min, time / epochs) end)
end

--- One cycle: up from max_lr / div_factor to max_lr in the first part pct_start of the epochs, then down to
--- 1 / final_div_factor of where it began, both along half a cosine wave (Smith and Topin 2018). It is at its end when
--- the epochs are over, and stays there. PyTorch's OneCycleLR is at its end in its last step already, and raises after it: of n
--- steps it has the rates of onecycle(opt, max_lr, n - 1, { pct_start = (pct_start * n - 1) / (n - 1) }). In train.fit, which
--- follows the cycle within epochs, that is a difference of one step.
---@param opt Optimiser
---@param max_lr number
---@param epochs number
---@param options {pct_start: number, div_factor: number, final_div_factor: number}|nil  default 0.3, 25, 1e4
---@return Schedule
function schedule.onecycle(opt, max_lr, epochs, options)
  options = errors.check_options("schedule.onecycle", options,
    { pct_start = 0.3, div_factor = 25, final_div_factor = 1e4 })
  check_epochs("onecycle: max_lr", max_lr)
  check_epochs("onecycle: the number of epochs", epochs)
  check_number("onecycle: pct_start", options.pct_start, 0, 1)
  check_number("onecycle: div_factor", options.div_factor, 1)
  check_number("onecycle: final_div_factor", options.final_div_factor, 1)
  local first = max_lr / options.div_factor
  local last, rise = first / options.final_div_factor, options.pct_start * epochs
  return new("onecycle", opt, function(_, time)
    if time < rise then return ease(first, max_lr, time / rise) end
    return rise < epochs and ease(max_lr, last, (time - rise) / (epochs - rise)) or max_lr
  end)
end

---@class Warmup : Schedule  a straight line up, then the schedule inside
local Warmup = setmetatable({}, { __index = Schedule })
Warmup.__index = Warmup

function Warmup:at(time)
  if time >= self.epochs then return self.inner and self.inner:at(time - self.epochs) or self.base end
  return self.base * (self.start + (1 - self.start) * time / self.epochs)
end

function Warmup:step(metric)
  self.time = self.time + 1
  if self.inner and self.time > self.epochs then self.inner:step(metric) end
  self:set(self.time)
end

function Warmup:state()
  local state = Schedule.state(self)
  state.inner = self.inner and self.inner:state()
  return state
end

function Warmup:load_state(state)
  Schedule.load_state(self, state)
  if self.inner then self.inner:load_state(state.inner) end
  self:set(self.time)
  return self
end

--- Up from a part of the learning rate along a straight line over so many epochs; then it stays, or another schedule
--- begins: schedule.warmup(schedule.cosine(opt, 27), 3) are 30 epochs.
---@param first Optimiser|Schedule
---@param epochs number
---@param options {start: number}|nil  the part to begin with, default 0.1
---@return Schedule
function schedule.warmup(first, epochs, options)
  options = errors.check_options("schedule.warmup", options, { start = 0.1 })
  check_epochs("warmup: the number of epochs", epochs)
  check_number("warmup: start", options.start, 0, 1)
  local inner = type(first) == "table" and first.opt and first or nil
  local opt = inner and inner.opt or first
  check_optimiser("warmup", opt)
  local self = setmetatable({ kind = "warmup", opt = opt, inner = inner, base = opt.lr, time = 0, epochs = epochs,
    start = options.start }, Warmup)
  self:set(0)
  return self
end

---@class Plateau : Schedule  what it does depends on how training goes
---@field best number|nil    the best metric so far
---@field bad integer        epochs since then
---@field resting integer    epochs left in which bad ones do not count
local Plateau = setmetatable({}, { __index = Schedule })
Plateau.__index = Plateau

function Plateau:at() return self.lr end

--- True when a metric is better than the best so far, by more than the threshold.
function Plateau:is_better(metric)
  if not self.best then return metric == metric end
  if self.mode == "max" then return metric > self.best * (1 + self.threshold) end
  return metric < self.best * (1 - self.threshold)
end

function Plateau:step(metric)
  if type(metric) ~= "number" then
    errors.raise("schedule.plateau: step needs the epoch's metric, got %s", type(metric))
  end
  self.time = self.time + 1
  if self:is_better(metric) then self.best, self.bad = metric, 0 else self.bad = self.bad + 1 end
  if self.resting > 0 then self.resting, self.bad = self.resting - 1, 0 end
  if self.bad > self.patience then
    self.lr = math.max(self.lr * self.factor, self.min_lr)
    self.bad, self.resting = 0, self.cooldown
  end
  self:set()
end

Plateau.remembered = { "time", "lr", "best", "bad", "resting" }

--- Times factor when the metric given to step() has not become better, by the part 'threshold' of itself, for more than
--- 'patience' epochs.
---@param opt Optimiser
---@param options table|nil  {mode = "min" (for a loss; "max" for an accuracy), factor = 0.1, patience = 10,
---                           threshold = 1e-4, cooldown = 0 (epochs after a change that do not count), min_lr = 0}
---@return Schedule
function schedule.plateau(opt, options)
  options = errors.check_options("schedule.plateau", options,
    { mode = "min", factor = 0.1, patience = 10, threshold = 1e-4, cooldown = 0, min_lr = 0 })
  check_optimiser("plateau", opt)
  if options.mode ~= "min" and options.mode ~= "max" then
    errors.raise("schedule.plateau: mode must be 'min' or 'max', got '%s'", tostring(options.mode))
  end
  check_number("plateau: factor", options.factor, 0, 1)
  for _, name in ipairs { "patience", "threshold", "cooldown", "min_lr" } do
    check_number("plateau: " .. name, options[name], 0)
  end
  local self = setmetatable(options, Plateau)
  self.kind, self.opt, self.lr, self.time, self.bad, self.resting = "plateau", opt, opt.lr, 0, 0, 0
  return self
end

return schedule
