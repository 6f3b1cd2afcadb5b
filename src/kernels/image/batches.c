/* batches.c -- see batches.h. */
#include "batches.h"

#include <signal.h>

#include "../../base/parallel.h"

/* ---- units ---- */

static long at_most(long value, long limit) {
  return value < limit ? value : limit;
}

long batches_number(const Batches *q) {
  return (q->count + q->batch - 1) / q->batch;
}

long batches_samples(const Batches *q, long b) {
  return at_most(q->batch, q->count - b * q->batch);
}

static long first_unit(const Batches *q, long k) {
  return q->first != NULL ? q->first[k] : k * q->source->frames;
}

static long units_before(const Batches *q, long b) {
  return first_unit(q, at_most(b * q->batch, q->count));
}

static long units_of(const Batches *q, long b) {
  return units_before(q, b + 1) - units_before(q, b);
}

/* The place in the order of the sample that a unit belongs to. */
static long sample_of(const Batches *q, long unit) {
  if (q->first == NULL) return unit / q->source->frames;
  long low = 0, high = q->count;
  while (high - low > 1) {
    long middle = (low + high) / 2;
    *(q->first[middle] <= unit ? &low : &high) = middle;
  }
  return low;
}

/* A unit that is now the caller's, or -1 when there is none before 'end'. */
static long take(Batches *q, long end) {
  long unit = atomic_load(&q->next);
  do {
    if (unit >= end) return -1;
  } while (!atomic_compare_exchange_weak(&q->next, &unit, unit + 1));
  return unit;
}

/* ---- one unit ---- */

static size_t aligned(size_t size) {
  return (size + 63) / 64 * 64;
}

size_t batches_scratch(const Source *source, const StepList *list, bool training, const Image *image) {
  return aligned(source->scratch) + aligned(steps_memory(list, training, image));
}

/* What a second sample is fetched with. */
typedef struct Fetching {
  const Batches *q;
  char *scratch;
  long frame;
} Fetching;

static const char *fetch(const Fetching *f, long k, long frame, Image *image) {
  return source_fetch(f->q->source, f->q->order[k] - 1, frame, f->scratch, image);
}

static const char *fetch_second(void *from, long k, Image *image, uint64_t *number) {
  const Fetching *f = from;
  long frames = source_frames(f->q->source, f->q->order[k] - 1);
  *number = (uint64_t)f->q->number[k];
  return fetch(f, k, f->frame < frames ? f->frame : frames - 1, image);
}

static void fail(Batches *q, long k, const char *error) {
  pthread_mutex_lock(&q->mutex);
  if (!atomic_load(&q->failed)) {
    snprintf(q->error, sizeof q->error, "%s", error);
    q->error_sample = q->order[k] - 1;
    atomic_store(&q->failed, true);
  }
  pthread_mutex_unlock(&q->mutex);
}

static void make_frame(Batches *q, long k, long frame, char *scratch, real *x, BatchSample *sample) {
  Fetching fetching = {q, scratch, frame};
  Image image, shape;
  StepsJob job = {.list = q->list,
                  .training = q->training,
                  .seed = q->seed,
                  .epoch = q->epoch,
                  .number = (uint64_t)q->number[k],
                  .partner = {q->count, fetch_second, &fetching},
                  .memory = scratch + aligned(q->source->scratch)};
  const char *error = fetch(&fetching, k, frame, &image);
  if (error == NULL) {
    shape = image;
    if (!steps_shape(q->list, q->training, &shape, job.message)) error = job.message;
  }
  if (error == NULL &&
      (shape.height != q->result.height || shape.width != q->result.width || shape.channels != q->result.channels))
    error = "the image is of another size than the first one; resize them all";
  if (error == NULL && batches_scratch(q->source, q->list, q->training, &image) > q->scratch_size)
    error = "the image has become larger since the set was made";
  if (error == NULL) error = steps_run(&job, &image, false, x);
  if (error != NULL) fail(q, k, error);
  if (frame == 0) {
    sample->second = (int32_t)job.second;
    sample->part = job.part;
    sample->map = job.map;
  }
}

/* Makes a unit in its place; returns the number of its batch. */
static long make(Batches *q, long unit, char *scratch) {
  long k = sample_of(q, unit), b = k / q->batch, frame = unit - first_unit(q, k), numel = image_elements(&q->result);
  BatchPlace *place = &q->place[b % BATCHES_AHEAD];
  BatchSample *sample = &place->sample[k % q->batch];
  real *x = place->x + (k % q->batch) * place->frames * numel;
  if (frame == 0) {
    sample->frames = (int32_t)(first_unit(q, k + 1) - first_unit(q, k));
    memset(x + sample->frames * numel, 0, (size_t)((place->frames - sample->frames) * numel) * sizeof(real));
  }
  if (!atomic_load(&q->failed)) make_frame(q, k, frame, scratch, x + frame * numel, sample);
  return b;
}

/* Counts a unit of batch b as made; true when all of the batch are. */
static bool count_made(Batches *q, long b) {
  return atomic_fetch_add(&q->place[b % BATCHES_AHEAD].done, 1) + 1 == units_of(q, b);
}

/* ---- the thread ---- */

/* Sleeps while there is nothing to do; false when it is to end. */
static bool wait_for_more(Batches *q) {
  if (!atomic_load(&q->stop) && atomic_load(&q->next) < atomic_load(&q->end)) return true;
  pthread_mutex_lock(&q->mutex);
  while (!atomic_load(&q->stop) && atomic_load(&q->next) >= atomic_load(&q->end))
    pthread_cond_wait(&q->more, &q->mutex);
  pthread_mutex_unlock(&q->mutex);
  return !atomic_load(&q->stop);
}

static void wake(Batches *q, pthread_cond_t *condition) {
  pthread_mutex_lock(&q->mutex); /* so that nobody is between looking and sleeping */
  pthread_cond_signal(condition);
  pthread_mutex_unlock(&q->mutex);
}

static void *run(void *queue) {
  Batches *q = queue;
  while (wait_for_more(q)) {
    long unit = take(q, atomic_load(&q->end));
    if (unit >= 0 && count_made(q, make(q, unit, q->scratch))) wake(q, &q->ready);
  }
  return NULL;
}

/* Signals are for the threads that were there before. */
static bool start_thread(Batches *q) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&q->thread, NULL, run, q) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return started;
}

/* ---- the caller ---- */

/* Readies a place for batch b. */
static void open_place(Batches *q, long b, real *x) {
  BatchPlace *place = &q->place[b % BATCHES_AHEAD];
  place->x = x;
  place->frames = 1;
  for (long k = b * q->batch; k < at_most((b + 1) * q->batch, q->count); k++) {
    long frames = first_unit(q, k + 1) - first_unit(q, k);
    if (frames > place->frames) place->frames = frames;
  }
  atomic_store(&place->done, 0);
}

void batches_start(Batches *q, long first) {
  for (long b = first; b < first + BATCHES_AHEAD; b++) open_place(q, b, q->place[b % BATCHES_AHEAD].x);
  atomic_init(&q->next, units_before(q, first));
  atomic_init(&q->end, units_before(q, first + BATCHES_AHEAD));
  atomic_init(&q->stop, false);
  atomic_init(&q->failed, false);
  pthread_mutex_init(&q->mutex, NULL);
  pthread_cond_init(&q->more, NULL);
  pthread_cond_init(&q->ready, NULL);
  q->has_thread = start_thread(q);
}

/* The share of one of the caller's threads: what is left before 'end'. */
static void help(Batches *q, long end, int thread) {
  char *scratch = q->scratch + (size_t)(1 + thread) * q->scratch_size;
  for (long unit; (unit = take(q, end)) >= 0;) count_made(q, make(q, unit, scratch));
}

void batches_finish(Batches *q, long b) {
  long end = units_before(q, b + 1), units = units_of(q, b);
  atomic_long *done = &q->place[b % BATCHES_AHEAD].done;
  if ((end - atomic_load(&q->next)) * image_elements(&q->result) > PARALLEL_MIN) {
#pragma omp parallel num_threads(q->helpers)
    help(q, end, omp_get_thread_num());
  } else {
    help(q, end, 0);
  }
  if (atomic_load(done) == units) return;
  pthread_mutex_lock(&q->mutex);
  while (atomic_load(done) < units) pthread_cond_wait(&q->ready, &q->mutex);
  pthread_mutex_unlock(&q->mutex);
}

void batches_continue(Batches *q, long b, real *x) {
  open_place(q, b + BATCHES_AHEAD, x);
  atomic_store(&q->end, units_before(q, b + BATCHES_AHEAD + 1));
  wake(q, &q->more);
}

void batches_stop(Batches *q) {
  atomic_store(&q->stop, true);
  if (q->has_thread) {
    wake(q, &q->more);
    pthread_join(q->thread, NULL);
  }
  pthread_mutex_destroy(&q->mutex);
  pthread_cond_destroy(&q->more);
  pthread_cond_destroy(&q->ready);
}
