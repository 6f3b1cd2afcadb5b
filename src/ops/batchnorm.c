/*
** batchnorm.c -- batch normalisation (Ioffe and Szegedy 2015) of rows of channels: N x C, or images, which lie channels
*last.
** Sums are taken in double over pieces that depend on the sizes alone, and added in their order.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

/* x, dx, y, dy (rows,c). Few channels make short loops, so several rows are taken as one long row of 'width' numbers,
   and vectors of one number a channel are repeated to that width. */
typedef struct NormGeometry {
  long rows, c, width, pieces;
} NormGeometry;

enum { FEW_CHANNELS = 64, ROWS_AT_ONCE = 16, PIECE_LEAST = 1 << 15, PIECES_MOST = 16 };

static NormGeometry geometry_of(long rows, long c) {
  NormGeometry g = {rows, c, c < FEW_CHANNELS ? c * ROWS_AT_ONCE : c, rows * c / PIECE_LEAST};
  if (g.pieces < 1) g.pieces = 1;
  if (g.pieces > PIECES_MOST) g.pieces = PIECES_MOST;
  return g;
}

/* First number of a piece, at the start of a long row. */
static long piece_first(const NormGeometry *g, long piece) {
  long total = g->rows * g->c, long_rows = (total + g->width - 1) / g->width;
  long first = piece_start(long_rows, g->pieces, piece) * g->width;
  return first < total ? first : total;
}

/* Loops over the numbers of a piece: i counts from its start in the whole, j in the long row. */
#define EACH_OF_PIECE(g, p, statement)                                                                                 \
  for (long at = piece_first(g, p), end = piece_first(g, (p) + 1); at < end; at += (g)->width) {                       \
    long n = end - at < (g)->width ? end - at : (g)->width;                                                            \
    for (long j = 0; j < n; j++) {                                                                                     \
      long i = at + j;                                                                                                 \
      statement;                                                                                                       \
    }                                                                                                                  \
  }

/* Adds n numbers of a long row, or four long rows, to the sums of values and of squares (width). */
static void add_values(const real *restrict x, long n, double *restrict sum, double *restrict square) {
  for (long j = 0; j < n; j++) {
    double v = x[j];
    sum[j] += v;
    square[j] += v * v;
  }
}

static void add_four_values(const real *restrict x, long w, double *restrict sum, double *restrict square) {
  for (long j = 0; j < w; j++) {
    real a = x[j], b = x[j + w], c = x[j + 2 * w], d = x[j + 3 * w];
    sum[j] += (a + b) + (c + d);
    square[j] += (a * a + b * b) + (c * c + d * d);
  }
}

/* sums (pieces,2,width): of x and of its squares */
static void sum_values(const NormGeometry *g, const real *x, double *sums) {
  memset(sums, 0, (size_t)(g->pieces * 2 * g->width) * sizeof *sums);
#pragma omp parallel for if (g->pieces > 1)
  for (long p = 0; p < g->pieces; p++) {
    double *sum = sums + p * 2 * g->width, *square = sum + g->width;
    long w = g->width, at = piece_first(g, p), end = piece_first(g, p + 1);
    for (; at + 4 * w <= end; at += 4 * w) add_four_values(x + at, w, sum, square);
    for (; at < end; at += w) add_values(x + at, end - at < w ? end - at : w, sum, square);
  }
}

/* The same for dy and for dy (x - mean). */
static void add_gradients(const real *restrict dy, const real *restrict x, const real *restrict mean, long n,
                          double *restrict sum, double *restrict product) {
  for (long j = 0; j < n; j++) {
    double d = dy[j];
    sum[j] += d;
    product[j] += d * (x[j] - mean[j]);
  }
}

static void add_four_gradients(const real *restrict dy, const real *restrict x, const real *restrict mean, long w,
                               double *restrict sum, double *restrict product) {
  for (long j = 0; j < w; j++) {
    real a = dy[j], b = dy[j + w], c = dy[j + 2 * w], d = dy[j + 3 * w], m = mean[j];
    sum[j] += (a + b) + (c + d);
    product[j] += (a * (x[j] - m) + b * (x[j + w] - m)) + (c * (x[j + 2 * w] - m) + d * (x[j + 3 * w] - m));
  }
}

static void sum_gradients(const NormGeometry *g, const real *dy, const real *x, const real *mean, double *sums) {
  memset(sums, 0, (size_t)(g->pieces * 2 * g->width) * sizeof *sums);
#pragma omp parallel for if (g->pieces > 1)
  for (long p = 0; p < g->pieces; p++) {
    double *sum = sums + p * 2 * g->width, *product = sum + g->width;
    long w = g->width, at = piece_first(g, p), end = piece_first(g, p + 1);
    for (; at + 4 * w <= end; at += 4 * w) add_four_gradients(dy + at, x + at, mean, w, sum, product);
    for (; at < end; at += w) add_gradients(dy + at, x + at, mean, end - at < w ? end - at : w, sum, product);
  }
}

/* Adds up the pieces and the rows of a long row: sum 'which' (0 or 1) of channel c. */
static double total_of(const NormGeometry *g, const double *sums, int which, long c) {
  double total = 0;
  for (long p = 0; p < g->pieces; p++)
    for (long j = c; j < g->width; j += g->c) total += sums[(p * 2 + which) * g->width + j];
  return total;
}

/* y = (x - mean) scale + shift, each (width) */
static void normalise(const NormGeometry *g, const real *x, const real *mean, const real *scale, const real *shift,
                      real *restrict y) {
#pragma omp parallel for if (g->pieces > 1)
  for (long p = 0; p < g->pieces; p++) EACH_OF_PIECE(g, p, y[i] = (x[i] - mean[j]) * scale[j] + shift[j])
}

/* dx = dy scale, or with slope: dy scale + (x - mean) slope + shift, each (width) */
static void normalise_backward(const NormGeometry *g, const real *dy, const real *x, const real *mean,
                               const real *scale, const real *slope, const real *shift, real *restrict dx) {
#pragma omp parallel for if (g->pieces > 1)
  for (long p = 0; p < g->pieces; p++) {
    if (slope == NULL)
      EACH_OF_PIECE(g, p, dx[i] = dy[i] * scale[j])
    else
      EACH_OF_PIECE(g, p, dx[i] = dy[i] * scale[j] + ((x[i] - mean[j]) * slope[j] + shift[j]))
  }
}

/* Repeats the first c numbers of v to the width. */
static void repeat(const NormGeometry *g, real *v) {
  for (long j = g->c; j < g->width; j++) v[j] = v[j - g->c];
}

/* What normalise takes, from (c) vectors; weight and bias may be NULL. */
static void forward_coefficients(const NormGeometry *g, const real *mean, const real *inverse, const real *weight,
                                 const real *bias, real *means, real *scale, real *shift) {
  for (long c = 0; c < g->c; c++) {
    means[c] = mean[c];
    scale[c] = inverse[c] * (weight != NULL ? weight[c] : 1);
    shift[c] = bias != NULL ? bias[c] : 0;
  }
  repeat(g, means);
  repeat(g, scale);
  repeat(g, shift);
}

/* Gradients of weight and bias from the sums of sum_gradients, and what normalise_backward takes. */
static void backward_coefficients(const NormGeometry *g, const double *sums, const real *inverse, const real *weight,
                                  real *dweight, real *dbias, real *scale, real *slope, real *shift) {
  double rows = (double)g->rows;
  for (long c = 0; c < g->c; c++) {
    double by_shift = total_of(g, sums, 0, c), by_scale = total_of(g, sums, 1, c) * inverse[c];
    double factor = inverse[c] * (weight != NULL ? weight[c] : 1);
    dbias[c] = (real)by_shift;
    dweight[c] = (real)by_scale;
    scale[c] = (real)factor;
    slope[c] = (real)(-factor * inverse[c] * by_scale / rows);
    shift[c] = (real)(-factor * by_shift / rows);
  }
  repeat(g, scale);
  repeat(g, slope);
  repeat(g, shift);
}

/* ---- bindings ---- */

typedef struct BatchNorm {
  NormGeometry g;
  const real *weight, *bias;        /* (c) or NULL */
  real *running_mean, *running_var; /* (c) */
  double momentum, eps;
} BatchNorm;

static real *check_vector(lua_State *L, int arg, const char *what, long c, bool optional) {
  const Tensor *t = optional && lua_isnil(L, arg) ? NULL : tensor_check_real(L, arg, what, 1);
  if (t == NULL) return NULL;
  if (t->shape[0] != c || !tensor_is_layout(t, LAYOUT_ROWS))
    tensor_error(L, "%s has %I numbers, the input has %I channels", what, (lua_Integer)t->shape[0], (lua_Integer)c);
  return t->data;
}

static NormGeometry check_input(lua_State *L, int arg, const char *what) {
  const Tensor *x = tensor_check_real(L, arg, what, 0);
  if (x->ndim != 2 && x->ndim != 4 && x->ndim != 5)
    tensor_error(L, "%s is %s, N x C or N x C x H x W expected", what, tensor_describe(L, x));
  return geometry_of(tensor_numel(x) / x->shape[1], x->shape[1]);
}

/* Mean and 1 / standard deviation of the batch; follows them in the running statistics. sums: of the values */
static void batch_statistics(const BatchNorm *b, const double *sums, real *mean, real *inverse) {
  double rows = (double)b->g.rows;
  for (long c = 0; c < b->g.c; c++) {
    double m = total_of(&b->g, sums, 0, c) / rows, var = total_of(&b->g, sums, 1, c) / rows - m * m;
    if (var < 0) var = 0;
    mean[c] = (real)m;
    inverse[c] = (real)(1 / sqrt(var + b->eps));
    b->running_mean[c] += (real)(b->momentum * (m - b->running_mean[c]));
    b->running_var[c] += (real)(b->momentum * (var * rows / (rows - 1) - b->running_var[c]));
  }
}

static void running_statistics(const BatchNorm *b, real *mean, real *inverse) {
  for (long c = 0; c < b->g.c; c++) {
    mean[c] = b->running_mean[c];
    inverse[c] = (real)(1 / sqrt(b->running_var[c] + b->eps));
  }
}

/* Scratch for 'vectors' of the width and, if 'sums', for the sums of the pieces, which come first. */
static real *push_work(lua_State *L, const NormGeometry *g, int vectors, bool sums, double **sums_at) {
  size_t per_sum = sizeof(double) / sizeof(real), sum_reals = sums ? (size_t)(g->pieces * 2 * g->width) * per_sum : 0;
  real *work = scratch_push(L, sum_reals + (size_t)(vectors * g->width));
  *sums_at = (double *)work;
  return work + sum_reals;
}

/* forward(x, weight, bias, running mean, running var, training, momentum, eps) -> y, mean, 1 / standard deviation
   x N x C or N x C x ..., the others C; weight and bias may be nil; training changes the running statistics */
static int l_forward(lua_State *L) {
  lua_settop(L, 8);
  BatchNorm b = {.g = check_input(L, 1, "batch_norm: input")};
  const Tensor *x = lua_touserdata(L, 1);
  b.weight = check_vector(L, 2, "batch_norm: weight", b.g.c, true);
  b.bias = check_vector(L, 3, "batch_norm: bias", b.g.c, true);
  b.running_mean = check_vector(L, 4, "batch_norm: running_mean", b.g.c, false);
  b.running_var = check_vector(L, 5, "batch_norm: running_var", b.g.c, false);
  bool training = lua_toboolean(L, 6);
  b.momentum = luaL_checknumber(L, 7);
  b.eps = luaL_checknumber(L, 8);
  if (training && b.g.rows < 2)
    tensor_error(L, "batch_norm: input %s has one number a channel, which has no variance: train on larger batches",
                 tensor_describe(L, x));
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  double *sums;
  real *means = push_work(L, &b.g, 3, training, &sums), *scale = means + b.g.width, *shift = scale + b.g.width;
  int work = lua_gettop(L);
  Tensor *y = tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_IMAGE);
  Tensor *saved_mean = tensor_push(L, DTYPE_REAL, 1, &b.g.c, LAYOUT_ROWS);
  Tensor *inverse = tensor_push(L, DTYPE_REAL, 1, &b.g.c, LAYOUT_ROWS);
  if (training) {
    sum_values(&b.g, x->data, sums);
    batch_statistics(&b, sums, saved_mean->data, inverse->data);
  } else {
    running_statistics(&b, saved_mean->data, inverse->data);
  }
  forward_coefficients(&b.g, saved_mean->data, inverse->data, b.weight, b.bias, means, scale, shift);
  normalise(&b.g, x->data, means, scale, shift, y->data);
  scratch_release(L, work);
  return 3;
}

/* backward(dy, x, weight, mean, 1 / standard deviation, training, want dx, want dweight) -> dx, dweight, dbias */
static int l_backward(lua_State *L) {
  lua_settop(L, 8);
  NormGeometry g = check_input(L, 2, "batch_norm: input");
  const Tensor *dy = tensor_check_real(L, 1, "batch_norm: gradient", 0), *x = lua_touserdata(L, 2);
  if (!tensor_same_shape(dy, x))
    tensor_error(L, "batch_norm: the gradient is %s, the input %s", tensor_describe(L, dy), tensor_describe(L, x));
  const real *weight = check_vector(L, 3, "batch_norm: weight", g.c, true);
  const real *mean = check_vector(L, 4, "batch_norm: mean", g.c, false);
  const real *inverse = check_vector(L, 5, "batch_norm: inverse", g.c, false);
  bool training = lua_toboolean(L, 6), want_dx = lua_toboolean(L, 7), want_dweight = lua_toboolean(L, 8);
  dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  x = tensor_push_in_layout(L, 2, LAYOUT_IMAGE);
  double *sums;
  real *means = push_work(L, &g, 4, true, &sums), *scale = means + g.width, *slope = scale + g.width;
  real *shift = slope + g.width;
  int work = lua_gettop(L);
  Tensor *dx = want_dx ? tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_IMAGE) : NULL;
  if (!want_dx) lua_pushnil(L);
  Tensor *dweight = tensor_push(L, DTYPE_REAL, 1, &g.c, LAYOUT_ROWS);
  Tensor *dbias = tensor_push(L, DTYPE_REAL, 1, &g.c, LAYOUT_ROWS);
  memcpy(means, mean, (size_t)g.c * sizeof *means);
  repeat(&g, means);
  if (training || want_dweight)
    sum_gradients(&g, dy->data, x->data, means, sums);
  else
    memset(sums, 0, (size_t)(g.pieces * 2 * g.width) * sizeof *sums);
  backward_coefficients(&g, sums, inverse, weight, dweight->data, dbias->data, scale, slope, shift);
  if (want_dx) normalise_backward(&g, dy->data, x->data, means, scale, training ? slope : NULL, shift, dx->data);
  scratch_release(L, work);
  return 3;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_batchnorm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
