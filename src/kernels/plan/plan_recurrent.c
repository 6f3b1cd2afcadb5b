/* plan_recurrent.c -- recurrent layers as steps: the half of an LSTM that follows its states, whose gates' inputs a dense step
   has made before, and the whole of a convolutional LSTM. See plan.h. */
#include "plan_step.h"

enum { GATES = 4 };

/* ---- LSTM: the states are read where they are written, in the output ---- */

static long lstm_x(const PlanStep *s) {
  return GATES * s->lstm.steps * s->lstm.hidden;
}
static long lstm_y(const PlanStep *s) {
  return s->lstm.steps * s->lstm.width;
}
static bool lstm_fits(const PlanStep *s) {
  return s->lstm.at + s->lstm.hidden <= s->lstm.width;
}
static long lstm_weights(const PlanStep *s) {
  return GATES * s->lstm.hidden * s->lstm.hidden;
}
static long packed_lstm(const PlanStep *s) {
  return lstm_packed_size(s->lstm.hidden);
}
static void pack_lstm(const PlanStep *s, const real *const *weight, real *packed) {
  lstm_pack(s->lstm.hidden, weight[0], packed);
}
static void run_lstm(const PlanStep *s, const PlanMemory *m) {
  lstm_run(&s->lstm, m->n, m->x, s->packed, m->y, m->scratch);
}
static long lstm_scratch(const PlanStep *s, long n) {
  return n * s->lstm.hidden;
}

const PlanOp plan_lstm = {
    .name = "lstm",
    .field = {{"steps", PLAN_AT(lstm.steps), PLAN_SIZE},
              {"hidden", PLAN_AT(lstm.hidden), PLAN_SIZE},
              {"width", PLAN_AT(lstm.width), PLAN_SIZE},
              {"at", PLAN_AT(lstm.at), PLAN_COUNT},
              {"reverse", PLAN_AT(lstm.reverse), PLAN_FLAG}},
    .x_size = lstm_x,
    .y_size = lstm_y,
    .fits = lstm_fits,
    .weight = {{"weight", lstm_weights, false}},
    .packed_size = packed_lstm,
    .pack = pack_lstm,
    .run = run_lstm,
    .scratch = lstm_scratch,
};

/* ---- convolutional LSTM ---- */

static ConvLstmGeometry convlstm_of(const PlanStep *s) {
  ConvLstmGeometry g = s->convlstm.g;
  g.n = 1;
  return g;
}
static long convlstm_x(const PlanStep *s) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  return g->steps * g->h * g->w * g->c;
}
static long convlstm_y(const PlanStep *s) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  return (s->convlstm.last ? 1 : g->steps) * g->h * g->w * g->f;
}
static long convlstm_inputs(const PlanStep *s) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  return GATES * g->f * g->c * g->kh * g->kw;
}
static long convlstm_states(const PlanStep *s) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  return GATES * g->f * g->f * g->kh * g->kw;
}
static long convlstm_biases(const PlanStep *s) {
  return GATES * s->convlstm.g.f;
}
static long packed_convlstm(const PlanStep *s) {
  ConvLstmGeometry g = convlstm_of(s);
  return convlstm_packed_size(&g);
}
static void pack_convlstm(const PlanStep *s, const real *const *weight, real *packed) {
  ConvLstmGeometry g = convlstm_of(s);
  convlstm_pack(&g, weight[0], weight[1], weight[2], packed);
}

static void run_convlstm(const PlanStep *s, const PlanMemory *m) {
  ConvLstmGeometry g = convlstm_of(s);
  long x_size = convlstm_x(s), y_size = convlstm_y(s);
  for (long n = 0; n < m->n; n++)
    convlstm_run(&g, m->x + n * x_size, s->packed, s->convlstm.last, m->y + n * y_size, m->scratch);
}
static long convlstm_scratch(const PlanStep *s, long n) {
  (void)n;
  ConvLstmGeometry g = convlstm_of(s);
  return convlstm_run_scratch(&g);
}

const PlanOp plan_convlstm = {
    .name = "convlstm",
    .field = {{"steps", PLAN_AT(convlstm.g.steps), PLAN_SIZE},
              {"c", PLAN_AT(convlstm.g.c), PLAN_SIZE},
              {"f", PLAN_AT(convlstm.g.f), PLAN_SIZE},
              {"h", PLAN_AT(convlstm.g.h), PLAN_SIZE},
              {"w", PLAN_AT(convlstm.g.w), PLAN_SIZE},
              {"kh", PLAN_AT(convlstm.g.kh), PLAN_SIZE},
              {"kw", PLAN_AT(convlstm.g.kw), PLAN_SIZE},
              {"last", PLAN_AT(convlstm.last), PLAN_FLAG}},
    .x_size = convlstm_x,
    .y_size = convlstm_y,
    .weight = {{"weight", convlstm_inputs, false},
               {"weight_hh", convlstm_states, false},
               {"bias", convlstm_biases, true}},
    .packed_size = packed_convlstm,
    .pack = pack_convlstm,
    .run = run_convlstm,
    .scratch = convlstm_scratch,
};
