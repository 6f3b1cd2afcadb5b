/*
** panel.h -- the kernel under the engine's matrix products: a few rows of one operand times a panel of the other, some
** vectors wide, with all sums in registers. Its operands are packed so that it reads the panel in one stream.
*/
#ifndef FERAL_PANEL_H
#define FERAL_PANEL_H

#include "../../base/simd.h"

#define PANEL_INLINE static inline __attribute__((always_inline))

enum { PANEL_VECTORS = VREGISTERS >= 32 ? 4 : 3, PANEL_ROWS = 8, PANEL_WIDTH = PANEL_VECTORS * VLANES };

/* Rows at a time: their sums, a row of the panel and one factor fit the registers. */
PANEL_INLINE int panel_rows(int vectors) {
  return VREGISTERS < 32 ? (vectors == 3 ? 4 : 6) : vectors == 4 ? 6 : 8;
}

/* sums (rows,vectors) += a (rows,depth) times panel (depth,vectors); elements of a lie row_step and step apart. 'rows' and
   'vectors' must be constants where it is inlined. */
PANEL_INLINE void panel_add(const int rows, const int vectors, long depth, const real *a, long row_step, long step,
                            const real *panel, vreal sums[PANEL_ROWS][PANEL_VECTORS]) {
  for (long d = 0; d < depth; d++, a += step, panel += vectors * VLANES) {
    vreal line[PANEL_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) line[v] = vload(panel + v * VLANES);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
      vreal factor = vset(a[r * row_step]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sums[r][v] += factor * line[v];
    }
  }
}

#endif
