/*
** loop.h -- one walk over up to three tensors of one (broadcast) shape, whatever their strides.
** A row function gets n elements of each operand, their addresses and their steps in bytes; the loop sorts and merges
** dimensions so that rows are as long as they can be, in the order of the first operand's memory, and shares big walks
** among threads. An element's result depends on that element alone, so the number of threads cannot show.
*/
#ifndef FERAL_LOOP_H
#define FERAL_LOOP_H

#include "tensor.h"

enum { LOOP_MAX_OPERANDS = 3 };

typedef void (*LoopRow)(long n, char *const *at, const long *step, const void *context);

/* shape[] gets the broadcast shape of a and b; the number of dimensions, or -1 when they do not fit. */
int loop_broadcast(const Tensor *a, const Tensor *b, long shape[TENSOR_MAX_DIMS]);

/* True when t can be read as if it had this shape. */
bool loop_fits(const Tensor *t, int ndim, const long *shape);

/* True when the spans of memory that they reach have a byte in common. */
bool loop_overlaps(const Tensor *a, const Tensor *b);

/* operands[0] has the full shape; the others fit it. */
void loop_run(int count, const Tensor *const *operands, LoopRow row, const void *context);

#endif
