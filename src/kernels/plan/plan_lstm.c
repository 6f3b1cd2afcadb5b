/*
** plan_lstm.c -- the recurrent half of an LSTM layer as a step of a plan, see plan.h and lstm.h. What the inputs give to the
** gates is made by a dense step before it; the states are read where they are written, in the output.
*/
#include <string.h>

#include "../../base/parallel.h"
#include "plan.h"
#include "plan_lstm.h"
#include "../recurrent/recurrent.h"

enum { GATES = 4 };

long lstm_packed_size(long hidden) {
  return blocks_of(hidden, VLANES) * hidden * TILE_WIDTH;
}

void lstm_pack(long hidden, const real *w_hh, real *packed) {
  for (long first = 0; first < hidden; first += VLANES)
    for (long k = 0; k < hidden; k++)
      for (long q = 0; q < GATES; q++)
        for (long j = first; j < first + VLANES; j++) *packed++ = j < hidden ? w_hh[(q * hidden + j) * hidden + k] : 0;
}

/* One step of all samples: distances from one to the next are those of whole sequences. */
typedef struct CellStep {
  long hidden, gates_step, y_step;
  const real *panels, *gates, *before; /* before: the state, or NULL at the start */
  real *cells, *after;
} CellStep;

/* What the gate of x lets through of y, by one division. */
static inline vreal gated(vreal x, vratio y) {
  vratio gate = vtanh_ratio((real)0.5 * x);
  return (real)0.5 * ((gate.below + gate.above) * y.above) / (gate.below * y.below);
}

static inline __attribute__((always_inline)) void cell_tile(int rows, const CellStep *s, long row, long block) {
  long h = s->hidden, j = block * VLANES;
  int lanes = h - j < VLANES ? (int)(h - j) : VLANES;
  vreal sums[TILE_ROWS][TILE_VECTORS];
  for (int r = 0; r < rows; r++)
    for (int q = 0; q < GATES; q++) sums[r][q] = load_lanes(s->gates + (row + r) * s->gates_step + q * h + j, lanes);
  if (s->before != NULL)
    add_products(rows, h, s->before + row * s->y_step, s->y_step, s->panels + block * h * TILE_WIDTH, sums);
  for (int r = 0; r < rows; r++) {
    real *cell = s->cells + (row + r) * h + j;
    vreal c = gated(sums[r][0], vtanh_ratio(sums[r][2]));
    if (s->before != NULL) c += vgate(sums[r][1]) * load_lanes(cell, lanes);
    store_lanes(cell, c, lanes);
    store_lanes(s->after + (row + r) * s->y_step + j, gated(sums[r][3], vtanh_ratio(c)), lanes);
  }
}

static void cell_block(const CellStep *s, long rows, long block) {
  long row = 0;
  for (; row + TILE_ROWS <= rows; row += TILE_ROWS) cell_tile(TILE_ROWS, s, row, block);
  for (; row + 2 <= rows; row += 2) cell_tile(2, s, row, block);
  for (; row < rows; row++) cell_tile(1, s, row, block);
}

static void run_lstm(const PlanStep *s, const PlanMemory *m) {
  const PlanLstm *g = &s->lstm;
  long width = GATES * g->hidden;
  CellStep step = {.hidden = g->hidden, .gates_step = g->steps * width, .y_step = g->steps * g->width};
  step.panels = s->packed;
  step.cells = m->scratch;
  for (long i = 0; i < g->steps; i++) {
    long t = g->reverse ? g->steps - 1 - i : i;
    step.gates = m->x + t * width;
    step.after = m->y + t * g->width + g->at;
    step.before = i == 0 ? NULL : g->reverse ? step.after + g->width : step.after - g->width;
#pragma omp for schedule(static)
    for (long block = 0; block < blocks_of(g->hidden, VLANES); block++) cell_block(&step, m->n, block);
  }
}

static long lstm_scratch(const PlanStep *s, long n) {
  return n * s->lstm.hidden;
}

const PlanOp plan_lstm = {"lstm", run_lstm, lstm_scratch};
