/*
** conv_depthwise.c -- convolution of each channel with a filter of its own, as gathers (conv_gather.h).
** Vectors lie across channels. With a stride of 1 a row of pixels is one line of elements that are all treated alike but for
** their weights, which return with the channels: so the line is cut into vectors regardless of pixels, and vectors that are
** whole periods apart share their weights. 8 channels fill vectors of 16 lanes that way.
** What binds is reading the input. So a kernel of 3x3 makes a band of up to three rows at once: 15 vectors of the input serve
** 27 multiply-adds, where row by row each of these reads one of its own.
*/
#include <string.h>

#include "../../base/interrupt.h"
#include "../../base/parallel.h"
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
enum { POINTS_MOST = 6, TAPS_MOST = 9, BAND_MOST = 3, BAND_SIDE = 3 };
#define INLINE static inline __attribute__((always_inline))

/* Vectors of a row that have the same weights: from number 'at' on, 'points' of them, some lanes or all of each. */
typedef struct Piece {
  long at, weight, lanes, points;
} Piece;

typedef struct Work {
  Gather g;
  Tiling tiling;
  long most; /* elements of input in a tile */
  long taps;
  bool banded;            /* rows are made in bands */
  long period;            /* of the weights */
  long in_step, out_step; /* from one of a piece's vectors to the next */
  long piece_count;
  /* positions among what is packed; offsets of taps, and of a tile's rows that are read and written, are longs */
  long weights, starts, pieces, tap_at, row_in, row_out, packed_size;
  long packed; /* where that lies in the scratch of the input's gradient */
} Work;

/* ---- how a row is cut ---- */

/* The least common multiple of the channels and a vector's lanes. */
static long common_period(long channels) {
  long period = channels;
  while (period % VLANES != 0) period += channels;
  return period;
}

/* Pieces of whole vectors up to 'whole', then those of the line's remainder by powers of two; NULL: only counts them. */
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

static long wanted_tiles(void) {
  return TILES_A_THREAD * omp_get_max_threads();
}

static Work work_for(const Gather *g, Tiling tiling, long most) {
  Work k = {.g = *g, .tiling = tiling, .most = most, .taps = g->y.taps * g->x.taps};
  Tiling largest = gather_largest_tiling(g, most, TILE_PIXELS);
  k.piece_count = cut_rows(&k, NULL);
  k.banded = g->y.taps == BAND_SIDE && g->x.taps == BAND_SIDE && g->y.in_step == 1 && g->y.at_step == 1;
  k.weights = gather_reserve(&k.packed_size, k.taps * k.period);
  k.starts = gather_reserve(&k.packed_size, k.period);
  k.pieces = gather_reserve_longs(&k.packed_size, k.piece_count * (long)(sizeof(Piece) / sizeof(long)));
  k.tap_at = gather_reserve_longs(&k.packed_size, k.taps);
  k.row_in = gather_reserve_longs(&k.packed_size, largest.images * largest.rows);
  k.row_out = gather_reserve_longs(&k.packed_size, largest.images * largest.rows);
  return k;
}

static void fill_tables(const Work *k, real *packed) {
  const Gather *g = &k->g;
  Tiling largest = gather_largest_tiling(g, k->most, TILE_PIXELS);
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

/* By one of the threads, the others go on. */
static void pack(const Work *k, const real *w, const real *bias, real *packed) {
#pragma omp single nowait
  {
    fill_tables(k, packed);
    pack_weights(k, w, bias, packed);
  }
}

/* ---- a tile ---- */

/* A band of rows; the distances are those from one row to the next. */
typedef struct Rows {
  const Work *work;
  const real *x;
  real *y;
  long count, x_row, y_row;
  const real *packed;
} Rows;

/* How many of so many rows make the next band. */
static long band_rows(const Work *k, long rows) {
  return !k->banded ? 1 : rows < BAND_MOST ? rows : BAND_MOST;
}

/* y = start + the sum over taps of x w, for 'points' vectors of 'lanes' lanes from number 'at' of one row on */
INLINE void sum_points(const Rows *r, const Piece *piece, long at, long out, const int points, const int lanes) {
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

INLINE void sum_line(const Rows *r, const Piece *piece, const int lanes) {
  long in_step = r->work->in_step, out_step = r->work->out_step, at = piece->at, out = at, left = piece->points;
  for (; left >= 6; left -= 6, at += 6 * in_step, out += 6 * out_step) sum_points(r, piece, at, out, 6, lanes);
  for (; left >= 3; left -= 3, at += 3 * in_step, out += 3 * out_step) sum_points(r, piece, at, out, 3, lanes);
  for (; left > 0; left--, at += in_step, out += out_step) sum_points(r, piece, at, out, 1, lanes);
}

/* The same for 3x3 and so many rows. */
INLINE void sum_band(const Rows *r, const Piece *piece, const int rows, const int lanes) {
  const Work *k = r->work;
  const long *tap_at = gather_table(r->packed, k->tap_at);
  const real *w = r->packed + k->weights + piece->weight, *start = r->packed + k->starts + piece->weight;
  const real *x = r->x + tap_at[0] + piece->at;
  real *y = r->y + piece->at;
  long column = tap_at[1] - tap_at[0];
  vreal weight[TAPS_MOST];
#pragma GCC unroll 9
  for (int t = 0; t < TAPS_MOST; t++) weight[t] = vload_part(w + t * k->period, lanes);
  for (long left = piece->points; left > 0; left--, x += k->in_step, y += k->out_step) {
    vreal sum[BAND_MOST];
#pragma GCC unroll 3
    for (int row = 0; row < rows; row++) sum[row] = vload_part(start, lanes);
#pragma GCC unroll 5
    for (int i = 0; i < rows + BAND_SIDE - 1; i++)
#pragma GCC unroll 3
      for (int j = 0; j < BAND_SIDE; j++) {
        vreal input = vload_part(x + i * r->x_row + j * column, lanes);
#pragma GCC unroll 3
        for (int row = 0; row < rows; row++)
          if (i >= row && i < row + BAND_SIDE) sum[row] += input * weight[(i - row) * BAND_SIDE + j];
      }
#pragma GCC unroll 3
    for (int row = 0; row < rows; row++) vstore_part(y + row * r->y_row, sum[row], lanes);
  }
}

INLINE void sum_piece(const Rows *r, const Piece *piece, const int lanes) {
  if (r->count == 3)
    sum_band(r, piece, 3, lanes);
  else if (r->count == 2)
    sum_band(r, piece, 2, lanes);
  else
    sum_line(r, piece, lanes);
}

static void sum_rows(const Rows *r) {
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

/* The band that begins with a tile's i-th row, counted over its images. */
static Rows band_at(const Work *k, const Tile *tile, long i, const real *x, real *y, const real *packed) {
  const long *in = gather_table(packed, k->row_in), *out = gather_table(packed, k->row_out);
  Rows r = {.work = k, .x = x + in[i], .y = y + out[i], .packed = packed};
  r.count = band_rows(k, tile->rows - i % tile->rows);
  if (r.count > 1) {
    r.x_row = in[i + 1] - in[i];
    r.y_row = out[i + 1] - out[i];
  }
  return r;
}

static void run_tile(const Work *k, long index, const real *x, const real *packed, const Tail *tail, real *y,
                     real *buffer) {
  Tile tile = gather_tile(&k->g, &k->tiling, index);
  if (gather_is_empty(&tile)) return;
  const real *from = gather_input(&k->g, &tile, x, buffer);
  real *to = gather_output(&k->g, &tile, y);
  for (long i = 0; i < tile.images * tile.rows;) {
    Rows band = band_at(k, &tile, i, from, to, packed);
    sum_rows(&band);
    i += band.count;
  }
  tail_apply(tail, y, to - y, tile.pixels * k->g.out_c);
}

/* ---- forward ---- */

static Work forward_work(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  long most = tile_most(&g);
  return work_for(&g, gather_tiling(&g, most, TILE_PIXELS, wanted_tiles()), most);
}

static long depthwise_packed_size(const ConvGeometry *g) {
  return forward_work(g).packed_size;
}
static long depthwise_run_scratch(const ConvGeometry *g) {
  long size = 0;
  gather_reserve(&size, omp_get_max_threads() * forward_work(g).tiling.buffer);
  return size;
}
static void depthwise_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed) {
  Work k = forward_work(g);
  pack(&k, w, bias, packed);
#pragma omp barrier
}

static void depthwise_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y,
                          real *scratch) {
  Work k = forward_work(g);
  real *buffer = scratch + omp_get_thread_num() * k.tiling.buffer;
#pragma omp for schedule(dynamic)
  for (long i = 0; i < k.tiling.count; i++)
    if (!interrupted()) run_tile(&k, i, x, packed, tail, y, buffer);
}

const ConvMethod conv_depthwise = {depthwise_packed_size, depthwise_run_scratch, depthwise_pack, depthwise_run};

/* ---- the input's gradient ---- */

/* A gather for each phase of the stride, all of them on the same tiles. works: what is known of each, or NULL */
static Phases phases_of(const ConvGeometry *geometry, Work *works) {
  Gather first = gather_backward(geometry, 0);
  long most = tile_most(&first);
  Tiling shared = gather_backward_tiling(geometry, most, TILE_PIXELS, wanted_tiles());
  Phases phases = phases_begin(geometry, sizeof *works);
  for (long phase = 0; phase < phases.count; phase++) {
    Gather g = gather_backward(geometry, phase);
    Work k = work_for(&g, gather_phase_tiling(&g, shared), most);
    k.packed = phases_add(&phases, k.packed_size, k.tiling.buffer);
    if (works != NULL) works[phase] = k;
  }
  phases_end(&phases);
  return phases;
}

long depthwise_backward_input_scratch(const ConvGeometry *geometry) {
  return phases_of(geometry, NULL).size;
}

void depthwise_backward_input(const ConvGeometry *geometry, const real *dy, const real *w, real *dx, real *scratch) {
  Work *works = (Work *)scratch;
  Phases phases = phases_of(geometry, works);
#pragma omp parallel if (conv_is_large(geometry))
  {
    real *buffer = scratch + phases.buffers + omp_get_thread_num() * phases.buffer;
    for (long p = 0; p < phases.count; p++) pack(&works[p], w, NULL, scratch + works[p].packed);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (long i = 0; i < works->tiling.count; i++)
      for (long p = 0; p < phases.count && !interrupted(); p++)
        run_tile(&works[p], i, dy, scratch + works[p].packed, NULL, dx, buffer);
  }
}

/* ---- the weights' gradient ---- */

/* sums (taps,period) of a piece: adds dy x of one row, for 'count' taps at a time in registers; y is dy */
INLINE void add_taps(const Rows *r, const Piece *piece, long first, const int count, const int lanes, real *sums) {
  const Work *k = r->work;
  const long *tap_at = gather_table(r->packed, k->tap_at) + first;
  const real *dy = r->y + piece->at, *x[TAPS_MOST];
  vreal sum[TAPS_MOST];
#pragma GCC unroll 9
  for (int t = 0; t < count; t++) {
    x[t] = r->x + piece->at + tap_at[t];
    sum[t] = vload_part(sums + (first + t) * k->period + piece->weight, lanes);
  }
  long at = 0;
  for (long left = piece->points; left > 0; left--, at += k->in_step, dy += k->out_step) {
    vreal slope = vload_part(dy, lanes);
#pragma GCC unroll 9
    for (int t = 0; t < count; t++) sum[t] += slope * vload_part(x[t] + at, lanes);
  }
#pragma GCC unroll 9
  for (int t = 0; t < count; t++) vstore_part(sums + (first + t) * k->period + piece->weight, sum[t], lanes);
}

/* The same for 3x3 and so many rows. */
INLINE void add_band(const Rows *r, const Piece *piece, const int rows, const int lanes, real *sums) {
  const Work *k = r->work;
  const long *tap_at = gather_table(r->packed, k->tap_at);
  const real *x = r->x + tap_at[0] + piece->at, *dy = r->y + piece->at;
  long column = tap_at[1] - tap_at[0];
  vreal sum[TAPS_MOST];
#pragma GCC unroll 9
  for (int t = 0; t < TAPS_MOST; t++) sum[t] = vload_part(sums + t * k->period + piece->weight, lanes);
  for (long left = piece->points; left > 0; left--, x += k->in_step, dy += k->out_step) {
    vreal slope[BAND_MOST];
#pragma GCC unroll 3
    for (int row = 0; row < rows; row++) slope[row] = vload_part(dy + row * r->y_row, lanes);
#pragma GCC unroll 5
    for (int i = 0; i < rows + BAND_SIDE - 1; i++)
#pragma GCC unroll 3
      for (int j = 0; j < BAND_SIDE; j++) {
        vreal input = vload_part(x + i * r->x_row + j * column, lanes);
#pragma GCC unroll 3
        for (int row = 0; row < rows; row++)
          if (i >= row && i < row + BAND_SIDE) sum[(i - row) * BAND_SIDE + j] += slope[row] * input;
      }
  }
#pragma GCC unroll 9
  for (int t = 0; t < TAPS_MOST; t++) vstore_part(sums + t * k->period + piece->weight, sum[t], lanes);
}

INLINE void add_piece(const Rows *r, const Piece *piece, const int lanes, real *sums) {
  long t = 0, taps = r->work->taps;
  if (r->count == 3) {
    add_band(r, piece, 3, lanes, sums);
    return;
  }
  if (r->count == 2) {
    add_band(r, piece, 2, lanes, sums);
    return;
  }
  for (; t + 9 <= taps; t += 9) add_taps(r, piece, t, 9, lanes, sums);
  for (; t + 5 <= taps; t += 5) add_taps(r, piece, t, 5, lanes, sums);
  for (; t < taps; t++) add_taps(r, piece, t, 1, lanes, sums);
}

static void add_rows(const Rows *r, real *sums) {
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

/* In the scratch: what is packed, then the sums (parts,taps,period), then the threads' buffers. */
typedef struct Sums {
  Work work;
  long parts, size; /* of the tiles; of one part's sums */
  long first, buffers, scratch;
} Sums;

static Sums sums_for(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  long most = tile_most(&g);
  Sums s = {.work = work_for(&g, gather_tiling(&g, most, TILE_PIXELS, PARTS_MOST), most)};
  s.parts = s.work.tiling.count < PARTS_MOST ? s.work.tiling.count : PARTS_MOST;
  s.size = s.work.taps * s.work.period;
  gather_reserve(&s.scratch, s.work.packed_size);
  s.first = gather_reserve(&s.scratch, s.parts * s.size);
  s.buffers = gather_reserve(&s.scratch, omp_get_max_threads() * s.work.tiling.buffer);
  return s;
}

static void sum_part(const Sums *s, long part, const real *dy, const real *x, real *scratch) {
  const Work *k = &s->work;
  long end = piece_start(k->tiling.count, s->parts, part + 1);
  real *sums = scratch + s->first + part * s->size;
  real *buffer = scratch + s->buffers + omp_get_thread_num() * k->tiling.buffer;
  memset(sums, 0, (size_t)s->size * sizeof *sums);
  for (long i = piece_start(k->tiling.count, s->parts, part); i < end && !interrupted(); i++) {
    Tile tile = gather_tile(&k->g, &k->tiling, i);
    const real *from = gather_input(&k->g, &tile, x, buffer);
    real *slopes = gather_output(&k->g, &tile, (real *)dy); /* which are only read */
    for (long row = 0; row < tile.images * tile.rows;) {
      Rows band = band_at(k, &tile, row, from, slopes, scratch);
      add_rows(&band, sums);
      row += band.count;
    }
  }
}

/* dw (C,1,KH,KW) = the sums, added over parts and over the repetitions of the channels in a period */
static void fold(const Sums *s, const real *sums, real *dw) {
  const Work *k = &s->work;
  for (long c = 0; c < k->g.in_c; c++)
    for (long t = 0; t < k->taps; t++) {
      real sum = 0;
      for (long part = 0; part < s->parts; part++)
        for (long i = c; i < k->period; i += k->g.in_c) sum += sums[part * s->size + t * k->period + i];
      dw[c * k->taps + t] = sum;
    }
}

long depthwise_backward_weight_scratch(const ConvGeometry *geometry) {
  return sums_for(geometry).scratch;
}

void depthwise_backward_weight(const ConvGeometry *geometry, const real *dy, const real *x, real *dw, real *scratch) {
  Sums s = sums_for(geometry);
  fill_tables(&s.work, scratch);
#pragma omp parallel for schedule(dynamic) if (conv_is_large(geometry))
  for (long part = 0; part < s.parts; part++) sum_part(&s, part, dy, x, scratch);
  fold(&s, scratch + s.first, dw);
}
