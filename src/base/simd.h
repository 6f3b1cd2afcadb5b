/*
** simd.h -- vectors as wide as the instruction set this file is compiled for. The floors from src/tensor up are
** compiled once an instruction set (see the Makefile) and the host picks one when it starts, so plain C and these
** types are all that a kernel needs: VLANES numbers a vector, and one source for SSE2, AVX2, AVX-512 and NEON.
*/
#ifndef FERAL_SIMD_H
#define FERAL_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#  include <immintrin.h>
#endif

#include "real.h"

#if defined(__AVX512F__)
enum { VBYTES = 64, VREGISTERS = 32 };
#  define VALL VNUMBERS(16, 8)
#elif defined(__AVX2__)
enum { VBYTES = 32, VREGISTERS = 16 };
#  define VALL VNUMBERS(8, 4)
#elif defined(__aarch64__)
enum { VBYTES = 16, VREGISTERS = 32 };
#  define VALL VNUMBERS(4, 2)
#else
enum { VBYTES = 16, VREGISTERS = 16 };
#  define VALL VNUMBERS(4, 2)
#endif
enum { VLANES = VBYTES / sizeof(real) };

/* VALL: the numbers of all lanes, for shuffles. */
#ifdef REAL_DOUBLE
#  define VNUMBERS(floats, doubles) VFIRST_##doubles
#else
#  define VNUMBERS(floats, doubles) VFIRST_##floats
#endif
#define VFIRST_2 0, 1
#define VFIRST_4 VFIRST_2, 2, 3
#define VFIRST_8 VFIRST_4, 4, 5, 6, 7
#define VFIRST_16 VFIRST_8, 8, 9, 10, 11, 12, 13, 14, 15

typedef real vreal __attribute__((vector_size(VBYTES)));
typedef real vreal_unaligned __attribute__((vector_size(VBYTES), aligned(sizeof(real)), may_alias));

static inline vreal vload(const real *p) {
  return *(const vreal_unaligned *)p;
}
static inline void vstore(real *p, vreal v) {
  *(vreal_unaligned *)p = v;
}
static inline vreal vset(real x) {
  return x - (vreal){0};
}

/* Half a vector, for counts that would leave the other half idle. */
typedef real vhalf __attribute__((vector_size(VBYTES / 2)));
typedef real vhalf_unaligned __attribute__((vector_size(VBYTES / 2), aligned(sizeof(real)), may_alias));

static inline vhalf vload_half(const real *p) {
  return *(const vhalf_unaligned *)p;
}
static inline void vstore_half(real *p, vhalf v) {
  *(vhalf_unaligned *)p = v;
}
static inline vhalf vset_half(real x) {
  return x - (vhalf){0};
}
/* The half in the lower lanes, zeros in the others. */
static inline vreal vwiden(vhalf v) {
  return __builtin_shufflevector(v, (vhalf){0}, VALL);
}

/* The first n lanes, by masks where the processor has them: a memcpy of n is a call. Memory beyond is not touched. */
#if defined(__AVX512F__) && defined(REAL_DOUBLE)
static inline vreal vload_masked(const real *p, int n) {
  return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}
static inline void vstore_part(real *p, vreal v, int n) {
  _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v);
}
#elif defined(__AVX512F__)
static inline vreal vload_masked(const real *p, int n) {
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void vstore_part(real *p, vreal v, int n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
#elif defined(__AVX2__) && defined(REAL_DOUBLE)
static inline __m256i vfirst(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline vreal vload_masked(const real *p, int n) {
  return _mm256_maskload_pd(p, vfirst(n));
}
static inline void vstore_part(real *p, vreal v, int n) {
  _mm256_maskstore_pd(p, vfirst(n), v);
}
#elif defined(__AVX2__)
static inline __m256i vfirst(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vreal vload_masked(const real *p, int n) {
  return _mm256_maskload_ps(p, vfirst(n));
}
static inline void vstore_part(real *p, vreal v, int n) {
  _mm256_maskstore_ps(p, vfirst(n), v);
}
#else
static inline vreal vload_masked(const real *p, int n) {
  vreal v = {0};
  memcpy(&v, p, (size_t)n * sizeof(real));
  return v;
}
static inline void vstore_part(real *p, vreal v, int n) {
  memcpy(p, &v, (size_t)n * sizeof(real));
}
#endif

/* The first n lanes of p, zero in the rest; vstore_part is the other way. */
static inline vreal vload_part(const real *p, int n) {
  if (__builtin_constant_p(n) && n == VLANES) return vload(p);
  if (__builtin_constant_p(n) && n == VLANES / 2) return vwiden(vload_half(p));
  return vload_masked(p, n);
}

/* What comparing two vectors gives: all bits set in the lanes where it holds. */
typedef __typeof__((vreal){0} < (vreal){0}) vmask;

static inline vreal vselect(vmask where, vreal a, vreal b) {
  return (vreal)((where & (vmask)a) | (~where & (vmask)b));
}
static inline vreal vmax(vreal a, vreal b) {
  return vselect(a > b, a, b);
}
static inline vreal vmin(vreal a, vreal b) {
  return vselect(a < b, a, b);
}

/* The sum of the lanes, halves folded onto each other. */
static inline real vsum(vreal v) {
  real lane[VLANES];
  vstore(lane, v);
  for (int width = VLANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lane[i] += lane[i + width];
  return lane[0];
}

#ifdef REAL_DOUBLE

static inline vreal vexp(vreal x) {
  for (int i = 0; i < VLANES; i++) x[i] = exp(x[i]);
  return x;
}
static inline vreal vtanh(vreal x) {
  for (int i = 0; i < VLANES; i++) x[i] = tanh(x[i]);
  return x;
}

#else

typedef int32_t vint __attribute__((vector_size(VBYTES)));

/* e^x to 2 units in the last place: x = k ln 2 + r, |r| <= ln 2 / 2, the Taylor polynomial of r of degree 7, times 2^k.
   Below -87.3 it gives 1.2e-38, above 88.3 about 2e38; a NaN stays one. */
static inline vreal vexp(vreal x) {
  vreal low = vset(-87.3f), high = vset(88.3f);
  vreal t = vmin(vmax(x, low), high);
  vreal scaled = t * 1.44269504f;
  vint k = __builtin_convertvector(scaled + vselect(scaled < 0, vset(-0.5f), vset(0.5f)), vint);
  vreal whole = __builtin_convertvector(k, vreal);
  vreal r = t - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  vreal p = vset(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  vint bits = (k + 127) << 23;
  vreal power;
  memcpy(&power, &bits, sizeof power);
  vreal y = p * power;
  return vselect(x == x, y, x);
}

/* tanh x = 1 - 2 / (e^2x + 1), and x - x^3/3 + 2 x^5/15 near 0, where that difference would cancel. */
static inline vreal vtanh(vreal x) {
  vreal far = 1.0f - 2.0f / (vexp(2.0f * x) + 1.0f);
  vreal s = x * x;
  vreal near = x * (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315))));
  return vselect(s < 0.04f, near, far);
}

#endif

static inline vreal vsigmoid(vreal x) {
  return 1 / (1 + vexp(-x));
}

#endif
