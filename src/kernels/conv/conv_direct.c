/*
** conv_direct.c -- direct convolution, forward and the gradient of the input, both as gathers (conv_gather.h). The
** innermost kernel keeps a block of pixels x vectors of output channels in registers while it runs over taps and input
** channels: V vectors of weights and P broadcast inputs make P V multiply-adds. The weights are packed so that a block
** reads them in one stream: for every V vectors of output channels, [tap][input channel][V vectors].
*/
#include <string.h>

#include "../../base/interrupt.h"
#include "../../base/parallel.h"
#include "conv_gather.h"
#include "conv_methods.h"

enum {
  PIXELS_MOST = 8,
  VECTORS_MOST = 4,
  RUN_LEAST = 32,
  TILE_MOST = 48 << 10,
  TILE_PIXELS = 1024,
  TILES_A_THREAD = 4,
  PACKED = 16
};

#define INLINE static inline __attribute__((always_inline))

/* Vectors and pixels of a block: sums, weights and one input fit the registers. */
enum { BLOCK_VECTORS = VREGISTERS >= 32 ? 4 : 3 };
INLINE int block_pixels(int vectors) {
  return vectors == 1 ? 8 : vectors == 3 && VREGISTERS < 32 ? 4 : 6;
}

typedef struct Block {
  const real *x, *w, *start; /* start: vectors to begin the sums with */
  const long *run_at;
  Runs runs;
  const long *in_at, *out_at; /* of each pixel */
  long channel[VECTORS_MOST]; /* of each vector */
  real *y;
  long pixels, whole, lanes; /* pixels to store; those of them that all lanes are stored of; channels of the others */
} Block;

/* ---- the innermost kernel ---- */

INLINE void store_block(const Block *b, const int vectors, vreal sum[PIXELS_MOST][VECTORS_MOST]) {
  if (b->whole >= block_pixels(vectors)) { /* nearly always */
#pragma GCC unroll 8
    for (int p = 0; p < block_pixels(vectors); p++)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) vstore(b->y + b->out_at[p] + b->channel[v], sum[p][v]);
    return;
  }
#pragma GCC unroll 8
  for (int p = 0; p < block_pixels(vectors); p++) {
    if (p >= b->pixels) return;
    real *y = b->y + b->out_at[p];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      if (vectors > 1 || p < b->whole)
        vstore(y + b->channel[v], sum[p][v]);
      else
        vstore_part(y, sum[p][v], (int)b->lanes);
  }
}

/* sum += weights times the input 'at' each pixel */
INLINE void add_product(const real *const *x, long at, const real *w, const int vectors,
                        vreal sum[PIXELS_MOST][VECTORS_MOST]) {
  vreal weight[VECTORS_MOST];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) weight[v] = vload(w + v * VLANES);
#pragma GCC unroll 8
  for (int p = 0; p < block_pixels(vectors); p++) {
    vreal input = vset(x[p][at]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[p][v] += input * weight[v];
  }
}

INLINE void sum_block(const Block *b, const int vectors) {
  const real *w = b->w, *x[PIXELS_MOST];
  vreal sum[PIXELS_MOST][VECTORS_MOST];
#pragma GCC unroll 8
  for (int p = 0; p < block_pixels(vectors); p++) {
    x[p] = b->x + b->in_at[p];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[p][v] = vload(b->start + v * VLANES);
  }
  if (b->runs.length == 1)
    for (long r = 0; r < b->runs.count; r++, w += vectors * VLANES) add_product(x, b->run_at[r], w, vectors, sum);
  else
    for (long r = 0; r < b->runs.count; r++)
      for (long at = b->run_at[r], end = at + b->runs.length; at < end; at++, w += vectors * VLANES)
        add_product(x, at, w, vectors, sum);
  store_block(b, vectors, sum);
}

/* The same for half a vector of channels. */
INLINE void add_half(const real *const *x, long at, const real *w, vhalf sum[PIXELS_MOST]) {
  vhalf weight = vload_half(w);
#pragma GCC unroll 8
  for (int p = 0; p < block_pixels(1); p++) sum[p] += vset_half(x[p][at]) * weight;
}

static void sum_half(const Block *b) {
  const real *w = b->w, *x[PIXELS_MOST];
  vhalf sum[PIXELS_MOST];
#pragma GCC unroll 8
  for (int p = 0; p < block_pixels(1); p++) {
    x[p] = b->x + b->in_at[p];
    sum[p] = vload_half(b->start);
  }
  if (b->runs.length == 1)
    for (long r = 0; r < b->runs.count; r++, w += VLANES) add_half(x, b->run_at[r], w, sum);
  else
    for (long r = 0; r < b->runs.count; r++)
      for (long at = b->run_at[r], end = at + b->runs.length; at < end; at++, w += VLANES) add_half(x, at, w, sum);
#pragma GCC unroll 8
  for (int p = 0; p < block_pixels(1); p++) {
    if (p >= b->pixels) return;
    real *y = b->y + b->out_at[p] + b->channel[0];
    if (p < b->whole)
      vstore_half(y, sum[p]);
    else
      memcpy(y, &sum[p], (size_t)b->lanes * sizeof *y);
  }
}

#define BLOCK_KERNEL(vectors)                                                                                          \
  static void sum_block_##vectors(const Block *b) {                                                                    \
    sum_block(b, vectors);                                                                                             \
  }

BLOCK_KERNEL(1)
BLOCK_KERNEL(2)
BLOCK_KERNEL(3)
BLOCK_KERNEL(4)
static void (*const block_kernels[])(const Block *) = {sum_half, sum_block_1, sum_block_2, sum_block_3, sum_block_4};

/* ---- one gather ---- */

/* What one gather needs besides its operands. */
typedef struct Work {
  Gather g;
  Runs runs;
  Tiling tiling;
  long vectors, blocks; /* of a group's output channels */
  long depth;           /* products that make one output */
  /* positions among what is packed: weights and biases; longs, the offsets of runs, of pixels read and written */
  long panels, starts, run_at, in_at, out_at, packed_size;
  long packed; /* where that lies in the scratch of a gradient */
} Work;

static Tiling largest_tiling(const Gather *g) {
  return gather_largest_tiling(g, TILE_MOST, TILE_PIXELS);
}

/* Short runs are taken apart: beginning one costs as much as some products. */
static Runs runs_of(const Gather *g) {
  Runs runs = gather_runs(g);
  if (runs.count > 1 && runs.length < RUN_LEAST) runs = (Runs){runs.count * runs.length, 1};
  return runs;
}

static void fill_runs(const Work *k, long *run_at) {
  Runs runs = gather_runs(&k->g);
  long apart = k->runs.count / (runs.count > 0 ? runs.count : 1);
  gather_run_offsets(&k->g, run_at);
  for (long r = k->runs.count - 1; r >= 0; r--) run_at[r] = run_at[r / apart] + r % apart;
}

static long wanted_tiles(void) {
  return TILES_A_THREAD * omp_get_max_threads();
}

static Work work_for(const Gather *g, Tiling tiling) {
  Work k = {.g = *g, .runs = runs_of(g), .tiling = tiling, .vectors = lane_vectors(g->cout)};
  k.depth = g->y.taps * g->x.taps * g->cin;
  k.blocks = lane_blocks(g->cout, BLOCK_VECTORS);
  Tiling largest = largest_tiling(g);
  long pixels = largest.images * largest.rows * g->x.count;
  k.panels = gather_reserve(&k.packed_size, g->groups * k.vectors * k.depth * VLANES);
  k.starts = gather_reserve(&k.packed_size, g->groups * k.vectors * VLANES);
  k.run_at = gather_reserve_longs(&k.packed_size, k.runs.count);
  k.in_at = gather_reserve_longs(&k.packed_size, pixels);
  k.out_at = gather_reserve_longs(&k.packed_size, pixels);
  return k;
}

/* Input channels 'first' to 'end' of vector 'v' of a block of a group's weights: panel (depth,count,VLANES) */
static void pack_channels(const Gather *g, const LaneBlock *block, long v, long first, long end, const real *w,
                          real *panel) {
  long lanes = g->cout < lane_width(block) ? g->cout : lane_width(block), taps = g->y.taps * g->x.taps;
  w += lane_first(g->cout, block, v) * g->weight_out;
  for (long t = 0; t < taps; t++) {
    long row = g->y.tap + t / g->x.taps * g->y.tap_step, column = g->x.tap + t % g->x.taps * g->x.tap_step;
    for (long c = first; c < end; c++) {
      const real *from = w + c * g->weight_in + row * g->kw + column;
      real *to = panel + ((t * g->cin + c) * block->count + v) * VLANES;
      for (long lane = 0; lane < lanes; lane++) to[lane] = from[lane * g->weight_out];
      for (long lane = lanes; lane < VLANES; lane++) to[lane] = 0;
    }
  }
}

/* A few channels at a time, so that all taps of theirs stay in cache. */
static void pack_vector(const Gather *g, const LaneBlock *block, long v, const real *w, real *panel) {
  for (long c = 0; c < g->cin; c += PACKED)
    pack_channels(g, block, v, c, c + PACKED < g->cin ? c + PACKED : g->cin, w, panel);
}

static void pack_block(const Work *k, const real *w, const real *bias, long group, long index, real *packed) {
  const Gather *g = &k->g;
  LaneBlock block = lane_block(g->cout, BLOCK_VECTORS, index);
  long at = group * k->vectors + block.first;
  for (long v = 0; v < block.count; v++) {
    real *start = packed + k->starts + (at + v) * VLANES;
    pack_vector(g, &block, v, w + group * g->weight_group, packed + k->panels + at * k->depth * VLANES);
    for (long lane = 0; lane < VLANES; lane++) {
      long c = lane_first(g->cout, &block, v) + lane;
      start[lane] = bias != NULL && c < g->cout ? bias[group * g->cout + c] : 0;
    }
  }
}

/* Its part of the packing for each thread, which goes on before the others are done. */
static void pack(const Work *k, const real *w, const real *bias, real *packed) {
#pragma omp single nowait
  {
    Tiling largest = largest_tiling(&k->g);
    fill_runs(k, gather_longs(packed, k->run_at));
    gather_offsets(&k->g, &largest, gather_longs(packed, k->in_at), gather_longs(packed, k->out_at));
  }
#pragma omp for nowait
  for (long i = 0; i < k->g.groups * k->blocks; i++) pack_block(k, w, bias, i / k->blocks, i % k->blocks, packed);
}

/* How many of the tile's pixels can be stored as whole vectors: what a vector holds beyond the last channel is zero,
   and the next pixel, which is written later, may be under it; not so at the tile's end, or where other channels lie
   there. */
static long whole_pixels(const Gather *g, const LaneBlock *block, long pixels) {
  if (g->cout >= lane_width(block)) return pixels;
  bool in_order = g->groups == 1 && g->x.count == g->x.out && g->y.step == 1;
  long whole = in_order ? pixels - (lane_width(block) - 1) / g->cout : 0;
  return whole < 0 ? 0 : whole;
}

/* Block kernels read the offsets of all their pixels: those behind the tile's last one are given its own. */
static void run_last_block(Block b, int kernel) {
  long in_at[PIXELS_MOST], out_at[PIXELS_MOST];
  for (int p = 0; p < PIXELS_MOST; p++) {
    long from = p < b.pixels ? p : b.pixels - 1;
    in_at[p] = b.in_at[from];
    out_at[p] = b.out_at[from];
  }
  b.in_at = in_at;
  b.out_at = out_at;
  block_kernels[kernel](&b);
}

/* All pixels of a tile for one block of output channels; b holds what is common to them. */
static void run_block(Block b, const LaneBlock *block, long pixels, long whole) {
  int step = block_pixels((int)block->count), kernel = block->half ? 0 : (int)block->count;
  for (long p = 0; p < pixels; p += step, b.in_at += step, b.out_at += step) {
    b.pixels = pixels - p;
    b.whole = whole - p;
    if (b.pixels < step)
      run_last_block(b, kernel);
    else
      block_kernels[kernel](&b);
  }
}

/* Output channels: blocks of vectors of all groups, of which a part may be one thread's. */
typedef struct Part {
  long first, end;
} Part;

static long first_channel(const Work *k, long block) {
  return block / k->blocks * k->g.cout + lane_block(k->g.cout, BLOCK_VECTORS, block % k->blocks).first * VLANES;
}

static void run_tile(const Work *k, const Tile *tile, Part part, const real *x, const real *packed, real *y) {
  const Gather *g = &k->g;
  Block b = {.runs = k->runs, .lanes = g->cout};
  b.run_at = gather_table(packed, k->run_at);
  b.in_at = gather_table(packed, k->in_at);
  b.out_at = gather_table(packed, k->out_at);
  for (long i = part.first; i < part.end; i++) {
    LaneBlock block = lane_block(g->cout, BLOCK_VECTORS, i % k->blocks);
    long group = i / k->blocks, at = group * k->vectors + block.first;
    b.x = x + group * g->cin;
    b.y = y + group * g->cout;
    b.w = packed + k->panels + at * k->depth * VLANES;
    b.start = packed + k->starts + at * VLANES;
    for (long v = 0; v < block.count; v++) b.channel[v] = lane_first(g->cout, &block, v);
    run_block(b, &block, tile->pixels, whole_pixels(g, &block, tile->pixels));
  }
}

/* A tile's output is contiguous, forward; a part's is some channels of each pixel. */
static void run_tail(const Work *k, const Tile *tile, Part part, const Tail *tail, const real *packed, real *y,
                     long at) {
  long blocks = k->g.groups * k->blocks, channels = k->g.out_c;
  if (tail == NULL) return;
  if (part.first == 0 && part.end == blocks) {
    tail_apply(tail, y, at, tile->pixels * channels);
    return;
  }
  const long *out_at = gather_table(packed, k->out_at);
  long first = first_channel(k, part.first), end = part.end < blocks ? first_channel(k, part.end) : channels;
  for (long p = 0; p < tile->pixels; p++) tail_apply(tail, y, at + out_at[p] + first, end - first);
}

/* How many parts of the channels are made where there are too few tiles for all threads. Parts must not overlap. */
static long channel_parts(const Work *k) {
  long threads = omp_get_max_threads(), wanted = 2 * threads;
  if (threads == 1 || k->tiling.count >= wanted || k->g.cout % VLANES != 0) return 1;
  long parts = (wanted + k->tiling.count - 1) / k->tiling.count, blocks = k->g.groups * k->blocks;
  return parts < blocks ? parts : blocks;
}

static void run_part(const Work *k, long index, Part part, const real *x, const real *packed, const Tail *tail, real *y,
                     real *buffer) {
  Tile tile = gather_tile(&k->g, &k->tiling, index);
  if (gather_is_empty(&tile)) return;
  real *to = gather_output(&k->g, &tile, y);
  run_tile(k, &tile, part, gather_input(&k->g, &tile, x, buffer), packed, to);
  run_tail(k, &tile, part, tail, packed, y, to - y);
}

/* ---- forward ---- */

static Work forward_work(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  return work_for(&g, gather_tiling(&g, TILE_MOST, TILE_PIXELS, wanted_tiles()));
}

static long direct_packed_size(const ConvGeometry *g) {
  return forward_work(g).packed_size;
}
static long direct_run_scratch(const ConvGeometry *g) {
  long size = 0;
  gather_reserve(&size, omp_get_max_threads() * forward_work(g).tiling.buffer);
  return size;
}
static void direct_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed) {
  Work k = forward_work(g);
  pack(&k, w, bias, packed);
#pragma omp barrier
}

static void direct_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y,
                       real *scratch) {
  Work k = forward_work(g);
  real *buffer = scratch + omp_get_thread_num() * k.tiling.buffer;
  long parts = channel_parts(&k), blocks = k.g.groups * k.blocks;
#pragma omp for schedule(dynamic)
  for (long i = 0; i < k.tiling.count * parts; i++) {
    Part part = {piece_start(blocks, parts, i % parts), piece_start(blocks, parts, i % parts + 1)};
    if (!interrupted()) run_part(&k, i / parts, part, x, packed, tail, y, buffer);
  }
}

const ConvMethod conv_direct = {direct_packed_size, direct_run_scratch, direct_pack, direct_run};

/* ---- the input's gradient ---- */

/* A gather for each phase of the stride, all of them on the same tiles. works: what is known of each, or NULL */
static Phases phases_of(const ConvGeometry *geometry, Work *works) {
  Tiling shared = gather_backward_tiling(geometry, TILE_MOST, TILE_PIXELS, wanted_tiles());
  Phases phases = phases_begin(geometry, sizeof *works);
  for (long phase = 0; phase < phases.count; phase++) {
    Gather g = gather_backward(geometry, phase);
    Work k = work_for(&g, gather_phase_tiling(&g, shared));
    k.packed = phases_add(&phases, k.packed_size, k.tiling.buffer);
    if (works != NULL) works[phase] = k;
  }
  phases_end(&phases);
  return phases;
}

long direct_backward_input_scratch(const ConvGeometry *geometry) {
  return phases_of(geometry, NULL).size;
}

void direct_backward_input(const ConvGeometry *geometry, const real *dy, const real *w, real *dx, real *scratch) {
  Work *works = (Work *)scratch;
  Phases phases = phases_of(geometry, works);
  long parts = channel_parts(works), blocks = works->g.groups * works->blocks;
#pragma omp parallel if (conv_is_large(geometry))
  {
    real *buffer = scratch + phases.buffers + omp_get_thread_num() * phases.buffer;
    for (long p = 0; p < phases.count; p++) pack(&works[p], w, NULL, scratch + works[p].packed);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (long i = 0; i < works->tiling.count * parts; i++) {
      Part part = {piece_start(blocks, parts, i % parts), piece_start(blocks, parts, i % parts + 1)};
      for (long p = 0; p < phases.count && !interrupted(); p++)
        run_part(&works[p], i / parts, part, dy, scratch + works[p].packed, NULL, dx, buffer);
    }
  }
}
