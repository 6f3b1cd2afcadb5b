/* conv_winograd.c -- forward and the input's gradient by conv_winograd.h's transforms. */
#include "conv_winograd.h"

#include "../../base/interrupt.h"
#include "../../base/parallel.h"
#include "conv_methods.h"
#include "../common/panel.h"

#define INLINE WINOGRAD_INLINE

void winograd_kernels(const Winograd *k, double g[WINOGRAD_MOST][WINOGRAD_TAPS]) {
  static const double points[] = {0, 1, -1, 2, -2};
  static const double scales[WINOGRAD_MOST + 1][WINOGRAD_MOST] = {
      [4] = {1, 1.0 / 2, 1.0 / 2},
      [5] = {1.0 / 2, -1.0 / 2, -1.0 / 6, 1.0 / 6},
      [6] = {1.0 / 4, -1.0 / 6, -1.0 / 6, 1.0 / 24, 1.0 / 24},
  };
  for (int t = 0; t < k->side; t++) {
    for (int p = 0; p < k->n - 1; p++) g[p][t] = t == 0 ? scales[k->n][p] : g[p][t - 1] * points[p];
    g[k->n - 1][t] = t == k->side - 1;
  }
}

/* ---- tiles ---- */

bool winograd_fits(const ConvGeometry *g) {
  return g->kh == g->kw && g->kh >= 3 && g->kh <= WINOGRAD_TAPS && g->stride_h == 1 && g->stride_w == 1 &&
         g->dilation_h == 1 && g->dilation_w == 1 && g->groups == 1 && g->c > VLANES / 2 && g->f > VLANES / 2;
}

static void cut(Winograd *k, int m) {
  k->m = m;
  k->n = m + k->side - 1;
  k->tiles_h = (k->out_h + m - 1) / m;
  k->tiles_w = (k->out_w + m - 1) / m;
  k->tiles = k->images * k->tiles_h * k->tiles_w;
}

/* Measured: what a transform's vector costs beside a multiply-add, loads and stores with it; also of slopes. */
enum { TRANSFORM = 6, SLOPE_TRANSFORM = 9 };

static double products_of(const Winograd *k) {
  return (double)k->cin * (double)lane_vectors(k->cout);
}

static double multiplying(const Winograd *k, int transform) {
  double vectors = (double)(lane_vectors(k->cin) + lane_vectors(k->cout));
  return (double)(k->tiles_h * k->tiles_w) * (products_of(k) + transform * vectors);
}

double winograd_cost(const Winograd *k) {
  return k->n * k->n * (multiplying(k, TRANSFORM) + winograd_reading(k->single, products_of(k)));
}

double winograd_weight_cost(const Winograd *k) {
  return k->n * k->n * multiplying(k, SLOPE_TRANSFORM);
}

static Winograd best_cut(Winograd k) {
  Winograd best = k;
  int most = WINOGRAD_MOST - k.side + 1;
  cut(&best, most);
  for (int m = 2; m < most; m++) {
    cut(&k, m);
    if (winograd_cost(&k) < winograd_cost(&best)) best = k;
  }
  return best;
}

Winograd winograd_forward_pass(const ConvGeometry *g) {
  return best_cut((Winograd){.images = g->n,
                             .in_h = g->h,
                             .in_w = g->w,
                             .cin = g->c,
                             .out_h = g->oh,
                             .out_w = g->ow,
                             .cout = g->f,
                             .top = g->top,
                             .left = g->left,
                             .side = (int)g->kh,
                             .weight_in = g->kh * g->kw,
                             .weight_out = g->kh * g->kw * g->c,
                             .single = g->single});
}

Winograd winograd_backward_pass(const ConvGeometry *g) {
  return best_cut((Winograd){.images = g->n,
                             .in_h = g->oh,
                             .in_w = g->ow,
                             .cin = g->f,
                             .out_h = g->h,
                             .out_w = g->w,
                             .cout = g->c,
                             .top = g->kh - 1 - g->top,
                             .left = g->kw - 1 - g->left,
                             .side = (int)g->kh,
                             .weight_in = g->kh * g->kw * g->c,
                             .weight_out = g->kh * g->kw,
                             .turned = true});
}

typedef struct Place {
  long image, row, column;
} Place;

static Place tile_place(const Winograd *k, long tile) {
  long a_row = k->tiles_w, an_image = k->tiles_h * k->tiles_w;
  return (Place){tile / an_image, tile % an_image / a_row * k->m, tile % a_row * k->m};
}

void winograd_inputs(const Winograd *k, long tile, const real *x, const real *zeros, const real **pixels) {
  Place at = tile_place(k, tile);
  const real *image = x + at.image * k->in_h * k->in_w * k->cin;
  for (long i = 0; i < k->n; i++)
    for (long j = 0; j < k->n; j++) {
      long row = at.row - k->top + i, column = at.column - k->left + j;
      bool inside = row >= 0 && row < k->in_h && column >= 0 && column < k->in_w;
      *pixels++ = inside ? image + (row * k->in_w + column) * k->cin : zeros;
    }
}

void winograd_outputs(const Winograd *k, long tile, const real *y, const real *outside, const real **pixels) {
  Place at = tile_place(k, tile);
  const real *image = y + at.image * k->out_h * k->out_w * k->cout;
  for (long i = at.row; i < at.row + k->m; i++)
    for (long j = at.column; j < at.column + k->m; j++)
      *pixels++ = i < k->out_h && j < k->out_w ? image + (i * k->out_w + j) * k->cout : outside;
}

/* ---- transforms ---- */

INLINE void transform_input(const int n, const int lanes, const real *const *pixels, long c, real *v, long step) {
  vreal half[WINOGRAD_MOST][WINOGRAD_MOST], line[WINOGRAD_MOST] = {0}, result[WINOGRAD_MOST];
#pragma GCC unroll 6
  for (int j = 0; j < n; j++) {
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) line[i] = vload_part(pixels[i * n + j] + c, lanes);
    winograd_input_line(n, line, result);
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) half[i][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < n; i++) {
    winograd_input_line(n, half[i], result);
#pragma GCC unroll 6
    for (int j = 0; j < n; j++) vstore_part(v + (i * n + j) * step + c, result[j], lanes);
  }
}

/* 'lanes' is a constant where all are used. */
INLINE void transform_inputs(const Winograd *k, const int lanes, const real *const *pixels, real *v, long step) {
  for (long i = 0; i < lane_vectors(k->cin); i++) {
    long c = winograd_lane(k->cin, i);
    switch (k->n) {
    case 4:
      transform_input(4, lanes, pixels, c, v, step);
      break;
    case 5:
      transform_input(5, lanes, pixels, c, v, step);
      break;
    default:
      transform_input(6, lanes, pixels, c, v, step);
    }
  }
}

void winograd_transform_input(const Winograd *k, const real *const *pixels, real *v, long step) {
  if (k->cin < VLANES)
    transform_inputs(k, winograd_lanes(k->cin), pixels, v, step);
  else
    transform_inputs(k, VLANES, pixels, v, step);
}

/* Where results go: a tile's pixels, NULL beyond the edge, and what is done to them on the way. */
typedef struct Target {
  const real *pixels[WINOGRAD_MOST * WINOGRAD_MOST];
  real *y;
  const Tail *tail;
} Target;

/* y = tail(A' v A + start), a vector of channels from 'c' on */
INLINE void transform_output(const int n, const int m, const int lanes, const real *v, long step, vreal start,
                             const Target *to, long c) {
  vreal half[WINOGRAD_MOST][WINOGRAD_MOST], line[WINOGRAD_MOST] = {0}, result[WINOGRAD_MOST];
#pragma GCC unroll 6
  for (int j = 0; j < n; j++) {
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) line[i] = vload(v + (i * n + j) * step);
    winograd_output_line(n, m, line, result);
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) half[i][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < m; i++) {
    winograd_output_line(n, m, half[i], result);
#pragma GCC unroll 6
    for (int j = 0; j < m; j++) {
      if (to->pixels[i * m + j] == NULL) continue;
      long at = to->pixels[i * m + j] - to->y + c;
      vreal y = result[j] + start;
      vstore_part(to->y + at, to->tail != NULL ? tail_vector(to->tail, y, at, lanes) : y, lanes);
    }
  }
}

/* ---- the products ---- */

/* out (rows,vectors) = v (rows,depth) w (depth,vectors); rows of v lie 'depth' apart */
INLINE void multiply_rows(const int rows, const int vectors, long depth, const real *v, const real *w, real *out) {
  vreal sums[PANEL_ROWS][PANEL_VECTORS];
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) sums[r][i] = (vreal){0};
  panel_add(rows, vectors, depth, v, depth, 1, w, sums);
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) vstore(out + (r * vectors + i) * VLANES, sums[r][i]);
}

INLINE void multiply(const int vectors, long rows, long depth, const real *v, const real *w, real *out) {
  const int many = panel_rows(vectors);
  for (; rows >= many; rows -= many, v += many * depth, out += many * vectors * VLANES)
    multiply_rows(many, vectors, depth, v, w, out);
  for (; rows >= 3; rows -= 3, v += 3 * depth, out += 3 * vectors * VLANES) multiply_rows(3, vectors, depth, v, w, out);
  for (; rows > 0; rows--, v += depth, out += vectors * VLANES) multiply_rows(1, vectors, depth, v, w, out);
}

static void multiply_block(long vectors, long rows, long depth, const real *v, const real *w, real *out) {
  switch (vectors) {
  case 1:
    multiply(1, rows, depth, v, w, out);
    break;
  case 2:
    multiply(2, rows, depth, v, w, out);
    break;
  case 3:
    multiply(3, rows, depth, v, w, out);
    break;
  default:
    multiply(PANEL_VECTORS, rows, depth, v, w, out);
  }
}

/* ---- one pass ---- */

enum { CHUNK_BYTES = 640 << 10, CHUNK_LEAST = 24, CHUNK_MOST = 96, CHUNKS_A_THREAD = 4 };

typedef struct Work {
  Winograd k;
  long products, blocks, vectors; /* N^2; of output channels */
  bool shared;                    /* all tiles are one chunk, on which all threads work */
  long chunk;                     /* tiles at a time */
  long v_step, m_step;            /* between products, of transformed inputs and of results */
  long weights, starts, packed_size;
  /* positions in the scratch; where not shared, inputs and results are a thread's */
  long zeros, inputs, results;
  long inputs_size, results_size, size;
} Work;

static long block_first(const Work *w, long block) {
  return piece_start(w->vectors, w->blocks, block);
}
static long block_vectors(const Work *w, long block) {
  return block_first(w, block + 1) - block_first(w, block);
}

/* Tiles of a chunk: what fits the cache next to the results of a block, but no less than the product's kernel wants to
   have. Too few for chunks of that many for every thread are shared. */
static void choose_chunk(Work *w, long widest, long threads) {
  long a_tile = w->products * (w->k.cin + widest) * (long)sizeof(real);
  long most = CHUNK_BYTES / a_tile / CHUNK_LEAST * CHUNK_LEAST;
  long share = (w->k.tiles + CHUNKS_A_THREAD * threads - 1) / (CHUNKS_A_THREAD * threads);
  w->shared = threads > 1 && w->k.tiles < CHUNK_LEAST * threads;
  w->chunk = most < CHUNK_LEAST ? CHUNK_LEAST : most > CHUNK_MOST ? CHUNK_MOST : most;
  if (w->chunk > share) w->chunk = share < CHUNK_LEAST ? CHUNK_LEAST : share;
  if (w->shared || w->chunk > w->k.tiles) w->chunk = w->k.tiles;
}

static Work work_for(const Winograd *k) {
  Work w = {.k = *k, .products = k->n * k->n, .vectors = lane_vectors(k->cout)};
  w.blocks = (w.vectors + PANEL_VECTORS - 1) / PANEL_VECTORS;
  long widest = (w.vectors + w.blocks - 1) / w.blocks * VLANES, threads = omp_get_max_threads();
  choose_chunk(&w, widest, threads);
  w.v_step = winograd_step(w.chunk * k->cin);
  w.m_step = winograd_step(w.chunk * widest);
  w.inputs_size = w.products * w.v_step;
  w.results_size = w.products * w.m_step;
  w.weights = gather_reserve(&w.packed_size, w.products * k->cin * w.vectors * VLANES);
  w.starts = gather_reserve(&w.packed_size, w.vectors * VLANES);
  w.zeros = gather_reserve(&w.size, k->cin);
  w.inputs = gather_reserve(&w.size, (w.shared ? 1 : threads) * w.inputs_size);
  w.results = gather_reserve(&w.size, (w.shared ? w.blocks : threads) * w.results_size);
  return w;
}

/* ---- weights ---- */

/* A block's weights: for each product (cin,vectors,VLANES) */
static long block_weights(const Work *w, long block, long product) {
  return w->weights + (block_first(w, block) * w->products + product * block_vectors(w, block)) * w->k.cin * VLANES;
}

/* The product of a row of G and 'side' vectors, 'step' apart. */
INLINE vreal times_kernel(int side, const double *g, const real *taps, long step) {
  vreal sum = (real)g[0] * vload(taps);
  for (int t = 1; t < side; t++) sum += (real)g[t] * vload(taps + t * step);
  return sum;
}

/* to (N,N) = G taps G', vectors 'step' apart;  taps (side,side) */
static void transform_taps(const Winograd *k, double g[WINOGRAD_MOST][WINOGRAD_TAPS], const real *taps, real *to,
                           long step) {
  real half[WINOGRAD_MOST * WINOGRAD_TAPS * VLANES];
  int side = k->side;
  for (int i = 0; i < k->n; i++)
    for (int j = 0; j < side; j++)
      vstore(half + (side * i + j) * VLANES, times_kernel(side, g[i], taps + j * VLANES, side * VLANES));
  for (int i = 0; i < k->n; i++)
    for (int j = 0; j < k->n; j++, to += step) vstore(to, times_kernel(side, g[j], half + side * i * VLANES, VLANES));
}

/* Weights of input channel c and the vector of output channels from f on, transformed. */
static void pack_vector(const Work *w, double g[WINOGRAD_MOST][WINOGRAD_TAPS], const real *weights, long c, long f,
                        real *to, long step) {
  real taps[WINOGRAD_TAPS * WINOGRAD_TAPS * VLANES] = {0};
  long count = w->k.side * w->k.side;
  const real *from = weights + c * w->k.weight_in + f * w->k.weight_out;
  for (long lane = 0; lane < winograd_lanes(w->k.cout); lane++, from += w->k.weight_out)
    for (long t = 0; t < count; t++) taps[t * VLANES + lane] = from[w->k.turned ? count - 1 - t : t];
  transform_taps(&w->k, g, taps, to, step);
}

/* Called by all threads. */
static void pack(const Work *w, const real *weights, const real *bias, real *packed) {
  int lanes = winograd_lanes(w->k.cout);
  double g[WINOGRAD_MOST][WINOGRAD_TAPS];
  winograd_kernels(&w->k, g);
#pragma omp for
  for (long i = 0; i < w->vectors; i++) {
    long block = 0;
    while (block_first(w, block + 1) <= i) block++;
    long count = block_vectors(w, block), f = winograd_lane(w->k.cout, i);
    real *to = packed + block_weights(w, block, 0) + (i - block_first(w, block)) * VLANES;
    for (long c = 0; c < w->k.cin; c++)
      pack_vector(w, g, weights, c, f, to + c * count * VLANES, w->k.cin * count * VLANES);
    vstore(packed + w->starts + i * VLANES, bias != NULL ? vload_part(bias + f, lanes) : vset(0));
  }
}

/* ---- a chunk ---- */

static void split_tile(const Work *w, long tile, long row, const real *x, const real *zeros, real *inputs) {
  const real *pixels[WINOGRAD_MOST * WINOGRAD_MOST] = {0};
  winograd_inputs(&w->k, tile, x, zeros, pixels);
  winograd_transform_input(&w->k, pixels, inputs + row * w->k.cin, w->v_step);
}

static void multiply_product(const Work *w, long block, long product, long tiles, const real *inputs,
                             const real *packed, real *results) {
  multiply_block(block_vectors(w, block), tiles, w->k.cin, inputs + product * w->v_step,
                 packed + block_weights(w, block, product), results + product * w->m_step);
}

INLINE void join_lanes(const Work *w, const int lanes, long block, long tile, long row, const real *results,
                       const real *packed, Target *to) {
  long first = block_first(w, block), count = block_vectors(w, block);
  winograd_outputs(&w->k, tile, to->y, NULL, to->pixels);
  for (long v = 0; v < count; v++) {
    long c = winograd_lane(w->k.cout, first + v);
    vreal start = vload(packed + w->starts + (first + v) * VLANES);
    const real *at = results + (row * count + v) * VLANES;
#define TRANSFORM_OUTPUT(n, m) transform_output(n, m, lanes, at, w->m_step, start, to, c)
    WINOGRAD_EACH_CUT(&w->k, TRANSFORM_OUTPUT)
  }
}

static void join_tile(const Work *w, long block, long tile, long row, const real *results, const real *packed,
                      Target *to) {
  if (w->k.cout < VLANES)
    join_lanes(w, winograd_lanes(w->k.cout), block, tile, row, results, packed, to);
  else
    join_lanes(w, VLANES, block, tile, row, results, packed, to);
}

static void run_chunk(const Work *w, long chunk, const real *x, const real *packed, const Tail *tail, real *y,
                      real *scratch) {
  long first = chunk * w->chunk, rest = w->k.tiles - first, tiles = rest < w->chunk ? rest : w->chunk;
  real *inputs = scratch + w->inputs + omp_get_thread_num() * w->inputs_size;
  real *results = scratch + w->results + omp_get_thread_num() * w->results_size;
  Target to = {.y = y, .tail = tail};
  for (long t = 0; t < tiles; t++) split_tile(w, first + t, t, x, scratch + w->zeros, inputs);
  for (long block = 0; block < w->blocks; block++) {
    for (long p = 0; p < w->products; p++) multiply_product(w, block, p, tiles, inputs, packed, results);
    for (long t = 0; t < tiles; t++) join_tile(w, block, first + t, t, results, packed, &to);
  }
}

/* Called by all threads. */
static void run_shared(const Work *w, const real *x, const real *packed, const Tail *tail, real *y, real *scratch) {
  real *inputs = scratch + w->inputs, *results = scratch + w->results;
  Target to = {.y = y, .tail = tail};
#pragma omp for
  for (long t = 0; t < w->k.tiles; t++) split_tile(w, t, t, x, scratch + w->zeros, inputs);
#pragma omp for
  for (long i = 0; i < w->products * w->blocks; i++)
    multiply_product(w, i / w->products, i % w->products, w->k.tiles, inputs, packed,
                     results + i / w->products * w->results_size);
#pragma omp for
  for (long i = 0; i < w->k.tiles * w->blocks; i++) {
    long block = i % w->blocks, tile = i / w->blocks;
    join_tile(w, block, tile, tile, results + block * w->results_size, packed, &to);
  }
}

/* Called by all threads. */
static void run(const Work *w, const real *x, const real *packed, const Tail *tail, real *y, real *scratch) {
#pragma omp single
  memset(scratch + w->zeros, 0, (size_t)w->k.cin * sizeof *scratch);
  if (w->shared) {
    run_shared(w, x, packed, tail, y, scratch);
    return;
  }
#pragma omp for schedule(dynamic)
  for (long i = 0; i < (w->k.tiles + w->chunk - 1) / w->chunk; i++)
    if (!interrupted()) run_chunk(w, i, x, packed, tail, y, scratch);
}

/* ---- conv_methods.h ---- */

static Work forward_work(const ConvGeometry *g) {
  Winograd k = winograd_forward_pass(g);
  return work_for(&k);
}

static long winograd_packed_size(const ConvGeometry *g) {
  return forward_work(g).packed_size;
}
static long winograd_run_scratch(const ConvGeometry *g) {
  return forward_work(g).size;
}
static void winograd_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed) {
  Work work = forward_work(g);
  pack(&work, w, bias, packed);
}
static void winograd_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y,
                         real *scratch) {
  Work work = forward_work(g);
  run(&work, x, packed, tail, y, scratch);
}

const ConvMethod conv_winograd = {winograd_packed_size, winograd_run_scratch, winograd_pack, winograd_run};

long winograd_backward_input_scratch(const ConvGeometry *g) {
  Winograd k = winograd_backward_pass(g);
  Work w = work_for(&k);
  return w.packed_size + w.size;
}

void winograd_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch) {
  Winograd k = winograd_backward_pass(g);
  Work work = work_for(&k);
#pragma omp parallel if (conv_is_large(g))
  {
    pack(&work, w, NULL, scratch);
    run(&work, dy, scratch, NULL, dx, scratch + work.packed_size);
  }
}
