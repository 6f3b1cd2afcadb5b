/* resize.h -- images to another size. No lua_State here. */
#ifndef FERAL_RESIZE_H
#define FERAL_RESIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "../../base/real.h"

/* How one axis is resampled: result i is the sum of source[first[i] + k] * weight[i * count + k], k < count. */
typedef struct Taps {
  long count;
  int32_t *first;
  real *weight;
} Taps;

long taps_count(long from, long to);
void taps_fill(Taps *taps, long from, long to);

/* source (n,height,width,channels) -> result (n,to_height,to_width,channels), both of bytes or both of reals.
   'rows' is scratch of width * channels reals for each thread. */
typedef struct Resize {
  bool bytes;
  long n, height, width, channels, to_height, to_width;
  Taps down, across;
} Resize;

/* One image (n is 1), by the calling thread alone; 'row' is scratch of width * channels reals. */
void resize_one(const Resize *r, const void *source, void *result, real *row);

void resize_images(const Resize *r, const void *source, void *result, real *rows);

#endif
