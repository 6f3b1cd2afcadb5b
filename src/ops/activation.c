/*
** activation.c -- activation functions of networks, elementwise, forward and backward. A backward gets what its forward
** saved, the input or the output, whichever the slope is cheaper to get from. sigmoid and tanh forward are in arith.c.
*/
#include "../kernels/common/tail.h"
#include "../tensor/lanes.h"
#include "../tensor/loop.h"

/* ---- kernels ---- */

/* The standard normal's density. */
static inline vreal normal_density(vreal x) {
  return vexp(x * x * (real)-0.5) * (real)0.3989422804014327;
}

static inline vreal gelu_slope(vreal x) {
  return normal_cdf(x) + held(x) * normal_density(x);
}

static inline vreal silu_slope(vreal x) {
  vreal s = vsigmoid(x);
  return s * (1 + held(x) * (1 - s));
}

/* One row of y = activation(x), with the function's parameter. */
#define FORWARD_ROW(name, activation)                                                                                  \
  static void name##_row(long n, char *const *at, const long *step, const void *context) {                             \
    const real p = *(const real *)context;                                                                             \
    for (long i = 0; i < n; i += VLANES) {                                                                             \
      vreal x = lanes_get(at[1] + i * step[1], step[1], n - i);                                                        \
      lanes_put(at[0] + i * step[0], step[0], n - i, tail_activate(activation, x, p));                                 \
    }                                                                                                                  \
  }

/* One row of dx = expression(g, s): g is the gradient of the result, s what was saved. */
#define BACKWARD_ROW(name, expression)                                                                                 \
  static void name##_backward_row(long n, char *const *at, const long *step, const void *context) {                    \
    const real p = *(const real *)context;                                                                             \
    (void)p;                                                                                                           \
    for (long i = 0; i < n; i += VLANES) {                                                                             \
      vreal s = lanes_get(at[1] + i * step[1], step[1], n - i), g = lanes_get(at[2] + i * step[2], step[2], n - i);    \
      lanes_put(at[0] + i * step[0], step[0], n - i, (expression));                                                    \
    }                                                                                                                  \
  }

FORWARD_ROW(relu, TAIL_RELU)
BACKWARD_ROW(relu, vselect(s <= 0, vset(0), g))
FORWARD_ROW(leaky_relu, TAIL_LEAKY_RELU)
BACKWARD_ROW(leaky_relu, vselect(s > 0, g, (g * p)))
FORWARD_ROW(elu, TAIL_ELU)
BACKWARD_ROW(elu, vselect(s > 0, g, vexp(s) * p * g))
FORWARD_ROW(gelu, TAIL_GELU)
BACKWARD_ROW(gelu, gelu_slope(s) * g)
FORWARD_ROW(silu, TAIL_SILU)
BACKWARD_ROW(silu, silu_slope(s) * g)
BACKWARD_ROW(sigmoid, (1 - s) * s * g)
BACKWARD_ROW(tanh, (1 - s * s) * g)

/* y = x where x > 0, else w x; and the slope 1 or w. */
static void prelu_row(long n, char *const *at, const long *step, const void *context) {
  const bool slope = *(const bool *)context;
  for (long i = 0; i < n; i += VLANES) {
    vreal x = lanes_get(at[1] + i * step[1], step[1], n - i), w = lanes_get(at[2] + i * step[2], step[2], n - i);
    vreal y = slope ? vselect(x > 0, vset(1), w) : prelu_of(x, w);
    lanes_put(at[0] + i * step[0], step[0], n - i, y);
  }
}

/* y = a + b where that is above 0, else 0: what ends a residual block. */
static void add_relu_row(long n, char *const *at, const long *step, const void *context) {
  (void)context;
  for (long i = 0; i < n; i += VLANES) {
    vreal a = lanes_get(at[1] + i * step[1], step[1], n - i), b = lanes_get(at[2] + i * step[2], step[2], n - i);
    vreal sum = a + b;
    lanes_put(at[0] + i * step[0], step[0], n - i, vselect(sum <= 0, vset(0), sum));
  }
}

/* ---- bindings ---- */

typedef struct Activation {
  const char *name;
  LoopRow forward, backward;
} Activation;

static const Activation activations[] = {
    {"relu", relu_row, relu_backward_row}, {"leaky_relu", leaky_relu_row, leaky_relu_backward_row},
    {"elu", elu_row, elu_backward_row},    {"gelu", gelu_row, gelu_backward_row},
    {"silu", silu_row, silu_backward_row}, {"sigmoid", NULL, sigmoid_backward_row},
    {"tanh", NULL, tanh_backward_row},     {NULL, NULL, NULL},
};

/* name(x, parameter) -> y */
static int l_forward(lua_State *L) {
  const Activation *f = lua_touserdata(L, lua_upvalueindex(1));
  real parameter = (real)luaL_optnumber(L, 2, 0);
  const Tensor *x = tensor_check_real(L, 1, lua_pushfstring(L, "%s: x", f->name), 0);
  const Tensor *y = tensor_push_like(L, x, DTYPE_REAL);
  loop_run(2, (const Tensor *const[]){y, x}, f->forward, &parameter);
  return 1;
}

/* name_backward(dy, saved, parameter, over) -> dx; over: in the memory of dy, if that has no two elements in one place */
static int l_backward(lua_State *L) {
  const Activation *f = lua_touserdata(L, lua_upvalueindex(1));
  const Tensor *dy = tensor_check_real(L, 1, f->name, 0), *saved = tensor_check_real(L, 2, f->name, 0);
  real parameter = (real)luaL_optnumber(L, 3, 0);
  if (!tensor_same_shape(dy, saved))
    tensor_error(L, "%s: the gradient is %s, the output %s", f->name, tensor_describe(L, dy),
                 tensor_describe(L, saved));
  bool over = lua_toboolean(L, 4) && tensor_is_dense(dy);
  if (over) {
    tensor_touch(L, 1);
    lua_pushvalue(L, 1);
  }
  const Tensor *dx = over ? dy : tensor_push_like(L, saved, DTYPE_REAL);
  loop_run(3, (const Tensor *const[]){dx, saved, dy}, f->backward, &parameter);
  return 1;
}

/* (x, w) with w broadcast to x */
static int push_prelu(lua_State *L, bool slope) {
  const Tensor *x = tensor_check_real(L, 1, "prelu: x", 0), *w = tensor_check_real(L, 2, "prelu: weight", 0);
  if (!loop_fits(w, x->ndim, x->shape))
    tensor_error(L, "prelu: weight %s does not broadcast to %s", tensor_describe(L, w), tensor_describe(L, x));
  const Tensor *y = tensor_push_like(L, x, DTYPE_REAL);
  loop_run(3, (const Tensor *const[]){y, x, w}, prelu_row, &slope);
  return 1;
}

static int l_prelu(lua_State *L) {
  return push_prelu(L, false);
}
static int l_prelu_slope(lua_State *L) {
  return push_prelu(L, true);
}

/* relu_(x) -> x, changed in place */
static int l_relu_(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "relu: x", 0);
  tensor_touch(L, 1);
  real parameter = 0;
  loop_run(2, (const Tensor *const[]){x, x}, relu_row, &parameter);
  lua_settop(L, 1);
  return 1;
}

/* add_relu(a, b, in_place) -> relu(a + b), for two of the same shape; it lies in a's memory if wanted */
static int l_add_relu(lua_State *L) {
  const Tensor *a = tensor_check_real(L, 1, "relu: a", 0), *b = tensor_check_real(L, 2, "relu: b", 0);
  if (!tensor_same_shape(a, b))
    tensor_error(L, "relu: %s and %s cannot be added", tensor_describe(L, a), tensor_describe(L, b));
  const Tensor *y = a;
  if (lua_toboolean(L, 3)) {
    tensor_touch(L, 1);
    lua_pushvalue(L, 1);
  } else {
    y = tensor_push_like(L, a, DTYPE_REAL);
  }
  loop_run(3, (const Tensor *const[]){y, a, b}, add_relu_row, NULL);
  return 1;
}

static const luaL_Reg functions[] = {
    {"prelu", l_prelu}, {"prelu_slope", l_prelu_slope}, {"relu_", l_relu_}, {"add_relu", l_add_relu}, {NULL, NULL},
};

int luaopen_feral_core_activation(lua_State *L) {
  luaL_newlib(L, functions);
  for (const Activation *f = activations; f->name != NULL; f++) {
    if (f->forward != NULL) {
      lua_pushlightuserdata(L, (void *)f);
      lua_pushcclosure(L, l_forward, 1);
      lua_setfield(L, -2, f->name);
    }
    lua_pushlightuserdata(L, (void *)f);
    lua_pushcclosure(L, l_backward, 1);
    lua_pushfstring(L, "%s_backward", f->name);
    lua_insert(L, -2);
    lua_settable(L, -3);
  }
  return 1;
}
