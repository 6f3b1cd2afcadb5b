/*
** lstm.h -- long short-term memory over whole sequences (Hochreiter and Schmidhuber 1997; forget gate: Gers et al.
*2000).
**
**   i, f, o = sigmoid, g = tanh of (W_ih x + b_ih + W_hh h' + b_hh)      c = f c' + i g      h = o tanh c
**
** All lies step by step in memory: (T,N,...), the four gates i f g o of a sequence side by side as in PyTorch.
** 'hidden' and 'cells' have one step more, since they hold the state before the first step too: step t goes from
** slot t to t + 1, or in reverse from t + 1 to t.
*/
#ifndef FERAL_LSTM_H
#define FERAL_LSTM_H

#include <stdbool.h>
#include <stdint.h>

#include "../../base/real.h"

typedef struct LstmGeometry {
  long steps, n, inputs, hidden; /* T N I H */
  bool reverse;                  /* from the last step to the first */
  const int32_t *lengths;        /* (N): steps that a sequence has, later ones leave its state as it is; NULL: T */
} LstmGeometry;

/* How many reals of scratch the functions want. */
long lstm_forward_scratch(const LstmGeometry *g);
long lstm_backward_scratch(const LstmGeometry *g);

/* x: (T,N,I)  w_ih: (4H,I)  w_hh: (4H,H)  biases: (4H) or NULL  gates: (T,N,4H)  hidden, cells: (T+1,N,H), of which the
   slot before the first step is given and the others are made */
void lstm_forward(const LstmGeometry *g, const real *x, const real *w_ih, const real *w_hh, const real *b_ih,
                  const real *b_hh, real *gates, real *hidden, real *cells, real *scratch);

/* y (T,N,H) = the states after each step, zeros where a sequence has ended */
void lstm_outputs(const LstmGeometry *g, const real *hidden, real *y);

/* ---- the same without gradients, for weights that are packed once ---- */

/* The output has 'width' elements a step, of which these begin with number 'at'. */
typedef struct LstmRun {
  long steps, hidden, width, at;
  bool reverse;
} LstmRun;

/* w_hh: (4H,H) */
long lstm_packed_size(long hidden);
void lstm_pack(long hidden, const real *w_hh, real *packed);

/* gates (N,T,4H): what the inputs and biases give to them  y (N,T,width)  cells (N,H) of work. The states begin with zeros.
   Called by all threads of a team, or by one outside any. */
void lstm_run(const LstmRun *g, long n, const real *gates, const real *packed, real *y, real *cells);

/* ---- backward ---- */

/* Through time: from the gradients of the outputs, dy (T,N,H), to those of what goes into the gates, dgates (T,N,4H).
   dh, dc (N,H) are the gradients of the last state, and become those of the first. */
void lstm_backward(const LstmGeometry *g, const real *dy, const real *w_hh, const real *gates, const real *cells,
                   real *dgates, real *dh, real *dc, real *scratch);

#endif
