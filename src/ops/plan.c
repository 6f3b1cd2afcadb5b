/* plan.c -- plans from the lists of steps that compile.lua makes; see kernels/plan.h. */
#include "../kernels/plan/plan.h"

#include <limits.h>
#include <string.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

static const char *const plan_type = "feral.plan";
enum { WEIGHTS_SLOT = 1, WORKSPACE_SLOT, SLOTS = WORKSPACE_SLOT };

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

static bool flag_at(lua_State *L, int table, const char *key) {
  lua_getfield(L, table, key);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

/* The tensor of that name, row-major and of so many elements; it stays on the stack. NULL for nil. */
static const real *reals_at(lua_State *L, int table, const char *key, long count) {
  lua_getfield(L, table, key);
  if (lua_isnil(L, -1)) return NULL;
  const Tensor *t = tensor_check_real(L, lua_gettop(L), "plan: weights", 0);
  if (tensor_numel(t) != count) tensor_error(L, "plan: %s has %s elements", key, tensor_describe(L, t));
  return tensor_push_in_layout(L, lua_gettop(L), LAYOUT_ROWS)->data;
}

static void read_fields(lua_State *L, int table, PlanStep *s) {
  const PlanField *field = s->op->field;
  for (int i = 0; i < PLAN_FIELDS_MOST && field[i].name != NULL; i++) {
    void *place = (char *)s + field[i].place;
    if (field[i].kind == PLAN_FLAG) {
      *(bool *)place = flag_at(L, table, field[i].name);
      continue;
    }
    long value = *(long *)place = number_at(L, table, field[i].name);
    if (field[i].kind == PLAN_SIZE && value < 1) tensor_error(L, "plan: a step's %s is 0", field[i].name);
  }
}

static const PlanOp *op_at(lua_State *L, int table) {
  lua_getfield(L, table, "op");
  const char *name = luaL_checkstring(L, -1);
  for (const PlanOp *const *op = plan_ops; *op != NULL; op++)
    if (strcmp((*op)->name, name) == 0) {
      lua_pop(L, 1);
      return *op;
    }
  tensor_error(L, "plan: no operation is called '%s'", name);
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
  const PlanValue *x = &p->value[s->x], *y = &p->value[s->y];
  long reads = s->op->x_size(s), writes = s->op->y_size(s);
  if (s->times < 1 || reads * s->times != x->size || writes * s->times != y->size ||
      (s->other >= 0 && p->value[s->other].size != y->size))
    tensor_error(L, "plan: a step %s from %I elements to %I does not fit its sizes, %I and %I", s->op->name,
                 (lua_Integer)x->size, (lua_Integer)y->size, (lua_Integer)reads, (lua_Integer)writes);
  if (s->y == PLAN_INPUT || (s->op->fits != NULL && !s->op->fits(s)))
    tensor_error(L, "plan: a step %s reads or writes beyond its values", s->op->name);
}

static void read_step(lua_State *L, int table, const Plan *p, PlanStep *s) {
  *s = (PlanStep){.op = op_at(L, table), .other = -1, .times = number_at(L, table, "times")};
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
  read_fields(L, table, s);
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
  return s->op->packed_size == NULL ? 0 : (s->op->packed_size(s) + 15) / 16 * 16;
}

/* Packs a step's weights, from its table. */
static void pack_step(lua_State *L, int table, const PlanStep *s, real *packed) {
  const real *weight[PLAN_WEIGHTS_MOST] = {NULL};
  for (int i = 0; i < PLAN_WEIGHTS_MOST && s->op->weight[i].name != NULL; i++) {
    const PlanWeight *w = &s->op->weight[i];
    weight[i] = reals_at(L, table, w->name, w->size(s));
    if (weight[i] == NULL && !w->optional) tensor_error(L, "plan: a step %s has no %s", s->op->name, w->name);
  }
  if (s->op->pack != NULL) s->op->pack(s, weight, packed);
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
    pack_step(L, table, s, packed);
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
