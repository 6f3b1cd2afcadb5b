/* plan.c -- see plan.h. */
#include "plan.h"

#include "../../base/interrupt.h"
#include "../../base/parallel.h"

/* In reals: what of a thread's cache values and weights may take; workspace in all. In samples: a chunk's most, and how many
   must share weights that do not fit the cache. In multiply-adds: a step that is worth a second thread, and runs that
   certainly are. */
enum { CACHE = 96 << 10, WEIGHTS = 128 << 10, WORKSPACE_MOST = 32 << 20 };
enum { CHUNK_MOST = 16, SHARING = 16, LARGE = 1 << 17, TIMED_MOST = 1 << 28, CHUNKS_A_THREAD = 4 };

static long least(long a, long b) {
  return a < b ? a : b;
}
static long most(long a, long b) {
  return a > b ? a : b;
}
static long whole_lines(long reals) {
  return (reals + 15) / 16 * 16;
}

/* ---- how a batch is cut ---- */

/* Numbers of one sample that the busiest step touches. */
static long widest_step(const Plan *p) {
  long widest = 1;
  for (long i = 0; i < p->steps; i++) {
    const PlanStep *s = &p->step[i];
    widest = most(widest, p->value[s->x].size + p->value[s->y].size);
  }
  return widest;
}

static long scratch_size(const Plan *p, long n) {
  long size = 0;
  for (long i = 0; i < p->steps; i++) {
    const PlanStep *s = &p->step[i];
    if (s->op->scratch != NULL) size = most(size, s->op->scratch(s, n * s->times));
  }
  return whole_lines(size);
}

/* Samples at a time for one thread: as many as its cache holds, but enough chunks for all threads; more where they must
   share the reading of many weights. */
static long chunk_alone(const Plan *p, long n, long threads) {
  if (p->packed > WEIGHTS) return most(1, least(SHARING, n / threads));
  long chunk = least(most(1, CACHE / widest_step(p)), CHUNK_MOST);
  return most(1, least(chunk, n / (threads * CHUNKS_A_THREAD)));
}

static long chunk_together(const Plan *p, long n) {
  return most(1, least(n, WORKSPACE_MOST / most(1, p->per_sample)));
}

PlanRun plan_prepare(const Plan *p, long n) {
  PlanRun r = {.n = n, .threads = omp_get_max_threads()};
  r.alone = n >= 2 * r.threads || r.threads == 1;
  r.chunk = r.alone ? chunk_alone(p, n, r.threads) : chunk_together(p, n);
  r.values = r.chunk * p->per_sample;
  if (r.alone) omp_set_num_threads(1);
  r.scratch = scratch_size(p, r.chunk);
  omp_set_num_threads((int)r.threads);
  r.size = (r.alone ? r.threads : 1) * (r.values + r.scratch);
  r.timed = !r.alone && r.chunk >= n && p->work * (double)n < TIMED_MOST;
  return r;
}

/* ---- running ---- */

/* One chunk's memory. */
typedef struct Chunk {
  const Plan *plan;
  long n;
  const real *x;
  real *y, *values, *scratch;
} Chunk;

static real *place(const Chunk *c, int value) {
  if (value == PLAN_INPUT) return (real *)c->x; /* steps only read it */
  if (value == PLAN_OUTPUT) return c->y;
  return c->values + c->n * c->plan->value[value].at;
}

static void run_step(const Chunk *c, const PlanStep *s) {
  PlanMemory m = {.n = c->n * s->times, .x = place(c, s->x), .y = place(c, s->y), .scratch = c->scratch};
  if (s->other >= 0) m.other = place(c, s->other);
  s->op->run(s, &m);
}

static bool is_large(const Chunk *c, long step) {
  return c->plan->step[step].work * (double)c->n > LARGE;
}

/* All threads on each step; those that are not worth it are done by one. */
static void run_together(const Chunk *c) {
  const Plan *p = c->plan;
  for (long i = 0, end; i < p->steps && !interrupted(); i = end) {
    end = i + 1;
    if (!is_large(c, i)) {
      run_step(c, &p->step[i]);
      continue;
    }
    while (end < p->steps && is_large(c, end)) end++;
#pragma omp parallel
    for (long j = i; j < end; j++) run_step(c, &p->step[j]);
  }
}

static void run_alone(const Chunk *c) {
  for (long i = 0; i < c->plan->steps && !interrupted(); i++) run_step(c, &c->plan->step[i]);
}

static Chunk chunk_at(const Plan *p, const PlanRun *r, long index, const real *x, real *y, real *memory) {
  long first = index * r->chunk;
  return (Chunk){.plan = p,
                 .n = least(r->chunk, r->n - first),
                 .x = x + first * p->value[PLAN_INPUT].size,
                 .y = y + first * p->value[PLAN_OUTPUT].size,
                 .values = memory,
                 .scratch = memory + r->values};
}

/* Each chunk by one thread: a team of one, in which the steps' loops are run as they stand. */
static void run_chunks(const Plan *p, const PlanRun *r, long chunks, const real *x, real *y, real *workspace) {
#pragma omp parallel for schedule(dynamic)
  for (long i = 0; i < chunks; i++) {
    Chunk c = chunk_at(p, r, i, x, y, workspace + omp_get_thread_num() * (r->values + r->scratch));
#pragma omp parallel num_threads(1)
    {
      omp_set_num_threads(1);
      run_alone(&c);
    }
  }
}

/* ---- one thread or all, by trying ---- */

enum { TRIES = 4, PERIOD = 128, SMOOTHING = 8 };

/* The way that has been faster; and the other for the first runs of each period. */
static bool takes_one_thread(const PlanRun *r) {
  bool one = r->seconds[1] < r->seconds[0];
  return r->runs % PERIOD < TRIES ? !one : one;
}

/* Follows what a way takes: downwards at once, upwards slowly, since other programs may have been in the way. */
static void note_time(double *known, double took) {
  if (*known == 0 || took < *known)
    *known = took;
  else
    *known += ((took < 2 * *known ? took : 2 * *known) - *known) / SMOOTHING;
}

/* The first run after a change of ways is not noted: what it reads is in the other threads' caches. */
static void run_timed(const Chunk *c, PlanRun *r) {
  bool one = takes_one_thread(r), changed = one != r->took_one;
  double start = omp_get_wtime();
  (one ? run_alone : run_together)(c);
  if (!changed) note_time(&r->seconds[one], omp_get_wtime() - start);
  r->took_one = one;
  r->runs++;
}

void plan_run(const Plan *p, PlanRun *r, const real *x, real *y, real *workspace) {
  long chunks = (r->n + r->chunk - 1) / r->chunk;
  if (r->timed) {
    Chunk c = chunk_at(p, r, 0, x, y, workspace);
    run_timed(&c, r);
    return;
  }
  if (r->alone && r->threads > 1) {
    run_chunks(p, r, chunks, x, y, workspace);
    return;
  }
  for (long i = 0; i < chunks; i++) {
    Chunk c = chunk_at(p, r, i, x, y, workspace);
    (r->alone ? run_alone : run_together)(&c);
  }
}
