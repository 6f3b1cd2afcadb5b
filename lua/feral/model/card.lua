--- card.lua: a model's card, from what its file says of it, as Markdown.
---
---     print(feral.model.card.text(m))      -- the command is: feral models NAME
---
--- A card is the table m.card: free facts (name, data, protocol, command, scored_on, seeds ...) and m.card.measured, the figures
--- of model/measure.lua, which "feral card MODEL DIR" puts there. What a card does not know it does not show.

local errors = require "feral.base.errors"

local card = {}

local FACTS <const> = {
  { "data", "Trained on" }, { "protocol", "Protocol" }, { "seeds", "Seeds" }, { "seed", "Seed" }, { "command", "Command" },
  { "scored_on", "Scored on" }, { "note", "Note" },
}

local WARNING <const> = [[The labels name expressions that people saw on pictures: they are not what the person shown felt or
intended. It must not be used to decide anything about a person, such as hiring, policing, schooling, health or credit.]]

local function percent(share) return ("%.2f %%"):format(100 * share) end

--- A fact as text: lists with commas, code as code.
local function fact_text(name, value)
  if type(value) == "table" then
    local parts = {}
    for i, part in ipairs(value) do parts[i] = tostring(part) end
    value = table.concat(parts, ", ")
  end
  return name == "command" and ("`%s`"):format(value) or tostring(value)
end

local function add(lines, format, ...) lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format end

--- A table of Markdown, from rows of cells; the first row is the head, and all columns but the first are numbers.
local function add_table(lines, rows)
  for i, row in ipairs(rows) do
    add(lines, "| " .. table.concat(row, " | ") .. " |")
    if i == 1 then add(lines, "|---|" .. ("---:|"):rep(#row - 1)) end
  end
  add(lines, "")
end

local function add_facts(lines, facts)
  for _, pair in ipairs(FACTS) do
    local value = facts[pair[1]]
    if value ~= nil then add(lines, "- %s: %s", pair[2], fact_text(pair[1], value)) end
  end
end

local function add_size(lines, m, facts, bytes)
  local measured = facts.measured or {}
  if m.classes then add(lines, "- Classes: %s", table.concat(m.classes, ", ")) end
  for _, stage in ipairs(m.stages or {}) do add(lines, "- Stage: %s", tostring(stage)) end
  if measured.parameters then add(lines, "- Parameters: %d", measured.parameters) end
  if bytes then add(lines, "- Size: %.1f MB", bytes / 1e6) end
  local speed = measured.speed
  if speed then
    add(lines, "- Speed: %.2f ms an image on one thread, measured%s", speed.ms, speed.machine and " on " .. speed.machine or "")
  end
  add(lines, "")
end

local function add_scores(lines, measured)
  add(lines, "## Scores\n")
  add(lines, "Accuracy %s (95 %% interval of Wilson %s to %s), balanced %s, %d of %d images%s.\n", percent(measured.accuracy),
    percent(measured.low), percent(measured.high), percent(measured.balanced), measured.right, measured.count,
    measured.data and " of " .. measured.data or "")
  if measured.views then
    local rows = { { "judged", "accuracy", "95 % interval", "balanced" } }
    for i, view in ipairs(measured.views) do
      rows[i + 1] = { view.mirror and "image and mirror image" or "image alone", percent(view.accuracy),
        ("%s to %s"):format(percent(view.low), percent(view.high)), percent(view.balanced) }
    end
    add_table(lines, rows)
  end
  local rows = { { "class", "recall", "95 % interval", "precision", "images" } }
  for i, s in ipairs(measured.per_class) do
    rows[i + 1] = { s.class, percent(s.recall), ("%s to %s"):format(percent(s.recall_low), percent(s.recall_high)),
      percent(s.precision), tostring(s.count) }
  end
  add_table(lines, rows)
end

local function add_confusion(lines, measured)
  add(lines, "## Confusion\n\nRows are what is true, columns what is predicted.\n")
  local rows = { { "", table.unpack(measured.classes) } }
  for t, counts in ipairs(measured.confusion) do
    rows[t + 1] = { measured.classes[t] }
    for p, count in ipairs(counts) do rows[t + 1][p + 1] = tostring(count) end
  end
  add_table(lines, rows)
end

local function add_calibration(lines, measured)
  local c = measured.calibration
  add(lines, "## Calibration\n")
  add(lines, "Temperature %.3f, fitted on %d images%s. On the other %d the expected calibration error (15 bins) is %s without "
    .. "it and %s with it.\n", c.temperature, c.fitted_on, c.fitted_how and " (" .. c.fitted_how .. ")" or "", c.measured_on,
    percent(c.before), percent(c.after))
  add(lines, "What is less sure than a threshold may be called unknown. The same %d images:\n", c.measured_on)
  local rows = { { "highest probability from", "images kept", "accuracy of them" } }
  for i, row in ipairs(measured.coverage) do
    rows[i + 1] = { ("%.2f"):format(row.threshold), percent(row.coverage), row.accuracy and percent(row.accuracy) or "-" }
  end
  add_table(lines, rows)
end

--- The card of a model as Markdown.
---@param m Model|{card: table}  another network's card alone will do
---@param options {name: string|nil, bytes: integer|nil}|nil  bytes: the size of its file
---@return string
function card.text(m, options)
  options = errors.check_options("card.text", options, { name = false, bytes = false })
  local facts, lines = m.card, {}
  local measured = facts.measured
  add(lines, "# %s\n", options.name or facts.name or "A model")
  add_facts(lines, facts)
  add_size(lines, m, facts, options.bytes)
  add(lines, "## What it is not for\n\n" .. WARNING .. "\n")
  if measured then
    add_scores(lines, measured)
    add_confusion(lines, measured)
    if measured.calibration then add_calibration(lines, measured) end
  elseif facts.accuracy then
    add(lines, "## Scores\n\nAccuracy %s%s.\n", percent(facts.accuracy),
      facts.balanced and ", balanced " .. percent(facts.balanced) or "")
  end
  return (table.concat(lines, "\n"):gsub("\n+$", "\n"))
end

return card
