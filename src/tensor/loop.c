/* loop.c -- see loop.h. */
#include "loop.h"

#include <string.h>

#include "../base/parallel.h"

typedef struct Loop {
  int count, ndim;
  long shape[TENSOR_MAX_DIMS];
  long step[TENSOR_MAX_DIMS][LOOP_MAX_OPERANDS]; /* bytes */
} Loop;

/* Size of t in dimension d of ndim, t's dimensions aligned to the right. */
static long size_at(const Tensor *t, int ndim, int d) {
  int own = d - (ndim - t->ndim);
  return own < 0 ? 1 : t->shape[own];
}

int loop_broadcast(const Tensor *a, const Tensor *b, long shape[TENSOR_MAX_DIMS]) {
  int ndim = a->ndim > b->ndim ? a->ndim : b->ndim;
  for (int d = 0; d < ndim; d++) {
    long sa = size_at(a, ndim, d), sb = size_at(b, ndim, d);
    if (sa != sb && sa != 1 && sb != 1) return -1;
    shape[d] = sa == 1 ? sb : sa;
  }
  return ndim;
}

bool loop_fits(const Tensor *t, int ndim, const long *shape) {
  if (t->ndim > ndim) return false;
  for (int d = 0; d < ndim; d++) {
    long size = size_at(t, ndim, d);
    if (size != shape[d] && size != 1) return false;
  }
  return true;
}

/* One past the last byte that t reaches. */
static const char *end_of(const Tensor *t) {
  long last = 0;
  for (int d = 0; d < t->ndim; d++) last += (t->shape[d] - 1) * t->stride[d];
  return (const char *)t->data + (last + 1) * (long)dtype_size(t->dtype);
}

bool loop_overlaps(const Tensor *a, const Tensor *b) {
  return (const char *)a->data < end_of(b) && (const char *)b->data < end_of(a);
}

static long step_at(const Tensor *t, int ndim, int d) {
  int own = d - (ndim - t->ndim);
  return own < 0 || t->shape[own] == 1 ? 0 : t->stride[own] * (long)dtype_size(t->dtype);
}

/* Adds dimension d of the operands, keeping the steps of the first one falling. */
static void insert_dim(Loop *loop, const Tensor *const *operands, int d) {
  int ndim = operands[0]->ndim, at = loop->ndim++;
  long step = step_at(operands[0], ndim, d);
  for (; at > 0 && loop->step[at - 1][0] < step; at--) {
    loop->shape[at] = loop->shape[at - 1];
    memcpy(loop->step[at], loop->step[at - 1], sizeof loop->step[at]);
  }
  loop->shape[at] = operands[0]->shape[d];
  for (int k = 0; k < loop->count; k++) loop->step[at][k] = step_at(operands[k], ndim, d);
}

static bool mergeable(const Loop *loop, int outer) {
  for (int k = 0; k < loop->count; k++)
    if (loop->step[outer][k] != loop->step[outer + 1][k] * loop->shape[outer + 1]) return false;
  return true;
}

/* Joins dimensions that lie behind each other in every operand. */
static void merge_dims(Loop *loop) {
  for (int d = loop->ndim - 2; d >= 0; d--) {
    if (!mergeable(loop, d)) continue;
    loop->shape[d] *= loop->shape[d + 1];
    memcpy(loop->step[d], loop->step[d + 1], sizeof loop->step[d]);
    for (int later = d + 1; later < loop->ndim - 1; later++) {
      loop->shape[later] = loop->shape[later + 1];
      memcpy(loop->step[later], loop->step[later + 1], sizeof loop->step[later]);
    }
    loop->ndim--;
  }
}

static void advance(const Loop *loop, char *const *from, char **to, int d, long i) {
  for (int k = 0; k < loop->count; k++) to[k] = from[k] + i * loop->step[d][k];
}

static void walk(const Loop *loop, int d, long first, long last, char *const *at, LoopRow row, const void *context) {
  char *here[LOOP_MAX_OPERANDS] = {NULL};
  if (d == loop->ndim - 1 || d == TENSOR_MAX_DIMS - 1) {
    advance(loop, at, here, d, first);
    row(last - first, here, loop->step[d], context);
    return;
  }
  for (long i = first; i < last; i++) {
    advance(loop, at, here, d, i);
    walk(loop, d + 1, 0, loop->shape[d + 1], here, row, context);
  }
}

void loop_run(int count, const Tensor *const *operands, LoopRow row, const void *context) {
  Loop loop = {.count = count};
  for (int d = 0; d < operands[0]->ndim; d++)
    if (operands[0]->shape[d] > 1) insert_dim(&loop, operands, d);
  if (loop.ndim == 0) loop.shape[loop.ndim++] = 1; /* a single number; its steps are 0 */
  merge_dims(&loop);
  char *at[LOOP_MAX_OPERANDS] = {NULL};
  for (int k = 0; k < count; k++) at[k] = operands[k]->data;
  int pieces = tensor_numel(operands[0]) >= 2 * PARALLEL_MIN ? omp_get_max_threads() : 1;
#pragma omp parallel for num_threads(pieces) if (pieces > 1)
  for (int i = 0; i < pieces; i++) {
    long first = piece_start(loop.shape[0], pieces, i), last = piece_start(loop.shape[0], pieces, i + 1);
    if (last > first) walk(&loop, 0, first, last, at, row, context);
  }
}
