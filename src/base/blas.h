/*
** blas.h -- OpenBLAS for either real; always one thread a call, the engine parallelises outside. OpenBLAS takes one inside
** a parallel region and elsewhere as many as OpenMP would, whatever openblas_set_num_threads has said: so OpenMP is told 1
** for the time of the call.
*/
#ifndef FERAL_BLAS_H
#define FERAL_BLAS_H

#include <cblas.h>

#include "parallel.h"
#include "real.h"

#ifdef REAL_DOUBLE
#  define blas_gemm cblas_dgemm
#else
#  define blas_gemm cblas_sgemm
#endif

/* c (m x n) = alpha * op(a) (m x k) * op(b) (k x n) + beta * c, all row-major; ta, tb: the operand lies transposed. */
static inline void gemm(int ta, int tb, long m, long n, long k, real alpha, const real *a, long lda, const real *b,
                        long ldb, real beta, real *c, long ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (long i = 0; i < m; i++)
      for (long j = 0; j < n; j++) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
    return;
  }
  int threads = omp_get_max_threads();
  if (threads > 1) omp_set_num_threads(1);
  blas_gemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n,
            (blasint)k, alpha, a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
  if (threads > 1) omp_set_num_threads(threads);
}

#endif
