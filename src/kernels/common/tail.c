/* tail.c -- see tail.h. */
#include "tail.h"

#include <string.h>

/* A loop for each activation. */
static inline __attribute__((always_inline)) void map(const TailActivation activation, const Tail *tail, const real *x,
                                                      real *y, long at, long end) {
  const Tail own = {tail->residual, activation, tail->parameter};
  if (own.residual == NULL)
    for (; at + VLANES <= end; at += VLANES) vstore(y + at, tail_activate(activation, vload(x + at), own.parameter));
  else
    for (; at + VLANES <= end; at += VLANES) vstore(y + at, tail_vector(&own, vload(x + at), at, VLANES));
  int rest = (int)(end - at);
  if (rest > 0) vstore_part(y + at, tail_vector(&own, vload_part(x + at, rest), at, rest), rest);
}

#define MAP(activation)                                                                                                \
  case activation:                                                                                                     \
    map(activation, tail, x, y, at, at + count);                                                                       \
    break;

void tail_map(const Tail *tail, const real *x, real *y, long at, long count) {
  if (tail == NULL) {
    memmove(y + at, x + at, (size_t)count * sizeof *y);
    return;
  }
  switch (tail->activation) {
    MAP(TAIL_LINEAR)
    MAP(TAIL_RELU)
    MAP(TAIL_LEAKY_RELU)
    MAP(TAIL_ELU)
    MAP(TAIL_GELU)
    MAP(TAIL_SILU)
    MAP(TAIL_SIGMOID)
    MAP(TAIL_TANH)
  }
}
