/* convlstm.c -- a layer of convolutional LSTM over whole sequences of images; see kernels/convlstm.h. People see
   N x T x C x H x W; memory goes step by step, images channels last: (T,N,H,W,C). */
#include "../kernels/recurrent/convlstm.h"

#include <string.h>

#include "../tensor/tensor.h"

enum { GATES = 4, STACK = 40 };

/* Numbers in one image between its zeros, so that no product of sizes overflows. */
static const double PADDED_MOST = 1e15;

/* ---- sequences of images ---- */

/* Pushes (T N) x C x H x W, which lies as sequences do. */
static real *push_images(lua_State *L, const ConvLstmGeometry *g, long slots, long channels) {
  return tensor_push(L, DTYPE_REAL, 4, (long[]){slots * g->n, channels, g->h, g->w}, LAYOUT_IMAGE)->data;
}

/* N x T x C x H x W as it lies in memory. */
static Tensor sequences(const ConvLstmGeometry *g, long steps, long c) {
  long image = c * g->h * g->w;
  return (Tensor){.ndim = 5, .shape = {g->n, steps, c, g->h, g->w}, .stride = {image, g->n * image, 1, g->w * c, c}};
}

/* Pushes a view N x T x C x H x W of the images at 'index', from slot 'from' on. */
static Tensor *push_sequences(lua_State *L, int index, const ConvLstmGeometry *g, long from) {
  const Tensor *t = lua_touserdata(L, index);
  Tensor s = sequences(g, t->shape[0] / g->n - from, t->shape[1]);
  return tensor_push_view(L, index, 5, s.shape, s.stride, from * s.stride[1]);
}

/* Pushes a view N x C x H x W of the last slot of the images at 'index'. */
static void push_last(lua_State *L, int index, const ConvLstmGeometry *g) {
  const Tensor *t = lua_touserdata(L, index);
  long shape[] = {g->n, t->shape[1], g->h, g->w};
  tensor_push_view(L, index, 4, shape, t->stride, (t->shape[0] - g->n) * t->stride[0]);
}

static bool lies_as(const Tensor *t, const Tensor *wanted) {
  for (int d = 0; d < t->ndim; d++)
    if (t->shape[d] > 1 && t->stride[d] != wanted->stride[d]) return false;
  return true;
}

/* Pushes the sequences at 'index' as (T N) x C x H x W images: a view if they lie so, else a copy. */
static const real *push_step_by_step(lua_State *L, int index, const ConvLstmGeometry *g) {
  const Tensor *t = lua_touserdata(L, index);
  Tensor wanted = sequences(g, t->shape[1], t->shape[2]);
  if (lies_as(t, &wanted)) {
    long shape[] = {t->shape[1] * g->n, t->shape[2], g->h, g->w};
    long stride[] = {wanted.stride[0], 1, wanted.stride[3], wanted.stride[4]};
    return tensor_push_view(L, index, 4, shape, stride, 0)->data;
  }
  real *images = push_images(L, g, t->shape[1], t->shape[2]);
  tensor_copy(push_sequences(L, -1, g, 0), t);
  lua_pop(L, 1);
  return images;
}

/* ---- arguments ---- */

static void check_sized(lua_State *L, int arg, const char *what, int ndim, const long *shape) {
  Tensor expected = {.ndim = ndim};
  memcpy(expected.shape, shape, (size_t)ndim * sizeof *shape);
  const Tensor *t = tensor_check_real(L, arg, what, 0);
  if (!tensor_same_shape(t, &expected))
    tensor_error(L, "%s is %s, %s expected", what, tensor_describe(L, t), tensor_describe(L, &expected));
}

/* Pushes the tensor at 'arg', which must have this shape, in the layout. */
static const real *push_sized(lua_State *L, int arg, const char *what, int ndim, const long *shape,
                              TensorLayout layout) {
  check_sized(L, arg, what, ndim, shape);
  return tensor_push_in_layout(L, arg, layout)->data;
}

static const real *push_weight(lua_State *L, int arg, const char *what, const ConvLstmGeometry *g, long channels) {
  return push_sized(L, arg, what, 4, (long[]){GATES * g->f, channels, g->kh, g->kw}, LAYOUT_ROWS);
}

/* Pushes 'slots' times N images of so many channels. */
static const real *push_given(lua_State *L, int arg, const char *what, const ConvLstmGeometry *g, long slots,
                              long channels) {
  return push_sized(L, arg, what, 4, (long[]){slots * g->n, channels, g->h, g->w}, LAYOUT_IMAGE);
}
static const real *push_optional(lua_State *L, int arg, const char *what, const ConvLstmGeometry *g) {
  return lua_isnoneornil(L, arg) ? NULL : push_given(L, arg, what, g, 1, g->f);
}

static void check_room(lua_State *L, const ConvLstmGeometry *g, const Tensor *x) {
  double padded = (double)(g->h + g->kh) * (double)(g->w + g->kw) * (double)(GATES * g->f + g->c);
  if (padded > PADDED_MOST)
    tensor_error(L, "convlstm: the input with its padding does not fit in memory (input %s)", tensor_describe(L, x));
}

/* Reads x (N,T,C,H,W) and w_ih (4F,C,KH,KW), the first two arguments. */
static ConvLstmGeometry check_geometry(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "convlstm: input", 5);
  const Tensor *w = tensor_check_real(L, 2, "convlstm: weight_ih", 4);
  if (w->shape[0] % GATES != 0)
    tensor_error(L, "convlstm: weight_ih is %s: its filters must be 4 times the hidden channels",
                 tensor_describe(L, w));
  if (x->shape[2] != w->shape[1])
    tensor_error(L, "convlstm: input has %I channels, weight_ih expects %I (input %s, weight_ih %s)",
                 (lua_Integer)x->shape[2], (lua_Integer)w->shape[1], tensor_describe(L, x), tensor_describe(L, w));
  ConvLstmGeometry g = {.n = x->shape[0],
                        .steps = x->shape[1],
                        .c = x->shape[2],
                        .h = x->shape[3],
                        .w = x->shape[4],
                        .f = w->shape[0] / GATES,
                        .kh = w->shape[2],
                        .kw = w->shape[3]};
  check_room(L, &g, x);
  return g;
}

/* ---- forward ---- */

/* Pushes room for the states after each step, or after the last one alone, behind the first one if that is given and
   will be wanted. Returns where the first step's begins. */
static real *push_states(lua_State *L, const ConvLstmGeometry *g, bool one, const real *first) {
  long size = g->n * g->f * g->h * g->w;
  if (first == NULL) return push_images(L, g, one ? 1 : g->steps, g->f);
  real *states = push_images(L, g, 1 + g->steps, g->f);
  memcpy(states, first, (size_t)size * sizeof *states);
  return states + size;
}

/* forward(x, w_ih, w_hh, bias, h, c, last, keep) -> y N x T x F x H x W, or N x F x H x W of the last step only if last,
   c N x F x H x W after it; if keep what backward wants: x, gates, hidden, cells. The bias (4F) and both of the first
   state h, c (N x F x H x W) may be nil. */
static int l_forward(lua_State *L) {
  lua_settop(L, 8);
  luaL_checkstack(L, STACK, "convlstm");
  ConvLstmGeometry g = check_geometry(L);
  bool last = lua_toboolean(L, 7), keep = lua_toboolean(L, 8);
  ConvLstmForward run = {.one_hidden = last && !keep, .one_cells = !keep};
  run.w_ih = push_weight(L, 2, "convlstm: weight_ih", &g, g.c);
  run.w_hh = push_weight(L, 3, "convlstm: weight_hh", &g, g.f);
  if (!lua_isnil(L, 4)) run.bias = push_sized(L, 4, "convlstm: bias", 1, (long[]){GATES * g.f}, LAYOUT_ROWS);
  run.h_first = push_optional(L, 5, "convlstm: state h", &g);
  run.c_first = push_optional(L, 6, "convlstm: state c", &g);
  if ((run.h_first == NULL) != (run.c_first == NULL)) tensor_error(L, "convlstm: the state needs both h and c");
  run.x = push_step_by_step(L, 1, &g);
  int x = lua_gettop(L);
  run.hidden = push_states(L, &g, run.one_hidden, keep ? run.h_first : NULL);
  run.cells = push_states(L, &g, run.one_cells, keep ? run.c_first : NULL);
  if (keep) run.gates = push_images(L, &g, g.steps, GATES * g.f);
  real *scratch = scratch_push(L, (size_t)convlstm_forward_scratch(&g, keep));
  int top = lua_gettop(L);
  if (last)
    push_last(L, x + 1, &g);
  else
    push_sequences(L, x + 1, &g, keep && run.h_first != NULL ? 1 : 0);
  push_last(L, x + 2, &g);
  convlstm_forward(&g, &run, scratch);
  scratch_release(L, top);
  tensor_check_interrupt(L);
  if (!keep) return 2;
  lua_pushvalue(L, x);
  lua_pushvalue(L, x + 3);
  lua_pushvalue(L, x + 1);
  lua_pushvalue(L, x + 2);
  return 6;
}

/* ---- backward ---- */

/* Reads dy, N x T x F x H x W or N x F x H x W, what forward kept of input and gates, and w_hh. */
static ConvLstmGeometry check_kept(lua_State *L) {
  const Tensor *dy = tensor_check_real(L, 1, "convlstm: gradient", 0);
  const Tensor *x = tensor_check_real(L, 3, "convlstm: kept input", 4);
  const Tensor *gates = tensor_check_real(L, 4, "convlstm: kept gates", 4);
  const Tensor *w = tensor_check_real(L, 8, "convlstm: weight_hh", 4);
  long n = dy->ndim > 0 ? dy->shape[0] : 1;
  return (ConvLstmGeometry){.n = n,
                            .steps = x->shape[0] / n,
                            .c = x->shape[1],
                            .h = x->shape[2],
                            .w = x->shape[3],
                            .f = gates->shape[1] / GATES,
                            .kh = w->shape[2],
                            .kw = w->shape[3]};
}

/* Pushes the gradient of all steps or of the last one. */
static void push_gradient(lua_State *L, const ConvLstmGeometry *g, ConvLstmBackward *run) {
  if (((const Tensor *)lua_touserdata(L, 1))->ndim == 4) {
    run->dh_last = push_given(L, 1, "convlstm: gradient", g, 1, g->f);
  } else {
    check_sized(L, 1, "convlstm: gradient", 5, (long[]){g->n, g->steps, g->f, g->h, g->w});
    run->dy = push_step_by_step(L, 1, g);
  }
}

/* Pushes room for a weight's gradient, or nil if nobody wants it. */
static real *push_wanted(lua_State *L, int wanted, int ndim, const long *shape) {
  if (lua_toboolean(L, wanted)) return tensor_push(L, DTYPE_REAL, ndim, shape, LAYOUT_ROWS)->data;
  lua_pushnil(L);
  return NULL;
}

/* Pushes room for the input's gradient, or nil if nobody wants it. */
static real *push_input_gradient(lua_State *L, int wanted, const ConvLstmGeometry *g) {
  if (!lua_toboolean(L, wanted)) return lua_pushnil(L), NULL;
  real *dx = push_images(L, g, g->steps, g->c);
  push_sequences(L, -1, g, 0);
  lua_remove(L, -2);
  return dx;
}

/* What is made of the gates' gradients. The convolutions are of all steps at once; if there is no state before the first
   one, its gates have nothing to do with w_hh. */
typedef struct Gradients {
  ConvGeometry input, state;
  const real *dgates, *x, *w_ih, *before; /* before: the hidden states before each step, from the first that there is */
  real *dx, *dw_ih, *dw_hh;
} Gradients;

static Gradients gradients_of(const ConvLstmGeometry *g, bool has_first) {
  long steps = has_first ? g->steps : g->steps - 1;
  return (Gradients){.input = convlstm_input_conv(g, g->steps * g->n), .state = convlstm_state_conv(g, steps * g->n)};
}

static size_t gradients_scratch(const Gradients *d) {
  long input = conv_backward_input_scratch(&d->input), ih = conv_backward_weight_scratch(&d->input);
  long hh = d->state.n > 0 ? conv_backward_weight_scratch(&d->state) : 0, most = input > ih ? input : ih;
  return (size_t)(most > hh ? most : hh);
}

static void make_gradients(const Gradients *d, real *scratch) {
  size_t skipped = (size_t)((d->input.n - d->state.n) * d->input.h * d->input.w * d->input.f);
  if (d->dx != NULL) conv_backward_input(&d->input, d->dgates, d->w_ih, d->dx, scratch);
  if (d->dw_ih != NULL) conv_backward_weight(&d->input, d->dgates, d->x, d->dw_ih, scratch);
  if (d->dw_hh == NULL) return;
  if (d->state.n > 0)
    conv_backward_weight(&d->state, d->dgates + skipped, d->before, d->dw_hh, scratch);
  else
    memset(d->dw_hh, 0, (size_t)(d->state.f * d->state.c * d->state.kh * d->state.kw) * sizeof *d->dw_hh);
}

/* Pushes what forward kept of the states; the cells before the first step are NULL if they were not given. */
static const real *push_kept_states(lua_State *L, const ConvLstmGeometry *g, ConvLstmBackward *run) {
  const Tensor *kept = tensor_check_real(L, 5, "convlstm: kept states", 4);
  long slots = kept->shape[0] > g->steps * g->n ? g->steps + 1 : g->steps, size = g->n * g->f * g->h * g->w;
  const real *hidden = push_given(L, 5, "convlstm: kept states", g, slots, g->f);
  run->cells = push_given(L, 6, "convlstm: kept cells", g, slots, g->f);
  if (slots > g->steps) {
    run->c_first = run->cells;
    run->cells += size;
  }
  return hidden;
}

/* backward(dy, dc or nil, x, gates, hidden, cells, w_ih, w_hh, want_x, want_w_ih, want_w_hh, want_b) -> dx, dw_ih, dw_hh,
   db, and dh, dc of the first state if one was given. Puts the gradients of what went into the gates in place of the
   gates: they serve once. */
static int l_backward(lua_State *L) {
  lua_settop(L, 12);
  luaL_checkstack(L, STACK, "convlstm");
  ConvLstmGeometry g = check_kept(L);
  ConvLstmBackward run = {.dc_last = push_optional(L, 2, "convlstm: gradient of c", &g)};
  push_gradient(L, &g, &run);
  const real *x = push_given(L, 3, "convlstm: kept input", &g, g.steps, g.c);
  push_given(L, 4, "convlstm: kept gates", &g, g.steps, GATES * g.f);
  run.gates = ((Tensor *)lua_touserdata(L, -1))->data;
  const real *before = push_kept_states(L, &g, &run);
  const real *w_ih = push_weight(L, 7, "convlstm: weight_ih", &g, g.c);
  run.w_hh = push_weight(L, 8, "convlstm: weight_hh", &g, g.f);
  Gradients d = gradients_of(&g, run.c_first != NULL);
  d.dgates = run.gates;
  d.x = x;
  d.w_ih = w_ih;
  d.before = before;
  real *scratch = scratch_push(L, (size_t)convlstm_backward_scratch(&g)),
       *rest = scratch_push(L, gradients_scratch(&d));
  int top = lua_gettop(L);
  d.dx = push_input_gradient(L, 9, &g);
  d.dw_ih = push_wanted(L, 10, 4, (long[]){GATES * g.f, g.c, g.kh, g.kw});
  d.dw_hh = push_wanted(L, 11, 4, (long[]){GATES * g.f, g.f, g.kh, g.kw});
  run.dbias = push_wanted(L, 12, 1, (long[]){GATES * g.f});
  run.dh = push_images(L, &g, 1, g.f);
  run.dc = push_images(L, &g, 1, g.f);
  convlstm_backward(&g, &run, scratch);
  make_gradients(&d, rest);
  scratch_release(L, top);
  scratch_release(L, top - 1);
  tensor_check_interrupt(L);
  if (run.c_first == NULL) lua_pop(L, 2);
  return run.c_first != NULL ? 6 : 4;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_convlstm(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
