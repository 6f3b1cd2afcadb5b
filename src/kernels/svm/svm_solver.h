/*
** svm_solver.h -- training and evaluating support vector machines. No Lua, and no allocation: callers bring memory.
**
** A machine of two classes is f(x) = sum_i beta_i k(x_i, x) + bias with beta_i = y_i alpha_i, y_i = 1 or -1. Machines of
** more classes are several of these over the same samples. Long functions return early when interrupted().
*/
#ifndef FERAL_SVM_SOLVER_H
#define FERAL_SVM_SOLVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../base/real.h"

typedef enum SvmKernelKind { SVM_LINEAR, SVM_POLY, SVM_RBF } SvmKernelKind;

/* x.z, (gamma x.z + coef0)^degree, exp(-gamma |x - z|^2) */
typedef struct SvmKernel {
  SvmKernelKind kind;
  real gamma, coef0;
  int degree;
} SvmKernel;

typedef struct SvmRows {
  const real *x;      /* (count, width) */
  const real *square; /* (count): |x|^2 */
  long count, width;
} SvmRows;

/* ---- svm_kernel.c ---- */

/* square[i] = |x_i|^2 for x (count, width) */
void svm_squares(const real *x, long count, long width, real *square);

/* values[i * ld + j] = k(a_i, b_j), on the calling thread alone */
void svm_kernel_block(const SvmKernel *kernel, SvmRows a, SvmRows b, real *values, long ld);

/* f (x.count, machines) = k(x, support) coef + bias for coef (support.count, machines), bias (machines) */
void svm_decide(const SvmKernel *kernel, SvmRows x, SvmRows support, const real *coef, const real *bias, long machines,
                real *f);

/* ---- svm_solver.c ---- */

typedef struct SvmSolution {
  double bias, violation; /* how far the optimality conditions are from holding */
  long steps;             /* updates of a pair; passes over the samples for svm_solve_linear */
  bool converged;
} SvmSolution;

/* What machines that are trained together share. */
typedef struct SvmTask {
  SvmRows samples;
  SvmKernel kernel;
  double tolerance;              /* a machine is done when optimality is violated by no more */
  long steps;                    /* or after so many; 0: no limit */
  size_t budget;                 /* bytes that the kernel values of one svm_solve may take */
  void (*report)(void *context); /* called after each machine, by whichever thread; may be NULL */
  void *context;
} SvmTask;

/* One machine over two runs of neighbouring samples, the second perhaps empty. Positions count through both: those from
   positive[0] to before positive[1] are the positive class, all others the negative one. */
typedef struct SvmProblem {
  long first[2], count[2];
  long positive[2];
  double upper[2]; /* the largest alpha: of the negative, of the positive class */
  real *beta;      /* of sample i: beta[i * stride]; written for the runs' samples alone */
  long stride;
  long machine; /* the number of the machine, for the caller */
  SvmSolution solution;
} SvmProblem;

static inline long svm_problem_size(const SvmProblem *problem) {
  return problem->count[0] + problem->count[1];
}

/* How many reals of memory svm_solve takes. Where the budget does not hold all kernel values of a problem, as many rows of
   them as it holds, but no fewer than are worked on at a time. */
size_t svm_memory(const SvmTask *task, const SvmProblem *problems, long count);

/* Solves problems whose first runs are the same: the kernel values within that run are computed once. The results depend on
   the budget, but not on the number of threads. */
void svm_solve(const SvmTask *task, SvmProblem *problems, long count, real *memory);

/* ---- svm_linear.c ---- */

/* The machine w.x + w[width] of the samples from positive[0] to before positive[1] against all others, the bias being the
   weight of one more feature that is always 1. */
typedef struct SvmLinear {
  long positive[2];
  double cost[2];  /* of the negative, of the positive class */
  bool squared;    /* the loss is max(0, 1 - y f)^2, else max(0, 1 - y f) */
  uint64_t stream; /* the number of its random order of samples */
  double *w;       /* (width + 1) */
  SvmSolution solution;
} SvmLinear;

size_t svm_linear_memory(long count); /* in reals */
void svm_solve_linear(const SvmTask *task, SvmLinear *machine, real *memory);

#endif
