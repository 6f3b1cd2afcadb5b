/*
** loss.c -- losses. Those of a classifier's scores (cross entropy, focal, margin) give value and gradient in one pass;
** sums are taken in double, sample by sample, in order. Binary cross entropy gives values and slopes; the library
** reduces them.
*/
#include <math.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels: a sample's loss from its scores x (classes), its gradient into dx unless that is NULL ---- */

typedef struct LossGeometry {
  long samples, classes;
  const int32_t *labels;           /* (samples) 1-based, or NULL */
  const real *soft;                /* (samples, classes), or NULL */
  const real *weight;              /* (classes), or NULL for ones */
  const real *sample_weight;       /* (samples), or NULL for ones */
  double smoothing, gamma, margin; /* of cross entropy, focal and margin loss */
  int power;                       /* of the margin loss, 1 or 2 */
  double scale;                    /* of losses and gradients: a mean's division */
} LossGeometry;

typedef double (*SampleLoss)(const LossGeometry *g, long sample, const real *x, real *dx);

static double weight_of(const LossGeometry *g, long class) {
  return g->weight != NULL ? g->weight[class] : 1;
}

/* What a sample's loss and gradient are multiplied by. */
static double scale_of(const LossGeometry *g, long sample) {
  return g->sample_weight != NULL ? g->scale * g->sample_weight[sample] : g->scale;
}

static double log_sum_exp(const real *x, long n) {
  double most = x[0], sum = 0;
  for (long c = 1; c < n; c++) most = x[c] > most ? x[c] : most;
  for (long c = 0; c < n; c++) sum += exp(x[c] - most);
  return most + log(sum); /* cppcheck-suppress invalidFunctionArg ; at least one term is 1 */
}

/* What the loss wishes class c to be: the loss is minus the sum of wish * log p. */
static double wish(const LossGeometry *g, long sample, long c) {
  double target = g->soft != NULL ? g->soft[sample * g->classes + c] : g->labels[sample] == c + 1;
  return weight_of(g, c) * (target * (1 - g->smoothing) + g->smoothing / (double)g->classes);
}

/* The powers of e wait in dx, so that each is taken once. */
static double cross_entropy(const LossGeometry *g, long sample, const real *x, real *dx) {
  double most = x[0], sum = 0, loss = 0, all = 0, scale = scale_of(g, sample);
  for (long c = 1; c < g->classes; c++) most = x[c] > most ? x[c] : most;
  for (long c = 0; c < g->classes; c++) {
    double power = exp(x[c] - most);
    sum += power;
    if (dx != NULL) dx[c] = (real)power;
  }
  double total = most + log(sum); /* cppcheck-suppress invalidFunctionArg ; at least one term is 1 */
  for (long c = 0; c < g->classes; c++) {
    double q = wish(g, sample, c);
    all += q;
    if (q != 0) loss += q * (total - x[c]);
  }
  for (long c = 0; dx != NULL && c < g->classes; c++) dx[c] = (real)(scale * (all / sum * dx[c] - wish(g, sample, c)));
  return scale * loss;
}

/* -w (1 - p)^gamma log p, p the probability of the label (Lin et al. 2017, "Focal loss for dense object detection") */
static double focal(const LossGeometry *g, long sample, const real *x, real *dx) {
  long label = g->labels[sample] - 1;
  double total = log_sum_exp(x, g->classes), log_p = x[label] - total, p = exp(log_p), rest = -expm1(log_p);
  double factor = scale_of(g, sample) * weight_of(g, label) * pow(rest, g->gamma);
  double ratio = p > 0 ? p * (rest > 0 ? log_p / rest : -1) : p; /* p log p is 0 where p is */
  double slope = factor * (g->gamma * ratio - 1);                /* of the loss by log p */
  for (long c = 0; dx != NULL && c < g->classes; c++) dx[c] = (real)(slope * ((c == label) - exp(x[c] - total)));
  return -factor * log_p;
}

/* w * sum over the other classes of max(0, margin - x[label] + x[c])^power / classes (Crammer and Singer 2001) */
static double multi_margin(const LossGeometry *g, long sample, const real *x, real *dx) {
  long label = g->labels[sample] - 1;
  double scale = scale_of(g, sample) * weight_of(g, label) / (double)g->classes, loss = 0, pull = 0;
  for (long c = 0; c < g->classes; c++) {
    double gap = c == label ? 0 : g->margin - x[label] + x[c];
    double slope = gap <= 0 ? 0 : g->power == 1 ? scale : 2 * scale * gap;
    loss += gap <= 0 ? 0 : g->power == 1 ? scale * gap : scale * gap * gap; /* a NaN is not <= 0 */
    pull += slope;
    if (dx != NULL) dx[c] = (real)slope;
  }
  if (dx != NULL) dx[label] = (real)-pull;
  return loss;
}

/* x (samples, classes) -> loss (samples), dx (samples, classes) or NULL */
static void all_samples(const LossGeometry *g, SampleLoss f, const real *x, double *loss, real *dx) {
#pragma omp parallel for if (g->samples * g->classes > PARALLEL_MIN)
  for (long s = 0; s < g->samples; s++) loss[s] = f(g, s, x + s * g->classes, dx != NULL ? dx + s * g->classes : NULL);
}

/* The sum of the samples' weights: their own times, where 'by_class', those of their labels. */
static double total_weight(const LossGeometry *g, bool by_class) {
  double sum = 0;
  for (long s = 0; s < g->samples; s++) {
    double own = g->sample_weight != NULL ? g->sample_weight[s] : 1;
    sum += by_class && g->labels != NULL ? own * weight_of(g, g->labels[s] - 1) : own;
  }
  return sum;
}

/* What a mean divides by, inverted; 0 where no sample of the batch counts, which then has no say. */
static double mean_scale(const LossGeometry *g, bool by_class) {
  double total = total_weight(g, by_class);
  return total > 0 ? 1 / total : 0;
}

/* ---- kernels: x, target, out (n) ---- */

typedef void (*Pointwise)(long n, const real *x, const real *target, real *out);

#define POINTWISE(name, expression)                                                                                    \
  static void name(long n, const real *x, const real *target, real *out) {                                             \
    _Pragma("omp parallel for if (n > PARALLEL_MIN)") for (long i = 0; i < n; i++) {                                   \
      double v = x[i], t = target[i];                                                                                  \
      out[i] = (real)(expression);                                                                                     \
    }                                                                                                                  \
  }

/* At least -100, so that a certain and wrong probability costs much, but not infinity. */
static double bounded_log(double v) {
  return v < 1e-44 ? -100 : log(v);
}

/* A part of a loss, which is 0 where its weight is, even of an infinite one. */
static double times(double v, double weight) {
  return weight != 0 ? v * weight : 0;
}

POINTWISE(bce, -(t *bounded_log(v) + (1 - t) * bounded_log(1 - v)))
POINTWISE(bce_slope, (v - t) / fmax(v * (1 - v), 1e-12))
POINTWISE(bce_logits, times(fabs(v), v > 0 ? 1 - t : t) + log1p(exp(-fabs(v))))
POINTWISE(bce_logits_slope, 1 / (1 + exp(-v)) - t)

/* Position of the first number outside of 0..1, or -1; a NaN passes, so that the loss shows it. */
static long first_improbable(long n, const real *p) {
  for (long i = 0; i < n; i++)
    if (p[i] < 0 || p[i] > 1) return i;
  return -1;
}

/* ---- bindings ---- */

static void check_labels(lua_State *L, const char *op, const LossGeometry *g) {
  for (long s = 0; s < g->samples; s++)
    if (g->labels[s] < 1 || g->labels[s] > g->classes)
      tensor_error(L, "%s: label %d of sample %I is outside of 1..%I", op, (int)g->labels[s], (lua_Integer)s + 1,
                   (lua_Integer)g->classes);
}

/* Labels at 'arg', i32 N or, where they may be soft, real N x K; pushed row-major. */
static void push_labels(lua_State *L, int arg, const char *op, const Tensor *x, bool may_be_soft, LossGeometry *g) {
  if (!tensor_is(L, arg)) tensor_error(L, "%s: labels must be a tensor, got %s", op, luaL_typename(L, arg));
  const Tensor *labels = tensor_check(L, arg);
  bool hard = labels->dtype == DTYPE_I32 && labels->ndim == 1 && labels->shape[0] == g->samples;
  bool soft = may_be_soft && labels->dtype == DTYPE_REAL && tensor_same_shape(labels, x);
  if (!hard && !soft)
    tensor_error(L, "%s: labels are %s %s, i32 %I%s expected for scores %s", op, dtype_name(labels->dtype),
                 tensor_describe(L, labels), (lua_Integer)g->samples,
                 may_be_soft ? lua_pushfstring(L, " or " REAL_NAME " %s", tensor_describe(L, x)) : "",
                 tensor_describe(L, x));
  labels = tensor_push_in_layout(L, arg, LAYOUT_ROWS);
  g->labels = hard ? labels->data : NULL;
  g->soft = soft ? labels->data : NULL;
  if (hard) check_labels(L, op, g);
}

/* 'count' weights at 'arg', none below 0, pushed row-major; NULL where there are none. 'what' is "weight" or "sample_weight",
   'of' what they are for. */
static const real *push_weights(lua_State *L, int arg, const char *op, const char *what, long count, const char *of) {
  if (lua_isnoneornil(L, arg)) return NULL;
  const Tensor *w = tensor_check_real(L, arg, lua_pushfstring(L, "%s: %s", op, what), 1);
  if (w->shape[0] != count)
    tensor_error(L, "%s: %s has %I elements, the scores have %I %s", op, what, (lua_Integer)w->shape[0],
                 (lua_Integer)count, of);
  const real *weights = tensor_reals(tensor_push_in_layout(L, arg, LAYOUT_ROWS));
  for (long i = 0; i < count; i++)
    if (!(weights[i] >= 0))
      tensor_error(L, "%s: %s %I is %f, at least 0 expected", op, what, (lua_Integer)i + 1, (lua_Number)weights[i]);
  return weights;
}

/* Weights of the classes at 3 and of the samples at 4. */
static void push_all_weights(lua_State *L, const char *op, LossGeometry *g) {
  g->weight = push_weights(L, 3, op, "weight", g->classes, "classes");
  g->sample_weight = push_weights(L, 4, op, "sample_weight", g->samples, "samples");
}

/* Stack: 1 scores, 2 labels, 3 weight, 4 sample weight, 5 reduction, 6 want gradient; labels and weights are in g.
   Pushes the loss, and the gradient of the scores if it is wanted: for "none" that of each sample's own loss. */
static int push_loss(lua_State *L, const LossGeometry *g, SampleLoss f) {
  bool none = strcmp(lua_tostring(L, 5), "none") == 0, want = lua_toboolean(L, 6);
  const long shape[2] = {g->samples, g->classes};
  const real *x = tensor_reals(tensor_push_in_layout(L, 1, LAYOUT_ROWS));
  double *each = (double *)scratch_push(L, (size_t)g->samples * sizeof(double) / sizeof(real));
  int scratch = lua_gettop(L);
  real *loss = tensor_reals(tensor_push(L, DTYPE_REAL, none ? 1 : 0, shape, LAYOUT_ROWS));
  real *dx = want ? tensor_reals(tensor_push(L, DTYPE_REAL, 2, shape, LAYOUT_ROWS)) : NULL;
  all_samples(g, f, x, each, dx);
  double sum = 0;
  for (long s = 0; s < g->samples; s++) {
    sum += each[s];
    if (none) loss[s] = (real)each[s];
  }
  if (!none) loss[0] = (real)sum;
  scratch_release(L, scratch);
  return want ? 2 : 1;
}

static bool is_mean(lua_State *L) {
  return strcmp(luaL_checkstring(L, 5), "mean") == 0;
}

static LossGeometry check_scores(lua_State *L, const char *name) {
  const Tensor *x = tensor_check_real(L, 1, name, 2);
  return (LossGeometry){.samples = x->shape[0], .classes = x->shape[1], .scale = 1};
}

/* cross_entropy(scores, labels, weight, sample weight, reduction, want gradient, smoothing) -> loss, gradient */
static int l_cross_entropy(lua_State *L) {
  LossGeometry g = check_scores(L, "cross_entropy: scores");
  g.smoothing = luaL_checknumber(L, 7);
  push_labels(L, 2, "cross_entropy", lua_touserdata(L, 1), true, &g);
  push_all_weights(L, "cross_entropy", &g);
  if (is_mean(L)) g.scale = mean_scale(&g, true);
  return push_loss(L, &g, cross_entropy);
}

/* focal(scores, labels, weight, sample weight, reduction, want gradient, gamma) -> loss, gradient */
static int l_focal(lua_State *L) {
  LossGeometry g = check_scores(L, "focal: scores");
  g.gamma = luaL_checknumber(L, 7);
  push_labels(L, 2, "focal", lua_touserdata(L, 1), false, &g);
  push_all_weights(L, "focal", &g);
  if (is_mean(L)) g.scale = mean_scale(&g, true);
  return push_loss(L, &g, focal);
}

/* multi_margin(scores, labels, weight, sample weight, reduction, want gradient, margin, power) -> loss, gradient */
static int l_multi_margin(lua_State *L) {
  LossGeometry g = check_scores(L, "multi_margin: scores");
  g.margin = luaL_checknumber(L, 7);
  g.power = (int)luaL_checkinteger(L, 8);
  push_labels(L, 2, "multi_margin", lua_touserdata(L, 1), false, &g);
  push_all_weights(L, "multi_margin", &g);
  if (is_mean(L)) g.scale = mean_scale(&g, false);
  return push_loss(L, &g, multi_margin);
}

/* (prediction, target) -> values of their shape, row-major */
static int push_pointwise(lua_State *L, Pointwise kernel, bool probabilities) {
  const Tensor *x = tensor_check_real(L, 1, "bce: prediction", 0), *target = tensor_check_real(L, 2, "bce: target", 0);
  if (!tensor_same_shape(x, target))
    tensor_error(L, "bce: the prediction is %s, the target %s", tensor_describe(L, x), tensor_describe(L, target));
  x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  target = tensor_push_in_layout(L, 2, LAYOUT_ROWS);
  long n = tensor_numel(x), bad = probabilities ? first_improbable(n, x->data) : -1;
  if (bad >= 0)
    tensor_error(L, "bce: element %I is %f, a probability in 0..1 expected (for scores: logits = true)",
                 (lua_Integer)bad + 1, (lua_Number)tensor_reals(x)[bad]);
  const Tensor *out = tensor_push(L, DTYPE_REAL, x->ndim, x->shape, LAYOUT_ROWS);
  kernel(n, x->data, target->data, out->data);
  return 1;
}

static int l_bce(lua_State *L) {
  return push_pointwise(L, bce, true);
}
static int l_bce_slope(lua_State *L) {
  return push_pointwise(L, bce_slope, false);
}
static int l_bce_logits(lua_State *L) {
  return push_pointwise(L, bce_logits, false);
}
static int l_bce_logits_slope(lua_State *L) {
  return push_pointwise(L, bce_logits_slope, false);
}

static const luaL_Reg functions[] = {
    {"cross_entropy", l_cross_entropy},
    {"focal", l_focal},
    {"multi_margin", l_multi_margin},
    {"bce", l_bce},
    {"bce_slope", l_bce_slope},
    {"bce_logits", l_bce_logits},
    {"bce_logits_slope", l_bce_logits_slope},
    {NULL, NULL},
};

int luaopen_feral_core_loss(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
