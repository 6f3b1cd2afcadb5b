/* conv.c -- which method computes a convolution: a matter of its sizes alone. */
#include "conv.h"

#include "conv_gather.h"
#include "conv_methods.h"
#include "conv_winograd.h"

static bool is_depthwise(const ConvGeometry *g) {
  return g->groups == g->c && g->groups == g->f;
}

/* What the methods cost a pixel of the output, in multiply-adds of vectors. */
static double direct_cost(long depth, long cout) {
  return (double)depth * lane_cost(cout);
}

/* Vectors are of slopes, or of the inputs of a kernel's row: conv_weight.c. */
static double direct_weight_cost(const ConvGeometry *g) {
  double slopes = (double)(g->kh * g->kw * g->c) * lane_cost(g->f),
         inputs = (double)(g->kh * g->f) * lane_cost(g->kw * g->c);
  return slopes < inputs ? slopes : inputs;
}

/* Rows of pixels lie in vectors with the zeros between them, which are computed in vain. Turning a pixel's vector of
   channels into planes, or back, costs as much as 8 multiply-adds (measured). */
static double planar_cost(long depth, long cin, long cout, long h, long w, long zeros) {
  enum { POSITIONS = 2 * VLANES, TURN = 8 };
  long positions = ((h - 1) * (w + zeros) + w + POSITIONS - 1) / POSITIONS * POSITIONS;
  double in_vain = (double)positions / (double)(h * w);
  double split = cin > 1 ? (double)(TURN * lane_vectors(cin)) : 0, join = (double)(TURN * lane_vectors(cout));
  return ((double)depth * (double)cout / VLANES + split) * in_vain + join;
}

static bool is_planar(const ConvGeometry *g, long cin, long cout, long h, long w) {
  if (g->groups > 1 || g->stride_h > 1 || g->stride_w > 1) return false;
  long depth = g->kh * g->kw * cin;
  return planar_cost(depth, cin, cout, h, w, (g->kw - 1) * g->dilation_w) < direct_cost(depth, cout);
}

static bool is_winograd(const ConvGeometry *g, bool forward) {
  if (!winograd_fits(g)) return false;
  Winograd k = forward ? winograd_forward_pass(g) : winograd_backward_pass(g);
  double pixels = (double)(k.out_h * k.out_w), direct = direct_cost(g->kh * g->kw * k.cin, k.cout);
  return winograd_cost(&k) < direct * pixels + winograd_reading(k.single, direct);
}

static bool is_winograd_weight(const ConvGeometry *g) {
  if (!winograd_fits(g)) return false;
  Winograd k = winograd_forward_pass(g);
  return winograd_weight_cost(&k) < direct_weight_cost(g) * (double)(g->oh * g->ow);
}

/* g->n plays no part: packed weights serve any number of images. */
static const ConvMethod *forward_method(const ConvGeometry *g) {
  if (is_depthwise(g)) return &conv_depthwise;
  if (is_winograd(g, true)) return &conv_winograd;
  return is_planar(g, g->c, g->f, g->oh, g->ow) ? &conv_planar : &conv_direct;
}

/* ---- conv.h ---- */

long conv_packed_size(const ConvGeometry *g) {
  return forward_method(g)->packed_size(g);
}

long conv_run_scratch(const ConvGeometry *g) {
  return forward_method(g)->run_scratch(g);
}

void conv_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed) {
  forward_method(g)->pack(g, w, bias, packed);
}

void conv_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y, real *scratch) {
  forward_method(g)->run(g, x, packed, tail, y, scratch);
}

long conv_forward_scratch(const ConvGeometry *g) {
  return conv_packed_size(g) + conv_run_scratch(g);
}

long conv_backward_input_scratch(const ConvGeometry *g) {
  if (is_depthwise(g)) return depthwise_backward_input_scratch(g);
  if (is_winograd(g, false)) return winograd_backward_input_scratch(g);
  return is_planar(g, g->f, g->c, g->h, g->w) ? planar_backward_input_scratch(g) : direct_backward_input_scratch(g);
}

long conv_backward_weight_scratch(const ConvGeometry *g) {
  if (is_depthwise(g)) return depthwise_backward_weight_scratch(g);
  return is_winograd_weight(g) ? winograd_backward_weight_scratch(g) : direct_backward_weight_scratch(g);
}

void conv_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch) {
  const ConvMethod *method = forward_method(g);
  real *rest = scratch + method->packed_size(g);
#pragma omp parallel if (conv_is_large(g))
  {
    method->pack(g, w, bias, scratch);
    method->run(g, x, scratch, NULL, y, rest);
  }
}

void conv_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch) {
  if (is_depthwise(g))
    depthwise_backward_input(g, dy, w, dx, scratch);
  else if (is_winograd(g, false))
    winograd_backward_input(g, dy, w, dx, scratch);
  else if (is_planar(g, g->f, g->c, g->h, g->w))
    planar_backward_input(g, dy, w, dx, scratch);
  else
    direct_backward_input(g, dy, w, dx, scratch);
}

void conv_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch) {
  if (is_depthwise(g))
    depthwise_backward_weight(g, dy, x, dw, scratch);
  else if (is_winograd_weight(g))
    winograd_backward_weight(g, dy, x, dw, scratch);
  else
    direct_backward_weight(g, dy, x, dw, scratch);
}
