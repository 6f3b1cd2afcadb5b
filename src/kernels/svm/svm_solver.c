/*
** svm_solver.c -- training by decomposition. A working set of the samples that violate optimality most is solved by SMO
** with second-order choice of pairs (Fan, Chen, Lin 2005, "Working set selection using second order information for
** training support vector machines"), on kernel values that lie in the processor's cache; then the gradient of all
** samples follows in one pass over the set's kernel rows (the scheme of Wen et al. 2018, "ThunderSVM"). So rows are
** computed as matrix products, serve many updates, and passes over all samples can be shared among threads.
**
** In terms of beta_i = y_i alpha_i, lowest_i <= beta_i <= highest_i, the gradient of the dual is
** value_i = y_i - sum_j beta_j k_ij. A step moves one beta up and another down by as much; at the optimum no value of a
** beta that can go up exceeds by more than the tolerance one that can go down.
*/
#include "svm_solver.h"

#include <math.h>
#include <string.h>

#include "../../base/interrupt.h"
#include "../../base/parallel.h"
#include "../../base/simd.h"

enum { SET_MOST = 512, TILE = 256, GROUP = 128, PIECE = 512 };
enum { SET_STEPS_MOST = 100000, ROUNDS_WITHOUT_GAIN = 2000 };
static const double SET_ACCURACY = 0.02; /* a set is solved to this share of the violation it starts from */
static const double LEAST_CURVE = 1e-12;

/* The working set: its samples' kernel values among each other and the state of their pairs. */
typedef struct Set {
  long size, kept;      /* the first 'kept' were in the set of the round before */
  long ld;              /* of k */
  int32_t *sample;      /* (size): positions */
  real *k;              /* (size, ld) */
  real *value, *square; /* (ld): value less the bias, so that floats resolve it near the optimum; k_ii */
  real *up, *low;       /* (ld): 0 where beta can go up, can go down; -infinity where not */
  double *beta, *delta; /* (size): delta is the change since the last pass over all samples */
} Set;

typedef struct Solver {
  const SvmKernel *kernel;
  const SvmProblem *problem;
  SvmRows samples;
  long n, ld;           /* samples of this problem; distance between kernel rows */
  double *value, *beta; /* (n) */
  bool *in_set;         /* (n) */
  real *rows;           /* (capacity, ld) */
  long capacity;        /* n when all rows fit: then row i is that of sample i */
  int32_t *place;       /* (n): the row that holds a sample's kernel values; -1: none does */
  int32_t *owner;       /* (capacity): the sample of a row; -1: none */
  int32_t *used;        /* (capacity): the round that needed a row last */
  int32_t *list;        /* (SET_MOST): the heap while a set is chosen, then the samples whose rows are missing */
  real *gathered, *gathered_square; /* (SET_MOST, width), (SET_MOST): only where not all rows fit */
  int32_t round;
  Set set;
} Solver;

/* ---- memory ---- */

typedef struct Arena {
  real *base; /* NULL: only count */
  size_t used;
} Arena;

static void *take(Arena *arena, size_t count, size_t item) {
  real *taken = arena->base == NULL ? NULL : arena->base + arena->used;
  arena->used += (count * item + 63) / 64 * 64 / sizeof(real);
  return taken;
}

static long padded(long n) {
  return (n + VLANES - 1) / VLANES * VLANES;
}

static long set_most(long n) {
  return n < SET_MOST ? n : SET_MOST;
}

/* How many rows fit into the budget; never fewer than a working set. */
static long row_capacity(long n, size_t budget) {
  size_t fit = budget / ((size_t)n * sizeof(real));
  if (fit >= (size_t)n) return n;
  return fit < (size_t)set_most(n) ? set_most(n) : (long)fit;
}

static void lay_out_set(Set *set, long most, Arena *memory) {
  size_t lanes = (size_t)padded(most);
  set->ld = padded(most);
  set->sample = take(memory, lanes, sizeof(int32_t));
  set->k = take(memory, (size_t)most * lanes, sizeof(real));
  set->value = take(memory, lanes, sizeof(real));
  set->square = take(memory, lanes, sizeof(real));
  set->up = take(memory, lanes, sizeof(real));
  set->low = take(memory, lanes, sizeof(real));
  set->beta = take(memory, lanes, sizeof(double));
  set->delta = take(memory, lanes, sizeof(double));
}

/* Lays out the arrays of problems of at most n samples; returns how many reals they take. */
static size_t lay_out(Solver *s, long n, long width, size_t budget, real *base) {
  Arena memory = {base, 0};
  size_t most = (size_t)set_most(n), samples = (size_t)n, capacity = (size_t)row_capacity(n, budget);
  s->capacity = (long)capacity;
  s->ld = padded(n);
  s->value = take(&memory, samples, sizeof(double));
  s->beta = take(&memory, samples, sizeof(double));
  s->in_set = take(&memory, samples, sizeof(bool));
  s->place = take(&memory, samples, sizeof(int32_t));
  s->owner = take(&memory, capacity, sizeof(int32_t));
  s->used = take(&memory, capacity, sizeof(int32_t));
  s->list = take(&memory, most, sizeof(int32_t));
  lay_out_set(&s->set, (long)most, &memory);
  bool whole = s->capacity == n;
  s->gathered = take(&memory, whole ? 0 : most * (size_t)width, sizeof(real));
  s->gathered_square = take(&memory, whole ? 0 : most, sizeof(real));
  s->rows = take(&memory, capacity * (size_t)s->ld, sizeof(real));
  return memory.used;
}

/* ---- kernel rows ---- */

static long tiles_of(long count) {
  return (count + TILE - 1) / TILE;
}

/* The samples of tile t, none across the border of the runs, and the position of the first. */
static SvmRows tile(const Solver *s, long t, long *position) {
  const SvmProblem *p = s->problem;
  int run = t >= tiles_of(p->count[0]);
  long start = (run ? t - tiles_of(p->count[0]) : t) * TILE, rest = p->count[run] - start;
  long sample = p->first[run] + start, width = s->samples.width;
  *position = (run ? p->count[0] : 0) + start;
  return (SvmRows){s->samples.x + sample * width, s->samples.square + sample, rest < TILE ? rest : TILE, width};
}

/* to[j * ld + i] = from[i * ld + j] for all of from (rows, columns), in squares that the cache holds */
static void transpose(const real *from, long rows, long columns, long ld, real *to) {
  enum { SIDE = 32 };
  for (long i0 = 0; i0 < rows; i0 += SIDE)
    for (long j0 = 0; j0 < columns; j0 += SIDE)
      for (long j = j0; j < columns && j < j0 + SIDE; j++)
        for (long i = i0; i < rows && i < i0 + SIDE; i++) to[j * ld + i] = from[i * ld + j];
}

/* All rows: the tiles on and above the diagonal and their mirror images. The first 'done' tiles have theirs already. */
static void compute_all(Solver *s, long done) {
  long tiles = tiles_of(s->problem->count[0]) + tiles_of(s->problem->count[1]);
#pragma omp parallel for schedule(dynamic)
  for (long pair = 0; pair < tiles * tiles; pair++) {
    long t = pair / tiles, u = pair % tiles, row, column;
    if (u < t || u < done || interrupted()) continue;
    SvmRows a = tile(s, t, &row), b = tile(s, u, &column);
    real *values = s->rows + row * s->ld + column;
    svm_kernel_block(s->kernel, a, b, values, s->ld);
    if (u > t) transpose(values, a.count, b.count, s->ld, s->rows + column * s->ld + row);
  }
  for (long i = 0; i < s->n; i++) s->place[i] = (int32_t)i;
}

static const real *sample_at(const Solver *s, long position, long *sample) {
  const SvmProblem *p = s->problem;
  *sample = position < p->count[0] ? p->first[0] + position : p->first[1] + position - p->count[0];
  return s->samples.x + *sample * s->samples.width;
}

/* The values of 'count' gathered samples from 'first' on with all samples of tile t, into the samples' rows. */
static void compute_group(const Solver *s, long first, long count, long t) {
  real values[GROUP * TILE] = {0};
  long column, width = s->samples.width;
  SvmRows a = {s->gathered + first * width, s->gathered_square + first, count, width}, b = tile(s, t, &column);
  svm_kernel_block(s->kernel, a, b, values, TILE);
  for (long i = 0; i < count; i++)
    memcpy(s->rows + s->place[s->list[first + i]] * s->ld + column, values + i * TILE, (size_t)b.count * sizeof(real));
}

/* The rows of the first 'count' samples of the list, which have their places already. */
static void compute_rows(Solver *s, long count) {
  long tiles = tiles_of(s->problem->count[0]) + tiles_of(s->problem->count[1]);
  for (long i = 0; i < count; i++) {
    long sample, width = s->samples.width;
    const real *x = sample_at(s, s->list[i], &sample);
    memcpy(s->gathered + i * width, x, (size_t)width * sizeof(real));
    s->gathered_square[i] = s->samples.square[sample];
  }
  long groups = (count + GROUP - 1) / GROUP;
#pragma omp parallel for schedule(dynamic)
  for (long task = 0; task < groups * tiles; task++) {
    long first = task / tiles * GROUP;
    if (!interrupted()) compute_group(s, first, count - first < GROUP ? count - first : GROUP, task % tiles);
  }
}

/* Gives the sample the row that has been without use for longest, the first of several. */
static void claim_row(Solver *s, int32_t sample) {
  long oldest = 0;
  for (long r = 1; r < s->capacity; r++)
    if (s->used[r] < s->used[oldest]) oldest = r;
  if (s->owner[oldest] >= 0) s->place[s->owner[oldest]] = -1;
  s->owner[oldest] = sample;
  s->used[oldest] = s->round;
  s->place[sample] = (int32_t)oldest;
}

/* Sees that each sample of the set has its row. */
static void fetch_rows(Solver *s) {
  const Set *set = &s->set;
  long missing = 0;
  for (long i = 0; i < set->size; i++)
    if (s->place[set->sample[i]] >= 0) s->used[s->place[set->sample[i]]] = s->round;
  for (long i = 0; i < set->size; i++) {
    if (s->place[set->sample[i]] >= 0) continue;
    claim_row(s, set->sample[i]);
    s->list[missing++] = set->sample[i];
  }
  compute_rows(s, missing);
}

static const real *row_of(const Solver *s, long position) {
  return s->rows + s->place[position] * s->ld;
}

/* ---- choosing the set ---- */

static bool is_positive(const SvmProblem *p, long position) {
  return position >= p->positive[0] && position < p->positive[1];
}
static double highest(const Solver *s, long position) {
  return is_positive(s->problem, position) ? s->problem->upper[1] : 0;
}
static double lowest(const Solver *s, long position) {
  return is_positive(s->problem, position) ? 0 : -s->problem->upper[0];
}

/* How much the dual gains when a sample's beta goes up (sign 1) or down (sign -1); -infinity where it cannot. */
static double urge(const Solver *s, long i, int sign) {
  bool can = sign > 0 ? s->beta[i] < highest(s, i) : s->beta[i] > lowest(s, i);
  return can ? sign * s->value[i] : -INFINITY;
}

/* The order of the heap, which has the sample to be dropped first on top: the weaker urge, then the later sample. */
static bool weaker(const Solver *s, int sign, int32_t a, int32_t b) {
  double of_a = urge(s, a, sign), of_b = urge(s, b, sign);
  return of_a < of_b || (of_a == of_b && a > b);
}

static void swap(int32_t *a, int32_t *b) {
  int32_t was = *a;
  *a = *b;
  *b = was;
}

static void sift_up(const Solver *s, int sign, long at) {
  int32_t *heap = s->list;
  for (; at > 0 && weaker(s, sign, heap[at], heap[(at - 1) / 2]); at = (at - 1) / 2)
    swap(&heap[at], &heap[(at - 1) / 2]);
}

static void sift_down(const Solver *s, int sign, long size) {
  int32_t *heap = s->list;
  for (long at = 0, child = 1; child < size; at = child, child = 2 * at + 1) {
    if (child + 1 < size && weaker(s, sign, heap[child + 1], heap[child])) child++;
    if (!weaker(s, sign, heap[child], heap[at])) return;
    swap(&heap[child], &heap[at]);
  }
}

/* Adds at most 'most' samples to the set: those with the strongest urge in one direction. */
static void choose(Solver *s, int sign, long most) {
  long size = 0;
  for (long i = 0; i < s->n && most > 0; i++) {
    if (s->in_set[i] || urge(s, i, sign) == -INFINITY) continue;
    if (size < most) {
      s->list[size] = (int32_t)i;
      sift_up(s, sign, size++);
    } else if (weaker(s, sign, s->list[0], (int32_t)i)) {
      s->list[0] = (int32_t)i;
      sift_down(s, sign, size);
    }
  }
  for (long i = 0; i < size; i++) {
    s->in_set[s->list[i]] = true;
    s->set.sample[s->set.size++] = s->list[i];
  }
}

/* Those that came last stay, at most half of a set, and as many others join them; few samples are all in the set. */
static void choose_set(Solver *s) {
  Set *set = &s->set;
  if (set->size == s->n) {
    set->kept = set->size;
    return;
  }
  long most = set_most(s->n), fresh = set->size - set->kept;
  long kept = fresh < most / 2 ? fresh : most / 2, dropped = set->size - kept;
  for (long i = 0; i < dropped; i++) s->in_set[set->sample[i]] = false;
  memmove(set->sample, set->sample + dropped, (size_t)kept * sizeof *set->sample);
  for (long i = 0; i < kept; i++)
    memmove(set->k + i * set->ld, set->k + (i + dropped) * set->ld + dropped, (size_t)kept * sizeof(real));
  set->size = set->kept = kept;
  choose(s, 1, (most - kept) / 2);
  choose(s, -1, most - set->size);
  choose(s, 1, most - set->size); /* where few can go down */
}

/* ---- SMO on the set ---- */

static void set_bounds(const Solver *s, long i) {
  const Set *set = &s->set;
  set->up[i] = set->beta[i] < highest(s, set->sample[i]) ? 0 : -(real)INFINITY;
  set->low[i] = set->beta[i] > lowest(s, set->sample[i]) ? 0 : -(real)INFINITY;
}

static void load_set(Solver *s, double bias) {
  Set *set = &s->set;
  for (long i = 0; i < set->size; i++) {
    const real *row = row_of(s, set->sample[i]);
    for (long j = 0; j < set->size && i >= set->kept; j++) set->k[i * set->ld + j] = row[set->sample[j]];
    set->value[i] = (real)(s->value[set->sample[i]] - bias);
    set->square[i] = set->k[i * set->ld + i];
    set->beta[i] = s->beta[set->sample[i]];
    set_bounds(s, i);
  }
  for (long i = set->kept; i < set->size; i++)
    for (long j = 0; j < set->kept; j++) set->k[j * set->ld + i] = set->k[i * set->ld + j];
  for (long j = set->size; j < padded(set->size); j++) {
    set->value[j] = set->square[j] = 0;
    set->up[j] = set->low[j] = -(real)INFINITY;
    for (long i = 0; i < set->size; i++) set->k[i * set->ld + j] = 0;
  }
}

/* The numbers of the lanes: 0, 1, 2 ... */
static vreal lane_numbers(void) {
  vreal numbers = {0};
  for (int i = 0; i < VLANES; i++) numbers[i] = (real)i;
  return numbers;
}

/* The number in 'where' that stands at the largest of 'values', the lowest for several; *most is that largest. */
static long best_lane(vreal values, vreal where, real *most) {
  int at = 0;
  for (int i = 1; i < VLANES; i++)
    if (values[i] > values[at] || (values[i] == values[at] && where[i] < where[at])) at = i;
  *most = values[at];
  return (long)where[at];
}

/* Moves the values after a step of the pair (i, j); returns who has then the strongest urge up, and it in *most. */
static long follow_in_set(Set *set, long i, long j, real step, real *most) {
  const real *ki = set->k + i * set->ld, *kj = set->k + j * set->ld;
  vreal best = vset(-(real)INFINITY), where = vset(0), now = lane_numbers();
  for (long c = 0; c < set->size; c += VLANES, now += VLANES) {
    vreal value = vload(set->value + c) - step * (vload(ki + c) - vload(kj + c));
    vstore(set->value + c, value);
    value += vload(set->up + c);
    vmask better = value > best;
    best = vselect(better, value, best);
    where = vselect(better, now, where);
  }
  return best_lane(best, where, most);
}

/* The partner with which sample i, of value 'most', gains most; -1 if there is none. *gap is the set's violation. */
static long find_partner(const Set *set, long i, real most, real *gap) {
  const real *ki = set->k + i * set->ld;
  vreal best = vset(0), where = vset(-1), widest = vset(-(real)INFINITY), now = lane_numbers();
  for (long c = 0; c < set->size; c += VLANES, now += VLANES) {
    vreal distance = most - vload(set->value + c) + vload(set->low + c);
    vreal curve = vmax(set->square[i] + vload(set->square + c) - 2 * vload(ki + c), vset((real)LEAST_CURVE));
    vreal gain = distance * distance / curve;
    vmask better = (distance > 0) & (gain > best);
    best = vselect(better, gain, best);
    where = vselect(better, now, where);
    widest = vmax(widest, distance);
  }
  real gained;
  best_lane(widest, where, gap);
  return best_lane(best, where, &gained);
}

/* Moves beta_i up and beta_j down as far as it pays and the bounds allow; returns how far. */
static double move_pair(Solver *s, long i, long j) {
  Set *set = &s->set;
  double curve = (double)set->square[i] + set->square[j] - 2.0 * set->k[i * set->ld + j];
  double wanted = ((double)set->value[i] - set->value[j]) / fmax(curve, LEAST_CURVE);
  double top = highest(s, set->sample[i]), bottom = lowest(s, set->sample[j]);
  double room_up = top - set->beta[i], room_down = set->beta[j] - bottom;
  double step = fmin(wanted, fmin(room_up, room_down));
  set->beta[i] = step == room_up ? top : set->beta[i] + step;
  set->beta[j] = step == room_down ? bottom : set->beta[j] - step;
  set_bounds(s, i);
  set_bounds(s, j);
  return step;
}

/* Pair after pair until the set's own violation is at most 'tolerance'; returns the number of steps. */
static long optimise_set(Solver *s, double tolerance) {
  long i = 0, j = 0, steps = 0;
  for (real step = 0; steps < SET_STEPS_MOST; steps++) {
    real most, gap;
    i = follow_in_set(&s->set, i, j, step, &most);
    j = find_partner(&s->set, i, most, &gap);
    if (!(gap > tolerance) || j < 0) break;
    step = (real)move_pair(s, i, j);
  }
  return steps;
}

/* ---- all samples ---- */

/* The values of one piece of the samples after the set's changes. */
static void follow_piece(const Solver *s, long first, long count) {
  double sum[PIECE] = {0};
  for (long i = 0; i < s->set.size; i++) {
    double delta = s->set.delta[i];
    const real *row = row_of(s, s->set.sample[i]) + first;
    if (delta != 0)
      for (long j = 0; j < count; j++) sum[j] += delta * row[j];
  }
  for (long j = 0; j < count; j++) s->value[first + j] -= sum[j];
}

static void follow(Solver *s) {
  for (long i = 0; i < s->set.size; i++) {
    double *beta = &s->beta[s->set.sample[i]];
    s->set.delta[i] = s->set.beta[i] - *beta;
    *beta = s->set.beta[i];
  }
#pragma omp parallel for if (s->n > 2 * PIECE)
  for (long first = 0; first < s->n; first += PIECE)
    follow_piece(s, first, s->n - first < PIECE ? s->n - first : PIECE);
}

/* By how much optimality is violated. The bias is the mean value of betas between their bounds, or where there is none
   halfway between the two sides; it is no number where one of the values is none. */
static double violation(const Solver *s, double *bias) {
  double up = -INFINITY, down = -INFINITY, sum = 0, zero = 0;
  long free = 0;
  for (long i = 0; i < s->n; i++) {
    double of_up = urge(s, i, 1), of_down = urge(s, i, -1);
    up = fmax(up, of_up);
    down = fmax(down, of_down);
    if (of_up > -INFINITY && of_down > -INFINITY) sum += of_up, free++;
    zero += s->value[i] - s->value[i];
  }
  *bias = (free > 0 ? sum / (double)free : (up - down) / 2) + zero;
  return up + down;
}

static void start(Solver *s) {
  for (long i = 0; i < s->n; i++) {
    s->beta[i] = 0;
    s->value[i] = is_positive(s->problem, i) ? 1 : -1;
    s->in_set[i] = false;
    s->place[i] = -1;
  }
  for (long r = 0; r < s->capacity; r++) s->owner[r] = -1, s->used[r] = 0;
  s->set.size = s->set.kept = 0;
  s->round = 0;
}

/* Set after set until optimality is violated by no more than the tolerance, or by no less in many rounds. */
static SvmSolution improve(Solver *s, const SvmTask *task) {
  SvmSolution now = {0, 0, 0, false};
  double least = INFINITY;
  int32_t gained = 0;
  while (!interrupted() && isfinite(now.bias)) {
    now.violation = violation(s, &now.bias);
    now.converged = now.violation <= task->tolerance;
    if (now.violation < least) least = now.violation, gained = s->round;
    bool spent = (task->steps > 0 && now.steps >= task->steps) || s->round > gained + ROUNDS_WITHOUT_GAIN;
    if (now.converged || spent) break;
    s->round++;
    choose_set(s);
    if (s->capacity < s->n) fetch_rows(s);
    load_set(s, now.bias);
    long steps = optimise_set(s, fmax(task->tolerance / 2, now.violation * SET_ACCURACY));
    if (steps == 0) now.bias = NAN; /* the pair that violates most is in the set, so its kernel values are no numbers */
    now.steps += steps;
    follow(s);
  }
  return now;
}

static void store(const Solver *s, SvmProblem *problem) {
  for (long i = 0; i < s->n; i++) {
    long sample;
    sample_at(s, i, &sample);
    problem->beta[sample * problem->stride] = (real)s->beta[i];
  }
}

static long largest(const SvmProblem *problems, long count) {
  long most = svm_problem_size(&problems[0]);
  for (long p = 1; p < count; p++)
    if (svm_problem_size(&problems[p]) > most) most = svm_problem_size(&problems[p]);
  return most;
}

size_t svm_memory(const SvmTask *task, const SvmProblem *problems, long count) {
  Solver solver;
  size_t most = 0;
  for (long p = 0; p < count; p++) {
    size_t need = lay_out(&solver, svm_problem_size(&problems[p]), task->samples.width, task->budget, NULL);
    if (need > most) most = need;
  }
  return most;
}

void svm_solve(const SvmTask *task, SvmProblem *problems, long count, real *memory) {
  Solver s = {.kernel = &task->kernel, .samples = task->samples};
  long most = largest(problems, count);
  bool whole = row_capacity(most, task->budget) == most; /* then all rows lie where those of the largest problem do */
  for (long p = 0; p < count && !interrupted(); p++) {
    s.problem = &problems[p];
    s.n = svm_problem_size(s.problem);
    lay_out(&s, whole ? most : s.n, s.samples.width, task->budget, memory);
    if (whole) s.capacity = s.n;
    start(&s);
    if (s.capacity == s.n) compute_all(&s, whole && p > 0 ? tiles_of(s.problem->count[0]) : 0);
    problems[p].solution = improve(&s, task);
    store(&s, &problems[p]);
    if (task->report != NULL) task->report(task->context);
  }
}
