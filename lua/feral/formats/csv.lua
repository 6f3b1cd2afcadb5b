--- csv.lua: tables as text with commas, row by row.

local csv = {}

--- A cell in quotes that open before position 'at': its text, and where it ends.
local function quoted_cell(line, at)
  local parts = {}
  while true do
    local piece, after = line:match('^([^"]*)"()', at)
    if not piece then return nil, "a quote is not closed" end
    parts[#parts + 1] = piece
    if line:sub(after, after) ~= '"' then
      after = line:match("^%s*()", after)
      if after <= #line and line:sub(after, after) ~= "," then return nil, "text follows a closing quote" end
      return table.concat(parts, '"'), after
    end
    at = after + 1
  end
end

local function plain_cell(line, at)
  local after = line:find(",", at, true) or #line + 1
  return line:sub(at, after - 1):match("^%s*(.-)%s*$"), after
end

--- The cells of one row. A cell in quotes may hold commas, and a quote written twice.
---@param line string
---@return string[]|nil, string|nil  or nil and what is wrong
function csv.split(line)
  local cells, at = {}, 1
  repeat
    local inside = line:match('^%s*"()', at)
    local text, after
    if inside then text, after = quoted_cell(line, inside) else text, after = plain_cell(line, at) end
    if not text then return nil, after end
    cells[#cells + 1] = text
    at = after + 1
  until after > #line
  return cells
end

--- The lines of a file without their ends, from line 1 on; empty ones are left out.
---@param path string
---@return (fun(): integer|nil, string|nil)|nil  line number and text, one at a time; nil at the end; nil and "path: what is
---   wrong" where the file cannot be read on
---@return string|nil  message
function csv.lines(path)
  local file, message = io.open(path, "r")
  if not file then return nil, message end
  local number = 0
  return function()
    while true do
      local line, wrong = file:read("l")
      if not line then
        file:close()
        return nil, wrong and ("%s: %s"):format(path, wrong)
      end
      number = number + 1
      if number == 1 then line = line:gsub("^\xEF\xBB\xBF", "") end
      if line:byte(-1) == 13 then line = line:sub(1, -2) end -- the carriage return of Windows' files
      if line:find("%S") then return number, line end
    end
  end
end

--- The lines that are left, for a loop that must hear of a file that cannot be read on: for number, line in csv.rest(next_line)
--- gives false and the message then, and ends.
---@param next_line function  from csv.lines
---@return fun(): integer|false|nil, string|nil
function csv.rest(next_line)
  local ended = false
  return function()
    if ended then return nil end
    local number, line = next_line()
    ended = number == nil
    if number == nil and line then return false, line end
    return number, line
  end
end

--- Finds columns by the names in the first row.
---@param head string  the first row
---@param names string[]  small letters count as large ones
---@return integer[]|nil, string|nil  the place of each, or nil and a message
function csv.columns(head, names)
  local cells, message = csv.split(head)
  if not cells then return nil, message end
  local places = {}
  for i, name in ipairs(names) do
    for c, cell in ipairs(cells) do
      if cell:lower() == name:lower() then places[i] = c end
    end
    if not places[i] then return nil, ("no column '%s' (the columns are %s)"):format(name, table.concat(cells, ", ")) end
  end
  return places
end

return csv
