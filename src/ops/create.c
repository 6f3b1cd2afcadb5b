/*
** create.c -- tensors from sizes, tables, bytes and random numbers, and back to Lua values.
** Random numbers are functions of (seed, stream, position); lua/feral/tensor/random.lua deals out the streams.
*/
#include <math.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/numbers.h"
#include "../base/parallel.h"
#include "../base/rng.h"
#include "../tensor/loop.h"

/* ---- kernels ---- */

static void fill(const Tensor *t, double value) {
  long n = tensor_numel(t); /* the callers pass dense tensors, so any order will do */
  for (long i = 0; i < n; i++) {
    if (t->dtype == DTYPE_REAL) tensor_reals(t)[i] = (real)value;
    if (t->dtype == DTYPE_U8) tensor_bytes(t)[i] = (uint8_t)value;
    if (t->dtype == DTYPE_I32) tensor_ints(t)[i] = (int32_t)value;
  }
}

static void uniform(real *out, long n, uint64_t seed, uint64_t stream, double low, double high) {
#pragma omp parallel for if (n > PARALLEL_MIN)
  for (long i = 0; i < n; i++) {
    real x = (real)(low + (high - low) * rng_uniform(seed, stream, (uint64_t)i));
    out[i] = x < (real)high ? x : (real)low; /* rounded up to the end that does not belong to it */
  }
}

static void normal(real *out, long n, uint64_t seed, uint64_t stream, double mean, double std) {
#pragma omp parallel for if (n > PARALLEL_MIN)
  for (long i = 0; i < n; i++) out[i] = (real)(mean + std * rng_normal(seed, stream, (uint64_t)i));
}

/* Fisher and Yates: out is a permutation of 1..n. */
static void permutation(int32_t *out, long n, uint64_t seed, uint64_t stream) {
  for (long i = 0; i < n; i++) out[i] = (int32_t)(i + 1);
  for (long i = n - 1; i > 0; i--) {
    long j = rng_below(seed, stream, (uint64_t)i, (uint64_t)i + 1);
    int32_t t = out[i];
    out[i] = out[j];
    out[j] = t;
  }
}

static double get(const Tensor *t, long offset) {
  if (t->dtype == DTYPE_REAL) return tensor_reals(t)[offset];
  return t->dtype == DTYPE_U8 ? tensor_bytes(t)[offset] : tensor_ints(t)[offset];
}

/* ---- bindings ---- */

static void check_value(lua_State *L, DType dtype, double value) {
  double low = dtype == DTYPE_U8 ? 0 : INT32_MIN, high = dtype == DTYPE_U8 ? 255 : INT32_MAX;
  if (dtype != DTYPE_REAL && !(value >= low && value <= high))
    tensor_error(L, "the number %f does not fit into dtype %s", (lua_Number)value, dtype_name(dtype));
}

/* empty({sizes}, dtype): the elements are whatever lay there. */
static int l_empty(lua_State *L) {
  long shape[TENSOR_MAX_DIMS];
  DType dtype = tensor_check_dtype_name(L, 2, DTYPE_REAL);
  lua_settop(L, 1);
  int ndim = tensor_check_shape(L, 1, shape);
  tensor_push(L, dtype, ndim, shape, LAYOUT_ROWS);
  return 1;
}

/* full({sizes}, value, dtype) */
static int l_full(lua_State *L) {
  long shape[TENSOR_MAX_DIMS];
  double value = luaL_checknumber(L, 2);
  DType dtype = tensor_check_dtype_name(L, 3, DTYPE_REAL);
  check_value(L, dtype, value);
  lua_settop(L, 1);
  int ndim = tensor_check_shape(L, 1, shape);
  fill(tensor_push(L, dtype, ndim, shape, LAYOUT_ROWS), value);
  return 1;
}

/* fill_(t, value) -> t */
static int l_fill_in_place(lua_State *L) {
  const Tensor *t = tensor_check_target(L, 1);
  double value = luaL_checknumber(L, 2);
  check_value(L, t->dtype, value);
  if (tensor_is_dense(t)) {
    fill(t, value);
  } else { /* a view with gaps: a single number of the same dtype, broadcast */
    long one[1];
    Tensor *number = tensor_push(L, t->dtype, 0, one, LAYOUT_ROWS);
    fill(number, value);
    tensor_copy(t, number);
  }
  lua_pushvalue(L, 1);
  return 1;
}

/* Seed and stream at arg and arg + 1. */
static uint64_t check_counter(lua_State *L, int arg) {
  return (uint64_t)luaL_checkinteger(L, arg);
}

static Tensor *check_rows(lua_State *L, int arg, DType dtype) {
  Tensor *t = tensor_check_dtype(L, arg, dtype);
  if (!tensor_is_layout(t, LAYOUT_ROWS)) tensor_error(L, "random numbers need a contiguous tensor");
  tensor_touch(L, arg);
  return t;
}

/* uniform_(t, seed, stream, low, high) -> t */
static int l_uniform_in_place(lua_State *L) {
  Tensor *t = check_rows(L, 1, DTYPE_REAL);
  uniform(t->data, tensor_numel(t), check_counter(L, 2), check_counter(L, 3), luaL_optnumber(L, 4, 0),
          luaL_optnumber(L, 5, 1));
  lua_pushvalue(L, 1);
  return 1;
}

/* normal_(t, seed, stream, mean, std) -> t */
static int l_normal_in_place(lua_State *L) {
  Tensor *t = check_rows(L, 1, DTYPE_REAL);
  normal(t->data, tensor_numel(t), check_counter(L, 2), check_counter(L, 3), luaL_optnumber(L, 4, 0),
         luaL_optnumber(L, 5, 1));
  lua_pushvalue(L, 1);
  return 1;
}

/* permutation(n, seed, stream) -> i32 n, the numbers 1..n in random order */
static int l_permutation(lua_State *L) {
  long n = tensor_check_size(L, 1, "permutation: n", 1);
  Tensor *t = tensor_push(L, DTYPE_I32, 1, &n, LAYOUT_ROWS);
  permutation(t->data, n, check_counter(L, 2), check_counter(L, 3));
  return 1;
}

/* The sizes of nested tables at the top of the stack, from their first elements. */
static int table_shape(lua_State *L, long shape[TENSOR_MAX_DIMS]) {
  int ndim = 0, top = lua_gettop(L);
  lua_pushvalue(L, -1);
  while (lua_istable(L, -1)) {
    long size = (long)luaL_len(L, -1);
    if (ndim == TENSOR_MAX_DIMS) tensor_error(L, "a tensor has at most %d dimensions", TENSOR_MAX_DIMS);
    if (size == 0) tensor_error(L, "a tensor cannot be made of an empty table");
    shape[ndim++] = size;
    lua_geti(L, -1, 1);
  }
  lua_settop(L, top);
  return ndim;
}

/* Copies the value at the top of the stack, a table of dimension d or a number, to t from 'offset' on. */
static void fill_from_table(lua_State *L, const Tensor *t, int d, long offset) {
  if (d == t->ndim || d == TENSOR_MAX_DIMS) {
    int is_number;
    double value = lua_tonumberx(L, -1, &is_number);
    if (!is_number || lua_type(L, -1) != LUA_TNUMBER)
      tensor_error(L, "a tensor is made of numbers, got %s", luaL_typename(L, -1));
    check_value(L, t->dtype, value);
    if (t->dtype == DTYPE_REAL) tensor_reals(t)[offset] = (real)value;
    if (t->dtype == DTYPE_U8) tensor_bytes(t)[offset] = (uint8_t)value;
    if (t->dtype == DTYPE_I32) tensor_ints(t)[offset] = (int32_t)value;
    return;
  }
  if (!lua_istable(L, -1) || (long)luaL_len(L, -1) != t->shape[d])
    tensor_error(L, "rows of different lengths: dimension %d has %d elements in one and %s in another", d + 1,
                 (int)t->shape[d],
                 lua_istable(L, -1) ? lua_pushfstring(L, "%I", luaL_len(L, -1)) : luaL_typename(L, -1));
  for (long i = 0; i < t->shape[d]; i++) {
    lua_geti(L, -1, i + 1);
    fill_from_table(L, t, d + 1, offset + i * t->stride[d]);
    lua_pop(L, 1);
  }
}

/* from_table(table or number, dtype) */
static int l_from_table(lua_State *L) {
  long shape[TENSOR_MAX_DIMS];
  DType dtype = tensor_check_dtype_name(L, 2, DTYPE_REAL);
  lua_settop(L, 1);
  int ndim = table_shape(L, shape);
  luaL_checkstack(L, 2 * TENSOR_MAX_DIMS, "tensor");
  Tensor *t = tensor_push(L, dtype, ndim, shape, LAYOUT_ROWS);
  lua_pushvalue(L, 1);
  fill_from_table(L, t, 0, 0);
  lua_settop(L, 2);
  return 1;
}

static void push_number(lua_State *L, const Tensor *t, long offset) {
  if (t->dtype == DTYPE_REAL)
    lua_pushnumber(L, get(t, offset));
  else
    lua_pushinteger(L, (lua_Integer)get(t, offset));
}

static void push_table(lua_State *L, const Tensor *t, int d, long offset) {
  if (d == t->ndim || d == TENSOR_MAX_DIMS) {
    push_number(L, t, offset);
    return;
  }
  lua_createtable(L, (int)t->shape[d], 0);
  for (long i = 0; i < t->shape[d]; i++) {
    push_table(L, t, d + 1, offset + i * t->stride[d]);
    lua_rawseti(L, -2, i + 1);
  }
}

/* totable(t) -> nested tables, a number for a tensor of no dimensions */
static int l_totable(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  luaL_checkstack(L, TENSOR_MAX_DIMS + 2, "totable");
  push_table(L, t, 0, 0);
  return 1;
}

/* item(t) -> the number in a tensor of one element */
static int l_item(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  if (tensor_numel(t) != 1) tensor_error(L, "item: the tensor must have one element, got %s", tensor_describe(L, t));
  push_number(L, t, 0);
  return 1;
}

/* Pushes a string of a real tensor's elements (row-major) as halves. */
static int push_halves(lua_State *L, const Tensor *t) {
  luaL_Buffer buffer;
  long count = tensor_numel(t);
  size_t size = (size_t)count * sizeof(uint16_t);
  char *to = luaL_buffinitsize(L, &buffer, size);
  for (long i = 0; i < count; i++) {
    uint16_t half = half_from((double)tensor_reals(t)[i]);
    memcpy(to + (size_t)i * sizeof half, &half, sizeof half);
  }
  luaL_pushresultsize(&buffer, size);
  return 1;
}

/* tobytes(t, format) -> the elements of a tensor as a string, row-major, in this machine's byte order; format "f2": those of
   a real tensor as halves */
static int l_tobytes(lua_State *L) {
  static const char *const formats[] = {"own", "f2", NULL};
  bool halves = luaL_checkoption(L, 2, "own", formats) == 1;
  if (halves)
    tensor_check_dtype(L, 1, DTYPE_REAL);
  else
    tensor_check(L, 1);
  lua_settop(L, 1);
  const Tensor *t = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  if (halves) return push_halves(L, t);
  lua_pushlstring(L, t->data, (size_t)tensor_numel(t) * dtype_size(t->dtype));
  return 1;
}

/* from_bytes(string, {sizes}, dtype) */
static int l_from_bytes(lua_State *L) {
  size_t length;
  long shape[TENSOR_MAX_DIMS];
  const char *bytes = luaL_checklstring(L, 1, &length);
  DType dtype = tensor_check_dtype_name(L, 3, DTYPE_REAL);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  int ndim = tensor_check_shape(L, 2, shape);
  Tensor like = {.dtype = dtype, .ndim = ndim};
  size_t wanted = dtype_size(dtype);
  memcpy(like.shape, shape, (size_t)ndim * sizeof *shape);
  for (int d = 0; d < ndim; d++)
    if (!size_multiply(wanted, (size_t)shape[d], &wanted)) wanted = SIZE_MAX;
  if (length != wanted)
    tensor_error(L, "from_bytes: shape %s of %s takes %I bytes, got %I", tensor_describe(L, &like), dtype_name(dtype),
                 (lua_Integer)wanted, (lua_Integer)length);
  memcpy(tensor_push(L, dtype, ndim, shape, LAYOUT_ROWS)->data, bytes, wanted);
  return 1;
}

static const luaL_Reg functions[] = {
    {"empty", l_empty},
    {"full", l_full},
    {"fill_", l_fill_in_place},
    {"uniform_", l_uniform_in_place},
    {"normal_", l_normal_in_place},
    {"permutation", l_permutation},
    {"from_table", l_from_table},
    {"totable", l_totable},
    {"item", l_item},
    {"tobytes", l_tobytes},
    {"from_bytes", l_from_bytes},
    {NULL, NULL},
};

int luaopen_feral_core_create(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
