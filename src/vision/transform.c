/*
** transform.c -- images to other images: gray, size, orientation, affine maps, bytes to reals and back. All of it takes an
** image C x H x W or a batch N x C x H x W, of bytes or of reals, and gives back what it got.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/images.h"
#include "../kernels/image/pixels.h"
#include "../kernels/image/resize.h"
#include "../kernels/image/warp.h"

/* ---- kernels ---- */

static void gray_reals(const real *from, real *to, long n) {
  for (long i = 0; i < n; i++) to[i] = luma_real(from[3 * i], from[3 * i + 1], from[3 * i + 2]);
}

/* Reals of 0..1 as a network sees them. */
static void normalise_reals(real *pixels, long n, long channels, const real *mean, const real *std) {
  for (long i = 0; i < n; i++, pixels += channels)
    for (long c = 0; c < channels; c++) pixels[c] = (pixels[c] - mean[c]) / std[c];
}

/* ---- bindings ---- */

/* gray(t) -> the luma of an image of three channels; one of a single channel as it is */
static int l_gray(lua_State *L) {
  const Tensor *t = images_push(L, 1, "image.gray");
  if (t->shape[1] != 1 && t->shape[1] != 3)
    tensor_error(L, "image.gray: an image has 1 or 3 channels, got %s", tensor_describe(L, lua_touserdata(L, 1)));
  if (t->shape[1] == 1) return lua_settop(L, 1), 1;
  Tensor *gray = images_push_new(L, t->dtype, t->shape[0], 1, t->shape[2], t->shape[3]);
  long n = tensor_numel(gray);
  if (t->dtype == DTYPE_U8)
    pixels_convert(t->data, 3, gray->data, 1, (size_t)n);
  else
    gray_reals(t->data, gray->data, n);
  return images_return(L, 1);
}

static void push_taps(lua_State *L, Taps *taps, long from, long to) {
  taps->count = taps_count(from, to);
  taps->first = (int32_t *)(void *)scratch_push(L, (size_t)to);
  taps->weight = scratch_push(L, (size_t)(to * taps->count));
  taps_fill(taps, from, to);
}

/* resize(t, height, width) */
static int l_resize(lua_State *L) {
  long height = tensor_check_size(L, 2, "image.resize: height", 1),
       width = tensor_check_size(L, 3, "image.resize: width", 1);
  const Tensor *t = images_push(L, 1, "image.resize");
  Tensor *result = images_push_new(L, t->dtype, t->shape[0], t->shape[1], height, width);
  Resize r = {.bytes = t->dtype == DTYPE_U8,
              .n = t->shape[0],
              .height = t->shape[2],
              .width = t->shape[3],
              .channels = t->shape[1],
              .to_height = height,
              .to_width = width};
  int top = lua_gettop(L);
  push_taps(L, &r.down, r.height, height);
  push_taps(L, &r.across, r.width, width);
  real *rows = scratch_push(L, (size_t)(r.width * r.channels) * (size_t)omp_get_max_threads());
  resize_images(&r, t->data, result->data, rows);
  for (int i = top + 1; i <= top + 5; i++) scratch_release(L, i);
  lua_settop(L, top);
  return images_return(L, 1);
}

/* orient(t, o) -> turned upright by EXIF's orientation o: 2 mirrored, 3 by 180 degrees, 4 upside down, 6 a quarter with
   the clock, 8 against it, 5 and 7 mirrored along a diagonal */
static int l_orient(lua_State *L) {
  lua_Integer orientation = luaL_checkinteger(L, 2);
  luaL_argcheck(L, orientation >= 1 && orientation <= 8, 2, "an orientation is 1 to 8");
  const Tensor *t = images_push(L, 1, "image.flip");
  long height = t->shape[2], width = t->shape[3], n = t->shape[0];
  bool turned = orientation >= 5;
  Tensor *result = images_push_new(L, t->dtype, n, t->shape[1], turned ? width : height, turned ? height : width);
  size_t pixel = (size_t)t->shape[1] * dtype_size(t->dtype), whole = pixel * (size_t)(height * width);
  for (long i = 0; i < n; i++)
    pixels_orient((char *)t->data + (size_t)i * whole, height, width, pixel, (int)orientation,
                  (char *)result->data + (size_t)i * whole);
  return images_return(L, 1);
}

/* affine(t, map, height, width, edge, fill): map is a table of six numbers (see warp.h); edge 0 clamp, 1 reflect, 2
   constant; fill in the image's own units */
static int l_affine(lua_State *L) {
  WarpMap map;
  long height = tensor_check_size(L, 3, "image.affine: height", 1),
       width = tensor_check_size(L, 4, "image.affine: width", 1);
  lua_Integer edge = luaL_checkinteger(L, 5);
  luaL_argcheck(L, edge >= WARP_CLAMP && edge <= WARP_CONSTANT, 5, "an edge is 0 to 2");
  luaL_checktype(L, 2, LUA_TTABLE);
  for (int i = 0; i < 6; i++) {
    lua_geti(L, 2, i + 1);
    map.of[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  const Tensor *t = images_push(L, 1, "image.affine");
  WarpSource source = {NULL, t->shape[2], t->shape[3], t->shape[1], (WarpEdge)edge, {0}};
  images_check_per_channel(L, 6, "image.affine: fill", t->shape[1], 0, -1e30, source.fill);
  Tensor *result = images_push_new(L, t->dtype, t->shape[0], t->shape[1], height, width);
  bool bytes = t->dtype == DTYPE_U8;
  long from = image_numel(t), to = image_numel(result);
  real *wide = bytes ? scratch_push(L, (size_t)(from + to)) : NULL;
  for (long i = 0; i < t->shape[0]; i++) {
    real *out = bytes ? wide + from : tensor_reals(result) + i * to;
    source.pixels = bytes ? wide : tensor_reals(t) + i * from;
    if (bytes) pixels_widen(tensor_bytes(t) + i * from, wide, from);
    warp_image(&source, &map, height, width, out);
    if (bytes) pixels_narrow(out, 1, tensor_bytes(result) + i * to, to);
  }
  if (bytes) lua_pop(L, (scratch_release(L, lua_gettop(L)), 1));
  return images_return(L, 1);
}

/* normalise(t, mean, std) -> reals: (x - mean) / std, where x is a real as it is, or a byte over 255 */
static int l_normalise(lua_State *L) {
  real mean[IMAGE_CHANNELS], std[IMAGE_CHANNELS];
  lua_settop(L, 3);
  const Tensor *t = images_push(L, 1, "image.normalize");
  long channels = t->shape[1];
  images_check_per_channel(L, 2, "image.normalize: mean", channels, 0, -1e30, mean);
  images_check_per_channel(L, 3, "image.normalize: std", channels, 1, 0, std);
  Tensor *result = images_push_new(L, DTYPE_REAL, t->shape[0], channels, t->shape[2], t->shape[3]);
  long n = tensor_numel(t);
  if (t->dtype == DTYPE_U8) {
    pixels_widen(t->data, result->data, n);
    pixels_normalise(result->data, n / channels, channels, mean, std);
  } else {
    memcpy(result->data, t->data, (size_t)n * sizeof(real));
    normalise_reals(result->data, n / channels, channels, mean, std);
  }
  return images_return(L, 1);
}

/* to_bytes(t) -> u8: reals of 0..1 times 255, rounded; bytes as they are */
static int l_to_bytes(lua_State *L) {
  const Tensor *t = images_push(L, 1, "image.to_bytes");
  if (t->dtype == DTYPE_U8) return lua_settop(L, 1), 1;
  Tensor *result = images_push_new(L, DTYPE_U8, t->shape[0], t->shape[1], t->shape[2], t->shape[3]);
  pixels_narrow(t->data, 255, result->data, tensor_numel(t));
  return images_return(L, 1);
}

static const luaL_Reg functions[] = {
    {"gray", l_gray},           {"resize", l_resize},     {"orient", l_orient}, {"affine", l_affine},
    {"normalise", l_normalise}, {"to_bytes", l_to_bytes}, {NULL, NULL},
};

int luaopen_feral_core_transform(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
