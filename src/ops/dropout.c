/*
** dropout.c -- dropout (Srivastava et al. 2014). Whether number i of a tensor, counted in the order of its memory, is
** kept is a function of (seed, stream, i), so the backward draws the same mask again instead of keeping it.
*/
#include "../base/parallel.h"
#include "../base/rng.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

enum { NUMBERS_AT_ONCE = 4 * RNG_BLOCKS };

typedef struct Dropout {
  uint64_t seed, stream;
  uint32_t threshold; /* words below it drop */
  real scale;         /* of what is kept; 0 where nothing is */
} Dropout;

static void mask_of(const Dropout *d, long first, real mask[NUMBERS_AT_ONCE]) {
  uint32_t word[4][RNG_BLOCKS];
  const uint32_t threshold = d->threshold;
  const real scale = d->scale;
  rng_blocks(d->seed, d->stream, (uint64_t)first / 4, word);
  for (int j = 0; j < RNG_BLOCKS; j++)
    for (int k = 0; k < 4; k++) mask[4 * j + k] = word[k][j] >= threshold ? scale : 0;
}

/* y = x * mask (n) */
static void drop(const Dropout *d, long n, const real *x, real *y) {
#pragma omp parallel for if (n > PARALLEL_MIN)
  for (long first = 0; first < n; first += NUMBERS_AT_ONCE) {
    real mask[NUMBERS_AT_ONCE];
    long count = n - first < NUMBERS_AT_ONCE ? n - first : NUMBERS_AT_ONCE;
    mask_of(d, first, mask);
    for (long i = 0; i < count; i++) y[first + i] = x[first + i] * mask[i];
  }
}

/* ---- bindings ---- */

static Dropout check_dropout(lua_State *L, int arg) {
  double p = luaL_checknumber(L, arg);
  if (!(p >= 0 && p <= 1)) tensor_error(L, "dropout: p must lie in 0..1, got %f", (lua_Number)p);
  Dropout d = {(uint64_t)luaL_checkinteger(L, arg + 1), (uint64_t)luaL_checkinteger(L, arg + 2), 0, 0};
  d.threshold = (uint32_t)(p * UINT32_MAX);
  if (p < 1) d.scale = (real)(1 / (1 - p));
  return d;
}

/* The layout in which a tensor lies already, or that it gets. */
static TensorLayout layout_of(const Tensor *t) {
  return tensor_is_layout(t, LAYOUT_IMAGE) ? LAYOUT_IMAGE : LAYOUT_ROWS;
}

/* forward(x, p, seed, stream) -> y */
static int l_forward(lua_State *L) {
  const Tensor *x = tensor_check_real(L, 1, "dropout: input", 0);
  Dropout d = check_dropout(L, 2);
  TensorLayout layout = layout_of(x);
  x = tensor_push_in_layout(L, 1, layout);
  Tensor *y = tensor_push(L, DTYPE_REAL, x->ndim, x->shape, layout);
  drop(&d, tensor_numel(x), x->data, y->data);
  return 1;
}

/* backward(dy, y, p, seed, stream) -> dx, with the mask of y */
static int l_backward(lua_State *L) {
  const Tensor *dy = tensor_check_real(L, 1, "dropout: gradient", 0),
               *y = tensor_check_real(L, 2, "dropout: output", 0);
  Dropout d = check_dropout(L, 3);
  if (!tensor_same_shape(dy, y))
    tensor_error(L, "dropout: the gradient is %s, the output %s", tensor_describe(L, dy), tensor_describe(L, y));
  TensorLayout layout = layout_of(y);
  dy = tensor_push_in_layout(L, 1, layout);
  Tensor *dx = tensor_push(L, DTYPE_REAL, y->ndim, y->shape, layout);
  drop(&d, tensor_numel(dy), dy->data, dx->data);
  return 1;
}

static const luaL_Reg functions[] = {{"forward", l_forward}, {"backward", l_backward}, {NULL, NULL}};

int luaopen_feral_core_dropout(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
