/*
** pool.c -- see pool.h. Both directions gather: an element of the result comes from a few elements of the operand, so that
** each is written once, by any thread. Forward these are the cells of its window; backward the windows over its pixel.
**
** Vectors lie across the channels. Where neighbouring pixels gather alike, one channel row further (a stride of 1, away from
** the edges), they make one run of elements. A vector may reach beyond its run: what it reads there is not used, and what it
** writes there is written again by the next run; only the last of a row stops where the row does.
*/
#include "pool.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../../base/parallel.h"
#include "../../base/simd.h"

#define INLINE static inline __attribute__((always_inline))

static long least(long a, long b) {
  return a < b ? a : b;
}

/* ---- which elements an element comes from ---- */

/* 'count' places from 'from' on, neighbours; 'cell' is the position in the window of the first of them, which for windows
   over a pixel falls by a stride from one to the next. */
typedef struct Span {
  long at, length; /* elements of the result's row that gather alike */
  long from, count, cell;
} Span;

/* The cells of window 'o' that lie inside. */
static Span cells_of(const PoolAxis *a, long o) {
  long start = o * a->stride - a->pad, first = start < 0 ? 0 : start;
  return (Span){o, 1, first, least(start + a->kernel, a->in) - first, first - start};
}

/* The windows that pixel 'p' lies in. */
static Span windows_over(const PoolAxis *a, long p) {
  long reach = p + a->pad, behind = reach - a->kernel;
  long first = behind < 0 ? 0 : behind / a->stride + 1, last = least(reach / a->stride, a->out - 1);
  return (Span){p, 1, first, last < first ? 0 : last - first + 1, reach - first * a->stride};
}

/* What a mean divides by, of one direction. */
static long extent_of(const PoolGeometry *g, const PoolAxis *a, long o) {
  long start = o * a->stride - a->pad;
  return g->count_padding ? least(start + a->kernel, a->in + a->pad) - start : cells_of(a, o).count;
}

/* A row of the result, whatever its image. Packed: a span whose 'count' says how many follow, those, and the shares. */
typedef struct Row {
  const PoolGeometry *g;
  bool backward;
  long from_length, to_length; /* elements of a row of the operand and of the result */
  Span *columns, *end;
  real *share_y, *share_x; /* 1 / extent of the windows */
} Row;

/* True when the pixel goes on the run: it gathers one pixel further, from windows as wide. */
static bool joins(const Row *k, const Span *run, const Span *pixel) {
  if (k->g->x.stride > 1 || pixel->count != run->count || pixel->cell != run->cell) return false;
  for (long i = 0; k->backward && i < run->count; i++)
    if (k->share_x[run->from + i] != k->share_x[pixel->from + i]) return false;
  return true;
}

static long reals_for(long bytes) {
  return (bytes + (long)sizeof(real) - 1) / (long)sizeof(real);
}

static long spans_size(const PoolGeometry *g) {
  long columns = g->x.in > g->x.out ? g->x.in : g->x.out;
  return reals_for((columns + 1) * (long)sizeof(Span));
}

long pool_packed_size(const PoolGeometry *g) {
  return spans_size(g) + g->y.out + g->x.out;
}

static Row row_in(const PoolGeometry *g, bool backward, const real *packed) {
  long columns = backward ? g->x.in : g->x.out, from = backward ? g->x.out : g->x.in;
  Span *spans = (Span *)packed;
  Row k = {g, backward, from * g->c, columns * g->c, .columns = spans + 1, .end = spans + 1 + spans->count};
  k.share_y = (real *)packed + spans_size(g);
  k.share_x = k.share_y + g->y.out;
  return k;
}

static void pack_row(const PoolGeometry *g, bool backward, real *packed) {
  Span *spans = (Span *)packed, run = {0};
  spans->count = 0;
  Row k = row_in(g, backward, packed);
  for (long o = 0; o < g->y.out; o++) k.share_y[o] = 1 / (real)extent_of(g, &g->y, o);
  for (long o = 0; o < g->x.out; o++) k.share_x[o] = 1 / (real)extent_of(g, &g->x, o);
  for (long i = 0; i < (backward ? g->x.in : g->x.out); i++) {
    Span pixel = backward ? windows_over(&g->x, i) : cells_of(&g->x, i);
    if (i > 0 && joins(&k, &run, &pixel))
      k.end[-1].length += g->c;
    else
      *k.end++ = (Span){i * g->c, g->c, pixel.from * g->c, pixel.count, pixel.cell};
    run = pixel;
  }
  spans->count = k.end - k.columns;
}

void pool_pack(const PoolGeometry *g, real *packed) {
  pack_row(g, false, packed);
}

/* ---- vectors ---- */

typedef enum Positions { POSITIONS_NONE, POSITIONS_BYTES, POSITIONS_INTS } Positions;

/* Writes a vector, or as much of it as is left of the row. */
INLINE void put(real *y, vreal v, long left) {
  if (left >= VLANES)
    vstore(y, v);
  else
    vstore_part(y, v, (int)left);
}

INLINE void put_positions(void *to, long i, vwhole position, long left, const Positions kind) {
  int lanes = left < VLANES ? (int)left : VLANES;
  if (kind == POSITIONS_BYTES && lanes == VLANES)
    vstore_bytes((uint8_t *)to + i, position);
  else if (kind == POSITIONS_BYTES)
    for (int j = 0; j < lanes; j++) ((uint8_t *)to)[i + j] = (uint8_t)position[j];
  else if (kind == POSITIONS_INTS)
    for (int j = 0; j < lanes; j++) ((int32_t *)to)[i + j] = (int32_t)position[j];
}

INLINE vwhole get_positions(const void *from, long i, const Positions kind) {
  if (kind == POSITIONS_BYTES) return vload_bytes((const uint8_t *)from + i);
  vwhole position = {0};
  for (int j = 0; j < VLANES; j++) position[j] = ((const int32_t *)from)[i + j];
  return position;
}

/* ---- forward ---- */

/* A run of the result's elements, in one of the rows of all images. */
typedef struct Run {
  const Row *of;
  Span y;                /* in rows */
  const Span *x;         /* in elements */
  long from_row, to_row; /* elements at which the first row it gathers from and its own begin */
} Run;

static Run first_run(const Row *k, long row) {
  const PoolGeometry *g = k->g;
  long to_rows = k->backward ? g->y.in : g->y.out, from_rows = k->backward ? g->y.out : g->y.in;
  Span y = k->backward ? windows_over(&g->y, row % to_rows) : cells_of(&g->y, row % to_rows);
  return (Run){k, y, k->columns, (row / to_rows * from_rows + y.from) * k->from_length, row * k->to_length};
}

INLINE void max_run(const Run *r, const long rows, const long taps, const real *x, real *y, void *at,
                    const Positions kind) {
  const PoolGeometry *g = r->of->g;
  long row_step = r->of->from_length, c = g->c, kw = g->x.kernel, corner = r->y.cell * kw + r->x->cell;
  long from = r->from_row + r->x->from, to = r->to_row + r->x->at, left = r->of->to_length - r->x->at;
  for (long i = 0; i < r->x->length; i += VLANES) {
    vreal best = vload(x + from + i);
    vwhole position = vset_whole(corner), nan = (vwhole)(best != best);
    for (long row = 0; row < rows; row++)
      for (long tap = row == 0; tap < taps; tap++) {
        vreal here = vload(x + from + row * row_step + tap * c + i);
        if (kind == POSITIONS_NONE) { /* the same with fewer operations */
          nan |= (vwhole)(here != here);
          best = vmax(here, best);
          continue;
        }
        vwhole better = (vwhole)(here > best) | (vwhole)(here != here);
        best = vselect((vmask)better, here, best);
        position = (better & vset_whole(corner + row * kw + tap)) | (~better & position);
      }
    put(y + to + i, kind == POSITIONS_NONE ? vselect((vmask)nan, vset(NAN), best) : best, left - i);
    put_positions(at, to + i, position, left - i, kind);
  }
}

INLINE void max_row(const Row *k, long row, const real *x, real *y, void *at, const Positions kind) {
  for (Run r = first_run(k, row); r.x < k->end; r.x++) {
    if (r.y.count == 2 && r.x->count == 2)
      max_run(&r, 2, 2, x, y, at, kind);
    else if (r.y.count == 3 && r.x->count == 3)
      max_run(&r, 3, 3, x, y, at, kind);
    else
      max_run(&r, r.y.count, r.x->count, x, y, at, kind);
  }
}

static void mean_run(const Run *r, const real *x, real *y) {
  const PoolGeometry *g = r->of->g;
  real share = r->of->share_y[r->y.at] * r->of->share_x[r->x->at / g->c];
  long from = r->from_row + r->x->from, to = r->to_row + r->x->at, left = r->of->to_length - r->x->at;
  for (long i = 0; i < r->x->length; i += VLANES) {
    vreal sum = {0};
    for (long row = 0; row < r->y.count; row++)
      for (long tap = 0; tap < r->x->count; tap++) sum += vload(x + from + (row * g->x.in + tap) * g->c + i);
    put(y + to + i, sum * share, left - i);
  }
}

static bool is_large(const PoolGeometry *g) {
  return g->n * g->y.in * g->x.in * g->c > PARALLEL_MIN;
}

static Positions kind_of(const PoolGeometry *g, const void *positions) {
  if (positions == NULL) return POSITIONS_NONE;
  return pool_has_bytes(g) ? POSITIONS_BYTES : POSITIONS_INTS;
}

void pool_max_run(const PoolGeometry *g, const real *packed, const real *x, real *y, void *positions) {
  const Row k = row_in(g, false, packed);
  Positions kind = kind_of(g, positions);
#pragma omp for
  for (long row = 0; row < g->n * g->y.out; row++) {
    if (kind == POSITIONS_NONE)
      max_row(&k, row, x, y, NULL, POSITIONS_NONE);
    else if (kind == POSITIONS_BYTES)
      max_row(&k, row, x, y, positions, POSITIONS_BYTES);
    else
      max_row(&k, row, x, y, positions, POSITIONS_INTS);
  }
}

void pool_mean_run(const PoolGeometry *g, const real *packed, const real *x, real *y) {
  const Row k = row_in(g, false, packed);
#pragma omp for
  for (long row = 0; row < g->n * g->y.out; row++)
    for (Run r = first_run(&k, row); r.x < k.end; r.x++) mean_run(&r, x, y);
}

void pool_max(const PoolGeometry *g, const real *x, real *y, void *positions, real *scratch) {
  pool_pack(g, scratch);
#pragma omp parallel if (is_large(g))
  pool_max_run(g, scratch, x, y, positions);
}

void pool_mean(const PoolGeometry *g, const real *x, real *y, real *scratch) {
  pool_pack(g, scratch);
#pragma omp parallel if (is_large(g))
  pool_mean_run(g, scratch, x, y);
}

/* ---- whole images ---- */

enum { CHANNEL_BLOCK = 64 };

void pool_global_mean_run(long n, long pixels, long c, const real *x, real *y) {
  long blocks = (c + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK;
#pragma omp for collapse(2)
  for (long i = 0; i < n; i++)
    for (long b = 0; b < blocks; b++) {
      long first = b * CHANNEL_BLOCK, width = least(c - first, CHANNEL_BLOCK);
      double sum[CHANNEL_BLOCK] = {0};
      for (long p = 0; p < pixels; p++)
        for (long j = 0; j < width; j++) sum[j] += x[(i * pixels + p) * c + first + j];
      for (long j = 0; j < width; j++) y[i * c + first + j] = (real)(sum[j] / (double)pixels);
    }
}

/* ---- backward ---- */

/* dx = the sum over 'rows' x 'columns' windows of dy, where the largest was this cell or, for a mean, in shares. */
INLINE void spread_run(const Run *r, const long rows, const long columns, const real *dy, const void *at, real *dx,
                       const Positions kind) {
  const Row *k = r->of;
  const PoolGeometry *g = k->g;
  long row_step = k->from_length, c = g->c, to = r->to_row + r->x->at, left = k->to_length - r->x->at;
  long corner = r->y.cell * g->x.kernel + r->x->cell, row_cells = g->y.stride * g->x.kernel, stride = g->x.stride;
  const real *share_y = k->share_y + r->y.from, *share_x = k->share_x + r->x->from / c;
  for (long i = 0; i < r->x->length; i += VLANES) {
    vreal sum = {0};
    for (long row = 0; row < rows; row++)
      for (long column = 0; column < columns; column++) {
        long from = r->from_row + r->x->from + row * row_step + column * c + i;
        vreal d = vload(dy + from);
        if (kind == POSITIONS_NONE)
          sum += d * (share_y[row] * share_x[column]);
        else
          sum += vselect(get_positions(at, from, kind) == vset_whole(corner - row * row_cells - column * stride), d,
                         (vreal){0});
      }
    put(dx + to + i, sum, left - i);
  }
}

INLINE void spread_row(const Row *k, long row, const real *dy, const void *at, real *dx, const Positions kind) {
  for (Run r = first_run(k, row); r.x < k->end; r.x++) {
    if (r.y.count == 1 && r.x->count == 1)
      spread_run(&r, 1, 1, dy, at, dx, kind);
    else if (r.y.count == 1 && r.x->count == 2)
      spread_run(&r, 1, 2, dy, at, dx, kind);
    else if (r.y.count == 2 && r.x->count == 1)
      spread_run(&r, 2, 1, dy, at, dx, kind);
    else if (r.y.count == 2 && r.x->count == 2)
      spread_run(&r, 2, 2, dy, at, dx, kind);
    else
      spread_run(&r, r.y.count, r.x->count, dy, at, dx, kind);
  }
}

void pool_backward(const PoolGeometry *g, const real *dy, const void *positions, real *dx, real *scratch) {
  pack_row(g, true, scratch);
  const Row k = row_in(g, true, scratch);
  Positions kind = kind_of(g, positions);
#pragma omp parallel for if (is_large(g))
  for (long row = 0; row < g->n * g->y.in; row++) {
    if (kind == POSITIONS_NONE)
      spread_row(&k, row, dy, NULL, dx, POSITIONS_NONE);
    else if (kind == POSITIONS_BYTES)
      spread_row(&k, row, dy, positions, dx, POSITIONS_BYTES);
    else
      spread_row(&k, row, dy, positions, dx, POSITIONS_INTS);
  }
}
