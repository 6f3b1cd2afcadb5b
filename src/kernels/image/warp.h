/* warp.h -- an image through an affine map, interpolated bilinearly. No lua_State here. */
#ifndef FERAL_WARP_H
#define FERAL_WARP_H

#include "../../base/real.h"

/* What stands outside of the picture: its outermost pixels go on, the picture is mirrored at its border (the outermost
   pixel comes twice), or one value. */
typedef enum WarpEdge { WARP_CLAMP, WARP_REFLECT, WARP_CONSTANT } WarpEdge;

/* Pixel centres lie at whole numbers, y grows downwards: the result at x, y is the source at
   (of[0] x + of[1] y + of[2], of[3] x + of[4] y + of[5]). */
typedef struct WarpMap {
  double of[6];
} WarpMap;

/* Turned by 'radians' against the clock, enlarged 'zoom' times about the centre and moved by (right, down) pixels of
   the result; mirrored before all that if 'mirror' is -1 and not 1. The source fills the result when none of it is
   asked for. */
WarpMap warp_map(long height, long width, long to_height, long to_width, double radians, double zoom, double right,
                 double down, double mirror);

enum { WARP_CHANNELS = 16 };

typedef struct WarpSource {
  const real *pixels; /* height x width x channels */
  long height, width, channels;
  WarpEdge edge;
  real fill[WARP_CHANNELS]; /* for WARP_CONSTANT */
} WarpSource;

/* result: to_height x to_width x channels */
void warp_image(const WarpSource *source, const WarpMap *map, long to_height, long to_width, real *result);

#endif
