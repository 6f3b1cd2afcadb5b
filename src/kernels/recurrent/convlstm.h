/*
** convlstm.h -- convolutional long short-term memory over whole sequences of images (Shi et al. 2015), without peepholes.
**
**   i, f, o = sigmoid, g = tanh of W_ih * x + b + W_hh * h'      c = f c' + i g      h = o tanh c
**
** where * is convolution among as many zeros as keep the size. All lies step by step in memory, each image channels last:
** (T,N,H,W,...), the four gates i f g o of a pixel side by side.
*/
#ifndef FERAL_CONVLSTM_H
#define FERAL_CONVLSTM_H

#include <stdbool.h>

#include "../conv/conv.h"

typedef struct ConvLstmGeometry {
  long steps, n, c, f, h, w; /* f: hidden channels */
  long kh, kw;
} ConvLstmGeometry;

/* Of the convolutions of so many images: of the input with W_ih, of the hidden state with W_hh. */
ConvGeometry convlstm_input_conv(const ConvLstmGeometry *g, long images);
ConvGeometry convlstm_state_conv(const ConvLstmGeometry *g, long images);

/* x: (T,N,H,W,C)  w_ih: (4F,C,KH,KW)  w_hh: (4F,F,KH,KW)  bias: (4F) or NULL  h_first, c_first: (N,H,W,F), NULL for zeros
   gates: (T,N,H,W,4F), or NULL where nobody will want them
   hidden, cells: (T,N,H,W,F), after each step; or one slot (N,H,W,F) for all steps, which ends with the last one */
typedef struct ConvLstmForward {
  const real *x, *w_ih, *w_hh, *bias, *h_first, *c_first;
  real *gates, *hidden, *cells;
  bool one_hidden, one_cells;
} ConvLstmForward;

long convlstm_forward_scratch(const ConvLstmGeometry *g, bool keeps_gates);
void convlstm_forward(const ConvLstmGeometry *g, const ConvLstmForward *run, real *scratch);

/* ---- the same weights for many sequences ----

   As conv.h's: convlstm_run is called by all threads of a team, or by one outside any. It takes one sequence, g->n = 1, from
   zeros; y: (T,H,W,F), or the last step's (H,W,F). */

long convlstm_packed_size(const ConvLstmGeometry *g);
long convlstm_run_scratch(const ConvLstmGeometry *g);
void convlstm_pack(const ConvLstmGeometry *g, const real *w_ih, const real *w_hh, const real *bias, real *packed);
void convlstm_run(const ConvLstmGeometry *g, const real *x, const real *packed, bool last, real *y, real *scratch);

/* ---- backward ---- */

/* dy: (T,N,H,W,F), or NULL where only the last step has a gradient, dh_last (N,H,W,F)  dc_last: (N,H,W,F) or NULL
   gates: the forward's, which become the gradients of what went into the gates  cells: (T,N,H,W,F)
   dc: (N,H,W,F), made, of the cells before the first step; dh the same of the hidden state, but only given its c_first
   dbias: (4F) or NULL */
typedef struct ConvLstmBackward {
  const real *dy, *dh_last, *dc_last, *w_hh, *cells, *c_first;
  real *gates, *dh, *dc, *dbias;
} ConvLstmBackward;

long convlstm_backward_scratch(const ConvLstmGeometry *g);
void convlstm_backward(const ConvLstmGeometry *g, const ConvLstmBackward *run, real *scratch);

#endif
