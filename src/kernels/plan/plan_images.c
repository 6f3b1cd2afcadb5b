/* plan_images.c -- steps that look at images: convolution, pooling. See plan.h. */
#include "plan_step.h"

/* ---- convolution ---- */

static ConvGeometry conv_of(const PlanStep *s, long n) {
  ConvGeometry g = s->conv;
  g.n = n;
  return g;
}

static long conv_x(const PlanStep *s) {
  return s->conv.c * s->conv.h * s->conv.w;
}
static long conv_y(const PlanStep *s) {
  return s->conv.f * s->conv.oh * s->conv.ow;
}
static long conv_weights(const PlanStep *s) {
  const ConvGeometry *g = &s->conv;
  return g->f * (g->c / g->groups) * g->kh * g->kw;
}
static long conv_biases(const PlanStep *s) {
  return s->conv.f;
}

static long packed_conv(const PlanStep *s) {
  ConvGeometry g = conv_of(s, 1);
  return conv_packed_size(&g);
}
static void pack_conv(const PlanStep *s, const real *const *weight, real *packed) {
  ConvGeometry g = conv_of(s, 1);
  conv_pack(&g, weight[0], weight[1], packed);
}

static void run_conv(const PlanStep *s, const PlanMemory *m) {
  ConvGeometry g = conv_of(s, m->n);
  Tail tail = tail_of(s, m);
  conv_run(&g, m->x, s->packed, or_null(&tail), m->y, m->scratch);
}
static long conv_scratch(const PlanStep *s, long n) {
  ConvGeometry g = conv_of(s, n);
  return conv_run_scratch(&g);
}

const PlanOp plan_conv = {
    .name = "conv",
    .field = {{"c", PLAN_AT(conv.c), PLAN_SIZE},
              {"h", PLAN_AT(conv.h), PLAN_SIZE},
              {"w", PLAN_AT(conv.w), PLAN_SIZE},
              {"f", PLAN_AT(conv.f), PLAN_SIZE},
              {"kh", PLAN_AT(conv.kh), PLAN_SIZE},
              {"kw", PLAN_AT(conv.kw), PLAN_SIZE},
              {"oh", PLAN_AT(conv.oh), PLAN_SIZE},
              {"ow", PLAN_AT(conv.ow), PLAN_SIZE},
              {"stride_h", PLAN_AT(conv.stride_h), PLAN_SIZE},
              {"stride_w", PLAN_AT(conv.stride_w), PLAN_SIZE},
              {"dilation_h", PLAN_AT(conv.dilation_h), PLAN_SIZE},
              {"dilation_w", PLAN_AT(conv.dilation_w), PLAN_SIZE},
              {"groups", PLAN_AT(conv.groups), PLAN_SIZE},
              {"top", PLAN_AT(conv.top), PLAN_COUNT},
              {"left", PLAN_AT(conv.left), PLAN_COUNT},
              {"single", PLAN_AT(conv.single), PLAN_FLAG}},
    .x_size = conv_x,
    .y_size = conv_y,
    .weight = {{"weight", conv_weights, false}, {"bias", conv_biases, true}},
    .packed_size = packed_conv,
    .pack = pack_conv,
    .run = run_conv,
    .scratch = conv_scratch,
};

/* ---- pooling ---- */

static long pool_x(const PlanStep *s) {
  return s->pool.c * s->pool.y.in * s->pool.x.in;
}
static long pool_y(const PlanStep *s) {
  return s->pool.c * s->pool.y.out * s->pool.x.out;
}
static long packed_pool(const PlanStep *s) {
  return pool_packed_size(&s->pool);
}
static void pack_pool(const PlanStep *s, const real *const *weight, real *packed) {
  (void)weight;
  pool_pack(&s->pool, packed);
}

/* Each window has a pixel in the image. */
static bool windows_fit(const PoolAxis *a) {
  return 2 * a->pad <= a->kernel && (a->out - 1) * a->stride - a->pad < a->in;
}
static bool pool_fits(const PlanStep *s) {
  return windows_fit(&s->pool.y) && windows_fit(&s->pool.x);
}

static PoolGeometry pool_of(const PlanStep *s, long n) {
  PoolGeometry g = s->pool;
  g.n = n;
  return g;
}

static void run_max_pool(const PlanStep *s, const PlanMemory *m) {
  PoolGeometry g = pool_of(s, m->n);
  pool_max_run(&g, s->packed, m->x, m->y, NULL);
}
static void run_mean_pool(const PlanStep *s, const PlanMemory *m) {
  PoolGeometry g = pool_of(s, m->n);
  pool_mean_run(&g, s->packed, m->x, m->y);
}

#define POOL_FIELDS                                                                                                    \
  {"c", PLAN_AT(pool.c), PLAN_SIZE}, {"h", PLAN_AT(pool.y.in), PLAN_SIZE}, {"w", PLAN_AT(pool.x.in), PLAN_SIZE},       \
      {"oh", PLAN_AT(pool.y.out), PLAN_SIZE}, {"ow", PLAN_AT(pool.x.out), PLAN_SIZE},                                  \
      {"kh", PLAN_AT(pool.y.kernel), PLAN_SIZE}, {"kw", PLAN_AT(pool.x.kernel), PLAN_SIZE},                            \
      {"stride_h", PLAN_AT(pool.y.stride), PLAN_SIZE}, {"stride_w", PLAN_AT(pool.x.stride), PLAN_SIZE},                \
      {"top", PLAN_AT(pool.y.pad), PLAN_COUNT}, {"left", PLAN_AT(pool.x.pad), PLAN_COUNT}, {                           \
    "count_padding", PLAN_AT(pool.count_padding), PLAN_FLAG                                                            \
  }

#define POOL(what, function)                                                                                           \
  {                                                                                                                    \
    .name = what, .field = {POOL_FIELDS}, .x_size = pool_x, .y_size = pool_y, .fits = pool_fits,                       \
    .packed_size = packed_pool, .pack = pack_pool, .run = function                                                     \
  }

const PlanOp plan_max_pool = POOL("max_pool", run_max_pool);
const PlanOp plan_mean_pool = POOL("mean_pool", run_mean_pool);

/* ---- repetition: pooling backwards, each pixel of (h,w) fills a window of (oh,ow) ---- */

static bool repeat_fits(const PlanStep *s) {
  const PoolGeometry *g = &s->pool;
  return g->y.out == g->y.in * g->y.kernel && g->x.out == g->x.in * g->x.kernel;
}

static void run_repeat(const PlanStep *s, const PlanMemory *m) {
  long c = s->pool.c, h = s->pool.y.in, w = s->pool.x.in, oh = s->pool.y.out, ow = s->pool.x.out;
#pragma omp for
  for (long row = 0; row < m->n * oh; row++) {
    const real *x = m->x + (row / oh * h + row % oh / s->pool.y.kernel) * w * c;
    for (long column = 0; column < ow; column++)
      copy_reals(m->y + (row * ow + column) * c, x + column / s->pool.x.kernel * c, c);
  }
}

const PlanOp plan_repeat = {.name = "repeat",
                            .field = {POOL_FIELDS},
                            .x_size = pool_x,
                            .y_size = pool_y,
                            .fits = repeat_fits,
                            .run = run_repeat};

/* ---- the mean of an image ---- */

static void run_global_mean(const PlanStep *s, const PlanMemory *m) {
  pool_global_mean_run(m->n, s->rows.rows, s->rows.to, m->x, m->y);
}

const PlanOp plan_global_mean = {
    .name = "global_mean", .field = {PLAN_ROWS_FIELDS}, .x_size = rows_to, .y_size = one_row, .run = run_global_mean};
