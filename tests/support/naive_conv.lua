--- naive_conv.lua: convolution by its definition, to compare with.

local lu = require "luaunit"
local tensor = require "feral.tensor"
local core = require "feral.core.conv2d"
local check = require "check"

local naive = {}

local tolerance = check.is_double and 1e-10 or 1e-4 -- sums may cancel

--- One random convolution of at most so many channels a group: sizes and the options as the core takes them.
function naive.random_case(most_c, most_f)
  local int = check.integer
  local case = { n = int(1, 3), groups = int(1, 3) == 1 and int(2, 3) or 1, kh = int(1, 4), kw = int(1, 4) }
  case.c, case.f = case.groups * int(1, most_c), case.groups * int(1, most_f)
  case.sh, case.sw, case.dh, case.dw = int(1, 3), int(1, 3), int(1, 2), int(1, 2)
  case.top, case.left, case.bottom, case.right = int(0, 2), int(0, 2), int(0, 2), int(0, 2)
  case.h = math.max(1, case.dh * (case.kh - 1) + 1 - case.top - case.bottom) + int(0, 6)
  case.w = math.max(1, case.dw * (case.kw - 1) + 1 - case.left - case.right) + int(0, 6)
  case.oh = (case.h + case.top + case.bottom - case.dh * (case.kh - 1) - 1) // case.sh + 1
  case.ow = (case.w + case.left + case.right - case.dw * (case.kw - 1) - 1) // case.sw + 1
  case.options = { case.sh, case.sw, case.top, case.left, case.bottom, case.right, case.dh, case.dw, case.groups }
  case.x_shape, case.w_shape = { case.n, case.c, case.h, case.w }, { case.f, case.c // case.groups, case.kh, case.kw }
  case.y_shape = { case.n, case.f, case.oh, case.ow }
  return case
end

--- A random square kernel at a stride of 1 between so many channels: 3x3 to 5x5 is computed by Winograd's method.
function naive.random_square(side, least, most)
  local int = check.integer
  local case = { n = int(1, 2), c = int(least, most), f = int(least, most), h = int(1, 11), w = int(1, 11), groups = 1,
    kh = side, kw = side, sh = 1, sw = 1, dh = 1, dw = 1, top = int(0, side), left = int(0, side) }
  case.bottom = math.max(side - case.h - case.top, int(0, side))
  case.right = math.max(side - case.w - case.left, int(0, side))
  case.oh, case.ow = case.h + case.top + case.bottom - side + 1, case.w + case.left + case.right - side + 1
  case.options = { 1, 1, case.top, case.left, case.bottom, case.right, 1, 1, 1 }
  case.x_shape, case.w_shape = { case.n, case.c, case.h, case.w }, { case.f, case.c, side, side }
  case.y_shape = { case.n, case.f, case.oh, case.ow }
  return case
end

local function describe(case)
  return ("x %s, w %s, options %s"):format(table.concat(case.x_shape, "x"), table.concat(case.w_shape, "x"),
    table.concat(case.options, " "))
end

--- A random tensor of this shape: row-major, channels last, or the middle of a larger one.
local function any_layout(shape)
  local way = check.integer(1, 3)
  if way == 1 then return check.randn(table.unpack(shape)) end
  if way == 2 then return check.randn(table.unpack(shape)):as_image() end
  local wider = check.randn(shape[1], shape[2] + 2, shape[3], shape[4] + 1)
  return wider:narrow(2, 2, shape[2]):narrow(4, 1, shape[4])
end

--- Calls visit(y's, x's and w's index into flat row-major lists) for every product that a convolution consists of.
local function every_product(case, visit)
  local cg, fg = case.c // case.groups, case.f // case.groups
  for n = 0, case.n - 1 do
    for f = 0, case.f - 1 do
      for oy = 0, case.oh - 1 do
        for ox = 0, case.ow - 1 do
          local at = ((n * case.f + f) * case.oh + oy) * case.ow + ox + 1
          for c = 0, cg - 1 do
            for ky = 0, case.kh - 1 do
              for kx = 0, case.kw - 1 do
                local iy, ix = oy * case.sh + ky * case.dh - case.top, ox * case.sw + kx * case.dw - case.left
                if iy >= 0 and iy < case.h and ix >= 0 and ix < case.w then
                  visit(at, ((n * case.c + f // fg * cg + c) * case.h + iy) * case.w + ix + 1,
                    ((f * cg + c) * case.kh + ky) * case.kw + kx + 1)
                end
              end
            end
          end
        end
      end
    end
  end
end

local function zeros(n)
  local list = {}
  for i = 1, n do list[i] = 0 end
  return list
end

--- Forward, both gradients and that of the bias, by the definition.
local function results(case, x, w, b, dy)
  x, w, b, dy = check.flat(x), check.flat(w), check.flat(b), check.flat(dy)
  local y, dx, dw, db = zeros(#dy), zeros(#x), zeros(#w), zeros(#b)
  for i = 1, #dy do
    local f = (i - 1) // (case.oh * case.ow) % case.f + 1
    y[i], db[f] = b[f], db[f] + dy[i]
  end
  every_product(case, function(at, from, by)
    y[at] = y[at] + x[from] * w[by]
    dx[from] = dx[from] + dy[at] * w[by]
    dw[by] = dw[by] + dy[at] * x[from]
  end)
  return y, dx, dw, db
end

--- Compares the engine's four functions with the definition.
function naive.compare(case)
  local open <close> = tensor.scope() -- luacheck: ignore
  local x, w, dy = any_layout(case.x_shape), any_layout(case.w_shape), any_layout(case.y_shape)
  local b = check.randn(case.f)
  local y, dx, dw, db = results(case, x, w, b, dy)
  local got = core.forward(x, w, b, case.options)
  lu.assertEquals(got.shape, case.y_shape)
  check.close(got, y, tolerance, "y of " .. describe(case))
  check.close(core.backward_input(dy, w, case.options, case.x_shape), dx, tolerance, "dx of " .. describe(case))
  check.close(core.backward_weight(dy, x, case.options, case.w_shape), dw, tolerance, "dw of " .. describe(case))
  check.close(core.backward_bias(dy), db, tolerance, "db of " .. describe(case))
end

return naive
