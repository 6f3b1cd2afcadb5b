/* conv_gather.c -- see conv_gather.h. */
#include "conv_gather.h"

#include <string.h>

static long min_long(long a, long b) {
  return a < b ? a : b;
}
static long max_long(long a, long b) {
  return a > b ? a : b;
}
static long divide_up(long a, long b) {
  return (a + b - 1) / b;
}

/* ---- geometry ---- */

/* How many zeros the axis needs around its input. */
static Axis with_edges(Axis a) {
  long last = a.at + (a.taps > 0 ? a.taps - 1 : 0) * a.at_step + (a.count - 1) * a.in_step;
  a.before = max_long(0, -a.at);
  a.size = a.before + max_long(a.in, last + 1);
  return a;
}

static Axis forward_axis(long in, long out, long kernel, long stride, long dilation, long before) {
  return with_edges((Axis){.in = in,
                           .out = out,
                           .step = 1,
                           .count = out,
                           .taps = kernel,
                           .tap_step = 1,
                           .at = -before,
                           .at_step = dilation,
                           .in_step = stride});
}

static long greatest_divisor(long a, long b) {
  return b == 0 ? a : greatest_divisor(b, a % b);
}

/* Input pixel i = phase + j stride gets from output o through tap k where i + before = o stride + k dilation. The taps
   for which that can be are every 'apart'-th one; the last of them reads the first output. */
static Axis backward_axis(long in, long out, long kernel, long stride, long dilation, long before, long phase) {
  Axis a = {.in = out, .out = in, .first = phase, .step = stride, .in_step = 1};
  long apart = stride / greatest_divisor(stride, dilation);
  a.count = divide_up(in - phase, stride);
  for (long k = 0; k < kernel; k++)
    if ((phase + before - k * dilation) % stride == 0) {
      a.taps++;
      a.tap = k;
      a.at = (phase + before - k * dilation) / stride;
    }
  a.tap_step = -apart;
  a.at_step = apart * dilation / stride;
  return with_edges(a);
}

static Gather with_padding(Gather g) {
  g.padded = g.y.size > g.y.in || g.x.size > g.x.in;
  return g;
}

Gather gather_forward(const ConvGeometry *g) {
  long cin = g->c / g->groups, cout = g->f / g->groups, taps = g->kh * g->kw;
  return with_padding((Gather){.y = forward_axis(g->h, g->oh, g->kh, g->stride_h, g->dilation_h, g->top),
                               .x = forward_axis(g->w, g->ow, g->kw, g->stride_w, g->dilation_w, g->left),
                               .images = g->n,
                               .groups = g->groups,
                               .in_c = g->c,
                               .out_c = g->f,
                               .cin = cin,
                               .cout = cout,
                               .kw = g->kw,
                               .weight_in = taps,
                               .weight_out = cin * taps,
                               .weight_group = cout * cin * taps});
}

/* The input's rows (columns) y, y + stride ... are one phase; those that begin beyond the image do not exist. */
long gather_phases(const ConvGeometry *g) {
  return min_long(g->h, g->stride_h) * min_long(g->w, g->stride_w);
}

Gather gather_backward(const ConvGeometry *g, long phase) {
  long columns = min_long(g->w, g->stride_w), py = phase / columns, px = phase % columns;
  long cin = g->f / g->groups, cout = g->c / g->groups, taps = g->kh * g->kw;
  return with_padding((Gather){.y = backward_axis(g->h, g->oh, g->kh, g->stride_h, g->dilation_h, g->top, py),
                               .x = backward_axis(g->w, g->ow, g->kw, g->stride_w, g->dilation_w, g->left, px),
                               .images = g->n,
                               .groups = g->groups,
                               .in_c = g->f,
                               .out_c = g->c,
                               .cin = cin,
                               .cout = cout,
                               .kw = g->kw,
                               .weight_in = cout * taps,
                               .weight_out = taps,
                               .weight_group = cout * cin * taps});
}

static bool taps_touch(const Gather *g) {
  return g->x.at_step == 1 && g->groups == 1;
}

Runs gather_runs(const Gather *g) {
  if (taps_touch(g)) return (Runs){g->x.taps > 0 ? g->y.taps : 0, g->x.taps * g->cin};
  return (Runs){g->y.taps * g->x.taps, g->cin};
}

static void tap_offsets(const Gather *g, long columns, long *at) {
  for (long j = 0; j < g->y.taps; j++)
    for (long i = 0; i < columns; i++) {
      long row = g->y.at + g->y.before + j * g->y.at_step, column = g->x.at + g->x.before + i * g->x.at_step;
      *at++ = (row * g->x.size + column) * g->in_c;
    }
}

void gather_tap_offsets(const Gather *g, long *tap_at) {
  tap_offsets(g, g->x.taps, tap_at);
}

void gather_run_offsets(const Gather *g, long *run_at) {
  tap_offsets(g, taps_touch(g) ? min_long(g->x.taps, 1) : g->x.taps, run_at);
}

/* ---- tiles ---- */

long gather_input_rows(const Gather *g, long rows) {
  return (rows - 1) * g->y.in_step + g->y.at + g->y.before + (g->y.taps > 0 ? g->y.taps - 1 : 0) * g->y.at_step + 1;
}

static long buffer_size(const Gather *g, const Tiling *t) {
  long row = g->x.size * g->in_c;
  if (!g->padded) return 0;
  return t->images > 1 ? t->images * g->y.size * row : gather_input_rows(g, t->rows) * row;
}

enum { PIXELS_LEAST = 96 };

Tiling gather_tiling(const Gather *g, long most, long pixels, long wanted) {
  Tiling t = {.images = 1, .rows = g->y.count};
  long row = g->x.size * g->in_c;
  while (t.rows > 1 && (gather_input_rows(g, t.rows) * row > most || t.rows * g->x.count > pixels))
    t.rows = divide_up(t.rows, 2);
  if (t.rows == g->y.count) {
    long size = g->padded ? g->y.size * row : g->y.in * row;
    t.images = max_long(1, min_long(most / size, pixels / (t.rows * g->x.count)));
    t.images = min_long(t.images, g->images);
  }
  while (t.images > 1 && divide_up(g->images, t.images) < wanted) t.images = divide_up(t.images, 2);
  while (t.rows > 1 && t.images == 1 && t.rows * g->x.count > PIXELS_LEAST &&
         g->images * divide_up(g->y.count, t.rows) < wanted)
    t.rows = divide_up(t.rows, 2);
  t.bands = divide_up(g->y.count, t.rows);
  t.count = divide_up(g->images, t.images) * t.bands;
  t.buffer = buffer_size(g, &t);
  return t;
}

/* The first phase has the most rows, so its bands are enough for all. */
Tiling gather_backward_tiling(const ConvGeometry *geometry, long most, long pixels, long wanted) {
  Gather first = gather_backward(geometry, 0);
  Tiling shared = gather_tiling(&first, most, pixels, wanted);
  for (long phase = 1; phase < gather_phases(geometry); phase++) {
    Gather g = gather_backward(geometry, phase);
    Tiling own = gather_tiling(&g, most, pixels, wanted);
    if (own.bands > 1) shared.rows = min_long(shared.rows, own.rows);
    shared.images = min_long(shared.images, own.images);
  }
  shared.bands = divide_up(first.y.count, max_long(1, shared.rows));
  shared.count = divide_up(geometry->n, max_long(1, shared.images)) * shared.bands;
  return shared;
}

Tiling gather_phase_tiling(const Gather *g, Tiling shared) {
  shared.rows = min_long(shared.rows, g->y.count);
  shared.buffer = buffer_size(g, &shared);
  return shared;
}

Tiling gather_largest_tiling(const Gather *g, long most, long pixels) {
  Gather many = *g;
  many.images = pixels;
  return gather_tiling(&many, most, pixels, 0);
}

Tile gather_tile(const Gather *g, const Tiling *t, long index) {
  Tile tile = {.image = index / t->bands * t->images, .row = index % t->bands * t->rows};
  tile.images = min_long(t->images, g->images - tile.image);
  tile.rows = min_long(t->rows, g->y.count - tile.row);
  tile.pixels = tile.images * tile.rows * g->x.count;
  return tile;
}

void gather_offsets(const Gather *g, const Tiling *t, long *in_at, long *out_at) {
  for (long n = 0; n < t->images; n++)
    for (long i = 0; i < t->rows; i++)
      for (long j = 0; j < g->x.count; j++) {
        *in_at++ = ((n * g->y.size + i * g->y.in_step) * g->x.size + j * g->x.in_step) * g->in_c;
        *out_at++ = ((n * g->y.out + i * g->y.step) * g->x.out + j * g->x.step) * g->out_c;
      }
}

/* One row between its zeros; x NULL: a row of zeros. */
static void copy_row(const Gather *g, const real *x, real *to) {
  long before = g->x.before * g->in_c, whole = g->x.size * g->in_c, inside = x != NULL ? g->x.in * g->in_c : 0;
  memset(to, 0, (size_t)before * sizeof *to);
  if (inside > 0) memcpy(to + before, x, (size_t)inside * sizeof *to);
  memset(to + before + inside, 0, (size_t)(whole - before - inside) * sizeof *to);
}

const real *gather_input(const Gather *g, const Tile *tile, const real *x, real *buffer) {
  long row = g->x.in * g->in_c, first = tile->row * g->y.in_step;
  if (!g->padded) return x + (tile->image * g->y.in + first) * row;
  long rows = tile->images > 1 ? g->y.size : gather_input_rows(g, tile->rows);
  for (long n = 0; n < tile->images; n++)
    for (long i = 0; i < rows; i++) {
      long at = first + i - g->y.before;
      bool inside = at >= 0 && at < g->y.in;
      copy_row(g, inside ? x + ((tile->image + n) * g->y.in + at) * row : NULL,
               buffer + (n * rows + i) * g->x.size * g->in_c);
    }
  return buffer;
}

real *gather_output(const Gather *g, const Tile *tile, real *y) {
  long row = g->y.first + tile->row * g->y.step;
  return y + ((tile->image * g->y.out + row) * g->x.out + g->x.first) * g->out_c;
}
