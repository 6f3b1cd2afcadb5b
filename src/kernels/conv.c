/* conv.c -- which method computes a convolution: a matter of its sizes alone. */
#include <stdbool.h>

#include "conv_methods.h"

static bool is_depthwise(const ConvGeometry *g) {
  return g->groups == g->c && g->groups == g->f;
}

long conv_forward_scratch(const ConvGeometry *g) {
  return is_depthwise(g) ? depthwise_forward_scratch(g) : direct_forward_scratch(g);
}

long conv_backward_input_scratch(const ConvGeometry *g) {
  return is_depthwise(g) ? depthwise_backward_input_scratch(g) : direct_backward_input_scratch(g);
}

long conv_backward_weight_scratch(const ConvGeometry *g) {
  return is_depthwise(g) ? depthwise_backward_weight_scratch(g) : direct_backward_weight_scratch(g);
}

void conv_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch) {
  (is_depthwise(g) ? depthwise_forward : direct_forward)(g, x, w, bias, y, scratch);
}

void conv_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch) {
  (is_depthwise(g) ? depthwise_backward_input : direct_backward_input)(g, dy, w, dx, scratch);
}

void conv_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch) {
  (is_depthwise(g) ? depthwise_backward_weight : direct_backward_weight)(g, dy, x, dw, scratch);
}
