/* svm_kernel.c -- kernel functions over blocks of samples: one matrix product, then a function of each number. */
#include "svm_solver.h"

#include <math.h>

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

/* What the rounding of |a|^2 + |b|^2 - 2 a.b may come to, as a share of |a|^2 + |b|^2; and the exponent below which a
   kernel value is nothing. */
static const double ROUNDING = 4e-6, EXPONENT_LEAST = -30;
/* gamma (|a|^2 + |b|^2) up to which that rounding does not show in kernel values. */
static const double SURE = 16;

/* |x - z|^2 without that rounding: 0 for equal rows. */
static double distance(const real *x, const real *z, long width) {
  vreal sum = {0};
  long j = 0;
  for (; j + VLANES <= width; j += VLANES) {
    vreal d = vload(x + j) - vload(z + j);
    sum += d * d;
  }
  vreal rest = vload_part(x + j, (int)(width - j)) - vload_part(z + j, (int)(width - j));
  return vsum(sum + rest * rest);
}

/* finish_rbf where squared lengths are large beside 1 / gamma: of near rows the distance is taken again, from themselves. */
static void finish_rbf_with_care(real gamma, const real *x, real a, SvmRows b, real *row) {
  for (long j = 0; j < b.count; j++) {
    double lengths = (double)a + b.square[j], d = fmax(lengths - 2.0 * row[j], 0);
    bool near = -gamma * (d - ROUNDING * lengths) > EXPONENT_LEAST;
    if (near && gamma * lengths > SURE) d = distance(x, b.x + j * b.width, b.width);
    row[j] = (real)exp(-gamma * d);
  }
}

static real largest(const real *x, long n) {
  real most = x[0];
  for (long i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
  return most;
}

static real power(real base, int exponent) {
  real result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

static void finish_poly(const SvmKernel *kernel, long n, real *row) {
  for (long j = 0; j < n; j++) row[j] = power(kernel->gamma * row[j] + kernel->coef0, kernel->degree);
}

void svm_kernel_block(const SvmKernel *kernel, SvmRows a, SvmRows b, real *values, long ld) {
  gemm(0, 1, a.count, b.count, a.width, 1, a.x, a.width, b.x, b.width, 0, values, ld);
  real most = kernel->kind == SVM_RBF ? largest(b.square, b.count) : 0;
  for (long i = 0; i < a.count; i++) {
    real *row = values + i * ld;
    if (kernel->kind == SVM_POLY) finish_poly(kernel, b.count, row);
    if (kernel->kind != SVM_RBF) continue;
    if (kernel->gamma * ((double)a.square[i] + most) > SURE)
      finish_rbf_with_care(kernel->gamma, a.x + i * a.width, a.square[i], b, row);
    else
      finish_rbf(kernel->gamma, a.square[i], b.square, b.count, row);
  }
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
