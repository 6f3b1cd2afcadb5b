--- history_csv.lua: the history of a training as a table for other programs.

local first_columns = { "epoch", "seconds", "learning_rate", "loss", "accuracy", "validation_loss" }

--- The history as CSV, one row an epoch; behind the usual columns one for each metric, validation_<name>. What was not measured,
--- or was infinite or NaN, is an empty cell.
---@param history table  train.fit's
---@return string
return function(history)
  local columns = table.move(first_columns, 1, #first_columns, 1, {})
  for _, name in ipairs(history.metrics or {}) do
    if name ~= "loss" then columns[#columns + 1] = "validation_" .. name end
  end
  local lines = { table.concat(columns, ",") }
  for _, row in ipairs(history) do
    local cells = {}
    for i, name in ipairs(columns) do
      local value = row[name]
      cells[i] = value and value - value == 0 and ("%.9g"):format(value) or ""
    end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end
