/* plan.c -- plans from the lists of steps that compile.lua makes; see kernels/plan.h. */
#include "../kernels/plan/plan.h"

#include <limits.h>
#include <string.h>

#include "../base/parallel.h"
#include "../kernels/plan/dense.h"
#include "../kernels/plan/plan_lstm.h"
#include "../tensor/tensor.h"

static const char *const plan_type = "feral.plan";
enum { WEIGHTS_SLOT = 1, WORKSPACE_SLOT, SLOTS = WORKSPACE_SLOT };
enum { GATES = 4 }; /* of recurrent layers */

/* A plan and its arrays are one userdata; its user values are the packed weights and the workspace. */
typedef struct PlanObject {
  Plan plan;
  PlanRun run;
  real *workspace;
  long room; /* of the workspace */
} PlanObject;

/* ---- reading a step ---- */

static long number_at(lua_State *L, int table, const char *key) {
  lua_getfield(L, table, key);
  int whole;
  lua_Integer value = lua_tointegerx(L, -1, &whole);
  if (!whole || value < 0 || value > LONG_MAX / 64) tensor_error(L, "plan: a step's %s is no size", key);
  lua_pop(L, 1);
  return (long)value;
}

typedef struct Field {
  const char *key;
  long *to;
} Field;

/* Sizes of 1 or more; a NULL key ends the list. */
static void read_fields(lua_State *L, int table, const Field *field) {
  for (; field->key != NULL; field++) {
    *field->to = number_at(L, table, field->key);
    if (*field->to < 1) tensor_error(L, "plan: a step's %s is 0", field->key);
  }
}

static bool flag_at(lua_State *L, int table, const char *key) {
  lua_getfield(L, table, key);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

/* The tensor of that name, row-major and of so many numbers; it stays on the stack. NULL for nil. */
static const real *reals_at(lua_State *L, int table, const char *key, long count) {
  lua_getfield(L, table, key);
  if (lua_isnil(L, -1)) return NULL;
  const Tensor *t = tensor_check_real(L, lua_gettop(L), "plan: weights", 0);
  if (tensor_numel(t) != count) tensor_error(L, "plan: %s has %s numbers", key, tensor_describe(L, t));
  return tensor_push_in_layout(L, lua_gettop(L), LAYOUT_ROWS)->data;
}

/* How an operation reads its sizes, how much its packed weights take, and how it packs them from the step's table. */
typedef struct Reader {
  const PlanOp *op;
  void (*read)(lua_State *L, int table, PlanStep *s);
  long (*packed_size)(const PlanStep *s);
  void (*pack)(lua_State *L, int table, const PlanStep *s, real *packed);
  long (*x_size)(const PlanStep *s); /* numbers that it reads and writes, for one sample of its own */
  long (*y_size)(const PlanStep *s);
} Reader;

static void read_conv(lua_State *L, int table, PlanStep *s) {
  ConvGeometry *g = &s->conv;
  const Field fields[] = {{"c", &g->c},
                          {"h", &g->h},
                          {"w", &g->w},
                          {"f", &g->f},
                          {"kh", &g->kh},
                          {"kw", &g->kw},
                          {"oh", &g->oh},
                          {"ow", &g->ow},
                          {"stride_h", &g->stride_h},
                          {"stride_w", &g->stride_w},
                          {"dilation_h", &g->dilation_h},
                          {"dilation_w", &g->dilation_w},
                          {"groups", &g->groups},
                          {NULL, NULL}};
  read_fields(L, table, fields);
  g->n = 1;
  g->top = number_at(L, table, "top");
  g->left = number_at(L, table, "left");
  g->single = flag_at(L, table, "single");
}
static long conv_size(const PlanStep *s) {
  return conv_packed_size(&s->conv);
}
static void pack_conv(lua_State *L, int table, const PlanStep *s, real *packed) {
  const ConvGeometry *g = &s->conv;
  const real *w = reals_at(L, table, "weight", g->f * (g->c / g->groups) * g->kh * g->kw);
  conv_pack(g, w, reals_at(L, table, "bias", g->f), packed);
}
static long conv_x(const PlanStep *s) {
  return s->conv.c * s->conv.h * s->conv.w;
}
static long conv_y(const PlanStep *s) {
  return s->conv.f * s->conv.oh * s->conv.ow;
}

static void read_pool(lua_State *L, int table, PlanStep *s) {
  PlanPool *g = &s->pool;
  const Field fields[] = {{"c", &g->c},
                          {"h", &g->h},
                          {"w", &g->w},
                          {"kh", &g->kh},
                          {"kw", &g->kw},
                          {"oh", &g->oh},
                          {"ow", &g->ow},
                          {"stride_h", &g->stride_h},
                          {"stride_w", &g->stride_w},
                          {NULL, NULL}};
  read_fields(L, table, fields);
  g->top = number_at(L, table, "top");
  g->left = number_at(L, table, "left");
  g->count_padding = flag_at(L, table, "count_padding");
}
static long pool_x(const PlanStep *s) {
  return s->pool.c * s->pool.h * s->pool.w;
}
static long pool_y(const PlanStep *s) {
  return s->pool.c * s->pool.oh * s->pool.ow;
}

static void read_rows(lua_State *L, int table, PlanStep *s) {
  s->rows.rows = number_at(L, table, "rows");
  s->rows.from = number_at(L, table, "from");
  s->rows.to = number_at(L, table, "to");
  s->rows.at = number_at(L, table, "at");
}
static long rows_from(const PlanStep *s) {
  return s->rows.rows * s->rows.from;
}
static long rows_to(const PlanStep *s) {
  return s->rows.rows * s->rows.to;
}
static long one_row(const PlanStep *s) {
  return s->rows.to;
}

static long dense_size(const PlanStep *s) {
  return dense_packed_size(s->rows.from, s->rows.to);
}
static void pack_dense(lua_State *L, int table, const PlanStep *s, real *packed) {
  const real *w = reals_at(L, table, "weight", s->rows.from * s->rows.to);
  dense_pack(s->rows.from, s->rows.to, w, reals_at(L, table, "bias", s->rows.to), packed);
}

static long scale_size(const PlanStep *s) {
  return 2 * s->rows.to;
}
static void pack_scale(lua_State *L, int table, const PlanStep *s, real *packed) {
  size_t bytes = (size_t)s->rows.to * sizeof *packed;
  memcpy(packed, reals_at(L, table, "weight", s->rows.to), bytes);
  memcpy(packed + s->rows.to, reals_at(L, table, "bias", s->rows.to), bytes);
}
static void pack_prelu(lua_State *L, int table, const PlanStep *s, real *packed) {
  memcpy(packed, reals_at(L, table, "weight", s->rows.to), (size_t)s->rows.to * sizeof *packed);
}

static void read_lstm(lua_State *L, int table, PlanStep *s) {
  s->lstm.steps = number_at(L, table, "steps");
  s->lstm.hidden = number_at(L, table, "hidden");
  s->lstm.width = number_at(L, table, "width");
  s->lstm.at = number_at(L, table, "at");
  s->lstm.reverse = flag_at(L, table, "reverse");
}
static long lstm_size(const PlanStep *s) {
  return lstm_packed_size(s->lstm.hidden);
}
static void pack_lstm(lua_State *L, int table, const PlanStep *s, real *packed) {
  lstm_pack(s->lstm.hidden, reals_at(L, table, "weight", 4 * s->lstm.hidden * s->lstm.hidden), packed);
}
static long lstm_x(const PlanStep *s) {
  return 4 * s->lstm.steps * s->lstm.hidden;
}
static long lstm_y(const PlanStep *s) {
  return s->lstm.steps * s->lstm.width;
}

static void read_convlstm(lua_State *L, int table, PlanStep *s) {
  ConvLstmGeometry *g = &s->convlstm.g;
  const Field fields[] = {{"steps", &g->steps}, {"c", &g->c},   {"f", &g->f},   {"h", &g->h},
                          {"w", &g->w},         {"kh", &g->kh}, {"kw", &g->kw}, {NULL, NULL}};
  read_fields(L, table, fields);
  g->n = 1;
  s->convlstm.last = flag_at(L, table, "last");
}
static long convlstm_size(const PlanStep *s) {
  return convlstm_packed_size(&s->convlstm.g);
}
static void pack_convlstm(lua_State *L, int table, const PlanStep *s, real *packed) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  long filters = GATES * g->f, taps = g->kh * g->kw;
  const real *w_ih = reals_at(L, table, "weight", filters * g->c * taps);
  const real *w_hh = reals_at(L, table, "weight_hh", filters * g->f * taps);
  convlstm_pack(g, w_ih, w_hh, reals_at(L, table, "bias", filters), packed);
}
static long convlstm_x(const PlanStep *s) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  return g->steps * g->h * g->w * g->c;
}
static long convlstm_y(const PlanStep *s) {
  const ConvLstmGeometry *g = &s->convlstm.g;
  return (s->convlstm.last ? 1 : g->steps) * g->h * g->w * g->f;
}

static const Reader readers[] = {
    {&plan_conv, read_conv, conv_size, pack_conv, conv_x, conv_y},
    {&plan_dense, read_rows, dense_size, pack_dense, rows_from, rows_to},
    {&plan_map, read_rows, NULL, NULL, rows_from, rows_to},
    {&plan_scale, read_rows, scale_size, pack_scale, rows_to, rows_to},
    {&plan_prelu, read_rows, one_row, pack_prelu, rows_to, rows_to},
    {&plan_softmax, read_rows, NULL, NULL, rows_to, rows_to},
    {&plan_max_pool, read_pool, NULL, NULL, pool_x, pool_y},
    {&plan_mean_pool, read_pool, NULL, NULL, pool_x, pool_y},
    {&plan_global_mean, read_rows, NULL, NULL, rows_to, one_row},
    {&plan_turn, read_rows, NULL, NULL, rows_to, rows_to},
    {&plan_copy, read_rows, NULL, NULL, rows_from, rows_to},
    {&plan_select, read_rows, NULL, NULL, rows_to, one_row},
    {&plan_lstm, read_lstm, lstm_size, pack_lstm, lstm_x, lstm_y},
    {&plan_convlstm, read_convlstm, convlstm_size, pack_convlstm, convlstm_x, convlstm_y},
};

static const Reader *reader_for(lua_State *L, int table) {
  lua_getfield(L, table, "op");
  const char *name = luaL_checkstring(L, -1);
  for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
    if (strcmp(readers[i].op->name, name) == 0) {
      lua_pop(L, 1);
      return &readers[i];
    }
  tensor_error(L, "plan: no operation is called '%s'", name);
}

static const Reader *reader_of(const PlanStep *s) {
  const Reader *r = readers;
  while (r->op != s->op) r++;
  return r;
}

static TailActivation activation_at(lua_State *L, int table) {
  static const char *const names[] = {"linear", "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", NULL};
  lua_getfield(L, table, "activation");
  int which = luaL_checkoption(L, -1, "linear", names);
  lua_pop(L, 1);
  return (TailActivation)which;
}

static int value_at(lua_State *L, int table, const char *key, const Plan *p) {
  long value = number_at(L, table, key);
  if (value >= p->values)
    tensor_error(L, "plan: a step's %s is value %I of %I", key, (lua_Integer)value, (lua_Integer)p->values);
  return (int)value;
}

static void check_sizes(lua_State *L, const Plan *p, const PlanStep *s) {
  const Reader *r = reader_of(s);
  const PlanValue *x = &p->value[s->x], *y = &p->value[s->y];
  if (s->times < 1 || r->x_size(s) * s->times != x->size || r->y_size(s) * s->times != y->size ||
      (s->other >= 0 && p->value[s->other].size != y->size))
    tensor_error(L, "plan: a step %s from %I numbers to %I does not fit its sizes, %I and %I", s->op->name,
                 (lua_Integer)x->size, (lua_Integer)y->size, (lua_Integer)r->x_size(s), (lua_Integer)r->y_size(s));
  if (s->y == PLAN_INPUT || (s->op == &plan_copy && s->rows.at + s->rows.from > s->rows.to) ||
      (s->op == &plan_select && s->rows.at >= s->rows.rows) ||
      (s->op == &plan_lstm && s->lstm.at + s->lstm.hidden > s->lstm.width))
    tensor_error(L, "plan: a step %s writes beyond its value", s->op->name);
}

static void read_step(lua_State *L, int table, const Plan *p, PlanStep *s) {
  const Reader *r = reader_for(L, table);
  *s = (PlanStep){.op = r->op, .other = -1, .times = number_at(L, table, "times")};
  s->x = value_at(L, table, "x", p);
  s->y = value_at(L, table, "y", p);
  lua_getfield(L, table, "other");
  if (!lua_isnil(L, -1)) s->other = value_at(L, table, "other", p);
  lua_getfield(L, table, "parameter");
  s->parameter = (real)luaL_optnumber(L, -1, 0);
  lua_getfield(L, table, "work");
  s->work = luaL_checknumber(L, -1);
  lua_pop(L, 3);
  s->activation = activation_at(L, table);
  r->read(L, table, s);
  check_sizes(L, p, s);
}

/* ---- making a plan ---- */

/* values: list of {size, at} */
static void read_values(lua_State *L, int list, Plan *p) {
  for (long i = 0; i < p->values; i++) {
    lua_geti(L, list, i + 1);
    int table = lua_gettop(L);
    p->value[i] = (PlanValue){number_at(L, table, "size"), number_at(L, table, "at")};
    if (i >= PLAN_INNER && p->value[i].at + p->value[i].size > p->per_sample)
      tensor_error(L, "plan: a value lies outside the workspace");
    lua_pop(L, 1);
  }
}

static void read_steps(lua_State *L, int list, Plan *p) {
  for (long i = 0; i < p->steps; i++) {
    lua_geti(L, list, i + 1);
    read_step(L, lua_gettop(L), p, &p->step[i]);
    p->work += p->step[i].work;
    lua_pop(L, 1);
  }
}

static long packed_size(const PlanStep *s) {
  const Reader *r = reader_of(s);
  return r->packed_size == NULL ? 0 : (r->packed_size(s) + 15) / 16 * 16;
}

/* Packs all weights into one block, which becomes the plan's. */
static void pack_steps(lua_State *L, int object, int list, Plan *p) {
  for (long i = 0; i < p->steps; i++) p->packed += packed_size(&p->step[i]);
  real *packed = scratch_push(L, (size_t)p->packed);
  lua_setiuservalue(L, object, WEIGHTS_SLOT);
  for (long i = 0; i < p->steps; i++) {
    PlanStep *s = &p->step[i];
    lua_geti(L, list, i + 1);
    int table = lua_gettop(L);
    if (reader_of(s)->pack != NULL) reader_of(s)->pack(L, table, s, packed);
    s->packed = packed;
    packed += packed_size(s);
    lua_settop(L, table - 1);
  }
}

/* new(values, steps, reals of workspace a sample) -> plan */
static int l_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 3);
  long values = (long)luaL_len(L, 1), steps = (long)luaL_len(L, 2);
  long per_sample = tensor_check_size(L, 3, "plan: workspace", 0);
  if (values < PLAN_INNER || values > 1 << 20 || steps < 1 || steps > 1 << 20)
    tensor_error(L, "plan: an input, an output and a step expected");
  size_t room = sizeof(PlanObject) + (size_t)steps * sizeof(PlanStep) + (size_t)values * sizeof(PlanValue);
  PlanObject *o = lua_newuserdatauv(L, room, SLOTS);
  *o = (PlanObject){.plan = {.steps = steps, .values = values, .per_sample = per_sample}};
  o->plan.step = (PlanStep *)(o + 1);
  o->plan.value = (PlanValue *)(o->plan.step + steps);
  luaL_setmetatable(L, plan_type);
  read_values(L, 1, &o->plan);
  read_steps(L, 2, &o->plan);
  pack_steps(L, 4, 2, &o->plan);
  return 1;
}

/* ---- running ---- */

/* Works out how n samples are run, and makes room for it. */
static void prepare(lua_State *L, int object, PlanObject *o, long n) {
  if (o->run.n == n && o->run.threads == omp_get_max_threads()) return;
  PlanRun run = plan_prepare(&o->plan, n);
  if (run.size > o->room) {
    o->room = 0;
    o->run.n = 0;
    lua_pushnil(L);
    lua_setiuservalue(L, object, WORKSPACE_SLOT);
    o->workspace = scratch_push(L, (size_t)run.size);
    lua_setiuservalue(L, object, WORKSPACE_SLOT);
    o->room = run.size;
  }
  o->run = run;
}

/* run(plan, x, shape of the output) -> y;  x in its memory's order, N x ..., an image if it has 4 dimensions */
static int l_run(lua_State *L) {
  PlanObject *o = luaL_checkudata(L, 1, plan_type);
  const Tensor *x = tensor_check_real(L, 2, "plan: input", 0);
  long shape[TENSOR_MAX_DIMS];
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  int ndim = tensor_check_shape(L, 3, shape);
  long given = 1, n;
  for (int d = 0; d < ndim; d++) given *= shape[d];
  n = tensor_numel(x) / o->plan.value[PLAN_INPUT].size;
  if (n < 1 || n * o->plan.value[PLAN_INPUT].size != tensor_numel(x) || given != n * o->plan.value[PLAN_OUTPUT].size)
    tensor_error(L, "plan: input is %s, which does not fit", tensor_describe(L, x));
  x = tensor_push_in_layout(L, 2, LAYOUT_IMAGE);
  Tensor *y = tensor_push(L, DTYPE_REAL, ndim, shape, LAYOUT_IMAGE);
  prepare(L, 1, o, n);
  plan_run(&o->plan, &o->run, x->data, y->data, o->workspace);
  tensor_check_interrupt(L);
  return 1;
}

/* steps(plan) -> the names of its operations, in order */
static int l_steps(lua_State *L) {
  PlanObject *o = luaL_checkudata(L, 1, plan_type);
  lua_createtable(L, (int)o->plan.steps, 0);
  for (long i = 0; i < o->plan.steps; i++) {
    lua_pushstring(L, o->plan.step[i].op->name);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static const luaL_Reg functions[] = {{"new", l_new}, {"run", l_run}, {"steps", l_steps}, {NULL, NULL}};

int luaopen_feral_core_plan(lua_State *L) {
  luaL_newmetatable(L, plan_type);
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
