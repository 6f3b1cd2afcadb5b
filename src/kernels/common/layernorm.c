/* layernorm.c -- see layernorm.h. Sums are taken in double; those over rows in pieces that depend on the sizes alone. */
#include "layernorm.h"

#include <math.h>
#include <string.h>

#include "../../base/parallel.h"

enum { LANES = 8, PIECE_LEAST = 1 << 15, PIECES_MOST = 16 };

static double fold(double lane[LANES]) {
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int j = 0; j < width; j++) lane[j] += lane[j + width];
  return lane[0];
}

static double sum_of(const real *x, long n) {
  double lane[LANES] = {0};
  long i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += x[i + j];
  for (; i < n; i++) lane[0] += x[i];
  return fold(lane);
}

static double sum_of_squares(const real *x, long n, double mean) {
  double lane[LANES] = {0};
  long i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += (x[i + j] - mean) * (x[i + j] - mean);
  for (; i < n; i++) lane[0] += (x[i] - mean) * (x[i] - mean);
  return fold(lane);
}

void layernorm_run(long rows, long n, double eps, const real *x, const real *weight, const real *bias, real *y,
                   real *mean, real *inverse) {
#pragma omp for
  for (long r = 0; r < rows; r++) {
    const real *xr = x + r * n;
    double m = sum_of(xr, n) / (double)n, var = sum_of_squares(xr, n, m) / (double)n;
    real shift = (real)m, scale = (real)(1 / sqrt(var + eps));
    if (mean != NULL) mean[r] = shift;
    if (inverse != NULL) inverse[r] = scale;
    for (long i = 0; i < n; i++) {
      real v = (xr[i] - shift) * scale;
      y[r * n + i] = (weight != NULL ? v * weight[i] : v) + (bias != NULL ? bias[i] : 0);
    }
  }
}

static double product_of(const real *a, const real *b, long n) {
  double lane[LANES] = {0};
  long i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j] * b[i + j];
  for (; i < n; i++) lane[0] += (double)a[i] * b[i];
  return fold(lane);
}

/* dx first holds the gradient of the normalised values, and 'line' (n, one a piece of rows) those values. */
static void backward_row(long n, const real *dy, const real *x, const real *weight, real mean, real inverse,
                         real *restrict line, real *restrict dx) {
  for (long i = 0; i < n; i++) {
    line[i] = (x[i] - mean) * inverse;
    dx[i] = weight != NULL ? dy[i] * weight[i] : dy[i];
  }
  real a = (real)(sum_of(dx, n) / (double)n), b = (real)(product_of(dx, line, n) / (double)n);
  for (long i = 0; i < n; i++) dx[i] = inverse * (dx[i] - a - line[i] * b);
}

long layernorm_pieces(long rows, long n) {
  long pieces = rows * n / PIECE_LEAST;
  pieces = pieces < 1 ? 1 : pieces > PIECES_MOST ? PIECES_MOST : pieces;
  return pieces < rows ? pieces : rows;
}

void layernorm_backward_input(long rows, long n, const real *dy, const real *x, const real *weight, const real *mean,
                              const real *inverse, real *lines, real *dx) {
  long pieces = layernorm_pieces(rows, n);
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++)
    for (long r = piece_start(rows, pieces, p), end = piece_start(rows, pieces, p + 1); r < end; r++)
      backward_row(n, dy + r * n, x + r * n, weight, mean[r], inverse[r], lines + p * n, dx + r * n);
}

void layernorm_backward_weight(long rows, long n, const real *dy, const real *x, const real *mean, const real *inverse,
                               double *sums, real *dweight, real *dbias) {
  long pieces = layernorm_pieces(rows, n);
  memset(sums, 0, (size_t)(pieces * 2 * n) * sizeof *sums);
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    double *restrict by_scale = sums + p * 2 * n, *restrict by_shift = by_scale + n;
    for (long r = piece_start(rows, pieces, p), end = piece_start(rows, pieces, p + 1); r < end; r++)
      for (long i = 0; i < n; i++) {
        double d = dy[r * n + i];
        by_scale[i] += d * ((x[r * n + i] - mean[r]) * inverse[r]);
        by_shift[i] += d;
      }
  }
  for (long i = 0; i < n; i++) {
    double by_scale = 0, by_shift = 0;
    for (long p = 0; p < pieces; p++) {
      by_scale += sums[2 * p * n + i];
      by_shift += sums[(2 * p + 1) * n + i];
    }
    dweight[i] = (real)by_scale;
    dbias[i] = (real)by_shift;
  }
}
