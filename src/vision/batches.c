/*
** batches.c -- the batches of an epoch, made ahead of their use: samples of a source through a list of steps, straight into the
** batch that a network sees. A sample is a function of (seed, epoch, its number) alone: whatever batch it comes in, and
** whichever thread makes it.
*/
#include "../kernels/image/batches.h"

#include <time.h>

#include "../base/parallel.h"
#include "../tensor/images.h"
#include "../tensor/sources.h"
#include "steps.h"

typedef struct Queue {
  Batches batches;
  bool open, sequential, mixes;
  long given; /* how many batches have been taken out */
} Queue;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What a queue's user values hold: memory that no scope gives back while the thread works with it, the source and the list. */
enum { SCRATCH = 1, ORDER, NUMBERS, FIRST, SOURCE, LIST, SAMPLES, PLACES = SAMPLES + BATCHES_AHEAD };
enum { USER_VALUES = PLACES + BATCHES_AHEAD - 1 };
static const char *const queue_type = "feral.batches";

/* Memory of 'size' bytes, as user value 'slot' of the queue at the top of the stack. */
static void *own(lua_State *L, int slot, size_t size) {
  void *memory = scratch_push(L, size / sizeof(real) + 1);
  lua_setiuservalue(L, -2, slot);
  return memory;
}

/* An i32 list at 'arg' of numbers in [1, most], as contiguous memory that is pushed. */
static const Tensor *push_numbers(lua_State *L, int arg, const char *what, long most) {
  const Tensor *t = tensor_check_dtype(L, arg, DTYPE_I32);
  if (t->ndim != 1) tensor_error(L, "loader: %s must have one dimension, got %s", what, tensor_describe(L, t));
  t = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  for (long i = 0; i < t->shape[0]; i++) {
    long number = tensor_ints(t)[i];
    if (number < 1 || number > most)
      tensor_error(L, "loader: %s: %d at place %d is not in 1 .. %I", what, (int)number, (int)i + 1, (lua_Integer)most);
  }
  return t;
}

/* ---- starting ---- */

/* A copy of numbers, owned by the queue at the top of the stack. */
static const int32_t *own_numbers(lua_State *L, int slot, const Tensor *t) {
  size_t size = (size_t)t->shape[0] * sizeof(int32_t);
  return memcpy(own(L, slot, size), t->data, size);
}

/* Where each sample's units begin, if samples differ in frames. */
static const long *own_first(lua_State *L, const Batches *q) {
  if (q->source->kind->frames == NULL) return NULL;
  long *first = own(L, FIRST, (size_t)(q->count + 1) * sizeof(long));
  first[0] = 0;
  for (long k = 0; k < q->count; k++) first[k + 1] = first[k] + source_frames(q->source, q->order[k] - 1);
  return first;
}

/* What steps may need beside the images, where the size of these is not known: the weights of a resize. */
enum { SPARE = 1 << 19 };

/* The shape of the first sample's first frame. */
static Image first_shape(lua_State *L, const Batches *q) {
  const Source *s = q->source;
  Image image = {.bytes = true, .height = s->height, .width = s->width, .channels = s->channels};
  if (s->height != 0) return image;
  void *scratch = scratch_push(L, s->scratch / sizeof(real) + 1);
  const char *error = source_fetch(s, q->order[0] - 1, 0, scratch, &image);
  if (error != NULL) tensor_error(L, "loader: sample %d: %s", (int)q->order[0], error);
  scratch_release(L, lua_gettop(L));
  lua_pop(L, 1);
  return image;
}

/* The result's shape, and the scratch for images of the source. */
static void measure(lua_State *L, Batches *q) {
  Image first = first_shape(L, q), largest = first;
  char message[STEP_MESSAGE];
  q->result = first;
  if (!steps_shape(q->list, q->training, &q->result, message)) tensor_error(L, "loader: %s", message);
  if (q->source->height == 0) largest.height = largest.width = (long)ceil(sqrt((double)q->source->most_pixels));
  q->scratch_size = batches_scratch(q->source, q->list, q->training, &largest) + (q->source->height == 0 ? SPARE : 0);
}

static size_t batch_bytes(const Batches *q) {
  return (size_t)(q->batch * q->source->frames * image_elements(&q->result)) * sizeof(real);
}

static void take_memory(lua_State *L, Batches *q) {
  q->scratch = own(L, SCRATCH, q->scratch_size * (size_t)(1 + q->helpers));
  for (int i = 0; i < BATCHES_AHEAD; i++) {
    q->place[i].x = own(L, PLACES + i, batch_bytes(q));
    q->place[i].sample = own(L, SAMPLES + i, (size_t)q->batch * sizeof(BatchSample));
  }
}

/* queue(source, order, numbers, batch, list, training, seed, epoch, first) -> the batches of an epoch from number 'first' on,
   made ahead
   order: i32 N, which samples of the source, one after another; numbers: i32 N, what the random numbers of each depend on */
static int l_queue(lua_State *L) {
  lua_settop(L, 9);
  const Source *source = source_check(L, 1);
  const StepList *list = steps_check(L, 5);
  long batch = tensor_check_size(L, 4, "loader: batch", 1);
  long first = tensor_check_size(L, 9, "loader: first", 1) - 1;
  const Tensor *order = push_numbers(L, 2, "order", source->count);
  const Tensor *numbers = push_numbers(L, 3, "numbers", INT32_MAX);
  if (order->shape[0] != numbers->shape[0])
    tensor_error(L, "loader: %d numbers for %d samples", (int)numbers->shape[0], (int)order->shape[0]);
  Queue *queue = lua_newuserdatauv(L, sizeof *queue, USER_VALUES);
  memset(queue, 0, sizeof *queue);
  luaL_setmetatable(L, queue_type);
  Batches *q = &queue->batches;
  q->source = source;
  q->list = list;
  q->training = lua_toboolean(L, 6);
  q->seed = (uint64_t)luaL_optinteger(L, 7, 0);
  q->epoch = (uint64_t)luaL_optinteger(L, 8, 0);
  q->count = order->shape[0];
  q->batch = batch < q->count ? batch : q->count;
  q->helpers = omp_get_max_threads();
  queue->sequential = source->sequential;
  for (int i = 0; i < list->count && q->training; i++) queue->mixes |= list->step[i].kind->mix != NULL;
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, SOURCE);
  lua_pushvalue(L, 5);
  lua_setiuservalue(L, -2, LIST);
  q->order = own_numbers(L, ORDER, order);
  q->number = own_numbers(L, NUMBERS, numbers);
  q->first = own_first(L, q);
  measure(L, q);
  if (first >= batches_number(q))
    tensor_error(L, "loader: batch %I of %I", (lua_Integer)first + 1, (lua_Integer)batches_number(q));
  take_memory(L, q);
  queue->given = first;
  batches_start(q, first);
  queue->open = true;
  return 1;
}

/* ---- closing ---- */

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
    if (slot == SOURCE || slot == LIST) continue;
    if (lua_getiuservalue(L, 1, slot) != LUA_TNIL) scratch_release(L, lua_gettop(L));
  }
  return 0;
}

/* The collector's: the memory goes its own way. */
static int l_gc(lua_State *L) {
  stop(luaL_checkudata(L, 1, queue_type));
  return 0;
}

/* ---- a batch ---- */

/* Pushes samples as a tensor over the memory at 'index'. Where that raises, the memory stays the queue's. */
static void push_samples(lua_State *L, int index, const Queue *queue, const BatchPlace *place, long samples) {
  long height = queue->batches.result.height, width = queue->batches.result.width;
  long channels = queue->batches.result.channels, frames = place->frames;
  long shape[5] = {samples, frames, channels, height, width};
  long stride[5] = {frames * height * width * channels, height * width * channels, 1, width * channels, channels};
  if (!queue->sequential) shape[1] = samples;
  int ndim = queue->sequential ? 5 : 4, skipped = 5 - ndim;
  Tensor *x = tensor_push_over(L, index, DTYPE_REAL, ndim, shape + skipped, LAYOUT_ROWS);
  memcpy(x->stride, stride + skipped, (size_t)ndim * sizeof *stride);
}

/* Raises where a sample could not be made: "path: what is wrong" where the source knows the path. */
static void check_failed(lua_State *L, const Queue *queue) {
  const Batches *q = &queue->batches;
  if (!atomic_load(&q->failed)) return;
  tensor_error(L, "loader: sample %I: %s", (lua_Integer)q->error_sample + 1, q->error);
}

/* queue:next() -> x: f32 N x C x H x W, or N x T x C x H x W, the channels of a pixel side by side in memory; frames: i32 N;
   second: i32 N, the place in the order of what was mixed in (0: nothing), and part: f32 N, the first one's, or nil without
   mixing; maps: f32 N x 6, where the result's pixels lie in the source's images; the seconds that it took. Nothing after the
   last batch. */
static int l_next(lua_State *L) {
  Queue *queue = luaL_checkudata(L, 1, queue_type);
  Batches *q = &queue->batches;
  long b = queue->given;
  lua_settop(L, 1);
  if (!queue->open) return 0;
  if (b == batches_number(q)) return l_close(L);
  long samples = batches_samples(q, b);
  int slot = (int)(b % BATCHES_AHEAD);
  BatchPlace *place = &q->place[slot];
  bool more = b + BATCHES_AHEAD < batches_number(q);
  Tensor *frames = tensor_push(L, DTYPE_I32, 1, &samples, LAYOUT_ROWS);
  Tensor *second = tensor_push(L, DTYPE_I32, 1, &samples, LAYOUT_ROWS);
  Tensor *part = tensor_push(L, DTYPE_REAL, 1, &samples, LAYOUT_ROWS);
  Tensor *maps = tensor_push(L, DTYPE_REAL, 2, (long[]){samples, 6}, LAYOUT_ROWS);
  real *x = more ? scratch_push(L, batch_bytes(q) / sizeof(real) + 1) : (lua_pushnil(L), NULL);
  double start = now();
  batches_finish(q, b);
  double waited = now() - start;
  check_failed(L, queue);
  lua_getiuservalue(L, 1, PLACES + slot);
  push_samples(L, 7, queue, place, samples); /* from here on nothing raises */
  for (long i = 0; i < samples; i++) {
    tensor_ints(frames)[i] = place->sample[i].frames;
    tensor_ints(second)[i] = place->sample[i].second + 1;
    tensor_reals(part)[i] = place->sample[i].part;
    for (int k = 0; k < 6; k++) tensor_reals(maps)[6 * i + k] = (real)place->sample[i].map.of[k];
  }
  lua_pushvalue(L, 6);
  lua_setiuservalue(L, 1, PLACES + slot);
  if (more) batches_continue(q, b, x);
  queue->given++;
  lua_pushvalue(L, 2);
  if (queue->mixes) {
    lua_pushvalue(L, 3);
    lua_pushvalue(L, 4);
  } else {
    lua_pushnil(L);
    lua_pushnil(L);
  }
  lua_pushvalue(L, 5);
  lua_pushnumber(L, waited);
  return 6;
}

/* ---- numbers of a set ---- */

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

/* statistics(images) -> mean and standard deviation of all elements of a u8 tensor, as numbers of 0..1 */
static int l_statistics(lua_State *L) {
  tensor_check_dtype(L, 1, DTYPE_U8);
  const Tensor *t = lua_touserdata(L, 1);
  if (!tensor_is_dense(t)) t = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  uint64_t sum, squares;
  double n = (double)tensor_numel(t);
  sum_bytes(t->data, tensor_numel(t), &sum, &squares);
  double mean = (double)sum / (255 * n), variance = (double)squares / (255 * 255 * n) - mean * mean;
  lua_pushnumber(L, mean);
  lua_pushnumber(L, sqrt(variance > 1e-6 ? variance : 1e-6));
  return 2;
}

static const luaL_Reg queue_methods[] = {
    {"next", l_next}, {"close", l_close}, {"__close", l_close}, {"__gc", l_gc}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"queue", l_queue}, {"statistics", l_statistics}, {NULL, NULL}};

int luaopen_feral_core_batches(lua_State *L) {
  luaL_newmetatable(L, queue_type);
  luaL_setfuncs(L, queue_methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}
