/*
** conv_methods.h -- the ways to compute a convolution among which conv.c chooses. Each has the functions of conv.h.
** Private to src/kernels/conv.
*/
#ifndef FERAL_CONV_METHODS_H
#define FERAL_CONV_METHODS_H

#include "conv_geometry.h"
#include "../common/tail.h"

/* Forward, as in conv.h: packed weights do not depend on g->n or the number of threads; pack and run are called by all
   threads of a team. Sizes are whole lines of cache (gather_reserve). */
typedef struct ConvMethod {
  long (*packed_size)(const ConvGeometry *g);
  long (*run_scratch)(const ConvGeometry *g);
  void (*pack)(const ConvGeometry *g, const real *w, const real *bias, real *packed);
  void (*run)(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y, real *scratch);
} ConvMethod;

/* Any convolution: conv_direct.c, conv_weight.c. */
extern const ConvMethod conv_direct;
long direct_backward_input_scratch(const ConvGeometry *g);
long direct_backward_weight_scratch(const ConvGeometry *g);
void direct_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);
void direct_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

/* Forward and the input's gradient at a stride of 1 and without groups, for few output channels: conv_planar.c. */
extern const ConvMethod conv_planar;
long planar_backward_input_scratch(const ConvGeometry *g);
void planar_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);

/* 3x3 to 5x5 at a stride of 1 between many channels, by fewer multiplications: conv_winograd.c, conv_winograd_weight.c. */
extern const ConvMethod conv_winograd;
long winograd_backward_input_scratch(const ConvGeometry *g);
long winograd_backward_weight_scratch(const ConvGeometry *g);
void winograd_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);
void winograd_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

/* One filter a channel, c = f = groups: conv_depthwise.c. */
extern const ConvMethod conv_depthwise;
long depthwise_backward_input_scratch(const ConvGeometry *g);
long depthwise_backward_weight_scratch(const ConvGeometry *g);
void depthwise_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);
void depthwise_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

#endif
