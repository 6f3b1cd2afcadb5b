/* plan_lstm.h -- the recurrent weights of an LSTM layer, packed once. */
#ifndef FERAL_PLAN_LSTM_H
#define FERAL_PLAN_LSTM_H

#include "../../base/real.h"

/* w_hh: (4 hidden,hidden) */
long lstm_packed_size(long hidden);
void lstm_pack(long hidden, const real *w_hh, real *packed);

#endif
