/*
** augment.c -- training images varied at random, from a data set of bytes straight into the batch that a network sees: one
** batch at a time, or those of an epoch ahead of their use. A sample is a function of (seed, epoch, its number) alone:
** whatever batch it comes in, and whichever thread makes it.
*/
#include <math.h>
#include <string.h>
#include <time.h>

#include "../base/parallel.h"
#include "../kernels/image/augment.h"
#include "../kernels/image/batches.h"
#include "../tensor/images.h"

/* ---- kernels ---- */

/* images (M,H,W,C), rows and numbers (n), result (n,H',W',C); scratch: H W C reals for each thread */
static void make_batch(const Augmentation *a, const SampleShape *s, const uint8_t *images, const int32_t *rows,
                       const int32_t *numbers, long n, real *result, real *scratch) {
  long from = s->height * s->width * s->channels, to = s->to_height * s->to_width * s->channels;
#pragma omp parallel for if (n * to > PARALLEL_MIN)
  for (long i = 0; i < n; i++)
    augment_image(a, s, images + (rows[i] - 1) * from, (uint64_t)(uint32_t)numbers[i], result + i * to,
                  scratch + omp_get_thread_num() * from);
}

/* The sum of n bytes and of their squares, exact. */
static void sum_bytes(const uint8_t *bytes, long n, uint64_t *sum, uint64_t *squares) {
  enum { RUN = 1 << 15 }; /* what 32 bits hold */
  uint64_t all = 0, all_squares = 0;
#pragma omp parallel for reduction(+ : all, all_squares) if (n > PARALLEL_MIN)
  for (long start = 0; start < n; start += RUN) {
    uint32_t run = 0, run_squares = 0;
    for (long i = start; i < (n < start + RUN ? n : start + RUN); i++) {
      run += bytes[i];
      run_squares += (uint32_t)bytes[i] * bytes[i];
    }
    all += run;
    all_squares += run_squares;
  }
  *sum = all;
  *squares = all_squares;
}

/* ---- what functions take ---- */

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

/* The settings at 'index', a table or nil for none, and behind them seed and epoch. */
static Augmentation check_settings(lua_State *L, int index, long channels) {
  if (lua_isnoneornil(L, index)) {
    lua_newtable(L);
    lua_replace(L, index);
  }
  luaL_checktype(L, index, LUA_TTABLE);
  Augmentation a = {
      .rotation = check_setting(L, index, "rotation", 180),
      .shift = check_setting(L, index, "shift", 1),
      .zoom = check_setting(L, index, "zoom", 0.99),
      .mirror = check_setting(L, index, "mirror", 1),
      .brightness = check_setting(L, index, "brightness", 1),
      .contrast = check_setting(L, index, "contrast", 1),
      .fill = (real)check_setting(L, index, "fill", 255),
      .edge = check_edge(L, index),
      .seed = (uint64_t)luaL_optinteger(L, index + 1, 0),
      .epoch = (uint64_t)luaL_optinteger(L, index + 2, 0) & INT32_MAX,
  };
  lua_getfield(L, index, "mean");
  images_check_per_channel(L, -1, "augment: mean", channels, 0, -1e30, a.mean);
  lua_getfield(L, index, "std");
  images_check_per_channel(L, -1, "augment: std", channels, 1, 0, a.std);
  lua_pop(L, 2);
  return a;
}

/* An i32 list at 'arg' of numbers in [1, most], as contiguous memory that is pushed. */
static const Tensor *push_indices(lua_State *L, int arg, const char *what, long most) {
  const Tensor *t = tensor_check_dtype(L, arg, DTYPE_I32);
  if (t->ndim != 1) tensor_error(L, "%s must have one dimension, got %s", what, tensor_describe(L, t));
  t = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  for (long i = 0; i < t->shape[0]; i++) {
    long index = tensor_ints(t)[i];
    if (index < 1 || index > most)
      tensor_error(L, "%s: %d at place %d is not in 1 .. %I", what, (int)index, (int)i + 1, (lua_Integer)most);
  }
  return t;
}

static const Tensor *check_images(lua_State *L, int arg, const char *what, DType dtype) {
  const Tensor *t = tensor_check_dtype(L, arg, dtype);
  if (t->ndim != 4) tensor_error(L, "%s must be N x C x H x W, got %s", what, tensor_describe(L, t));
  if (!tensor_is_layout(t, LAYOUT_IMAGE))
    tensor_error(L, "%s must lie in memory channels last, as as_image() gives it", what);
  return t;
}

static SampleShape shape_of(const Tensor *images, const Tensor *batch) {
  return (SampleShape){images->shape[2], images->shape[3], images->shape[1], batch->shape[2], batch->shape[3]};
}

/* ---- one batch ---- */

/* batch(out, images, indices, settings, seed, epoch, numbers) -> out
   out: N x C x H' x W' of reals; images: u8 M x C x H x W; both channels last. indices: i32 N, which images.
   settings: a table of rotation, shift, zoom, mirror, brightness, contrast, edge, fill, mean, std, or nil.
   numbers: i32 N, what the samples' random numbers depend on; by default the indices. */
static int l_batch(lua_State *L) {
  const Tensor *out = check_images(L, 1, "augment.batch: the batch", DTYPE_REAL),
               *images = check_images(L, 2, "augment.batch: the images", DTYPE_U8);
  lua_settop(L, 7);
  if (out->shape[1] != images->shape[1])
    tensor_error(L, "augment.batch: images %s and batch %s differ in channels", tensor_describe(L, images),
                 tensor_describe(L, out));
  Augmentation a = check_settings(L, 4, images->shape[1]);
  const Tensor *rows = push_indices(L, 3, "augment.batch: indices", images->shape[0]), *numbers = rows;
  if (!lua_isnil(L, 7)) numbers = push_indices(L, 7, "augment.batch: numbers", INT32_MAX);
  if (rows->shape[0] != out->shape[0] || numbers->shape[0] != out->shape[0])
    tensor_error(L, "augment.batch: %d indices for the batch %s", (int)rows->shape[0], tensor_describe(L, out));
  SampleShape shape = shape_of(images, out);
  real *scratch = scratch_push(L, (size_t)image_numel(images) * (size_t)omp_get_max_threads());
  make_batch(&a, &shape, images->data, rows->data, numbers->data, out->shape[0], out->data, scratch);
  scratch_release(L, lua_gettop(L));
  lua_settop(L, 1);
  return 1;
}

/* statistics(images) -> mean and standard deviation of all samples of u8 N x C x H x W, as numbers of 0..1 */
static int l_statistics(lua_State *L) {
  const Tensor *images = check_images(L, 1, "loader: the images", DTYPE_U8);
  uint64_t sum, squares;
  double n = (double)tensor_numel(images);
  sum_bytes(images->data, tensor_numel(images), &sum, &squares);
  double mean = (double)sum / (255 * n), variance = (double)squares / (255 * 255 * n) - mean * mean;
  lua_pushnumber(L, mean);
  lua_pushnumber(L, sqrt(variance > 1e-6 ? variance : 1e-6));
  return 2;
}

/* ---- the batches of an epoch ---- */

typedef struct Queue {
  Batches batches;
  int32_t *labels; /* (count): in the order of the epoch */
  bool open;
  bool sequential;
  long given; /* how many batches have been taken out */
} Queue;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What a queue's user values hold: memory that no scope gives back while the thread works with it, and the images. */
enum { SCRATCH = 1, ORDER, LABELS, IMAGES, IMAGES_STORAGE, PLACES, USER_VALUES = PLACES + BATCHES_AHEAD - 1 };
static const char *const queue_type = "feral.batches";

/* Memory of 'count' reals, as user value 'slot' of the queue at the top of the stack. */
static void *own(lua_State *L, int slot, long count) {
  void *memory = scratch_push(L, (size_t)count);
  lua_setiuservalue(L, -2, slot);
  return memory;
}

static long batch_numel(const Batches *q) {
  return q->batch * q->frames * q->shape.to_height * q->shape.to_width * q->shape.channels;
}

/* Gives the queue at the top of the stack all that it works in. The images are argument 1. */
static void take_memory(lua_State *L, Queue *queue) {
  Batches *q = &queue->batches;
  q->scratch = own(L, SCRATCH, q->shape.height * q->shape.width * q->shape.channels * (1 + q->helpers));
  for (int i = 0; i < BATCHES_AHEAD; i++) q->place[i] = own(L, PLACES + i, batch_numel(q));
  q->order = own(L, ORDER, q->count);
  queue->labels = own(L, LABELS, q->count);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, IMAGES);
  lua_getiuservalue(L, 1, 1); /* where the numbers are */
  lua_setiuservalue(L, -2, IMAGES_STORAGE);
}

/* queue(images, labels, order, batch, frames, settings, seed, epoch) -> the batches of an epoch, made ahead
   images: u8 (M frames) x C x H x W, channels last; labels: i32 M; order: i32 N, which samples, one after another;
   frames: nil for single images. */
static int l_queue(lua_State *L) {
  lua_settop(L, 8);
  const Tensor *images = check_images(L, 1, "loader: the images", DTYPE_U8);
  long batch = tensor_check_size(L, 4, "loader: batch", 1),
       frames = lua_isnil(L, 5) ? 1 : tensor_check_size(L, 5, "loader: frames", 1);
  const Tensor *labels = push_indices(L, 2, "loader: labels", INT32_MAX);
  const Tensor *order = push_indices(L, 3, "loader: order", labels->shape[0]);
  if (labels->shape[0] * frames != images->shape[0])
    tensor_error(L, "loader: %d labels for %d images in sequences of %d", (int)labels->shape[0], (int)images->shape[0],
                 (int)frames);
  Augmentation a = check_settings(L, 6, images->shape[1]);
  Queue *queue = lua_newuserdatauv(L, sizeof *queue, USER_VALUES);
  *queue = (Queue){.batches = {.augmentation = a, .shape = shape_of(images, images), .images = images->data}};
  luaL_setmetatable(L, queue_type);
  Batches *q = &queue->batches;
  queue->sequential = !lua_isnil(L, 5);
  q->count = order->shape[0];
  q->batch = batch < q->count ? batch : q->count;
  q->frames = frames;
  q->helpers = omp_get_max_threads();
  take_memory(L, queue);
  for (long i = 0; i < q->count; i++) {
    q->order[i] = tensor_ints(order)[i];
    queue->labels[i] = tensor_ints(labels)[q->order[i] - 1];
  }
  batches_start(q);
  queue->open = true;
  return 1;
}

static void stop(Queue *queue) {
  if (queue->open) batches_stop(&queue->batches);
  queue->open = false;
}

/* queue:close(): ends the thread and gives the memory back; next() returns nothing from here on. */
static int l_close(lua_State *L) {
  Queue *queue = luaL_checkudata(L, 1, queue_type);
  bool was_open = queue->open;
  stop(queue);
  for (int slot = SCRATCH; was_open && slot <= USER_VALUES; slot++) {
    if (slot == IMAGES || slot == IMAGES_STORAGE) continue;
    if (lua_getiuservalue(L, 1, slot) != LUA_TNIL) scratch_release(L, lua_gettop(L));
  }
  return 0;
}

/* The collector's: the memory goes its own way. */
static int l_gc(lua_State *L) {
  stop(luaL_checkudata(L, 1, queue_type));
  return 0;
}

/* Pushes samples as a tensor over the memory at 'index'. Where that raises, the memory stays the queue's. */
static void push_samples(lua_State *L, int index, const Queue *queue, long samples) {
  const Batches *q = &queue->batches;
  long height = q->shape.to_height, width = q->shape.to_width, channels = q->shape.channels;
  long shape[5] = {samples, q->frames, channels, height, width};
  long stride[5] = {q->frames * height * width * channels, height * width * channels, 1, width * channels, channels};
  if (!queue->sequential) shape[1] = samples;
  int ndim = queue->sequential ? 5 : 4, skipped = 5 - ndim;
  Tensor *x = tensor_push_over(L, index, DTYPE_REAL, ndim, shape + skipped, LAYOUT_ROWS);
  memcpy(x->stride, stride + skipped, (size_t)ndim * sizeof *stride);
}

/* queue:next() -> x: f32 N x C x H x W, or N x T x C x H x W, the channels of a pixel side by side in memory; y: i32 N; the
   seconds that it took to have them. Nothing after the last batch. */
static int l_next(lua_State *L) {
  Queue *queue = luaL_checkudata(L, 1, queue_type);
  Batches *q = &queue->batches;
  long b = queue->given;
  lua_settop(L, 1);
  if (!queue->open) return 0;
  if (b == batches_number(q)) return l_close(L);
  long samples = batches_samples(q, b);
  int slot = PLACES + (int)(b % BATCHES_AHEAD);
  bool more = b + BATCHES_AHEAD < batches_number(q);
  lua_getiuservalue(L, 1, IMAGES);
  tensor_check(L, 2);
  Tensor *y = tensor_push(L, DTYPE_I32, 1, &samples, LAYOUT_ROWS);
  real *place = more ? scratch_push(L, (size_t)batch_numel(q)) : (lua_pushnil(L), NULL);
  lua_getiuservalue(L, 1, slot);
  push_samples(L, 5, queue, samples); /* from here on nothing raises */
  double start = now();
  batches_finish(q, b);
  double waited = now() - start;
  memcpy(y->data, queue->labels + b * q->batch, (size_t)samples * sizeof(int32_t));
  lua_pushvalue(L, 4);
  lua_setiuservalue(L, 1, slot);
  if (more) batches_continue(q, b, place);
  queue->given++;
  lua_pushvalue(L, 3);
  lua_pushnumber(L, waited);
  return 3;
}

static const luaL_Reg queue_methods[] = {
    {"next", l_next}, {"close", l_close}, {"__close", l_close}, {"__gc", l_gc}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"batch", l_batch}, {"queue", l_queue}, {"statistics", l_statistics}, {NULL, NULL}};

int luaopen_feral_core_augment(lua_State *L) {
  luaL_newmetatable(L, queue_type);
  luaL_setfuncs(L, queue_methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}
