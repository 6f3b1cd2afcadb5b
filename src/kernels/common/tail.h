/*
** tail.h -- what is done to a kernel's results while they are in cache, y = activation(y + residual), instead of in
** passes over memory of their own.
*/
#ifndef FERAL_TAIL_H
#define FERAL_TAIL_H

#include <stddef.h>

#include "activation.h"

typedef enum TailActivation {
  TAIL_LINEAR,
  TAIL_RELU,
  TAIL_LEAKY_RELU,
  TAIL_ELU,
  TAIL_GELU,
  TAIL_SILU,
  TAIL_SIGMOID,
  TAIL_TANH
} TailActivation;

typedef struct Tail {
  const real *residual; /* as many elements as y, in the same order; or NULL */
  TailActivation activation;
  real parameter; /* slope of TAIL_LEAKY_RELU, alpha of TAIL_ELU */
} Tail;

/* y[i] = activation(x[i] + residual[i]) for i from 'at' to at + count - 1; x may be y. tail NULL: y = x. */
void tail_map(const Tail *tail, const real *x, real *y, long at, long count);

/* The same in place. A kernel that writes some elements twice calls it after each time, for what it has just written. */
static inline void tail_apply(const Tail *tail, real *y, long at, long count) {
  if (tail != NULL) tail_map(tail, y, y, at, count);
}

static inline vreal tail_activate(TailActivation activation, vreal x, real parameter) {
  switch (activation) {
  case TAIL_RELU:
    return vselect(x <= 0, vset(0), x);
  case TAIL_LEAKY_RELU:
    return vselect(x > 0, x, x * parameter);
  case TAIL_ELU:
    return vselect(x > 0, x, expm1_of(x) * parameter);
  case TAIL_GELU:
    return gelu_of(x);
  case TAIL_SILU:
    return silu_of(x);
  case TAIL_SIGMOID:
    return vsigmoid(x);
  case TAIL_TANH:
    return vtanh(x);
  default:
    return x;
  }
}

/* The tail of a vector: elements 'at' and following, of which 'lanes' are wanted. */
static inline vreal tail_vector(const Tail *tail, vreal y, long at, int lanes) {
  if (tail->residual != NULL) y += vload_part(tail->residual + at, lanes);
  return tail_activate(tail->activation, y, tail->parameter);
}

#endif
