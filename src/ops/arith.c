/*
** arith.c -- elementwise arithmetic: binary operations with broadcasting, unary ones, conversions.
** Operands are tensors or numbers. u8 counts as real; i32 with i32, or with an integer of Lua's, stays i32, as Lua's own integers
** do, but for / and ^; i32 with anything else is real. Comparisons are u8. Whole numbers never pass through a float: where an i32
** takes part, the operation is done in double, which holds it.
*/
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../tensor/lanes.h"
#include "../tensor/loop.h"

/* ---- kernels ---- */

/* One row of out = a op b; the three usual kinds of row are loops that the compiler turns into vectors. */
#define BINARY_ROW(name, out_type, expression)                                                                         \
  static double name##_of(double a, double b) {                                                                        \
    return (expression);                                                                                               \
  }                                                                                                                    \
  static void name##_row(long n, char *const *at, const long *step, const void *context) {                             \
    (void)context;                                                                                                     \
    const long item = sizeof(real);                                                                                    \
    if (step[0] == (long)sizeof(out_type) && step[1] == item && step[2] == item) {                                     \
      out_type *out = (out_type *)at[0];                                                                               \
      const real *left = (const real *)at[1], *right = (const real *)at[2];                                            \
      for (long i = 0; i < n; i++) {                                                                                   \
        real a = left[i], b = right[i];                                                                                \
        out[i] = (out_type)(expression);                                                                               \
      }                                                                                                                \
    } else if (step[0] == (long)sizeof(out_type) && step[1] == item && step[2] == 0) {                                 \
      out_type *out = (out_type *)at[0];                                                                               \
      const real *left = (const real *)at[1];                                                                          \
      real b = *(const real *)at[2];                                                                                   \
      for (long i = 0; i < n; i++) {                                                                                   \
        real a = left[i];                                                                                              \
        out[i] = (out_type)(expression);                                                                               \
      }                                                                                                                \
    } else {                                                                                                           \
      for (long i = 0; i < n; i++) {                                                                                   \
        real a = *(const real *)(at[1] + i * step[1]), b = *(const real *)(at[2] + i * step[2]);                       \
        *(out_type *)(at[0] + i * step[0]) = (out_type)(expression);                                                   \
      }                                                                                                                \
    }                                                                                                                  \
  }

BINARY_ROW(add, real, a + b)
BINARY_ROW(sub, real, a - b)
BINARY_ROW(mul, real, a *b)
BINARY_ROW(div, real, a / b)
BINARY_ROW(pow, real, pow(a, b))
BINARY_ROW(maximum, real, a != a || a > b ? a : b)
BINARY_ROW(minimum, real, a != a || a < b ? a : b)
BINARY_ROW(eq, uint8_t, a == b)
BINARY_ROW(ne, uint8_t, a != b)
BINARY_ROW(lt, uint8_t, a < b)
BINARY_ROW(le, uint8_t, a <= b)
BINARY_ROW(gt, uint8_t, a > b)
BINARY_ROW(ge, uint8_t, a >= b)

/* The same for a row of out = f(x), and of those functions that leave whole numbers whole. */
#define WHOLE_UNARY_ROW(name, expression)                                                                              \
  static double name##_of(double x, double none) {                                                                     \
    (void)none;                                                                                                        \
    return (expression);                                                                                               \
  }                                                                                                                    \
  UNARY_ROW(name, expression)

#define UNARY_ROW(name, expression)                                                                                    \
  static void name##_row(long n, char *const *at, const long *step, const void *context) {                             \
    (void)context;                                                                                                     \
    if (step[0] == (long)sizeof(real) && step[1] == (long)sizeof(real)) {                                              \
      real *out = (real *)at[0];                                                                                       \
      const real *in = (const real *)at[1];                                                                            \
      for (long i = 0; i < n; i++) {                                                                                   \
        real x = in[i];                                                                                                \
        out[i] = (real)(expression);                                                                                   \
      }                                                                                                                \
    } else {                                                                                                           \
      for (long i = 0; i < n; i++) {                                                                                   \
        real x = *(const real *)(at[1] + i * step[1]);                                                                 \
        *(real *)(at[0] + i * step[0]) = (real)(expression);                                                           \
      }                                                                                                                \
    }                                                                                                                  \
  }

WHOLE_UNARY_ROW(neg, -x)
WHOLE_UNARY_ROW(abs, fabs(x))
WHOLE_UNARY_ROW(sign, (x > 0) - (x < 0))
UNARY_ROW(sqrt, sqrt(x))
UNARY_ROW(log, log(x))
UNARY_ROW(sin, sin(x))
UNARY_ROW(cos, cos(x))
WHOLE_UNARY_ROW(floor, floor(x))
WHOLE_UNARY_ROW(ceil, ceil(x))
WHOLE_UNARY_ROW(round, nearbyint(x))
UNARY_ROW(isnan, x != x)

/* The functions that simd.h has for whole vectors. */
#define VECTOR_ROW(name, function)                                                                                     \
  static void name##_row(long n, char *const *at, const long *step, const void *context) {                             \
    (void)context;                                                                                                     \
    for (long i = 0; i < n; i += VLANES)                                                                               \
      lanes_put(at[0] + i * step[0], step[0], n - i, function(lanes_get(at[1] + i * step[1], step[1], n - i)));        \
  }

VECTOR_ROW(exp, vexp)
VECTOR_ROW(tanh, vtanh)
VECTOR_ROW(sigmoid, vsigmoid)

#define CONVERT_ROW(from, to, expression)                                                                              \
  static void from##_to_##to##_row(long n, char *const *at, const long *step, const void *context) {                   \
    (void)context;                                                                                                     \
    for (long i = 0; i < n; i++) {                                                                                     \
      from x = *(const from *)(at[1] + i * step[1]);                                                                   \
      *(to *)(at[0] + i * step[0]) = (to)(expression);                                                                 \
    }                                                                                                                  \
  }

/* Towards integers: to the nearest, clamped to what the type holds; a NaN becomes 0. */
static double clamp_to(double x, double low, double high) {
  return x != x ? 0 : nearbyint(x < low ? low : x > high ? high : x);
}

CONVERT_ROW(uint8_t, real, x)
CONVERT_ROW(uint8_t, int32_t, x)
CONVERT_ROW(int32_t, real, x)
CONVERT_ROW(int32_t, uint8_t, x<0 ? 0 : x> 255 ? 255 : x)
CONVERT_ROW(real, uint8_t, clamp_to(x, 0, 255))
CONVERT_ROW(real, int32_t, clamp_to(x, INT32_MIN, INT32_MAX))

static const LoopRow converters[3][3] = {
    [DTYPE_REAL] = {[DTYPE_U8] = real_to_uint8_t_row, [DTYPE_I32] = real_to_int32_t_row},
    [DTYPE_U8] = {[DTYPE_REAL] = uint8_t_to_real_row, [DTYPE_I32] = uint8_t_to_int32_t_row},
    [DTYPE_I32] = {[DTYPE_REAL] = int32_t_to_real_row, [DTYPE_U8] = int32_t_to_uint8_t_row},
};

/* What is done to numbers of which one at least is an i32. */
typedef struct WholeRow {
  double (*f)(double a, double b);
  DType result, a, b;
  const double *number_a, *number_b; /* operands that are numbers, else NULL */
  bool *passed;                      /* set where a result is none that i32 holds */
} WholeRow;

static double number_at(const char *at, DType dtype) {
  if (dtype == DTYPE_I32) return *(const int32_t *)at;
  return dtype == DTYPE_U8 ? *(const uint8_t *)at : *(const real *)at;
}

static void put_number(char *at, const WholeRow *r, double v) {
  if (r->result == DTYPE_REAL) {
    *(real *)at = (real)v;
  } else if (r->result == DTYPE_U8) {
    *(uint8_t *)at = (uint8_t)v;
  } else if (v >= INT32_MIN && v <= INT32_MAX) {
    *(int32_t *)at = (int32_t)v;
  } else {
#pragma omp atomic write
    *r->passed = true;
  }
}

static void whole_row(long n, char *const *at, const long *step, const void *context) {
  const WholeRow *r = context;
  for (long i = 0; i < n; i++) {
    double a = r->number_a != NULL ? *r->number_a : number_at(at[1] + i * step[1], r->a);
    double b = r->number_b != NULL ? *r->number_b : number_at(at[2] + i * step[2], r->b);
    put_number(at[0] + i * step[0], r, r->f(a, b));
  }
}

typedef struct Limits {
  double low, high;
} Limits;

static void clamp_row(long n, char *const *at, const long *step, const void *context) {
  const real low = (real)((const Limits *)context)->low, high = (real)((const Limits *)context)->high;
  for (long i = 0; i < n; i++) {
    real x = *(const real *)(at[1] + i * step[1]), above = x < low ? low : x;
    *(real *)(at[0] + i * step[0]) = above > high ? high : above;
  }
}

static void clamp_whole_row(long n, char *const *at, const long *step, const void *context) {
  const Limits *limits = context;
  for (long i = 0; i < n; i++) {
    double x = *(const int32_t *)(at[1] + i * step[1]), above = x < limits->low ? limits->low : x;
    *(int32_t *)(at[0] + i * step[0]) = (int32_t)(above > limits->high ? limits->high : above);
  }
}

/* ---- bindings ---- */

typedef double (*WholeFunction)(double a, double b);

typedef struct BinaryOp {
  const char *name;
  LoopRow row;
  WholeFunction f;
  DType result, whole; /* of reals, of whole numbers */
} BinaryOp;

static const BinaryOp binary_ops[] = {
    {"add", add_row, add_of, DTYPE_REAL, DTYPE_I32},
    {"sub", sub_row, sub_of, DTYPE_REAL, DTYPE_I32},
    {"mul", mul_row, mul_of, DTYPE_REAL, DTYPE_I32},
    {"div", div_row, div_of, DTYPE_REAL, DTYPE_REAL},
    {"pow", pow_row, pow_of, DTYPE_REAL, DTYPE_REAL},
    {"maximum", maximum_row, maximum_of, DTYPE_REAL, DTYPE_I32},
    {"minimum", minimum_row, minimum_of, DTYPE_REAL, DTYPE_I32},
    {"eq", eq_row, eq_of, DTYPE_U8, DTYPE_U8},
    {"ne", ne_row, ne_of, DTYPE_U8, DTYPE_U8},
    {"lt", lt_row, lt_of, DTYPE_U8, DTYPE_U8},
    {"le", le_row, le_of, DTYPE_U8, DTYPE_U8},
    {"gt", gt_row, gt_of, DTYPE_U8, DTYPE_U8},
    {"ge", ge_row, ge_of, DTYPE_U8, DTYPE_U8},
    {NULL, NULL, NULL, DTYPE_REAL, DTYPE_REAL},
};

typedef struct UnaryOp {
  const char *name;
  LoopRow row;
  WholeFunction f; /* of i32, giving i32; NULL where it counts as real */
} UnaryOp;

static const UnaryOp unary_ops[] = {
    {"neg", neg_row, neg_of},       {"abs", abs_row, abs_of},    {"sign", sign_row, sign_of},
    {"floor", floor_row, floor_of}, {"ceil", ceil_row, ceil_of}, {"round", round_row, round_of},
    {"sqrt", sqrt_row, NULL},       {"exp", exp_row, NULL},      {"log", log_row, NULL},
    {"sin", sin_row, NULL},         {"cos", cos_row, NULL},      {"tanh", tanh_row, NULL},
    {"sigmoid", sigmoid_row, NULL}, {"isnan", isnan_row, NULL},  {NULL, NULL, NULL},
};

/* An operand: the tensor at 'arg' (a real copy of an integer one is pushed), or a number as a tensor of no dimensions.
 */
static const Tensor *check_operand(lua_State *L, int arg, const char *op, Tensor *number, real *value) {
  if (lua_type(L, arg) == LUA_TNUMBER) {
    *value = (real)lua_tonumber(L, arg);
    *number = (Tensor){.data = value, .dtype = DTYPE_REAL};
    return number;
  }
  if (!tensor_is(L, arg))
    tensor_error(L, "%s: operand %d must be a tensor or a number, got %s", op, arg, luaL_typename(L, arg));
  const Tensor *t = tensor_check(L, arg);
  if (t->dtype == DTYPE_REAL) return t;
  Tensor *converted = tensor_push_like(L, t, DTYPE_REAL);
  loop_run(2, (const Tensor *const[]){converted, t}, converters[t->dtype][DTYPE_REAL], NULL);
  return converted;
}

/* The result lies as the operand that has the result's shape. */
static Tensor *push_result(lua_State *L, DType dtype, const Tensor *a, const Tensor *b, int ndim, const long *shape) {
  for (int i = 0; i < 2; i++) {
    const Tensor *t = i == 0 ? a : b;
    if (t->ndim == ndim && loop_fits(t, ndim, shape) && tensor_numel(t) > 1 && tensor_is_dense(t)) {
      Tensor full = {.ndim = ndim};
      for (int d = 0; d < ndim; d++) full.shape[d] = shape[d];
      if (tensor_same_shape(t, &full)) return tensor_push_like(L, t, dtype);
    }
  }
  return tensor_push(L, dtype, ndim, shape, LAYOUT_ROWS);
}

static bool is_i32(lua_State *L, int arg) {
  return tensor_is(L, arg) && tensor_check(L, arg)->dtype == DTYPE_I32;
}

/* A tensor of i32 or an integer of Lua's. */
static bool is_whole(lua_State *L, int arg) {
  return lua_isinteger(L, arg) || is_i32(L, arg);
}

/* Runs f over operands of which one at least is an i32, and raises where an i32 does not hold a result. */
static void run_whole(lua_State *L, const char *op, const WholeRow *how, const Tensor *out, const Tensor *a,
                      const Tensor *b) {
  bool passed = false;
  WholeRow row = *how;
  row.result = out->dtype;
  row.a = a->dtype;
  row.b = b->dtype;
  row.passed = &passed;
  loop_run(3, (const Tensor *const[]){out, a, b}, whole_row, &row);
  if (passed)
    tensor_error(L, "%s: a result passes what i32 holds; to(\"f32\") before, for results that are rounded", op);
}

/* The tensor at 'arg', or a number as a tensor of no dimensions, with its value in *value and *number set to that. */
static const Tensor *whole_operand(lua_State *L, int arg, const char *op, Tensor *like, double *value,
                                   const double **number) {
  if (tensor_is(L, arg)) return tensor_check(L, arg);
  if (lua_type(L, arg) != LUA_TNUMBER)
    tensor_error(L, "%s: operand %d must be a tensor or a number, got %s", op, arg, luaL_typename(L, arg));
  *value = lua_tonumber(L, arg);
  *number = value;
  *like = (Tensor){.data = value, .dtype = DTYPE_REAL};
  return like;
}

static int push_whole(lua_State *L, const BinaryOp *op) {
  Tensor numbers[2];
  double values[2];
  long shape[TENSOR_MAX_DIMS];
  WholeRow row = {.f = op->f};
  const Tensor *a = whole_operand(L, 1, op->name, &numbers[0], &values[0], &row.number_a);
  const Tensor *b = whole_operand(L, 2, op->name, &numbers[1], &values[1], &row.number_b);
  int ndim = loop_broadcast(a, b, shape);
  if (ndim < 0)
    tensor_error(L, "%s: shapes %s and %s do not broadcast", op->name, tensor_describe(L, a), tensor_describe(L, b));
  DType dtype = is_whole(L, 1) && is_whole(L, 2) ? op->whole : op->result;
  run_whole(L, op->name, &row, push_result(L, dtype, a, b, ndim, shape), a, b);
  return 1;
}

static int l_binary(lua_State *L) {
  const BinaryOp *op = lua_touserdata(L, lua_upvalueindex(1));
  if (is_i32(L, 1) || is_i32(L, 2)) return push_whole(L, op);
  Tensor numbers[2];
  real values[2];
  long shape[TENSOR_MAX_DIMS];
  const Tensor *a = check_operand(L, 1, op->name, &numbers[0], &values[0]);
  const Tensor *b = check_operand(L, 2, op->name, &numbers[1], &values[1]);
  int ndim = loop_broadcast(a, b, shape);
  if (ndim < 0)
    tensor_error(L, "%s: shapes %s and %s do not broadcast", op->name, tensor_describe(L, a), tensor_describe(L, b));
  Tensor *out = push_result(L, op->result, a, b, ndim, shape);
  loop_run(3, (const Tensor *const[]){out, a, b}, op->row, NULL);
  return 1;
}

/* The tensor 'source', read while 'target' is written: pushes a copy where an element would be written before it is
   read. The same element of both in the same place does no harm. */
static const Tensor *push_apart(lua_State *L, const Tensor *target, const Tensor *source) {
  if (!loop_overlaps(target, source)) return source;
  if (target->data == source->data && tensor_same_shape(target, source) &&
      memcmp(target->stride, source->stride, (size_t)target->ndim * sizeof target->stride[0]) == 0)
    return source;
  Tensor *copy = tensor_push_like(L, source, source->dtype);
  tensor_copy(copy, source);
  return copy;
}

/* op_(t, other) -> t, changed in place. */
static int l_binary_in_place(lua_State *L) {
  const BinaryOp *op = lua_touserdata(L, lua_upvalueindex(1));
  Tensor number;
  real value;
  Tensor *t = tensor_check_dtype(L, 1, DTYPE_REAL);
  tensor_check_target(L, 1);
  const Tensor *other = check_operand(L, 2, op->name, &number, &value);
  if (!loop_fits(other, t->ndim, t->shape))
    tensor_error(L, "%s_: shape %s does not broadcast to %s", op->name, tensor_describe(L, other),
                 tensor_describe(L, t));
  loop_run(3, (const Tensor *const[]){t, t, push_apart(L, t, other)}, op->row, NULL);
  lua_pushvalue(L, 1);
  return 1;
}

static int l_unary(lua_State *L) {
  const UnaryOp *op = lua_touserdata(L, lua_upvalueindex(1));
  Tensor number;
  real value;
  if (op->f != NULL && is_i32(L, 1)) {
    const double none = 0;
    const Tensor *whole = lua_touserdata(L, 1), like = {.data = NULL};
    run_whole(L, op->name, &(WholeRow){.f = op->f, .number_b = &none}, tensor_push_like(L, whole, DTYPE_I32), whole,
              &like);
    return 1;
  }
  const Tensor *x = check_operand(L, 1, op->name, &number, &value);
  Tensor *out = tensor_push_like(L, x, DTYPE_REAL);
  loop_run(2, (const Tensor *const[]){out, x}, op->row, NULL);
  return 1;
}

static bool is_whole_or_nil(lua_State *L, int arg) {
  return lua_isnoneornil(L, arg) || lua_isinteger(L, arg);
}

/* The limit at 'arg' for an i32: one that is further out than those is none. */
static double whole_limit(lua_State *L, int arg, double otherwise) {
  double limit = luaL_optnumber(L, arg, otherwise);
  return limit < INT32_MIN ? INT32_MIN : limit > INT32_MAX ? INT32_MAX : limit;
}

/* clamp(x, low, high) -> each element moved into [low, high], or to high where low passes that; nil for no limit. i32 stays so
   between whole limits. */
static int l_clamp(lua_State *L) {
  Tensor number;
  real value;
  if (is_i32(L, 1) && is_whole_or_nil(L, 2) && is_whole_or_nil(L, 3)) {
    const Tensor *whole = lua_touserdata(L, 1);
    Limits bounds = {whole_limit(L, 2, INT32_MIN), whole_limit(L, 3, INT32_MAX)};
    loop_run(2, (const Tensor *const[]){tensor_push_like(L, whole, DTYPE_I32), whole}, clamp_whole_row, &bounds);
    return 1;
  }
  const Tensor *x = check_operand(L, 1, "clamp", &number, &value);
  Limits limits = {luaL_optnumber(L, 2, -INFINITY), luaL_optnumber(L, 3, INFINITY)};
  Tensor *out = tensor_push_like(L, x, DTYPE_REAL);
  loop_run(2, (const Tensor *const[]){out, x}, clamp_row, &limits);
  return 1;
}

/* copy_(dst, src) -> dst: src broadcast into dst, converted to its dtype. */
static int l_copy_in_place(lua_State *L) {
  Tensor *dst = tensor_check_target(L, 1);
  const Tensor *src = tensor_check(L, 2);
  if (!loop_fits(src, dst->ndim, dst->shape))
    tensor_error(L, "copy_: shape %s does not broadcast to %s", tensor_describe(L, src), tensor_describe(L, dst));
  if (dst->dtype == src->dtype)
    tensor_copy(dst, push_apart(L, dst, src));
  else
    loop_run(2, (const Tensor *const[]){dst, src}, converters[src->dtype][dst->dtype], NULL);
  lua_pushvalue(L, 1);
  return 1;
}

/* to(t, dtype) -> t itself if it has that dtype, else a converted copy; to integers: nearest, clamped. */
static int l_to(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  DType dtype = tensor_check_dtype_name(L, 2, t->dtype);
  if (dtype == t->dtype) {
    lua_pushvalue(L, 1);
    return 1;
  }
  Tensor *out = tensor_push_like(L, t, dtype);
  loop_run(2, (const Tensor *const[]){out, t}, converters[t->dtype][dtype], NULL);
  return 1;
}

static const luaL_Reg functions[] = {{"clamp", l_clamp}, {"copy_", l_copy_in_place}, {"to", l_to}, {NULL, NULL}};

static void set_closure(lua_State *L, const void *op, lua_CFunction function, const char *name) {
  lua_pushlightuserdata(L, (void *)op);
  lua_pushcclosure(L, function, 1);
  lua_setfield(L, -2, name);
}

int luaopen_feral_core_arith(lua_State *L) {
  luaL_newlib(L, functions);
  for (const BinaryOp *op = binary_ops; op->name != NULL; op++) {
    char in_place[32];
    snprintf(in_place, sizeof in_place, "%s_", op->name);
    set_closure(L, op, l_binary, op->name);
    if (op->result == DTYPE_REAL) set_closure(L, op, l_binary_in_place, in_place);
  }
  for (const UnaryOp *op = unary_ops; op->name != NULL; op++) set_closure(L, op, l_unary, op->name);
  return 1;
}
