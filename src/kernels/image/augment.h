/* augment.h -- one training image varied at random, from bytes to what a network sees. No lua_State here. */
#ifndef FERAL_AUGMENT_H
#define FERAL_AUGMENT_H

#include <stdint.h>

#include "../../base/real.h"
#include "warp.h"

typedef struct Augmentation {
  double rotation;             /* degrees, to either side */
  double shift, zoom;          /* fractions, to either side */
  double mirror;               /* probability */
  double brightness, contrast; /* fractions, to either side */
  WarpEdge edge;
  real fill;
  real mean[WARP_CHANNELS], std[WARP_CHANNELS];
  uint64_t seed, epoch;
} Augmentation;

/* source (height,width,channels) of bytes, result (to_height,to_width,channels) of reals */
typedef struct SampleShape {
  long height, width, channels, to_height, to_width;
} SampleShape;

/* The result is a function of (seed, epoch, number) alone. scratch: as many reals as the image has bytes. */
void augment_image(const Augmentation *a, const SampleShape *s, const uint8_t *image, uint64_t number, real *result,
                   real *scratch);

#endif
