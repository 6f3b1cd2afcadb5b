/*
** optim.c -- the parameter steps of optimisers, each one pass over memory; norms of gradients; running averages.
**
** Sources: SGD with momentum as in Sutskever et al. 2013; RMSprop: Tieleman and Hinton 2012; Adam: Kingma and Ba 2015;
** AdamW: Loshchilov and Hutter 2019. Where papers leave a choice (dampening, what eps is added to), it is PyTorch's.
** A step changes each number by itself, and the pieces that threads share depend on the size alone, so that vector
** loops end at the same places: the number of threads cannot show.
*/
#include <math.h>

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

enum { PIECE = PARALLEL_MIN, STATES_MOST = 3 };

/* A parameter, its gradient and what the optimiser remembers of it: n numbers each, none overlaps another. */
typedef struct Memory {
  long n;
  real *p;
  const real *g;
  real *state[STATES_MOST]; /* NULL where a rule goes without; the compiler makes a loop for each case */
} Memory;

typedef void (*Rule)(const void *settings, const Memory *memory);

static Memory piece_of(const Memory *whole, long first) {
  Memory piece = {
      .n = whole->n - first < PIECE ? whole->n - first : PIECE, .p = whole->p + first, .g = whole->g + first};
  for (int i = 0; i < STATES_MOST; i++) piece.state[i] = whole->state[i] != NULL ? whole->state[i] + first : NULL;
  return piece;
}

static void run(Rule rule, const void *settings, const Memory *memory) {
  long pieces = (memory->n + PIECE - 1) / PIECE;
#pragma omp parallel for if (pieces > 2)
  for (long i = 0; i < pieces; i++) {
    Memory piece = piece_of(memory, i * PIECE);
    rule(settings, &piece);
  }
}

typedef struct Sgd {
  real lr, momentum, intake, decay; /* intake: 1 - dampening, what a gradient adds to the momentum */
  bool nesterov;
} Sgd;

/* state: momentum, or NULL */
static void sgd(const void *settings, const Memory *memory) {
  const Sgd s = *(const Sgd *)settings;
  real *restrict p = memory->p, *restrict buffer = memory->state[0];
  const real *restrict g = memory->g;
  for (long i = 0; i < memory->n; i++) {
    real move = g[i] + s.decay * p[i];
    if (buffer != NULL) {
      buffer[i] = s.momentum * buffer[i] + s.intake * move;
      move = s.nesterov ? move + s.momentum * buffer[i] : buffer[i];
    }
    p[i] -= s.lr * move;
  }
}

/* decay is added to the gradient, shrink multiplies the parameter (AdamW) */
typedef struct Adam {
  real beta1, beta2, rest1, rest2; /* rest: 1 - beta */
  real step, root;                 /* lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
  real eps, decay, shrink;
} Adam;

/* states: running mean, running square */
static void adam(const void *settings, const Memory *memory) {
  const Adam s = *(const Adam *)settings;
  real *restrict p = memory->p, *restrict mean = memory->state[0], *restrict square = memory->state[1];
  const real *restrict g = memory->g;
  for (long i = 0; i < memory->n; i++) {
    real d = g[i] + s.decay * p[i];
    mean[i] = s.beta1 * mean[i] + s.rest1 * d;
    square[i] = s.beta2 * square[i] + s.rest2 * d * d;
    p[i] = s.shrink * p[i] - s.step * mean[i] / ((real)sqrt(square[i]) * s.root + s.eps);
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

enum { SUM_PIECES = 64, SUM_LANES = 16 };

static double squares_of(const real *x, long n) {
  double lane[SUM_LANES] = {0}, total = 0;
  long i = 0;
  for (; i + SUM_LANES <= n; i += SUM_LANES)
    for (int j = 0; j < SUM_LANES; j++) lane[j] += (double)x[i + j] * x[i + j];
  for (; i < n; i++) lane[0] += (double)x[i] * x[i];
  for (int j = 0; j < SUM_LANES; j++) total += lane[j];
  return total;
}

static double sum_of_squares(const real *x, long n) {
  double partial[SUM_PIECES] = {0}, total = 0;
  long pieces = n / PIECE < 1 ? 1 : n / PIECE < SUM_PIECES ? n / PIECE : SUM_PIECES;
#pragma omp parallel for if (pieces > 2)
  for (long i = 0; i < pieces; i++) {
    long first = piece_start(n, pieces, i);
    partial[i] = squares_of(x + first, piece_start(n, pieces, i + 1) - first);
  }
  for (long i = 0; i < pieces; i++) total += partial[i];
  return total;
}

/* ---- bindings ---- */

/* The contiguous numbers at 'arg', as many as 'like' has (NULL: any). 'what' is "op: gradient", for messages.
 */
static const Tensor *check_numbers(lua_State *L, int arg, const char *what, const Tensor *like) {
  const Tensor *t = tensor_check_real(L, arg, what, 0);
  if (!tensor_is_layout(t, LAYOUT_ROWS)) tensor_error(L, "%s must be contiguous", what);
  if (like != NULL && !tensor_same_shape(t, like))
    tensor_error(L, "%s is %s, the parameter %s", what, tensor_describe(L, t), tensor_describe(L, like));
  return t;
}

/* Reads (parameter, gradient, state ...): as many states as 'states', each of which may be nil. */
static Memory check_memory(lua_State *L, int states) {
  const Tensor *p = check_numbers(L, 1, "step: parameter", NULL);
  Memory memory = {.n = tensor_numel(p), .p = tensor_reals(p)};
  memory.g = tensor_reals(check_numbers(L, 2, "step: gradient", p));
  for (int i = 0; i < states && i < STATES_MOST; i++)
    if (!lua_isnoneornil(L, 3 + i)) memory.state[i] = tensor_reals(check_numbers(L, 3 + i, "step: state", p));
  return memory;
}

static real check_setting(lua_State *L, int arg) {
  return (real)luaL_checknumber(L, arg);
}

/* sgd(p, g, buffer or nil, t, lr, momentum, dampening, weight_decay, nesterov); t counts steps from 1 in all of these */
static int l_sgd(lua_State *L) {
  Memory memory = check_memory(L, 1);
  bool first = luaL_checkinteger(L, 4) == 1; /* PyTorch takes the first gradient whole */
  Sgd settings = {.lr = check_setting(L, 5),
                  .momentum = check_setting(L, 6),
                  .intake = first ? 1 : (real)(1 - luaL_checknumber(L, 7)),
                  .decay = check_setting(L, 8),
                  .nesterov = lua_toboolean(L, 9)};
  run(sgd, &settings, &memory);
  return 0;
}

/* adam(p, g, mean, square, t, lr, beta1, beta2, eps, weight_decay, decoupled) */
static int l_adam(lua_State *L) {
  Memory memory = check_memory(L, 2);
  double t = luaL_checknumber(L, 5), lr = luaL_checknumber(L, 6), decay = luaL_checknumber(L, 10);
  double beta1 = luaL_checknumber(L, 7), beta2 = luaL_checknumber(L, 8);
  bool decoupled = lua_toboolean(L, 11);
  Adam settings = {.beta1 = (real)beta1,
                   .beta2 = (real)beta2,
                   .rest1 = (real)(1 - beta1),
                   .rest2 = (real)(1 - beta2),
                   .step = (real)(lr / (1 - pow(beta1, t))),
                   .root = (real)(1 / sqrt(1 - pow(beta2, t))),
                   .eps = check_setting(L, 9),
                   .decay = decoupled ? 0 : (real)decay,
                   .shrink = decoupled ? (real)(1 - lr * decay) : 1};
  luaL_argcheck(L, memory.state[0] != NULL && memory.state[1] != NULL, 3, "adam needs two states");
  run(adam, &settings, &memory);
  return 0;
}

/* rmsprop(p, g, square, mean or nil, buffer or nil, lr, alpha, eps, weight_decay, momentum) */
static int l_rmsprop(lua_State *L) {
  Memory memory = check_memory(L, 3);
  RmsProp settings = {.lr = check_setting(L, 6),
                      .alpha = check_setting(L, 7),
                      .rest = (real)(1 - luaL_checknumber(L, 7)),
                      .eps = check_setting(L, 8),
                      .decay = check_setting(L, 9),
                      .momentum = check_setting(L, 10)};
  luaL_argcheck(L, memory.state[0] != NULL, 3, "rmsprop needs the running square");
  run(rmsprop, &settings, &memory);
  return 0;
}

/* average(mean, x, weight): mean += weight * (x - mean) */
static int l_average(lua_State *L) {
  Memory memory = check_memory(L, 0);
  real weight = check_setting(L, 3);
  run(average, &weight, &memory);
  return 0;
}

/* exchange(a, b): the numbers change places */
static int l_exchange(lua_State *L) {
  Memory memory = check_memory(L, 0);
  memory.state[0] = tensor_reals(lua_touserdata(L, 2));
  run(exchange, NULL, &memory);
  return 0;
}

/* sum_of_squares(t) -> a Lua number */
static int l_sum_of_squares(lua_State *L) {
  tensor_check_real(L, 1, "sum_of_squares: x", 0);
  const Tensor *t = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  lua_pushnumber(L, sum_of_squares(t->data, tensor_numel(t)));
  return 1;
}

static const luaL_Reg functions[] = {
    {"sgd", l_sgd},         {"adam", l_adam},         {"rmsprop", l_rmsprop},
    {"average", l_average}, {"exchange", l_exchange}, {"sum_of_squares", l_sum_of_squares},
    {NULL, NULL},
};

int luaopen_feral_core_optim(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
