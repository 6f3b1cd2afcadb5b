/*
** reduce.c -- sums, extremes and their positions, over one dimension or over all.
** Sums are taken in double over pieces of fixed size, so they do not depend on the number of threads; those of i32 are exact.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels: x (outer, n, inner) row-major -> y (outer, inner) ---- */

typedef struct ReduceGeometry {
  long outer, n, inner;
} ReduceGeometry;

enum { SUM_PIECE = 1 << 14, SUM_LANES = 8 };

static double sum_piece(const real *x, long n) {
  double lane[SUM_LANES] = {0};
  long i = 0;
  for (; i + SUM_LANES <= n; i += SUM_LANES)
    for (int j = 0; j < SUM_LANES; j++) lane[j] += x[i + j];
  for (; i < n; i++) lane[0] += x[i];
  for (int width = SUM_LANES / 2; width > 0; width /= 2)
    for (int j = 0; j < width; j++) lane[j] += lane[j + width];
  return lane[0];
}

static double sum_row(const real *x, long n) {
  double total = 0;
  for (long i = 0; i < n; i += SUM_PIECE) total += sum_piece(x + i, n - i < SUM_PIECE ? n - i : SUM_PIECE);
  return total;
}

/* partial: one double for each piece of the n elements */
static double sum_all(const real *x, long n, double *partial) {
  long pieces = (n + SUM_PIECE - 1) / SUM_PIECE;
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = p * SUM_PIECE;
    partial[p] = sum_piece(x + first, n - first < SUM_PIECE ? n - first : SUM_PIECE);
  }
  double total = 0;
  for (long p = 0; p < pieces; p++) total += partial[p];
  return total;
}

enum { INNER_BLOCK = 64 };

static void sum_columns(const ReduceGeometry *g, const real *x, real *y) {
  long blocks = (g->inner + INNER_BLOCK - 1) / INNER_BLOCK;
#pragma omp parallel for collapse(2) if (g->outer * g->n * g->inner > PARALLEL_MIN)
  for (long o = 0; o < g->outer; o++)
    for (long b = 0; b < blocks; b++) {
      double total[INNER_BLOCK] = {0};
      long first = b * INNER_BLOCK, width = g->inner - first < INNER_BLOCK ? g->inner - first : INNER_BLOCK;
      for (long i = 0; i < g->n; i++) {
        const real *row = x + (o * g->n + i) * g->inner + first;
        for (long j = 0; j < width; j++) total[j] += row[j];
      }
      for (long j = 0; j < width; j++) y[o * g->inner + first + j] = (real)total[j];
    }
}

static void sum_rows(const ReduceGeometry *g, const real *x, real *y) {
#pragma omp parallel for if (g->outer * g->n > PARALLEL_MIN)
  for (long o = 0; o < g->outer; o++) y[o] = (real)sum_row(x + o * g->n, g->n);
}

/* False where a sum is more than i32 holds. */
static bool sum_whole(const ReduceGeometry *g, const int32_t *x, int32_t *y) {
  bool fits = true;
#pragma omp parallel for reduction(&& : fits) if (g->outer * g->n * g->inner > PARALLEL_MIN)
  for (long o = 0; o < g->outer; o++)
    for (long j = 0; j < g->inner; j++) {
      const int32_t *column = x + o * g->n * g->inner + j;
      int64_t total = 0;
      for (long i = 0; i < g->n; i++) total += column[i * g->inner];
      fits = fits && total >= INT32_MIN && total <= INT32_MAX;
      y[o * g->inner + j] = (int32_t)total;
    }
  return fits;
}

/* Where the largest (sign 1) or smallest (-1) of n elements lies: a NaN wins, and the first of equal ones. */
#define DEFINE_BEST(name, type)                                                                                        \
  static long name(const type *x, long n, long step, int sign) {                                                       \
    long best = 0;                                                                                                     \
    for (long i = 1; i < n && x[best * step] == x[best * step]; i++) {                                                 \
      type now = x[i * step], then = x[best * step];                                                                   \
      if (now != now || (sign > 0 ? now > then : now < then)) best = i;                                                \
    }                                                                                                                  \
    return best;                                                                                                       \
  }
DEFINE_BEST(best_real, real)
DEFINE_BEST(best_whole, int32_t)

/* Values and positions of the extremes of x, real or i32. */
static void extreme(const ReduceGeometry *g, const Tensor *x, int sign, const Tensor *value, int32_t *position) {
  const bool whole = x->dtype == DTYPE_I32;
#pragma omp parallel for if (g->outer * g->n * g->inner > PARALLEL_MIN)
  for (long o = 0; o < g->outer; o++)
    for (long j = 0; j < g->inner; j++) {
      long first = o * g->n * g->inner + j, to = o * g->inner + j;
      long best = whole ? best_whole(tensor_ints(x) + first, g->n, g->inner, sign)
                        : best_real(tensor_reals(x) + first, g->n, g->inner, sign);
      if (whole)
        tensor_ints(value)[to] = tensor_ints(x)[first + best * g->inner];
      else
        tensor_reals(value)[to] = tensor_reals(x)[first + best * g->inner];
      position[to] = (int32_t)(best + 1);
    }
}

/* ---- bindings ---- */

/* Reads (t, dim, keep) and pushes a row-major copy of t where needed; shape gets the result's. No dim: all of them. */
static const Tensor *check_reduce(lua_State *L, const char *op, ReduceGeometry *g, int *ndim,
                                  long shape[TENSOR_MAX_DIMS]) {
  bool whole = tensor_is(L, 1) && tensor_check(L, 1)->dtype == DTYPE_I32;
  const Tensor *t = whole ? lua_touserdata(L, 1) : tensor_check_real(L, 1, op, 0);
  int dim = lua_isnoneornil(L, 2) ? -1 : tensor_check_dim(L, 2, t);
  bool keep = lua_toboolean(L, 3);
  *g = (ReduceGeometry){1, dim < 0 ? tensor_numel(t) : 1, 1};
  *ndim = 0;
  for (int d = 0; d < t->ndim; d++) {
    if (dim >= 0) *(d < dim ? &g->outer : d == dim ? &g->n : &g->inner) *= t->shape[d];
    if (dim >= 0 && d != dim) shape[(*ndim)++] = t->shape[d];
    if ((dim < 0 || d == dim) && keep) shape[(*ndim)++] = 1;
  }
  return tensor_push_in_layout(L, 1, LAYOUT_ROWS);
}

/* sum(t, dim, keep), of i32 too */
static int l_sum(lua_State *L) {
  ReduceGeometry g;
  int ndim;
  long shape[TENSOR_MAX_DIMS];
  const Tensor *x = check_reduce(L, "sum: x", &g, &ndim, shape);
  Tensor *y = tensor_push(L, x->dtype, ndim, shape, LAYOUT_ROWS);
  if (x->dtype == DTYPE_I32) {
    if (!sum_whole(&g, x->data, y->data))
      tensor_error(L, "sum: a sum passes what i32 holds; to(\"f32\") before, for one that is rounded");
  } else if (g.outer == 1 && g.inner == 1) {
    size_t pieces = (size_t)(g.n / SUM_PIECE) + 1;
    double *partial = (double *)scratch_push(L, pieces * sizeof(double) / sizeof(real));
    tensor_reals(y)[0] = (real)sum_all(x->data, g.n, partial);
    scratch_release(L, -1);
    lua_pop(L, 1);
  } else if (g.inner == 1) {
    sum_rows(&g, x->data, y->data);
  } else {
    sum_columns(&g, x->data, y->data);
  }
  return 1;
}

/* name(t, dim, keep) -> values, positions (1-based; of the flattened tensor when no dim is named) */
static int push_extreme(lua_State *L, const char *op, int sign) {
  ReduceGeometry g;
  int ndim;
  long shape[TENSOR_MAX_DIMS];
  const Tensor *x = check_reduce(L, op, &g, &ndim, shape);
  Tensor *value = tensor_push(L, x->dtype, ndim, shape, LAYOUT_ROWS);
  Tensor *position = tensor_push(L, DTYPE_I32, ndim, shape, LAYOUT_ROWS);
  extreme(&g, x, sign, value, position->data);
  return 2;
}

static int l_max(lua_State *L) {
  return push_extreme(L, "max: x", 1);
}
static int l_min(lua_State *L) {
  return push_extreme(L, "min: x", -1);
}

static const luaL_Reg functions[] = {{"sum", l_sum}, {"max", l_max}, {"min", l_min}, {NULL, NULL}};

int luaopen_feral_core_reduce(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
