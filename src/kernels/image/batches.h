/*
** batches.h -- the batches of an epoch, made ahead of their use by a thread of their own. No lua_State here.
**
** The frames of all samples, one after another, are the units of work; whoever is free takes the next one: the thread while
** a network computes, and the caller's threads too when a batch is wanted that is not ready. Each unit is a function of its
** number alone, so it does not matter who makes it. The thread calls nothing but the source's fetch and the steps.
*/
#ifndef FERAL_BATCHES_H
#define FERAL_BATCHES_H

#include <pthread.h>
#include <stdatomic.h>

#include "steps.h"

enum { BATCHES_AHEAD = 2, BATCHES_MESSAGE = 512 };

/* What came with a sample of a batch. */
typedef struct BatchSample {
  int32_t frames, second; /* second: the sample that was mixed in, by its place in the epoch's order, or -1 */
  real part;              /* of the first one */
  WarpMap map;            /* where pixel (x, y) of the result lies in the source's image */
} BatchSample;

/* Where a batch is made: x (samples,frames,H,W,C), with zeros behind the frames of shorter samples. */
typedef struct BatchPlace {
  real *x;
  BatchSample *sample;
  long frames;      /* of the longest sample */
  atomic_long done; /* units made */
} BatchPlace;

typedef struct Batches {
  const Source *source;
  const StepList *list;
  bool training;
  uint64_t seed, epoch;
  const int32_t *order;  /* (count): which samples, from 1, one after another */
  const int32_t *number; /* (count): what the random numbers of each depend on */
  const long *first;     /* (count + 1): the first unit of each sample; NULL: all have source->frames */
  long count, batch;
  Image result;  /* the shape of a frame of a batch */
  int helpers;   /* threads of the caller */
  char *scratch; /* 'scratch_size' bytes for the thread, and for each helper */
  size_t scratch_size;
  BatchPlace place[BATCHES_AHEAD]; /* of batch b: number b % BATCHES_AHEAD */

  atomic_long next, end; /* the next unit to be taken; units from 'end' on have no place yet */
  atomic_bool stop, failed;
  char error[BATCHES_MESSAGE]; /* what was wrong with sample 'error_sample' (from 0), where 'failed' is true */
  long error_sample;
  bool has_thread;
  pthread_t thread;
  pthread_mutex_t mutex; /* for sleeping, and for 'error' */
  pthread_cond_t more, ready;
} Batches;

/* Bytes that a thread needs for images of the source of this shape. */
size_t batches_scratch(const Source *source, const StepList *list, bool training, const Image *image);

/* How many batches there are, and the samples in number b (from 0). */
long batches_number(const Batches *q);
long batches_samples(const Batches *q, long b);

/* Starts at batch 'first', with all above 'next' filled in, the first places' x and sample too. Without a thread, where the system gives none
   or it could only be in the way, everything works as well. */
void batches_start(Batches *q, long first);

/* Returns when batch b is whole, or 'failed' is true; helps where it is not. */
void batches_finish(Batches *q, long b);

/* Gives batch b + BATCHES_AHEAD the place of batch b, which is whole and has been taken out, with another x. */
void batches_continue(Batches *q, long b, real *x);

/* Ends the thread, after the unit it is at. */
void batches_stop(Batches *q);

#endif
