/* convlstm.c -- see convlstm.h. A few images go through all steps while what a step makes of them is still in cache, so
   that the convolutions' results are read there by the pass that turns them into gates and state. Where a batch has too
   few such pieces for the threads it goes as one, and the threads share each convolution and pass. */
#include "convlstm.h"

#include <string.h>

#include "../../base/interrupt.h"
#include "../common/product.h"
#include "recurrent.h"

/* Numbers of gates in a piece; pieces below which the batch is one; pixels that a pass goes through at a time. */
enum { GATES = 4, PIECE_GATES = 1 << 17, PIECES_LEAST = 8, STRIP_PIXELS = 1024 };

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

/* The convolution of the gates' gradients with W_hh turned, which gives those of the state. */
static ConvGeometry turned_conv(const ConvLstmGeometry *g, long images) {
  ConvGeometry conv = same_size_conv(g, images, GATES * g->f);
  conv.f = g->f;
  conv.top = g->kh - 1 - conv.top;
  conv.left = g->kw - 1 - conv.left;
  return conv;
}

/* turned: (F,4F,KH,KW), rows and columns of w_hh (4F,F,KH,KW) backwards */
static void turn(const ConvLstmGeometry *g, const real *w_hh, real *turned) {
  long taps = g->kh * g->kw, filters = GATES * g->f;
  for (long from = 0; from < filters; from++)
    for (long to = 0; to < g->f; to++)
      for (long k = 0; k < taps; k++)
        turned[(to * filters + from) * taps + k] = w_hh[(from * g->f + to) * taps + taps - 1 - k];
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

static long whole_vectors(long size) {
  return blocks_of(size, VLANES) * VLANES;
}

typedef ConvGeometry (*ConvOf)(const ConvLstmGeometry *g, long images);

static long packed_size(const ConvLstmGeometry *g, ConvOf conv) {
  ConvGeometry any = conv(g, 1);
  return whole_vectors(conv_packed_size(&any));
}

/* Scratch for a convolution of any piece; of several pieces each is one thread's own. */
static long run_scratch(const ConvLstmGeometry *g, ConvOf conv) {
  long most = piece_most(g);
  int threads = omp_get_max_threads();
  if (piece_count(g) > 1) omp_set_num_threads(1);
  ConvGeometry whole = conv(g, most), less = conv(g, most > 1 ? most - 1 : 1);
  long scratch = larger(conv_run_scratch(&whole), conv_run_scratch(&less));
  omp_set_num_threads(threads);
  return whole_vectors(scratch);
}

/* How many threads need a part of the scratch of their own. */
static long pieces_at_once(const ConvLstmGeometry *g) {
  return piece_count(g) > 1 ? omp_get_max_threads() : 1;
}

/* Where a piece begins, and its thread's part of what the pieces share. */
typedef struct Piece {
  long index, first, images;
  real *scratch;
} Piece;

/* Calls run(context, piece) for all pieces: by one thread each, or where there is one piece by all threads. */
static void each_piece(const ConvLstmGeometry *g, void (*run)(const void *context, const Piece *piece),
                       const void *context, real *scratch, long thread_scratch) {
  long pieces = piece_count(g);
  bool large = (double)g->n * (double)(g->h * g->w) * (double)(GATES * g->f) > PARALLEL_MIN;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    Piece piece = {.index = p, .first = piece_start(g->n, pieces, p)};
    piece.images = piece_start(g->n, pieces, p + 1) - piece.first;
    piece.scratch = scratch + omp_get_thread_num() * thread_scratch;
    if (pieces > 1) omp_set_num_threads(1);
#pragma omp parallel if (large)
    run(context, &piece);
  }
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
#pragma omp for
  for (long i = 0; i < strips; i++)
    if (!interrupted()) cell_forward(s, f, piece_start(pixels, strips, i), piece_start(pixels, strips, i + 1));
}

/* Packed weights are those of the input, then those of the state. A thread's part of the scratch: the gates of a step if
   they are not kept, the state's share of them, a convolution's. */
typedef struct ForwardPlan {
  const ConvLstmGeometry *g;
  const ConvLstmForward *run;
  long packed_hh, packed_size;
  long gates, from_state, conv, thread_size;
  const real *packed;
} ForwardPlan;

static ForwardPlan forward_plan(const ConvLstmGeometry *g, bool keeps_gates) {
  long gates = whole_vectors(piece_most(g) * g->h * g->w * GATES * g->f);
  ForwardPlan p = {.g = g, .packed_hh = packed_size(g, convlstm_input_conv), .from_state = keeps_gates ? 0 : gates};
  p.packed_size = p.packed_hh + packed_size(g, convlstm_state_conv);
  p.conv = p.from_state + gates;
  p.thread_size = p.conv + larger(run_scratch(g, convlstm_input_conv), run_scratch(g, convlstm_state_conv));
  return p;
}

long convlstm_forward_scratch(const ConvLstmGeometry *g, bool keeps_gates) {
  ForwardPlan p = forward_plan(g, keeps_gates);
  return p.packed_size + p.thread_size * pieces_at_once(g);
}

static const real *slot(const real *first, long t, long size) {
  return first != NULL ? first + t * size : NULL;
}

/* A piece through all steps. */
static void forward_piece(const void *context, const Piece *piece) {
  const ForwardPlan *p = context;
  const ConvLstmGeometry *g = p->g;
  const ConvLstmForward *r = p->run;
  ConvGeometry input = convlstm_input_conv(g, piece->images), state = convlstm_state_conv(g, piece->images);
  long pixels = g->h * g->w, size = pixels * g->f;
  const real *h = slot(r->h_first, piece->first, size), *c = slot(r->c_first, piece->first, size);
  for (long t = 0; t < g->steps; t++) {
    long image = t * g->n + piece->first;
    CellForward cells = {.c_before = c, .gates = piece->scratch + p->gates};
    if (r->gates != NULL) cells.gates = r->gates + image * GATES * size;
    cells.h_after = r->hidden + (r->one_hidden ? piece->first : image) * size;
    cells.c_after = r->cells + (r->one_cells ? piece->first : image) * size;
    conv_run(&input, r->x + image * pixels * g->c, p->packed, NULL, cells.gates, piece->scratch + p->conv);
    if (h != NULL) {
      real *from_state = piece->scratch + p->from_state;
      conv_run(&state, h, p->packed + p->packed_hh, NULL, from_state, piece->scratch + p->conv);
      cells.from_state = from_state;
    }
    cells_forward(&cells, g->f, piece->images * pixels, strip_count(g));
    h = cells.h_after;
    c = cells.c_after;
  }
}

void convlstm_forward(const ConvLstmGeometry *g, const ConvLstmForward *run, real *scratch) {
  ForwardPlan p = forward_plan(g, run->gates != NULL);
  p.run = run;
  p.packed = scratch;
  convlstm_pack(g, run->w_ih, run->w_hh, run->bias, scratch);
  each_piece(g, forward_piece, &p, scratch + p.packed_size, p.thread_size);
}

long convlstm_packed_size(const ConvLstmGeometry *g) {
  return packed_size(g, convlstm_input_conv) + packed_size(g, convlstm_state_conv);
}

void convlstm_pack(const ConvLstmGeometry *g, const real *w_ih, const real *w_hh, const real *bias, real *packed) {
  ConvGeometry input = convlstm_input_conv(g, 1), state = convlstm_state_conv(g, 1);
  conv_pack(&input, w_ih, bias, packed);
  conv_pack(&state, w_hh, NULL, packed + packed_size(g, convlstm_input_conv));
}

static long cells_size(const ConvLstmGeometry *g) {
  return whole_vectors(g->h * g->w * g->f);
}

long convlstm_run_scratch(const ConvLstmGeometry *g) {
  return cells_size(g) + forward_plan(g, false).thread_size;
}

void convlstm_run(const ConvLstmGeometry *g, const real *x, const real *packed, bool last, real *y, real *scratch) {
  ConvLstmForward run = {.x = x, .hidden = y, .cells = scratch, .one_hidden = last, .one_cells = true};
  ForwardPlan p = forward_plan(g, false);
  p.run = &run;
  p.packed = packed;
  forward_piece(&p, &(Piece){.images = 1, .scratch = scratch + cells_size(g)});
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
#pragma omp for
  for (long i = 0; i < strips; i++)
    if (!interrupted())
      cell_backward(s, f, piece_start(pixels, strips, i), piece_start(pixels, strips, i + 1), sums + i * GATES * f);
}

/* The scratch: sums of (T,pieces,strips), each 4F; W_hh turned and packed; a convolution's for each thread. */
typedef struct BackwardPlan {
  const ConvLstmGeometry *g;
  const ConvLstmBackward *run;
  long sums_count, turned, packed, threads, thread_size;
  real *scratch;
} BackwardPlan;

static BackwardPlan backward_plan(const ConvLstmGeometry *g) {
  BackwardPlan p = {.g = g, .sums_count = g->steps * piece_count(g) * strip_count(g)};
  p.turned = whole_vectors(p.sums_count * GATES * g->f);
  p.packed = p.turned + whole_vectors(GATES * g->f * g->f * g->kh * g->kw);
  p.threads = p.packed + packed_size(g, turned_conv);
  p.thread_size = run_scratch(g, turned_conv);
  return p;
}

long convlstm_backward_scratch(const ConvLstmGeometry *g) {
  BackwardPlan p = backward_plan(g);
  return p.threads + p.thread_size * pieces_at_once(g);
}

/* A piece from the last step to the first. */
static void backward_piece(const void *context, const Piece *piece) {
  const BackwardPlan *p = context;
  const ConvLstmGeometry *g = p->g;
  const ConvLstmBackward *r = p->run;
  ConvGeometry turned = turned_conv(g, piece->images);
  long pixels = g->h * g->w, size = pixels * g->f, strips = strip_count(g);
  real *dh = r->dh + piece->first * size, *dc = r->dc + piece->first * size;
  const real *dh_after = slot(r->dh_last, piece->first, size), *dc_after = slot(r->dc_last, piece->first, size);
  for (long t = g->steps - 1; t >= 0; t--) {
    long image = t * g->n + piece->first;
    CellBackward cells = {.dh = dh_after, .dc_after = dc_after, .dc_before = dc, .dy = slot(r->dy, image, size)};
    cells.c_after = r->cells + image * size;
    cells.c_before = t > 0 ? r->cells + (image - g->n) * size : slot(r->c_first, piece->first, size);
    cells.gates = r->gates + image * GATES * size;
    real *sums = p->scratch + (t * piece_count(g) + piece->index) * strips * GATES * g->f;
    cells_backward(&cells, g->f, piece->images * pixels, strips, sums);
    if (t > 0 || r->c_first != NULL) conv_run(&turned, cells.gates, p->scratch + p->packed, NULL, dh, piece->scratch);
    dh_after = dh;
    dc_after = dc;
  }
}

void convlstm_backward(const ConvLstmGeometry *g, const ConvLstmBackward *run, real *scratch) {
  BackwardPlan p = backward_plan(g);
  ConvGeometry turned = turned_conv(g, 1);
  p.run = run;
  p.scratch = scratch;
  turn(g, run->w_hh, scratch + p.turned);
  conv_pack(&turned, scratch + p.turned, NULL, scratch + p.packed);
  each_piece(g, backward_piece, &p, scratch + p.threads, p.thread_size);
  if (run->dbias != NULL) column_sums(p.sums_count, GATES * g->f, scratch, run->dbias);
}
