/* lstm.c -- see lstm.h. The inputs of all steps are one matrix product; then each step is one pass that multiplies the
   state and computes the gates, a tile of sequences and hidden units at a time, without leaving the registers. */
#include "lstm.h"

#include <string.h>

#include "../../base/interrupt.h"
#include "../common/product.h"
#include "recurrent.h"

enum { GATES = 4 };

static double work(const LstmGeometry *g) {
  return (double)g->steps * (double)g->n * (double)g->hidden * (double)g->hidden * GATES;
}

/* The step that comes s-th, and the slots of the states before and after step t. */
static long step_at(const LstmGeometry *g, long s) {
  return g->reverse ? g->steps - 1 - s : s;
}
static long before(const LstmGeometry *g, long t) {
  return g->reverse ? t + 1 : t;
}
static long after(const LstmGeometry *g, long t) {
  return g->reverse ? t : t + 1;
}

static bool has_ended(const LstmGeometry *g, long t, long n) {
  return g->lengths != NULL && t >= g->lengths[n];
}

/* Where sequence n begins in a slot of states. */
static long at(const LstmGeometry *g, long slot, long n) {
  return (slot * g->n + n) * g->hidden;
}

static void copy(real *to, const real *from, long n) {
  memcpy(to, from, (size_t)n * sizeof *to);
}
static void clear(real *to, long n) {
  memset(to, 0, (size_t)n * sizeof *to);
}

/* ---- forward ---- */

/* panels (blocks,H,4,VLANES): vector q of a panel belongs to gate q, so a tile has all that its hidden units need;
   w (4H,columns) with 'columns' H, or 1 for a bias */
static void pack_gates(long hidden, long columns, const real *w, real *panels) {
  for (long first = 0; first < hidden; first += VLANES)
    for (long k = 0; k < columns; k++)
      for (long q = 0; q < GATES; q++)
        for (long j = first; j < first + VLANES; j++) *panels++ = j < hidden ? w[(q * hidden + j) * columns + k] : 0;
}

/* One step of the sequences that the pointers begin with. */
typedef struct CellStep {
  long hidden;
  const real *panels, *bias; /* bias: (blocks,4,VLANES) */
  const real *h_before, *c_before;
  real *gates, *h_after, *c_after;
} CellStep;

static inline __attribute__((always_inline)) void cell_tile(int rows, const CellStep *s, long row, long block) {
  long h = s->hidden, j = block * VLANES;
  int lanes = h - j < VLANES ? (int)(h - j) : VLANES;
  vreal sums[TILE_ROWS][TILE_VECTORS];
  for (int r = 0; r < rows; r++)
    for (int q = 0; q < GATES; q++)
      sums[r][q] =
          load_lanes(s->gates + ((row + r) * GATES + q) * h + j, lanes) + vload(s->bias + (block * GATES + q) * VLANES);
  add_products(rows, h, s->h_before + row * h, h, s->panels + block * h * TILE_WIDTH, sums);
  for (int r = 0; r < rows; r++) {
    real *gates = s->gates + (row + r) * GATES * h + j;
    long unit = (row + r) * h + j;
    vreal in = vgate(sums[r][0]), forget = vgate(sums[r][1]), fresh = vtanh(sums[r][2]), out = vgate(sums[r][3]);
    vreal c = forget * load_lanes(s->c_before + unit, lanes) + in * fresh;
    store_lanes(gates, in, lanes);
    store_lanes(gates + h, forget, lanes);
    store_lanes(gates + 2 * h, fresh, lanes);
    store_lanes(gates + 3 * h, out, lanes);
    store_lanes(s->c_after + unit, c, lanes);
    store_lanes(s->h_after + unit, out * vtanh(c), lanes);
  }
}

static void cell_step(const CellStep *s, long rows) {
  for (long block = 0; block < blocks_of(s->hidden, VLANES); block++) {
    long row = 0;
    for (; row + TILE_ROWS <= rows; row += TILE_ROWS) cell_tile(TILE_ROWS, s, row, block);
    for (; row + 2 <= rows; row += 2) cell_tile(2, s, row, block);
    for (; row < rows; row++) cell_tile(1, s, row, block);
  }
}

/* Sequences first .. first + rows - 1 through all steps. */
static void forward_rows(const LstmGeometry *g, const real *panels, const real *bias, long first, long rows,
                         real *gates, real *hidden, real *cells) {
  for (long s = 0; s < g->steps && !interrupted(); s++) {
    long t = step_at(g, s), from = at(g, before(g, t), first), to = at(g, after(g, t), first);
    CellStep step = {.hidden = g->hidden, .panels = panels, .bias = bias, .gates = gates + GATES * at(g, t, first)};
    step.h_before = hidden + from;
    step.c_before = cells + from;
    step.h_after = hidden + to;
    step.c_after = cells + to;
    cell_step(&step, rows);
    for (long n = first; n < first + rows; n++)
      if (has_ended(g, t, n)) {
        copy(hidden + at(g, after(g, t), n), hidden + at(g, before(g, t), n), g->hidden);
        copy(cells + at(g, after(g, t), n), cells + at(g, before(g, t), n), g->hidden);
      }
  }
}

static long panels_size(const LstmGeometry *g) {
  return blocks_of(g->hidden, VLANES) * g->hidden * TILE_WIDTH;
}

/* panels of w_hh, packed bias, bias */
long lstm_forward_scratch(const LstmGeometry *g) {
  return panels_size(g) + blocks_of(g->hidden, VLANES) * TILE_WIDTH + GATES * g->hidden;
}

void lstm_forward(const LstmGeometry *g, const real *x, const real *w_ih, const real *w_hh, const real *b_ih,
                  const real *b_hh, real *gates, real *hidden, real *cells, real *scratch) {
  long width = GATES * g->hidden, pieces = batch_pieces(g->n, work(g));
  real *packed_bias = scratch + panels_size(g), *bias = packed_bias + blocks_of(g->hidden, VLANES) * TILE_WIDTH;
  for (long j = 0; j < width; j++) bias[j] = (b_ih != NULL ? b_ih[j] : 0) + (b_hh != NULL ? b_hh[j] : 0);
  pack_gates(g->hidden, 1, bias, packed_bias);
  pack_gates(g->hidden, g->hidden, w_hh, scratch);
  product(g->steps * g->n, width, g->inputs, &(Matrix){x, g->inputs, 0}, &(Matrix){w_ih, g->inputs, 1}, gates);
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = piece_start(g->n, pieces, p);
    forward_rows(g, scratch, packed_bias, first, piece_start(g->n, pieces, p + 1) - first, gates, hidden, cells);
  }
}

void lstm_outputs(const LstmGeometry *g, const real *hidden, real *y) {
  for (long t = 0; t < g->steps; t++)
    for (long n = 0; n < g->n; n++)
      if (has_ended(g, t, n))
        clear(y + at(g, t, n), g->hidden);
      else
        copy(y + at(g, t, n), hidden + at(g, after(g, t), n), g->hidden);
}

/* ---- backward ---- */

/* One hidden unit and step: gates and what goes into them, (4,H) apart; dh, dc: (H) of the state after the step, dc
   then of the state before. */
static void cell_backward(long h, const real *restrict gates, const real *restrict c_before,
                          const real *restrict c_after, const real *restrict dy, const real *restrict dh,
                          real *restrict dc, real *restrict dgates) {
  for (long j = 0; j < h; j += VLANES) {
    int lanes = h - j < VLANES ? (int)(h - j) : VLANES;
    vreal in = load_lanes(gates + j, lanes), forget = load_lanes(gates + h + j, lanes);
    vreal fresh = load_lanes(gates + 2 * h + j, lanes), out = load_lanes(gates + 3 * h + j, lanes);
    vreal squashed = vtanh(load_lanes(c_after + j, lanes));
    vreal up = load_lanes(dy + j, lanes) + load_lanes(dh + j, lanes);
    vreal cell = load_lanes(dc + j, lanes) + up * out * (1 - squashed * squashed);
    store_lanes(dgates + j, cell * fresh * in * (1 - in), lanes);
    store_lanes(dgates + h + j, cell * load_lanes(c_before + j, lanes) * forget * (1 - forget), lanes);
    store_lanes(dgates + 2 * h + j, cell * in * (1 - fresh * fresh), lanes);
    store_lanes(dgates + 3 * h + j, up * squashed * out * (1 - out), lanes);
    store_lanes(dc + j, cell * forget, lanes);
  }
}

/* kept: (N,H), where the gradients of ended sequences wait while the others go through a step */
static void backward_rows(const LstmGeometry *g, const real *panels, long first, long rows, const real *dy,
                          const real *gates, const real *cells, real *dgates, real *dh, real *dc, real *kept) {
  long h = g->hidden;
  for (long s = g->steps - 1; s >= 0 && !interrupted(); s--) {
    long t = step_at(g, s);
    for (long n = first; n < first + rows; n++) {
      real *changes = dgates + GATES * at(g, t, n);
      if (has_ended(g, t, n)) {
        clear(changes, GATES * h);
        copy(kept + n * h, dh + n * h, h);
      } else {
        cell_backward(h, gates + GATES * at(g, t, n), cells + at(g, before(g, t), n), cells + at(g, after(g, t), n),
                      dy + at(g, t, n), dh + n * h, dc + n * h, changes);
      }
    }
    multiply_panels(rows, h, GATES * h, dgates + GATES * at(g, t, first), panels, dh + first * h);
    for (long n = first; n < first + rows; n++)
      if (has_ended(g, t, n)) copy(dh + n * h, kept + n * h, h);
  }
}

static long state_panels_size(const LstmGeometry *g) {
  return blocks_of(g->hidden, TILE_WIDTH) * TILE_WIDTH * GATES * g->hidden;
}

/* panels of w_hh, kept gradients */
long lstm_backward_scratch(const LstmGeometry *g) {
  return state_panels_size(g) + g->n * g->hidden;
}

void lstm_backward(const LstmGeometry *g, const real *dy, const real *w_hh, const real *gates, const real *cells,
                   real *dgates, real *dh, real *dc, real *scratch) {
  long pieces = batch_pieces(g->n, work(g));
  real *kept = scratch + state_panels_size(g);
  pack_panels(GATES * g->hidden, g->hidden, w_hh, scratch);
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = piece_start(g->n, pieces, p), rows = piece_start(g->n, pieces, p + 1) - first;
    backward_rows(g, scratch, first, rows, dy, gates, cells, dgates, dh, dc, kept);
  }
}
