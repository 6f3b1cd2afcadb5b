/*
** lanes.h -- vectors out of the rows that loop.h hands over, whatever their steps. A row function that reads and writes
** through these puts every element through the same vector code, wherever it lies, so its value depends on nothing
** else.
*/
#ifndef FERAL_LANES_H
#define FERAL_LANES_H

#include "../base/simd.h"

/* The first VLANES of the n elements from 'at' on, 'step' bytes apart; zero in lanes beyond n. */
static inline vreal lanes_get(const char *at, long step, long n) {
  if (step == (long)sizeof(real) && n >= VLANES) return vload((const real *)at);
  real lane[VLANES] = {0};
  for (int j = 0; j < VLANES && j < n; j++) lane[j] = *(const real *)(at + j * step);
  return vload(lane);
}

static inline void lanes_put(char *at, long step, long n, vreal v) {
  if (step == (long)sizeof(real) && n >= VLANES) {
    vstore((real *)at, v);
    return;
  }
  real lane[VLANES];
  vstore(lane, v);
  for (int j = 0; j < VLANES && j < n; j++) *(real *)(at + j * step) = lane[j];
}

#endif
