/* softmax.c -- see softmax.h. */
#include "softmax.h"

#include <math.h>

#include "../../base/simd.h"

/* VLANES lines side by side, each in its own lane, so that a line's result never depends on how it lies. */
typedef struct LineBlock {
  long start[VLANES];
  int lanes;
} LineBlock;

static LineBlock block_at(const SoftmaxGeometry *g, long first) {
  LineBlock b = {.lanes = g->lines - first < VLANES ? (int)(g->lines - first) : VLANES};
  for (int j = 0; j < b.lanes; j++) b.start[j] = (first + j) / g->inner * g->n * g->inner + (first + j) % g->inner;
  return b;
}

static inline vreal get(const LineBlock *b, const real *x, long offset) {
  real lane[VLANES] = {0};
  for (int j = 0; j < b->lanes; j++) lane[j] = x[b->start[j] + offset];
  return vload(lane);
}

static inline void put(const LineBlock *b, real *y, long offset, vreal v) {
  real lane[VLANES];
  vstore(lane, v);
  for (int j = 0; j < b->lanes; j++) y[b->start[j] + offset] = lane[j];
}

static vreal vlog(vreal x) {
  for (int j = 0; j < VLANES; j++) x[j] = (real)log(x[j]);
  return x;
}

static void forward_block(const SoftmaxGeometry *g, const LineBlock *b, bool logarithm, const real *x, real *y) {
  vreal most = get(b, x, 0), sum = {0};
  for (long i = 1; i < g->n; i++) most = vmax(get(b, x, i * g->inner), most);
  for (long i = 0; i < g->n; i++) {
    vreal e = vexp(get(b, x, i * g->inner) - most);
    if (!logarithm) put(b, y, i * g->inner, e);
    sum += e;
  }
  vreal shift = logarithm ? vlog(sum) : 1 / sum;
  for (long i = 0; i < g->n; i++) {
    long at = i * g->inner;
    put(b, y, at, logarithm ? get(b, x, at) - most - shift : get(b, y, at) * shift);
  }
}

static void backward_block(const SoftmaxGeometry *g, const LineBlock *b, bool logarithm, const real *dy, const real *y,
                           real *dx) {
  vreal sum = {0};
  for (long i = 0; i < g->n; i++) {
    vreal d = get(b, dy, i * g->inner);
    sum += logarithm ? d : d * get(b, y, i * g->inner);
  }
  for (long i = 0; i < g->n; i++) {
    vreal d = get(b, dy, i * g->inner), v = get(b, y, i * g->inner);
    put(b, dx, i * g->inner, logarithm ? d - vexp(v) * sum : v * (d - sum));
  }
}

void softmax_run(const SoftmaxGeometry *g, bool logarithm, const real *x, real *y) {
#pragma omp for
  for (long first = 0; first < g->lines; first += VLANES) {
    LineBlock b = block_at(g, first);
    forward_block(g, &b, logarithm, x, y);
  }
}

void softmax_backward_run(const SoftmaxGeometry *g, bool logarithm, const real *dy, const real *y, real *dx) {
#pragma omp for
  for (long first = 0; first < g->lines; first += VLANES) {
    LineBlock b = block_at(g, first);
    backward_block(g, &b, logarithm, dy, y, dx);
  }
}
