--- feral: facial expression recognition. The modules load when they are first used.
---
---     local feral = require "feral"
---     local nn, data = feral.nn, feral.data

local feral = { version = "0.1.0" }

feral.tensor = require "feral.tensor" -- at once: it gives tensors their methods

return setmetatable(feral, {
  __index = function(self, name)
    local found, module = pcall(require, "feral." .. name)
    if not found then
      if module:find("module 'feral." .. name .. "' not found", 1, true) then return nil end
      error(module, 0)
    end
    rawset(self, name, module)
    return module
  end,
})
