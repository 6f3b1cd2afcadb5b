/*
** hog.c -- histograms of oriented gradients (Dalal and Triggs 2005, "Histograms of oriented gradients for human
** detection"), in the order and with the constants of OpenCV's HOGDescriptor, so that numbers can be compared.
*/
#include <math.h>
#include <string.h>

#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "../tensor/images.h"

/* ---- kernels ---- */

typedef struct HogGeometry {
  long height, width, cell, block, stride, bins; /* pixels, but for the bins */
  long cells, down, across;                      /* cells along a block's side; blocks in the image */
  bool signed_;                                  /* directions over the whole circle and not over half of it */
  real clip;
} HogGeometry;

static long hog_block_size(const HogGeometry *g) {
  return g->cells * g->cells * g->bins;
}
static long hog_size(const HogGeometry *g) {
  return g->down * g->across * hog_block_size(g);
}

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

/* The direction of (dx, dy) in turns, 0 to 1, to 2e-9: the arc tangent of the smaller part over the larger by a
   polynomial (a Chebyshev fit over an eighth of a turn), then mirrored into the right eighth. Plain enough to become
   vector code. */
static inline real turns(real dx, real dy) {
  real ax = dx < 0 ? -dx : dx, ay = dy < 0 ? -dy : dy;
  real big = ax > ay ? ax : ay, small = ax > ay ? ay : ax;
  real q = small / (big > 0 ? big : 1), s = q * q;
  real p = (real)0.000451055342;
  p = p * s - (real)0.00254727972;
  p = p * s + (real)0.00677802824;
  p = p * s - (real)0.0119293719;
  p = p * s + (real)0.0169289199;
  p = p * s - (real)0.022604093;
  p = p * s + (real)0.0318190259;
  p = p * s - (real)0.0530512235;
  p = (p * s + (real)0.159154941) * q;
  p = ay > ax ? (real)0.25 - p : p;
  p = dx < 0 ? (real)0.5 - p : p;
  return dy < 0 ? 1 - p : p;
}

/* The neighbour before 0 is 1 and behind the last the last but one. */
static long mirrored(long i, long n) {
  if (n == 1) return 0;
  return i < 0 ? 1 : i >= n ? n - 2 : i;
}

/* Sizes and directions (in bins, from the first one's centre) of a row's gradients. */
static void measure_row(const HogGeometry *g, const real *plane, long y, real *size, real *place) {
  const real *row = plane + y * g->width, *above = plane + mirrored(y - 1, g->height) * g->width;
  const real *below = plane + mirrored(y + 1, g->height) * g->width;
  real bins = (real)(g->signed_ ? g->bins : 2 * g->bins);
  for (long x = 1; x < g->width - 1; x++) size[x] = row[x + 1] - row[x - 1];
  size[0] = size[g->width - 1] = 0; /* its neighbours on both sides are the same pixel */
  for (long x = 0; x < g->width; x++) {
    real dx = size[x], dy = below[x] - above[x];
    size[x] = (real)sqrt((double)(dx * dx + dy * dy));
    place[x] = turns(dx, dy) * bins - (real)0.5;
  }
}

/* plane (height,width) with samples of 0..255 -> gradient (height,width); row: scratch of two rows. A gradient that is not
   finite has no direction, and any place: it goes to the first bin, where its size shows it. */
static void find_gradients(const HogGeometry *g, const real *plane, real *row, HogGradient *gradient) {
  int32_t bins = (int32_t)g->bins;
  const real last = (real)(2 * bins);
  real *size = row, *place = row + g->width;
  for (long y = 0; y < g->height; y++, gradient += g->width) {
    measure_row(g, plane, y, size, place);
    for (long x = 0; x < g->width; x++) {
      real at = place[x] >= (real)-0.5 && place[x] < last ? place[x] : 0;
      int32_t low = (int32_t)(at + 1) - 1; /* rounded down */
      real part = at - (real)low;
      if (low < 0) low += bins;
      if (low >= bins) low -= bins; /* the other half of the circle */
      gradient[x] = (HogGradient){{low, low + 1 < bins ? low + 1 : 0}, {size[x] * (1 - part), size[x] * part}};
    }
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

/* What one thread works in. */
typedef struct HogWork {
  real *plane, *row; /* height * width and 2 * width */
  HogGradient *gradient;
} HogWork;

/* out: (across,down,column of cells,row of cells,bins) */
static void describe_image(const HogGeometry *g, const HogShare *share, const HogWork *work, real *out) {
  find_gradients(g, work->plane, work->row, work->gradient);
  for (long bx = 0; bx < g->across; bx++)
    for (long by = 0; by < g->down; by++, out += hog_block_size(g))
      describe_block(g, share, work->gradient + (by * g->width + bx) * g->stride, out);
}

static void fill_plane(const Tensor *images, long i, long n, real *plane) {
  if (images->dtype == DTYPE_U8)
    for (long k = 0; k < n; k++) plane[k] = tensor_bytes(images)[i * n + k];
  else
    for (long k = 0; k < n; k++) plane[k] = tensor_reals(images)[i * n + k] * 255;
}

/* ---- bindings ---- */

/* In the description of an image, so that no product of sizes overflows. */
static const double NUMBERS_MOST = 1e15;

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
  if (g.block % g.cell != 0)
    tensor_error(L, "feature.hog: the block (%d) must be a multiple of the cell (%d)", (int)g.block, (int)g.cell);
  if (g.height < g.block || g.width < g.block || (g.height - g.block) % g.stride != 0 ||
      (g.width - g.block) % g.stride != 0)
    tensor_error(L, "feature.hog: blocks of %d every %d pixels do not fit into %d x %d", (int)g.block, (int)g.stride,
                 (int)g.height, (int)g.width);
  g.cells = g.block / g.cell;
  g.down = (g.height - g.block) / g.stride + 1;
  g.across = (g.width - g.block) / g.stride + 1;
  if ((double)g.down * (double)g.across * (double)hog_block_size(&g) > NUMBERS_MOST)
    tensor_error(L, "feature.hog: so many blocks do not fit in memory");
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
  long own = n + 2 * g.width;
  real *planes = scratch_push(L, (size_t)(own * threads));
  fill_shares(&g, share);
#pragma omp parallel for
  for (long i = 0; i < images->shape[0]; i++) {
    real *plane = planes + omp_get_thread_num() * own;
    HogWork work = {plane, plane + n, gradients + omp_get_thread_num() * n};
    if (interrupted()) continue;
    fill_plane(images, i, n, plane);
    describe_image(&g, share, &work, tensor_reals(out) + i * size);
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
