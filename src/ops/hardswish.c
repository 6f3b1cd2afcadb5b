/* hardswish.c -- x clamp(x + 3, 0, 6) / 6, and its slope (Howard et al. 2019, "Searching for MobileNetV3"). */
#include "../tensor/lanes.h"
#include "../tensor/loop.h"

/* ---- kernels: rows of y = f(x), and of dx = f'(x) dy ---- */

static inline vreal gate_of(vreal x) {
  vreal gate = x * (real)(1.0 / 6) + (real)0.5;
  return vselect(gate < 0, vset(0), vselect(gate > 1, vset(1), gate));
}

/* Where the gate is 0 so is the result, also of minus infinity. */
static void forward_row(long n, char *const *at, const long *step, const void *context) {
  (void)context;
  for (long i = 0; i < n; i += VLANES) {
    vreal x = lanes_get(at[1] + i * step[1], step[1], n - i);
    lanes_put(at[0] + i * step[0], step[0], n - i, vselect(x <= -3, vset(0), x * gate_of(x)));
  }
}

static void backward_row(long n, char *const *at, const long *step, const void *context) {
  (void)context;
  for (long i = 0; i < n; i += VLANES) {
    vreal x = lanes_get(at[1] + i * step[1], step[1], n - i), dy = lanes_get(at[2] + i * step[2], step[2], n - i);
    vreal inner = x * (real)(1.0 / 3) + (real)0.5;
    vreal slope = vselect(x <= -3, vset(0), vselect(x >= 3, vset(1), inner));
    lanes_put(at[0] + i * step[0], step[0], n - i, slope * dy);
  }
}

/* ---- bindings ---- */

/* forward(x) -> y */
static int l_forward(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "hardswish: x", 0), *y = tensor_push_like(L, x, DTYPE_REAL);
  loop_run(2, (const Tensor *const[]){y, x}, forward_row, NULL);
  return 1;
}

/* backward(dy, x) -> dx */
static int l_backward(lua_State *L) {
  const Tensor *dy = tensor_check_real(L, 1, "hardswish", 0), *x = tensor_check_real(L, 2, "hardswish", 0);
  if (!tensor_same_shape(dy, x))
    tensor_error(L, "hardswish: the gradient is %s, the input %s", tensor_describe(L, dy), tensor_describe(L, x));
  const Tensor *dx = tensor_push_like(L, x, DTYPE_REAL);
  loop_run(3, (const Tensor *const[]){dx, x, dy}, backward_row, NULL);
  return 1;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_hardswish(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
