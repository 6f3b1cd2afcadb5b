/*
** recurrent.h -- what the kernels of recurrent layers share: how a batch is cut for the threads, and products of some
** rows of state with a weight that is the same in every step. The weight is packed once a sequence into panels, four
** vectors wide, in the order in which the product reads them.
*/
#ifndef FERAL_RECURRENT_H
#define FERAL_RECURRENT_H

#include "../../base/parallel.h"
#include "../../base/simd.h"

/* A tile is some rows of four vectors; its sums must fit into the registers, of which AVX-512 has 32. */
enum { TILE_ROWS = VBYTES == 64 ? 6 : 3, TILE_VECTORS = 4, TILE_WIDTH = TILE_VECTORS * VLANES };
enum { PIECE_ROWS = 6, PIECES_MOST = 16, SMALL_SEQUENCE = 1 << 17 };

/* In how many pieces a batch of n sequences is cut; each goes through all steps by itself. 'work': multiplications. */
static inline long batch_pieces(long n, double work) {
  long pieces = 1;
  while (pieces < PIECES_MOST && 2 * pieces * PIECE_ROWS <= n && work >= SMALL_SEQUENCE) pieces *= 2;
  return pieces;
}

static inline long blocks_of(long n, long width) {
  return (n + width - 1) / width;
}

/* The first 'lanes' elements of p, and the other way. */
static inline vreal load_lanes(const real *p, int lanes) {
  return lanes == VLANES ? vload(p) : vload_part(p, lanes);
}
static inline void store_lanes(real *p, vreal v, int lanes) {
  if (lanes == VLANES)
    vstore(p, v);
  else
    vstore_part(p, v, lanes);
}

/* The logistic function, to a unit in the last place of 1: gates need no more where they are nearly closed. */
static inline vreal vgate(vreal x) {
  return (real)0.5 + (real)0.5 * vtanh((real)0.5 * x);
}

/* sums (rows,4) vectors += a (rows,k), lda apart, times panel (k,4) vectors. 'rows' must be a constant where it is
   inlined: the loops then unroll and the sums stay in registers. */
static inline __attribute__((always_inline)) void add_products(int rows, long k, const real *a, long lda,
                                                               const real *panel, vreal sums[TILE_ROWS][TILE_VECTORS]) {
  for (long i = 0; i < k; i++, panel += TILE_WIDTH)
    for (int v = 0; v < TILE_VECTORS; v++) {
      vreal b = vload(panel + v * VLANES);
      for (int r = 0; r < rows; r++) sums[r][v] += a[r * lda + i] * b;
    }
}

/* panels (blocks,k,TILE_WIDTH) of w (k,n) row-major; columns beyond n are zero */
void pack_panels(long k, long n, const real *w, real *panels);

/* y (rows,n) = a (rows,k) times the packed w (k,n) */
void multiply_panels(long rows, long n, long k, const real *a, const real *panels, real *y);

#endif
