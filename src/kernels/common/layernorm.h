/*
** layernorm.h -- layer normalisation (Ba, Kiros and Hinton 2016) of rows of n elements.
** x, y, dy, dx (rows,n)  mean, inverse: 1 / standard deviation (rows)  weight, bias (n) or NULL
*/
#ifndef FERAL_LAYERNORM_H
#define FERAL_LAYERNORM_H

#include "../../base/real.h"

/* Called by all threads of a team, or by one outside any. mean, inverse: NULL where nobody wants them. */
void layernorm_run(long rows, long n, double eps, const real *x, const real *weight, const real *bias, real *y,
                   real *mean, real *inverse);

/* In how many pieces the rows are cut in the gradients. */
long layernorm_pieces(long rows, long n);

/* lines (pieces,n) of work */
void layernorm_backward_input(long rows, long n, const real *dy, const real *x, const real *weight, const real *mean,
                              const real *inverse, real *lines, real *dx);

/* sums (pieces,2,n) of work */
void layernorm_backward_weight(long rows, long n, const real *dy, const real *x, const real *mean, const real *inverse,
                               double *sums, real *dweight, real *dbias);

#endif
