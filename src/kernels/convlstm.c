/* convlstm.c -- see convlstm.h. A few images go through all steps while what a step makes of them is still in cache, so
   that the convolutions' results are read there by the pass that turns them into gates and state. Where a batch has too
   few such pieces for the threads it goes as one, and the threads share each convolution and pass. */
#include "convlstm.h"

#include <string.h>

#include "../base/interrupt.h"
#include "product.h"
#include "recurrent.h"

/* Numbers of gates in a piece; pieces below which the batch is one; pixels that a pass goes through at a time. */
enum { GATES = 4, PIECE_GATES = 1 << 18, PIECES_LEAST = 8, STRIP_PIXELS = 1024 };

#define INLINE static inline __attribute__((always_inline))

static ConvGeometry same_size_conv(const ConvLstmGeometry *g, long images, long channels) {
  return (ConvGeometry){.n = images,
                        .c = channels,
                        .h = g->h,
                        .w = g->w,
                        .f = GATES * g->f,
                        .kh = g->kh,
                        .kw = g->kw,
                        .oh = g->h,
                        .ow = g->w,
                        .stride_h = 1,
                        .stride_w = 1,
                        .dilation_h = 1,
                        .dilation_w = 1,
                        .top = (g->kh - 1) / 2,
                        .left = (g->kw - 1) / 2,
                        .groups = 1};
}
ConvGeometry convlstm_input_conv(const ConvLstmGeometry *g, long images) {
  return same_size_conv(g, images, g->c);
}
ConvGeometry convlstm_state_conv(const ConvLstmGeometry *g, long images) {
  return same_size_conv(g, images, g->f);
}

/* ---- pieces of the batch ---- */

static long piece_count(const ConvLstmGeometry *g) {
  double images = PIECE_GATES / ((double)GATES * (double)g->f * (double)g->h * (double)g->w);
  long pieces = images <= 1 ? g->n : (long)((double)g->n / images);
  return pieces < PIECES_LEAST ? 1 : pieces;
}

/* Images of the largest piece; others have one less, or as many. */
static long piece_most(const ConvLstmGeometry *g) {
  long pieces = piece_count(g);
  return (g->n + pieces - 1) / pieces;
}

/* How many parts each pass through a piece has. */
static long strip_count(const ConvLstmGeometry *g) {
  return blocks_of(piece_most(g) * g->h * g->w, STRIP_PIXELS);
}

static long larger(long a, long b) {
  return a > b ? a : b;
}

/* What a convolution of any piece wants; of several pieces each is one thread's own. */
static long piece_scratch(const ConvLstmGeometry *g, ConvGeometry (*conv)(const ConvLstmGeometry *g, long images),
                          long (*size)(const ConvGeometry *)) {
  long most = piece_most(g);
  int threads = omp_get_max_threads();
  if (piece_count(g) > 1) omp_set_num_threads(1);
  ConvGeometry whole = conv(g, most), less = conv(g, most > 1 ? most - 1 : 1);
  long scratch = larger(size(&whole), size(&less));
  omp_set_num_threads(threads);
  return blocks_of(scratch, VLANES) * VLANES;
}

/* How many threads need a part of the scratch of their own. */
static long pieces_at_once(const ConvLstmGeometry *g) {
  return piece_count(g) > 1 ? omp_get_max_threads() : 1;
}

/* ---- forward ---- */

/* Pixels that lie behind each other; NULL: zeros. */
typedef struct CellForward {
  const real *from_state, *c_before;
  real *gates, *h_after, *c_after;
} CellForward;

INLINE vreal or_zero(const real *p, long at, int lanes) {
  return p != NULL ? load_lanes(p + at, lanes) : (vreal){0};
}

/* Channels j to j + lanes of a pixel. */
INLINE void cell_forward_lanes(const CellForward *s, long f, long pixel, long j, int lanes) {
  long at = GATES * pixel * f + j, unit = pixel * f + j;
  vreal sum[GATES];
  for (int q = 0; q < GATES; q++)
    sum[q] = load_lanes(s->gates + at + q * f, lanes) + or_zero(s->from_state, at + q * f, lanes);
  vreal in = vgate(sum[0]), forget = vgate(sum[1]), fresh = vtanh(sum[2]), out = vgate(sum[3]);
  vreal c = forget * or_zero(s->c_before, unit, lanes) + in * fresh;
  store_lanes(s->gates + at, in, lanes);
  store_lanes(s->gates + at + f, forget, lanes);
  store_lanes(s->gates + at + 2 * f, fresh, lanes);
  store_lanes(s->gates + at + 3 * f, out, lanes);
  store_lanes(s->c_after + unit, c, lanes);
  store_lanes(s->h_after + unit, out * vtanh(c), lanes);
}

static void cell_forward(const CellForward *s, long f, long first, long end) {
  for (long pixel = first; pixel < end; pixel++) {
    long j = 0;
    for (; j + VLANES <= f; j += VLANES) cell_forward_lanes(s, f, pixel, j, VLANES);
    if (j < f) cell_forward_lanes(s, f, pixel, j, (int)(f - j));
  }
}

static void cells_forward(const CellForward *s, long f, long pixels, long strips) {
#pragma omp parallel for if (GATES * f * pixels > PARALLEL_MIN)
  for (long i = 0; i < strips; i++)
    cell_forward(s, f, piece_start(pixels, strips, i), piece_start(pixels, strips, i + 1));
}

/* A thread's part of the scratch: the gates of a step if they are not kept, the state's share of them, a convolution's. */
typedef struct ForwardParts {
  long gates, from_state, conv, size;
} ForwardParts;

static ForwardParts forward_parts(const ConvLstmGeometry *g, bool keeps_gates) {
  long gates = blocks_of(piece_most(g) * g->h * g->w * GATES * g->f, VLANES) * VLANES;
  ForwardParts p = {.from_state = keeps_gates ? 0 : gates};
  p.conv = p.from_state + gates;
  p.size = p.conv + larger(piece_scratch(g, convlstm_input_conv, conv_forward_scratch),
                           piece_scratch(g, convlstm_state_conv, conv_forward_scratch));
  return p;
}

long convlstm_forward_scratch(const ConvLstmGeometry *g, bool keeps_gates) {
  return forward_parts(g, keeps_gates).size * pieces_at_once(g);
}

static const real *slot(const real *first, long t, long size) {
  return first != NULL ? first + t * size : NULL;
}

/* Images first .. first + images - 1 through all steps. */
static void forward_images(const ConvLstmGeometry *g, const ConvLstmForward *r, long first, long images,
                           const ForwardParts *parts, real *scratch) {
  ConvGeometry input = convlstm_input_conv(g, images), state = convlstm_state_conv(g, images);
  long pixels = g->h * g->w, size = pixels * g->f;
  const real *h = slot(r->h_first, first, size), *c = slot(r->c_first, first, size);
  for (long t = 0; t < g->steps && !interrupted(); t++) {
    long image = t * g->n + first;
    CellForward cells = {.c_before = c, .gates = scratch + parts->gates};
    if (r->gates != NULL) cells.gates = r->gates + image * GATES * size;
    cells.h_after = r->hidden + (r->one_hidden ? first : image) * size;
    cells.c_after = r->cells + (r->one_cells ? first : image) * size;
    conv_forward(&input, r->x + image * pixels * g->c, r->w_ih, r->bias, cells.gates, scratch + parts->conv);
    if (h != NULL) {
      conv_forward(&state, h, r->w_hh, NULL, scratch + parts->from_state, scratch + parts->conv);
      cells.from_state = scratch + parts->from_state;
    }
    cells_forward(&cells, g->f, images * pixels, strip_count(g));
    h = cells.h_after;
    c = cells.c_after;
  }
}

void convlstm_forward(const ConvLstmGeometry *g, const ConvLstmForward *run, real *scratch) {
  long pieces = piece_count(g);
  ForwardParts parts = forward_parts(g, run->gates != NULL);
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = piece_start(g->n, pieces, p), images = piece_start(g->n, pieces, p + 1) - first;
    if (pieces > 1) omp_set_num_threads(1);
    forward_images(g, run, first, images, &parts, scratch + omp_get_thread_num() * parts.size);
  }
}

/* ---- backward ---- */

/* dy, dh: gradients of the state after the step, which add up; dc_after, dc_before may be the same memory. NULL: zeros. */
typedef struct CellBackward {
  const real *dy, *dh, *dc_after, *c_before, *c_after;
  real *gates, *dc_before;
} CellBackward;

/* The gradients of what went into the gates, in place of the gates; they are added to sums (4F). */
INLINE void cell_backward_lanes(const CellBackward *s, long f, long pixel, long j, int lanes, real *sums) {
  long unit = pixel * f + j;
  real *gates = s->gates + GATES * pixel * f + j;
  vreal in = load_lanes(gates, lanes), forget = load_lanes(gates + f, lanes);
  vreal fresh = load_lanes(gates + 2 * f, lanes), out = load_lanes(gates + 3 * f, lanes);
  vreal squashed = vtanh(load_lanes(s->c_after + unit, lanes));
  vreal up = or_zero(s->dy, unit, lanes) + or_zero(s->dh, unit, lanes);
  vreal cell = or_zero(s->dc_after, unit, lanes) + up * out * (1 - squashed * squashed);
  vreal slope[GATES] = {cell * fresh * in * (1 - in), cell * or_zero(s->c_before, unit, lanes) * forget * (1 - forget),
                        cell * in * (1 - fresh * fresh), up * squashed * out * (1 - out)};
  for (int q = 0; q < GATES; q++) {
    store_lanes(gates + q * f, slope[q], lanes);
    store_lanes(sums + q * f + j, load_lanes(sums + q * f + j, lanes) + slope[q], lanes);
  }
  store_lanes(s->dc_before + unit, cell * forget, lanes);
}

static void cell_backward(const CellBackward *s, long f, long first, long end, real *sums) {
  memset(sums, 0, (size_t)(GATES * f) * sizeof *sums);
  for (long pixel = first; pixel < end; pixel++) {
    long j = 0;
    for (; j + VLANES <= f; j += VLANES) cell_backward_lanes(s, f, pixel, j, VLANES, sums);
    if (j < f) cell_backward_lanes(s, f, pixel, j, (int)(f - j), sums);
  }
}

/* sums: (strips,4F) */
static void cells_backward(const CellBackward *s, long f, long pixels, long strips, real *sums) {
#pragma omp parallel for if (GATES * f * pixels > PARALLEL_MIN)
  for (long i = 0; i < strips; i++)
    cell_backward(s, f, piece_start(pixels, strips, i), piece_start(pixels, strips, i + 1), sums + i * GATES * f);
}

/* Sums of (T,pieces,strips), each 4F. */
static long sums_count(const ConvLstmGeometry *g) {
  return g->steps * piece_count(g) * strip_count(g);
}
static long sums_size(const ConvLstmGeometry *g) {
  return blocks_of(sums_count(g) * GATES * g->f, VLANES) * VLANES;
}

static long backward_conv_scratch(const ConvLstmGeometry *g) {
  return piece_scratch(g, convlstm_state_conv, conv_backward_input_scratch);
}

long convlstm_backward_scratch(const ConvLstmGeometry *g) {
  return sums_size(g) + backward_conv_scratch(g) * pieces_at_once(g);
}

/* Piece p, 'images' from 'first', from the last step to the first. */
static void backward_images(const ConvLstmGeometry *g, const ConvLstmBackward *r, long p, long first, long images,
                            real *sums, real *scratch) {
  ConvGeometry state = convlstm_state_conv(g, images);
  long pixels = g->h * g->w, size = pixels * g->f, strips = strip_count(g);
  real *dh = r->dh + first * size, *dc = r->dc + first * size;
  const real *dh_after = slot(r->dh_last, first, size), *dc_after = slot(r->dc_last, first, size);
  for (long t = g->steps - 1; t >= 0 && !interrupted(); t--) {
    long image = t * g->n + first;
    CellBackward cells = {.dh = dh_after, .dc_after = dc_after, .dc_before = dc};
    cells.dy = slot(r->dy, image, size);
    cells.c_after = r->cells + image * size;
    cells.c_before = t > 0 ? r->cells + (image - g->n) * size : slot(r->c_first, first, size);
    cells.gates = r->gates + image * GATES * size;
    cells_backward(&cells, g->f, images * pixels, strips, sums + (t * piece_count(g) + p) * strips * GATES * g->f);
    if (t > 0 || r->c_first != NULL) conv_backward_input(&state, cells.gates, r->w_hh, dh, scratch);
    dh_after = dh;
    dc_after = dc;
  }
}

void convlstm_backward(const ConvLstmGeometry *g, const ConvLstmBackward *run, real *scratch) {
  long pieces = piece_count(g), conv_scratch = backward_conv_scratch(g);
  real *sums = scratch, *conv = scratch + sums_size(g);
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = piece_start(g->n, pieces, p), images = piece_start(g->n, pieces, p + 1) - first;
    if (pieces > 1) omp_set_num_threads(1);
    backward_images(g, run, p, first, images, sums, conv + omp_get_thread_num() * conv_scratch);
  }
  if (run->dbias != NULL) column_sums(sums_count(g), GATES * g->f, sums, run->dbias);
}
