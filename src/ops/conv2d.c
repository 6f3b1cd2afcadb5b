/* conv2d.c -- two-dimensional convolution (cross-correlation, as everywhere in the field) and its gradients. */
#include <string.h>

#include "../base/parallel.h"
#include "../kernels/conv/conv.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

enum { SUMS_MOST = 64, SUM_LEAST = 256 };

static void add_pixels(long pixels, long f, const real *dy, real *sum) {
  for (long i = 0; i < pixels; i++)
    for (long j = 0; j < f; j++) sum[j] += dy[i * f + j];
}

static long sum_parts(long pixels) {
  long parts = pixels / SUM_LEAST;
  return parts < 1 ? 1 : parts > SUMS_MOST ? SUMS_MOST : parts;
}

/* db (F) = the sum of dy (pixels,F) over pixels;  parts (sum_parts,F) */
static void bias_gradient(long pixels, long f, const real *dy, real *db, real *parts) {
  long count = sum_parts(pixels);
  memset(parts, 0, (size_t)(count * f) * sizeof *parts);
  memset(db, 0, (size_t)f * sizeof *db);
#pragma omp parallel for if (pixels * f > PARALLEL_MIN)
  for (long p = 0; p < count; p++) {
    long first = piece_start(pixels, count, p), end = piece_start(pixels, count, p + 1);
    add_pixels(end - first, f, dy + first * f, parts + p * f);
  }
  add_pixels(count, f, parts, db);
}

/* ---- bindings ---- */

/* Numbers in one image between its zeros, so that no product of sizes overflows. */
static const double PADDED_MOST = 1e15;

static long list_item(lua_State *L, int arg, int i, const char *name, long least) {
  lua_geti(L, arg, i);
  long value = tensor_check_size(L, lua_gettop(L), name, least);
  lua_pop(L, 1);
  return value;
}

/* Output size along one side; 0 where the kernel does not fit. */
static long output_size(long in, long before, long after, long kernel, long dilation, long stride) {
  long room = in + before + after - (dilation * (kernel - 1) + 1);
  return room < 0 ? 0 : room / stride + 1;
}

/* Pushes "32x3x48x48". */
static const char *sizes(lua_State *L, const long s[4]) {
  return lua_pushfstring(L, "%Ix%Ix%Ix%I", (lua_Integer)s[0], (lua_Integer)s[1], (lua_Integer)s[2], (lua_Integer)s[3]);
}

static void check_channels(lua_State *L, const ConvGeometry *g, const long x[4], const long w[4]) {
  if (x[1] != w[1] * g->groups)
    tensor_error(L, "conv2d: input has %I channels, weight expects %I (x %s, w %s%s)", (lua_Integer)x[1],
                 (lua_Integer)(w[1] * g->groups), sizes(L, x), sizes(L, w),
                 g->groups > 1 ? lua_pushfstring(L, ", %I groups", (lua_Integer)g->groups) : "");
  if (w[0] % g->groups != 0)
    tensor_error(L, "conv2d: %I filters cannot be divided into %I groups (w %s)", (lua_Integer)w[0],
                 (lua_Integer)g->groups, sizes(L, w));
}

/* Sizes of the whole, {N, C, H, W} and {F, C/groups, KH, KW}, and what the list at 'arg' says: {stride h, w, zeros at
   top, left, bottom, right, dilation h, w, groups}. Raises where they do not fit together. */
static ConvGeometry check_geometry(lua_State *L, int arg, const long x[4], const long w[4]) {
  ConvGeometry g = {.n = x[0], .c = x[1], .h = x[2], .w = x[3], .f = w[0], .kh = w[2], .kw = w[3]};
  luaL_checktype(L, arg, LUA_TTABLE);
  g.stride_h = list_item(L, arg, 1, "conv2d: stride", 1);
  g.stride_w = list_item(L, arg, 2, "conv2d: stride", 1);
  g.top = list_item(L, arg, 3, "conv2d: padding", 0);
  g.left = list_item(L, arg, 4, "conv2d: padding", 0);
  long bottom = list_item(L, arg, 5, "conv2d: padding", 0), right = list_item(L, arg, 6, "conv2d: padding", 0);
  g.dilation_h = list_item(L, arg, 7, "conv2d: dilation", 1);
  g.dilation_w = list_item(L, arg, 8, "conv2d: dilation", 1);
  g.groups = list_item(L, arg, 9, "conv2d: groups", 1);
  check_channels(L, &g, x, w);
  g.oh = output_size(g.h, g.top, bottom, g.kh, g.dilation_h, g.stride_h);
  g.ow = output_size(g.w, g.left, right, g.kw, g.dilation_w, g.stride_w);
  if (g.oh == 0 || g.ow == 0)
    tensor_error(L, "conv2d: kernel %Ix%I%s is larger than the input with its padding, %Ix%I (x %s, w %s)",
                 (lua_Integer)g.kh, (lua_Integer)g.kw, g.dilation_h * g.dilation_w > 1 ? ", dilated," : "",
                 (lua_Integer)(g.h + g.top + bottom), (lua_Integer)(g.w + g.left + right), sizes(L, x), sizes(L, w));
  double padded = (double)(g.h + g.top + bottom) * (double)(g.w + g.left + right) * (double)(g.c > g.f ? g.c : g.f);
  if (padded > PADDED_MOST)
    tensor_error(L, "conv2d: the input with its padding does not fit in memory (x %s)", sizes(L, x));
  return g;
}

static void check_four(lua_State *L, int arg, long shape[TENSOR_MAX_DIMS]) {
  luaL_checktype(L, arg, LUA_TTABLE);
  if (tensor_check_shape(L, arg, shape) != 4) tensor_error(L, "conv2d: a shape of 4 sizes expected");
}

static void check_output(lua_State *L, const ConvGeometry *g, const Tensor *dy) {
  if (dy->shape[0] != g->n || dy->shape[1] != g->f || dy->shape[2] != g->oh || dy->shape[3] != g->ow)
    tensor_error(L, "conv2d: the gradient is %s, %Ix%Ix%Ix%I expected", tensor_describe(L, dy), (lua_Integer)g->n,
                 (lua_Integer)g->f, (lua_Integer)g->oh, (lua_Integer)g->ow);
}

/* Gives the scratch at the top of the stack back; the result is under it. */
static int finish(lua_State *L) {
  scratch_release(L, -1);
  lua_pop(L, 1);
  tensor_check_interrupt(L);
  return 1;
}

/* forward(x, w, b or nil, options) -> y;  x N x C x H x W, w F x C/groups x KH x KW, b F, y N x F x OH x OW */
static int l_forward(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "conv2d: input", 4), *w = tensor_check_real(L, 2, "conv2d: weight", 4);
  const Tensor *b = tensor_opt_real(L, 3, "conv2d: bias", 1);
  lua_settop(L, 4);
  ConvGeometry g = check_geometry(L, 4, x->shape, w->shape);
  if (b != NULL && b->shape[0] != g.f)
    tensor_error(L, "conv2d: bias has %I elements, weight has %I filters", (lua_Integer)b->shape[0], (lua_Integer)g.f);
  x = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  w = tensor_push_in_layout(L, 2, LAYOUT_ROWS);
  if (b != NULL) b = tensor_push_in_layout(L, 3, LAYOUT_ROWS);
  Tensor *y = tensor_push(L, DTYPE_REAL, 4, (long[]){g.n, g.f, g.oh, g.ow}, LAYOUT_IMAGE);
  real *scratch = scratch_push(L, (size_t)conv_forward_scratch(&g));
  conv_forward(&g, x->data, w->data, b != NULL ? b->data : NULL, y->data, scratch);
  return finish(L);
}

/* backward_input(dy, w, options, shape of x) -> dx */
static int l_backward_input(lua_State *L) {
  const Tensor *dy = tensor_check_real(L, 1, "conv2d: gradient", 4), *w = tensor_check_real(L, 2, "conv2d: weight", 4);
  long shape[TENSOR_MAX_DIMS];
  lua_settop(L, 4);
  check_four(L, 4, shape);
  ConvGeometry g = check_geometry(L, 3, shape, w->shape);
  check_output(L, &g, dy);
  dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  w = tensor_push_in_layout(L, 2, LAYOUT_ROWS);
  Tensor *dx = tensor_push(L, DTYPE_REAL, 4, shape, LAYOUT_IMAGE);
  real *scratch = scratch_push(L, (size_t)conv_backward_input_scratch(&g));
  conv_backward_input(&g, dy->data, w->data, dx->data, scratch);
  return finish(L);
}

/* backward_weight(dy, x, options, shape of w) -> dw */
static int l_backward_weight(lua_State *L) {
  const Tensor *dy = tensor_check_real(L, 1, "conv2d: gradient", 4), *x = tensor_check_real(L, 2, "conv2d: input", 4);
  long shape[TENSOR_MAX_DIMS];
  lua_settop(L, 4);
  check_four(L, 4, shape);
  ConvGeometry g = check_geometry(L, 3, x->shape, shape);
  check_output(L, &g, dy);
  dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  x = tensor_push_in_layout(L, 2, LAYOUT_IMAGE);
  Tensor *dw = tensor_push(L, DTYPE_REAL, 4, shape, LAYOUT_ROWS);
  real *scratch = scratch_push(L, (size_t)conv_backward_weight_scratch(&g));
  conv_backward_weight(&g, dy->data, x->data, dw->data, scratch);
  return finish(L);
}

/* backward_bias(dy) -> db */
static int l_backward_bias(lua_State *L) {
  tensor_check_real(L, 1, "conv2d: gradient", 4);
  const Tensor *dy = tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  long pixels = dy->shape[0] * dy->shape[2] * dy->shape[3], f = dy->shape[1];
  Tensor *db = tensor_push(L, DTYPE_REAL, 1, &f, LAYOUT_ROWS);
  real *parts = scratch_push(L, (size_t)(sum_parts(pixels) * f));
  bias_gradient(pixels, f, dy->data, db->data, parts);
  return finish(L);
}

static const luaL_Reg functions[] = {
    {"forward", l_forward},
    {"backward_input", l_backward_input},
    {"backward_weight", l_backward_weight},
    {"backward_bias", l_backward_bias},
    {NULL, NULL},
};

int luaopen_feral_core_conv2d(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
