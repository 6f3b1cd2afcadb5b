/*
** dense.h -- a dense layer whose weights are packed once, y = tail(x w' + bias), a row a sample. The sums of a number are
** added in the same order whatever the number of rows and threads.
*/
#ifndef FERAL_DENSE_H
#define FERAL_DENSE_H

#include "../common/tail.h"

long dense_packed_size(long inputs, long outputs);

/* w: (outputs,inputs)  bias: (outputs) or NULL */
void dense_pack(long inputs, long outputs, const real *w, const real *bias, real *packed);

/* x: (rows,inputs)  y: (rows,outputs)  tail may be NULL. Called by all threads of a team, or by one outside any; they
   share the work and return when all of it is done. */
void dense_run(long rows, long inputs, long outputs, const real *x, const real *packed, const Tail *tail, real *y);

#endif
