/* machine.c -- what this machine can do at most, for measurements to be held against: multiply-adds out of registers, and
   copies of memory. Compiled once an instruction set as the kernels are, so that both have the same vectors. */
#include "../base/parallel.h"
#include "../base/simd.h"
#include "../tensor/tensor.h"

enum { CHAINS = 12 }; /* sums that do not wait for each other: two a cycle, each ready after 4 or 5, are 10 */

/* Returns what came of it, so that no compiler leaves it out. */
static real multiply_adds(long rounds, real factor, real term) {
  vreal chain[CHAINS], f = vset(factor), t = vset(term);
  for (int i = 0; i < CHAINS; i++) chain[i] = vset((real)i);
  for (long r = 0; r < rounds; r++)
    for (int i = 0; i < CHAINS; i++) chain[i] = chain[i] * f + t;
  for (int i = 1; i < CHAINS; i++) chain[0] += chain[i];
  return vsum(chain[0]);
}

/* multiply_adds(rounds) -> floating-point operations that all threads together did, and a number to be ignored */
static int l_multiply_adds(lua_State *L) {
  long rounds = tensor_check_size(L, 1, "multiply_adds: rounds", 1);
  long threads = omp_get_max_threads();
  double sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static, 1)
  for (long i = 0; i < threads; i++) sum += (double)multiply_adds(rounds, (real)0.999, (real)0.001);
  lua_pushnumber(L, 2.0 * CHAINS * VLANES * (double)rounds * (double)threads);
  lua_pushnumber(L, sum);
  return 2;
}

/* copy(to, from) -> bytes read and written: memcpy's of all threads, between contiguous tensors of one size */
static int l_copy(lua_State *L) {
  const Tensor *to = tensor_check_real(L, 1, "copy: to", 1), *from = tensor_check_real(L, 2, "copy: from", 1);
  if (!tensor_same_shape(to, from) || !tensor_is_dense(to) || !tensor_is_dense(from) || to->data == from->data)
    tensor_error(L, "copy: two contiguous tensors of one size expected, got %s and %s", tensor_describe(L, to),
                 tensor_describe(L, from));
  long n = to->shape[0], threads = omp_get_max_threads();
#pragma omp parallel for schedule(static, 1)
  for (long i = 0; i < threads; i++) {
    long first = piece_start(n, threads, i), count = piece_start(n, threads, i + 1) - first;
    memcpy(tensor_reals(to) + first, tensor_reals(from) + first, (size_t)count * sizeof(real));
  }
  lua_pushnumber(L, 2.0 * (double)n * (double)sizeof(real));
  return 1;
}

static const luaL_Reg functions[] = {{"multiply_adds", l_multiply_adds}, {"copy", l_copy}, {NULL, NULL}};

int luaopen_feral_core_machine(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
