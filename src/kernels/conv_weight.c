/*
** conv_weight.c -- the gradient of convolution's weights, direct: for every tap and input channel the sum over pixels
*of
** input times the output's gradient. The innermost kernel keeps the sums of some neighbouring inputs of a run x vectors
*of
** output channels in registers while it goes through the pixels of a tile.
*/
#include <string.h>

#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "conv_gather.h"
#include "conv_methods.h"

enum { TILE_MOST = 48 << 10, TILE_PIXELS = 256 };
/* Sums are made in parts of the batch, which are then added in order; their number depends on the sizes alone. */
enum { PARTS_MOST = 16, SUMS_MOST = 4 << 20 };
enum { INPUTS_MOST = 12, VECTORS_MOST = 4, BLOCK_VECTORS = VREGISTERS >= 32 ? 4 : 3 };

/* Inputs whose sums with so many vectors, or 0 for half a one, fit the registers. */
static inline long block_inputs(long vectors) {
  static const long many[] = {12, 12, 12, 8, 6}, few[] = {12, 12, 6, 4, 3};
  return VREGISTERS >= 32 ? many[vectors] : few[vectors];
}

typedef struct Block {
  const real *x; /* the first of the neighbouring inputs of the pixel at offset 0 */
  const long *in_at;
  const real *dy;
  long dy_step, pixels;
  long channel[VECTORS_MOST]; /* of each vector */
  real *sums;                 /* (inputs,vectors,VLANES) */
  bool add;                   /* to what is in sums */
} Block;

/* ---- the innermost kernel ---- */

static inline __attribute__((always_inline)) void sum_block(const Block *b, const int inputs, const int vectors) {
  vreal sum[INPUTS_MOST][VECTORS_MOST];
  const real *dy = b->dy;
#pragma GCC unroll 12
  for (int j = 0; j < inputs; j++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[j][v] = (vreal){0};
  for (long p = 0; p < b->pixels; p++, dy += b->dy_step) {
    const real *x = b->x + b->in_at[p];
    vreal slope[VECTORS_MOST];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) slope[v] = vload(dy + b->channel[v]);
#pragma GCC unroll 12
    for (int j = 0; j < inputs; j++) {
      vreal input = vset(x[j]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[j][v] += input * slope[v];
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < inputs; j++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      real *to = b->sums + (j * vectors + v) * VLANES;
      vstore(to, b->add ? vload(to) + sum[j][v] : sum[j][v]);
    }
}

/* The same for half a vector of channels; its sums still lie VLANES apart. */
static inline __attribute__((always_inline)) void sum_half(const Block *b, const int inputs) {
  vhalf sum[INPUTS_MOST];
  const real *dy = b->dy + b->channel[0];
#pragma GCC unroll 12
  for (int j = 0; j < inputs; j++) sum[j] = (vhalf){0};
  for (long p = 0; p < b->pixels; p++, dy += b->dy_step) {
    const real *x = b->x + b->in_at[p];
    vhalf slope = vload_half(dy);
#pragma GCC unroll 12
    for (int j = 0; j < inputs; j++) sum[j] += vset_half(x[j]) * slope;
  }
#pragma GCC unroll 12
  for (int j = 0; j < inputs; j++) {
    real *to = b->sums + j * VLANES;
    vstore_half(to, b->add ? vload_half(to) + sum[j] : sum[j]);
  }
}

typedef void BlockKernel(const Block *b);

#define HALF_KERNEL(inputs)                                                                                            \
  static void sum_##inputs##_0(const Block *b) {                                                                       \
    sum_half(b, inputs);                                                                                               \
  }
#define BLOCK_KERNEL(inputs, vectors)                                                                                  \
  static void sum_##inputs##_##vectors(const Block *b) {                                                               \
    sum_block(b, inputs, vectors);                                                                                     \
  }
#define BLOCK_KERNELS(vectors)                                                                                         \
  BLOCK_KERNEL(1, vectors)                                                                                             \
  BLOCK_KERNEL(2, vectors)                                                                                             \
  BLOCK_KERNEL(3, vectors) BLOCK_KERNEL(4, vectors) BLOCK_KERNEL(5, vectors) BLOCK_KERNEL(6, vectors)
#define MORE_BLOCK_KERNELS(vectors)                                                                                    \
  BLOCK_KERNEL(7, vectors)                                                                                             \
  BLOCK_KERNEL(8, vectors)                                                                                             \
  BLOCK_KERNEL(9, vectors) BLOCK_KERNEL(10, vectors) BLOCK_KERNEL(11, vectors) BLOCK_KERNEL(12, vectors)
HALF_KERNEL(1)
HALF_KERNEL(2)
HALF_KERNEL(3)
HALF_KERNEL(4)
HALF_KERNEL(5)
HALF_KERNEL(6)
HALF_KERNEL(7)
HALF_KERNEL(8)
HALF_KERNEL(9)
HALF_KERNEL(10)
HALF_KERNEL(11)
HALF_KERNEL(12)
BLOCK_KERNELS(1)
BLOCK_KERNELS(2)
BLOCK_KERNELS(3)
BLOCK_KERNELS(4)
MORE_BLOCK_KERNELS(1)
MORE_BLOCK_KERNELS(2)
BLOCK_KERNEL(7, 3)
BLOCK_KERNEL(8, 3)

static BlockKernel *const block_kernels[VECTORS_MOST + 1][INPUTS_MOST + 1] = {
    {NULL, sum_1_0, sum_2_0, sum_3_0, sum_4_0, sum_5_0, sum_6_0, sum_7_0, sum_8_0, sum_9_0, sum_10_0, sum_11_0,
     sum_12_0},
    {NULL, sum_1_1, sum_2_1, sum_3_1, sum_4_1, sum_5_1, sum_6_1, sum_7_1, sum_8_1, sum_9_1, sum_10_1, sum_11_1,
     sum_12_1},
    {NULL, sum_1_2, sum_2_2, sum_3_2, sum_4_2, sum_5_2, sum_6_2, sum_7_2, sum_8_2, sum_9_2, sum_10_2, sum_11_2,
     sum_12_2},
    {NULL, sum_1_3, sum_2_3, sum_3_3, sum_4_3, sum_5_3, sum_6_3, sum_7_3, sum_8_3},
    {NULL, sum_1_4, sum_2_4, sum_3_4, sum_4_4, sum_5_4, sum_6_4},
};

/* ---- all weights ---- */

typedef struct Work {
  Gather g;
  Runs runs;
  Tiling tiling;
  long vectors, blocks; /* of a group's output channels */
  long depth;           /* weights of one output channel */
  long parts, chunks;   /* of the tiles; of all groups' blocks */
  long part_size;       /* sums: for each group and block of channels (depth,vectors,VLANES) */
  long pixels;          /* of a tile */
  /* positions in the scratch; a buffer and spread slopes for each thread */
  long sums, tables, buffers, slopes;
  long slopes_size, size;
} Work;

static long least(long a, long b) {
  return a < b ? a : b;
}

static Work work_for(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  Work k = {.g = g, .runs = gather_runs(&g), .vectors = gather_vectors(&g), .depth = g.y.taps * g.x.taps * g.cin};
  k.tiling = gather_tiling(&g, TILE_MOST, TILE_PIXELS, PARTS_MOST);
  k.pixels = k.tiling.images * k.tiling.rows * g.x.count;
  k.blocks = gather_blocks(&g, BLOCK_VECTORS);
  k.part_size = g.groups * k.vectors * k.depth * VLANES;
  k.parts = least(least(PARTS_MOST, k.tiling.count), 1 + SUMS_MOST / k.part_size);
  k.chunks = least(g.groups * k.blocks, (PARTS_MOST + k.parts - 1) / k.parts);
  k.sums = gather_reserve(&k.size, k.parts * k.part_size);
  k.tables = gather_reserve(&k.size, (k.runs.count + 2 * k.pixels) * (long)(sizeof(long) / sizeof(real)));
  k.buffers = gather_reserve(&k.size, omp_get_max_threads() * k.tiling.buffer);
  if (g.cout < VLANES) k.slopes_size = k.pixels * VLANES;
  k.slopes = gather_reserve(&k.size, omp_get_max_threads() * k.slopes_size);
  return k;
}

/* Output channels that fill no vector: each pixel's are copied to a vector of their own. */
static void spread_slopes(const Gather *g, const real *dy, long pixels, real *slopes) {
  for (long p = 0; p < pixels; p++) {
    for (long c = 0; c < g->cout; c++) slopes[p * VLANES + c] = dy[p * g->out_c + c];
    for (long c = g->cout; c < VLANES; c++) slopes[p * VLANES + c] = 0;
  }
}

/* One tile's share of the sums of one block of output channels, for all runs. */
static void add_runs(const Work *k, Block b, long kernel, const long *run_at, const real *x) {
  long vectors = kernel > 0 ? kernel : 1, pieces = (k->runs.length + block_inputs(kernel) - 1) / block_inputs(kernel);
  for (long r = 0; r < k->runs.count; r++)
    for (long i = 0; i < pieces; i++) {
      long first = piece_start(k->runs.length, pieces, i), inputs = piece_start(k->runs.length, pieces, i + 1) - first;
      b.x = x + run_at[r] + first;
      block_kernels[kernel][inputs](&b);
      b.sums += inputs * vectors * VLANES;
    }
}

/* What one thread does with one tile. */
typedef struct Share {
  const real *x, *dy;
  real *sums, *slopes;
  const long *run_at, *in_at;
  long pixels;
  bool add;
} Share;

/* One tile's share of the sums of a block, counted over all groups. */
static void add_block(const Work *k, const Share *s, long index) {
  const Gather *g = &k->g;
  long group = index / k->blocks;
  ChannelBlock block = gather_block(g, BLOCK_VECTORS, index % k->blocks);
  Block b = {.in_at = s->in_at, .dy = s->dy + group * g->cout, .dy_step = g->out_c, .pixels = s->pixels, .add = s->add};
  if (g->cout < gather_lanes(&block)) {
    spread_slopes(g, b.dy, s->pixels, s->slopes);
    b.dy = s->slopes;
    b.dy_step = VLANES;
  }
  for (long v = 0; v < block.count; v++) b.channel[v] = gather_channel(g, &block, v);
  b.sums = s->sums + (group * k->vectors + block.first) * k->depth * VLANES;
  add_runs(k, b, block.half ? 0 : block.count, s->run_at, s->x + group * g->cin);
}

/* A chunk of the blocks' sums over one part of the tiles. */
static void sum_part(const Work *k, long part, long chunk, const real *dy, const real *x, real *scratch) {
  long first = piece_start(k->tiling.count, k->parts, part), end = piece_start(k->tiling.count, k->parts, part + 1);
  long blocks = k->g.groups * k->blocks, thread = omp_get_thread_num();
  const long *tables = (const long *)(scratch + k->tables);
  for (long i = first; i < end && !interrupted(); i++) {
    Tile tile = gather_tile(&k->g, &k->tiling, i);
    Share s = {.x = gather_input(&k->g, &tile, x, scratch + k->buffers + thread * k->tiling.buffer),
               .dy = gather_output(&k->g, &tile, (real *)dy),
               .sums = scratch + k->sums + part * k->part_size,
               .slopes = scratch + k->slopes + thread * k->slopes_size,
               .run_at = tables,
               .in_at = tables + k->runs.count,
               .pixels = tile.pixels,
               .add = i > first};
    for (long b = piece_start(blocks, k->chunks, chunk); b < piece_start(blocks, k->chunks, chunk + 1); b++)
      add_block(k, &s, b);
  }
}

/* Vector v of a block's sums, added over the parts, into dw. */
static void unpack_vector(const Work *k, const ChannelBlock *block, long v, const real *sums, real *dw) {
  const Gather *g = &k->g;
  long channel = gather_channel(g, block, v), lanes = least(g->cout, gather_lanes(block));
  long old = (block->first + v) * VLANES - channel; /* lanes that the vector before holds too */
  for (long d = 0; d < k->depth; d++, sums += block->count * VLANES) {
    vreal sum = vload(sums + v * VLANES);
    for (long p = 1; p < k->parts; p++) sum += vload(sums + v * VLANES + p * k->part_size);
    real *to = dw + channel * g->weight_out + d % g->cin * g->weight_in + d / g->cin, lane[VLANES];
    vstore(lane, sum);
    for (long i = old; i < lanes; i++) to[i * g->weight_out] = lane[i];
  }
}

static void unpack_block(const Work *k, const real *scratch, long index, real *dw) {
  long group = index / k->blocks;
  ChannelBlock block = gather_block(&k->g, BLOCK_VECTORS, index % k->blocks);
  const real *sums = scratch + k->sums + (group * k->vectors + block.first) * k->depth * VLANES;
  for (long v = 0; v < block.count; v++) unpack_vector(k, &block, v, sums, dw + group * k->g.weight_group);
}

/* ---- conv_methods.h ---- */

long direct_backward_weight_scratch(const ConvGeometry *geometry) {
  return work_for(geometry).size;
}

void direct_backward_weight(const ConvGeometry *geometry, const real *dy, const real *x, real *dw, real *scratch) {
  Work k = work_for(geometry);
  long *tables = (long *)(scratch + k.tables), blocks = k.g.groups * k.blocks;
  bool many = (double)k.part_size * (double)(k.pixels * k.tiling.count) > 1 << 16;
  gather_run_offsets(&k.g, tables);
  gather_offsets(&k.g, &k.tiling, tables + k.runs.count, tables + k.runs.count + k.pixels);
#pragma omp parallel if (many)
  {
#pragma omp for schedule(dynamic)
    for (long i = 0; i < k.parts * k.chunks; i++) sum_part(&k, i / k.chunks, i % k.chunks, dy, x, scratch);
#pragma omp for
    for (long i = 0; i < blocks; i++) unpack_block(&k, scratch, i, dw);
  }
}
