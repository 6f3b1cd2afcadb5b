/*
** optim.c -- the parameter steps of optimisers, each one pass over memory; norms of gradients; running averages.
**
** Sources: SGD with momentum as in Sutskever et al. 2013; RMSprop: Tieleman and Hinton 2012; Adam: Kingma and Ba 2015;
** AdamW: Loshchilov and Hutter 2019. Where papers leave a choice (dampening, what eps is added to), it is PyTorch's.
** One call takes all parameters, cut into pieces that threads share. A step changes each number by itself, and the pieces depend
** on the sizes alone, so that vector loops end at the same places: the number of threads cannot show.
*/
#include <math.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

enum { PIECE = PARALLEL_MIN, STATES_MOST = 3 };

/* A parameter or a piece of one, its gradient and what the optimiser remembers of it: n elements each, none overlaps another. */
typedef struct Memory {
  long n, t; /* t: counts its steps, from 1 */
  real *p;
  const real *g;
  real *state[STATES_MOST]; /* NULL where a rule goes without; the compiler makes a loop for each case */
} Memory;

typedef struct Pieces {
  long count, numbers;
  Memory *piece;
} Pieces;

typedef void (*Rule)(const void *settings, const Memory *memory);

static long pieces_of(long n) {
  return (n + PIECE - 1) / PIECE;
}

static Memory piece_of(const Memory *whole, long first) {
  Memory piece = *whole;
  piece.n = whole->n - first < PIECE ? whole->n - first : PIECE;
  piece.p += first;
  if (piece.g != NULL) piece.g += first;
  for (int i = 0; i < STATES_MOST; i++)
    if (piece.state[i] != NULL) piece.state[i] += first;
  return piece;
}

static void run(Rule rule, const void *settings, const Pieces *pieces) {
#pragma omp parallel for schedule(dynamic) if (pieces->numbers > 2 * PARALLEL_MIN)
  for (long i = 0; i < pieces->count; i++) rule(settings, &pieces->piece[i]);
}

typedef struct Sgd {
  real lr, momentum, intake,
      decay; /* intake: 1 - dampening, what a gradient adds to the momentum, but the first whole */
  bool nesterov;
} Sgd;

/* state: momentum, or NULL */
static void sgd(const void *settings, const Memory *memory) {
  const Sgd s = *(const Sgd *)settings;
  real *restrict p = memory->p, *restrict buffer = memory->state[0];
  const real *restrict g = memory->g;
  real intake = memory->t == 1 ? 1 : s.intake;
  for (long i = 0; i < memory->n; i++) {
    real move = g[i] + s.decay * p[i];
    if (buffer != NULL) {
      buffer[i] = s.momentum * buffer[i] + intake * move;
      move = s.nesterov ? move + s.momentum * buffer[i] : buffer[i];
    }
    p[i] -= s.lr * move;
  }
}

/* decay is added to the gradient, shrink multiplies the parameter (AdamW) */
typedef struct Adam {
  double lr, beta1, beta2;
  real eps, decay, shrink;
} Adam;

/* states: running mean, running square */
static void adam(const void *settings, const Memory *memory) {
  const Adam s = *(const Adam *)settings;
  real *restrict p = memory->p, *restrict mean = memory->state[0], *restrict square = memory->state[1];
  const real *restrict g = memory->g;
  real beta1 = (real)s.beta1, beta2 = (real)s.beta2, rest1 = (real)(1 - s.beta1), rest2 = (real)(1 - s.beta2);
  real step = (real)(s.lr / (1 - pow(s.beta1, (double)memory->t)));
  real root = (real)(1 / sqrt(1 - pow(s.beta2, (double)memory->t)));
  for (long i = 0; i < memory->n; i++) {
    real d = g[i] + s.decay * p[i];
    mean[i] = beta1 * mean[i] + rest1 * d;
    square[i] = beta2 * square[i] + rest2 * d * d;
    p[i] = s.shrink * p[i] - step * mean[i] / ((real)sqrt(square[i]) * root + s.eps);
  }
}

typedef struct RmsProp {
  real lr, alpha, rest, eps, decay, momentum; /* rest: 1 - alpha */
} RmsProp;

/* states: running square, running mean or NULL (uncentred), momentum or NULL */
static void rmsprop(const void *settings, const Memory *memory) {
  const RmsProp s = *(const RmsProp *)settings;
  real *restrict p = memory->p, *restrict square = memory->state[0];
  real *restrict mean = memory->state[1], *restrict buffer = memory->state[2];
  const real *restrict g = memory->g;
  for (long i = 0; i < memory->n; i++) {
    real d = g[i] + s.decay * p[i];
    square[i] = s.alpha * square[i] + s.rest * d * d;
    real variance = square[i];
    if (mean != NULL) {
      mean[i] = s.alpha * mean[i] + s.rest * d;
      variance -= mean[i] * mean[i];
      variance = variance < 0 ? 0 : variance; /* where rounding took it below; a NaN stays one */
    }
    real step = d / ((real)sqrt(variance) + s.eps);
    if (buffer != NULL) step = buffer[i] = s.momentum * buffer[i] + step;
    p[i] -= s.lr * step;
  }
}

/* p moves towards g by this part of the way */
static void average(const void *settings, const Memory *memory) {
  const real weight = *(const real *)settings;
  real *restrict mean = memory->p;
  const real *restrict x = memory->g;
  for (long i = 0; i < memory->n; i++) mean[i] += weight * (x[i] - mean[i]);
}

/* p and the first state change places */
static void exchange(const void *settings, const Memory *memory) {
  (void)settings;
  real *restrict a = memory->p, *restrict b = memory->state[0];
  for (long i = 0; i < memory->n; i++) {
    real t = a[i];
    a[i] = b[i]; /* NOLINT(clang-analyzer-core.NullDereference): l_exchange sets it */
    b[i] = t;
  }
}

static void scale(const void *settings, const Memory *memory) {
  const real factor = *(const real *)settings;
  for (long i = 0; i < memory->n; i++) memory->p[i] *= factor;
}

enum { SUM_LANES = 16 };

static double squares_of(const real *x, long n) {
  double lane[SUM_LANES] = {0}, total = 0;
  long i = 0;
  for (; i + SUM_LANES <= n; i += SUM_LANES)
    for (int j = 0; j < SUM_LANES; j++) lane[j] += (double)x[i + j] * x[i + j];
  for (; i < n; i++) lane[0] += (double)x[i] * x[i];
  for (int j = 0; j < SUM_LANES; j++) total += lane[j];
  return total;
}

/* sums (pieces) */
static double sum_of_squares(const Pieces *pieces, double *sums) {
  double total = 0;
#pragma omp parallel for schedule(dynamic) if (pieces->numbers > 2 * PARALLEL_MIN)
  for (long i = 0; i < pieces->count; i++) sums[i] = squares_of(pieces->piece[i].p, pieces->piece[i].n);
  for (long i = 0; i < pieces->count; i++) total += sums[i];
  return total;
}

/* ---- bindings: they take lists of tensors ---- */

enum { GRADIENTS = 2 }; /* the argument with their list */

/* The i-th of the list at 'arg', contiguous numbers, as many as 'like' has (NULL: any). 'what' is "op: gradient", for
   messages. Gradients are read, all else is written to. */
static const Tensor *check_item(lua_State *L, int arg, long i, const char *what, const Tensor *like) {
  lua_rawgeti(L, arg, i);
  const Tensor *t = tensor_check_real(L, lua_gettop(L), what, 0);
  if (!tensor_is_layout(t, LAYOUT_ROWS)) tensor_error(L, "%s must be contiguous", what);
  if (like != NULL && !tensor_same_shape(t, like))
    tensor_error(L, "%s is %s, the parameter %s", what, tensor_describe(L, t), tensor_describe(L, like));
  if (arg != GRADIENTS) tensor_touch(L, lua_gettop(L));
  lua_pop(L, 1);
  return t;
}

/* The i-th parameter of lists (parameters, gradients, states ..., counts of steps); all but the first may be missing. */
static Memory check_memory(lua_State *L, long i, int states) {
  const Tensor *p = check_item(L, 1, i, "step: parameter", NULL);
  Memory memory = {.n = tensor_numel(p), .p = tensor_reals(p)};
  if (lua_istable(L, GRADIENTS)) memory.g = tensor_reals(check_item(L, GRADIENTS, i, "step: gradient", p));
  for (int k = 0; k < states && k < STATES_MOST; k++)
    if (lua_istable(L, 3 + k)) memory.state[k] = tensor_reals(check_item(L, 3 + k, i, "step: state", p));
  if (lua_istable(L, 3 + states)) {
    lua_rawgeti(L, 3 + states, i);
    memory.t = (long)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  return memory;
}

/* All parameters of the lists from argument 1 on, checked, in pieces, which lie in scratch memory that is pushed. */
static Pieces push_pieces(lua_State *L, int states) {
  luaL_checktype(L, 1, LUA_TTABLE);
  long parameters = (long)luaL_len(L, 1);
  Pieces pieces = {0};
  for (long i = 1; i <= parameters; i++) {
    long n = check_memory(L, i, states).n;
    pieces.numbers += n;
    pieces.count += pieces_of(n);
  }
  Memory *at = (Memory *)scratch_push(L, (size_t)pieces.count * (sizeof *at / sizeof(real)));
  pieces.piece = at;
  for (long i = 1; i <= parameters; i++) {
    Memory whole = check_memory(L, i, states);
    for (long first = 0; first < whole.n; first += PIECE) *at++ = piece_of(&whole, first);
  }
  return pieces;
}

static int run_all(lua_State *L, Rule rule, const void *settings, const Pieces *pieces) {
  run(rule, settings, pieces);
  scratch_release(L, lua_gettop(L));
  return 0;
}

static real check_setting(lua_State *L, int arg) {
  return (real)luaL_checknumber(L, arg);
}

/* sgd(params, grads, buffers or nil, steps, lr, momentum, dampening, weight_decay, nesterov); steps: how often each has been
   changed, this time included */
static int l_sgd(lua_State *L) {
  lua_settop(L, 9);
  Sgd settings = {.lr = check_setting(L, 5),
                  .momentum = check_setting(L, 6),
                  .intake = (real)(1 - luaL_checknumber(L, 7)),
                  .decay = check_setting(L, 8),
                  .nesterov = lua_toboolean(L, 9)};
  luaL_checktype(L, 2, LUA_TTABLE);
  Pieces pieces = push_pieces(L, 1);
  return run_all(L, sgd, &settings, &pieces);
}

/* adam(params, grads, means, squares, steps, lr, beta1, beta2, eps, weight_decay, decoupled) */
static int l_adam(lua_State *L) {
  lua_settop(L, 11);
  double lr = luaL_checknumber(L, 6), decay = luaL_checknumber(L, 10);
  bool decoupled = lua_toboolean(L, 11);
  Adam settings = {.lr = lr,
                   .beta1 = luaL_checknumber(L, 7),
                   .beta2 = luaL_checknumber(L, 8),
                   .eps = check_setting(L, 9),
                   .decay = decoupled ? 0 : (real)decay,
                   .shrink = decoupled ? (real)(1 - lr * decay) : 1};
  for (int arg = 2; arg <= 5; arg++) luaL_checktype(L, arg, LUA_TTABLE);
  Pieces pieces = push_pieces(L, 2);
  return run_all(L, adam, &settings, &pieces);
}

/* rmsprop(params, grads, squares, means or nil, buffers or nil, lr, alpha, eps, weight_decay, momentum) */
static int l_rmsprop(lua_State *L) {
  lua_settop(L, 10);
  RmsProp settings = {.lr = check_setting(L, 6),
                      .alpha = check_setting(L, 7),
                      .rest = (real)(1 - luaL_checknumber(L, 7)),
                      .eps = check_setting(L, 8),
                      .decay = check_setting(L, 9),
                      .momentum = check_setting(L, 10)};
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  Pieces pieces = push_pieces(L, 3);
  return run_all(L, rmsprop, &settings, &pieces);
}

/* average(means, params, weight): mean += weight * (x - mean) */
static int l_average(lua_State *L) {
  real weight = check_setting(L, 3);
  lua_settop(L, 2);
  luaL_checktype(L, 2, LUA_TTABLE);
  Pieces pieces = push_pieces(L, 0);
  return run_all(L, average, &weight, &pieces);
}

/* exchange(a, b): their elements change places */
static int l_exchange(lua_State *L) {
  lua_settop(L, 2);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_pushnil(L);
  lua_insert(L, 2); /* no gradients; b is a state */
  Pieces pieces = push_pieces(L, 1);
  return run_all(L, exchange, NULL, &pieces);
}

/* scale(tensors, factor) */
static int l_scale(lua_State *L) {
  real factor = check_setting(L, 2);
  lua_settop(L, 1);
  Pieces pieces = push_pieces(L, 0);
  return run_all(L, scale, &factor, &pieces);
}

/* sum_of_squares(tensors) -> a Lua number */
static int l_sum_of_squares(lua_State *L) {
  lua_settop(L, 1);
  Pieces pieces = push_pieces(L, 0);
  int at = lua_gettop(L);
  double *sums = (double *)scratch_push(L, (size_t)pieces.count * (sizeof(double) / sizeof(real)));
  double sum = sum_of_squares(&pieces, sums);
  scratch_release(L, at + 1);
  scratch_release(L, at);
  lua_pushnumber(L, sum);
  return 1;
}

static const luaL_Reg functions[] = {
    {"sgd", l_sgd},
    {"adam", l_adam},
    {"rmsprop", l_rmsprop},
    {"average", l_average},
    {"exchange", l_exchange},
    {"scale", l_scale},
    {"sum_of_squares", l_sum_of_squares},
    {NULL, NULL},
};

int luaopen_feral_core_optim(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
