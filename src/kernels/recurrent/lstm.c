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

/* ---- a step ---- */

/* panels (blocks,H,4,VLANES): vector q of a panel belongs to gate q, so a tile has all that its hidden units need;
   w (4H,columns) with 'columns' H, or 1 for a bias */
static void pack_gates(long hidden, long columns, const real *w, real *panels) {
  for (long first = 0; first < hidden; first += VLANES)
    for (long k = 0; k < columns; k++)
      for (long q = 0; q < GATES; q++)
        for (long j = first; j < first + VLANES; j++) *panels++ = j < hidden ? w[(q * hidden + j) * columns + k] : 0;
}

/* One step of the sequences that the pointers begin with; from one to the next are so many elements. */
typedef struct CellStep {
  long hidden, gates_step, h_step;
  const real *panels, *bias;       /* bias: (blocks,4,VLANES), or NULL */
  const real *h_before, *c_before; /* h_before NULL: both are zero */
  real *gates, *h_after, *c_after; /* c (N,H) */
} CellStep;

#define INLINE static inline __attribute__((always_inline))

/* What goes into the gates of a tile. */
INLINE void cell_inputs(const int rows, const CellStep *s, long row, long block, int lanes,
                        vreal sums[TILE_ROWS][TILE_VECTORS]) {
  long h = s->hidden, j = block * VLANES;
  for (int r = 0; r < rows; r++)
    for (int q = 0; q < GATES; q++) {
      sums[r][q] = load_lanes(s->gates + (row + r) * s->gates_step + q * h + j, lanes);
      if (s->bias != NULL) sums[r][q] += vload(s->bias + (block * GATES + q) * VLANES);
    }
  if (s->h_before != NULL)
    add_products(rows, h, s->h_before + row * s->h_step, s->h_step, s->panels + block * h * TILE_WIDTH, sums);
}

/* The states of one sequence after the step, and the gates in their inputs' place, which backward wants. */
INLINE void finish_kept(const CellStep *s, const vreal in[TILE_VECTORS], long row, long j, int lanes) {
  long h = s->hidden, unit = row * h + j;
  real *gates = s->gates + row * s->gates_step + j;
  vreal enter = vgate(in[0]), forget = vgate(in[1]), fresh = vtanh(in[2]), out = vgate(in[3]);
  vreal c = forget * load_lanes(s->c_before + unit, lanes) + enter * fresh;
  store_lanes(gates, enter, lanes);
  store_lanes(gates + h, forget, lanes);
  store_lanes(gates + 2 * h, fresh, lanes);
  store_lanes(gates + 3 * h, out, lanes);
  store_lanes(s->c_after + unit, c, lanes);
  store_lanes(s->h_after + row * s->h_step + j, out * vtanh(c), lanes);
}

/* What the gate of x lets through of y, by one division. */
static inline vreal gated(vreal x, vratio y) {
  vratio gate = vtanh_ratio((real)0.5 * x);
  return (real)0.5 * ((gate.below + gate.above) * y.above) / (gate.below * y.below);
}

/* The states alone, with fewer divisions. */
INLINE void finish(const CellStep *s, const vreal in[TILE_VECTORS], long row, long j, int lanes) {
  long unit = row * s->hidden + j;
  vreal c = gated(in[0], vtanh_ratio(in[2]));
  if (s->h_before != NULL) c += vgate(in[1]) * load_lanes(s->c_before + unit, lanes);
  store_lanes(s->c_after + unit, c, lanes);
  store_lanes(s->h_after + row * s->h_step + j, gated(in[3], vtanh_ratio(c)), lanes);
}

INLINE void cell_tile(const int rows, const bool kept, const CellStep *s, long row, long block) {
  long j = block * VLANES;
  int lanes = s->hidden - j < VLANES ? (int)(s->hidden - j) : VLANES;
  vreal sums[TILE_ROWS][TILE_VECTORS];
  cell_inputs(rows, s, row, block, lanes, sums);
  for (int r = 0; r < rows; r++) (kept ? finish_kept : finish)(s, sums[r], row + r, j, lanes);
}

INLINE void cell_block(const bool kept, const CellStep *s, long rows, long block) {
  long row = 0;
  for (; row + TILE_ROWS <= rows; row += TILE_ROWS) cell_tile(TILE_ROWS, kept, s, row, block);
  for (; row + 2 <= rows; row += 2) cell_tile(2, kept, s, row, block);
  for (; row < rows; row++) cell_tile(1, kept, s, row, block);
}

/* ---- forward ---- */

/* Sequences first .. first + rows - 1 through all steps. */
static void forward_rows(const LstmGeometry *g, const real *panels, const real *bias, long first, long rows,
                         real *gates, real *hidden, real *cells) {
  for (long s = 0; s < g->steps && !interrupted(); s++) {
    long t = step_at(g, s), from = at(g, before(g, t), first), to = at(g, after(g, t), first);
    CellStep step = {.hidden = g->hidden, .gates_step = GATES * g->hidden, .h_step = g->hidden, .panels = panels};
    step.bias = bias;
    step.gates = gates + GATES * at(g, t, first);
    step.h_before = hidden + from;
    step.c_before = cells + from;
    step.h_after = hidden + to;
    step.c_after = cells + to;
    for (long block = 0; block < blocks_of(g->hidden, VLANES); block++) cell_block(true, &step, rows, block);
    for (long n = first; n < first + rows; n++)
      if (has_ended(g, t, n)) {
        copy(hidden + at(g, after(g, t), n), hidden + at(g, before(g, t), n), g->hidden);
        copy(cells + at(g, after(g, t), n), cells + at(g, before(g, t), n), g->hidden);
      }
  }
}

/* panels of w_hh, packed bias, bias */
long lstm_forward_scratch(const LstmGeometry *g) {
  return lstm_packed_size(g->hidden) + blocks_of(g->hidden, VLANES) * TILE_WIDTH + GATES * g->hidden;
}

void lstm_forward(const LstmGeometry *g, const real *x, const real *w_ih, const real *w_hh, const real *b_ih,
                  const real *b_hh, real *gates, real *hidden, real *cells, real *scratch) {
  long width = GATES * g->hidden, pieces = batch_pieces(g->n, work(g));
  real *packed_bias = scratch + lstm_packed_size(g->hidden),
       *bias = packed_bias + blocks_of(g->hidden, VLANES) * TILE_WIDTH;
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

/* ---- forward alone, with packed weights ---- */

long lstm_packed_size(long hidden) {
  return blocks_of(hidden, VLANES) * hidden * TILE_WIDTH;
}

void lstm_pack(long hidden, const real *w_hh, real *packed) {
  pack_gates(hidden, hidden, w_hh, packed);
}

void lstm_run(const LstmRun *g, long n, const real *gates, const real *packed, real *y, real *cells) {
  long width = GATES * g->hidden;
  CellStep step = {.hidden = g->hidden, .gates_step = g->steps * width, .h_step = g->steps * g->width};
  step.panels = packed;
  step.c_before = step.c_after = cells;
  for (long i = 0; i < g->steps; i++) {
    long t = g->reverse ? g->steps - 1 - i : i;
    step.gates = (real *)gates + t * width; /* only read, since they are not kept */
    step.h_after = y + t * g->width + g->at;
    step.h_before = i == 0 ? NULL : g->reverse ? step.h_after + g->width : step.h_after - g->width;
#pragma omp for schedule(static)
    for (long block = 0; block < blocks_of(g->hidden, VLANES); block++) cell_block(false, &step, n, block);
  }
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
