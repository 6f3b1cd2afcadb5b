/*
** svm.c -- support vector machines of two and more classes over feature vectors. The samples of a class lie together, the
** classes in the order of their labels; what is asked for by users is checked in lua/feral/learn/svm.lua.
*/
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/parallel.h"
#include "../base/simd.h"
#include "../kernels/svm/svm_solver.h"
#include "../tensor/tensor.h"

/* ---- kernels: features ---- */

/* The first of the rows x (rows, width) that holds a number that is not finite; rows where all are. */
static long first_unsound_row(const real *x, long rows, long width) {
  long first = rows;
#pragma omp parallel for reduction(min : first) if (rows * width > PARALLEL_MIN)
  for (long i = 0; i < rows; i++) {
    vreal sum = {0}; /* of x - x: 0, or not a number */
    long j = 0;
    for (; j + VLANES <= width; j += VLANES) sum += vload(x + i * width + j) - vload(x + i * width + j);
    vreal rest = vload_part(x + i * width + j, (int)(width - j));
    if (vsum(sum + (rest - rest)) != 0 && i < first) first = i;
  }
  return first;
}

/* mean, deviation (width): of the columns of x (rows, width), the deviation 1 where a column holds one value only; returns
   the variance of all elements. sum: (width) of scratch. */
static double column_moments(const real *x, long rows, long width, real *mean, real *deviation, double *sum) {
  enum { STRIP = 64 };
#pragma omp parallel for
  for (long first = 0; first < width; first += STRIP) {
    long last = first + STRIP < width ? first + STRIP : width;
    for (long j = first; j < last; j++) sum[j] = 0;
    for (long i = 0; i < rows; i++)
      for (long j = first; j < last; j++) sum[j] += x[i * width + j];
    for (long j = first; j < last; j++) mean[j] = (real)(sum[j] / (double)rows), sum[j] = 0;
    for (long i = 0; i < rows; i++)
      for (long j = first; j < last; j++) sum[j] += ((double)x[i * width + j] - mean[j]) * (x[i * width + j] - mean[j]);
    for (long j = first; j < last; j++) deviation[j] = sum[j] > 0 ? (real)sqrt(sum[j] / (double)rows) : 1;
  }
  double centre = 0, variance = 0;
  for (long j = 0; j < width; j++) centre += mean[j] / (double)width;
  for (long j = 0; j < width; j++) variance += sum[j] / (double)rows + (mean[j] - centre) * (mean[j] - centre);
  return variance / (double)width;
}

/* y[i] = (x[order[i]] - shift) / scale, by columns; order counts from 1; each of the three may be NULL. */
static void prepare(const real *x, const int32_t *order, const real *shift, const real *scale, long rows, long width,
                    real *y) {
#pragma omp parallel for if (rows * width > PARALLEL_MIN)
  for (long i = 0; i < rows; i++) {
    const real *from = x + (order != NULL ? order[i] - 1 : i) * width;
    real *to = y + i * width;
    for (long j = 0; j < width; j++) to[j] = shift != NULL ? from[j] - shift[j] : from[j];
    for (long j = 0; j < width && scale != NULL; j++) to[j] /= scale[j];
  }
}

/* score (rows, classes) of f (rows, classes (classes - 1) / 2), one against one: a vote for the winner of each pair, and
   to order classes of as many votes the sum of their values, bent into the space between -1/3 and 1/3. */
static void count_votes(const real *f, long rows, long classes, real *score) {
  long pairs = classes * (classes - 1) / 2;
  for (long i = 0; i < rows; i++, f += pairs, score += classes) {
    memset(score, 0, (size_t)classes * sizeof(real));
    const real *value = f;
    for (long a = 0; a < classes; a++)
      for (long b = a + 1; b < classes; b++, value++) score[a] += *value, score[b] -= *value;
    for (long c = 0; c < classes; c++) score[c] /= 3 * ((real)fabs(score[c]) + 1);
    value = f;
    for (long a = 0; a < classes; a++)
      for (long b = a + 1; b < classes; b++, value++) score[*value > 0 ? a : b] += 1;
  }
}

/* ---- kernels: training ---- */

/* Machines that share their first run; one thread solves them one after the other. */
typedef struct Group {
  SvmProblem *problems;
  long count;
  size_t memory; /* in reals */
  bool taken;
} Group;

enum { SLOTS_MOST = 64 };

/* Memory for as many groups at once as the budget allows and threads want. */
typedef struct Slots {
  int count, threads; /* threads: for each */
  size_t size[SLOTS_MOST], total;
  real *memory;
} Slots;

static Slots plan_slots(const Group *groups, long count, size_t budget, int threads) {
  Slots slots = {.count = 1, .size = {groups[0].memory}, .total = groups[0].memory};
  for (long g = 1; g < count && slots.count < threads && slots.count < SLOTS_MOST; g++)
    if (slots.total + groups[g].memory <= budget) {
      slots.size[slots.count++] = groups[g].memory;
      slots.total += groups[g].memory;
    }
  slots.threads = threads / slots.count;
  return slots;
}

/* The first group that nobody has taken and that fits; NULL when there is none. */
static Group *take_group(Group *groups, long count, size_t memory) {
  Group *taken = NULL;
#pragma omp critical(svm_groups)
  for (long g = 0; g < count && taken == NULL; g++)
    if (!groups[g].taken && groups[g].memory <= memory) {
      taken = &groups[g];
      taken->taken = true;
    }
  return taken;
}

/* Each slot has a thread that solves groups, and shares its loops over samples with 'threads' - 1 others. The first slot
   holds the largest group, so none is left over. */
static void solve_groups(const SvmTask *task, Group *groups, long count, const Slots *slots) {
  int levels = omp_get_max_active_levels();
  omp_set_max_active_levels(slots->threads > 1 && slots->count > 1 ? 2 : levels);
#pragma omp parallel for num_threads(slots->count) schedule(static, 1) if (slots->count > 1)
  for (int slot = 0; slot < slots->count; slot++) {
    real *memory = slots->memory;
    for (int before = 0; before < slot; before++) memory += slots->size[before];
    omp_set_num_threads(slots->threads);
    for (Group *g; (g = take_group(groups, count, slots->size[slot])) != NULL;)
      svm_solve(task, g->problems, g->count, memory);
  }
  omp_set_max_active_levels(levels);
}

/* ---- bindings ---- */

typedef struct Classes {
  long count, *first, *size; /* first, size: (count), in samples */
  double *upper;             /* (count): the largest alpha of their samples */
} Classes;

static void *push_bytes(lua_State *L, size_t count, size_t item) {
  size_t bytes;
  if (!size_multiply(count, item, &bytes)) luaL_error(L, "not enough memory");
  return scratch_push(L, bytes / sizeof(real) + 1);
}

/* Samples a class, in the order of the rows, and the upper bounds of alpha, from two tables; pushes their memory. */
static Classes check_classes(lua_State *L, int sizes, int uppers, long rows) {
  luaL_checktype(L, sizes, LUA_TTABLE);
  luaL_checktype(L, uppers, LUA_TTABLE);
  Classes c = {.count = (long)luaL_len(L, sizes)};
  if (c.count < 2 || c.count != luaL_len(L, uppers)) tensor_error(L, "svm: two classes or more expected");
  c.first = push_bytes(L, (size_t)c.count, 2 * sizeof(long) + sizeof(double));
  c.size = c.first + c.count;
  c.upper = (double *)(c.size + c.count);
  long first = 0;
  for (long k = 0; k < c.count; k++) {
    lua_geti(L, sizes, k + 1);
    lua_geti(L, uppers, k + 1);
    c.first[k] = first;
    c.size[k] = (long)lua_tointeger(L, -2);
    c.upper[k] = lua_tonumber(L, -1);
    lua_pop(L, 2);
    if (c.size[k] < 1 || c.size[k] > rows - first || !(c.upper[k] > 0))
      tensor_error(L, "svm: class %I has no samples or no weight", (lua_Integer)k + 1);
    first += c.size[k];
  }
  if (first != rows) tensor_error(L, "svm: %I samples in %I rows", (lua_Integer)first, (lua_Integer)rows);
  return c;
}

static double number_field(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  double value = luaL_checknumber(L, -1);
  lua_pop(L, 1);
  return value;
}

static bool flag_field(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  bool flag = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return flag;
}

/* The kernel that a table {kernel, gamma, coef0, degree} names. */
static SvmKernel check_kernel(lua_State *L, int table) {
  static const char *const names[] = {"linear", "poly", "rbf", NULL};
  luaL_checktype(L, table, LUA_TTABLE);
  lua_getfield(L, table, "kernel");
  SvmKernelKind kind = (SvmKernelKind)luaL_checkoption(L, -1, NULL, names);
  lua_pop(L, 1);
  return (SvmKernel){kind, (real)number_field(L, table, "gamma"), (real)number_field(L, table, "coef0"),
                     (int)number_field(L, table, "degree")};
}

/* Row-major features at 'arg' with their squared lengths; pushes one value, or three. */
static SvmRows push_rows(lua_State *L, int arg, const char *name) {
  tensor_check_real(L, arg, name, 2);
  const Tensor *x = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  real *square = scratch_push(L, (size_t)x->shape[0]);
  svm_squares(tensor_reals(x), x->shape[0], x->shape[1], square);
  return (SvmRows){tensor_reals(x), square, x->shape[0], x->shape[1]};
}

/* Progress on the terminal: what is done is counted by whichever thread does it. */
typedef struct Progress {
  long done, total;
  bool shown;
} Progress;

static void report(void *context) {
  Progress *p = context;
#pragma omp critical(svm_progress)
  {
    p->done++;
    if (p->shown)
      fprintf(stderr, p->done < p->total ? "\rsvm: machine %ld of %ld\033[K" : "\r\033[K", p->done, p->total);
  }
}

/* What the table at 'options' and the rows at 1 say: {kernel's fields, tolerance, steps, budget}. */
static SvmTask check_task(lua_State *L, int options, Progress *progress) {
  SvmTask task = {.kernel = check_kernel(L, options), .report = report, .context = progress};
  task.tolerance = number_field(L, options, "tolerance");
  task.steps = (long)number_field(L, options, "steps");
  task.budget = (size_t)number_field(L, options, "budget");
  progress->shown = flag_field(L, options, "progress");
  task.samples = push_rows(L, 1, "svm: x");
  return task;
}

/* One class against one other. The larger of the two is the first run, the one of the lower number the positive class. */
static SvmProblem pair_problem(const Classes *c, long larger, long smaller) {
  long a = c->size[larger], b = c->size[smaller];
  bool first_positive = larger < smaller;
  SvmProblem p = {.first = {c->first[larger], c->first[smaller]}, .count = {a, b}};
  p.positive[0] = first_positive ? 0 : a;
  p.positive[1] = first_positive ? a : a + b;
  p.upper[0] = c->upper[first_positive ? smaller : larger];
  p.upper[1] = c->upper[first_positive ? larger : smaller];
  return p;
}

/* Machines of all pairs of classes, grouped by the larger class so that its kernel values serve the whole group; the
   coefficients of pair (a, b), a < b, are column a (2 count - a - 1) / 2 + b - a - 1 of coef. Returns the number of groups. */
static long make_pairs(const Classes *c, real *coef, SvmProblem *problems, Group *groups, long *order) {
  long pairs = c->count * (c->count - 1) / 2;
  for (long k = 0; k < c->count; k++) { /* by falling size */
    long at = k;
    for (; at > 0 && c->size[order[at - 1]] < c->size[k]; at--) order[at] = order[at - 1];
    order[at] = k;
  }
  for (long i = 0; i + 1 < c->count; i++) {
    groups[i] = (Group){.problems = problems, .count = c->count - 1 - i};
    for (long j = i + 1; j < c->count; j++) {
      long a = order[i] < order[j] ? order[i] : order[j], b = order[i] < order[j] ? order[j] : order[i];
      *problems = pair_problem(c, order[i], order[j]);
      problems->machine = a * (2 * c->count - a - 1) / 2 + b - a - 1;
      problems->beta = coef + problems->machine;
      problems++->stride = pairs;
    }
  }
  return c->count - 1;
}

/* Machines of each class against all others, one group: they share all kernel values. */
static long make_rests(const Classes *c, long samples, double cost, real *coef, SvmProblem *problems, Group *groups) {
  for (long k = 0; k < c->count; k++) {
    problems[k] = (SvmProblem){.count = {samples, 0}, .upper = {cost, c->upper[k]}, .machine = k};
    problems[k].positive[0] = c->first[k];
    problems[k].positive[1] = c->first[k] + c->size[k];
    problems[k].beta = coef + k;
    problems[k].stride = c->count;
  }
  groups[0] = (Group){.problems = problems, .count = c->count};
  return 1;
}

/* Pushes what became of the machines: {steps = sum, violation = largest, unfinished = how many did not converge}. */
static void push_outcome(lua_State *L, long steps, double violation, long unfinished) {
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, steps);
  lua_setfield(L, -2, "steps");
  lua_pushnumber(L, violation);
  lua_setfield(L, -2, "violation");
  lua_pushinteger(L, unfinished);
  lua_setfield(L, -2, "unfinished");
}

/* Biases into 'bias', and the outcome pushed. */
static void collect(lua_State *L, const SvmProblem *problems, long machines, real *bias) {
  double violation = 0;
  long steps = 0, unfinished = 0;
  for (long m = 0; m < machines; m++) {
    const SvmSolution *solution = &problems[m].solution;
    if (!isfinite(solution->bias))
      tensor_error(L, "svm: kernel values pass the largest number; smaller features are needed, see 'standardize'");
    bias[problems[m].machine] = (real)solution->bias;
    violation = fmax(violation, solution->violation);
    steps += solution->steps;
    unfinished += !solution->converged;
  }
  push_outcome(L, steps, violation, unfinished);
}

/* train_kernel(x, sizes, uppers, options) -> coef (N, machines), bias (machines), outcome. x (N, D): classes one after the
   other, sizes: samples a class; uppers: the largest alphas; options: check_task's, with one_vs_rest and cost. */
static int l_train_kernel(lua_State *L) {
  lua_settop(L, 4);
  Progress progress = {0};
  SvmTask task = check_task(L, 4, &progress);
  Classes classes = check_classes(L, 2, 3, task.samples.count);
  bool rest = flag_field(L, 4, "one_vs_rest");
  long k = classes.count, machines = rest ? k : k * (k - 1) / 2;
  SvmProblem *problems = push_bytes(L, (size_t)machines, sizeof *problems);
  Group *groups = push_bytes(L, (size_t)k, sizeof *groups + sizeof(long));
  Tensor *coef = tensor_push_zeros(L, DTYPE_REAL, 2, (long[]){task.samples.count, machines}, LAYOUT_ROWS);
  Tensor *bias = tensor_push(L, DTYPE_REAL, 1, &machines, LAYOUT_ROWS);
  long count =
      rest ? make_rests(&classes, task.samples.count, number_field(L, 4, "cost"), tensor_reals(coef), problems, groups)
           : make_pairs(&classes, tensor_reals(coef), problems, groups, (long *)(groups + k));
  for (long g = 0; g < count; g++) groups[g].memory = svm_memory(&task, groups[g].problems, groups[g].count);
  Slots slots = plan_slots(groups, count, task.budget / sizeof(real), omp_get_max_threads());
  slots.memory = scratch_push(L, slots.total);
  progress.total = machines;
  solve_groups(&task, groups, count, &slots);
  scratch_release(L, -1);
  tensor_check_interrupt(L);
  lua_pop(L, 1);
  collect(L, problems, machines, tensor_reals(bias));
  return 3;
}

static void store_linear(const SvmLinear *machine, long machines, long width, real *weight, real *bias) {
  for (long m = 0; m < machines; m++) {
    for (long j = 0; j < width; j++) weight[m * width + j] = (real)machine[m].w[j];
    bias[m] = (real)machine[m].w[width];
  }
}

static void push_linear_outcome(lua_State *L, const SvmLinear *machine, long machines) {
  double violation = 0;
  long steps = 0, unfinished = 0;
  for (long m = 0; m < machines; m++) {
    violation = fmax(violation, machine[m].solution.violation);
    steps += machine[m].solution.steps;
    unfinished += !machine[m].solution.converged;
  }
  push_outcome(L, steps, violation, unfinished);
}

/* train_linear(x, sizes, uppers, options) -> weight (machines, D), bias (machines), outcome: each class against all others,
   or the first of two against the second; options: check_task's, with squared and cost. */
static int l_train_linear(lua_State *L) {
  lua_settop(L, 4);
  Progress progress = {0};
  SvmTask task = check_task(L, 4, &progress);
  Classes classes = check_classes(L, 2, 3, task.samples.count);
  long machines = classes.count == 2 ? 1 : classes.count, width = task.samples.width;
  double cost = number_field(L, 4, "cost");
  SvmLinear *machine = push_bytes(L, (size_t)machines, sizeof *machine);
  double *w = push_bytes(L, (size_t)machines * ((size_t)width + 1), sizeof *w);
  size_t need = svm_linear_memory(task.samples.count);
  real *memory = scratch_push(L, need * (size_t)machines);
  Tensor *weight = tensor_push(L, DTYPE_REAL, 2, (long[]){machines, width}, LAYOUT_ROWS);
  Tensor *bias = tensor_push(L, DTYPE_REAL, 1, &machines, LAYOUT_ROWS);
  for (long m = 0; m < machines; m++) {
    machine[m] = (SvmLinear){.cost = {machines == 1 ? classes.upper[1] : cost, classes.upper[m]},
                             .positive = {classes.first[m], classes.first[m] + classes.size[m]},
                             .squared = flag_field(L, 4, "squared"),
                             .stream = (uint64_t)m,
                             .w = w + m * (width + 1)};
  }
  progress.total = machines;
#pragma omp parallel for schedule(dynamic)
  for (long m = 0; m < machines; m++) svm_solve_linear(&task, &machine[m], memory + (size_t)m * need);
  tensor_check_interrupt(L);
  store_linear(machine, machines, width, tensor_reals(weight), tensor_reals(bias));
  push_linear_outcome(L, machine, machines);
  return 3;
}

/* decide(x, support, coef, bias, kernel) -> (N, machines): the values of all machines for the rows of x. */
static int l_decide(lua_State *L) {
  const Tensor *coef = tensor_check_real(L, 3, "svm: coef", 2), *bias = tensor_check_real(L, 4, "svm: bias", 1);
  lua_settop(L, 5);
  SvmKernel kernel = check_kernel(L, 5);
  SvmRows x = push_rows(L, 1, "svm: x"), support = push_rows(L, 2, "svm: support");
  long machines = coef->shape[1];
  if (support.width != x.width || coef->shape[0] != support.count || bias->shape[0] != machines)
    tensor_error(L, "svm: x of width %I, support of width %I, coef %s and bias of %I do not fit", (lua_Integer)x.width,
                 (lua_Integer)support.width, tensor_describe(L, coef), (lua_Integer)bias->shape[0]);
  coef = tensor_push_in_layout(L, 3, LAYOUT_ROWS);
  bias = tensor_push_in_layout(L, 4, LAYOUT_ROWS);
  Tensor *f = tensor_push(L, DTYPE_REAL, 2, (long[]){x.count, machines}, LAYOUT_ROWS);
  svm_decide(&kernel, x, support, tensor_reals(coef), tensor_reals(bias), machines, tensor_reals(f));
  tensor_check_interrupt(L);
  return 1;
}

/* votes(f, classes) -> (N, classes): see count_votes. */
static int l_votes(lua_State *L) {
  const Tensor *f = tensor_check_real(L, 1, "svm: values", 2);
  long classes = tensor_check_size(L, 2, "svm: classes", 2);
  if (f->shape[1] != classes * (classes - 1) / 2)
    tensor_error(L, "svm: values of %s are not those of all pairs of %I classes", tensor_describe(L, f),
                 (lua_Integer)classes);
  f = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *score = tensor_push(L, DTYPE_REAL, 2, (long[]){f->shape[0], classes}, LAYOUT_ROWS);
  count_votes(tensor_reals(f), f->shape[0], classes, tensor_reals(score));
  return 1;
}

/* moments(x) -> mean (D), deviation (D), variance of all elements: over the rows of x (N, D). */
static int l_moments(lua_State *L) {
  tensor_check_real(L, 1, "svm: x", 2);
  lua_settop(L, 1);
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  long width = x->shape[1];
  double *sum = push_bytes(L, (size_t)width, sizeof *sum);
  Tensor *mean = tensor_push(L, DTYPE_REAL, 1, &width, LAYOUT_ROWS);
  Tensor *deviation = tensor_push(L, DTYPE_REAL, 1, &width, LAYOUT_ROWS);
  lua_pushnumber(L,
                 column_moments(tensor_reals(x), x->shape[0], width, tensor_reals(mean), tensor_reals(deviation), sum));
  return 3;
}

static void check_sound(lua_State *L, const real *x, long rows, long width) {
  long row = first_unsound_row(x, rows, width), column = 0;
  if (row == rows) return;
  while (isfinite(x[row * width + column])) column++;
  tensor_error(L, "svm: row %I, column %I of the features is %f", (lua_Integer)row + 1, (lua_Integer)column + 1,
               (lua_Number)x[row * width + column]);
}

/* The tensor at 'arg' with one number a column, or NULL for nil. */
static const real *push_column_numbers(lua_State *L, int arg, const char *name, long width) {
  const Tensor *t = tensor_opt_real(L, arg, name, 1);
  if (t != NULL && t->shape[0] != width)
    tensor_error(L, "%s has %I elements, the features have %I columns", name, (lua_Integer)t->shape[0],
                 (lua_Integer)width);
  return t == NULL ? (lua_pushnil(L), NULL) : tensor_reals(tensor_push_in_layout(L, arg, LAYOUT_ROWS));
}

/* Row numbers at 'arg', all within 1..rows, or NULL for nil. */
static const Tensor *push_order(lua_State *L, int arg, long rows) {
  if (lua_isnil(L, arg)) {
    lua_pushnil(L);
    return NULL;
  }
  tensor_check_dtype(L, arg, DTYPE_I32);
  const Tensor *order = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  for (long i = 0, n = tensor_numel(order); i < n; i++)
    if (tensor_ints(order)[i] < 1 || tensor_ints(order)[i] > rows)
      tensor_error(L, "svm: there is no row %d of %I", (int)tensor_ints(order)[i], (lua_Integer)rows);
  return order;
}

/* prepare(x, order, shift, scale) -> (M, D): rows 'order' (i32, from 1; nil: all in turn) of x (N, D), less shift (D), over
   scale (D), each of them or nil; x itself where nothing is to be done. Raises where x holds a number that is not finite. */
static int l_prepare(lua_State *L) {
  tensor_check_real(L, 1, "svm: x", 2);
  lua_settop(L, 4);
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  long rows = x->shape[0], width = x->shape[1];
  check_sound(L, tensor_reals(x), rows, width);
  const Tensor *order = push_order(L, 2, rows);
  const real *shift = push_column_numbers(L, 3, "svm: shift", width);
  const real *scale = push_column_numbers(L, 4, "svm: scale", width);
  if (order == NULL && shift == NULL && scale == NULL) {
    lua_pushvalue(L, 5);
    return 1;
  }
  if (order != NULL) rows = tensor_numel(order);
  Tensor *y = tensor_push(L, DTYPE_REAL, 2, (long[]){rows, width}, LAYOUT_ROWS);
  prepare(tensor_reals(x), order == NULL ? NULL : tensor_ints(order), shift, scale, rows, width, tensor_reals(y));
  return 1;
}

static const luaL_Reg functions[] = {
    {"moments", l_moments},
    {"prepare", l_prepare},
    {"train_kernel", l_train_kernel},
    {"train_linear", l_train_linear},
    {"decide", l_decide},
    {"votes", l_votes},
    {NULL, NULL},
};

int luaopen_feral_core_svm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
