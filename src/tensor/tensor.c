/* tensor.c -- what a tensor is: checks, messages, pushes, copies between layouts. See tensor.h. */
#include "tensor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/interrupt.h"
#include "loop.h"
#include "storage.h"

static const char *const tensor_type = "feral.tensor";
static const char locate_key = 'l';
enum { STORAGE_SLOT = 1, NODE_SLOT = 2 };

/* ---- looking ---- */

static const struct {
  const char *name;
  size_t size;
} dtypes[] = {[DTYPE_REAL] = {REAL_NAME, sizeof(real)}, [DTYPE_U8] = {"u8", 1}, [DTYPE_I32] = {"i32", 4}};

const char *dtype_name(DType dtype) {
  return dtypes[dtype].name;
}
size_t dtype_size(DType dtype) {
  return dtypes[dtype].size;
}

long tensor_numel(const Tensor *t) {
  long n = 1;
  for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
  return n;
}

bool tensor_same_shape(const Tensor *a, const Tensor *b) {
  return a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]) == 0;
}

/* The dimensions from outermost to innermost in memory: 0 1 2 3, or 0 2 3 1 for images. */
static int dim_at(int ndim, TensorLayout layout, int position) {
  if (layout == LAYOUT_ROWS || ndim < 4 || ndim > 5 || position == 0) return position;
  return position == ndim - 1 ? 1 : position + 1;
}

static void layout_strides(int ndim, const long *shape, TensorLayout layout, long *stride) {
  long step = 1;
  for (int position = ndim - 1; position >= 0; position--) {
    int d = dim_at(ndim, layout, position);
    stride[d] = step;
    step *= shape[d];
  }
}

bool tensor_is_layout(const Tensor *t, TensorLayout layout) {
  long stride[TENSOR_MAX_DIMS];
  layout_strides(t->ndim, t->shape, layout, stride);
  for (int d = 0; d < t->ndim; d++)
    if (t->shape[d] > 1 && t->stride[d] != stride[d]) return false; /* the stride of one element means nothing */
  return true;
}

bool tensor_is_dense(const Tensor *t) {
  long span = 1; /* strides are never negative */
  for (int d = 0; d < t->ndim; d++) {
    if (t->shape[d] > 1 && t->stride[d] == 0) return false;
    span += (t->shape[d] - 1) * t->stride[d];
  }
  return span == tensor_numel(t);
}

bool tensor_is(lua_State *L, int index) {
  return luaL_testudata(L, index, tensor_type) != NULL;
}

/* ---- messages ---- */

int tensor_error(lua_State *L, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *message = lua_pushvfstring(L, format, args);
  va_end(args);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &locate_key) == LUA_TFUNCTION) {
    lua_pushstring(L, message);
    lua_call(L, 1, 1); /* adds the script's line and the layer's path */
  } else {
    lua_pop(L, 1);
  }
  lua_error(L);
  __builtin_unreachable();
}

const char *tensor_describe(lua_State *L, const Tensor *t) {
  char text[TENSOR_MAX_DIMS * 21 + 8] = "a single number";
  int length = 0;
  for (int d = 0; d < t->ndim; d++)
    length += snprintf(text + length, sizeof text - (size_t)length, d == 0 ? "%ld" : "x%ld", t->shape[d]);
  return lua_pushstring(L, text);
}

void tensor_check_interrupt(lua_State *L) {
  if (!interrupted()) return;
  lua_sethook(L, NULL, 0, 0); /* the host's, which would raise again inside the closers that now run */
  luaL_error(L, "interrupted!");
}

/* ---- checks ---- */

Tensor *tensor_check(lua_State *L, int arg) {
  Tensor *t = luaL_checkudata(L, arg, tensor_type);
  if (t->data == NULL)
    tensor_error(L, "argument %d is a released tensor: its scope has ended (keep() would have kept it)", arg);
  return t;
}

/* The storage of the tensor at 'index', which lives as long as it does. */
static Storage *storage_of(lua_State *L, int index) {
  lua_getiuservalue(L, index, STORAGE_SLOT);
  Storage *storage = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return storage;
}

static long writes_anywhere; /* into any storage, of whatever state: while it stands still, so do they all */

void tensor_touch(lua_State *L, int index) {
  storage_of(L, index)->writes++;
  writes_anywhere++;
}

Tensor *tensor_check_target(lua_State *L, int arg) {
  Tensor *t = tensor_check(L, arg);
  for (int d = 0; d < t->ndim; d++)
    if (t->shape[d] > 1 && t->stride[d] == 0)
      tensor_error(L, "the elements of an expanded tensor share memory: clone it to change it");
  tensor_touch(L, arg);
  return t;
}

Tensor *tensor_check_dtype(lua_State *L, int arg, DType dtype) {
  Tensor *t = tensor_check(L, arg);
  if (t->dtype != dtype)
    tensor_error(L, "argument %d is a tensor of %s, %s expected", arg, dtype_name(t->dtype), dtype_name(dtype));
  return t;
}

Tensor *tensor_check_real(lua_State *L, int arg, const char *name, int ndim) {
  if (!tensor_is(L, arg)) tensor_error(L, "%s must be a tensor, got %s", name, luaL_typename(L, arg));
  Tensor *t = tensor_check(L, arg);
  if (t->dtype != DTYPE_REAL) tensor_error(L, "%s must be " REAL_NAME ", got %s", name, dtype_name(t->dtype));
  if (ndim > 0 && t->ndim != ndim)
    tensor_error(L, "%s must have %d dimension%s, got %s", name, ndim, ndim == 1 ? "" : "s", tensor_describe(L, t));
  return t;
}

Tensor *tensor_opt_real(lua_State *L, int arg, const char *name, int ndim) {
  return lua_isnoneornil(L, arg) ? NULL : tensor_check_real(L, arg, name, ndim);
}

int tensor_check_dim(lua_State *L, int arg, const Tensor *t) {
  int whole;
  lua_Integer dim = lua_tointegerx(L, arg, &whole);
  if (!whole)
    tensor_error(L, "a dimension must be a whole number, got %s",
                 lua_isnoneornil(L, arg) ? "nothing" : luaL_tolstring(L, arg, NULL));
  lua_Integer d = dim < 0 ? dim + t->ndim : dim - 1;
  if (d < 0 || d >= t->ndim)
    tensor_error(L, "dimension %I does not exist: the tensor is %s", dim, tensor_describe(L, t));
  return (int)d;
}

long tensor_check_size(lua_State *L, int arg, const char *name, long least) {
  int whole;
  lua_Integer size = lua_tointegerx(L, arg, &whole);
  if (!whole || lua_type(L, arg) != LUA_TNUMBER)
    tensor_error(L, "%s must be a whole number, got %s", name,
                 lua_isnoneornil(L, arg) ? "nothing" : luaL_tolstring(L, arg, NULL));
  if (size < least) tensor_error(L, "%s must be %I or more, got %I", name, (lua_Integer)least, size);
  if (size > INT32_MAX) tensor_error(L, "%s must be at most %d, got %I", name, INT32_MAX, size);
  return (long)size;
}

/* The table at 'arg', or one made of arguments arg, arg+1, ...; left on the stack. Returns its length. */
static int collect_sizes(lua_State *L, int arg) {
  if (lua_istable(L, arg)) {
    lua_pushvalue(L, arg);
    return (int)luaL_len(L, -1);
  }
  int count = lua_gettop(L) - arg + 1;
  lua_createtable(L, count > 0 ? count : 0, 0);
  for (int i = 1; i <= count; i++) {
    lua_pushvalue(L, arg + i - 1);
    lua_rawseti(L, -2, i);
  }
  return count;
}

int tensor_check_shape(lua_State *L, int arg, long shape[TENSOR_MAX_DIMS]) {
  int ndim = collect_sizes(L, arg);
  if (ndim < 0 || ndim > TENSOR_MAX_DIMS)
    tensor_error(L, "a tensor has at most %d dimensions, got %d sizes", TENSOR_MAX_DIMS, ndim);
  for (int d = 0; d < ndim; d++) {
    lua_geti(L, -1, d + 1);
    shape[d] = tensor_check_size(L, lua_gettop(L), "a size", 1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return ndim;
}

DType tensor_check_dtype_name(lua_State *L, int arg, DType otherwise) {
  const char *name = luaL_optstring(L, arg, dtype_name(otherwise));
  for (DType d = DTYPE_REAL; d <= DTYPE_I32; d++)
    if (strcmp(name, dtype_name(d)) == 0) return d;
  if (strcmp(name, "f32") == 0) return DTYPE_REAL; /* scripts say f32 in the double build too */
  return (DType)tensor_error(L, "dtype '%s' is unknown: f32, u8 or i32", name);
}

/* ---- pushes ---- */

static Tensor *push_header(lua_State *L, DType dtype, int ndim, const long *shape) {
  Tensor *t = lua_newuserdatauv(L, sizeof *t, 2);
  t->data = NULL;
  t->dtype = dtype;
  t->ndim = ndim;
  t->kept = false;
  memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
  luaL_setmetatable(L, tensor_type);
  return t;
}

static size_t checked_bytes(lua_State *L, DType dtype, int ndim, const long *shape) {
  size_t bytes = dtype_size(dtype);
  for (int d = 0; d < ndim; d++)
    if (!size_multiply(bytes, (size_t)shape[d], &bytes) || bytes > PTRDIFF_MAX / 2)
      tensor_error(L, "a tensor of that size does not fit in memory");
  return bytes;
}

Tensor *tensor_push(lua_State *L, DType dtype, int ndim, const long *shape, TensorLayout layout) {
  long sizes[TENSOR_MAX_DIMS];
  memcpy(sizes, shape, (size_t)ndim * sizeof *shape);
  storage_push(L, checked_bytes(L, dtype, ndim, sizes));
  Tensor *t = tensor_push_over(L, -1, dtype, ndim, sizes, layout);
  lua_remove(L, -2);
  return t;
}

Tensor *tensor_push_over(lua_State *L, int index, DType dtype, int ndim, const long *shape, TensorLayout layout) {
  lua_pushvalue(L, index);
  Storage *storage = lua_touserdata(L, -1);
  Tensor *t = push_header(L, dtype, ndim, shape);
  layout_strides(ndim, shape, layout, t->stride);
  t->data = storage->data;
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, STORAGE_SLOT);
  scope_record(L, storage);
  return t;
}

Tensor *tensor_push_like(lua_State *L, const Tensor *t, DType dtype) {
  bool image = !tensor_is_layout(t, LAYOUT_ROWS) && tensor_is_layout(t, LAYOUT_IMAGE);
  return tensor_push(L, dtype, t->ndim, t->shape, image ? LAYOUT_IMAGE : LAYOUT_ROWS);
}

Tensor *tensor_push_zeros(lua_State *L, DType dtype, int ndim, const long *shape, TensorLayout layout) {
  Tensor *t = tensor_push(L, dtype, ndim, shape, layout);
  memset(t->data, 0, (size_t)tensor_numel(t) * dtype_size(dtype));
  return t;
}

Tensor *tensor_push_view(lua_State *L, int index, int ndim, const long *shape, const long *stride, long offset) {
  index = lua_absindex(L, index);
  const Tensor *base = lua_touserdata(L, index);
  checked_bytes(L, base->dtype, ndim,
                shape); /* an expanded view passes its storage, but no product of its sizes a long */
  Tensor *t = push_header(L, base->dtype, ndim, shape);
  memcpy(t->stride, stride, (size_t)ndim * sizeof *stride);
  t->data = (char *)base->data + offset * (long)dtype_size(base->dtype);
  lua_getiuservalue(L, index, STORAGE_SLOT);
  lua_setiuservalue(L, -2, STORAGE_SLOT);
  scope_record(L, NULL);
  return t;
}

Tensor *tensor_push_in_layout(lua_State *L, int index, TensorLayout layout) {
  Tensor *t = lua_touserdata(L, index);
  if (tensor_is_layout(t, layout)) {
    lua_pushvalue(L, index);
    return t;
  }
  Tensor *copy = tensor_push(L, t->dtype, t->ndim, t->shape, layout);
  tensor_copy(copy, t);
  return copy;
}

/* ---- copies ---- */

#define COPY_ROW(type)                                                                                                 \
  for (long i = 0; i < n; i++) *(type *)(at[0] + i * step[0]) = *(const type *)(at[1] + i * step[1])

static void copy_row(long n, char *const *at, const long *step, const void *context) {
  size_t item = *(const size_t *)context;
  if (step[0] == (long)item && step[1] == (long)item)
    memcpy(at[0], at[1], (size_t)n * item);
  else if (item == 1)
    COPY_ROW(uint8_t);
  else if (item == 4)
    COPY_ROW(uint32_t);
  else
    COPY_ROW(uint64_t);
}

void tensor_copy(const Tensor *dst, const Tensor *src) {
  size_t item = dtype_size(dst->dtype);
  loop_run(2, (const Tensor *const[]){dst, src}, copy_row, &item);
}

/* ---- Lua ---- */

void tensor_push_metatable(lua_State *L) {
  luaL_getmetatable(L, tensor_type);
}

/* t.name: a method, else a computed field (shape, grad ...); t[i] goes through the method "select_first". */
static int l_index(lua_State *L) {
  if (lua_type(L, 2) != LUA_TSTRING) {
    lua_getfield(L, lua_upvalueindex(1), "select_first");
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
  }
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  lua_pop(L, 1);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) return 1;
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int l_shape(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  lua_createtable(L, t->ndim, 0);
  for (int d = 0; d < t->ndim; d++) {
    lua_pushinteger(L, t->shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  return 1;
}

static int l_strides(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  lua_createtable(L, t->ndim, 0);
  for (int d = 0; d < t->ndim; d++) {
    lua_pushinteger(L, t->stride[d]);
    lua_rawseti(L, -2, d + 1);
  }
  return 1;
}

static int l_dtype(lua_State *L) {
  lua_pushstring(L, dtype_name(tensor_check(L, 1)->dtype));
  return 1;
}

/* size(t, d) -> the size of dimension d. */
static int l_size(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  lua_pushinteger(L, t->shape[tensor_check_dim(L, 2, t)]);
  return 1;
}

static int l_dim(lua_State *L) {
  lua_pushinteger(L, tensor_check(L, 1)->ndim);
  return 1;
}

static int l_numel(lua_State *L) {
  lua_pushinteger(L, tensor_numel(tensor_check(L, 1)));
  return 1;
}

/* #t: the size of the first dimension. */
static int l_len(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  lua_pushinteger(L, t->ndim > 0 ? t->shape[0] : 1);
  return 1;
}

static int l_is_tensor(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, tensor_is(L, 1));
  return 1;
}

static int l_is_released(lua_State *L) {
  const Tensor *t = luaL_checkudata(L, 1, tensor_type);
  lua_pushboolean(L, t->data == NULL);
  return 1;
}

static int l_is_contiguous(lua_State *L) {
  lua_pushboolean(L, tensor_is_layout(tensor_check(L, 1), LAYOUT_ROWS));
  return 1;
}

/* writes(list of tensors) -> how often elements in their memory were changed in place, all together; writes() -> those of
   any tensor, which is quicker to ask */
static int l_writes(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    lua_pushinteger(L, writes_anywhere);
    return 1;
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  long sum = 0;
  for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, 1); i <= n; i++) {
    lua_rawgeti(L, 1, i);
    tensor_check(L, 2);
    sum += storage_of(L, 2)->writes;
    lua_pop(L, 1);
  }
  lua_pushinteger(L, sum);
  return 1;
}

/* digest(list of lists of numbers) -> a number that changes when theirs do (Fowler, Noll and Vo's hash) */
static int l_digest(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  uint64_t sum = 1469598103934665603u;
  for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, 1); i <= n; i++) {
    if (lua_rawgeti(L, 1, i) != LUA_TTABLE) luaL_error(L, "a list of lists expected");
    lua_Integer length = (lua_Integer)lua_rawlen(L, 2);
    sum = (sum ^ (uint64_t)length) * 1099511628211u;
    for (lua_Integer j = 1; j <= length; j++) {
      lua_rawgeti(L, 2, j);
      double number = lua_tonumber(L, 3);
      uint64_t bits;
      memcpy(&bits, &number, sizeof bits);
      sum = (sum ^ bits) * 1099511628211u;
      sum ^= sum >> 32; /* small whole numbers differ in the high bits alone */
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pushinteger(L, (lua_Integer)sum);
  return 1;
}

/* node(x) -> what autograd has attached to a tensor; nil for other values. */
static int l_node(lua_State *L) {
  if (!tensor_is(L, 1)) return 0;
  lua_getiuservalue(L, 1, NODE_SLOT);
  return 1;
}

static int l_set_node(lua_State *L) {
  luaL_checkudata(L, 1, tensor_type);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, NODE_SLOT);
  return 0;
}

/* set_locate(f): f(message) -> message with the script's line and the layer's path. */
static int l_set_locate(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &locate_key);
  return 0;
}

static const luaL_Reg methods[] = {
    {"size", l_size},
    {"dim", l_dim},
    {"numel", l_numel},
    {"strides", l_strides},
    {"is_contiguous", l_is_contiguous},
    {"is_released", l_is_released},
    {NULL, NULL},
};

static const luaL_Reg getters[] = {{"shape", l_shape}, {"dtype", l_dtype}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"is_tensor", l_is_tensor},
    {"node", l_node},
    {"set_node", l_set_node},
    {"writes", l_writes},
    {"digest", l_digest},
    {"set_locate", l_set_locate},
    {NULL, NULL},
};

int luaopen_feral_core_tensor(lua_State *L) {
  luaL_newlib(L, functions);
  luaL_newmetatable(L, tensor_type);
  luaL_newlib(L, methods);
  luaL_newlib(L, getters);
  lua_pushvalue(L, -2);
  lua_setfield(L, -5, "methods");
  lua_pushvalue(L, -1);
  lua_setfield(L, -5, "getters");
  lua_pushcclosure(L, l_index, 2);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, l_len);
  lua_setfield(L, -2, "__len");
  lua_setfield(L, -2, "metatable");
  lua_pushliteral(L, REAL_NAME);
  lua_setfield(L, -2, "real");
  return 1;
}
