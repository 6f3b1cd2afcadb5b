/* product.h -- matrix products on all threads, whose results do not depend on how many there are. */
#ifndef FERAL_PRODUCT_H
#define FERAL_PRODUCT_H

#include "../../base/real.h"

/* A matrix as BLAS reads it: row-major with distance ld between rows, or the transpose of such a one. */
typedef struct Matrix {
  const real *data;
  long ld;
  int transposed;
} Matrix;

/* c (m,n) row-major with distance n = a (m,k) b (k,n) */
void product(long m, long n, long k, const Matrix *a, const Matrix *b, real *c);

/* sums (n) = the sums of the columns of x (m,n), added up in double */
void column_sums(long m, long n, const real *x, real *sums);

#endif
