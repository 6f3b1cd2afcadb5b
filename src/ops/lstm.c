/* lstm.c -- a layer of LSTM over whole sequences; see kernels/lstm.h. People see N x T x H; memory goes step by step.
 */
#include "../kernels/recurrent/lstm.h"

#include <string.h>

#include "../kernels/common/product.h"
#include "../tensor/tensor.h"

enum { GATES = 4, STACK = 40 };

/* Pushes the tensor at 'index', N x T x F, as T x N x F row-major. */
static const Tensor *push_step_by_step(lua_State *L, int index) {
  const Tensor *t = lua_touserdata(L, index);
  long shape[3] = {t->shape[1], t->shape[0], t->shape[2]}, stride[3] = {t->stride[1], t->stride[0], t->stride[2]};
  tensor_push_view(L, index, 3, shape, stride, 0);
  return tensor_push_in_layout(L, -1, LAYOUT_ROWS);
}

/* Pushes the tensor at 'arg', which must have this shape, row-major; 0 ends the sizes. */
static const real *push_sized(lua_State *L, int arg, const char *what, long a, long b, long c) {
  Tensor expected = {.ndim = c > 0 ? 3 : b > 0 ? 2 : 1, .shape = {a, b, c}};
  const Tensor *t = tensor_check_real(L, arg, what, 0);
  if (!tensor_same_shape(t, &expected))
    tensor_error(L, "%s is %s, %s expected", what, tensor_describe(L, t), tensor_describe(L, &expected));
  return tensor_push_in_layout(L, arg, LAYOUT_ROWS)->data;
}

static const real *push_optional(lua_State *L, int arg, const char *what, long a, long b, long c) {
  return lua_isnoneornil(L, arg) ? NULL : push_sized(L, arg, what, a, b, c);
}

/* Pushes the lengths (N) at 'arg', or nil. */
static const int32_t *push_lengths(lua_State *L, int arg, const LstmGeometry *g) {
  if (lua_isnoneornil(L, arg)) {
    lua_pushnil(L);
    return NULL;
  }
  const Tensor *t = tensor_check_dtype(L, arg, DTYPE_I32);
  if (t->ndim != 1 || t->shape[0] != g->n)
    tensor_error(L, "lstm: lengths are %s, %I expected", tensor_describe(L, t), (lua_Integer)g->n);
  const int32_t *lengths = tensor_ints(tensor_push_in_layout(L, arg, LAYOUT_ROWS));
  for (long n = 0; n < g->n; n++)
    if (lengths[n] < 1 || lengths[n] > g->steps)
      tensor_error(L, "lstm: length %I is %I, 1 to %I expected", (lua_Integer)n + 1, (lua_Integer)lengths[n],
                   (lua_Integer)g->steps);
  return lengths;
}

static void copy_or_clear(real *to, const real *from, long n) {
  if (from != NULL)
    memcpy(to, from, (size_t)n * sizeof *to);
  else
    memset(to, 0, (size_t)n * sizeof *to);
}

/* ---- forward ---- */

/* Reads x (N,T,I) and w_ih (4H,I), the first two arguments. */
static LstmGeometry check_geometry(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "lstm: input", 3), *w = tensor_check_real(L, 2, "lstm: weight_ih", 2);
  if (w->shape[0] % GATES != 0)
    tensor_error(L, "lstm: weight_ih is %s: its rows must be 4 times the hidden units", tensor_describe(L, w));
  if (x->shape[2] != w->shape[1])
    tensor_error(L, "lstm: input has %I features, weight_ih expects %I (input %s, weight_ih %s)",
                 (lua_Integer)x->shape[2], (lua_Integer)w->shape[1], tensor_describe(L, x), tensor_describe(L, w));
  return (LstmGeometry){x->shape[1], x->shape[0], x->shape[2], w->shape[0] / GATES, lua_toboolean(L, 8), NULL};
}

/* Pushes (T+1,N,H); the slot before the first step gets a given state (N,H), or zeros. */
static real *push_states(lua_State *L, const LstmGeometry *g, const real *first) {
  long size = g->n * g->hidden;
  Tensor *t = tensor_push(L, DTYPE_REAL, 3, (long[]){g->steps + 1, g->n, g->hidden}, LAYOUT_ROWS);
  copy_or_clear(tensor_reals(t) + (g->reverse ? g->steps * size : 0), first, size);
  return t->data;
}

/* Pushes the outputs as N x T x H: a view of the states, or where sequences end early zeros there, to be filled in. */
static real *push_outputs(lua_State *L, int states, const LstmGeometry *g) {
  long size = g->n * g->hidden;
  real *y = NULL;
  if (g->lengths != NULL)
    y = tensor_push(L, DTYPE_REAL, 3, (long[]){g->steps, g->n, g->hidden}, LAYOUT_ROWS)->data;
  else
    lua_pushvalue(L, states);
  tensor_push_view(L, -1, 3, (long[]){g->n, g->steps, g->hidden}, (long[]){g->hidden, size, 1},
                   y != NULL || g->reverse ? 0 : size);
  lua_remove(L, -2);
  return y;
}

/* Pushes a view of the last state as 1 x N x H. */
static void push_last(lua_State *L, int states, const LstmGeometry *g) {
  long size = g->n * g->hidden;
  tensor_push_view(L, states, 3, (long[]){1, g->n, g->hidden}, (long[]){size, g->hidden, 1},
                   g->reverse ? 0 : g->steps * size);
}

/* forward(x, w_ih, w_hh, b_ih, b_hh, h, c, reverse, lengths) -> y N x T x H, last h, last c 1 x N x H, and what
   backward wants: x step by step, gates, hidden, cells. The biases (4H), the first state h, c (N,H) and lengths (N) may
   be nil. */
static int l_forward(lua_State *L) {
  lua_settop(L, 9);
  luaL_checkstack(L, STACK, "lstm");
  LstmGeometry g = check_geometry(L);
  long h = g.hidden, width = GATES * h;
  const real *w_ih = push_sized(L, 2, "lstm: weight_ih", width, g.inputs, 0);
  const real *w_hh = push_sized(L, 3, "lstm: weight_hh", width, h, 0);
  const real *b_ih = push_optional(L, 4, "lstm: bias_ih", width, 0, 0);
  const real *b_hh = push_optional(L, 5, "lstm: bias_hh", width, 0, 0);
  const real *h_first = push_optional(L, 6, "lstm: state h", g.n, h, 0);
  const real *c_first = push_optional(L, 7, "lstm: state c", g.n, h, 0);
  g.lengths = push_lengths(L, 9, &g);
  const real *x = push_step_by_step(L, 1)->data;
  real *gates = tensor_push(L, DTYPE_REAL, 3, (long[]){g.steps, g.n, width}, LAYOUT_ROWS)->data;
  real *hidden = push_states(L, &g, h_first);
  real *cells = push_states(L, &g, c_first);
  int saved = lua_gettop(L) - 3; /* x, gates, hidden, cells */
  real *y = push_outputs(L, saved + 2, &g);
  push_last(L, saved + 2, &g);
  push_last(L, saved + 3, &g);
  real *scratch = scratch_push(L, (size_t)lstm_forward_scratch(&g));
  lstm_forward(&g, x, w_ih, w_hh, b_ih, b_hh, gates, hidden, cells, scratch);
  if (y != NULL) lstm_outputs(&g, hidden, y);
  scratch_release(L, -1);
  lua_pop(L, 1);
  tensor_check_interrupt(L);
  for (int i = 0; i < 4; i++) lua_pushvalue(L, saved + i);
  return 7;
}

/* ---- backward ---- */

/* Reads x (T,N,I) and gates (T,N,4H), arguments 4 and 5. */
static LstmGeometry check_saved(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 4, "lstm: saved input", 3);
  const Tensor *gates = tensor_check_real(L, 5, "lstm: saved gates", 3);
  return (LstmGeometry){x->shape[0], x->shape[1], x->shape[2], gates->shape[2] / GATES, lua_toboolean(L, 10), NULL};
}

/* Pushes (N,H): a given gradient of the last state (1,N,H), or zeros. */
static real *push_state_gradient(lua_State *L, int arg, const char *what, const LstmGeometry *g) {
  const real *given = push_optional(L, arg, what, 1, g->n, g->hidden);
  Tensor *t = tensor_push(L, DTYPE_REAL, 2, (long[]){g->n, g->hidden}, LAYOUT_ROWS);
  copy_or_clear(t->data, given, g->n * g->hidden);
  if (given != NULL) lua_remove(L, -2);
  return t->data;
}

/* Pushes (m,n) for a weight's gradient, or nil if nobody wants it. */
static real *push_wanted(lua_State *L, bool wanted, long m, long n) {
  if (wanted) return tensor_push(L, DTYPE_REAL, n > 0 ? 2 : 1, (long[]){m, n}, LAYOUT_ROWS)->data;
  lua_pushnil(L);
  return NULL;
}

/* Pushes N x T x I for the input's gradient, which lies step by step, or nil if nobody wants it. */
static real *push_input_gradient(lua_State *L, bool wanted, const LstmGeometry *g) {
  if (!wanted) return push_wanted(L, false, 0, 0);
  tensor_push(L, DTYPE_REAL, 3, (long[]){g->steps, g->n, g->inputs}, LAYOUT_ROWS);
  Tensor *view =
      tensor_push_view(L, -1, 3, (long[]){g->n, g->steps, g->inputs}, (long[]){g->inputs, g->n * g->inputs, 1}, 0);
  lua_remove(L, -2);
  return view->data;
}

/* backward(dy, dh, dc, x, gates, hidden, cells, w_ih, w_hh, reverse, lengths, want_x, want_w_ih, want_w_hh, want_b)
   -> dx N x T x I, dw_ih, dw_hh, db (of either bias), dh, dc (N,H) of the first state; dh and dc given may be nil */
static int l_backward(lua_State *L) {
  lua_settop(L, 15);
  luaL_checkstack(L, STACK, "lstm");
  LstmGeometry g = check_saved(L);
  long h = g.hidden, width = GATES * h, rows = g.steps * g.n;
  push_sized(L, 1, "lstm: gradient", g.n, g.steps, h);
  const real *dy = push_step_by_step(L, 1)->data;
  const real *x = push_sized(L, 4, "lstm: saved input", g.steps, g.n, g.inputs);
  const real *gates = push_sized(L, 5, "lstm: saved gates", g.steps, g.n, width);
  const real *hidden = push_sized(L, 6, "lstm: saved states", g.steps + 1, g.n, h);
  const real *cells = push_sized(L, 7, "lstm: saved cells", g.steps + 1, g.n, h);
  const real *w_ih = push_sized(L, 8, "lstm: weight_ih", width, g.inputs, 0);
  const real *w_hh = push_sized(L, 9, "lstm: weight_hh", width, h, 0);
  g.lengths = push_lengths(L, 11, &g);
  real *dgates = scratch_push(L, (size_t)(rows * width)), *scratch = scratch_push(L, (size_t)lstm_backward_scratch(&g));
  int scratch_index = lua_gettop(L);
  real *dx = push_input_gradient(L, lua_toboolean(L, 12), &g);
  real *dw_ih = push_wanted(L, lua_toboolean(L, 13), width, g.inputs);
  real *dw_hh = push_wanted(L, lua_toboolean(L, 14), width, h);
  real *db = push_wanted(L, lua_toboolean(L, 15), width, 0);
  real *dh = push_state_gradient(L, 2, "lstm: gradient of h", &g);
  real *dc = push_state_gradient(L, 3, "lstm: gradient of c", &g);

  lstm_backward(&g, dy, w_hh, gates, cells, dgates, dh, dc, scratch);
  const Matrix inputs = {x, g.inputs, 0}, states = {hidden + (g.reverse ? g.n * h : 0), h, 0};
  const Matrix changes = {dgates, width, 0}, transposed = {dgates, width, 1};
  if (dx != NULL) product(rows, g.inputs, width, &changes, &(Matrix){w_ih, g.inputs, 0}, dx);
  if (dw_ih != NULL) product(width, g.inputs, rows, &transposed, &inputs, dw_ih);
  if (dw_hh != NULL) product(width, h, rows, &transposed, &states, dw_hh);
  if (db != NULL) column_sums(rows, width, dgates, db);
  scratch_release(L, scratch_index);
  scratch_release(L, scratch_index - 1);
  tensor_check_interrupt(L);
  return 6;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_lstm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
