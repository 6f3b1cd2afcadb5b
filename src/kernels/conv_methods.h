/*
** conv_methods.h -- the ways to compute a convolution among which conv.c chooses. Each has the functions of conv.h.
** Private to src/kernels/conv*.c.
*/
#ifndef FERAL_CONV_METHODS_H
#define FERAL_CONV_METHODS_H

#include "conv.h"

/* Any convolution: conv_direct.c, conv_weight.c. */
long direct_forward_scratch(const ConvGeometry *g);
long direct_backward_input_scratch(const ConvGeometry *g);
long direct_backward_weight_scratch(const ConvGeometry *g);
void direct_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch);
void direct_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);
void direct_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

/* Forward and the input's gradient at a stride of 1 and without groups, for few output channels: conv_planar.c. */
long planar_forward_scratch(const ConvGeometry *g);
long planar_backward_input_scratch(const ConvGeometry *g);
void planar_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch);
void planar_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);

/* 3x3 at a stride of 1 between many channels, by fewer multiplications: conv_winograd.c, conv_winograd_weight.c. */
long winograd_forward_scratch(const ConvGeometry *g);
long winograd_backward_input_scratch(const ConvGeometry *g);
void winograd_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch);
long winograd_backward_weight_scratch(const ConvGeometry *g);
void winograd_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);
void winograd_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

/* One filter a channel, c = f = groups: conv_depthwise.c. */
long depthwise_forward_scratch(const ConvGeometry *g);
long depthwise_backward_input_scratch(const ConvGeometry *g);
long depthwise_backward_weight_scratch(const ConvGeometry *g);
void depthwise_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch);
void depthwise_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);
void depthwise_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

#endif
