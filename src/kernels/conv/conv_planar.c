/*
** conv_planar.c -- direct convolution of few channels, with a stride of 1: vectors lie along rows of pixels, so that
** their lanes are full however few output channels there are. A tile's input is turned into planes, one a channel, and
** its output back into pixels, both in cache. A plane's rows follow each other with their zeros between them, so
** vectors need not end with a row: what they compute across its end is left out when pixels are made.
*/
#include <string.h>

#include "../../base/interrupt.h"
#include "conv_gather.h"
#include "conv_methods.h"

enum { CHANNELS_MOST = VREGISTERS >= 32 ? 12 : 6, VECTORS_MOST = 4 };
enum { TILE_MOST = 24 << 10, TILE_PIXELS = 4096, TILES_A_THREAD = 4 };
#define INLINE static inline __attribute__((always_inline))

typedef struct Block {
  const real *x;     /* plane 0 at the first position */
  const real *w;     /* (depth,channels) */
  const real *start; /* (channels) */
  const long *at;    /* (depth) offsets from a position */
  long depth;
  real *out; /* (channels,out_step) */
  long out_step;
} Block;

/* ---- the innermost kernel ---- */

INLINE void sum_block(const Block *b, const int channels, const int vectors) {
  const real *w = b->w;
  vreal sum[CHANNELS_MOST][VECTORS_MOST];
#pragma GCC unroll 12
  for (int c = 0; c < channels; c++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[c][v] = vset(b->start[c]);
  for (long k = 0; k < b->depth; k++, w += channels) {
    const real *x = b->x + b->at[k];
    vreal input[VECTORS_MOST];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) input[v] = vload(x + v * VLANES);
#pragma GCC unroll 12
    for (int c = 0; c < channels; c++) {
      vreal weight = vset(w[c]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[c][v] += input[v] * weight;
    }
  }
#pragma GCC unroll 12
  for (int c = 0; c < channels; c++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) vstore(b->out + c * b->out_step + v * VLANES, sum[c][v]);
}

typedef void BlockKernel(const Block *b);

#define BLOCK_KERNEL(channels, vectors)                                                                                \
  static void sum_##channels##_##vectors(const Block *b) {                                                             \
    sum_block(b, channels < CHANNELS_MOST ? channels : CHANNELS_MOST, vectors);                                        \
  }

BLOCK_KERNEL(1, 4)
BLOCK_KERNEL(2, 4)
BLOCK_KERNEL(3, 4)
BLOCK_KERNEL(2, 2)
BLOCK_KERNEL(3, 2)
BLOCK_KERNEL(4, 2)
BLOCK_KERNEL(5, 2)
BLOCK_KERNEL(6, 2)
BLOCK_KERNEL(7, 2)
BLOCK_KERNEL(8, 2)
BLOCK_KERNEL(9, 2)
BLOCK_KERNEL(10, 2)
BLOCK_KERNEL(11, 2)
BLOCK_KERNEL(12, 2)

/* Where a block has 3 channels or fewer it has 4 vectors, unless another of the same convolution has more channels. */
static BlockKernel *const two_vectors[] = {NULL,    NULL,    sum_2_2, sum_3_2,  sum_4_2,  sum_5_2, sum_6_2,
                                           sum_7_2, sum_8_2, sum_9_2, sum_10_2, sum_11_2, sum_12_2};
static BlockKernel *const four_vectors[] = {NULL, sum_1_4, sum_2_4, sum_3_4};

/* ---- what a gather needs ---- */

typedef struct Work {
  Gather g;
  Tiling tiling;
  long depth, blocks;   /* of output channels */
  long positions, step; /* computed at a time; of them and what is read behind them */
  long plane;           /* reals of the largest tile's plane, and what a row's last vector writes behind it */
  /* positions among what is packed, and in a thread's scratch */
  long weights, starts, at, packed_size;
  long planes, results, thread_size;
} Work;

/* An odd number of cache lines, so that the planes do not share the same few sets of the cache. */
static long plane_size(const Gather *g) {
  enum { LINE = 64 / sizeof(real) };
  long size = gather_largest_tiling(g, TILE_MOST, TILE_PIXELS).buffer / g->in_c + VLANES;
  return ((size + LINE - 1) / LINE | 1) * LINE;
}

static Work work_for(const Gather *g) {
  Work k = {.g = *g, .depth = g->y.taps * g->x.taps * g->cin, .blocks = (g->cout + CHANNELS_MOST - 1) / CHANNELS_MOST};
  k.g.padded = true; /* planes are always made */
  k.tiling = gather_tiling(&k.g, TILE_MOST, TILE_PIXELS, TILES_A_THREAD * omp_get_max_threads());
  k.positions = ((g->cout + k.blocks - 1) / k.blocks <= 3 ? 4 : 2) * VLANES;
  k.step = k.positions + VLANES;
  k.plane = plane_size(&k.g);
  k.weights = gather_reserve(&k.packed_size, k.depth * g->cout);
  k.starts = gather_reserve(&k.packed_size, g->cout);
  k.at = gather_reserve_longs(&k.packed_size, k.depth);
  k.planes = gather_reserve(&k.thread_size, k.plane * g->in_c + k.step);
  k.results = gather_reserve(&k.thread_size, (g->cout + VLANES) * k.step);
  return k;
}

/* weights: for each block of output channels (input channels,taps,block's channels); at: (input channels,taps) */
static void pack_all(const Work *k, const real *w, const real *bias, real *packed) {
  const Gather *g = &k->g;
  real *to = packed + k->weights;
  long *at = gather_longs(packed, k->at);
  for (long b = 0; b < k->blocks; b++)
    for (long c = 0; c < g->cin; c++)
      for (long t = 0; t < g->y.taps * g->x.taps; t++) {
        long ty = t / g->x.taps, tx = t % g->x.taps;
        const real *from =
            w + c * g->weight_in + (g->y.tap + ty * g->y.tap_step) * g->kw + g->x.tap + tx * g->x.tap_step;
        for (long f = piece_start(g->cout, k->blocks, b); f < piece_start(g->cout, k->blocks, b + 1); f++)
          *to++ = from[f * g->weight_out];
        long row = g->y.at + g->y.before + ty * g->y.at_step, column = g->x.at + g->x.before + tx * g->x.at_step;
        if (b == 0) *at++ = c * k->plane + row * g->x.size + column;
      }
  for (long f = 0; f < g->cout; f++) packed[k->starts + f] = bias != NULL ? bias[f] : 0;
}

static void pack(const Work *k, const real *w, const real *bias, real *packed) {
#pragma omp single
  pack_all(k, w, bias, packed);
}

/* ---- between pixels and planes ---- */

/* Channels first .. first + VLANES - 1 of a row of pixels into planes; the last ones may be fewer. */
static void split_channels(const real *x, long pixels, long channels, long first, const real *x_end, real *planes,
                           long plane) {
  long count = channels - first < VLANES ? channels - first : VLANES;
  for (long p = 0; p < pixels; p += VLANES) {
    vreal row[VLANES];
    for (long i = 0; i < VLANES; i++) {
      const real *from = x + (p + i) * channels + first;
      row[i] = (vreal){0};
      if (p + i < pixels) row[i] = x_end - from >= VLANES ? vload(from) : vload_part(from, (int)count);
    }
    vtranspose(row);
    for (long c = 0; c < count; c++) vstore(planes + c * plane + p, row[c]);
  }
}

/* One row of all planes: zeros, the channels of x (NULL: zeros), zeros. What is written behind a row is written over by
   the next one's zeros. */
static void split_row(const Work *k, const real *x, const real *x_end, real *planes) {
  const Gather *g = &k->g;
  long before = g->x.before, behind = g->x.size - before - g->x.in;
  for (long c = 0; c < g->in_c && x == NULL; c++) memset(planes + c * k->plane, 0, (size_t)g->x.size * sizeof *planes);
  if (x == NULL) return;
  for (long c = 0; c < g->in_c; c++) memset(planes + c * k->plane, 0, (size_t)before * sizeof *planes);
  if (g->in_c == 1)
    memcpy(planes + before, x, (size_t)g->x.in * sizeof *planes);
  else
    for (long c = 0; c < g->in_c; c += VLANES)
      split_channels(x, g->x.in, g->in_c, c, x_end, planes + c * k->plane + before, k->plane);
  for (long c = 0; c < g->in_c; c++)
    memset(planes + c * k->plane + before + g->x.in, 0, (size_t)behind * sizeof *planes);
}

static void split_tile(const Work *k, const Tile *tile, const real *x, real *planes) {
  const Gather *g = &k->g;
  const real *x_end = x + g->images * g->y.in * g->x.in * g->in_c;
  long rows = tile->images > 1 ? g->y.size : gather_input_rows(g, tile->rows),
       first = tile->row * g->y.in_step - g->y.before;
  for (long n = 0; n < tile->images; n++)
    for (long i = 0; i < rows; i++) {
      long row = (tile->image + n) * g->y.in + first + i;
      bool inside = first + i >= 0 && first + i < g->y.in;
      split_row(k, inside ? x + row * g->x.in * g->in_c : NULL, x_end, planes + (n * rows + i) * g->x.size);
    }
}

/* Results (channels,step) of some positions to as many pixels, channels from 'first' on. All but the first 'whole' pixels get
   no more than there are channels; those get whole vectors, which the next pixel then overwrites. */
static void join_channels(const Work *k, const real *results, long first, long pixels, long whole, real *y) {
  long channels = k->g.out_c, lanes = channels < VLANES ? channels : VLANES;
  for (long p = 0; p < pixels; p += VLANES) {
    vreal row[VLANES];
    for (long c = 0; c < VLANES; c++) row[c] = c < lanes ? vload(results + (first + c) * k->step + p) : vset(0);
    vtranspose(row);
    for (long i = 0; i < VLANES && p + i < pixels; i++) {
      real *to = y + (p + i) * channels + first;
      if (lanes == VLANES || p + i < whole)
        vstore(to, row[i]);
      else
        vstore_part(to, row[i], (int)lanes);
    }
  }
}

/* The last channels by a vector that ends with them, where they fill one. */
static void join_pixels(const Work *k, const real *results, long pixels, long whole, real *y) {
  long last = k->g.out_c - VLANES;
  for (long first = 0; first < last; first += VLANES) join_channels(k, results, first, pixels, whole, y);
  join_channels(k, results, last > 0 ? last : 0, pixels, whole, y);
}

/* ---- one gather ---- */

/* Those of the positions from 'from' on that are pixels; 'first' is the tile's number of the image's first pixel. */
static void join_positions(const Work *k, const Tile *tile, long from, long first, const real *results, real *y) {
  const Gather *g = &k->g;
  long whole = tile->pixels - (VLANES - 1) / g->out_c;
  for (long row = from / g->x.size; row < tile->rows && row * g->x.size < from + k->positions; row++) {
    long start = row * g->x.size, end = start + g->x.count;
    if (start < from) start = from;
    if (end > from + k->positions) end = from + k->positions;
    long pixel = first + row * g->x.count + start - row * g->x.size;
    if (start < end) join_pixels(k, results + start - from, end - start, whole - pixel, y + pixel * g->out_c);
  }
}

static void run_image(const Work *k, const Tile *tile, long n, const real *packed, const real *planes, real *results,
                      real *y) {
  const Gather *g = &k->g;
  BlockKernel *const *kernels = k->positions == 4 * VLANES ? four_vectors : two_vectors;
  Block b = {.at = gather_table(packed, k->at), .depth = k->depth, .out_step = k->step};
  for (long at = 0; at < (tile->rows - 1) * g->x.size + g->x.count; at += k->positions) {
    b.x = planes + n * g->y.size * g->x.size + at;
    for (long i = 0; i < k->blocks; i++) {
      long first = piece_start(g->cout, k->blocks, i), count = piece_start(g->cout, k->blocks, i + 1) - first;
      b.w = packed + k->weights + first * k->depth;
      b.start = packed + k->starts + first;
      b.out = results + first * k->step;
      kernels[count](&b);
    }
    join_positions(k, tile, at, n * tile->rows * g->x.count, results, y);
  }
}

static void run(const Work *k, const real *x, const real *packed, const Tail *tail, real *y, real *scratch) {
  real *thread = scratch + omp_get_thread_num() * k->thread_size;
  real *planes = thread + k->planes, *results = thread + k->results;
#pragma omp for schedule(dynamic)
  for (long i = 0; i < k->tiling.count; i++) {
    if (interrupted()) continue;
    Tile tile = gather_tile(&k->g, &k->tiling, i);
    real *to = gather_output(&k->g, &tile, y);
    split_tile(k, &tile, x, planes);
    for (long n = 0; n < tile.images; n++) run_image(k, &tile, n, packed, planes, results, to);
    tail_apply(tail, y, to - y, tile.pixels * k->g.out_c);
  }
}

/* ---- forward ---- */

static Work forward_work(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  return work_for(&g);
}

static long planar_packed_size(const ConvGeometry *g) {
  return forward_work(g).packed_size;
}
static long planar_run_scratch(const ConvGeometry *g) {
  return omp_get_max_threads() * forward_work(g).thread_size;
}
static void planar_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed) {
  Work k = forward_work(g);
  pack(&k, w, bias, packed);
}
static void planar_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y,
                       real *scratch) {
  Work k = forward_work(g);
  run(&k, x, packed, tail, y, scratch);
}

const ConvMethod conv_planar = {planar_packed_size, planar_run_scratch, planar_pack, planar_run};

/* ---- the input's gradient ---- */

long planar_backward_input_scratch(const ConvGeometry *geometry) {
  Gather g = gather_backward(geometry, 0);
  Work k = work_for(&g);
  return k.packed_size + omp_get_max_threads() * k.thread_size;
}

void planar_backward_input(const ConvGeometry *geometry, const real *dy, const real *w, real *dx, real *scratch) {
  Gather g = gather_backward(geometry, 0);
  Work k = work_for(&g);
#pragma omp parallel if (conv_is_large(geometry))
  {
    pack(&k, w, NULL, scratch);
    run(&k, dy, scratch, NULL, dx, scratch + k.packed_size);
  }
}
