--- reader: what folder, csv and sequences share: image files as a data set, their pixels in memory, in a cache file or read as
--- they are needed. A listing says which files there are; it takes no Lua table for a sample.

local arith = require "feral.core.arith"
local create = require "feral.core.create"
local files = require "feral.core.files"
local rows = require "feral.core.rows"
local scope = require "feral.core.scope"
local sources = require "feral.core.source"
local strings = require "feral.core.strings"
local view = require "feral.core.view"
local json = require "feral.formats.json"
local progress = require "feral.host.progress"
local builder = require "feral.data.builder"
local cache = require "feral.data.cache"
local columns = require "feral.data.columns"
local emotions = require "feral.data.emotions"
local new_set = require "feral.data.set"
local errors = require "feral.base.errors"

local reader = {}

local REPORTED_MOST <const>, PROGRESS_LEAST <const> = 10, 1000
local READ_TOGETHER <const>, LOOKED_AT_TOGETHER <const> = 256, 4096

---- Options ----

--- The options that all have, for errors.check_options.
reader.defaults = { size = 48, channels = 1, strict = false, map = false, report = false, progress = true, keep = "memory",
  cache = false }

--- Says on standard error what was skipped: the first few, then only how many.
local function default_report()
  local count = 0
  return function(message)
    count = count + 1
    if count <= REPORTED_MOST then io.stderr:write("feral: ", message, "\n") end
    if count == REPORTED_MOST + 1 then io.stderr:write("feral: more of that is counted, not shown\n") end
  end
end

local function check_size(where, o)
  if o.size == false and o.keep == "files" then
    o.height, o.width = 0, 0
    return
  end
  if o.size == false then errors.raise("%s: images at their own sizes (size = false) need keep = \"files\"", where) end
  o.height, o.width = o.size, o.size
  if type(o.size) == "table" then o.height, o.width = o.size[1], o.size[2] end
  for _, side in ipairs { o.height or false, o.width or false } do
    if math.type(side) ~= "integer" or side < 1 then errors.raise("%s: size must be a number or {height, width}", where) end
  end
end

--- Checks the options and fills them in: height and width from size, report.
function reader.check(where, options, more)
  local known = {}
  for name, value in pairs(reader.defaults) do known[name] = value end
  for name, value in pairs(more or {}) do known[name] = value end
  local o = errors.check_options(where, options, known)
  if o.keep ~= "memory" and o.keep ~= "files" and o.keep ~= "cache" then
    errors.raise("%s: keep must be \"memory\", \"files\" or \"cache\", got %s", where, tostring(o.keep))
  end
  check_size(where, o)
  if o.channels ~= 1 and o.channels ~= 3 then errors.raise("%s: channels must be 1 (gray) or 3", where) end
  o.map = o.map or nil
  o.report = o.report or default_report()
  o.skipped = {}
  return o
end

--- Reports and counts what is left out.
function reader.skip(o, message)
  o.skipped[#o.skipped + 1] = message
  o.report(message .. " (skipped)")
end

--- What is done to the pixels of these files, as a set's field 'steps'.
local function steps_of(o)
  local steps = { { name = o.channels == 1 and "gray" or "rgb" } }
  if o.height > 0 then steps[2] = { name = "resize", height = o.height, width = o.width } end
  return steps
end

---- Listings ----

--- File extensions that images have, in small letters.
reader.extensions = " jpg jpeg png bmp pgm ppm pnm "

--- True for a name that images have.
function reader.is_image(name)
  local extension = name:match("%.(%w+)$")
  return extension ~= nil and reader.extensions:find(" " .. extension:lower() .. " ", 1, true) ~= nil
end

---@class Listing
---@field files Strings         all image files
---@field paths Strings         what names each sample: the files themselves, or the folders of sequences
---@field columns table         further columns of the samples: tensors or lists of strings, set when it is complete
---@field where fun(i: integer): string|nil  where sample i was named, for messages
local Listing = {}
Listing.__index = Listing

--- An empty listing.
---@param sequential boolean|nil  samples are sequences of files
---@return Listing
function reader.listing(sequential)
  local list = strings.new()
  local self = setmetatable({ files = list, paths = sequential and strings.new() or list, classes = {}, number = {},
    labels = builder.numbers "i32", columns = {} }, Listing)
  if sequential then
    self.first = builder.numbers "i32"
    self.first:add(0)
  end
  return self
end

--- Makes a class known, also one without samples.
---@param name string
---@return integer number
function Listing:class(name)
  if not self.number[name] then
    self.classes[#self.classes + 1] = name
    self.number[name] = #self.classes
  end
  return self.number[name]
end

--- Adds samples of one class, whose files are in the list already.
---@param class string
---@param count integer|nil  default 1
function Listing:add(class, count)
  local number = self:class(class)
  for _ = 1, count or 1 do self.labels:add(number) end
  if self.first then self.first:add(#self.files) end
end

--- The columns of all samples, and the classes in the library's order.
local function finish(listing)
  local classes, number = emotions.classes_in(listing.classes)
  local to = {}
  for c, name in ipairs(listing.classes) do to[c] = number[name] end
  local all = listing.columns
  all.label = scope.keep(rows.map(listing.labels:finish(), to))
  all.path = listing.paths
  return classes, all
end

---- Reading ----

--- What is wrong with samples, by their numbers; under option strict the first ends the reading.
---@class Faults
local Faults = {}
Faults.__index = Faults

local function new_faults(listing, o) return setmetatable({ where = listing.where, strict = o.strict, at = {} }, Faults) end

--- What there is to say of sample i.
function Faults:text(i) return self.where and ("%s: %s"):format(self.where(i), self.at[i]) or self.at[i] end

--- Takes messages whose numbers count from 'before' + 1; those that are known stay.
function Faults:take(messages, before)
  for k, message in pairs(messages) do self.at[before + k] = self.at[before + k] or message end
end

--- Under option strict: what there is to say of the first fault in first .. last; nil where there is none.
function Faults:first(first, last)
  if not self.strict or not next(self.at) then return nil end
  for i = first, last do
    if self.at[i] then return self:text(i) end
  end
end

--- Reports all, in order. Returns the first, and which samples are left: i32, nil for none.
function Faults:report(o, count)
  local found = {}
  for i in pairs(self.at) do found[#found + 1] = i end
  table.sort(found)
  for _, i in ipairs(found) do reader.skip(o, self:text(i)) end
  if #found == 0 then return nil, rows.range(count) end
  local _open <close> = scope.scope()
  local good = create.full({ count }, 1, "i32")
  rows.put(good, create.from_table(found, "i32"), 0)
  good = rows.where(good, 1)
  return self:text(found[1]), good and scope.keep(good)
end

--- Moves a sample's images to a place before theirs.
local function move_sample(images, from, to, frames)
  local _open <close> = scope.scope()
  for k = 0, frames - 1 do arith.copy_(view.select_first(images, to + k), view.select_first(images, from + k)) end
end

--- Reads samples first .. last to the places from 'at' on, the good ones side by side. Returns how many those are; or nil and
--- a message under strict.
local function read_some(source, images, first, last, at, faults)
  local _open <close> = scope.scope()
  local count, frames = last - first + 1, source:frames()
  local numbers = view.narrow(rows.range(last), 1, first, count)
  faults:take(source:look(first, last), 0)
  faults:take(source:read(numbers, view.narrow(images, 1, (at - 1) * frames + 1, count * frames)), first - 1)
  local wrong = faults:first(first, last)
  if wrong then return nil, wrong end
  local good = 0
  for k = 1, count do
    if not faults.at[first + k - 1] then
      if good < k - 1 then move_sample(images, (at + k - 2) * frames + 1, (at + good - 1) * frames + 1, frames) end
      good = good + 1
    end
  end
  return good
end

--- Calls f(first, last) for all samples, so many at a time, with a progress bar; ends where it returns a message.
local function in_pieces(what, count, together, o, f)
  local bar = progress.new(o.progress and count >= PROGRESS_LEAST)
  bar:start(what, count)
  local message
  for first = 1, count, together do
    local last = math.min(count, first + together - 1)
    message = f(first, last)
    if message then break end
    bar:update(last)
  end
  bar:clear()
  return message
end

--- Three ways to keep pixels. Each gives the fields of the set that depend on it, and the samples that are good; or nil and a
--- message.
local keeping = {}

function keeping.memory(source, count, faults, o)
  local frames = source:frames()
  local images = view.permute(create.empty({ count * frames, o.height, o.width, o.channels }, "u8"), 1, 4, 2, 3)
  local good = 0
  local message = in_pieces("reading images", count, math.max(1, READ_TOGETHER // frames), o, function(first, last)
    local some, wrong = read_some(source, images, first, last, good + 1, faults)
    good = good + (some or 0)
    return wrong
  end)
  if message then return nil, message end
  local fault, left = faults:report(o, count)
  if not left then return nil, fault, true end
  images = view.narrow(images, 1, 1, good * frames)
  if source:is_sequential() then images = view.reshape(images, good, frames, o.channels, o.height, o.width) end
  return { images = images, taken = left }
end

local function look_at_all(source, count, faults, o)
  return in_pieces("looking at images", count, LOOKED_AT_TOGETHER, o, function(first, last)
    local _open <close> = scope.scope()
    faults:take(source:look(first, last), 0)
    return faults:first(first, last)
  end)
end

function keeping.files(source, count, faults, o)
  local message = look_at_all(source, count, faults, o)
  if message then return nil, message end
  local fault, left = faults:report(o, count)
  if not left then return nil, fault, true end
  return { source = source, rows = left }
end

--- Beside a cache lies what it was made of: the fingerprint of the files, and what was wrong with some.
local function read_notes(path, fingerprint, count)
  local text = files.look(path .. ".json") and files.read(path .. ".json")
  local notes = text and json.decode(text)
  if type(notes) ~= "table" or notes.fingerprint ~= fingerprint or type(notes.faults) ~= "table" then return nil end
  local source = cache.open(path)
  if not source or #source ~= count then return nil end
  local faults = {}
  for _, fault in ipairs(notes.faults) do faults[fault[1]] = fault[2] end
  return source, faults
end

local function write_notes(path, fingerprint, faults)
  local list = {}
  for i in pairs(faults) do list[#list + 1] = { i, faults[i] } end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return files.write_atomic(path .. ".json", json.encode { fingerprint = fingerprint, faults = list })
end

--- Decodes all files to the cache.
local function make_cache(source, count, path, faults, o)
  local message = look_at_all(source, count, faults, o)
  if message then return nil, message end
  local bar = progress.new(o.progress and count >= PROGRESS_LEAST)
  bar:start("reading images", count)
  local cached, found = cache.make(source, rows.range(count), path, function(done) bar:update(done) end)
  bar:clear()
  if not cached then return nil, found end
  for i, text in pairs(faults.at) do found[i] = text end -- which say more of a file that could not be looked at
  return cached, found
end

function keeping.cache(source, count, faults, o)
  local _open <close> = scope.scope()
  local fingerprint = source:fingerprint()
  local cached, found = read_notes(o.cache, fingerprint, count)
  if not cached then
    cached, found = make_cache(source, count, o.cache, faults, o)
    if not cached then return nil, found end
    local ok, message = write_notes(o.cache, fingerprint, found)
    if not ok then return nil, message end
  end
  faults:take(found, 0)
  local wrong = faults:first(1, count)
  if wrong then return nil, wrong end
  local fault, left = faults:report(o, count)
  if not left then return nil, fault, true end
  return { source = cached, rows = scope.keep(left) }
end

--- Where the cache lies by default: hidden in the folder, or beside the file.
local function default_cache(where, o)
  local name = (".pixels-%dx%dx%d%s.npy"):format(o.height, o.width, o.channels, o.frames and "-" .. o.frames or "")
  return files.look(where) == "directory" and where .. "/" .. name or where .. name
end

--- A data set of the files in a listing. What cannot be read is reported, counted and left out; under option strict it is an
--- error.
---@param where string  the folder or table, for messages
---@param listing Listing
---@param o table  from reader.check
---@return Set|nil, string|nil
function reader.read(where, listing, o)
  local count = listing.labels.count
  if count == 0 then return nil, ("%s: no images"):format(where) end
  o.cache = o.cache or default_cache(where, o)
  local classes, all = finish(listing)
  local source = sources.files(listing.files, { o.height, o.width, o.channels }, listing.first and listing.first:finish())
  local kept, message, none = keeping[o.keep](source, count, new_faults(listing, o), o)
  if none then return nil, ("%s: none of its images can be read (%s)"):format(where, message) end
  if not kept then return nil, message end
  if kept.taken and #kept.taken < count then
    for _, name in ipairs(columns.names(all)) do all[name] = columns.take(all[name], kept.taken) end
  end
  local label = all.label
  local set = new_set { images = kept.images or false, source = kept.source or false, labels = label, classes = classes,
    columns = all, skipped = o.skipped, steps = steps_of(o) }
  return kept.rows and #kept.rows < count and set:derive { rows = kept.rows } or set
end

return reader
