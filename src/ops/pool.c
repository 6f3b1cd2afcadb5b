/* pool.c -- pooling of images: the largest or the mean of windows (kernels/pool.h), and the mean of whole images. */
#include "../kernels/conv/pool.h"

#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

/* dy (n,c) -> dx (n,pixels,c) */
static void global_mean_backward(long n, long pixels, long c, const real *dy, real *dx) {
#pragma omp parallel for if (n * pixels * c > PARALLEL_MIN)
  for (long i = 0; i < n; i++) {
    real *first = dx + i * pixels * c;
    for (long j = 0; j < c; j++) first[j] = dy[i * c + j] / (real)pixels;
    for (long p = 1; p < pixels; p++) memcpy(first + p * c, first, (size_t)c * sizeof *first);
  }
}

/* ---- bindings ---- */

static long list_item(lua_State *L, int arg, int i) {
  lua_geti(L, arg, i);
  long value = (long)luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  return value;
}

static bool is_possible(const PoolAxis *a) {
  return a->kernel >= 1 && a->stride >= 1 && a->pad >= 0 && 2 * a->pad <= a->kernel;
}

/* Size of the output along one side; 0 where the window does not fit. With 'ceil' a last window may stand out, but must
   begin inside. */
static long output_size(const PoolAxis *a, bool ceil) {
  long room = a->in + 2 * a->pad - a->kernel;
  if (room < 0) return 0;
  long out = (room + (ceil ? a->stride - 1 : 0)) / a->stride + 1;
  return ceil && (out - 1) * a->stride >= a->in + a->pad ? out - 1 : out;
}

/* Sizes of x, and the list at 'arg': {kernel h, w, stride h, w, padding h, w, 1 for ceil, 1 to count padding}. */
static PoolGeometry check_geometry(lua_State *L, const char *op, int arg, const long x[4]) {
  luaL_checktype(L, arg, LUA_TTABLE);
  PoolGeometry g = {.n = x[0], .c = x[1], .count_padding = list_item(L, arg, 8) != 0};
  g.y = (PoolAxis){x[2], 0, list_item(L, arg, 1), list_item(L, arg, 3), list_item(L, arg, 5)};
  g.x = (PoolAxis){x[3], 0, list_item(L, arg, 2), list_item(L, arg, 4), list_item(L, arg, 6)};
  bool ceil = list_item(L, arg, 7) != 0;
  if (!is_possible(&g.y) || !is_possible(&g.x))
    tensor_error(L, "%s: sizes and strides must be 1 or more, and padding at most half a window", op);
  g.y.out = output_size(&g.y, ceil);
  g.x.out = output_size(&g.x, ceil);
  if (g.y.out == 0 || g.x.out == 0)
    tensor_error(L, "%s: a window of %Ix%I is larger than the input with its padding, %Ix%I", op,
                 (lua_Integer)g.y.kernel, (lua_Integer)g.x.kernel, (lua_Integer)(g.y.in + 2 * g.y.pad),
                 (lua_Integer)(g.x.in + 2 * g.x.pad));
  return g;
}

static void check_four(lua_State *L, int arg, long shape[TENSOR_MAX_DIMS]) {
  luaL_checktype(L, arg, LUA_TTABLE);
  if (tensor_check_shape(L, arg, shape) != 4) tensor_error(L, "pooling: a shape of 4 sizes expected");
}

static void output_shape(const PoolGeometry *g, long shape[4]) {
  memcpy(shape, (long[]){g->n, g->c, g->y.out, g->x.out}, 4 * sizeof *shape);
}

static Tensor *push_output(lua_State *L, const PoolGeometry *g, DType dtype) {
  long shape[4];
  output_shape(g, shape);
  return tensor_push(L, dtype, 4, shape, LAYOUT_IMAGE);
}

static DType positions_dtype(const PoolGeometry *g) {
  return pool_has_bytes(g) ? DTYPE_U8 : DTYPE_I32;
}

/* max(x, geometry, want positions) -> y, positions (or nothing) */
static int l_max(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "max_pool2d: input", 4);
  PoolGeometry g = check_geometry(L, "max_pool2d", 2, x->shape);
  bool want = lua_toboolean(L, 3);
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  real *scratch = scratch_push(L, (size_t)pool_packed_size(&g));
  int scratch_at = lua_gettop(L);
  Tensor *y = push_output(L, &g, DTYPE_REAL);
  Tensor *at = want ? push_output(L, &g, positions_dtype(&g)) : NULL;
  pool_max(&g, x->data, y->data, want ? at->data : NULL, scratch);
  scratch_release(L, scratch_at);
  return want ? 2 : 1;
}

/* mean(x, geometry) -> y */
static int l_mean(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "avg_pool2d: input", 4);
  PoolGeometry g = check_geometry(L, "avg_pool2d", 2, x->shape);
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  real *scratch = scratch_push(L, (size_t)pool_packed_size(&g));
  int scratch_at = lua_gettop(L);
  pool_mean(&g, x->data, push_output(L, &g, DTYPE_REAL)->data, scratch);
  scratch_release(L, scratch_at);
  return 1;
}

static bool has_shape(const Tensor *t, const long shape[4]) {
  return t->ndim == 4 && memcmp(t->shape, shape, 4 * sizeof *shape) == 0;
}

/* The positions at 'arg' that l_max gave, channels last; NULL for nil. */
static const Tensor *push_positions(lua_State *L, int arg, const PoolGeometry *g, const long shape[4]) {
  if (lua_isnil(L, arg)) return NULL;
  const Tensor *at = tensor_check_dtype(L, arg, positions_dtype(g));
  if (!has_shape(at, shape)) tensor_error(L, "pooling: the positions are %s", tensor_describe(L, at));
  return tensor_push_in_layout(L, arg, LAYOUT_IMAGE);
}

/* backward(dy, geometry, shape of x, positions or nil) -> dx */
static int l_backward(lua_State *L) {
  long shape[TENSOR_MAX_DIMS], expected[4];
  const Tensor *dy = tensor_check_real(L, 1, "pooling: gradient", 4);
  lua_settop(L, 4);
  check_four(L, 3, shape);
  PoolGeometry g = check_geometry(L, "pooling", 2, shape);
  output_shape(&g, expected);
  if (!has_shape(dy, expected))
    tensor_error(L, "pooling: the gradient is %s, %Ix%Ix%Ix%I expected", tensor_describe(L, dy),
                 (lua_Integer)expected[0], (lua_Integer)expected[1], (lua_Integer)expected[2],
                 (lua_Integer)expected[3]);
  const Tensor *at = push_positions(L, 4, &g, expected);
  dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  real *scratch = scratch_push(L, (size_t)pool_packed_size(&g));
  int scratch_at = lua_gettop(L);
  Tensor *dx = tensor_push(L, DTYPE_REAL, 4, shape, LAYOUT_IMAGE);
  pool_backward(&g, dy->data, at != NULL ? at->data : NULL, dx->data, scratch);
  scratch_release(L, scratch_at);
  return 1;
}

/* global_mean(x) -> y;  x N x C x H x W, y N x C */
static int l_global_mean(lua_State *L) {
  tensor_check_real(L, 1, "global_avg_pool: input", 4);
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  Tensor *y = tensor_push(L, DTYPE_REAL, 2, x->shape, LAYOUT_ROWS);
#pragma omp parallel if (tensor_numel(x) > PARALLEL_MIN)
  pool_global_mean_run(x->shape[0], x->shape[2] * x->shape[3], x->shape[1], x->data, y->data);
  return 1;
}

/* global_mean_backward(dy, shape of x) -> dx */
static int l_global_mean_backward(lua_State *L) {
  long shape[TENSOR_MAX_DIMS];
  const Tensor *dy = tensor_check_real(L, 1, "global_avg_pool: gradient", 2);
  lua_settop(L, 2);
  check_four(L, 2, shape);
  if (dy->shape[0] != shape[0] || dy->shape[1] != shape[1])
    tensor_error(L, "global_avg_pool: the gradient is %s, %Ix%I expected", tensor_describe(L, dy),
                 (lua_Integer)shape[0], (lua_Integer)shape[1]);
  dy = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *dx = tensor_push(L, DTYPE_REAL, 4, shape, LAYOUT_IMAGE);
  global_mean_backward(shape[0], shape[2] * shape[3], shape[1], dy->data, dx->data);
  return 1;
}

static const luaL_Reg functions[] = {
    {"max", l_max},
    {"mean", l_mean},
    {"backward", l_backward},
    {"global_mean", l_global_mean},
    {"global_mean_backward", l_global_mean_backward},
    {NULL, NULL},
};

int luaopen_feral_core_pool(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
