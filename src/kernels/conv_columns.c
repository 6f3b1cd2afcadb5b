/* conv_columns.c -- convolution as a matrix product: each output pixel's patch of the input becomes a row (im2col). */
#include <string.h>

#include "../base/blas.h"
#include "../base/parallel.h"
#include "conv.h"

enum { PATCHES_MOST = 1 << 17, SUMS_MOST = 16 };

static long patch_size(const ConvGeometry *g) {
  return g->kh * g->kw * (g->c / g->groups);
}
static long weight_size(const ConvGeometry *g) {
  return g->f * patch_size(g);
}
static long min_long(long a, long b) {
  return a < b ? a : b;
}

/* Rows of output whose patches are made at once. */
static long block_rows(const ConvGeometry *g) {
  long rows = PATCHES_MOST / (g->ow * patch_size(g));
  return rows < 1 ? 1 : min_long(rows, g->oh);
}

static long patches_size(const ConvGeometry *g, long rows) {
  return rows * g->ow * patch_size(g);
}

/* packed (F,KH,KW,C/groups) = w (F,C/groups,KH,KW), or the other way */
static void pack(const ConvGeometry *g, const real *w, real *packed) {
  long c = g->c / g->groups, taps = g->kh * g->kw;
  for (long f = 0; f < g->f; f++)
    for (long t = 0; t < taps; t++)
      for (long i = 0; i < c; i++) packed[(f * taps + t) * c + i] = w[(f * c + i) * taps + t];
}

static void unpack(const ConvGeometry *g, const real *packed, real *w) {
  long c = g->c / g->groups, taps = g->kh * g->kw;
  for (long f = 0; f < g->f; f++)
    for (long t = 0; t < taps; t++)
      for (long i = 0; i < c; i++) w[(f * c + i) * taps + t] = packed[(f * taps + t) * c + i];
}

/* The offset of the pixel under tap (ky,kx) of output (oy,ox) in an image; -1 where it lies outside. */
static long tap_offset(const ConvGeometry *g, long oy, long ox, long ky, long kx) {
  long iy = oy * g->stride_h + ky * g->dilation_h - g->top, ix = ox * g->stride_w + kx * g->dilation_w - g->left;
  return iy < 0 || iy >= g->h || ix < 0 || ix >= g->w ? -1 : (iy * g->w + ix) * g->c;
}

/* patches (rows,OW,KH,KW,C/groups) of the output rows from oy on;  x: one image, at the group's first channel */
static void gather(const ConvGeometry *g, const real *x, long oy, long rows, real *patches) {
  long c = g->c / g->groups;
  for (long y = oy; y < oy + rows; y++)
    for (long ox = 0; ox < g->ow; ox++)
      for (long ky = 0; ky < g->kh; ky++)
        for (long kx = 0; kx < g->kw; kx++, patches += c) {
          long at = tap_offset(g, y, ox, ky, kx);
          for (long i = 0; i < c; i++) patches[i] = at < 0 ? 0 : x[at + i];
        }
}

/* Adds patches to where they came from. */
static void scatter(const ConvGeometry *g, const real *patches, long oy, long rows, real *dx) {
  long c = g->c / g->groups;
  for (long y = oy; y < oy + rows; y++)
    for (long ox = 0; ox < g->ow; ox++)
      for (long ky = 0; ky < g->kh; ky++)
        for (long kx = 0; kx < g->kw; kx++, patches += c) {
          long at = tap_offset(g, y, ox, ky, kx);
          if (at < 0) continue;
          for (long i = 0; i < c; i++) dx[at + i] += patches[i];
        }
}

/* y (rows,OW,F) = x * w + bias for 'rows' rows of one image */
static void forward_rows(const ConvGeometry *g, const real *x, const real *packed, const real *bias, real *y, long oy,
                         long rows, real *patches) {
  long k = patch_size(g), c = g->c / g->groups, f = g->f / g->groups, pixels = rows * g->ow;
  for (long i = 0; bias != NULL && i < pixels; i++) memcpy(y + i * g->f, bias, (size_t)g->f * sizeof *y);
  for (long group = 0; group < g->groups; group++) {
    gather(g, x + group * c, oy, rows, patches);
    gemm(0, 1, pixels, f, k, 1, patches, k, packed + group * f * k, k, bias != NULL, y + group * f, g->f);
  }
}

long conv_forward_scratch(const ConvGeometry *g) {
  return weight_size(g) + omp_get_max_threads() * patches_size(g, block_rows(g));
}

void conv_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch) {
  long most = block_rows(g), blocks = (g->oh + most - 1) / most;
  pack(g, w, scratch);
#pragma omp parallel for
  for (long i = 0; i < g->n * blocks; i++) {
    long n = i / blocks, oy = piece_start(g->oh, blocks, i % blocks), end = piece_start(g->oh, blocks, i % blocks + 1);
    forward_rows(g, x + n * g->h * g->w * g->c, scratch, bias, y + (n * g->oh + oy) * g->ow * g->f, oy, end - oy,
                 scratch + weight_size(g) + omp_get_thread_num() * patches_size(g, most));
  }
}

long conv_backward_input_scratch(const ConvGeometry *g) {
  return conv_forward_scratch(g);
}

void conv_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch) {
  long most = block_rows(g), k = patch_size(g), c = g->c / g->groups, f = g->f / g->groups;
  pack(g, w, scratch);
#pragma omp parallel for
  for (long n = 0; n < g->n; n++) {
    real *patches = scratch + weight_size(g) + omp_get_thread_num() * patches_size(g, most);
    memset(dx + n * g->h * g->w * g->c, 0, (size_t)(g->h * g->w * g->c) * sizeof *dx);
    for (long oy = 0; oy < g->oh; oy += most)
      for (long group = 0; group < g->groups; group++) {
        long rows = min_long(most, g->oh - oy);
        gemm(0, 0, rows * g->ow, k, f, 1, dy + (n * g->oh + oy) * g->ow * g->f + group * f, g->f,
             scratch + group * f * k, k, 0, patches, k);
        scatter(g, patches, oy, rows, dx + n * g->h * g->w * g->c + group * c);
      }
  }
}

/* Sums over images are made in so many parts, and then added in order. */
static long sum_parts(const ConvGeometry *g) {
  return min_long(g->n, SUMS_MOST);
}

long conv_backward_weight_scratch(const ConvGeometry *g) {
  return sum_parts(g) * (weight_size(g) + patches_size(g, block_rows(g)));
}

/* Adds the weight gradient of one image to packed. */
static void add_weight_gradient(const ConvGeometry *g, const real *dy, const real *x, real *packed, real *patches) {
  long most = block_rows(g), k = patch_size(g), c = g->c / g->groups, f = g->f / g->groups;
  for (long oy = 0; oy < g->oh; oy += most)
    for (long group = 0; group < g->groups; group++) {
      long rows = min_long(most, g->oh - oy);
      gather(g, x + group * c, oy, rows, patches);
      gemm(1, 0, f, k, rows * g->ow, 1, dy + oy * g->ow * g->f + group * f, g->f, patches, k, 1, packed + group * f * k,
           k);
    }
}

void conv_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch) {
  long parts = sum_parts(g), size = weight_size(g);
  memset(scratch, 0, (size_t)(parts * size) * sizeof *scratch);
#pragma omp parallel for schedule(dynamic)
  for (long p = 0; p < parts; p++)
    for (long n = piece_start(g->n, parts, p); n < piece_start(g->n, parts, p + 1); n++)
      add_weight_gradient(g, dy + n * g->oh * g->ow * g->f, x + n * g->h * g->w * g->c, scratch + p * size,
                          scratch + parts * size + p * patches_size(g, block_rows(g)));
  for (long p = 1; p < parts; p++)
    for (long i = 0; i < size; i++) scratch[i] += scratch[p * size + i];
  unpack(g, scratch, dw);
}
