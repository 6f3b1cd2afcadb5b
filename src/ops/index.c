/* index.c -- putting together and picking out: cat, index_select, gather and their reverses, where, sort, cumsum. */
#include <stdlib.h>
#include <string.h>

#include "../tensor/loop.h"

/* ---- kernels: lines along one dimension of row-major tensors (outer, n, inner) ---- */

typedef struct LineGeometry {
  long outer, n, inner; /* of the tensor that is indexed */
  long picks;           /* positions a line */
} LineGeometry;

/* y[o,k,i] = x[o,p[o,k,i],i], p 1-based, for elements of any dtype, which are only moved. */
#define DEFINE_GATHER(name, type)                                                                                      \
  static void name(const LineGeometry *g, const type *x, const int32_t *p, type *y) {                                  \
    for (long o = 0; o < g->outer; o++)                                                                                \
      for (long k = 0; k < g->picks; k++)                                                                              \
        for (long i = 0; i < g->inner; i++) {                                                                          \
          long at = (o * g->picks + k) * g->inner + i;                                                                 \
          y[at] = x[(o * g->n + p[at] - 1) * g->inner + i];                                                            \
        }                                                                                                              \
  }
DEFINE_GATHER(gather_reals, real)
DEFINE_GATHER(gather_bytes, uint8_t)
DEFINE_GATHER(gather_ints, int32_t)

/* x[o,p[o,k,i],i] = y[o,k,i], or += where 'add' */
static void scatter_into(const LineGeometry *g, bool add, real *x, const int32_t *p, const real *y) {
  for (long o = 0; o < g->outer; o++)
    for (long k = 0; k < g->picks; k++)
      for (long i = 0; i < g->inner; i++) {
        long at = (o * g->picks + k) * g->inner + i;
        real *element = &x[(o * g->n + p[at] - 1) * g->inner + i];
        *element = add ? *element + y[at] : y[at];
      }
}

static void index_add(const LineGeometry *g, real *x, const int32_t *p, const real *y) {
  for (long o = 0; o < g->outer; o++)
    for (long k = 0; k < g->picks; k++) {
      real *line = x + (o * g->n + p[k] - 1) * g->inner;
      const real *from = y + (o * g->picks + k) * g->inner;
      for (long i = 0; i < g->inner; i++) line[i] += from[i];
    }
}

static void cumsum(const LineGeometry *g, const real *x, real *y) {
  for (long o = 0; o < g->outer; o++)
    for (long i = 0; i < g->inner; i++) {
      double total = 0;
      for (long k = 0; k < g->n; k++) {
        long at = (o * g->n + k) * g->inner + i;
        total += x[at];
        y[at] = (real)total;
      }
    }
}

/* False where a sum is more than i32 holds. */
static bool cumsum_whole(const LineGeometry *g, const int32_t *x, int32_t *y) {
  bool fits = true;
  for (long o = 0; o < g->outer; o++)
    for (long i = 0; i < g->inner; i++) {
      int64_t total = 0;
      for (long k = 0; k < g->n; k++) {
        long at = (o * g->n + k) * g->inner + i;
        total += x[at];
        fits = fits && total >= INT32_MIN && total <= INT32_MAX;
        y[at] = (int32_t)total;
      }
    }
  return fits;
}

typedef struct Item {
  double value; /* holds elements of any dtype */
  int32_t position;
} Item;

/* Rising, a NaN as the largest; equal values in the order of their positions, so sorting is stable. */
static int compare_values(const Item *a, const Item *b) {
  bool nan_a = a->value != a->value, nan_b = b->value != b->value;
  if (nan_a != nan_b) return nan_a ? 1 : -1;
  if (!nan_a && a->value != b->value) return a->value < b->value ? -1 : 1;
  return 0;
}

static int compare(const void *left, const void *right) {
  const Item *a = left, *b = right;
  int order = compare_values(a, b);
  return order != 0 ? order : a->position < b->position ? -1 : 1;
}

static int compare_falling(const void *left, const void *right) {
  const Item *a = left, *b = right;
  int order = compare_values(b, a);
  return order != 0 ? order : a->position < b->position ? -1 : 1;
}

static double number_of(const Tensor *t, long i) {
  if (t->dtype == DTYPE_I32) return tensor_ints(t)[i];
  return t->dtype == DTYPE_U8 ? tensor_bytes(t)[i] : tensor_reals(t)[i];
}

static void set_number(const Tensor *t, long i, double value) {
  if (t->dtype == DTYPE_REAL) tensor_reals(t)[i] = (real)value;
  if (t->dtype == DTYPE_U8) tensor_bytes(t)[i] = (uint8_t)value;
  if (t->dtype == DTYPE_I32) tensor_ints(t)[i] = (int32_t)value;
}

/* The first 'keep' of each line of x (rows, n) in order; line: n items of scratch. All tensors lie row-major. */
static void sort_lines(const Tensor *x, long n, long keep, bool falling, Item *line, const Tensor *value,
                       int32_t *position) {
  for (long r = 0, rows = tensor_numel(x) / n; r < rows; r++) {
    for (long i = 0; i < n; i++) line[i] = (Item){number_of(x, r * n + i), (int32_t)(i + 1)};
    qsort(line, (size_t)n, sizeof *line, falling ? compare_falling : compare);
    for (long i = 0; i < keep; i++) {
      set_number(value, r * keep + i, line[i].value);
      position[r * keep + i] = line[i].position;
    }
  }
}

static void where_whole_row(long n, char *const *at, const long *step, const void *context) {
  (void)context;
  for (long i = 0; i < n; i++)
    if (*(const uint8_t *)(at[1] + i * step[1]))
      *(int32_t *)(at[0] + i * step[0]) = *(const int32_t *)(at[2] + i * step[2]);
}

static void where_row(long n, char *const *at, const long *step, const void *context) {
  (void)context;
  for (long i = 0; i < n; i++)
    if (*(const uint8_t *)(at[1] + i * step[1])) *(real *)(at[0] + i * step[0]) = *(const real *)(at[2] + i * step[2]);
}

/* ---- bindings ---- */

static LineGeometry lines_of(const Tensor *t, int dim) {
  LineGeometry g = {1, t->shape[dim], 1, 0};
  for (int d = 0; d < t->ndim; d++) {
    if (d < dim) g.outer *= t->shape[d];
    if (d > dim) g.inner *= t->shape[d];
  }
  return g;
}

/* All positions must lie in 1..n. */
static void check_positions(lua_State *L, const char *op, const Tensor *p, long n) {
  const int32_t *position = tensor_ints(p);
  for (long i = 0, count = tensor_numel(p); i < count; i++)
    if (position[i] < 1 || position[i] > n)
      tensor_error(L, "%s: position %d (element %I) is outside of 1..%I", op, (int)position[i], (lua_Integer)i + 1,
                   (lua_Integer)n);
}

static const Tensor *push_positions(lua_State *L, int arg) {
  tensor_check_dtype(L, arg, DTYPE_I32);
  return tensor_push_in_layout(L, arg, LAYOUT_ROWS);
}

/* Shape equal but for one dimension. */
static bool same_but(const Tensor *a, const Tensor *b, int dim) {
  if (a->ndim != b->ndim || a->dtype != b->dtype) return false;
  for (int d = 0; d < a->ndim; d++)
    if (d != dim && a->shape[d] != b->shape[d]) return false;
  return true;
}

/* cat({tensors}, dim) */
static int l_cat(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  int count = (int)luaL_len(L, 1);
  if (count == 0) tensor_error(L, "cat: no tensors given");
  luaL_checkstack(L, count + 8, "cat");
  lua_Integer wanted = luaL_optinteger(L, 2, 1);
  lua_settop(L, 1);
  for (int i = 1; i <= count; i++) lua_geti(L, 1, i);
  const Tensor *first = tensor_check(L, 2);
  lua_pushinteger(L, wanted);
  int dim = tensor_check_dim(L, count + 2, first);
  long shape[TENSOR_MAX_DIMS];
  memcpy(shape, first->shape, sizeof shape);
  for (int i = 1; i < count; i++) {
    const Tensor *t = tensor_check(L, 2 + i);
    if (!same_but(first, t, dim))
      tensor_error(L, "cat: tensor %d is %s of %s, the first %s of %s: they may differ in dimension %d alone", i + 1,
                   tensor_describe(L, t), dtype_name(t->dtype), tensor_describe(L, first), dtype_name(first->dtype),
                   dim + 1);
    shape[dim] += t->shape[dim];
  }
  bool image = first->ndim == 4 && tensor_is_layout(first, LAYOUT_IMAGE) && !tensor_is_layout(first, LAYOUT_ROWS);
  Tensor *out = tensor_push(L, first->dtype, first->ndim, shape, image ? LAYOUT_IMAGE : LAYOUT_ROWS);
  Tensor part = *out;
  for (int i = 0; i < count; i++) {
    const Tensor *t = lua_touserdata(L, 2 + i);
    memcpy(part.shape, t->shape, sizeof part.shape);
    tensor_copy(&part, t);
    part.data = (char *)part.data + t->shape[dim] * part.stride[dim] * (long)dtype_size(part.dtype);
  }
  return 1;
}

/* index_select(x, dim, positions i32 K): any dtype */
static int l_index_select(lua_State *L) {
  const Tensor *x = tensor_check(L, 1);
  int dim = tensor_check_dim(L, 2, x);
  const Tensor *p = push_positions(L, 3);
  if (p->ndim != 1) tensor_error(L, "index_select: positions must have 1 dimension, got %s", tensor_describe(L, p));
  check_positions(L, "index_select", p, x->shape[dim]);
  long shape[TENSOR_MAX_DIMS];
  memcpy(shape, x->shape, sizeof shape);
  shape[dim] = p->shape[0];
  bool image = x->ndim == 4 && tensor_is_layout(x, LAYOUT_IMAGE) && !tensor_is_layout(x, LAYOUT_ROWS);
  Tensor *out = tensor_push(L, x->dtype, x->ndim, shape, image ? LAYOUT_IMAGE : LAYOUT_ROWS);
  Tensor to = *out, from = *x;
  to.shape[dim] = from.shape[dim] = 1;
  long item = (long)dtype_size(x->dtype);
  for (long k = 0; k < shape[dim]; k++) {
    to.data = (char *)out->data + k * out->stride[dim] * item;
    from.data = (char *)x->data + (tensor_ints(p)[k] - 1) * x->stride[dim] * item;
    tensor_copy(&to, &from);
  }
  return 1;
}

static Tensor *check_target(lua_State *L, const char *op) {
  Tensor *x = tensor_check_real(L, 1, op, 0);
  if (!tensor_is_layout(x, LAYOUT_ROWS)) tensor_error(L, "%s must be contiguous", op);
  tensor_touch(L, 1);
  return x;
}

/* index_add_(x, dim, positions i32 K, y) -> x */
static int l_index_add(lua_State *L) {
  Tensor *x = check_target(L, "index_add_: x");
  int dim = tensor_check_dim(L, 2, x);
  const Tensor *given = tensor_check_real(L, 4, "index_add_: y", x->ndim);
  const Tensor *p = push_positions(L, 3);
  check_positions(L, "index_add_", p, x->shape[dim]);
  if (!same_but(x, given, dim) || p->ndim != 1 || given->shape[dim] != p->shape[0])
    tensor_error(L, "index_add_: y is %s, x %s, positions %s", tensor_describe(L, given), tensor_describe(L, x),
                 tensor_describe(L, p));
  const Tensor *y = tensor_push_in_layout(L, 4, LAYOUT_ROWS);
  LineGeometry g = lines_of(x, dim);
  g.picks = p->shape[0];
  index_add(&g, x->data, p->data, y->data);
  lua_pushvalue(L, 1);
  return 1;
}

/* gather(x, dim, positions): positions have x's shape but for dim; x of any dtype */
static int l_gather(lua_State *L) {
  const Tensor *given = tensor_check(L, 1);
  int dim = tensor_check_dim(L, 2, given);
  const Tensor *p = push_positions(L, 3);
  Tensor like = *given;
  like.dtype = DTYPE_I32;
  if (!same_but(&like, p, dim))
    tensor_error(L, "gather: positions are %s, x %s: they may differ in dimension %d alone", tensor_describe(L, p),
                 tensor_describe(L, given), dim + 1);
  check_positions(L, "gather", p, given->shape[dim]);
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *y = tensor_push(L, x->dtype, p->ndim, p->shape, LAYOUT_ROWS);
  LineGeometry g = lines_of(x, dim);
  g.picks = p->shape[dim];
  if (x->dtype == DTYPE_REAL) gather_reals(&g, x->data, p->data, y->data);
  if (x->dtype == DTYPE_U8) gather_bytes(&g, x->data, p->data, y->data);
  if (x->dtype == DTYPE_I32) gather_ints(&g, x->data, p->data, y->data);
  return 1;
}

static int scatter(lua_State *L, const char *op, const char *x_name, bool add) {
  Tensor *x = check_target(L, x_name);
  int dim = tensor_check_dim(L, 2, x);
  const Tensor *p = push_positions(L, 3), *given = tensor_check_real(L, 4, op, 0);
  if (!same_but(x, given, dim) || !tensor_same_shape(p, given))
    tensor_error(L, "%s: y is %s, positions %s, x %s", op, tensor_describe(L, given), tensor_describe(L, p),
                 tensor_describe(L, x));
  check_positions(L, op, p, x->shape[dim]);
  const Tensor *y = tensor_push_in_layout(L, 4, LAYOUT_ROWS);
  LineGeometry g = lines_of(x, dim);
  g.picks = p->shape[dim];
  scatter_into(&g, add, x->data, p->data, y->data);
  lua_pushvalue(L, 1);
  return 1;
}

/* scatter_(x, dim, positions, y) -> x */
static int l_scatter(lua_State *L) {
  return scatter(L, "scatter_", "scatter_: x", false);
}
static int l_scatter_add(lua_State *L) {
  return scatter(L, "scatter_add_", "scatter_add_: x", true);
}

static bool is_i32(lua_State *L, int arg) {
  return tensor_is(L, arg) && tensor_check(L, arg)->dtype == DTYPE_I32;
}

/* cumsum(x, dim), of i32 too */
static int l_cumsum(lua_State *L) {
  const Tensor *given = is_i32(L, 1) ? lua_touserdata(L, 1) : tensor_check_real(L, 1, "cumsum: x", 0);
  int dim = tensor_check_dim(L, 2, given);
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *y = tensor_push(L, x->dtype, x->ndim, x->shape, LAYOUT_ROWS);
  LineGeometry g = lines_of(x, dim);
  if (x->dtype == DTYPE_REAL)
    cumsum(&g, x->data, y->data);
  else if (!cumsum_whole(&g, x->data, y->data))
    tensor_error(L, "cumsum: a sum passes what i32 holds; to(\"f32\") before, for sums that are rounded");
  return 1;
}

/* Sorts along the last dimension, keeping the first 'keep' of each line (0: all). */
static int push_sorted(lua_State *L, long keep, bool falling) {
  const Tensor *x = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  if (x->ndim == 0) tensor_error(L, "sort: the tensor has no dimension to sort along");
  long n = x->shape[x->ndim - 1], shape[TENSOR_MAX_DIMS];
  if (keep > n) tensor_error(L, "topk: %I of %I elements wanted", (lua_Integer)keep, (lua_Integer)n);
  memcpy(shape, x->shape, sizeof shape);
  if (keep > 0) shape[x->ndim - 1] = keep;
  Item *line = (Item *)scratch_push(L, (size_t)n * sizeof(Item) / sizeof(real) + 1);
  int scratch = lua_gettop(L);
  Tensor *value = tensor_push(L, x->dtype, x->ndim, shape, LAYOUT_ROWS);
  Tensor *position = tensor_push(L, DTYPE_I32, x->ndim, shape, LAYOUT_ROWS);
  sort_lines(x, n, shape[x->ndim - 1], falling, line, value, position->data);
  scratch_release(L, scratch);
  return 2;
}

static void check_any(lua_State *L, const char *name) {
  if (!tensor_is(L, 1)) tensor_check_real(L, 1, name, 0); /* raises */
  tensor_check(L, 1);
}

/* sort(x, falling) -> values, positions, along the last dimension; stable */
static int l_sort(lua_State *L) {
  check_any(L, "sort: x");
  return push_sorted(L, 0, lua_toboolean(L, 2));
}

/* topk(x, k) -> the k largest along the last dimension, falling, and their positions */
static int l_topk(lua_State *L) {
  check_any(L, "topk: x");
  return push_sorted(L, tensor_check_size(L, 2, "topk: k", 1), true);
}

/* one_hot(labels i32 N, classes) -> real N x classes */
static int l_one_hot(lua_State *L) {
  const Tensor *labels = push_positions(L, 1);
  long classes = tensor_check_size(L, 2, "one_hot: classes", 1);
  if (labels->ndim != 1) tensor_error(L, "one_hot: labels must have 1 dimension, got %s", tensor_describe(L, labels));
  check_positions(L, "one_hot", labels, classes);
  Tensor *out = tensor_push_zeros(L, DTYPE_REAL, 2, (long[]){labels->shape[0], classes}, LAYOUT_ROWS);
  for (long i = 0; i < labels->shape[0]; i++) tensor_reals(out)[i * classes + tensor_ints(labels)[i] - 1] = 1;
  return 1;
}

/* Tensor or number at 'arg' written over all of out, or where mask (may be NULL) is set. */
static void blend(lua_State *L, int arg, const Tensor *out, const Tensor *mask) {
  real value;
  int32_t whole;
  Tensor number = {.data = &value, .dtype = out->dtype};
  const Tensor *source = &number;
  if (lua_type(L, arg) != LUA_TNUMBER) {
    source = lua_touserdata(L, arg);
  } else if (out->dtype == DTYPE_I32) {
    whole = (int32_t)lua_tointeger(L, arg);
    number.data = &whole;
  } else {
    value = (real)lua_tonumber(L, arg);
  }
  if (mask == NULL)
    tensor_copy(out, source);
  else
    loop_run(3, (const Tensor *const[]){out, mask, source}, out->dtype == DTYPE_I32 ? where_whole_row : where_row,
             NULL);
}

/* A number among i32 must be one. */
static void check_whole_number(lua_State *L, int arg) {
  int whole;
  lua_Integer value = lua_tointegerx(L, arg, &whole);
  if (!whole || value < INT32_MIN || value > INT32_MAX)
    tensor_error(L, "where: %s is no number of i32", luaL_tolstring(L, arg, NULL));
}

/* where(mask u8, a, b): a and b tensors, real or i32 both, or numbers; all broadcast to the mask's or the tensors' shape */
static int l_where(lua_State *L) {
  const Tensor *mask = tensor_check_dtype(L, 1, DTYPE_U8);
  DType dtype = is_i32(L, 2) || is_i32(L, 3) ? DTYPE_I32 : DTYPE_REAL;
  long shape[TENSOR_MAX_DIMS];
  Tensor full = *mask;
  for (int arg = 2; arg <= 3; arg++) {
    if (lua_type(L, arg) == LUA_TNUMBER) {
      if (dtype == DTYPE_I32) check_whole_number(L, arg);
      continue;
    }
    const Tensor *shaped = is_i32(L, arg) ? lua_touserdata(L, arg) : tensor_check_real(L, arg, "where: operand", 0);
    if (shaped->dtype != dtype) tensor_error(L, "where: operands must be of one dtype, got " REAL_NAME " and i32");
    full.ndim = loop_broadcast(&full, shaped, shape);
    if (full.ndim < 0)
      tensor_error(L, "where: shapes %s and %s do not broadcast", tensor_describe(L, mask), tensor_describe(L, shaped));
    memcpy(full.shape, shape, sizeof shape);
  }
  Tensor *out = tensor_push(L, dtype, full.ndim, full.shape, LAYOUT_ROWS);
  blend(L, 3, out, NULL);
  blend(L, 2, out, mask);
  return 1;
}

static const luaL_Reg functions[] = {
    {"cat", l_cat},          {"index_select", l_index_select}, {"index_add_", l_index_add}, {"gather", l_gather},
    {"scatter_", l_scatter}, {"scatter_add_", l_scatter_add},  {"cumsum", l_cumsum},        {"sort", l_sort},
    {"topk", l_topk},        {"one_hot", l_one_hot},           {"where", l_where},          {NULL, NULL},
};

int luaopen_feral_core_index(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
