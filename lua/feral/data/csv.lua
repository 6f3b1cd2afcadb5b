--- data.csv: a table of paths and labels.

local rows = require "feral.formats.csv"
local emotions = require "feral.data.emotions"
local reader = require "feral.data.reader"

--- One row as a sample; or nil and what is wrong.
local function sample_of(line, columns, root, map)
  local cells, message = rows.split(line)
  if not cells then return nil, message end
  local path, label = cells[columns[1]], cells[columns[2]]
  if not path or not label then
    return nil, ("%d cells, at least %d expected"):format(#cells, math.max(columns[1], columns[2]))
  end
  if path == "" then return nil, "the path is empty" end
  if label == "" then return nil, "the label is empty" end
  local file = path:sub(1, 1) == "/" and path or root .. path
  return { class = emotions.class_of(label, map), path = file, files = { file } }
end

--- Images named by a CSV file with a head row. Paths are relative to the CSV's own folder, or to option root.
---
--- Options: path ("path") and label ("label"): names of the columns; root: the folder that paths start from; and those of
--- data.folder: size, channels, map, strict, report, progress. A row or an image that is wrong is reported with file and line.
---@param path string
---@param options table|nil
---@return Set|nil
---@return string|nil  "file:line: what is wrong"
local function csv(path, options)
  local o = reader.check("data.csv", options, { path = "path", label = "label", root = false })
  local root = o.root and o.root .. "/" or path:match("^(.*/)[^/]*$") or ""
  local next_line, message = rows.lines(path)
  if not next_line then return nil, message end
  local first, head = next_line()
  if not first then return nil, head or path .. ": the file is empty" end
  local columns, wrong = rows.columns(head, { o.path, o.label })
  if not columns then return nil, ("%s:%d: %s"):format(path, first, wrong) end
  local samples, classes = {}, {}
  for number, line in rows.rest(next_line) do
    if not number then return nil, line end
    local sample, fault = sample_of(line, columns, root, o.map)
    local where = ("%s:%d"):format(path, number)
    if sample then
      sample.where = where
      samples[#samples + 1], classes[#classes + 1] = sample, sample.class
    elseif o.strict then
      return nil, ("%s: %s"):format(where, fault)
    else
      reader.skip(o, ("%s: %s"):format(where, fault))
    end
  end
  return reader.read(path, samples, classes, o)
end

return csv
