/* product.c -- see product.h. Big products are cut into pieces that depend on the sizes alone, each one call of BLAS.
 */
#include "product.h"

#include <stdbool.h>

#include "../base/blas.h"
#include "../base/parallel.h"

enum { PIECE_LEAST = 48, PIECES_MOST = 16, SMALL_PRODUCT = 1 << 17 };

static const real *at(const Matrix *m, long row, long column) {
  return m->data + (m->transposed ? column * m->ld + row : row * m->ld + column);
}

void product(long m, long n, long k, const Matrix *a, const Matrix *b, real *c) {
  bool by_rows = m >= n;
  long longer = by_rows ? m : n, pieces = longer / PIECE_LEAST;
  if ((double)m * (double)n * (double)k < SMALL_PRODUCT || pieces < 1) pieces = 1;
  if (pieces > PIECES_MOST) pieces = PIECES_MOST;
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = piece_start(longer, pieces, p), count = piece_start(longer, pieces, p + 1) - first;
    if (by_rows)
      gemm(a->transposed, b->transposed, count, n, k, 1, at(a, first, 0), a->ld, b->data, b->ld, 0, c + first * n, n);
    else
      gemm(a->transposed, b->transposed, m, count, k, 1, a->data, a->ld, at(b, 0, first), b->ld, 0, c + first, n);
  }
}

enum { COLUMNS = 64 };

void column_sums(long m, long n, const real *x, real *sums) {
#pragma omp parallel for if (m * n > PARALLEL_MIN)
  for (long first = 0; first < n; first += COLUMNS) {
    double total[COLUMNS] = {0};
    long width = n - first < COLUMNS ? n - first : COLUMNS;
    for (long i = 0; i < m; i++)
      for (long j = 0; j < width; j++) total[j] += x[i * n + first + j];
    for (long j = 0; j < width; j++) sums[first + j] = (real)total[j];
  }
}
