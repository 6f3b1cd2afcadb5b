/* view.c -- views of the same elements: select, narrow, reshape, permute ...; and copies where a view cannot be.
 */
#include <limits.h>
#include <string.h>

#include "../tensor/tensor.h"

/* ---- shapes ---- */

/* Strides that give t the new shape without a copy; false when its elements lie too irregularly. Both shapes have the
   same number of elements. Works from the last dimension back: a run of dimensions of t that lie evenly (each stride is
   the next one's times its size) may be cut anew in any way. */
static bool reshape_strides(const Tensor *t, int ndim, const long *shape, long *stride) {
  int to = ndim - 1;
  for (int from = t->ndim - 1; from >= 0;) {
    long step = t->stride[from], run = t->shape[from--];
    while (from >= 0 && (t->shape[from] == 1 || run == 1 || t->stride[from] == step * run)) {
      if (run == 1) step = t->stride[from];
      run *= t->shape[from--];
    }
    long filled = 1;
    for (; to >= 0 && filled * shape[to] <= run; to--) {
      stride[to] = step * filled;
      filled *= shape[to];
    }
    if (filled != run) return false;
  }
  for (; to >= 0; to--) stride[to] = 1; /* only sizes of 1 are left */
  return true;
}

/* Sizes from 'arg' on, where one may be -1: whatever makes the number of elements right. */
static int check_new_shape(lua_State *L, int arg, const Tensor *t, long shape[TENSOR_MAX_DIMS]) {
  int ndim = lua_istable(L, arg) ? (int)luaL_len(L, arg) : lua_gettop(L) - arg + 1, open = -1;
  long known = 1, numel = tensor_numel(t);
  if (ndim > TENSOR_MAX_DIMS) tensor_error(L, "reshape: at most %d dimensions, got %d", TENSOR_MAX_DIMS, ndim);
  for (int d = 0; d < ndim; d++) {
    if (lua_istable(L, arg))
      lua_geti(L, arg, d + 1);
    else
      lua_pushvalue(L, arg + d);
    shape[d] = lua_isinteger(L, -1) && lua_tointeger(L, -1) == -1 && open < 0
                   ? -1
                   : tensor_check_size(L, lua_gettop(L), "reshape: a size", 1);
    lua_pop(L, 1);
    if (shape[d] < 0)
      open = d;
    else if (__builtin_mul_overflow(known, shape[d], &known))
      known = LONG_MAX;
  }
  if (open >= 0 && numel % known == 0) shape[open] = numel / known;
  if (open >= 0 ? numel % known != 0 : known != numel)
    tensor_error(L, "reshape: %s has %I elements, the new sizes make %I", tensor_describe(L, t), (lua_Integer)numel,
                 (lua_Integer)known);
  return ndim;
}

/* ---- bindings ---- */

/* reshape(t, sizes...) -> a view where the memory allows it, else a copy. */
static int l_reshape(lua_State *L) {
  long shape[TENSOR_MAX_DIMS] = {0}, stride[TENSOR_MAX_DIMS];
  const Tensor *t = tensor_check(L, 1);
  int ndim = check_new_shape(L, 2, t, shape);
  if (reshape_strides(t, ndim, shape, stride)) {
    tensor_push_view(L, 1, ndim, shape, stride, 0);
    return 1;
  }
  const Tensor *rows = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  reshape_strides(rows, ndim, shape, stride);
  tensor_push_view(L, -1, ndim, shape, stride, 0);
  return 1;
}

static int push_without_dim(lua_State *L, const Tensor *t, int dim, long offset) {
  long shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
  int ndim = 0;
  for (int d = 0; d < t->ndim; d++) {
    if (d == dim) continue;
    shape[ndim] = t->shape[d];
    stride[ndim++] = t->stride[d];
  }
  tensor_push_view(L, 1, ndim, shape, stride, offset);
  return 1;
}

static long check_index(lua_State *L, int arg, const Tensor *t, int dim) {
  int whole;
  lua_Integer index = lua_tointegerx(L, arg, &whole);
  if (!whole)
    tensor_error(L, "an index must be a whole number, got %s",
                 lua_isnoneornil(L, arg) ? "nothing" : luaL_tolstring(L, arg, NULL));
  lua_Integer i = index < 0 ? index + t->shape[dim] : index - 1;
  if (i < 0 || i >= t->shape[dim])
    tensor_error(L, "index %I is outside of dimension %d of %s", index, dim + 1, tensor_describe(L, t));
  return (long)i;
}

/* select(t, dim, index) -> t without that dimension, at that index; negative counts from the end */
static int l_select(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  int dim = tensor_check_dim(L, 2, t);
  return push_without_dim(L, t, dim, check_index(L, 3, t, dim) * t->stride[dim]);
}

/* t[i]: along the first dimension; a number when there is no other */
static int l_select_first(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  if (t->ndim == 0) tensor_error(L, "a tensor without dimensions cannot be indexed; item() gives its number");
  if (lua_type(L, 2) != LUA_TNUMBER) tensor_error(L, "a tensor has no field '%s'", luaL_tolstring(L, 2, NULL));
  return push_without_dim(L, t, 0, check_index(L, 2, t, 0) * t->stride[0]);
}

/* narrow(t, dim, start, length) -> elements start .. start + length - 1 of that dimension */
static int l_narrow(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  int dim = tensor_check_dim(L, 2, t);
  long start = check_index(L, 3, t, dim), length = tensor_check_size(L, 4, "narrow: length", 1);
  if (start + length > t->shape[dim])
    tensor_error(L, "narrow: elements %I to %I pass the end of dimension %d of %s", (lua_Integer)start + 1,
                 (lua_Integer)(start + length), dim + 1, tensor_describe(L, t));
  long shape[TENSOR_MAX_DIMS];
  memcpy(shape, t->shape, sizeof shape);
  shape[dim] = length;
  tensor_push_view(L, 1, t->ndim, shape, t->stride, start * t->stride[dim]);
  return 1;
}

/* permute(t, dims...) -> dimension i of the result is dimension dims[i] of t */
static int l_permute(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  long shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
  bool used[TENSOR_MAX_DIMS] = {false};
  if (lua_istable(L, 2)) {
    int count = (int)luaL_len(L, 2);
    luaL_checkstack(L, count, "permute");
    for (int i = 1; i <= count; i++) lua_geti(L, 2, i);
    lua_remove(L, 2);
  }
  int named = lua_gettop(L) - 1;
  if (named != t->ndim)
    tensor_error(L, "permute: %d dimension%s named, the tensor is %s", named, named == 1 ? "" : "s",
                 tensor_describe(L, t));
  for (int d = 0; d < t->ndim; d++) {
    int from = tensor_check_dim(L, 2 + d, t);
    if (used[from]) tensor_error(L, "permute: dimension %d is named twice", from + 1);
    used[from] = true;
    shape[d] = t->shape[from];
    stride[d] = t->stride[from];
  }
  tensor_push_view(L, 1, t->ndim, shape, stride, 0);
  return 1;
}

/* transpose(t, a, b) -> dimensions a and b exchanged; the last two where none are named */
static int l_transpose(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  if (lua_isnoneornil(L, 2)) {
    lua_settop(L, 1);
    lua_pushinteger(L, -2);
    lua_pushinteger(L, -1);
  }
  int a = tensor_check_dim(L, 2, t), b = tensor_check_dim(L, 3, t);
  long shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
  for (int d = 0; d < t->ndim; d++) {
    int from = d == a ? b : d == b ? a : d;
    shape[d] = t->shape[from];
    stride[d] = t->stride[from];
  }
  tensor_push_view(L, 1, t->ndim, shape, stride, 0);
  return 1;
}

/* squeeze(t, dim) -> without that dimension of size 1; without all of size 1 when none is named */
static int l_squeeze(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  bool named = !lua_isnoneornil(L, 2);
  int only = named ? tensor_check_dim(L, 2, t) : -1, ndim = 0;
  if (named && t->shape[only] != 1)
    tensor_error(L, "squeeze: dimension %d of %s is not of size 1", only + 1, tensor_describe(L, t));
  long shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
  for (int d = 0; d < t->ndim; d++) {
    if (named ? d == only : t->shape[d] == 1) continue;
    shape[ndim] = t->shape[d];
    stride[ndim++] = t->stride[d];
  }
  tensor_push_view(L, 1, ndim, shape, stride, 0);
  return 1;
}

/* unsqueeze(t, dim) -> with a new dimension of size 1 at dim (1 .. dimensions + 1, or negative from the end) */
static int l_unsqueeze(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  lua_Integer dim = luaL_checkinteger(L, 2);
  lua_Integer at = dim < 0 ? dim + t->ndim + 1 : dim - 1;
  if (at < 0 || at > t->ndim || t->ndim == TENSOR_MAX_DIMS)
    tensor_error(L, "unsqueeze: no place %I in %s", dim, tensor_describe(L, t));
  long shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
  for (int d = 0; d <= t->ndim; d++) {
    int from = d < at ? d : d - 1;
    shape[d] = d == at ? 1 : t->shape[from];
    stride[d] = d == at ? 1 : t->stride[from];
  }
  tensor_push_view(L, 1, t->ndim + 1, shape, stride, 0);
  return 1;
}

/* expand(t, sizes...) -> broadcast to these sizes without a copy; read only, since elements share memory */
static int l_expand(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  long shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS];
  int ndim = tensor_check_shape(L, 2, shape), lead = ndim - t->ndim;
  for (int d = 0; d < ndim; d++) {
    long size = d < lead ? 1 : t->shape[d - lead];
    if (size != shape[d] && size != 1) lead = -1;
    if (lead < 0) break;
    stride[d] = size == shape[d] && d >= lead ? t->stride[d - lead] : 0;
  }
  if (lead < 0) tensor_error(L, "expand: %s does not broadcast to the sizes given", tensor_describe(L, t));
  tensor_push_view(L, 1, ndim, shape, stride, 0);
  return 1;
}

/* contiguous(t) -> t itself when it lies row-major, else a copy that does */
static int l_contiguous(lua_State *L) {
  tensor_check(L, 1);
  tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  return 1;
}

/* clone(t) -> a copy that lies in memory as t does */
static int l_clone(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  tensor_copy(tensor_push_like(L, t, t->dtype), t);
  return 1;
}

/* as_image(t) -> t itself when it lies channels last, else a copy that does: what image ops do with their inputs */
static int l_as_image(lua_State *L) {
  tensor_check(L, 1);
  tensor_push_in_layout(L, 1, LAYOUT_IMAGE);
  return 1;
}

static const luaL_Reg functions[] = {
    {"reshape", l_reshape},
    {"select", l_select},
    {"select_first", l_select_first},
    {"narrow", l_narrow},
    {"permute", l_permute},
    {"transpose", l_transpose},
    {"squeeze", l_squeeze},
    {"unsqueeze", l_unsqueeze},
    {"expand", l_expand},
    {"contiguous", l_contiguous},
    {"clone", l_clone},
    {"as_image", l_as_image},
    {NULL, NULL},
};

int luaopen_feral_core_view(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
