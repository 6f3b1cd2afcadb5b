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

static long units_before(const Batches *q, long b) {
  return at_most(b * q->batch, q->count) * q->frames;
}

/* A unit that is now the caller's, or -1 when there is none before 'end'. */
static long take(Batches *q, long end) {
  long unit = atomic_load(&q->next);
  do {
    if (unit >= end) return -1;
  } while (!atomic_compare_exchange_weak(&q->next, &unit, unit + 1));
  return unit;
}

static long source_numel(const SampleShape *s) {
  return s->height * s->width * s->channels;
}
static long result_numel(const SampleShape *s) {
  return s->to_height * s->to_width * s->channels;
}

/* Makes a unit in its place; returns the number of its batch. */
static long make(Batches *q, long unit, real *scratch) {
  const SampleShape *s = &q->shape;
  long sample = q->order[unit / q->frames], per_batch = q->batch * q->frames, b = unit / per_batch;
  long image = (sample - 1) * q->frames + unit % q->frames;
  augment_image(&q->augmentation, s, q->images + image * source_numel(s), (uint64_t)sample,
                q->place[b % BATCHES_AHEAD] + unit % per_batch * result_numel(s), scratch);
  return b;
}

/* Counts a unit of batch b as made; true when all of the batch are. */
static bool count_made(Batches *q, long b) {
  return atomic_fetch_add(&q->done[b % BATCHES_AHEAD], 1) + 1 == batches_samples(q, b) * q->frames;
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

void batches_start(Batches *q) {
  atomic_init(&q->next, 0);
  atomic_init(&q->end, units_before(q, BATCHES_AHEAD));
  for (int i = 0; i < BATCHES_AHEAD; i++) atomic_init(&q->done[i], 0);
  atomic_init(&q->stop, false);
  pthread_mutex_init(&q->mutex, NULL);
  pthread_cond_init(&q->more, NULL);
  pthread_cond_init(&q->ready, NULL);
  q->has_thread = start_thread(q);
}

/* The share of one of the caller's threads: what is left before 'end'. */
static void help(Batches *q, long end, int thread) {
  real *scratch = q->scratch + (1 + thread) * source_numel(&q->shape);
  for (long unit; (unit = take(q, end)) >= 0;) count_made(q, make(q, unit, scratch));
}

void batches_finish(Batches *q, long b) {
  long end = units_before(q, b + 1);
  if ((end - atomic_load(&q->next)) * result_numel(&q->shape) > PARALLEL_MIN) {
#pragma omp parallel num_threads(q->helpers)
    help(q, end, omp_get_thread_num());
  } else {
    help(q, end, 0);
  }
  long units = batches_samples(q, b) * q->frames;
  if (atomic_load(&q->done[b % BATCHES_AHEAD]) == units) return;
  pthread_mutex_lock(&q->mutex);
  while (atomic_load(&q->done[b % BATCHES_AHEAD]) < units) pthread_cond_wait(&q->ready, &q->mutex);
  pthread_mutex_unlock(&q->mutex);
}

void batches_continue(Batches *q, long b, real *place) {
  q->place[b % BATCHES_AHEAD] = place;
  atomic_store(&q->done[b % BATCHES_AHEAD], 0);
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
