/*
** conv_weight.c -- the gradient of convolution's weights, direct: for every tap, input channel and output channel the
** sum over pixels of input times the output's gradient, its slope. The innermost kernel goes through the pixels of a
** tile with a block of the sums in registers: vectors of one operand, single elements of the other. Vectors are of
** slopes, or of inputs that lie behind each other, whichever fills them better.
*/
#include <string.h>

#include "../../base/interrupt.h"
#include "../../base/parallel.h"
#include "conv_gather.h"
#include "conv_methods.h"

enum { TILE_MOST = 48 << 10, TILE_PIXELS = 256 };
/* Sums are made in parts of the batch, which are then added in order; their number depends on the sizes alone. */
enum { PARTS_MOST = 16, SUMS_MOST = 1 << 20, UNPACKED = 16 };
enum { SINGLES_MOST = 12, VECTORS_MOST = 4, BLOCK_VECTORS = VREGISTERS >= 32 ? 4 : 3 };
#define INLINE static inline __attribute__((always_inline))

/* Singles whose sums with so many vectors, or 0 for half a one, fit the registers. */
static inline long block_singles(long vectors) {
  static const long many[] = {12, 12, 12, 8, 6}, few[] = {12, 12, 6, 4, 3};
  return VREGISTERS >= 32 ? many[vectors] : few[vectors];
}

/* One operand: a number of every pixel, and where it lies for each. */
typedef struct Operand {
  const real *first;
  const long *at;
} Operand;

typedef struct Block {
  Operand vectors, singles;
  long lane[VECTORS_MOST]; /* of each vector, from its operand's first */
  long pixels;
  real *sums; /* (singles,vectors,VLANES) */
  bool add;   /* to what is in sums */
} Block;

/* ---- the innermost kernel ---- */

/* Few sums would wait for each other: pixels are then added to two sets of them in turn. */
enum { SETS_MOST = 2, SUMS_FEW = 6 };

INLINE void add_pixel(const Block *b, long p, const int singles, const int vectors,
                      vreal sum[SINGLES_MOST][VECTORS_MOST]) {
  const real *from = b->vectors.first + b->vectors.at[p], *single = b->singles.first + b->singles.at[p];
  vreal vector[VECTORS_MOST];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) vector[v] = vload(from + b->lane[v]);
#pragma GCC unroll 12
  for (int j = 0; j < singles; j++) {
    vreal factor = vset(single[j]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[j][v] += factor * vector[v];
  }
}

INLINE void sum_block(const Block *b, const int singles, const int vectors) {
  const int sets = singles * vectors <= SUMS_FEW ? 2 : 1;
  vreal sum[SETS_MOST][SINGLES_MOST][VECTORS_MOST];
#pragma GCC unroll 2
  for (int s = 0; s < sets; s++)
#pragma GCC unroll 12
    for (int j = 0; j < singles; j++)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[s][j][v] = (vreal){0};
  long p = 0;
  if (sets == 2)
    for (; p + 2 <= b->pixels; p += 2) {
      add_pixel(b, p, singles, vectors, sum[0]);
      add_pixel(b, p + 1, singles, vectors, sum[1]);
    }
  for (; p < b->pixels; p++) add_pixel(b, p, singles, vectors, sum[0]);
#pragma GCC unroll 12
  for (int j = 0; j < singles; j++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      real *to = b->sums + (j * vectors + v) * VLANES;
      vreal all = sets == 2 ? sum[0][j][v] + sum[1][j][v] : sum[0][j][v];
      vstore(to, b->add ? vload(to) + all : all);
    }
}

/* The same for half a vector; its sums still lie VLANES apart. */
INLINE void add_pixel_half(const Block *b, long p, const int singles, vhalf sum[SINGLES_MOST]) {
  const real *single = b->singles.first + b->singles.at[p];
  vhalf vector = vload_half(b->vectors.first + b->vectors.at[p] + b->lane[0]);
#pragma GCC unroll 12
  for (int j = 0; j < singles; j++) sum[j] += vset_half(single[j]) * vector;
}

INLINE void sum_half(const Block *b, const int singles) {
  const int sets = singles <= 2 * SUMS_FEW ? 2 : 1;
  vhalf sum[SETS_MOST][SINGLES_MOST];
#pragma GCC unroll 2
  for (int s = 0; s < sets; s++)
#pragma GCC unroll 12
    for (int j = 0; j < singles; j++) sum[s][j] = (vhalf){0};
  long p = 0;
  if (sets == 2)
    for (; p + 2 <= b->pixels; p += 2) {
      add_pixel_half(b, p, singles, sum[0]);
      add_pixel_half(b, p + 1, singles, sum[1]);
    }
  for (; p < b->pixels; p++) add_pixel_half(b, p, singles, sum[0]);
#pragma GCC unroll 12
  for (int j = 0; j < singles; j++) {
    real *to = b->sums + j * VLANES;
    vhalf all = sets == 2 ? sum[0][j] + sum[1][j] : sum[0][j];
    vstore_half(to, b->add ? vload_half(to) + all : all);
  }
}

typedef void BlockKernel(const Block *b);

#define HALF_KERNEL(singles)                                                                                           \
  static void sum_##singles##_0(const Block *b) {                                                                      \
    sum_half(b, singles);                                                                                              \
  }
#define BLOCK_KERNEL(singles, vectors)                                                                                 \
  static void sum_##singles##_##vectors(const Block *b) {                                                              \
    sum_block(b, singles, vectors);                                                                                    \
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

static BlockKernel *const block_kernels[VECTORS_MOST + 1][SINGLES_MOST + 1] = {
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
  bool turned;          /* vectors are of inputs, not of slopes */
  long depth;           /* weights of one output channel */
  long outer;           /* groups; turned: runs */
  long numbers, single; /* in vectors, and one by one; of each outer */
  long vectors, blocks; /* of numbers */
  long parts, chunks;   /* of the tiles; of all outers' blocks */
  long part_size;       /* sums: for each outer and block of vectors (single,vectors,VLANES) */
  long pixels;          /* of a tile */
  /* positions in the scratch; a buffer and the spread slopes are a thread's */
  long sums, run_at, in_at, out_at, spread_at, buffers, spread;
  long spread_size, size;
} Work;

static long least(long a, long b) {
  return a < b ? a : b;
}

/* How the sums are cut into vectors and singles. */
static void choose_vectors(Work *k) {
  const Gather *g = &k->g;
  double slopes = lane_cost(g->cout) * (double)k->depth;
  double inputs = lane_cost(k->runs.length) * (double)(k->runs.count * g->cout);
  k->turned = g->groups == 1 && inputs < slopes && k->runs.length >= VLANES;
  k->outer = k->turned ? k->runs.count : g->groups;
  k->numbers = k->turned ? k->runs.length : g->cout;
  k->single = k->turned ? g->cout : k->depth;
  k->vectors = lane_vectors(k->numbers);
  k->blocks = lane_blocks(k->numbers, BLOCK_VECTORS);
}

static Work work_for(const ConvGeometry *geometry) {
  Gather g = gather_forward(geometry);
  Work k = {.g = g, .runs = gather_runs(&g), .depth = g.y.taps * g.x.taps * g.cin};
  long threads = omp_get_max_threads();
  choose_vectors(&k);
  k.part_size = k.outer * k.vectors * k.single * VLANES;
  k.parts = least(PARTS_MOST, 1 + SUMS_MOST / k.part_size);
  k.tiling = gather_tiling(&g, TILE_MOST, TILE_PIXELS, k.parts);
  k.parts = least(k.parts, k.tiling.count);
  k.pixels = k.tiling.images * k.tiling.rows * g.x.count;
  k.chunks = least(k.outer * k.blocks, (PARTS_MOST + k.parts - 1) / k.parts);
  k.sums = gather_reserve(&k.size, k.parts * k.part_size);
  k.run_at = gather_reserve_longs(&k.size, k.runs.count);
  k.in_at = gather_reserve_longs(&k.size, k.pixels);
  k.out_at = gather_reserve_longs(&k.size, k.pixels);
  k.spread_at = gather_reserve_longs(&k.size, k.pixels);
  k.buffers = gather_reserve(&k.size, threads * k.tiling.buffer);
  k.spread_size = g.cout < VLANES ? k.pixels * VLANES : 0;
  k.spread = gather_reserve(&k.size, threads * k.spread_size);
  return k;
}

static void fill_tables(const Work *k, real *scratch) {
  long *spread_at = gather_longs(scratch, k->spread_at);
  gather_run_offsets(&k->g, gather_longs(scratch, k->run_at));
  gather_offsets(&k->g, &k->tiling, gather_longs(scratch, k->in_at), gather_longs(scratch, k->out_at));
  for (long p = 0; p < k->pixels; p++) spread_at[p] = p * VLANES;
}

/* A vector of fewer channels than it has lanes reaches into the next pixel. The last tile's are copied: none follows. */
static void spread_slopes(const Work *k, const real *dy, long pixels, real *slopes) {
  for (long p = 0; p < pixels; p++) {
    for (long c = 0; c < k->g.cout; c++) slopes[p * VLANES + c] = dy[p * k->g.out_c + c];
    for (long c = k->g.cout; c < VLANES; c++) slopes[p * VLANES + c] = 0;
  }
}

/* What one thread does with one tile. */
typedef struct Share {
  Operand inputs, slopes;
  real *spread, *sums;
  real *scratch;
  long pixels;
  bool last; /* of all tiles */
  bool add;
} Share;

/* The block's sums with 'count' single elements from element 'first' of each pixel on; sums are appended. */
static void add_singles(Block *b, long kernel, long first, long count) {
  long pieces = (count + block_singles(kernel) - 1) / block_singles(kernel), vectors = kernel > 0 ? kernel : 1;
  const real *start = b->singles.first;
  for (long i = 0; i < pieces; i++) {
    long from = piece_start(count, pieces, i), singles = piece_start(count, pieces, i + 1) - from;
    b->singles.first = start + first + from;
    block_kernels[kernel][singles](b);
    b->sums += singles * vectors * VLANES;
  }
  b->singles.first = start;
}

/* One tile's share of the sums of a block, counted over all outers. */
static void add_block(const Work *k, const Share *s, long index) {
  const long *run_at = gather_longs(s->scratch, k->run_at);
  long outer = index / k->blocks;
  LaneBlock block = lane_block(k->numbers, BLOCK_VECTORS, index % k->blocks);
  Block b = {.vectors = k->turned ? s->inputs : s->slopes,
             .singles = k->turned ? s->slopes : s->inputs,
             .pixels = s->pixels,
             .sums = s->sums + (outer * k->vectors + block.first) * k->single * VLANES,
             .add = s->add};
  long kernel = block.half ? 0 : block.count;
  for (long v = 0; v < block.count; v++) b.lane[v] = lane_first(k->numbers, &block, v);
  if (k->turned) {
    b.vectors.first += run_at[outer];
    add_singles(&b, kernel, 0, k->single);
    return;
  }
  b.vectors.first += outer * k->g.cout;
  b.singles.first += outer * k->g.cin;
  if (s->last && k->g.cout < lane_width(&block)) {
    spread_slopes(k, b.vectors.first, s->pixels, s->spread);
    b.vectors = (Operand){s->spread, gather_longs(s->scratch, k->spread_at)};
  }
  for (long r = 0; r < k->runs.count; r++) add_singles(&b, kernel, run_at[r], k->runs.length);
}

/* A chunk of the blocks' sums over one part of the tiles. */
static void sum_part(const Work *k, long part, long chunk, const real *dy, const real *x, real *scratch) {
  long first = piece_start(k->tiling.count, k->parts, part), end = piece_start(k->tiling.count, k->parts, part + 1);
  long blocks = k->outer * k->blocks, thread = omp_get_thread_num();
  for (long i = first; i < end && !interrupted(); i++) {
    Tile tile = gather_tile(&k->g, &k->tiling, i);
    const real *input = gather_input(&k->g, &tile, x, scratch + k->buffers + thread * k->tiling.buffer);
    Share s = {.inputs = {input, gather_longs(scratch, k->in_at)},
               .slopes = {gather_output(&k->g, &tile, (real *)dy), gather_longs(scratch, k->out_at)},
               .spread = scratch + k->spread + thread * k->spread_size,
               .sums = scratch + k->sums + part * k->part_size,
               .scratch = scratch,
               .pixels = tile.pixels,
               .last = i == k->tiling.count - 1,
               .add = i > first};
    for (long b = piece_start(blocks, k->chunks, chunk); b < piece_start(blocks, k->chunks, chunk + 1); b++)
      add_block(k, &s, b);
  }
}

/* Where the weight of output channel f and the d-th input of its taps lies in a group. */
static long weight_at(const Gather *g, long f, long d) {
  return f * g->weight_out + d % g->cin * g->weight_in + d / g->cin;
}

/* The sums of vector v with single number j, added over the parts, into dw; sums are those of the block. */
static void unpack_sums(const Work *k, long outer, const LaneBlock *block, long v, long j, const real *sums, real *dw) {
  long first = lane_first(k->numbers, block, v), lanes = least(k->numbers, lane_width(block));
  long old = (block->first + v) * VLANES - first; /* lanes that the vector before holds too */
  sums += (j * block->count + v) * VLANES;
  vreal sum = vload(sums);
  for (long p = 1; p < k->parts; p++) sum += vload(sums + p * k->part_size);
  for (long i = old; i < lanes; i++) {
    if (k->turned)
      dw[weight_at(&k->g, j, outer * k->runs.length + first + i)] = sum[i];
    else
      dw[outer * k->g.weight_group + weight_at(&k->g, first + i, j)] = sum[i];
  }
}

/* A few input channels at a time, so that all taps of theirs stay in cache. */
static void unpack_vector(const Work *k, long outer, const LaneBlock *block, long v, const real *sums, real *dw) {
  long cin = k->turned ? k->single : k->g.cin;
  for (long first = 0; first < cin; first += UNPACKED)
    for (long t = 0; t < k->single; t += cin)
      for (long c = first; c < least(first + UNPACKED, cin); c++) unpack_sums(k, outer, block, v, t + c, sums, dw);
}

static void unpack_block(const Work *k, const real *scratch, long index, real *dw) {
  long outer = index / k->blocks;
  LaneBlock block = lane_block(k->numbers, BLOCK_VECTORS, index % k->blocks);
  const real *sums = scratch + k->sums + (outer * k->vectors + block.first) * k->single * VLANES;
  for (long v = 0; v < block.count; v++) unpack_vector(k, outer, &block, v, sums, dw);
}

/* ---- conv_methods.h ---- */

long direct_backward_weight_scratch(const ConvGeometry *geometry) {
  return work_for(geometry).size;
}

void direct_backward_weight(const ConvGeometry *geometry, const real *dy, const real *x, real *dw, real *scratch) {
  Work k = work_for(geometry);
  long blocks = k.outer * k.blocks;
  bool many = (double)k.part_size * (double)(k.pixels * k.tiling.count) > 1 << 16;
  fill_tables(&k, scratch);
#pragma omp parallel if (many)
  {
#pragma omp for schedule(dynamic)
    for (long i = 0; i < k.parts * k.chunks; i++) sum_part(&k, i / k.chunks, i % k.chunks, dy, x, scratch);
#pragma omp for
    for (long i = 0; i < blocks; i++) unpack_block(&k, scratch, i, dw);
  }
}
