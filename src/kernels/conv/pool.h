/*
** pool.h -- the largest number or the mean of windows of images, and their gradients. Activations lie channels last.
** Where the largest stood is kept as its position inside the window, row by row: a byte, or 4 for windows beyond 256 cells.
*/
#ifndef FERAL_POOL_H
#define FERAL_POOL_H

#include <stdbool.h>

#include "../../base/real.h"

/* One direction: windows of 'kernel' cells, 'stride' apart, over 'in' pixels with 'pad' more on either side. */
typedef struct PoolAxis {
  long in, out, kernel, stride, pad;
} PoolAxis;

/* x, dx (n,y.in,x.in,c)  y, dy, positions (n,y.out,x.out,c) */
typedef struct PoolGeometry {
  long n, c;
  PoolAxis y, x;
  bool count_padding; /* means divide by the whole window, its padding included */
} PoolGeometry;

static inline bool pool_has_bytes(const PoolGeometry *g) {
  return g->y.kernel * g->x.kernel <= 256;
}

/* Reals that each of pool_max, pool_mean and pool_backward works in, aligned to 8 bytes. */
long pool_packed_size(const PoolGeometry *g);

/* A NaN wins. positions: bytes or int32_t (pool_has_bytes), or NULL where no gradient is wanted. */
void pool_max(const PoolGeometry *g, const real *x, real *y, void *positions, real *scratch);
void pool_mean(const PoolGeometry *g, const real *x, real *y, real *scratch);

/* The same in two parts: pool_pack works out which elements come from which, for any g->n; the others are called by all
   threads of a team, or by one outside any, and return when all of the work is done. */
void pool_pack(const PoolGeometry *g, real *packed);
void pool_max_run(const PoolGeometry *g, const real *packed, const real *x, real *y, void *positions);
void pool_mean_run(const PoolGeometry *g, const real *packed, const real *x, real *y);

/* x (n,pixels,c) -> y (n,c), sums in double; called by a team */
void pool_global_mean_run(long n, long pixels, long c, const real *x, real *y);

/* positions: NULL for means */
void pool_backward(const PoolGeometry *g, const real *dy, const void *positions, real *dx, real *scratch);

#endif
