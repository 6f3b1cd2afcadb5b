--- csv.lua: tables as text with commas, row by row.

local csv = {}

--- The cells of one row. A cell in quotes may hold commas, and a quote written twice.
---@param line string
---@return string[]|nil, string|nil  or nil and what is wrong
function csv.split(line)
  local cells, at = {}, 1
  while true do
    local text, after
    if line:match('^%s*"', at) then
      local first = line:match('^%s*"()', at)
      text, after = "", first
      repeat
        local piece, next_at = line:match('^([^"]*)"()', after)
        if not piece then return nil, "a quote is not closed" end
        local doubled = line:sub(next_at, next_at) == '"'
        text, after = text .. piece .. (doubled and '"' or ""), doubled and next_at + 1 or next_at
      until not doubled
      after = line:match("^%s*()", after)
      if after <= #line and line:sub(after, after) ~= "," then return nil, "text follows a closing quote" end
    else
      text, after = line:match("^%s*([^,]-)%s*%f[,\0]()", at)
    end
    cells[#cells + 1] = text
    if after > #line then return cells end
    at = after + 1
  end
end

--- The lines of a file without their ends, from line 1 on; empty ones are left out.
---@param path string
---@return (fun(): integer|nil, string|nil)|nil  line number and text, one at a time
---@return string|nil  message
function csv.lines(path)
  local file, message = io.open(path, "r")
  if not file then return nil, message end
  local number = 0
  return function()
    while true do
      local line = file:read("l")
      if not line then
        file:close()
        return nil
      end
      number = number + 1
      if number == 1 then line = line:gsub("^\xEF\xBB\xBF", "") end
      line = line:gsub("\r$", "")
      if line:find("%S") then return number, line end
    end
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
