/*
** augment.c -- training images varied at random, from a data set of bytes straight into the batch that a network sees.
** A sample is a function of (seed, epoch, its number) alone: whatever batch it comes in, and with however many threads.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../base/rng.h"
#include "../tensor/images.h"
#include "../kernels/pixels.h"
#include "../kernels/warp.h"

/* ---- kernels ---- */

typedef struct Augmentation {
  double rotation;             /* degrees, to either side */
  double shift, zoom;          /* fractions, to either side */
  double mirror;               /* probability */
  double brightness, contrast; /* fractions, to either side */
  WarpEdge edge;
  real fill;
  real mean[WARP_CHANNELS], std[WARP_CHANNELS];
  uint64_t seed, epoch;
} Augmentation;

/* source (height,width,channels) of bytes, result (to_height,to_width,channels) of reals */
typedef struct SampleShape {
  long height, width, channels, to_height, to_width;
} SampleShape;

/* What was drawn for one sample. Each number has its own place in the stream, so that switching one kind of variation
   on or off leaves the others as they were. */
typedef struct Draw {
  double radians, right, down, zoom, mirror; /* shifts in fractions of the size; mirror is 1 or -1 */
  double brightness, contrast;               /* factors */
} Draw;

static double to_either_side(double most, uint32_t word) {
  return most * (2 * (double)rng_unit(word) - 1);
}

static Draw draw_sample(const Augmentation *a, uint64_t number) {
  uint64_t stream = UINT64_C(1) << 63 | a->epoch << 32 | number; /* the top bit keeps clear of the other streams */
  RngBlock place = rng_block(a->seed, stream, 0), light = rng_block(a->seed, stream, 1);
  return (Draw){
      .radians = to_either_side(a->rotation, place.word[0]) * (3.14159265358979323846 / 180),
      .right = to_either_side(a->shift, place.word[1]),
      .down = to_either_side(a->shift, place.word[2]),
      .zoom = 1 + to_either_side(a->zoom, place.word[3]),
      .mirror = rng_unit(light.word[0]) < a->mirror ? -1 : 1,
      .brightness = 1 + to_either_side(a->brightness, light.word[1]),
      .contrast = 1 + to_either_side(a->contrast, light.word[2]),
  };
}

static void widen(const uint8_t *bytes, long n, real *out) {
  for (long i = 0; i < n; i++) out[i] = bytes[i];
}

static bool stays_in_place(const Draw *d, const SampleShape *s) {
  return d->radians == 0 && d->right == 0 && d->down == 0 && d->zoom == 1 && d->mirror == 1 &&
         s->height == s->to_height && s->width == s->to_width;
}

static void place(const Augmentation *a, const Draw *d, const SampleShape *s, const uint8_t *image, real *result,
                  real *scratch) {
  long n = s->height * s->width * s->channels;
  if (stays_in_place(d, s)) {
    widen(image, n, result);
    return;
  }
  WarpSource source = {scratch, s->height, s->width, s->channels, a->edge, {0}};
  for (int c = 0; c < WARP_CHANNELS; c++) source.fill[c] = a->fill;
  WarpMap map = warp_map(s->height, s->width, s->to_height, s->to_width, d->radians, d->zoom,
                         d->right * (double)s->to_width, d->down * (double)s->to_height, d->mirror);
  widen(image, n, scratch);
  warp_image(&source, &map, s->to_height, s->to_width, result);
}

/* All samples times the brightness, then their distance from their mean times the contrast, cut to what a byte holds.
 */
static void light(const Draw *d, real *pixels, long n) {
  if (d->brightness == 1 && d->contrast == 1) return;
  double sum = 0;
  for (long i = 0; i < n; i++) sum += (double)pixels[i];
  double mean = d->brightness * sum / (double)n;
  real factor = (real)(d->brightness * d->contrast), offset = (real)(mean - d->contrast * mean);
  for (long i = 0; i < n; i++) {
    real v = pixels[i] * factor + offset;
    pixels[i] = v < 0 ? 0 : v > 255 ? 255 : v;
  }
}

static void make_sample(const Augmentation *a, const SampleShape *s, const uint8_t *image, uint64_t number,
                        real *result, real *scratch) {
  Draw draw = draw_sample(a, number);
  long pixels = s->to_height * s->to_width;
  place(a, &draw, s, image, result, scratch);
  light(&draw, result, pixels * s->channels);
  pixels_normalise(result, pixels, s->channels, a->mean, a->std);
}

/* images (M,H,W,C), rows and numbers (n), result (n,H',W',C); scratch: H W C reals for each thread */
static void make_batch(const Augmentation *a, const SampleShape *s, const uint8_t *images, const int32_t *rows,
                       const int32_t *numbers, long n, real *result, real *scratch) {
  long from = s->height * s->width * s->channels, to = s->to_height * s->to_width * s->channels;
#pragma omp parallel for if (n * to > PARALLEL_MIN)
  for (long i = 0; i < n; i++)
    make_sample(a, s, images + (rows[i] - 1) * from, (uint64_t)(uint32_t)numbers[i], result + i * to,
                scratch + omp_get_thread_num() * from);
}

/* ---- bindings ---- */

/* The number in field 'name' of the settings at 'index', in [0, most]; 0 where there is none. */
static double check_setting(lua_State *L, int index, const char *name, double most) {
  double value = 0;
  if (lua_getfield(L, index, name) != LUA_TNIL) {
    int is_number;
    value = lua_tonumberx(L, -1, &is_number);
    if (!is_number || !(value >= 0 && value <= most))
      tensor_error(L, "augment: %s must be a number from 0 to %f, got %s", name, (lua_Number)most,
                   luaL_tolstring(L, -1, NULL));
  }
  lua_pop(L, 1);
  return value;
}

static WarpEdge check_edge(lua_State *L, int index) {
  static const char *const names[] = {"clamp", "reflect", "constant"};
  lua_getfield(L, index, "edge");
  const char *name = luaL_optstring(L, -1, names[WARP_CLAMP]);
  for (WarpEdge edge = WARP_CLAMP; edge <= WARP_CONSTANT; edge++)
    if (strcmp(name, names[edge]) == 0) return lua_pop(L, 1), edge;
  return (WarpEdge)tensor_error(L, "augment: edge must be clamp, reflect or constant, got '%s'", name);
}

/* The settings at 'index', a table; nil for none. */
static void check_settings(lua_State *L, int index, long channels, Augmentation *a) {
  if (lua_isnoneornil(L, index)) {
    lua_newtable(L);
    lua_replace(L, index);
  }
  luaL_checktype(L, index, LUA_TTABLE);
  *a = (Augmentation){
      .rotation = check_setting(L, index, "rotation", 180),
      .shift = check_setting(L, index, "shift", 1),
      .zoom = check_setting(L, index, "zoom", 0.99),
      .mirror = check_setting(L, index, "mirror", 1),
      .brightness = check_setting(L, index, "brightness", 1),
      .contrast = check_setting(L, index, "contrast", 1),
      .fill = (real)check_setting(L, index, "fill", 255),
      .edge = check_edge(L, index),
  };
  lua_getfield(L, index, "mean");
  images_check_per_channel(L, -1, "augment: mean", channels, 0, -1e30, a->mean);
  lua_getfield(L, index, "std");
  images_check_per_channel(L, -1, "augment: std", channels, 1, 0, a->std);
  lua_pop(L, 2);
}

/* An i32 list at 'arg' of numbers in [1, most], as contiguous memory that is pushed. */
static const Tensor *push_indices(lua_State *L, int arg, const char *what, long most) {
  const Tensor *t = tensor_check_dtype(L, arg, DTYPE_I32);
  if (t->ndim != 1) tensor_error(L, "augment.batch: %s must have one dimension, got %s", what, tensor_describe(L, t));
  t = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  for (long i = 0; i < t->shape[0]; i++) {
    long index = tensor_ints(t)[i];
    if (index < 1 || index > most)
      tensor_error(L, "augment.batch: %s: %d at place %d is not in 1 .. %I", what, (int)index, (int)i + 1,
                   (lua_Integer)most);
  }
  return t;
}

static const Tensor *check_batch(lua_State *L, int arg, const char *what, DType dtype) {
  const Tensor *t = tensor_check_dtype(L, arg, dtype);
  if (t->ndim != 4) tensor_error(L, "augment.batch: %s must be N x C x H x W, got %s", what, tensor_describe(L, t));
  if (!tensor_is_layout(t, LAYOUT_IMAGE))
    tensor_error(L, "augment.batch: %s must lie in memory channels last, as as_image() gives it", what);
  return t;
}

/* batch(out, images, indices, settings, seed, epoch, numbers) -> out
   out: N x C x H' x W' of reals; images: u8 M x C x H x W; both channels last. indices: i32 N, which images.
   settings: a table of rotation, shift, zoom, mirror, brightness, contrast, edge, fill, mean, std, or nil.
   numbers: i32 N, what the samples' random numbers depend on; by default the indices. */
static int l_batch(lua_State *L) {
  Augmentation a;
  const Tensor *out = check_batch(L, 1, "the batch", DTYPE_REAL), *images = check_batch(L, 2, "the images", DTYPE_U8);
  uint64_t seed = (uint64_t)luaL_optinteger(L, 5, 0), epoch = (uint64_t)luaL_optinteger(L, 6, 0);
  lua_settop(L, 7);
  if (out->shape[1] != images->shape[1])
    tensor_error(L, "augment.batch: images %s and batch %s differ in channels", tensor_describe(L, images),
                 tensor_describe(L, out));
  check_settings(L, 4, images->shape[1], &a);
  a.seed = seed;
  a.epoch = epoch & INT32_MAX;
  const Tensor *rows = push_indices(L, 3, "indices", images->shape[0]), *numbers = rows;
  if (!lua_isnil(L, 7)) numbers = push_indices(L, 7, "numbers", INT32_MAX);
  if (rows->shape[0] != out->shape[0] || numbers->shape[0] != out->shape[0])
    tensor_error(L, "augment.batch: %d indices for the batch %s", (int)rows->shape[0], tensor_describe(L, out));
  SampleShape shape = {images->shape[2], images->shape[3], images->shape[1], out->shape[2], out->shape[3]};
  real *scratch = scratch_push(L, (size_t)image_numel(images) * (size_t)omp_get_max_threads());
  make_batch(&a, &shape, images->data, rows->data, numbers->data, out->shape[0], out->data, scratch);
  scratch_release(L, lua_gettop(L));
  lua_settop(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {{"batch", l_batch}, {NULL, NULL}};

int luaopen_feral_core_augment(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
