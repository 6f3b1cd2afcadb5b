--- progress.lua: a bar on the terminal for long work; nothing where there is no terminal.

local system = require "feral.core.system"

local progress = {}

local Bar = {}
Bar.__index = Bar

--- A bar on standard error.
---@param enabled boolean|nil  false: it never shows
function progress.new(enabled)
  return setmetatable({ shown = enabled ~= false and system.width(2) ~= nil, drawn_at = 0 }, Bar)
end

--- Begins a stretch of work.
---@param title string
---@param total integer  steps
---@param done integer|nil  steps done before
function Bar:start(title, total, done)
  self.title, self.total, self.first, self.items = title, total, done or 0, 0
  self.started, self.drawn_at = system.clock(), 0
end

local function duration(seconds)
  seconds = math.floor(seconds + 0.5)
  if seconds >= 3600 then return ("%d:%02d:%02d"):format(seconds // 3600, seconds // 60 % 60, seconds % 60) end
  return ("%d:%02d"):format(seconds // 60, seconds % 60)
end

--- Shows that 'done' steps are done; items counts the images of this step for the rate.
function Bar:update(done, note, items)
  self.items = self.items + (items or 1)
  if not self.shown then return end
  local now = system.clock()
  if now - self.drawn_at < 0.1 and done < self.total then return end
  self.drawn_at = now
  local spent = math.max(now - self.started, 1e-9)
  local left = (self.total - done) * spent / math.max(done - self.first, 1)
  local tail = (" %d/%d  %s  %.0f/s  %s left"):format(done, self.total, note or "", self.items / spent, duration(left))
  local columns = system.width(2) or 80
  local width = math.max(5, math.min(30, columns - #tail - #self.title - 5))
  local full = math.floor(width * done / self.total)
  local line = ("%s [%s%s]%s"):format(self.title, ("="):rep(full), (" "):rep(width - full), tail)
  io.stderr:write("\r", line:sub(1, columns - 1), "\27[K") -- a longer one would go on in the next line, and stay there
  io.stderr:flush()
end

--- Takes the bar off the screen.
function Bar:clear()
  if self.shown and self.drawn_at > 0 then io.stderr:write("\r\27[K") end
  io.stderr:flush()
end

return progress
