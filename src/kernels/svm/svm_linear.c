/*
** svm_linear.c -- linear machines by dual coordinate descent (Hsieh, Chang, Lin, Keerthi, Sundararajan 2008, "A dual
** coordinate descent method for large-scale linear SVM"), with its shrinking: samples whose alpha stays at a bound are
** left out until the others are optimal.
*/
#include <math.h>
#include <string.h>

#include "../../base/interrupt.h"
#include "../../base/rng.h"
#include "svm_solver.h"

typedef struct Descent {
  SvmRows samples;
  SvmLinear *machine;
  double *alpha;   /* (count) */
  int32_t *active; /* (count): the first 'size' take part */
  long size;
  uint64_t drawn;   /* random numbers used */
  double low, high; /* of the projected gradients in this pass */
  double low_before, high_before;
} Descent;

static bool is_positive(const SvmLinear *m, long i) {
  return i >= m->positive[0] && i < m->positive[1];
}

enum { LANES = 8 };

/* w.x + w[width] */
static double product(const double *w, const real *x, long width) {
  double sum[LANES] = {0}, total = w[width];
  long j = 0;
  for (; j + LANES <= width; j += LANES)
    for (int l = 0; l < LANES; l++) sum[l] += w[j + l] * x[j + l];
  for (; j < width; j++) total += w[j] * x[j];
  for (int l = 0; l < LANES; l++) total += sum[l];
  return total;
}

/* w += step (x, 1) */
static void add(double *w, double step, const real *x, long width) {
  for (long j = 0; j < width; j++) w[j] += step * x[j];
  w[width] += step;
}

static void shuffle(Descent *d) {
  for (long i = d->size - 1; i > 0; i--) {
    long j = rng_below(0, d->machine->stream, d->drawn++, (uint64_t)i + 1);
    int32_t was = d->active[i];
    d->active[i] = d->active[j];
    d->active[j] = was;
  }
}

/* Moves one alpha to where its part of the dual is least; false when it should be left out. */
static bool visit(Descent *d, long i) {
  const SvmLinear *m = d->machine;
  bool positive = is_positive(m, i);
  double y = positive ? 1 : -1, cost = m->cost[positive];
  double upper = m->squared ? INFINITY : cost, diagonal = m->squared ? 0.5 / cost : 0;
  const real *x = d->samples.x + i * d->samples.width;
  double *alpha = &d->alpha[i], slope = y * product(m->w, x, d->samples.width) - 1 + diagonal * *alpha;
  double projected = slope;
  if (*alpha == 0) {
    if (slope > d->high_before) return false;
    projected = fmin(slope, 0);
  } else if (*alpha == upper) {
    if (slope < d->low_before) return false;
    projected = fmax(slope, 0);
  }
  d->low = fmin(d->low, projected);
  d->high = fmax(d->high, projected);
  if (fabs(projected) > 1e-12) {
    double was = *alpha;
    *alpha = fmin(fmax(was - slope / (d->samples.square[i] + 1 + diagonal), 0), upper);
    add(m->w, (*alpha - was) * y, x, d->samples.width);
  }
  return true;
}

/* One pass over the active samples; those to be left out go behind the others. */
static void pass(Descent *d) {
  d->low = INFINITY;
  d->high = -INFINITY;
  shuffle(d);
  for (long at = 0; at < d->size;) {
    int32_t i = d->active[at];
    if (visit(d, i)) {
      at++;
    } else {
      d->active[at] = d->active[--d->size];
      d->active[d->size] = i;
    }
  }
}

static void take_all(Descent *d) {
  d->size = d->samples.count;
  d->high_before = INFINITY;
  d->low_before = -INFINITY;
}

size_t svm_linear_memory(long count) {
  size_t bytes = (size_t)count * (sizeof(double) + sizeof(int32_t));
  return (bytes + 63) / 64 * 64 / sizeof(real);
}

void svm_solve_linear(const SvmTask *task, SvmLinear *machine, real *memory) {
  SvmRows samples = task->samples;
  Descent d = {.samples = samples, .machine = machine, .alpha = (double *)memory};
  d.active = (int32_t *)(d.alpha + samples.count);
  memset(machine->w, 0, (size_t)(samples.width + 1) * sizeof *machine->w);
  for (long i = 0; i < samples.count; i++) d.alpha[i] = 0, d.active[i] = (int32_t)i;
  take_all(&d);
  SvmSolution now = {0, 0, 0, false};
  while (!interrupted() && !now.converged && (task->steps == 0 || now.steps < task->steps)) {
    bool all = d.size == samples.count;
    pass(&d);
    now.steps++;
    now.violation = d.high - d.low;
    bool solved = now.violation <= task->tolerance;
    now.converged = solved && all;
    d.high_before = d.high > 0 ? d.high : INFINITY;
    d.low_before = d.low < 0 ? d.low : -INFINITY;
    if (solved && !all) take_all(&d);
  }
  now.bias = machine->w[samples.width];
  machine->solution = now;
  if (task->report != NULL) task->report(task->context);
}
