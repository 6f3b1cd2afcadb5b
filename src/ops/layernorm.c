/*
** layernorm.c -- layer normalisation (Ba, Kiros and Hinton 2016) of rows of n numbers. Sums are taken in double; those
*over rows
** in pieces that depend on the sizes alone.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels: x, y, dy, dx (rows,n)  mean, inverse (rows)  weight, bias (n) or NULL ---- */

enum { LANES = 8, PIECE_LEAST = 1 << 15, PIECES_MOST = 16 };

static double fold(double lane[LANES]) {
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int j = 0; j < width; j++) lane[j] += lane[j + width];
  return lane[0];
}

static double sum_of(const real *x, long n) {
  double lane[LANES] = {0};
  long i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += x[i + j];
  for (; i < n; i++) lane[0] += x[i];
  return fold(lane);
}

static double sum_of_squares(const real *x, long n, double mean) {
  double lane[LANES] = {0};
  long i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += (x[i + j] - mean) * (x[i + j] - mean);
  for (; i < n; i++) lane[0] += (x[i] - mean) * (x[i] - mean);
  return fold(lane);
}

static void forward(long rows, long n, double eps, const real *x, const real *weight, const real *bias, real *y,
                    real *mean, real *inverse) {
#pragma omp parallel for if (rows * n > PARALLEL_MIN)
  for (long r = 0; r < rows; r++) {
    const real *xr = x + r * n;
    double m = sum_of(xr, n) / (double)n, var = sum_of_squares(xr, n, m) / (double)n;
    real shift = mean[r] = (real)m, scale = inverse[r] = (real)(1 / sqrt(var + eps));
    for (long i = 0; i < n; i++) {
      real v = (xr[i] - shift) * scale;
      y[r * n + i] = (weight != NULL ? v * weight[i] : v) + (bias != NULL ? bias[i] : 0);
    }
  }
}

static double product_of(const real *a, const real *b, long n) {
  double lane[LANES] = {0};
  long i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j] * b[i + j];
  for (; i < n; i++) lane[0] += (double)a[i] * b[i];
  return fold(lane);
}

/* dx first holds the gradient of the normalised numbers, and 'line' (n, one a piece of rows) those numbers. */
static void backward_row(long n, const real *dy, const real *x, const real *weight, real mean, real inverse,
                         real *restrict line, real *restrict dx) {
  for (long i = 0; i < n; i++) {
    line[i] = (x[i] - mean) * inverse;
    dx[i] = weight != NULL ? dy[i] * weight[i] : dy[i];
  }
  real a = (real)(sum_of(dx, n) / (double)n), b = (real)(product_of(dx, line, n) / (double)n);
  for (long i = 0; i < n; i++) dx[i] = inverse * (dx[i] - a - line[i] * b);
}

static long pieces_of(long rows, long n) {
  long pieces = rows * n / PIECE_LEAST;
  pieces = pieces < 1 ? 1 : pieces > PIECES_MOST ? PIECES_MOST : pieces;
  return pieces < rows ? pieces : rows;
}

/* lines (pieces,n) of work */
static void backward_input(long rows, long n, const real *dy, const real *x, const real *weight, const real *mean,
                           const real *inverse, real *lines, real *dx) {
  long pieces = pieces_of(rows, n);
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++)
    for (long r = piece_start(rows, pieces, p), end = piece_start(rows, pieces, p + 1); r < end; r++)
      backward_row(n, dy + r * n, x + r * n, weight, mean[r], inverse[r], lines + p * n, dx + r * n);
}

/* sums (pieces,2,n) of work */
static void backward_weight(long rows, long n, const real *dy, const real *x, const real *mean, const real *inverse,
                            double *sums, real *dweight, real *dbias) {
  long pieces = pieces_of(rows, n);
  memset(sums, 0, (size_t)(pieces * 2 * n) * sizeof *sums);
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    double *restrict by_scale = sums + p * 2 * n, *restrict by_shift = by_scale + n;
    for (long r = piece_start(rows, pieces, p), end = piece_start(rows, pieces, p + 1); r < end; r++)
      for (long i = 0; i < n; i++) {
        double d = dy[r * n + i];
        by_scale[i] += d * ((x[r * n + i] - mean[r]) * inverse[r]);
        by_shift[i] += d;
      }
  }
  for (long i = 0; i < n; i++) {
    double by_scale = 0, by_shift = 0;
    for (long p = 0; p < pieces; p++) {
      by_scale += sums[2 * p * n + i];
      by_shift += sums[(2 * p + 1) * n + i];
    }
    dweight[i] = (real)by_scale;
    dbias[i] = (real)by_shift;
  }
}

/* ---- bindings ---- */

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
  forward(rows, n, eps, x->data, weight, bias, y->data, mean->data, inverse->data);
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
  real *work = scratch_push(L, (size_t)(pieces_of(rows, n) * 2 * n) * sizeof(double) / sizeof(real));
  int work_at = lua_gettop(L);
  const long *sizes = x->shape + x->ndim - dims;
  Tensor *dx = want_dx ? tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_ROWS) : NULL;
  if (!want_dx) lua_pushnil(L);
  Tensor *dweight = tensor_push(L, DTYPE_REAL, dims, sizes, LAYOUT_ROWS);
  Tensor *dbias = tensor_push(L, DTYPE_REAL, dims, sizes, LAYOUT_ROWS);
  if (want_dx) backward_input(rows, n, dy->data, x->data, weight, mean, inverse, work, dx->data);
  if (want_dweight)
    backward_weight(rows, n, dy->data, x->data, mean, inverse, (double *)work, dweight->data, dbias->data);
  scratch_release(L, work_at);
  return 3;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_layernorm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
