/*
** tail.h -- what is done to a kernel's results while they are in cache, y = activation(y + residual), instead of in
** passes over memory of their own.
*/
#ifndef FERAL_TAIL_H
#define FERAL_TAIL_H

#include "../base/simd.h"

typedef enum TailActivation { TAIL_LINEAR, TAIL_RELU, TAIL_LEAKY_RELU } TailActivation;

typedef struct Tail {
  const real *residual; /* as many numbers as y, in the same order; or NULL */
  TailActivation activation;
  real parameter; /* the slope below 0 of TAIL_LEAKY_RELU */
} Tail;

static inline vreal tail_activate(const Tail *tail, vreal y) {
  switch (tail->activation) {
  case TAIL_RELU:
    return vselect(y <= 0, vset(0), y);
  case TAIL_LEAKY_RELU:
    return vselect(y > 0, y, y * tail->parameter);
  default:
    return y;
  }
}

/* y for the results number 'at' and following, of which 'lanes' are wanted (VLANES, a constant, where all are). */
static inline vreal tail_vector(const Tail *tail, vreal y, long at, int lanes) {
  if (tail->residual != NULL) y += vload_part(tail->residual + at, lanes);
  return tail_activate(tail, y);
}

/* The same in place for y[at] .. y[at + count - 1]; nothing at all where tail is NULL. */
static inline void tail_apply(const Tail *tail, real *y, long at, long count) {
  if (tail == NULL) return;
  long end = at + count;
  for (; at + VLANES <= end; at += VLANES) vstore(y + at, tail_vector(tail, vload(y + at), at, VLANES));
  int rest = (int)(end - at);
  if (rest > 0) vstore_part(y + at, tail_vector(tail, vload_part(y + at, rest), at, rest), rest);
}

#endif
