/* plan_rows.c -- steps that take number by number, or row by row. See plan.h. */
#include "../../base/simd.h"
#include "../common/layernorm.h"
#include "../common/softmax.h"
#include "dense.h"
#include "plan_step.h"

enum { PIECE = 4096 };

/* ---- dense layers ---- */

static long dense_weights(const PlanStep *s) {
  return s->rows.from * s->rows.to;
}
static long packed_dense(const PlanStep *s) {
  return dense_packed_size(s->rows.from, s->rows.to);
}
static void pack_dense(const PlanStep *s, const real *const *weight, real *packed) {
  dense_pack(s->rows.from, s->rows.to, weight[0], weight[1], packed);
}

static void run_dense(const PlanStep *s, const PlanMemory *m) {
  Tail tail = tail_of(s, m);
  dense_run(m->n, s->rows.from, s->rows.to, m->x, s->packed, or_null(&tail), m->y);
}

const PlanOp plan_dense = {
    .name = "dense",
    .field = {PLAN_ROWS_FIELDS},
    .x_size = rows_from,
    .y_size = rows_to,
    .weight = {{"weight", dense_weights, false}, {"bias", one_row, true}},
    .packed_size = packed_dense,
    .pack = pack_dense,
    .run = run_dense,
};

/* ---- number by number ---- */

static void run_map(const PlanStep *s, const PlanMemory *m) {
  Tail tail = tail_of(s, m);
  long total = m->n * s->rows.from;
#pragma omp for
  for (long i = 0; i < total; i += PIECE) tail_map(&tail, m->x, m->y, i, total - i < PIECE ? total - i : PIECE);
}

const PlanOp plan_map = {
    .name = "map", .field = {PLAN_ROWS_FIELDS}, .x_size = rows_from, .y_size = rows_to, .run = run_map};

static long two_rows(const PlanStep *s) {
  return 2 * s->rows.to;
}
static void pack_scale(const PlanStep *s, const real *const *weight, real *packed) {
  copy_reals(packed, weight[0], s->rows.to);
  copy_reals(packed + s->rows.to, weight[1], s->rows.to);
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

const PlanOp plan_scale = {
    .name = "scale",
    .field = {PLAN_ROWS_FIELDS},
    .x_size = rows_to,
    .y_size = rows_to,
    .weight = {{"weight", one_row, false}, {"bias", one_row, false}},
    .packed_size = two_rows,
    .pack = pack_scale,
    .run = run_scale,
};

static void pack_prelu(const PlanStep *s, const real *const *weight, real *packed) {
  copy_reals(packed, weight[0], s->rows.to);
}

static void run_prelu(const PlanStep *s, const PlanMemory *m) {
  long c = s->rows.to;
#pragma omp for
  for (long row = 0; row < m->n * s->rows.rows; row++)
    for (long j = 0; j < c; j += VLANES) {
      int lanes = c - j < VLANES ? (int)(c - j) : VLANES;
      vstore_part(m->y + row * c + j, prelu_of(vload_part(m->x + row * c + j, lanes), vload_part(s->packed + j, lanes)),
                  lanes);
    }
}

const PlanOp plan_prelu = {
    .name = "prelu",
    .field = {PLAN_ROWS_FIELDS},
    .x_size = rows_to,
    .y_size = rows_to,
    .weight = {{"weight", one_row, false}},
    .packed_size = one_row,
    .pack = pack_prelu,
    .run = run_prelu,
};

/* ---- row by row ---- */

static void run_softmax(const PlanStep *s, const PlanMemory *m) {
  const SoftmaxGeometry g = {m->n * s->rows.rows, s->rows.to, 1};
  softmax_run(&g, false, m->x, m->y);
}

const PlanOp plan_softmax = {
    .name = "softmax", .field = {PLAN_ROWS_FIELDS}, .x_size = rows_to, .y_size = rows_to, .run = run_softmax};

static void pack_layernorm(const PlanStep *s, const real *const *weight, real *packed) {
  long n = s->rows.to;
  for (long i = 0; i < n; i++) {
    packed[i] = weight[0] != NULL ? weight[0][i] : 1;
    packed[n + i] = weight[1] != NULL ? weight[1][i] : 0;
  }
}

static void run_layernorm(const PlanStep *s, const PlanMemory *m) {
  long n = s->rows.to;
  layernorm_run(m->n * s->rows.rows, n, s->parameter, m->x, s->packed, s->packed + n, m->y, NULL, NULL);
}

const PlanOp plan_layernorm = {
    .name = "layernorm",
    .field = {PLAN_ROWS_FIELDS},
    .x_size = rows_to,
    .y_size = rows_to,
    .weight = {{"weight", one_row, true}, {"bias", one_row, true}},
    .packed_size = two_rows,
    .pack = pack_layernorm,
    .run = run_layernorm,
};
