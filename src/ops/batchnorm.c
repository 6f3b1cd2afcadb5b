/*
** batchnorm.c -- batch normalisation (Ioffe and Szegedy 2015) of rows of channels: N x C, or images, which lie channels last;
** with the ReLU behind it, if there is one, in the same passes. Each direction takes two: sums, then results.
**
** Sums are taken in double over pieces that depend on the sizes alone, and added in their order. The second pass goes through
** the pieces the other way round, so that it begins with those that the first has left in the cache.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

/* x, dx, y, dy (rows,c). Few channels make short loops, so several rows are taken as one long row of 'width' values,
   and vectors of one number a channel are repeated to that width. */
typedef struct NormGeometry {
  long rows, c, width, pieces;
} NormGeometry;

#define INLINE static inline __attribute__((always_inline))

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

/* Loops over the values of a piece: i counts from its start in the whole, j in the long row. */
#define EACH_OF_PIECE(g, p, statement)                                                                                 \
  for (long at = piece_first(g, p), end = piece_first(g, (p) + 1); at < end; at += (g)->width) {                       \
    long n = end - at < (g)->width ? end - at : (g)->width;                                                            \
    _Pragma("GCC ivdep") for (long j = 0; j < n; j++) {                                                                \
      long i = at + j;                                                                                                 \
      statement;                                                                                                       \
    }                                                                                                                  \
  }

/* Adds n values of a long row, or four long rows, less 'origin', to the sums of values and of squares (width). */
static void add_values(const real *restrict x, const real *restrict origin, long n, double *restrict sum,
                       double *restrict square) {
  for (long j = 0; j < n; j++) {
    double v = (double)x[j] - origin[j];
    sum[j] += v;
    square[j] += v * v;
  }
}

static void add_four_values(const real *restrict x, const real *restrict origin, long w, double *restrict sum,
                            double *restrict square) {
  for (long j = 0; j < w; j++) {
    real o = origin[j], a = x[j] - o, b = x[j + w] - o, c = x[j + 2 * w] - o, d = x[j + 3 * w] - o;
    sum[j] += (a + b) + (c + d);
    square[j] += (a * a + b * b) + (c * c + d * d);
  }
}

/* sums (pieces,2,width): of x less origin (width) and of its squares. With an origin among the values the squares are not much
   larger than the variance, so floats resolve it, however far from 0 the values lie. */
static void sum_values(const NormGeometry *g, const real *x, const real *origin, double *sums) {
  memset(sums, 0, (size_t)(g->pieces * 2 * g->width) * sizeof *sums);
#pragma omp parallel for if (g->pieces > 1)
  for (long p = 0; p < g->pieces; p++) {
    double *sum = sums + p * 2 * g->width, *square = sum + g->width;
    long w = g->width, at = piece_first(g, p), end = piece_first(g, p + 1);
    for (; at + 4 * w <= end; at += 4 * w) add_four_values(x + at, origin, w, sum, square);
    for (; at < end; at += w) add_values(x + at, origin, end - at < w ? end - at : w, sum, square);
  }
}

/* One number a channel, repeated to the width: y = (x - mean) scale + shift, and where a ReLU follows, that if above 0. */
typedef struct Line {
  const real *mean, *scale, *shift;
  bool relu;
} Line;

/* The gradient of y's number, from that of the ReLU's; j is the place in the long row. A NaN is let through. */
INLINE real before_relu(const Line *v, const bool relu, real dy, real x, long j) {
  return relu && (x - v->mean[j]) * v->scale[j] + v->shift[j] <= 0 ? 0 : dy;
}

/* The same for dy and for dy (x - mean). */
INLINE void add_gradients(const Line *v, const bool relu, const real *restrict dy, const real *restrict x, long n,
                          double *restrict sum, double *restrict product) {
  for (long j = 0; j < n; j++) {
    double d = before_relu(v, relu, dy[j], x[j], j);
    sum[j] += d;
    product[j] += d * (x[j] - v->mean[j]);
  }
}

INLINE void add_four_gradients(const Line *v, const bool relu, const real *restrict dy, const real *restrict x, long w,
                               double *restrict sum, double *restrict product) {
  const Line l = *v;
  for (long j = 0; j < w; j++) {
    real m = l.mean[j], p = x[j], q = x[j + w], r = x[j + 2 * w], s = x[j + 3 * w];
    real a = before_relu(&l, relu, dy[j], p, j), b = before_relu(&l, relu, dy[j + w], q, j);
    real c = before_relu(&l, relu, dy[j + 2 * w], r, j), d = before_relu(&l, relu, dy[j + 3 * w], s, j);
    sum[j] += (a + b) + (c + d);
    product[j] += (a * (p - m) + b * (q - m)) + (c * (r - m) + d * (s - m));
  }
}

INLINE void sum_piece(const NormGeometry *g, long p, const Line *v, const bool relu, const real *dy, const real *x,
                      double *sums) {
  double *sum = sums + p * 2 * g->width, *product = sum + g->width;
  long w = g->width, at = piece_first(g, p), end = piece_first(g, p + 1);
  for (; at + 4 * w <= end; at += 4 * w) add_four_gradients(v, relu, dy + at, x + at, w, sum, product);
  for (; at < end; at += w) add_gradients(v, relu, dy + at, x + at, end - at < w ? end - at : w, sum, product);
}

static void sum_gradients(const NormGeometry *g, const Line *v, const real *dy, const real *x, double *sums) {
  memset(sums, 0, (size_t)(g->pieces * 2 * g->width) * sizeof *sums);
#pragma omp parallel for if (g->pieces > 1)
  for (long p = 0; p < g->pieces; p++) {
    if (v->relu)
      sum_piece(g, p, v, true, dy, x, sums);
    else
      sum_piece(g, p, v, false, dy, x, sums);
  }
}

/* Adds up the pieces and the rows of a long row: sum 'which' (0 or 1) of channel c. */
static double total_of(const NormGeometry *g, const double *sums, int which, long c) {
  double total = 0;
  for (long p = 0; p < g->pieces; p++)
    for (long j = c; j < g->width; j += g->c) total += sums[(p * 2 + which) * g->width + j];
  return total;
}

static void normalise(const NormGeometry *g, const Line *line, const real *x, real *restrict y) {
  const Line v = *line;
#pragma omp parallel for if (g->pieces > 1)
  for (long back = 1; back <= g->pieces; back++) {
    if (v.relu)
      EACH_OF_PIECE(g, g->pieces - back, real t = (x[i] - v.mean[j]) * v.scale[j] + v.shift[j]; y[i] = t <= 0 ? 0 : t)
    else
      EACH_OF_PIECE(g, g->pieces - back, y[i] = (x[i] - v.mean[j]) * v.scale[j] + v.shift[j])
  }
}

/* dx = d scale, or with slope: d scale + (x - mean) slope + offset, each (width); d: dy, through the ReLU. dx may be dy. */
static void normalise_backward(const NormGeometry *g, const Line *line, const real *dy, const real *x,
                               const real *slope, const real *offset, real *dx) {
  const Line v = *line;
#pragma omp parallel for if (g->pieces > 1)
  for (long back = 1; back <= g->pieces; back++) {
    long p = g->pieces - back;
    if (slope == NULL && v.relu)
      EACH_OF_PIECE(g, p, dx[i] = before_relu(&v, true, dy[i], x[i], j) * v.scale[j])
    else if (slope == NULL)
      EACH_OF_PIECE(g, p, dx[i] = dy[i] * v.scale[j])
    else if (v.relu)
      EACH_OF_PIECE(g, p,
                    dx[i] = before_relu(&v, true, dy[i], x[i], j) * v.scale[j] +
                            ((x[i] - v.mean[j]) * slope[j] + offset[j]))
    else
      EACH_OF_PIECE(g, p, dx[i] = dy[i] * v.scale[j] + ((x[i] - v.mean[j]) * slope[j] + offset[j]))
  }
}

/* Repeats the first c values of v to the width. */
static void repeat(const NormGeometry *g, real *v) {
  for (long j = g->c; j < g->width; j++) v[j] = v[j - g->c];
}

/* The line, in 'work' (3,width), from (c) vectors; weight and bias may be NULL. */
static Line line_of(const NormGeometry *g, const real *mean, const real *inverse, const real *weight, const real *bias,
                    bool relu, real *work) {
  real *means = work, *scale = means + g->width, *shift = scale + g->width;
  for (long c = 0; c < g->c; c++) {
    means[c] = mean[c];
    scale[c] = inverse[c] * (weight != NULL ? weight[c] : 1);
    shift[c] = bias != NULL ? bias[c] : 0;
  }
  repeat(g, means);
  repeat(g, scale);
  repeat(g, shift);
  return (Line){means, scale, shift, relu};
}

/* Gradients of weight and bias from the sums of sum_gradients, and what normalise_backward takes. */
static void backward_coefficients(const NormGeometry *g, const double *sums, const real *inverse, const real *scale,
                                  real *dweight, real *dbias, real *slope, real *offset) {
  double rows = (double)g->rows;
  for (long c = 0; c < g->c; c++) {
    double by_shift = total_of(g, sums, 0, c), by_scale = total_of(g, sums, 1, c) * inverse[c];
    dbias[c] = (real)by_shift;
    dweight[c] = (real)by_scale;
    slope[c] = (real)(-scale[c] * (double)inverse[c] * by_scale / rows);
    offset[c] = (real)(-scale[c] * by_shift / rows);
  }
  repeat(g, slope);
  repeat(g, offset);
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
    tensor_error(L, "%s has %I elements, the input has %I channels", what, (lua_Integer)t->shape[0], (lua_Integer)c);
  return t->data;
}

static NormGeometry check_input(lua_State *L, int arg, const char *what) {
  const Tensor *x = tensor_check_real(L, arg, what, 0);
  if (x->ndim != 2 && x->ndim != 4 && x->ndim != 5)
    tensor_error(L, "%s is %s, N x C or N x C x H x W expected", what, tensor_describe(L, x));
  return geometry_of(tensor_numel(x) / x->shape[1], x->shape[1]);
}

/* Mean and 1 / standard deviation of the batch x; follows them in the running statistics. origin (width): scratch */
static void batch_statistics(const BatchNorm *b, const real *x, double *sums, real *origin, real *mean, real *inverse) {
  double rows = (double)b->g.rows;
  memcpy(origin, x, (size_t)b->g.c * sizeof *x); /* the first row */
  repeat(&b->g, origin);
  sum_values(&b->g, x, origin, sums);
  for (long c = 0; c < b->g.c; c++) {
    double off = total_of(&b->g, sums, 0, c) / rows, var = total_of(&b->g, sums, 1, c) / rows - off * off;
    double m = origin[c] + off;
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

/* forward(x, weight, bias, running mean, running var, training, momentum, eps, relu) -> y, mean, 1 / standard deviation
   x N x C or N x C x ..., the others C; weight and bias may be nil; training changes the running statistics; relu: y is what
   a ReLU makes of the result */
static int l_forward(lua_State *L) {
  lua_settop(L, 9);
  BatchNorm b = {.g = check_input(L, 1, "batch_norm: input")};
  const Tensor *x = lua_touserdata(L, 1);
  b.weight = check_vector(L, 2, "batch_norm: weight", b.g.c, true);
  b.bias = check_vector(L, 3, "batch_norm: bias", b.g.c, true);
  b.running_mean = check_vector(L, 4, "batch_norm: running_mean", b.g.c, false);
  b.running_var = check_vector(L, 5, "batch_norm: running_var", b.g.c, false);
  bool training = lua_toboolean(L, 6), relu = lua_toboolean(L, 9);
  b.momentum = luaL_checknumber(L, 7);
  b.eps = luaL_checknumber(L, 8);
  if (training && b.g.rows < 2)
    tensor_error(L, "batch_norm: input %s has one value a channel, which has no variance: train on larger batches",
                 tensor_describe(L, x));
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  double *sums;
  real *vectors = push_work(L, &b.g, 3, training, &sums);
  int work = lua_gettop(L);
  Tensor *y = tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_IMAGE);
  Tensor *mean = tensor_push(L, DTYPE_REAL, 1, &b.g.c, LAYOUT_ROWS);
  Tensor *inverse = tensor_push(L, DTYPE_REAL, 1, &b.g.c, LAYOUT_ROWS);
  if (training) {
    tensor_touch(L, 4);
    tensor_touch(L, 5);
    batch_statistics(&b, x->data, sums, vectors, mean->data, inverse->data);
  } else {
    running_statistics(&b, mean->data, inverse->data);
  }
  Line line = line_of(&b.g, mean->data, inverse->data, b.weight, b.bias, relu, vectors);
  normalise(&b.g, &line, x->data, y->data);
  scratch_release(L, work);
  return 3;
}

/* backward(dy, x, weight, bias, mean, 1 / standard deviation, training, relu, want dx, want dweight, over)
   -> dx, dweight, dbias; over: dx in the memory of dy, if that lies as it should
   weight and bias as they were in forward: with them relu finds again which values were above 0 */
static int l_backward(lua_State *L) {
  lua_settop(L, 11);
  NormGeometry g = check_input(L, 2, "batch_norm: input");
  const Tensor *dy = tensor_check_real(L, 1, "batch_norm: gradient", 0), *x = lua_touserdata(L, 2);
  if (!tensor_same_shape(dy, x))
    tensor_error(L, "batch_norm: the gradient is %s, the input %s", tensor_describe(L, dy), tensor_describe(L, x));
  const real *weight = check_vector(L, 3, "batch_norm: weight", g.c, true);
  const real *bias = check_vector(L, 4, "batch_norm: bias", g.c, true);
  const real *mean = check_vector(L, 5, "batch_norm: mean", g.c, false);
  const real *inverse = check_vector(L, 6, "batch_norm: inverse", g.c, false);
  bool training = lua_toboolean(L, 7), relu = lua_toboolean(L, 8);
  bool want_dx = lua_toboolean(L, 9), want_dweight = lua_toboolean(L, 10);
  dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  bool over = want_dx && lua_toboolean(L, 11) && lua_rawequal(L, 1, -1);
  x = tensor_push_in_layout(L, 2, LAYOUT_IMAGE);
  double *sums;
  real *vectors = push_work(L, &g, 5, true, &sums), *slope = vectors + 3 * g.width, *offset = slope + g.width;
  int work = lua_gettop(L);
  real *dx = want_dx && !over ? tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_IMAGE)->data : dy->data;
  if (over) {
    tensor_touch(L, 1);
    lua_pushvalue(L, 1);
  }
  if (!want_dx) lua_pushnil(L);
  Tensor *dweight = tensor_push(L, DTYPE_REAL, 1, &g.c, LAYOUT_ROWS);
  Tensor *dbias = tensor_push(L, DTYPE_REAL, 1, &g.c, LAYOUT_ROWS);
  Line line = line_of(&g, mean, inverse, weight, bias, relu, vectors);
  if (training || want_dweight)
    sum_gradients(&g, &line, dy->data, x->data, sums);
  else
    memset(sums, 0, (size_t)(g.pieces * 2 * g.width) * sizeof *sums);
  backward_coefficients(&g, sums, inverse, line.scale, dweight->data, dbias->data, slope, offset);
  if (want_dx) normalise_backward(&g, &line, dy->data, x->data, training ? slope : NULL, offset, dx);
  scratch_release(L, work);
  return 3;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_batchnorm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
