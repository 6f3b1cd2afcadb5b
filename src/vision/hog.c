/*
** hog.c -- histograms of oriented gradients (Dalal and Triggs 2005, "Histograms of oriented gradients for human
** detection"), in the order and with the constants of OpenCV's HOGDescriptor, so that numbers can be compared.
*/
#include <math.h>
#include <string.h>

#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "images.h"

/* ---- kernels ---- */

typedef struct HogGeometry {
  long height, width, cell, block, stride, bins; /* pixels, but for the bins */
  long cells, down, across;                      /* cells along a block's side; blocks in the image */
  bool signed_;                                  /* directions over the whole circle and not over half of it */
  real clip;
} HogGeometry;

static long hog_block_size(const HogGeometry *g) { return g->cells * g->cells * g->bins; }
static long hog_size(const HogGeometry *g) { return g->down * g->across * hog_block_size(g); }

/* What a pixel of a block gives to the four cells around it: where their histograms start, and how much. */
typedef struct HogShare {
  int32_t start[4];
  real weight[4];
} HogShare;

/* The two neighbouring cells of a place along a side, and the second one's part. Cells outside of the block get nothing. */
static void cells_around(const HogGeometry *g, long i, long cell[2], double part[2]) {
  double at = ((double)i + 0.5) / (double)g->cell - 0.5, low = floor(at);
  for (int k = 0; k < 2; k++) {
    cell[k] = (long)low + k;
    part[k] = k == 0 ? 1 - (at - low) : at - low;
    if (cell[k] < 0 || cell[k] >= g->cells) cell[k] = 0, part[k] = 0;
  }
}

/* share: (block,block). Gaussian weights about the block's centre, sigma a quarter of its side. */
static void fill_shares(const HogGeometry *g, HogShare *share) {
  double sigma = (double)g->block / 4, half = (double)g->block / 2;
  for (long y = 0; y < g->block; y++)
    for (long x = 0; x < g->block; x++, share++) {
      long row[2], column[2];
      double low[2], right[2], dy = (double)y - half, dx = (double)x - half;
      double weight = exp(-(dy * dy + dx * dx) / (2 * sigma * sigma));
      cells_around(g, y, row, low);
      cells_around(g, x, column, right);
      for (int k = 0; k < 4; k++) { /* the cells of a block stand column by column */
        share->start[k] = (int32_t)((column[k % 2] * g->cells + row[k / 2]) * g->bins);
        share->weight[k] = (real)(weight * low[k / 2] * right[k % 2]);
      }
    }
}

/* A pixel's gradient, shared between the two nearest directions. */
typedef struct HogGradient {
  int32_t bin[2];
  real size[2];
} HogGradient;

static HogGradient gradient_of(const HogGeometry *g, real dx, real dy) {
  const real circle = (real)6.283185307179586;
  real size = (real)sqrt((double)(dx * dx + dy * dy)), angle = (real)atan2((double)dy, (double)dx);
  if (angle < 0) angle += circle;
  real at = angle * (real)g->bins * (g->signed_ ? 1 : 2) / circle - (real)0.5;
  long low = (long)at - (at < 0);
  real part = at - (real)low;
  return (HogGradient){{(int32_t)((low + g->bins) % g->bins), (int32_t)((low + 1) % g->bins)}, {size * (1 - part), size * part}};
}

/* The neighbour before 0 is 1 and behind the last the last but one. */
static long mirrored(long i, long n) {
  if (n == 1) return 0;
  return i < 0 ? 1 : i >= n ? n - 2 : i;
}

/* plane (height,width) with samples of 0..255 -> gradient (height,width) */
static void find_gradients(const HogGeometry *g, const real *plane, HogGradient *gradient) {
  for (long y = 0; y < g->height; y++) {
    const real *row = plane + y * g->width;
    const real *above = plane + mirrored(y - 1, g->height) * g->width, *below = plane + mirrored(y + 1, g->height) * g->width;
    for (long x = 0; x < g->width; x++)
      *gradient++ = gradient_of(g, row[mirrored(x + 1, g->width)] - row[mirrored(x - 1, g->width)], below[x] - above[x]);
  }
}

/* L2-Hys: to length 1, no number above 'clip', and to length 1 again (Lowe 2004). */
static void normalise_block(const HogGeometry *g, real *block) {
  long n = hog_block_size(g);
  real sum = 0, scale;
  for (long i = 0; i < n; i++) sum += block[i] * block[i];
  scale = 1 / ((real)sqrt((double)sum) + (real)n * (real)0.1);
  sum = 0;
  for (long i = 0; i < n; i++) {
    block[i] *= scale;
    if (block[i] > g->clip) block[i] = g->clip;
    sum += block[i] * block[i];
  }
  scale = 1 / ((real)sqrt((double)sum) + (real)1e-3);
  for (long i = 0; i < n; i++) block[i] *= scale;
}

/* gradient: that of the block's first pixel */
static void describe_block(const HogGeometry *g, const HogShare *share, const HogGradient *gradient, real *block) {
  memset(block, 0, (size_t)hog_block_size(g) * sizeof *block);
  for (long y = 0; y < g->block; y++, gradient += g->width - g->block)
    for (long x = 0; x < g->block; x++, share++, gradient++)
      for (int k = 0; k < 4; k++) {
        real *cell = block + share->start[k];
        cell[gradient->bin[0]] += share->weight[k] * gradient->size[0];
        cell[gradient->bin[1]] += share->weight[k] * gradient->size[1];
      }
  normalise_block(g, block);
}

/* out: (across,down,column of cells,row of cells,bins) */
static void describe_image(const HogGeometry *g, const HogShare *share, const real *plane, HogGradient *gradient, real *out) {
  find_gradients(g, plane, gradient);
  for (long bx = 0; bx < g->across; bx++)
    for (long by = 0; by < g->down; by++, out += hog_block_size(g))
      describe_block(g, share, gradient + (by * g->width + bx) * g->stride, out);
}

static void fill_plane(const Tensor *images, long i, long n, real *plane) {
  if (images->dtype == DTYPE_U8)
    for (long k = 0; k < n; k++) plane[k] = tensor_bytes(images)[i * n + k];
  else
    for (long k = 0; k < n; k++) plane[k] = tensor_reals(images)[i * n + k] * 255;
}

/* ---- bindings ---- */

static HogGeometry check_geometry(lua_State *L, const Tensor *images) {
  HogGeometry g = {.height = images->shape[2], .width = images->shape[3]};
  g.cell = tensor_check_size(L, 2, "feature.hog: cell", 1);
  g.block = tensor_check_size(L, 3, "feature.hog: block", 1);
  g.stride = tensor_check_size(L, 4, "feature.hog: stride", 1);
  g.bins = tensor_check_size(L, 5, "feature.hog: bins", 2);
  if (g.bins > 360) tensor_error(L, "feature.hog: at most 360 bins, got %d", (int)g.bins);
  g.signed_ = lua_toboolean(L, 6);
  g.clip = (real)luaL_checknumber(L, 7);
  if (images->shape[1] != 1)
    tensor_error(L, "feature.hog: gray images expected (N x 1 x H x W), got %s", tensor_describe(L, images));
  if (g.block % g.cell != 0) tensor_error(L, "feature.hog: the block (%d) must be a multiple of the cell (%d)", (int)g.block, (int)g.cell);
  if (g.height < g.block || g.width < g.block || (g.height - g.block) % g.stride != 0 || (g.width - g.block) % g.stride != 0)
    tensor_error(L, "feature.hog: blocks of %d every %d pixels do not fit into %d x %d", (int)g.block, (int)g.stride,
                 (int)g.height, (int)g.width);
  g.cells = g.block / g.cell;
  g.down = (g.height - g.block) / g.stride + 1;
  g.across = (g.width - g.block) / g.stride + 1;
  return g;
}

static void *push_array(lua_State *L, size_t item, size_t count) {
  return scratch_push(L, count * item / sizeof(real) + 1);
}

/* hog(images, cell, block, stride, bins, signed, clip) -> N x D */
static int l_hog(lua_State *L) {
  const Tensor *images = images_push(L, 1, "feature.hog");
  HogGeometry g = check_geometry(L, images);
  long n = g.height * g.width, size = hog_size(&g), threads = omp_get_max_threads();
  Tensor *out = tensor_push(L, DTYPE_REAL, 2, (long[]){images->shape[0], size}, LAYOUT_ROWS);
  int top = lua_gettop(L);
  HogShare *share = push_array(L, sizeof *share, (size_t)(g.block * g.block));
  HogGradient *gradients = push_array(L, sizeof *gradients, (size_t)(n * threads));
  real *planes = scratch_push(L, (size_t)(n * threads));
  fill_shares(&g, share);
#pragma omp parallel for
  for (long i = 0; i < images->shape[0]; i++) {
    long thread = omp_get_thread_num();
    if (interrupted()) continue;
    fill_plane(images, i, n, planes + thread * n);
    describe_image(&g, share, planes + thread * n, gradients + thread * n, tensor_reals(out) + i * size);
  }
  for (int i = top + 1; i <= top + 3; i++) scratch_release(L, i);
  tensor_check_interrupt(L);
  lua_settop(L, top);
  return 1;
}

static const luaL_Reg functions[] = {{"hog", l_hog}, {NULL, NULL}};

int luaopen_feral_core_hog(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
