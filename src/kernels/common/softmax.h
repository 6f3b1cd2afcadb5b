/* softmax.h -- softmax and its logarithm along a dimension, and their gradients. */
#ifndef FERAL_SOFTMAX_H
#define FERAL_SOFTMAX_H

#include <stdbool.h>

#include "../../base/real.h"

/* Lines along one dimension. Element i of line l lies at (l / inner) * n * inner + l % inner + i * inner. */
typedef struct SoftmaxGeometry {
  long lines, n, inner;
} SoftmaxGeometry;

/* Called by all threads of a team, or by one outside any: y = softmax(x), or its logarithm. */
void softmax_run(const SoftmaxGeometry *g, bool logarithm, const real *x, real *y);

/* dx from dy and y; likewise */
void softmax_backward_run(const SoftmaxGeometry *g, bool logarithm, const real *dy, const real *y, real *dx);

#endif
