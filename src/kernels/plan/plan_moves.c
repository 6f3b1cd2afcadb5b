/* plan_moves.c -- steps that bring elements to other places. See plan.h. */
#include "plan_step.h"

static void run_turn(const PlanStep *s, const PlanMemory *m) {
  long rows = s->rows.rows, columns = s->rows.to;
#pragma omp for
  for (long n = 0; n < m->n; n++)
    for (long j = 0; j < columns; j++)
      for (long i = 0; i < rows; i++) m->y[(n * columns + j) * rows + i] = m->x[(n * rows + i) * columns + j];
}

const PlanOp plan_turn = {
    .name = "turn", .field = {PLAN_ROWS_FIELDS}, .x_size = rows_to, .y_size = rows_to, .run = run_turn};

static bool copy_fits(const PlanStep *s) {
  return s->rows.at + s->rows.from <= s->rows.to;
}

static void run_copy(const PlanStep *s, const PlanMemory *m) {
  long from = s->rows.from, to = s->rows.to;
#pragma omp for
  for (long row = 0; row < m->n * s->rows.rows; row++)
    copy_reals(m->y + row * to + s->rows.at, m->x + row * from, from);
}

const PlanOp plan_copy = {.name = "copy",
                          .field = {PLAN_ROWS_FIELDS},
                          .x_size = rows_from,
                          .y_size = rows_to,
                          .fits = copy_fits,
                          .run = run_copy};

static bool select_fits(const PlanStep *s) {
  return s->rows.at < s->rows.rows;
}

static void run_select(const PlanStep *s, const PlanMemory *m) {
  long c = s->rows.to;
#pragma omp for
  for (long n = 0; n < m->n; n++) copy_reals(m->y + n * c, m->x + (n * s->rows.rows + s->rows.at) * c, c);
}

const PlanOp plan_select = {.name = "select",
                            .field = {PLAN_ROWS_FIELDS},
                            .x_size = rows_to,
                            .y_size = one_row,
                            .fits = select_fits,
                            .run = run_select};
