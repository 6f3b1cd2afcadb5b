/* plan_convlstm.c -- a layer of convolutional LSTM as a step of a plan, see plan.h and convlstm.h. */
#include "plan.h"

static void run_convlstm(const PlanStep *s, const PlanMemory *m) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  long pixels = g->h * g->w, x_size = g->steps * pixels * g->c;
  long y_size = (s->convlstm.last ? 1 : g->steps) * pixels * g->f;
  for (long n = 0; n < m->n; n++)
    convlstm_run(g, m->x + n * x_size, s->packed, s->convlstm.last, m->y + n * y_size, m->scratch);
}

static long convlstm_scratch(const PlanStep *s, long n) {
  (void)n;
  return convlstm_run_scratch(&s->convlstm.g);
}

const PlanOp plan_convlstm = {"convlstm", run_convlstm, convlstm_scratch};
