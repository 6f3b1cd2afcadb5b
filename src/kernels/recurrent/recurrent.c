/* recurrent.c -- see recurrent.h. */
#include "recurrent.h"

void pack_panels(long k, long n, const real *w, real *panels) {
  for (long first = 0; first < n; first += TILE_WIDTH)
    for (long i = 0; i < k; i++)
      for (long j = first; j < first + TILE_WIDTH; j++) *panels++ = j < n ? w[i * n + j] : 0;
}

static inline __attribute__((always_inline)) void multiply_tile(int rows, long n, long k, const real *a,
                                                                const real *panel, long first, real *y) {
  vreal sums[TILE_ROWS][TILE_VECTORS] = {0};
  add_products(rows, k, a, k, panel, sums);
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < TILE_VECTORS; v++) {
      long j = first + v * VLANES;
      if (j < n) store_lanes(y + r * n + j, sums[r][v], n - j < VLANES ? (int)(n - j) : VLANES);
    }
}

void multiply_panels(long rows, long n, long k, const real *a, const real *panels, real *y) {
  for (long first = 0; first < n; first += TILE_WIDTH, panels += k * TILE_WIDTH) {
    long row = 0;
    for (; row + TILE_ROWS <= rows; row += TILE_ROWS)
      multiply_tile(TILE_ROWS, n, k, a + row * k, panels, first, y + row * n);
    for (; row + 2 <= rows; row += 2) multiply_tile(2, n, k, a + row * k, panels, first, y + row * n);
    for (; row < rows; row++) multiply_tile(1, n, k, a + row * k, panels, first, y + row * n);
  }
}
