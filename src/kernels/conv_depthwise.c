/*
** conv_depthwise.c -- convolution of each channel with a filter of its own, as gathers (conv_gather.h).
** Vectors lie across channels. With a stride of 1 a row of pixels is one line of numbers that are all treated alike but for
** their weights, which return with the channels: so the line is cut into vectors regardless of pixels, and vectors that are
** whole periods apart share their weights. 8 channels fill vectors of 16 lanes that way.
*/
#include <string.h>

#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "conv_gather.h"
#include "conv_methods.h"

enum {
  TILE_MOST = 16 << 10,
  TILE_ROWS = 8,
  TILE_PIXELS = 4096,
  TILES_A_THREAD = 4,
  PERIOD_MOST = 4096,
  PARTS_MOST = 16
};
enum { POINTS_MOST = 6, TAPS_MOST = 9 };
#define INLINE static inline __attribute__((always_inline))

/* Vectors of a row that have the same weights: from number 'at' on, 'points' of them, some lanes or all of each. */
typedef struct Piece {
  long at, weight, lanes, points;
} Piece;

typedef struct Work {
  Gather g;
  Tiling tiling;
  long taps, parts;       /* parts of the tiles, for sums */
  long period;            /* of the weights */
  long in_step, out_step; /* from one of a piece's vectors to the next */
  long piece_count;
  /* positions among what is packed; offsets of taps, and of a tile's rows that are read and written, are longs */
  long weights, starts, pieces, tap_at, row_in, row_out, packed_size;
  long sums, buffers, scratch_size; /* in the scratch */
} Work;

static long least(long a, long b) {
  return a < b ? a : b;
}

/* ---- how a row is cut ---- */

/* The least common multiple of the channels and a vector's lanes. */
static long common_period(long channels) {
  long period = channels;
  while (period % VLANES != 0) period += channels;
  return period;
}

/* Pieces of whole vectors up to 'whole', then those of the line's rest by powers of two; NULL: only counts them. */
static long cut(const Work *k, long whole, long length, bool line, Piece *pieces) {
  long count = 0, at = 0, pixels = k->g.x.count;
  for (; at + VLANES <= whole; at += VLANES, count++)
    if (pieces != NULL) pieces[count] = (Piece){at, at, VLANES, line ? (length - at - VLANES) / k->period + 1 : pixels};
  at = length / VLANES * VLANES;
  for (long lanes = VLANES / 2; lanes > 0; lanes /= 2)
    if ((length - at) & lanes) {
      if (pieces != NULL) pieces[count] = (Piece){at, at % k->period, lanes, line ? 1 : pixels};
      at += lanes;
      count++;
    }
  return count;
}

/* Rows as lines where that is possible and pays, else as pixels. */
static long cut_rows(Work *k, Piece *pieces) {
  long channels = k->g.in_c, length = k->g.x.count * channels, period = common_period(channels);
  bool line = k->g.x.in_step == 1 && k->g.x.step == 1 && period <= length && period <= PERIOD_MOST;
  k->period = line ? period : channels;
  k->in_step = line ? period : k->g.x.in_step * channels;
  k->out_step = line ? period : k->g.x.step * channels;
  return cut(k, k->period, line ? length : channels, line, pieces);
}

/* ---- what a gather needs ---- */

static long tile_most(const Gather *g) {
  long rows = TILE_ROWS * g->x.size * g->in_c;
  return rows > TILE_MOST ? rows : TILE_MOST;
}

static Work work_for(const Gather *g, bool sums) {
  Work k = {.g = *g, .taps = g->y.taps * g->x.taps};
  k.tiling = gather_tiling(g, tile_most(g), TILE_PIXELS, sums ? PARTS_MOST : TILES_A_THREAD * omp_get_max_threads());
  Tiling largest = gather_largest_tiling(g, tile_most(g), TILE_PIXELS);
  k.parts = sums ? least(PARTS_MOST, k.tiling.count) : 0;
  k.piece_count = cut_rows(&k, NULL);
  k.weights = gather_reserve(&k.packed_size, k.taps * k.period);
  k.starts = gather_reserve(&k.packed_size, k.period);
  k.pieces = gather_reserve_longs(&k.packed_size, k.piece_count * (long)(sizeof(Piece) / sizeof(long)));
  k.tap_at = gather_reserve_longs(&k.packed_size, k.taps);
  k.row_in = gather_reserve_longs(&k.packed_size, largest.images * largest.rows);
  k.row_out = gather_reserve_longs(&k.packed_size, largest.images * largest.rows);
  k.sums = gather_reserve(&k.scratch_size, k.parts * k.taps * k.period);
  k.buffers = gather_reserve(&k.scratch_size, omp_get_max_threads() * k.tiling.buffer);
  return k;
}

static void fill_tables(const Work *k, real *packed) {
  const Gather *g = &k->g;
  Tiling largest = gather_largest_tiling(g, tile_most(g), TILE_PIXELS);
  Work cutting = *k;
  long *in = gather_longs(packed, k->row_in), *out = gather_longs(packed, k->row_out);
  cut_rows(&cutting, (Piece *)(packed + k->pieces));
  gather_tap_offsets(g, gather_longs(packed, k->tap_at));
  for (long n = 0; n < largest.images; n++)
    for (long row = 0; row < largest.rows; row++) {
      *in++ = (n * g->y.size + row * g->y.in_step) * g->x.size * g->in_c;
      *out++ = (n * g->y.out + row * g->y.step) * g->x.out * g->out_c;
    }
}

/* weights (taps,period), starts (period) */
static void pack_weights(const Work *k, const real *w, const real *bias, real *packed) {
  const Gather *g = &k->g;
  for (long i = 0; i < k->period; i++) packed[k->starts + i] = bias != NULL ? bias[i % g->out_c] : 0;
  for (long t = 0; t < k->taps; t++) {
    long row = g->y.tap + t / g->x.taps * g->y.tap_step, column = g->x.tap + t % g->x.taps * g->x.tap_step;
    real *to = packed + k->weights + t * k->period;
    for (long i = 0; i < k->period; i++) to[i] = w[i % g->in_c * g->weight_group + row * g->kw + column];
  }
}

static void pack(const Work *k, const real *w, const real *bias, real *packed) {
#pragma omp single
  {
    fill_tables(k, packed);
    pack_weights(k, w, bias, packed);
  }
}

/* ---- forward and the input's gradient ---- */

typedef struct Row {
  const Work *work;
  const real *x;
  real *y;
  const real *packed;
} Row;

/* y = start + the sum over taps of x w, for 'points' vectors of 'lanes' lanes from number 'at' of the row on */
INLINE void sum_points(const Row *r, const Piece *piece, long at, long out, const int points, const int lanes) {
  const Work *k = r->work;
  const long *tap_at = gather_table(r->packed, k->tap_at);
  const real *w = r->packed + k->weights + piece->weight;
  vreal sum[POINTS_MOST], start = vload_part(r->packed + k->starts + piece->weight, lanes);
#pragma GCC unroll 6
  for (int p = 0; p < points; p++) sum[p] = start;
  for (long t = 0; t < k->taps; t++, w += k->period) {
    const real *x = r->x + tap_at[t] + at;
    vreal weight = vload_part(w, lanes);
#pragma GCC unroll 6
    for (int p = 0; p < points; p++) sum[p] += vload_part(x + p * k->in_step, lanes) * weight;
  }
#pragma GCC unroll 6
  for (int p = 0; p < points; p++) vstore_part(r->y + out + p * k->out_step, sum[p], lanes);
}

INLINE void sum_piece(const Row *r, const Piece *piece, const int lanes) {
  long in_step = r->work->in_step, out_step = r->work->out_step, at = piece->at, out = at, left = piece->points;
  for (; left >= 6; left -= 6, at += 6 * in_step, out += 6 * out_step) sum_points(r, piece, at, out, 6, lanes);
  for (; left >= 3; left -= 3, at += 3 * in_step, out += 3 * out_step) sum_points(r, piece, at, out, 3, lanes);
  for (; left > 0; left--, at += in_step, out += out_step) sum_points(r, piece, at, out, 1, lanes);
}

static void sum_row(const Row *r) {
  const Piece *piece = (const Piece *)(r->packed + r->work->pieces), *end = piece + r->work->piece_count;
  for (; piece < end; piece++) switch (VLANES / piece->lanes) {
    case 1:
      sum_piece(r, piece, VLANES);
      break;
    case 2:
      sum_piece(r, piece, VLANES / 2);
      break;
    case 4:
      sum_piece(r, piece, VLANES / 4);
      break;
    case 8:
      sum_piece(r, piece, VLANES / 8);
      break;
    default:
      sum_piece(r, piece, 1);
    }
}

static void run_tile(const Work *k, const Tile *tile, const real *x, const real *packed, real *y) {
  const long *in = gather_table(packed, k->row_in), *out = gather_table(packed, k->row_out);
  for (long i = 0; i < tile->images * tile->rows; i++) {
    Row row = {k, x + in[i], y + out[i], packed};
    sum_row(&row);
  }
}

static void run(const Work *k, const real *x, const real *packed, const Tail *tail, real *y, real *scratch) {
  real *buffer = scratch + k->buffers + omp_get_thread_num() * k->tiling.buffer;
#pragma omp for schedule(dynamic)
  for (long i = 0; i < k->tiling.count; i++) {
    if (interrupted()) continue;
    Tile tile = gather_tile(&k->g, &k->tiling, i);
    real *to = gather_output(&k->g, &tile, y);
    run_tile(k, &tile, gather_input(&k->g, &tile, x, buffer), packed, to);
    tail_apply(tail, y, to - y, tile.pixels * k->g.out_c);
  }
}

/* ---- the weights' gradient ---- */

typedef struct Rows {
  const Work *work;
  const real *x, *dy;
  long count;
  const real *packed;
} Rows;

/* sums (taps,period) of a piece: adds dy x over all rows of a tile, for 'count' taps at a time in registers */
INLINE void add_taps(const Rows *r, const Piece *piece, long first, const int count, const int lanes, real *sums) {
  const Work *k = r->work;
  const long *tap_at = gather_table(r->packed, k->tap_at) + first;
  vreal sum[TAPS_MOST];
#pragma GCC unroll 9
  for (int t = 0; t < count; t++) sum[t] = (vreal){0};
  for (long row = 0; row < r->count; row++) {
    const real *dy = r->dy + gather_table(r->packed, k->row_out)[row] + piece->at, *x[TAPS_MOST];
#pragma GCC unroll 9
    for (int t = 0; t < count; t++) x[t] = r->x + gather_table(r->packed, k->row_in)[row] + piece->at + tap_at[t];
    long at = 0;
    for (long left = piece->points; left > 0; left--, at += k->in_step, dy += k->out_step) {
      vreal slope = vload_part(dy, lanes);
#pragma GCC unroll 9
      for (int t = 0; t < count; t++) sum[t] += slope * vload_part(x[t] + at, lanes);
    }
  }
#pragma GCC unroll 9
  for (int t = 0; t < count; t++) {
    real *to = sums + (first + t) * k->period + piece->weight;
    vstore_part(to, vload_part(to, lanes) + sum[t], lanes);
  }
}

INLINE void add_piece(const Rows *r, const Piece *piece, const int lanes, real *sums) {
  long t = 0, taps = r->work->taps;
  for (; t + 9 <= taps; t += 9) add_taps(r, piece, t, 9, lanes, sums);
  for (; t + 5 <= taps; t += 5) add_taps(r, piece, t, 5, lanes, sums);
  for (; t < taps; t++) add_taps(r, piece, t, 1, lanes, sums);
}

static void add_tile(const Rows *r, real *sums) {
  const Piece *piece = (const Piece *)(r->packed + r->work->pieces), *end = piece + r->work->piece_count;
  for (; piece < end; piece++) switch (VLANES / piece->lanes) {
    case 1:
      add_piece(r, piece, VLANES, sums);
      break;
    case 2:
      add_piece(r, piece, VLANES / 2, sums);
      break;
    case 4:
      add_piece(r, piece, VLANES / 4, sums);
      break;
    case 8:
      add_piece(r, piece, VLANES / 8, sums);
      break;
    default:
      add_piece(r, piece, 1, sums);
    }
}

static void sum_part(const Work *k, long part, const real *dy, const real *x, const real *packed, real *scratch) {
  long size = k->taps * k->period, end = piece_start(k->tiling.count, k->parts, part + 1);
  real *sums = scratch + k->sums + part * size,
       *buffer = scratch + k->buffers + omp_get_thread_num() * k->tiling.buffer;
  memset(sums, 0, (size_t)size * sizeof *sums);
  for (long i = piece_start(k->tiling.count, k->parts, part); i < end && !interrupted(); i++) {
    Tile tile = gather_tile(&k->g, &k->tiling, i);
    Rows rows = {k, gather_input(&k->g, &tile, x, buffer), gather_output(&k->g, &tile, (real *)dy),
                 tile.images * tile.rows, packed};
    add_tile(&rows, sums);
  }
}

/* dw (C,1,KH,KW) = sums (parts,taps,period), added over parts and over the repetitions of the channels in a period */
static void fold(const Work *k, const real *sums, real *dw) {
  for (long c = 0; c < k->g.in_c; c++)
    for (long t = 0; t < k->taps; t++) {
      real sum = 0;
      for (long part = 0; part < k->parts; part++)
        for (long i = c; i < k->period; i += k->g.in_c) sum += sums[(part * k->taps + t) * k->period + i];
      dw[c * k->taps + t] = sum;
    }
}

/* ---- conv_methods.h ---- */

static Work forward_work(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  return work_for(&g, false);
}

static long depthwise_packed_size(const ConvGeometry *g) {
  return forward_work(g).packed_size;
}
static long depthwise_run_scratch(const ConvGeometry *g) {
  return forward_work(g).scratch_size;
}
static void depthwise_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed) {
  Work k = forward_work(g);
  pack(&k, w, bias, packed);
}
static void depthwise_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y,
                          real *scratch) {
  Work k = forward_work(g);
  run(&k, x, packed, tail, y, scratch);
}

const ConvMethod conv_depthwise = {depthwise_packed_size, depthwise_run_scratch, depthwise_pack, depthwise_run};

long depthwise_backward_input_scratch(const ConvGeometry *geometry) {
  long most = 0;
  for (long phase = 0; phase < gather_phases(geometry); phase++) {
    Gather g = gather_backward(geometry, phase);
    Work k = work_for(&g, false);
    if (k.packed_size + k.scratch_size > most) most = k.packed_size + k.scratch_size;
  }
  return most;
}

void depthwise_backward_input(const ConvGeometry *geometry, const real *dy, const real *w, real *dx, real *scratch) {
  for (long phase = 0; phase < gather_phases(geometry); phase++) {
    Gather g = gather_backward(geometry, phase);
    Work k = work_for(&g, false);
#pragma omp parallel if (conv_is_large(geometry))
    {
      pack(&k, w, NULL, scratch);
      run(&k, dy, scratch, NULL, dx, scratch + k.packed_size);
    }
  }
}

long depthwise_backward_weight_scratch(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  Work k = work_for(&g, true);
  return k.packed_size + k.scratch_size;
}

void depthwise_backward_weight(const ConvGeometry *geometry, const real *dy, const real *x, real *dw, real *scratch) {
  Gather g = gather_forward(geometry);
  Work k = work_for(&g, true);
  real *rest = scratch + k.packed_size;
  fill_tables(&k, scratch);
#pragma omp parallel for schedule(dynamic) if (conv_is_large(geometry))
  for (long part = 0; part < k.parts; part++) sum_part(&k, part, dy, x, scratch, rest);
  fold(&k, rest + k.sums, dw);
}
