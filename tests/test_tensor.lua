local lu = require "luaunit"
local create, view = require "feral.core.create", require "feral.core.view"

local T = {}

function T.test_reshape_of_a_transposed_view_copies_in_logical_order()
  local t = view.permute(create.from_table { { 1, 2, 3 }, { 4, 5, 6 } }, 2, 1)
  lu.assertEquals(create.totable(view.reshape(t, 2, 3)), { { 1, 4, 2 }, { 5, 3, 6 } })
end

return T
