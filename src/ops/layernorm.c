/* layernorm.c -- layer normalisation of the last dimensions; see kernels/common/layernorm.h. */
#include "../kernels/common/layernorm.h"

#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* The weight or bias at 'arg', nil or a tensor of the last dimensions of x: pushed row-major. */
static const real *push_vector(lua_State *L, int arg, const char *what, const Tensor *x, int dims) {
  if (lua_isnil(L, arg)) return NULL;
  const Tensor *t = tensor_check_real(L, arg, what, 0);
  bool fits = t->ndim == dims && memcmp(t->shape, x->shape + x->ndim - dims, (size_t)dims * sizeof *t->shape) == 0;
  if (!fits) tensor_error(L, "%s is %s, the input %s", what, tensor_describe(L, t), tensor_describe(L, x));
  return tensor_push_in_layout(L, arg, LAYOUT_ROWS)->data;
}

/* How many of the last dimensions of x make a row: the number at 'arg'. */
static int check_dims(lua_State *L, int arg, const Tensor *x, long *rows, long *n) {
  int dims = (int)luaL_checkinteger(L, arg);
  luaL_argcheck(L, dims >= 1 && dims <= x->ndim, arg, "no such dimensions");
  *n = 1;
  for (int d = x->ndim - dims; d < x->ndim; d++) *n *= x->shape[d];
  *rows = tensor_numel(x) / *n;
  return dims;
}

/* forward(x, weight, bias, dimensions, eps) -> y, means, 1 / standard deviations (both one a row) */
static int l_forward(lua_State *L) {
  long rows, n;
  const Tensor *x = tensor_check_real(L, 1, "layer_norm: input", 0);
  lua_settop(L, 5);
  int dims = check_dims(L, 4, x, &rows, &n);
  double eps = luaL_checknumber(L, 5);
  const real *weight = push_vector(L, 2, "layer_norm: weight", x, dims);
  const real *bias = push_vector(L, 3, "layer_norm: bias", x, dims);
  x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *y = tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_ROWS);
  Tensor *mean = tensor_push(L, DTYPE_REAL, 1, &rows, LAYOUT_ROWS);
  Tensor *inverse = tensor_push(L, DTYPE_REAL, 1, &rows, LAYOUT_ROWS);
#pragma omp parallel if (rows * n > PARALLEL_MIN)
  layernorm_run(rows, n, eps, x->data, weight, bias, y->data, mean->data, inverse->data);
  return 3;
}

/* The statistics of forward at 'arg'. */
static const real *check_statistics(lua_State *L, int arg, long rows) {
  const Tensor *t = tensor_check_real(L, arg, "layer_norm: statistics", 1);
  luaL_argcheck(L, t->shape[0] == rows && tensor_is_layout(t, LAYOUT_ROWS), arg, "statistics of these rows expected");
  return t->data;
}

/* backward(dy, x, weight, dimensions, means, 1 / standard deviations, want dx, want dweight) -> dx, dweight, dbias;
   what is not wanted means nothing */
static int l_backward(lua_State *L) {
  long rows, n;
  const Tensor *dy = tensor_check_real(L, 1, "layer_norm: gradient", 0);
  const Tensor *x = tensor_check_real(L, 2, "layer_norm: input", 0);
  lua_settop(L, 8);
  if (!tensor_same_shape(dy, x))
    tensor_error(L, "layer_norm: the gradient is %s, the input %s", tensor_describe(L, dy), tensor_describe(L, x));
  int dims = check_dims(L, 4, x, &rows, &n);
  const real *weight = push_vector(L, 3, "layer_norm: weight", x, dims);
  const real *mean = check_statistics(L, 5, rows), *inverse = check_statistics(L, 6, rows);
  bool want_dx = lua_toboolean(L, 7), want_dweight = lua_toboolean(L, 8);
  dy = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  x = tensor_push_in_layout(L, 2, LAYOUT_ROWS);
  real *work = scratch_push(L, (size_t)(layernorm_pieces(rows, n) * 2 * n) * sizeof(double) / sizeof(real));
  int work_at = lua_gettop(L);
  const long *sizes = x->shape + x->ndim - dims;
  Tensor *dx = want_dx ? tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_ROWS) : NULL;
  if (!want_dx) lua_pushnil(L);
  Tensor *dweight = tensor_push(L, DTYPE_REAL, dims, sizes, LAYOUT_ROWS);
  Tensor *dbias = tensor_push(L, DTYPE_REAL, dims, sizes, LAYOUT_ROWS);
  if (want_dx) layernorm_backward_input(rows, n, dy->data, x->data, weight, mean, inverse, work, dx->data);
  if (want_dweight)
    layernorm_backward_weight(rows, n, dy->data, x->data, mean, inverse, (double *)work, dweight->data, dbias->data);
  scratch_release(L, work_at);
  return 3;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_layernorm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
