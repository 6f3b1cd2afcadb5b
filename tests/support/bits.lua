--- bits.lua: what code computes must be the same to the last bit with one thread and with two.

local lu = require "luaunit"
local threads = require "threads"

local bits = {}

local preamble = [[
package.path = 'tests/support/?.lua;' .. package.path
local feral, check = require 'feral', require 'check'
local tensor, nn = feral.tensor, feral.nn
local function show(...)
  for _, t in ipairs { ... } do
    local hash = 0
    for word in t:tobytes():gmatch '....' do hash = (hash * 31 + string.unpack('<I4', word)) & 0xffffffffffff end
    print('shape ' .. table.concat(t.shape, 'x'), hash)
  end
end
]]

--- Fails when what the code shows (show(tensor, ...)) differs.
---@param code string  sees feral, tensor, nn, check and show
function bits.check_same(code)
  local one = threads.run(1, preamble .. code)
  lu.assertStrMatches(one, ".*%d+\n")
  lu.assertEquals(threads.run(2, preamble .. code), one)
end

return bits
