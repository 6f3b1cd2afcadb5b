/*
** parallel.h -- OpenMP for kernels. Whatever is summed over threads is summed over pieces whose number and
** bounds do not depend on how many threads there are, and then in the order of the pieces.
*/
#ifndef FERAL_PARALLEL_H
#define FERAL_PARALLEL_H

#ifdef _OPENMP
#  include <omp.h>
#else
#  include <time.h>
static inline int omp_get_max_threads(void) {
  return 1;
}
static inline int omp_get_thread_num(void) {
  return 0;
}
static inline void omp_set_num_threads(int threads) {
  (void)threads;
}
static inline double omp_get_wtime(void) {
  return (double)clock() / CLOCKS_PER_SEC;
}
#endif

/* Below this many elements a loop is not worth waking a second thread. */
enum { PARALLEL_MIN = 16384 };

/* First element of piece 'i' when n elements are cut into 'pieces' nearly equal ones. */
static inline long piece_start(long n, long pieces, long i) {
  long base = n / pieces, rest = n % pieces;
  return i * base + (i < rest ? i : rest);
}

#endif
