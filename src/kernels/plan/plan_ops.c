/* plan_ops.c -- the steps of plans, see plan.h. Loops are shared by the threads of the team that calls them. */
#include <math.h>

#include "../../base/parallel.h"
#include "../../base/simd.h"
#include "dense.h"
#include "plan.h"

enum { PIECE = 4096 };

static Tail tail_of(const PlanStep *s, const PlanMemory *m) {
  return (Tail){m->other, s->activation, s->parameter};
}

static const Tail *or_null(const Tail *t) {
  return t->residual == NULL && t->activation == TAIL_LINEAR ? NULL : t;
}

/* ---- convolution, dense layers ---- */

static ConvGeometry conv_of(const PlanStep *s, long n) {
  ConvGeometry g = s->conv;
  g.n = n;
  return g;
}

static void run_conv(const PlanStep *s, const PlanMemory *m) {
  ConvGeometry g = conv_of(s, m->n);
  Tail tail = tail_of(s, m);
  conv_run(&g, m->x, s->packed, or_null(&tail), m->y, m->scratch);
}

static long conv_scratch(const PlanStep *s, long n) {
  ConvGeometry g = conv_of(s, n);
  return conv_run_scratch(&g);
}

static void run_dense(const PlanStep *s, const PlanMemory *m) {
  Tail tail = tail_of(s, m);
  dense_run(m->n, s->rows.from, s->rows.to, m->x, s->packed, or_null(&tail), m->y);
}

/* ---- element by element ---- */

static void run_map(const PlanStep *s, const PlanMemory *m) {
  Tail tail = tail_of(s, m);
  long total = m->n * s->rows.from;
#pragma omp for
  for (long i = 0; i < total; i += PIECE) tail_map(&tail, m->x, m->y, i, total - i < PIECE ? total - i : PIECE);
}

static void run_scale(const PlanStep *s, const PlanMemory *m) {
  Tail tail = tail_of(s, m);
  long c = s->rows.to;
  const real *scale = s->packed, *shift = scale + c;
#pragma omp for
  for (long row = 0; row < m->n * s->rows.rows; row++) {
    const real *x = m->x + row * c;
    real *y = m->y + row * c;
    for (long j = 0; j < c; j++) y[j] = x[j] * scale[j] + shift[j];
    tail_apply(or_null(&tail), m->y, row * c, c);
  }
}

static void run_prelu(const PlanStep *s, const PlanMemory *m) {
  long c = s->rows.to;
#pragma omp for
  for (long row = 0; row < m->n * s->rows.rows; row++) {
    const real *x = m->x + row * c;
    real *y = m->y + row * c;
    for (long j = 0; j < c; j++) y[j] = x[j] > 0 ? x[j] : x[j] * s->packed[j];
  }
}

static void softmax_row(long n, const real *x, real *y) {
  real largest = x[0], sum = 0;
  for (long i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
  for (long i = 0; i < n; i++) sum += y[i] = (real)exp((double)x[i] - (double)largest);
  for (long i = 0; i < n; i++) y[i] /= sum;
}

static void run_softmax(const PlanStep *s, const PlanMemory *m) {
  long c = s->rows.to;
#pragma omp for
  for (long row = 0; row < m->n * s->rows.rows; row++) softmax_row(c, m->x + row * c, m->y + row * c);
}

/* ---- pooling ---- */

/* What of a window lies inside the image. */
typedef struct Window {
  long h0, h1, w0, w1;
  real divisor;
} Window;

static long least(long a, long b) {
  return a < b ? a : b;
}

static Window window_at(const PlanPool *g, long oh, long ow) {
  long h = oh * g->stride_h - g->top, w = ow * g->stride_w - g->left;
  Window v = {h < 0 ? 0 : h, least(h + g->kh, g->h), w < 0 ? 0 : w, least(w + g->kw, g->w), 1};
  long rows = g->count_padding ? least(h + g->kh, g->h + g->top) - h : v.h1 - v.h0;
  long columns = g->count_padding ? least(w + g->kw, g->w + g->left) - w : v.w1 - v.w0;
  v.divisor = (real)(rows * columns);
  return v;
}

static inline vreal max_of(const PlanPool *g, const Window *v, const real *x, int lanes) {
  vreal best = vset(-INFINITY);
  vmask nan = best != best;
  for (long h = v->h0; h < v->h1; h++) {
    const real *pixel = x + (h * g->w + v->w0) * g->c;
    for (long w = v->w0; w < v->w1; w++, pixel += g->c) {
      vreal here = vload_part(pixel, lanes);
      nan |= here != here;
      best = vmax(best, here);
    }
  }
  return vselect(nan, vset(NAN), best);
}

static inline vreal mean_of(const PlanPool *g, const Window *v, const real *x, int lanes) {
  vreal sum = {0};
  for (long h = v->h0; h < v->h1; h++)
    for (long w = v->w0; w < v->w1; w++) sum += vload_part(x + (h * g->w + w) * g->c, lanes);
  return sum / v->divisor;
}

/* One window of all channels. 'largest' is a constant where it is inlined. */
static inline __attribute__((always_inline)) void pool_pixel(const PlanPool *g, const bool largest, const Window *v,
                                                             const real *x, real *y) {
  long c = 0;
  for (; c + VLANES <= g->c; c += VLANES)
    vstore(y + c, largest ? max_of(g, v, x + c, VLANES) : mean_of(g, v, x + c, VLANES));
  int rest = (int)(g->c - c);
  if (rest > 0) vstore_part(y + c, largest ? max_of(g, v, x + c, rest) : mean_of(g, v, x + c, rest), rest);
}

static inline __attribute__((always_inline)) void pool(const PlanStep *s, const PlanMemory *m, const bool largest) {
  const PlanPool *g = &s->pool;
#pragma omp for
  for (long row = 0; row < m->n * g->oh; row++) {
    long image = row / g->oh, oh = row - image * g->oh;
    for (long ow = 0; ow < g->ow; ow++) {
      Window v = window_at(g, oh, ow);
      pool_pixel(g, largest, &v, m->x + image * g->h * g->w * g->c, m->y + (row * g->ow + ow) * g->c);
    }
  }
}

static void run_max_pool(const PlanStep *s, const PlanMemory *m) {
  pool(s, m, true);
}
static void run_mean_pool(const PlanStep *s, const PlanMemory *m) {
  pool(s, m, false);
}

enum { CHANNELS_AT_ONCE = 64 };

/* Sums in double, as the network's. */
static void run_global_mean(const PlanStep *s, const PlanMemory *m) {
  long pixels = s->rows.rows, c = s->rows.to;
#pragma omp for
  for (long n = 0; n < m->n; n++)
    for (long first = 0; first < c; first += CHANNELS_AT_ONCE) {
      double sum[CHANNELS_AT_ONCE] = {0};
      long width = least(c - first, CHANNELS_AT_ONCE);
      const real *x = m->x + n * pixels * c + first;
      for (long p = 0; p < pixels; p++, x += c)
        for (long j = 0; j < width; j++) sum[j] += x[j];
      for (long j = 0; j < width; j++) m->y[n * c + first + j] = (real)(sum[j] / (double)pixels);
    }
}

/* ---- moving ---- */

static void copy(real *to, const real *from, long n) {
  for (long i = 0; i < n; i++) to[i] = from[i];
}

static void run_turn(const PlanStep *s, const PlanMemory *m) {
  long rows = s->rows.rows, columns = s->rows.to;
#pragma omp for
  for (long n = 0; n < m->n; n++)
    for (long j = 0; j < columns; j++)
      for (long i = 0; i < rows; i++) m->y[(n * columns + j) * rows + i] = m->x[(n * rows + i) * columns + j];
}

static void run_copy(const PlanStep *s, const PlanMemory *m) {
  long from = s->rows.from, to = s->rows.to;
#pragma omp for
  for (long row = 0; row < m->n * s->rows.rows; row++) copy(m->y + row * to + s->rows.at, m->x + row * from, from);
}

static void run_select(const PlanStep *s, const PlanMemory *m) {
  long c = s->rows.to;
#pragma omp for
  for (long n = 0; n < m->n; n++) copy(m->y + n * c, m->x + (n * s->rows.rows + s->rows.at) * c, c);
}

const PlanOp plan_conv = {"conv", run_conv, conv_scratch};
const PlanOp plan_dense = {"dense", run_dense, NULL};
const PlanOp plan_map = {"map", run_map, NULL};
const PlanOp plan_scale = {"scale", run_scale, NULL};
const PlanOp plan_prelu = {"prelu", run_prelu, NULL};
const PlanOp plan_softmax = {"softmax", run_softmax, NULL};
const PlanOp plan_max_pool = {"max_pool", run_max_pool, NULL};
const PlanOp plan_mean_pool = {"mean_pool", run_mean_pool, NULL};
const PlanOp plan_global_mean = {"global_mean", run_global_mean, NULL};
const PlanOp plan_turn = {"turn", run_turn, NULL};
const PlanOp plan_copy = {"copy", run_copy, NULL};
const PlanOp plan_select = {"select", run_select, NULL};
