/*
** rows.c -- lists of samples as i32 tensors, and what picks, counts, groups and deals them: the work behind subset, split,
** kfold and balance. Numbers count from 1. Tensors have no size 0, so an empty result is nil.
*/
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../tensor/strings.h"

/* ---- kernels ---- */

/* What is grouped: texts, or numbers of 'size' bytes each. */
typedef struct Items {
  const Strings *strings;
  const char *numbers;
  size_t size;
} Items;

static const char *item_at(const Items *items, long i, size_t *length) {
  if (items->strings == NULL) return *length = items->size, items->numbers + (size_t)i * items->size;
  const char *text = strings_get(items->strings, i);
  *length = strlen(text);
  return text;
}

/* FNV-1a (Fowler, Noll and Vo). */
static uint64_t hash(const char *bytes, size_t length) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; i++) h = (h ^ (uint8_t)bytes[i]) * 0x100000001b3u;
  return h ^ h >> 32;
}

static bool same_item(const Items *items, long i, long j) {
  size_t a, b;
  const char *left = item_at(items, i, &a), *right = item_at(items, j, &b);
  return a == b && memcmp(left, right, a) == 0;
}

/* group: (n), the number of the group of each, in the order in which they first occur. slots: (slots), a power of two above
   n; first: (n), the first member of each group. Returns how many there are. */
static long group_items(const Items *items, long n, int32_t *group, int32_t *first, int32_t *slot, size_t slots) {
  long groups = 0;
  memset(slot, 0, slots * sizeof *slot);
  for (long i = 0; i < n; i++) {
    size_t length;
    const char *bytes = item_at(items, i, &length);
    size_t at = hash(bytes, length) & (slots - 1);
    while (slot[at] != 0 && !same_item(items, first[slot[at] - 1], i)) at = (at + 1) & (slots - 1);
    if (slot[at] == 0) {
      first[groups++] = (int32_t)i;
      slot[at] = (int32_t)groups;
    }
    group[i] = slot[at];
  }
  return groups;
}

typedef struct Group {
  int32_t size, place, number; /* place: in the order given, which decides among equals */
} Group;

static int larger_first(const void *left, const void *right) {
  const Group *a = left, *b = right;
  if (a->size != b->size) return a->size > b->size ? -1 : 1;
  return a->place - b->place;
}

/* How much worse the balance gets when a fold takes a group: the growth of the squares of its shares of each class. */
static double cost_of(const int32_t *fold, const int32_t *group, const double *total, long classes) {
  double cost = 0;
  for (long c = 0; c < classes; c++)
    if (group[c] > 0) cost += (double)group[c] * (2 * (double)fold[c] + group[c]) / (total[c] * total[c]);
  return cost;
}

/* Deals groups, the largest first, each to the fold in which it disturbs the balance of classes least.
   count: (groups,classes)  load: (folds,classes), zero  total: (classes)  fold_of: (groups), from 1 */
static void deal_groups(const Group *group, long groups, const int32_t *count, long classes, const double *total,
                        long folds, int32_t *load, int32_t *fold_of) {
  for (long g = 0; g < groups; g++) {
    const int32_t *of_group = count + group[g].number * classes;
    long best = 0;
    double least = 0;
    for (long f = 0; f < folds; f++) {
      double cost = cost_of(load + f * classes, of_group, total, classes);
      if (f > 0 && cost >= least) continue;
      best = f;
      least = cost;
    }
    for (long c = 0; c < classes; c++) load[best * classes + c] += of_group[c];
    fold_of[group[g].number] = (int32_t)best + 1;
  }
}

/* ---- bindings ---- */

/* The i32 list at 'arg' as contiguous memory that is pushed. */
static const Tensor *push_list(lua_State *L, int arg) {
  const Tensor *t = tensor_check_dtype(L, arg, DTYPE_I32);
  if (t->ndim != 1) tensor_error(L, "rows: a list of one dimension expected, got %s", tensor_describe(L, t));
  return tensor_push_in_layout(L, arg, LAYOUT_ROWS);
}

/* Its numbers must lie in low .. high. */
static const Tensor *push_numbers(lua_State *L, int arg, const char *what, long low, long high) {
  const Tensor *t = push_list(L, arg);
  for (long i = 0; i < t->shape[0]; i++) {
    int32_t number = tensor_ints(t)[i];
    if (number < low || number > high)
      tensor_error(L, "%s %d (element %I) is outside of %I..%I", what, (int)number, (lua_Integer)i + 1,
                   (lua_Integer)low, (lua_Integer)high);
  }
  return t;
}

static int32_t *push_ints(lua_State *L, long n) {
  return tensor_push(L, DTYPE_I32, 1, &n, LAYOUT_ROWS)->data;
}

static void *push_memory(lua_State *L, size_t count, size_t size) {
  size_t bytes;
  if (!size_multiply(count, size, &bytes)) luaL_error(L, "not enough memory");
  return scratch_push(L, bytes / sizeof(real) + 1);
}

/* range(n) -> i32 1 .. n */
static int l_range(lua_State *L) {
  long n = tensor_check_size(L, 1, "rows: how many", 1);
  if (n > INT32_MAX) tensor_error(L, "rows: %I are more than can be numbered", (lua_Integer)n);
  int32_t *out = push_ints(L, n);
  for (long i = 0; i < n; i++) out[i] = (int32_t)(i + 1);
  return 1;
}

/* is_range(rows, n) -> whether they are 1 .. n */
static int l_is_range(lua_State *L) {
  long n = tensor_check_size(L, 2, "rows: how many", 1);
  const Tensor *t = push_list(L, 1);
  bool is = t->shape[0] == n;
  for (long i = 0; is && i < n; i++) is = tensor_ints(t)[i] == i + 1;
  lua_pushboolean(L, is);
  return 1;
}

/* take(values M x ..., rows i32 N, what) -> values N x ...: those of the rows. 'what' is said of a number that is none. */
static int l_take(lua_State *L) {
  tensor_check(L, 1);
  const char *what = luaL_optstring(L, 3, "rows: number");
  lua_settop(L, 3);
  const Tensor *from = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  if (from->ndim < 1) tensor_error(L, "rows: values must have a dimension");
  const Tensor *rows = push_numbers(L, 2, what, 1, from->shape[0]);
  long shape[TENSOR_MAX_DIMS];
  memcpy(shape, from->shape, sizeof shape);
  shape[0] = rows->shape[0];
  Tensor *out = tensor_push(L, from->dtype, from->ndim, shape, LAYOUT_ROWS);
  size_t item = (size_t)(tensor_numel(from) / from->shape[0]) * dtype_size(from->dtype);
  const int32_t *row = tensor_ints(rows);
  if (item == 4)
    for (long i = 0; i < shape[0]; i++) tensor_ints(out)[i] = ((const int32_t *)from->data)[row[i] - 1];
  else
    for (long i = 0; i < shape[0]; i++)
      memcpy((char *)out->data + (size_t)i * item, (const char *)from->data + (size_t)(row[i] - 1) * item, item);
  return 1;
}

/* counts(numbers i32, most, what) -> a table of how often 1 .. most occur. 'what' is said of a number outside. */
static int l_counts(lua_State *L) {
  long most = tensor_check_size(L, 2, "rows: how many", 1);
  const char *what = luaL_optstring(L, 3, "rows: number");
  lua_settop(L, 3);
  const Tensor *t = push_numbers(L, 1, what, 1, most);
  int32_t *count = push_memory(L, (size_t)most, sizeof *count);
  memset(count, 0, (size_t)most * sizeof *count);
  for (long i = 0; i < t->shape[0]; i++) count[tensor_ints(t)[i] - 1]++;
  lua_createtable(L, (int)most, 0);
  for (long k = 0; k < most; k++) {
    lua_pushinteger(L, count[k]);
    lua_rawseti(L, -2, k + 1);
  }
  scratch_release(L, 5);
  return 1;
}

/* map(numbers i32, to) -> i32, to[number] in the place of each; 0 where the table has nothing */
static int l_map(lua_State *L) {
  luaL_checktype(L, 2, LUA_TTABLE);
  long most = (long)luaL_len(L, 2);
  lua_settop(L, 2);
  const Tensor *t = push_list(L, 1);
  int32_t *to = push_memory(L, (size_t)most, sizeof *to);
  for (long k = 0; k < most; k++) {
    lua_rawgeti(L, 2, k + 1);
    to[k] = (int32_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  int32_t *out = push_ints(L, t->shape[0]);
  for (long i = 0; i < t->shape[0]; i++) {
    int32_t number = tensor_ints(t)[i];
    out[i] = number >= 1 && number <= most ? to[number - 1] : 0;
  }
  scratch_release(L, 4);
  return 1;
}

/* The places of n that 'wanted' says of; nil where there is none. */
static int push_places(lua_State *L, const Tensor *t, int32_t wanted) {
  bool bytes = t->dtype == DTYPE_U8;
  long n = t->shape[0], found = 0;
  for (long i = 0; i < n; i++) found += bytes ? tensor_bytes(t)[i] != 0 : tensor_ints(t)[i] == wanted;
  if (found == 0) return lua_pushnil(L), 1;
  int32_t *out = push_ints(L, found);
  for (long i = 0; i < n; i++)
    if (bytes ? tensor_bytes(t)[i] != 0 : tensor_ints(t)[i] == wanted) *out++ = (int32_t)(i + 1);
  return 1;
}

/* where(numbers i32, number) -> i32, the places where it stands; where(mask u8) -> the places that are not 0; nil for none */
static int l_where(lua_State *L) {
  const Tensor *t = tensor_check(L, 1);
  if (t->dtype == DTYPE_REAL || t->ndim != 1)
    tensor_error(L, "rows: i32 or u8 of one dimension expected, got %s %s", dtype_name(t->dtype),
                 tensor_describe(L, t));
  int32_t wanted = t->dtype == DTYPE_I32 ? (int32_t)luaL_checkinteger(L, 2) : 0;
  return push_places(L, tensor_push_in_layout(L, 1, LAYOUT_ROWS), wanted);
}

/* mark(out i32, places, k, start) -> out, with (start + j) % k + 1 in the place that stands j-th among 'places' */
static int l_mark(lua_State *L) {
  const Tensor *out = tensor_check_dtype(L, 1, DTYPE_I32);
  long k = tensor_check_size(L, 3, "rows: how many", 1), start = tensor_check_size(L, 4, "rows: start", 0);
  if (out->ndim != 1 || !tensor_is_layout(out, LAYOUT_ROWS)) tensor_error(L, "rows: a contiguous list expected");
  const Tensor *places = push_numbers(L, 2, "rows: place", 1, out->shape[0]);
  for (long j = 0; j < places->shape[0]; j++)
    tensor_ints(out)[tensor_ints(places)[j] - 1] = (int32_t)((start + j) % k + 1);
  lua_settop(L, 1);
  return 1;
}

/* outside(numbers i32, low, high) -> the place and the number of the first that does not lie in low .. high; nil for none */
static int l_outside(lua_State *L) {
  const Tensor *t = push_list(L, 1);
  lua_Integer low = luaL_checkinteger(L, 2), high = luaL_checkinteger(L, 3);
  for (long i = 0; i < t->shape[0]; i++) {
    lua_Integer number = tensor_ints(t)[i];
    if (number >= low && number <= high) continue;
    lua_pushinteger(L, i + 1);
    lua_pushinteger(L, number);
    return 2;
  }
  return 0;
}

/* put(out N x ..., rows i32 M, values M x ... or a number) -> out, with the values in the places that 'rows' names */
static int l_put(lua_State *L) {
  const Tensor *out = tensor_check_target(L, 1);
  bool number = lua_isinteger(L, 3);
  if (!tensor_is_layout(out, LAYOUT_ROWS) || out->ndim < 1) tensor_error(L, "rows: a contiguous place expected");
  const Tensor *rows = push_numbers(L, 2, "rows: place", 1, out->shape[0]), *values = NULL;
  size_t item = (size_t)(tensor_numel(out) / out->shape[0]) * dtype_size(out->dtype);
  int32_t one = (int32_t)lua_tointeger(L, 3);
  if (number && (out->dtype != DTYPE_I32 || out->ndim != 1)) tensor_error(L, "rows: a number goes to i32 alone");
  if (!number) {
    tensor_check_dtype(L, 3, out->dtype);
    values = tensor_push_in_layout(L, 3, LAYOUT_ROWS);
    if (values->shape[0] != rows->shape[0] ||
        (size_t)tensor_numel(values) * dtype_size(out->dtype) != item * (size_t)rows->shape[0])
      tensor_error(L, "rows: %s values for %s places", tensor_describe(L, values), tensor_describe(L, rows));
  }
  for (long i = 0; i < rows->shape[0]; i++)
    memcpy((char *)out->data + (size_t)(tensor_ints(rows)[i] - 1) * item,
           number ? (const char *)&one : (const char *)values->data + (size_t)i * item, item);
  lua_settop(L, 1);
  return 1;
}

/* repeated(times i32 N) -> i32, each of 1 .. N as often as 'times' says; nil where that is never */
static int l_repeated(lua_State *L) {
  const Tensor *times = push_numbers(L, 1, "rows: times", 0, INT32_MAX);
  long n = 0;
  for (long i = 0; i < times->shape[0]; i++) n += tensor_ints(times)[i];
  if (n > INT32_MAX) tensor_error(L, "rows: %I are more than can be numbered", (lua_Integer)n);
  if (n == 0) return lua_pushnil(L), 1;
  int32_t *out = push_ints(L, n);
  for (long i = 0; i < times->shape[0]; i++)
    for (int32_t k = 0; k < tensor_ints(times)[i]; k++) *out++ = (int32_t)(i + 1);
  return 1;
}

/* groups(list: strings, or a tensor of one dimension) -> i32 the number of each one's group, in the order in which they first
   occur; how many; i32 the first place of each group */
static int l_groups(lua_State *L) {
  Items items = {0};
  long n, groups;
  lua_settop(L, 1);
  if (strings_is(L, 1)) {
    items.strings = strings_check(L, 1);
    n = items.strings->count;
    lua_pushnil(L);
  } else {
    const Tensor *t = tensor_check(L, 1);
    if (t->ndim != 1) tensor_error(L, "rows: groups are told by one value each, got %s", tensor_describe(L, t));
    t = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
    items.numbers = t->data;
    items.size = dtype_size(t->dtype);
    n = t->shape[0];
  }
  size_t slots = 16;
  while (slots < 2 * (size_t)n) slots *= 2;
  int32_t *slot = push_memory(L, slots, sizeof *slot), *first = push_memory(L, (size_t)n, sizeof *first);
  int32_t *group = push_ints(L, n);
  groups = group_items(&items, n, group, first, slot, slots);
  lua_pushinteger(L, groups);
  int32_t *places = push_ints(L, groups);
  for (long g = 0; g < groups; g++) places[g] = first[g] + 1;
  scratch_release(L, 3);
  scratch_release(L, 4);
  return 3;
}

/* What dealing works with; 'all' stands behind the classes and counts every sample, so that no fold stays empty. */
typedef struct Deal {
  long groups, columns, folds, all; /* columns: classes, and 'all' */
  Group *list;                      /* (groups) */
  int32_t *count, *load, *fold_of;  /* (groups,columns) (folds,columns) (groups) */
  double *total;                    /* (columns) */
} Deal;

static void *push_zeros(lua_State *L, long count, size_t size) {
  void *memory = push_memory(L, (size_t)count, size);
  memset(memory, 0, (size_t)count * size);
  return memory;
}

enum { DEAL_MEMORIES = 5 };

static void push_deal_memory(lua_State *L, Deal *d) {
  d->list = push_zeros(L, d->groups, sizeof *d->list);
  d->count = push_zeros(L, d->groups * d->columns, sizeof *d->count);
  d->load = push_zeros(L, d->folds * d->columns, sizeof *d->load);
  d->fold_of = push_zeros(L, d->groups, sizeof *d->fold_of);
  d->total = push_zeros(L, d->columns, sizeof *d->total);
}

/* group: (n)  label: (n) or NULL  order: (groups) */
static void count_groups(Deal *d, const int32_t *group, const int32_t *label, const int32_t *order, long n) {
  for (long k = 0; k < d->groups; k++) {
    Group *g = &d->list[order[k] - 1];
    g->place = (int32_t)k;
    g->number = order[k] - 1;
  }
  for (long i = 0; i < n; i++) {
    long g = group[i] - 1;
    d->list[g].size++;
    d->count[g * d->columns + d->all]++;
    d->total[d->all]++;
    if (label == NULL) continue;
    d->count[g * d->columns + label[i] - 1]++;
    d->total[label[i] - 1]++;
  }
}

/* deal(group i32 N, groups, label i32 N or nil, classes, folds, order i32 groups) -> i32 N: the fold of each
   Whole groups go to folds, so that each has about as many samples of each class (label nil: of all). 'order' decides among
   groups of one size. */
static int l_deal(lua_State *L) {
  lua_settop(L, 6);
  Deal d = {.groups = tensor_check_size(L, 2, "rows: groups", 1), .folds = tensor_check_size(L, 5, "rows: folds", 1)};
  long classes = tensor_check_size(L, 4, "rows: classes", 1);
  const Tensor *group = push_numbers(L, 1, "rows: group", 1, d.groups), *label = NULL;
  if (!lua_isnil(L, 3)) label = push_numbers(L, 3, "rows: label", 1, classes);
  const Tensor *order = push_numbers(L, 6, "rows: order", 1, d.groups);
  long n = group->shape[0];
  if ((label != NULL && label->shape[0] != n) || order->shape[0] != d.groups) tensor_error(L, "rows: sizes differ");
  d.all = label != NULL ? classes : 0;
  d.columns = d.all + 1;
  int32_t *out = push_ints(L, n);
  int result = lua_gettop(L);
  push_deal_memory(L, &d);
  count_groups(&d, tensor_ints(group), label != NULL ? tensor_ints(label) : NULL, tensor_ints(order), n);
  qsort(d.list, (size_t)d.groups, sizeof *d.list, larger_first);
  deal_groups(d.list, d.groups, d.count, d.columns, d.total, d.folds, d.load, d.fold_of);
  for (long i = 0; i < n; i++) out[i] = d.fold_of[tensor_ints(group)[i] - 1];
  for (int i = 1; i <= DEAL_MEMORIES; i++) scratch_release(L, result + i);
  lua_settop(L, result);
  return 1;
}

static const luaL_Reg functions[] = {
    {"range", l_range},   {"is_range", l_is_range}, {"take", l_take}, {"counts", l_counts},   {"map", l_map},
    {"where", l_where},   {"mark", l_mark},         {"put", l_put},   {"outside", l_outside}, {"repeated", l_repeated},
    {"groups", l_groups}, {"deal", l_deal},         {NULL, NULL},
};

int luaopen_feral_core_rows(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
