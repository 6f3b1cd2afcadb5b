/* plan_step.h -- what the files of operations share. */
#ifndef FERAL_PLAN_STEP_H
#define FERAL_PLAN_STEP_H

#include <string.h>

#include "plan.h"

#define PLAN_AT(member) offsetof(PlanStep, member)

/* ---- steps of rows ---- */

#define PLAN_ROWS_FIELDS                                                                                               \
  {"rows", PLAN_AT(rows.rows), PLAN_COUNT}, {"from", PLAN_AT(rows.from), PLAN_COUNT},                                  \
      {"to", PLAN_AT(rows.to), PLAN_COUNT}, {                                                                          \
    "at", PLAN_AT(rows.at), PLAN_COUNT                                                                                 \
  }

static inline long rows_from(const PlanStep *s) {
  return s->rows.rows * s->rows.from;
}
static inline long rows_to(const PlanStep *s) {
  return s->rows.rows * s->rows.to;
}
static inline long one_row(const PlanStep *s) {
  return s->rows.to;
}

static inline void copy_reals(real *to, const real *from, long n) {
  memcpy(to, from, (size_t)n * sizeof *to);
}

/* ---- what is done to a step's results along the way ---- */

static inline Tail tail_of(const PlanStep *s, const PlanMemory *m) {
  return (Tail){m->other, s->activation, s->parameter};
}
static inline const Tail *or_null(const Tail *t) {
  return t->residual == NULL && t->activation == TAIL_LINEAR ? NULL : t;
}

#endif
