/*
** conv.h -- two-dimensional convolution, by whichever method its sizes call for.
** Images lie channels last (N,H,W,C); weights come as people see them, (F,C/groups,KH,KW) row-major.
*/
#ifndef FERAL_CONV_H
#define FERAL_CONV_H

#include "conv_geometry.h"
#include "../common/tail.h"

/* How many reals of scratch each function below wants. */
long conv_forward_scratch(const ConvGeometry *g);
long conv_backward_input_scratch(const ConvGeometry *g);
long conv_backward_weight_scratch(const ConvGeometry *g);

/* y = x * w + bias;  x: (N,H,W,C)  w: (F,C/groups,KH,KW)  bias: (F) or NULL  y: (N,OH,OW,F) */
void conv_forward(const ConvGeometry *g, const real *x, const real *w, const real *bias, real *y, real *scratch);

/* dx = the gradient of x;  dy: (N,OH,OW,F)  dx: (N,H,W,C) */
void conv_backward_input(const ConvGeometry *g, const real *dy, const real *w, real *dx, real *scratch);

/* dw = the gradient of w */
void conv_backward_weight(const ConvGeometry *g, const real *dy, const real *x, real *dw, real *scratch);

/* ---- the same weights for many inputs ----

   Packed weights depend on the geometry, but neither on g->n nor on the number of threads. conv_pack and conv_run are
   called by all threads of a team, or by one outside any; they share the work and return when all of it is done. */

long conv_packed_size(const ConvGeometry *g);
long conv_run_scratch(const ConvGeometry *g);
void conv_pack(const ConvGeometry *g, const real *w, const real *bias, real *packed);
/* y = tail(x * w + bias); tail may be NULL */
void conv_run(const ConvGeometry *g, const real *x, const real *packed, const Tail *tail, real *y, real *scratch);

#endif
