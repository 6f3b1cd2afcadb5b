--- clouds.lua: a problem for classifiers, drawn from the test's random numbers.

local check = require "check"

--- Rows around a centre for each of 'classes', and their labels in mixed order.
return function(rows, width, classes, spread)
  local x, y = check.randn(rows, width):totable(), {}
  for i = 1, rows do
    y[i] = i <= classes and i or check.integer(1, classes)
    for j = 1, width do x[i][j] = x[i][j] + spread * math.sin(3 * y[i] + 5 * j) end
  end
  return x, y
end
