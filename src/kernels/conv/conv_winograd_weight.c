/*
** conv_winograd_weight.c -- the gradient of the weights by conv_winograd.h's transforms: for each of the N^2 products a
** matrix of sums over tiles, input channels x filters. Few sums are made in parts of the tiles, a thread each; where
** there are many, all threads share the tiles of a chunk and then the products.
*/
#include "../../base/interrupt.h"
#include "../../base/parallel.h"
#include "conv_methods.h"
#include "conv_winograd.h"

#define INLINE WINOGRAD_INLINE

enum { BLOCK_VECTORS = VREGISTERS >= 32 ? 4 : 3, SINGLES_MOST = 12 };

/* ---- the slopes' transform ---- */

/* v = A y A', a vector of channels from c on */
INLINE void transform_slope(const int n, const int m, const int lanes, const real *const *pixels, long c, real *v,
                            long step) {
  vreal half[WINOGRAD_MOST][WINOGRAD_MOST], line[WINOGRAD_MOST] = {0}, result[WINOGRAD_MOST];
#pragma GCC unroll 6
  for (int j = 0; j < m; j++) {
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) line[i] = vload_part(pixels[i * m + j] + c, lanes);
    winograd_slope_line(n, m, line, result);
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) half[i][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < n; i++) {
    winograd_slope_line(n, m, half[i], result);
#pragma GCC unroll 6
    for (int j = 0; j < n; j++) vstore_part(v + (i * n + j) * step + c, result[j], lanes);
  }
}

/* 'lanes' is a constant where all are used. */
INLINE void transform_lanes(const Winograd *k, const int lanes, const real *const *pixels, real *v, long step) {
  for (long i = 0; i < lane_vectors(k->cout); i++) {
    long c = winograd_lane(k->cout, i);
#define TRANSFORM_SLOPE(n, m) transform_slope(n, m, lanes, pixels, c, v, step)
    WINOGRAD_EACH_CUT(k, TRANSFORM_SLOPE)
  }
}

static void transform_slopes(const Winograd *k, const real *const *pixels, real *v, long step) {
  if (k->cout < VLANES)
    transform_lanes(k, winograd_lanes(k->cout), pixels, v, step);
  else
    transform_lanes(k, VLANES, pixels, v, step);
}

/* ---- the sums ---- */

/* One product's operands: rows of all channels, one a tile, and the vectors of filters that are summed. */
typedef struct Block {
  const real *inputs, *slopes;
  long cin, cout, tiles;
  long lane[BLOCK_VECTORS];
  real *sums; /* (cin,vectors,VLANES) */
  bool add;   /* to what is in sums */
} Block;

INLINE int block_singles(int vectors) {
  return VREGISTERS < 32 ? (vectors == 3 ? 4 : vectors == 2 ? 6 : 12) : vectors == 4 ? 6 : vectors == 3 ? 8 : 12;
}

/* The sums of input channels c to c + singles - 1. */
INLINE void sum_singles(const Block *b, const int singles, const int vectors, long c) {
  vreal sum[SINGLES_MOST][BLOCK_VECTORS];
  const real *input = b->inputs + c, *slope = b->slopes;
#pragma GCC unroll 12
  for (int j = 0; j < singles; j++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[j][v] = (vreal){0};
  for (long t = 0; t < b->tiles; t++, input += b->cin, slope += b->cout) {
    vreal vector[BLOCK_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) vector[v] = vload(slope + b->lane[v]);
#pragma GCC unroll 12
    for (int j = 0; j < singles; j++) {
      vreal single = vset(input[j]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[j][v] += single * vector[v];
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < singles; j++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      real *to = b->sums + ((c + j) * vectors + v) * VLANES;
      vstore(to, b->add ? vload(to) + sum[j][v] : sum[j][v]);
    }
}

INLINE void sum_channels(const Block *b, const int vectors) {
  const int many = block_singles(vectors);
  long c = 0;
  for (; c + many <= b->cin; c += many) sum_singles(b, many, vectors, c);
  for (; c + 4 <= b->cin; c += 4) sum_singles(b, 4, vectors, c);
  for (; c < b->cin; c++) sum_singles(b, 1, vectors, c);
}

static void sum_block(const Block *b, long vectors) {
  switch (vectors) {
  case 1:
    sum_channels(b, 1);
    break;
  case 2:
    sum_channels(b, 2);
    break;
  case 3:
    sum_channels(b, 3);
    break;
  default:
    sum_channels(b, BLOCK_VECTORS);
  }
}

/* ---- all weights ---- */

enum { PARTS_MOST = 16, PARTS_LEAST = 8, SUMS_MOST = 5 << 18 };
enum { CHUNK_BYTES = 640 << 10, SHARED_BYTES = 6 << 20, CHUNK_LEAST = 24, CHUNK_MOST = 192 };

typedef struct Work {
  Winograd k;
  long products, blocks, vectors; /* N^2; of filters */
  long parts;                     /* of the tiles; 1: the threads share each chunk */
  long chunk;                     /* tiles at a time */
  long inputs_step, slopes_step;  /* between products */
  long part_size;                 /* sums of all products */
  /* positions in the scratch; inputs and slopes are a part's thread's */
  long zeros, sums, inputs, slopes;
  long inputs_size, slopes_size, size;
} Work;

static long least(long a, long b) {
  return a < b ? a : b;
}

static Work work_for(const ConvGeometry *g) {
  Winograd k = winograd_forward_pass(g);
  Work w = {.k = k, .products = k.n * k.n, .vectors = lane_vectors(k.cout)};
  w.blocks = (w.vectors + BLOCK_VECTORS - 1) / BLOCK_VECTORS;
  w.part_size = w.products * k.cin * w.vectors * VLANES;
  w.parts = least(least(PARTS_MOST, SUMS_MOST / w.part_size), k.tiles / CHUNK_LEAST);
  if (w.parts < PARTS_LEAST) w.parts = 1;
  long a_tile = w.products * (k.cin + k.cout) * (long)sizeof(real);
  w.chunk = (w.parts > 1 ? CHUNK_BYTES : SHARED_BYTES) / a_tile;
  w.chunk = w.chunk < CHUNK_LEAST ? CHUNK_LEAST : least(w.chunk, CHUNK_MOST);
  w.chunk = least(w.chunk, k.tiles);
  w.inputs_step = winograd_step(w.chunk * k.cin);
  w.slopes_step = winograd_step(w.chunk * k.cout);
  w.inputs_size = w.products * w.inputs_step;
  w.slopes_size = w.products * w.slopes_step;
  long threads = w.parts > 1 ? omp_get_max_threads() : 1;
  w.zeros = gather_reserve(&w.size, k.cin > k.cout ? k.cin : k.cout);
  w.sums = gather_reserve(&w.size, w.parts * w.part_size);
  w.inputs = gather_reserve(&w.size, threads * w.inputs_size);
  w.slopes = gather_reserve(&w.size, threads * w.slopes_size);
  return w;
}

/* What both gradients of a tile give, at the i-th row of each product. */
static void transform_tile(const Work *w, long tile, long i, const real *dy, const real *x, const real *zeros,
                           real *inputs, real *slopes) {
  const real *from[WINOGRAD_MOST * WINOGRAD_MOST] = {0};
  winograd_inputs(&w->k, tile, x, zeros, from);
  winograd_transform_input(&w->k, from, inputs + i * w->k.cin, w->inputs_step);
  winograd_outputs(&w->k, tile, dy, zeros, from);
  transform_slopes(&w->k, from, slopes + i * w->k.cout, w->slopes_step);
}

/* A block of filters' sums of one product over a chunk's tiles. */
static void sum_product(const Work *w, long product, long block, long tiles, bool add, const real *inputs,
                        const real *slopes, real *sums) {
  long first = piece_start(w->vectors, w->blocks, block), count = piece_start(w->vectors, w->blocks, block + 1) - first;
  Block b = {.inputs = inputs + product * w->inputs_step,
             .slopes = slopes + product * w->slopes_step,
             .cin = w->k.cin,
             .cout = w->k.cout,
             .tiles = tiles,
             .sums = sums + (product * w->vectors + first) * w->k.cin * VLANES,
             .add = add};
  for (long v = 0; v < count; v++) b.lane[v] = winograd_lane(w->k.cout, first + v);
  sum_block(&b, count);
}

static void sum_part(const Work *w, long part, const real *dy, const real *x, real *scratch) {
  long start = piece_start(w->k.tiles, w->parts, part), end = piece_start(w->k.tiles, w->parts, part + 1);
  real *inputs = scratch + w->inputs + omp_get_thread_num() * w->inputs_size;
  real *slopes = scratch + w->slopes + omp_get_thread_num() * w->slopes_size;
  for (long first = start; first < end && !interrupted(); first += w->chunk) {
    long tiles = least(w->chunk, end - first);
    for (long i = 0; i < tiles; i++) transform_tile(w, first + i, i, dy, x, scratch + w->zeros, inputs, slopes);
    for (long i = 0; i < w->products * w->blocks; i++)
      sum_product(w, i / w->blocks, i % w->blocks, tiles, first > start, inputs, slopes,
                  scratch + w->sums + part * w->part_size);
  }
}

/* Called by all threads. */
static void sum_shared(const Work *w, const real *dy, const real *x, real *scratch) {
  real *inputs = scratch + w->inputs, *slopes = scratch + w->slopes;
  for (long first = 0; first < w->k.tiles; first += w->chunk) {
    long tiles = least(w->chunk, w->k.tiles - first);
#pragma omp for
    for (long i = 0; i < tiles; i++) transform_tile(w, first + i, i, dy, x, scratch + w->zeros, inputs, slopes);
#pragma omp for
    for (long i = 0; i < w->products * w->blocks; i++)
      if (!interrupted())
        sum_product(w, i / w->blocks, i % w->blocks, tiles, first > 0, inputs, slopes, scratch + w->sums);
  }
}

/* The products' sums at one input channel and vector of filters, added over the parts. */
static void add_parts(const Work *w, long c, long vector, const real *sums, vreal all[WINOGRAD_MOST][WINOGRAD_MOST]) {
  long block = 0;
  while (piece_start(w->vectors, w->blocks, block + 1) <= vector) block++;
  long first = piece_start(w->vectors, w->blocks, block), count = piece_start(w->vectors, w->blocks, block + 1) - first;
  for (long p = 0; p < w->products; p++) {
    const real *at = sums + ((p * w->vectors + first) * w->k.cin + c * count + vector - first) * VLANES;
    vreal sum = vload(at);
    for (long part = 1; part < w->parts; part++) sum += vload(at + part * w->part_size);
    all[p / w->k.n][p % w->k.n] = sum;
  }
}

/* dw = G' all G, the lanes that the vector before does not hold */
static void unpack(const Work *w, double g[WINOGRAD_MOST][WINOGRAD_TAPS], long c, long vector, const real *sums,
                   real *dw) {
  vreal all[WINOGRAD_MOST][WINOGRAD_MOST], half[WINOGRAD_TAPS][WINOGRAD_MOST];
  long f = winograd_lane(w->k.cout, vector);
  int side = w->k.side;
  add_parts(w, c, vector, sums, all);
  for (int i = 0; i < side; i++)
    for (int j = 0; j < w->k.n; j++) {
      half[i][j] = (vreal){0};
      for (int l = 0; l < w->k.n; l++) half[i][j] += (real)g[l][i] * all[l][j];
    }
  for (int t = 0; t < side * side; t++) {
    vreal sum = {0};
    for (int l = 0; l < w->k.n; l++) sum += (real)g[l][t % side] * half[t / side][l];
    for (long lane = vector * VLANES - f; lane < winograd_lanes(w->k.cout); lane++)
      dw[(f + lane) * w->k.weight_out + c * w->k.weight_in + t] = sum[lane];
  }
}

/* ---- conv_methods.h ---- */

long winograd_backward_weight_scratch(const ConvGeometry *g) {
  return work_for(g).size;
}

void winograd_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch) {
  Work w = work_for(g);
  double kernels[WINOGRAD_MOST][WINOGRAD_TAPS];
  winograd_kernels(&w.k, kernels);
  memset(scratch + w.zeros, 0, (size_t)(g->c > g->f ? g->c : g->f) * sizeof *scratch);
#pragma omp parallel
  {
    if (w.parts == 1)
      sum_shared(&w, dy, x, scratch);
    else
#pragma omp for schedule(dynamic)
      for (long part = 0; part < w.parts; part++) sum_part(&w, part, dy, x, scratch);
#pragma omp for
    for (long c = 0; c < g->c; c++)
      for (long v = 0; v < w.vectors; v++) unpack(&w, kernels, c, v, scratch + w.sums, dw);
  }
}
