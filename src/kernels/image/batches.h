/*
** batches.h -- the batches of an epoch, made ahead of their use by a thread of their own. No lua_State here.
**
** The images of all batches, one after another, are the units of work; whoever is free takes the next one: the thread
** while a network computes, and the caller's threads too when a batch is wanted that is not ready. Each unit is a function
** of its number alone, so it does not matter who makes it. The thread calls nothing but augment_image.
*/
#ifndef FERAL_BATCHES_H
#define FERAL_BATCHES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "augment.h"

enum { BATCHES_AHEAD = 2 };

typedef struct Batches {
  Augmentation augmentation;
  SampleShape shape;
  const uint8_t *images;      /* (samples,frames,H,W,C) */
  int32_t *order;             /* (count): which samples, from 1 */
  long count, batch, frames;  /* samples in all, in a batch, and images of a sample */
  int helpers;                /* threads of the caller */
  real *scratch;              /* H W C reals for the thread, and for each helper */
  real *place[BATCHES_AHEAD]; /* of batch b: number b % BATCHES_AHEAD */

  atomic_long next, end;           /* the next unit to be taken; units from 'end' on have no place yet */
  atomic_long done[BATCHES_AHEAD]; /* units made of the batch in this place */
  atomic_bool stop;
  bool has_thread;
  pthread_t thread;
  pthread_mutex_t mutex; /* for sleeping alone */
  pthread_cond_t more, ready;
} Batches;

/* How many batches there are, and the samples in number b (from 0). */
long batches_number(const Batches *q);
long batches_samples(const Batches *q, long b);

/* Starts with all above 'next' filled in, the first batches' places too. Without a thread, where the system gives none
   or it could only be in the way, everything works as well. */
void batches_start(Batches *q);

/* Returns when batch b is whole; helps where it is not. */
void batches_finish(Batches *q, long b);

/* Gives batch b + BATCHES_AHEAD the place of batch b, which is whole and has been taken out. */
void batches_continue(Batches *q, long b, real *place);

/* Ends the thread, after the unit it is at. */
void batches_stop(Batches *q);

#endif
