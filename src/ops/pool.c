/*
** pool.c -- pooling of images: the largest or the mean of windows, and the mean of whole images. Activations lie
*channels
** last, so a window's pixels are rows of channels, taken VLANES at a time.
*/
#include <string.h>

#include "../base/parallel.h"
#include "../base/simd.h"
#include "../tensor/tensor.h"

/* ---- kernels: x, dx (n,h,w,c)  y, dy (n,oh,ow,c) ---- */

typedef struct PoolGeometry {
  long n, c, h, w, oh, ow;
  long kh, kw, stride_h, stride_w, top, left;
  bool count_padding; /* means divide by the whole window, its padding included */
} PoolGeometry;

/* What of a window lies inside the image: rows h0..h1-1, columns w0..w1-1; 'corner' is the position in the whole window
   of its first pixel, 'divisor' what a mean divides by. */
typedef struct Window {
  long h0, h1, w0, w1, corner;
  real divisor;
} Window;

static inline long least(long a, long b) {
  return a < b ? a : b;
}

static inline Window window_at(const PoolGeometry *g, long oh, long ow) {
  long h = oh * g->stride_h - g->top, w = ow * g->stride_w - g->left;
  Window v = {h < 0 ? 0 : h, least(h + g->kh, g->h), w < 0 ? 0 : w, least(w + g->kw, g->w), 0, 1};
  v.corner = (v.h0 - h) * g->kw + v.w0 - w;
  long rows = g->count_padding ? least(h + g->kh, g->h + g->top) - h : v.h1 - v.h0;
  long columns = g->count_padding ? least(w + g->kw, g->w + g->left) - w : v.w1 - v.w0;
  v.divisor = (real)(rows * columns);
  return v;
}

static inline vreal load(const real *p, int lanes) {
  return lanes == VLANES ? vload(p) : vload_part(p, lanes);
}

static inline void store(real *p, vreal v, int lanes) {
  if (lanes == VLANES)
    vstore(p, v);
  else
    vstore_part(p, v, lanes);
}

/* The largest of a window's 'lanes' channels from x on (the image's pixel 0); a NaN wins. Its position in the window
   goes to 'at' as a real number: bytes would be a quarter of the memory, but unpacking them costs more than it saves.
 */
static inline void max_lanes(const PoolGeometry *g, const Window *v, const real *x, real *y, real *at, long i,
                             int lanes) {
  vreal best = load(x + (v->h0 * g->w + v->w0) * g->c, lanes);
  vreal position = vset((real)v->corner);
  for (long h = v->h0; h < v->h1; h++)
    for (long w = v->w0; w < v->w1; w++) {
      vreal here = load(x + (h * g->w + w) * g->c, lanes);
      vmask better = (here > best) | (here != here);
      best = vselect(better, here, best);
      if (at != NULL) position = vselect(better, vset((real)(v->corner + (h - v->h0) * g->kw + w - v->w0)), position);
    }
  store(y + i, best, lanes);
  if (at != NULL) store(at + i, position, lanes);
}

static inline void mean_lanes(const PoolGeometry *g, const Window *v, const real *x, real *y, int lanes) {
  vreal sum = {0};
  for (long h = v->h0; h < v->h1; h++)
    for (long w = v->w0; w < v->w1; w++) sum += load(x + (h * g->w + w) * g->c, lanes);
  store(y, sum / v->divisor, lanes);
}

/* at: NULL where no gradient is wanted */
static void max_forward(const PoolGeometry *g, const real *x, real *y, real *at) {
#pragma omp parallel for if (g->n * g->h * g->w * g->c > PARALLEL_MIN)
  for (long row = 0; row < g->n * g->oh; row++)
    for (long ow = 0; ow < g->ow; ow++) {
      Window v = window_at(g, row % g->oh, ow);
      const real *image = x + row / g->oh * g->h * g->w * g->c;
      long i = (row * g->ow + ow) * g->c, c = 0;
      for (; c + VLANES <= g->c; c += VLANES) max_lanes(g, &v, image + c, y, at, i + c, VLANES);
      if (c < g->c) max_lanes(g, &v, image + c, y, at, i + c, (int)(g->c - c));
    }
}

static void mean_forward(const PoolGeometry *g, const real *x, real *y) {
#pragma omp parallel for if (g->n * g->h * g->w * g->c > PARALLEL_MIN)
  for (long row = 0; row < g->n * g->oh; row++)
    for (long ow = 0; ow < g->ow; ow++) {
      Window v = window_at(g, row % g->oh, ow);
      const real *image = x + row / g->oh * g->h * g->w * g->c;
      real *out = y + (row * g->ow + ow) * g->c;
      long c = 0;
      for (; c + VLANES <= g->c; c += VLANES) mean_lanes(g, &v, image + c, out + c, VLANES);
      if (c < g->c) mean_lanes(g, &v, image + c, out + c, (int)(g->c - c));
    }
}

/* Windows that share no pixel: each pixel of dx is then written once, else added to. */
static bool are_disjoint(const PoolGeometry *g) {
  return g->kh <= g->stride_h && g->kw <= g->stride_w;
}

static bool cover_all(const PoolGeometry *g) {
  return g->kh >= g->stride_h && g->kw >= g->stride_w && (g->oh - 1) * g->stride_h + g->kh - g->top >= g->h &&
         (g->ow - 1) * g->stride_w + g->kw - g->left >= g->w;
}

/* Gives a window's gradient to one of its pixels, at position k: where the largest was there or, with at NULL, as one
   of many that share it. */
static inline void spread_lanes(const real *dy, const real *at, real k, real divisor, real *pixel, bool add,
                                int lanes) {
  vreal d = load(dy, lanes);
  vreal part = at == NULL ? d / divisor : vselect(load(at, lanes) == k, d, vset(0));
  store(pixel, add ? load(pixel, lanes) + part : part, lanes);
}

static inline void spread(const PoolGeometry *g, const real *dy, const real *at, real k, real divisor, real *pixel,
                          bool add) {
  long c = 0;
  for (; c + VLANES <= g->c; c += VLANES)
    spread_lanes(dy + c, at == NULL ? NULL : at + c, k, divisor, pixel + c, add, VLANES);
  if (c < g->c) spread_lanes(dy + c, at == NULL ? NULL : at + c, k, divisor, pixel + c, add, (int)(g->c - c));
}

/* The pixels at position (kh,kw) of the windows in row oh of an image. One position at a time, a pixel that windows
   share is not read again right after it was written. */
static void spread_row(const PoolGeometry *g, const real *dy, const real *at, long oh, long kh, long kw, real *dx,
                       bool add) {
  long h = oh * g->stride_h - g->top + kh;
  if (h < 0 || h >= g->h) return;
  for (long ow = 0; ow < g->ow; ow++) {
    long w = ow * g->stride_w - g->left + kw, i = (oh * g->ow + ow) * g->c;
    if (w < 0 || w >= g->w) continue;
    real *pixel = dx + (h * g->w + w) * g->c;
    if (at != NULL)
      spread(g, dy + i, at + i, (real)(kh * g->kw + kw), 1, pixel, add);
    else
      spread(g, dy + i, NULL, 0, window_at(g, oh, ow).divisor, pixel, add);
  }
}

/* at: NULL for means */
static void backward(const PoolGeometry *g, const real *dy, const real *at, real *dx) {
  bool add = !are_disjoint(g), clear = add || !cover_all(g);
  long pixels = g->h * g->w * g->c;
#pragma omp parallel for if (g->n * pixels > PARALLEL_MIN)
  for (long n = 0; n < g->n; n++) {
    real *image = dx + n * pixels;
    long i = n * g->oh * g->ow * g->c;
    if (clear) memset(image, 0, (size_t)pixels * sizeof *image);
    for (long oh = 0; oh < g->oh; oh++)
      for (long k = 0; k < g->kh * g->kw; k++)
        spread_row(g, dy + i, at != NULL ? at + i : NULL, oh, k / g->kw, k % g->kw, image, add);
  }
}

enum { CHANNEL_BLOCK = 64 };

/* x (n,pixels,c) -> y (n,c), sums in double */
static void global_mean(long n, long pixels, long c, const real *x, real *y) {
  long blocks = (c + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK;
#pragma omp parallel for collapse(2) if (n * pixels * c > PARALLEL_MIN)
  for (long i = 0; i < n; i++)
    for (long b = 0; b < blocks; b++) {
      long first = b * CHANNEL_BLOCK, width = least(c - first, CHANNEL_BLOCK);
      double sum[CHANNEL_BLOCK] = {0};
      for (long p = 0; p < pixels; p++)
        for (long j = 0; j < width; j++) sum[j] += x[(i * pixels + p) * c + first + j];
      for (long j = 0; j < width; j++) y[i * c + first + j] = (real)(sum[j] / (double)pixels);
    }
}

/* dy (n,c) -> dx (n,pixels,c) */
static void global_mean_backward(long n, long pixels, long c, const real *dy, real *dx) {
#pragma omp parallel for if (n * pixels * c > PARALLEL_MIN)
  for (long i = 0; i < n; i++)
    for (long p = 0; p < pixels; p++)
      for (long j = 0; j < c; j++) dx[(i * pixels + p) * c + j] = dy[i * c + j] / (real)pixels;
}

/* ---- bindings ---- */

static long list_item(lua_State *L, int arg, int i) {
  lua_geti(L, arg, i);
  long value = (long)luaL_checkinteger(L, -1);
  lua_pop(L, 1);
  return value;
}

/* Size of the output along one side; 0 where the window does not fit. With 'ceil' a last window may stand out, but must
   begin inside. */
static long output_size(long in, long kernel, long stride, long padding, bool ceil) {
  long room = in + 2 * padding - kernel;
  if (room < 0) return 0;
  long out = (room + (ceil ? stride - 1 : 0)) / stride + 1;
  return ceil && (out - 1) * stride >= in + padding ? out - 1 : out;
}

/* Sizes of x, and the list at 'arg': {kernel h, w, stride h, w, padding h, w, 1 for ceil, 1 to count padding}. */
static PoolGeometry check_geometry(lua_State *L, const char *op, int arg, const long x[4]) {
  luaL_checktype(L, arg, LUA_TTABLE);
  PoolGeometry g = {.n = x[0], .c = x[1], .h = x[2], .w = x[3], .kh = list_item(L, arg, 1), .kw = list_item(L, arg, 2)};
  g.stride_h = list_item(L, arg, 3);
  g.stride_w = list_item(L, arg, 4);
  g.top = list_item(L, arg, 5);
  g.left = list_item(L, arg, 6);
  bool ceil = list_item(L, arg, 7) != 0;
  g.count_padding = list_item(L, arg, 8) != 0;
  if (g.kh < 1 || g.kw < 1 || g.stride_h < 1 || g.stride_w < 1 || g.top < 0 || g.left < 0 || 2 * g.top > g.kh ||
      2 * g.left > g.kw)
    tensor_error(L, "%s: sizes and strides must be 1 or more, and padding at most half a window", op);
  g.oh = output_size(g.h, g.kh, g.stride_h, g.top, ceil);
  g.ow = output_size(g.w, g.kw, g.stride_w, g.left, ceil);
  if (g.oh == 0 || g.ow == 0)
    tensor_error(L, "%s: a window of %Ix%I is larger than the input with its padding, %Ix%I", op, (lua_Integer)g.kh,
                 (lua_Integer)g.kw, (lua_Integer)(g.h + 2 * g.top), (lua_Integer)(g.w + 2 * g.left));
  return g;
}

static void check_four(lua_State *L, int arg, long shape[TENSOR_MAX_DIMS]) {
  luaL_checktype(L, arg, LUA_TTABLE);
  if (tensor_check_shape(L, arg, shape) != 4) tensor_error(L, "pooling: a shape of 4 sizes expected");
}

static Tensor *push_output(lua_State *L, const PoolGeometry *g, DType dtype) {
  return tensor_push(L, dtype, 4, (long[]){g->n, g->c, g->oh, g->ow}, LAYOUT_IMAGE);
}

/* max(x, geometry, want positions) -> y, positions (or nothing) */
static int l_max(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "max_pool2d: input", 4);
  PoolGeometry g = check_geometry(L, "max_pool2d", 2, x->shape);
  bool want = lua_toboolean(L, 3);
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  Tensor *y = push_output(L, &g, DTYPE_REAL);
  Tensor *at = want ? push_output(L, &g, DTYPE_REAL) : NULL;
  max_forward(&g, x->data, y->data, want ? at->data : NULL);
  return want ? 2 : 1;
}

/* mean(x, geometry) -> y */
static int l_mean(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "avg_pool2d: input", 4);
  PoolGeometry g = check_geometry(L, "avg_pool2d", 2, x->shape);
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  mean_forward(&g, x->data, push_output(L, &g, DTYPE_REAL)->data);
  return 1;
}

/* backward(dy, geometry, shape of x, positions or nil) -> dx */
static int l_backward(lua_State *L) {
  long shape[TENSOR_MAX_DIMS];
  const Tensor *dy = tensor_check_real(L, 1, "pooling: gradient", 4);
  lua_settop(L, 4);
  check_four(L, 3, shape);
  PoolGeometry g = check_geometry(L, "pooling", 2, shape);
  const Tensor *at = tensor_opt_real(L, 4, "pooling: positions", 4);
  const Tensor *y = push_output(L, &g, DTYPE_U8); /* what shapes must be */
  if (!tensor_same_shape(dy, y) || (at != NULL && !tensor_same_shape(at, y)))
    tensor_error(L, "pooling: the gradient is %s, %s expected", tensor_describe(L, dy), tensor_describe(L, y));
  dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  if (at != NULL) at = tensor_push_in_layout(L, 4, LAYOUT_IMAGE);
  Tensor *dx = tensor_push(L, DTYPE_REAL, 4, shape, LAYOUT_IMAGE);
  backward(&g, dy->data, at != NULL ? at->data : NULL, dx->data);
  return 1;
}

/* global_mean(x) -> y;  x N x C x H x W, y N x C */
static int l_global_mean(lua_State *L) {
  tensor_check_real(L, 1, "global_avg_pool: input", 4);
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  Tensor *y = tensor_push(L, DTYPE_REAL, 2, x->shape, LAYOUT_ROWS);
  global_mean(x->shape[0], x->shape[2] * x->shape[3], x->shape[1], x->data, y->data);
  return 1;
}

/* global_mean_backward(dy, shape of x) -> dx */
static int l_global_mean_backward(lua_State *L) {
  long shape[TENSOR_MAX_DIMS];
  const Tensor *dy = tensor_check_real(L, 1, "global_avg_pool: gradient", 2);
  lua_settop(L, 2);
  check_four(L, 2, shape);
  if (dy->shape[0] != shape[0] || dy->shape[1] != shape[1])
    tensor_error(L, "global_avg_pool: the gradient is %s, %Ix%I expected", tensor_describe(L, dy),
                 (lua_Integer)shape[0], (lua_Integer)shape[1]);
  dy = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *dx = tensor_push(L, DTYPE_REAL, 4, shape, LAYOUT_IMAGE);
  global_mean_backward(shape[0], shape[2] * shape[3], shape[1], dy->data, dx->data);
  return 1;
}

static const luaL_Reg functions[] = {
    {"max", l_max},
    {"mean", l_mean},
    {"backward", l_backward},
    {"global_mean", l_global_mean},
    {"global_mean_backward", l_global_mean_backward},
    {NULL, NULL},
};

int luaopen_feral_core_pool(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
