/* conv_geometry.h -- the sizes of a convolution. */
#ifndef FERAL_CONV_GEOMETRY_H
#define FERAL_CONV_GEOMETRY_H

#include <stdbool.h>

typedef struct ConvGeometry {
  long n, c, h, w;             /* of the input; c counts all groups */
  long f, kh, kw;              /* filters in all groups, kernel */
  long oh, ow;                 /* of the output */
  long stride_h, stride_w;     /* >= 1 */
  long dilation_h, dilation_w; /* >= 1 */
  long top, left;              /* rows and columns of zeros before the input; oh and ow tell how many are behind it */
  long groups;                 /* divides c and f */
  bool single;                 /* weights are packed to be read for one image alone */
} ConvGeometry;

/* Whether there is enough to do for more than one thread. */
static inline bool conv_is_large(const ConvGeometry *g) {
  long depth = g->kh * g->kw * (g->c / g->groups) + 1;
  return (double)depth * (double)(g->n * g->oh * g->ow) * (double)g->f > 1 << 16;
}

#endif
