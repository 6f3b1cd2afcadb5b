/* svm_kernel.c -- kernel functions over blocks of samples: one matrix product, then a function of each number. */
#include "svm_solver.h"

#include "../../base/blas.h"
#include "../../base/interrupt.h"
#include "../../base/parallel.h"
#include "../../base/simd.h"

enum { BLOCK = 128, TILE = 256 };

void svm_squares(const real *x, long count, long width, real *square) {
#pragma omp parallel for if (count * width > PARALLEL_MIN)
  for (long i = 0; i < count; i++) {
    const real *row = x + i * width;
    vreal sum = {0};
    long j = 0;
    for (; j + VLANES <= width; j += VLANES) sum += vload(row + j) * vload(row + j);
    vreal rest = vload_part(row + j, (int)(width - j));
    square[i] = vsum(sum + rest * rest);
  }
}

/* row[j] = exp(-gamma max(0, a + b[j] - 2 row[j])) */
static void finish_rbf(real gamma, real a, const real *b, long n, real *row) {
  long j = 0;
  for (; j + VLANES <= n; j += VLANES) {
    vreal distance = vmax(a + vload(b + j) - 2 * vload(row + j), vset(0));
    vstore(row + j, vexp(-gamma * distance));
  }
  if (j < n) {
    int rest = (int)(n - j);
    vreal distance = vmax(a + vload_part(b + j, rest) - 2 * vload_part(row + j, rest), vset(0));
    vstore_part(row + j, vexp(-gamma * distance), rest);
  }
}

static real power(real base, int exponent) {
  real result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

static void finish_row(const SvmKernel *kernel, real a, const real *b, long n, real *row) {
  if (kernel->kind == SVM_RBF) finish_rbf(kernel->gamma, a, b, n, row);
  if (kernel->kind == SVM_POLY)
    for (long j = 0; j < n; j++) row[j] = power(kernel->gamma * row[j] + kernel->coef0, kernel->degree);
}

void svm_kernel_block(const SvmKernel *kernel, SvmRows a, SvmRows b, real *values, long ld) {
  gemm(0, 1, a.count, b.count, a.width, 1, a.x, a.width, b.x, b.width, 0, values, ld);
  for (long i = 0; i < a.count; i++) finish_row(kernel, a.square[i], b.square, b.count, values + i * ld);
}

/* The machines' values of at most BLOCK rows: the support in tiles, each by two matrix products. */
static void decide_block(const SvmKernel *kernel, SvmRows x, SvmRows support, const real *coef, const real *bias,
                         long machines, real *f) {
  real values[BLOCK * TILE] = {0};
  for (long t = 0; t < support.count; t += TILE) {
    long rest = support.count - t;
    SvmRows some = {support.x + t * support.width, support.square + t, rest < TILE ? rest : TILE, support.width};
    svm_kernel_block(kernel, x, some, values, TILE);
    gemm(0, 0, x.count, machines, some.count, 1, values, TILE, coef + t * machines, machines, t > 0, f, machines);
  }
  for (long i = 0; i < x.count; i++)
    for (long m = 0; m < machines; m++) f[i * machines + m] += bias[m];
}

void svm_decide(const SvmKernel *kernel, SvmRows x, SvmRows support, const real *coef, const real *bias, long machines,
                real *f) {
#pragma omp parallel for schedule(dynamic)
  for (long first = 0; first < x.count; first += BLOCK) {
    long rest = x.count - first;
    SvmRows some = {x.x + first * x.width, x.square + first, rest < BLOCK ? rest : BLOCK, x.width};
    if (!interrupted()) decide_block(kernel, some, support, coef, bias, machines, f + first * machines);
  }
}
