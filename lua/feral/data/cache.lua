--- cache: the pixels of a data set in one file, a .npy of bytes, from which a set reads what it needs. What was decoded once is
--- not decoded again.

local files = require "feral.core.files"
local rows = require "feral.core.rows"
local scope = require "feral.core.scope"
local sources = require "feral.core.source"
local npy = require "feral.formats.npy"
local columns = require "feral.data.columns"

local cache = {}

--- The source of the pixels in a file that Set:cache wrote.
---@param path string
---@return Source|nil
---@return string|nil  "path: what is wrong"
function cache.open(path)
  local array, start = npy.look(path)
  if not array then return nil, start end
  if array.name ~= "u1" or array.fortran or #array.shape < 4 or #array.shape > 5 then
    return nil, path .. ": bytes N x H x W x C or N x T x H x W x C expected, this is another array"
  end
  return sources.cache(path, start, array.shape)
end

--- Writes samples of a source to such a file, and opens it.
---@param source Source
---@param at Tensor  i32: which samples
---@param path string
---@param each (fun(done: integer, faults: table): boolean|nil)|nil  called now and then; true ends it, with no file written
---@return Source|nil|false  false where 'each' has ended it
---@return table<integer, string>|string  what is wrong with samples that could not be had, which the file has zeros for; or
---   "path: what is wrong"
function cache.make(source, at, path, each)
  local channels, height, width = source:image_size()
  local shape = { #at, height, width, channels }
  if source:is_sequential() then table.insert(shape, 2, source:frames()) end
  local folder = path:match("^(.+)/[^/]*$")
  if folder then
    local ok, message = files.mkdir(folder)
    if not ok then return nil, message end
  end
  local ok, faults = source:write(path, npy.header("u8", shape), at, each)
  if not ok then return ok, faults end
  local opened, message = cache.open(path)
  return opened, opened and faults or message
end

--- Writes the pixels of the set's rows to a file, N x H x W x C (sequences N x T x H x W x C), and gives the same set over that
--- file: it takes no memory for pixels, and reads each when it is wanted. numpy.load reads the file too.
---@param set Set
---@param path string  ".npy"; a file of that name stays whole until the new one is complete
---@return Set|nil
---@return string|nil  "path: what is wrong": of the file, or of an image that cannot be read; then an old file stays
--- Raises when the images differ in size.
function cache.write(set, path)
  set:image_size()
  local function is_faulty(_, faults) return next(faults) ~= nil end
  local source, faults = cache.make(set.source, set.rows, path, is_faulty)
  if not source then return nil, source == nil and faults or select(2, next(faults)) end
  local all = {}
  for _, name in ipairs(columns.names(set.columns)) do all[name] = columns.take(set.columns[name], set.rows) end
  local _open <close> = scope.scope()
  return set:derive { source = source, rows = rows.range(#source), columns = all, stored = false }
end

return cache
