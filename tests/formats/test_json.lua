local lu = require "luaunit"
local json = require("feral").json
local check = require "check"

local T = {}

function T.test_numbers_come_back_to_the_bit()
  for i = 1, 300 do
    local exponent = check.integer(-300, 300)
    local value = (check.integer(1, 1 << 22) + check.integer(0, 1 << 22) / (1 << 22)) * 2.0 ^ exponent * (i % 2 * 2 - 1)
    lu.assertEquals(json.decode(json.encode { value })[1], value)
  end
  for _, value in ipairs { 0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, math.maxinteger, math.mininteger, 123456789012 } do
    lu.assertEquals(json.decode(json.encode { value })[1], value)
  end
  lu.assertEquals(math.type(json.decode(json.encode { 7 })[1]), "integer")
end

function T.test_texts_of_all_kinds_come_back()
  for _, text in ipairs { "", "é\n\t\"\\/", "\0\1\31\127", "人", ("x"):rep(10000), "</script>" } do
    lu.assertEquals(json.decode(json.encode { text })[1], text)
  end
end

function T.test_equal_values_make_equal_texts()
  local a, b = {}, {}
  for i = 1, 50 do a["key" .. i] = { i, x = i / 7, y = true } end
  for i = 50, 1, -1 do b["key" .. i] = { i, y = true, x = i / 7 } end
  lu.assertEquals(json.encode(a), json.encode(b))
  lu.assertEquals(json.encode(json.decode(json.encode(a))), json.encode(a))
end

function T.test_lists_and_objects_keep_their_kind()
  lu.assertEquals(json.encode { 1, 2 }, "[1,2]")
  lu.assertEquals(json.encode { a = {} }, '{"a":[]}')
  lu.assertEquals(json.encode(json.decode '{"a":{},"b":[]}'), '{"a":{},"b":[]}')
end

function T.test_what_is_no_json_gives_nil_and_a_message()
  for _, text in ipairs {
    "", "{", "[1,", '{"a":', "nope", '"open', "[1 2", "\xff\xfe", ("["):rep(200000), "{" .. ("\0"):rep(9),
  } do
    local value, message = json.decode(text)
    lu.assertNil(value, text:sub(1, 20))
    lu.assertTrue(#message > 0)
  end
end

return T
