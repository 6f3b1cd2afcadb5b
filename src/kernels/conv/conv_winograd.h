/*
** conv_winograd.h -- convolution of 3x3, 4x4 or 5x5 at a stride of 1 by fewer multiplications (Lavin and Gray 2015; Winograd
** 1980). The output is cut into tiles of M x M pixels. Each depends on N x N pixels of the input, N = M + side - 1, and is
**
**   y = A' [(G w G') * (B' x B)] A
**
** with products '*' element by element: N^2 of them instead of side^2 M^2. Summed over input channels they are N^2 products
** of matrices, tiles x channels by channels x filters. The gradient of the weights is the adjoint, summed over tiles:
** dw = G' [(A dy A') * (B' x B)] G. The matrices are those of Toom and Cook for the points 0, 1, -1, then 2 and -2, and
** infinity: B depends on N alone, A and G have as many powers of the points as a tile and a kernel have pixels a row.
** Private to src/kernels/conv.
*/
#ifndef FERAL_CONV_WINOGRAD_H
#define FERAL_CONV_WINOGRAD_H

#include "../../base/simd.h"
#include "conv_gather.h"

#define WINOGRAD_INLINE static inline __attribute__((always_inline))

enum { WINOGRAD_MOST = 6, WINOGRAD_TAPS = 5 }; /* largest N and side of a kernel */

/* One pass over images: what is read, what is written, and how the former is cut into tiles. */
typedef struct Winograd {
  long images;
  long in_h, in_w, cin;
  long out_h, out_w, cout;
  long top, left; /* rows and columns of zeros before the input */
  int side;       /* of the kernel */
  int m, n;       /* of an output and an input tile */
  long tiles_h, tiles_w, tiles;
  long weight_in, weight_out; /* distances in the weights from one channel to the next */
  bool turned;                /* taps in reverse order */
  bool single;                /* as in ConvGeometry */
} Winograd;

bool winograd_fits(const ConvGeometry *g);
Winograd winograd_forward_pass(const ConvGeometry *g);
Winograd winograd_backward_pass(const ConvGeometry *g);

/* Cost of an image in multiply-adds of vectors: of convolving it, and of its share of the weights' gradient. */
double winograd_cost(const Winograd *k);
double winograd_weight_cost(const Winograd *k);

/* What it costs to read so many vectors of weights. Many images share that; for one it is as dear as the multiplying:
   measured with all of VGG's weights, which no second-level cache holds. */
static inline double winograd_reading(bool single, double vectors) {
  enum { READ = 6 };
  return single ? READ * vectors : 0;
}

/* Where the pixels of a tile lie in x (in_h,in_w,cin) x images; those beyond the edge are 'zeros'. */
void winograd_inputs(const Winograd *k, long tile, const real *x, const real *zeros, const real **pixels);
/* The same for its output. */
void winograd_outputs(const Winograd *k, long tile, const real *y, const real *outside, const real **pixels);

/* G, N x side */
void winograd_kernels(const Winograd *k, double g[WINOGRAD_MOST][WINOGRAD_TAPS]);

/* v = B' d, N elements. N and M are constants where these lines are inlined. */
WINOGRAD_INLINE void winograd_input_line(const int n, const vreal *d, vreal *v) {
  if (n == 4) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
  } else if (n == 5) {
    vreal odd = d[3] - d[1];
    v[0] = 2 * (d[0] - d[2]) + odd;
    v[1] = d[3] - d[2] - 2 * d[1];
    v[2] = d[3] - 3 * d[2] + 2 * d[1];
    v[3] = odd;
    v[4] = d[4] - d[2] - 2 * odd;
  } else {
    vreal even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], near = d[4] - d[2], far = d[3] - d[1];
    v[0] = even - d[2] + 4 * d[0];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = near + 2 * far;
    v[4] = near - 2 * far;
    v[5] = d[5] - d[3] - 4 * far;
  }
}

/* y = A' v, M elements */
WINOGRAD_INLINE void winograd_output_line(const int n, const int m, const vreal *v, vreal *y) {
  vreal sum = v[1] + v[2], difference = v[1] - v[2];
  if (n == 4) {
    y[0] = v[0] + sum;
    y[1] = difference - v[3];
  } else if (n == 5) {
    y[0] = v[0] + sum + v[3];
    y[1] = difference + 2 * v[3];
    if (m > 2) y[2] = sum + 4 * v[3];
    y[m - 1] += v[4];
  } else {
    vreal sum2 = v[3] + v[4], difference2 = v[3] - v[4];
    y[0] = v[0] + sum + sum2;
    y[1] = difference + 2 * difference2;
    if (m > 2) y[2] = sum + 4 * sum2;
    if (m > 3) y[3] = difference + 8 * difference2;
    y[m - 1] += v[5];
  }
}

/* v = A y, N elements: the adjoint of the line before */
WINOGRAD_INLINE void winograd_slope_line(const int n, const int m, const vreal *y, vreal *v) {
  vreal even = m > 2 ? y[0] + y[2] : y[0], odd = m > 3 ? y[1] + y[3] : y[1];
  vreal even2 = m > 2 ? y[0] + 4 * y[2] : y[0], odd2 = m > 3 ? 2 * y[1] + 8 * y[3] : 2 * y[1];
  v[0] = y[0];
  v[1] = even + odd;
  v[2] = even - odd;
  if (n > 4) v[3] = even2 + odd2;
  if (n > 5) v[4] = even2 - odd2;
  v[n - 1] = n == 4 ? -y[m - 1] : y[m - 1];
}

/* What is called with constants for each pair of N and M that occurs. */
#define WINOGRAD_EACH_CUT(k, call)                                                                                     \
  switch (10 * (k)->n + (k)->m) {                                                                                      \
  case 42:                                                                                                             \
    call(4, 2);                                                                                                        \
    break;                                                                                                             \
  case 52:                                                                                                             \
    call(5, 2);                                                                                                        \
    break;                                                                                                             \
  case 53:                                                                                                             \
    call(5, 3);                                                                                                        \
    break;                                                                                                             \
  case 62:                                                                                                             \
    call(6, 2);                                                                                                        \
    break;                                                                                                             \
  case 63:                                                                                                             \
    call(6, 3);                                                                                                        \
    break;                                                                                                             \
  default:                                                                                                             \
    call(6, 4);                                                                                                        \
  }

/* The number of the first channel of vector v: the last vector ends with the last channel. */
static inline long winograd_lane(long channels, long v) {
  long last = channels > VLANES ? channels - VLANES : 0;
  return v * VLANES < last ? v * VLANES : last;
}

/* Lanes that channels are in: all but where there are fewer of them than lanes. */
static inline int winograd_lanes(long channels) {
  return channels < VLANES ? (int)channels : VLANES;
}

/* Reals between the matrices of two products, with room for a whole vector from the last number on: an odd number of cache
   lines, for powers of two would share few sets. */
static inline long winograd_step(long count) {
  long line = 64 / (long)sizeof(real), lines = (count + VLANES - 1 + line - 1) / line;
  return (lines | 1) * line;
}

/* B' x B of one tile's pixels, all channels: for each of the N^2 products a row, 'step' apart */
void winograd_transform_input(const Winograd *k, const real *const *pixels, real *v, long step);

#endif
