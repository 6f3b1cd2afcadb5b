/*
** simd.h -- vectors as wide as the instruction set this file is compiled for. The folders from src/tensor up are
** compiled once an instruction set (see the Makefile) and the host picks one when it starts, so plain C and these
** types are all that a kernel needs: VLANES elements a vector, and one source for SSE2, AVX2, AVX-512 and NEON.
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

#ifdef REAL_DOUBLE
#  define VLANES_IF(floats, doubles) doubles
#else
#  define VLANES_IF(floats, doubles) floats
#endif

#if defined(__AVX512F__)
enum { VBYTES = 64, VREGISTERS = 32 };
#  define VLANES VLANES_IF(16, 8)
#elif defined(__AVX2__)
enum { VBYTES = 32, VREGISTERS = 16 };
#  define VLANES VLANES_IF(8, 4)
#elif defined(__aarch64__)
enum { VBYTES = 16, VREGISTERS = 32 };
#  define VLANES VLANES_IF(4, 2)
#else
enum { VBYTES = 16, VREGISTERS = 16 };
#  define VLANES VLANES_IF(4, 2)
#endif

/* Numbers of lanes for shuffles: all in order; those of two vectors taken in turn, from their lower or upper halves. */
#define VFIRST_2 0, 1
#define VFIRST_4 0, 1, 2, 3
#define VFIRST_8 0, 1, 2, 3, 4, 5, 6, 7
#define VFIRST_16 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define VZIP_LOW_2 0, 2
#define VZIP_LOW_4 0, 4, 1, 5
#define VZIP_LOW_8 0, 8, 1, 9, 2, 10, 3, 11
#define VZIP_LOW_16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define VZIP_HIGH_2 1, 3
#define VZIP_HIGH_4 2, 6, 3, 7
#define VZIP_HIGH_8 4, 12, 5, 13, 6, 14, 7, 15
#define VZIP_HIGH_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define VLIST_OF(name, lanes) name##_##lanes
#define VLIST(name, lanes) VLIST_OF(name, lanes)

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
  return __builtin_shufflevector(v, (vhalf){0}, VLIST(VFIRST, VLANES));
}

/* The first n lanes, by masks where the processor has them: a memcpy of n is a call. Memory beyond is not touched. AVX2's
   masked stores take AMD's processors some twenty steps (depthwise convolution is twice as fast without them). */
#if defined(__AVX512F__) && defined(REAL_DOUBLE)
static inline vreal vload_masked(const real *p, int n) {
  return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}
static inline void vstore_masked(real *p, vreal v, int n) {
  _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v);
}
#elif defined(__AVX512F__)
static inline vreal vload_masked(const real *p, int n) {
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void vstore_masked(real *p, vreal v, int n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
#elif defined(__AVX2__) && defined(REAL_DOUBLE)
static inline __m256i vfirst(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline vreal vload_masked(const real *p, int n) {
  return _mm256_maskload_pd(p, vfirst(n));
}
static inline void vstore_masked(real *p, vreal v, int n) {
  __m128d part = _mm256_castpd256_pd128(v);
  if (n & 2) {
    _mm_storeu_pd(p, part);
    part = _mm256_extractf128_pd(v, 1);
    p += 2;
  }
  if (n & 1) _mm_store_sd(p, part);
}
#elif defined(__AVX2__)
static inline __m256i vfirst(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vreal vload_masked(const real *p, int n) {
  return _mm256_maskload_ps(p, vfirst(n));
}
static inline void vstore_masked(real *p, vreal v, int n) {
  __m128 part = _mm256_castps256_ps128(v);
  if (n & 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi((__m64 *)p, part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, part);
}
#else
static inline vreal vload_masked(const real *p, int n) {
  vreal v = {0};
  memcpy(&v, p, (size_t)n * sizeof(real));
  return v;
}
static inline void vstore_masked(real *p, vreal v, int n) {
  memcpy(p, &v, (size_t)n * sizeof(real));
}
#endif

/* The first n lanes of p, zero in the remaining ones. */
static inline vreal vload_part(const real *p, int n) {
  if (__builtin_constant_p(n) && n == VLANES) return vload(p);
  if (__builtin_constant_p(n) && n == VLANES / 2) return vwiden(vload_half(p));
  return vload_masked(p, n);
}

/* The first n lanes of v into p. */
static inline void vstore_part(real *p, vreal v, int n) {
  if (n == VLANES) {
    vstore(p, v);
  } else if (__builtin_constant_p(n) && n == VLANES / 2) {
    vhalf half;
    memcpy(&half, &v, sizeof half);
    vstore_half(p, half);
  } else {
    vstore_masked(p, v, n);
  }
}

/* Whole numbers beside the lanes of a vector, and bytes that become such: gcc takes __builtin_convertvector lane by lane. */
#ifdef REAL_DOUBLE
typedef int64_t vwhole __attribute__((vector_size(VBYTES)));
#else
typedef int32_t vwhole __attribute__((vector_size(VBYTES)));
#endif

static inline vwhole vset_whole(long x) {
  return (__typeof__((vwhole){0}[0]))x - (vwhole){0};
}

#if defined(__AVX512F__) && defined(REAL_DOUBLE)
static inline vwhole vload_bytes(const uint8_t *p) {
  return (vwhole)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p));
}
static inline void vstore_bytes(uint8_t *p, vwhole v) {
  _mm_storel_epi64((__m128i *)p, _mm512_cvtepi64_epi8((__m512i)v));
}
#elif defined(__AVX512F__)
static inline vwhole vload_bytes(const uint8_t *p) {
  return (vwhole)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline void vstore_bytes(uint8_t *p, vwhole v) {
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
}
#elif defined(__AVX2__) && !defined(REAL_DOUBLE)
static inline vwhole vload_bytes(const uint8_t *p) {
  return (vwhole)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline void vstore_bytes(uint8_t *p, vwhole v) {
  __m128i low = _mm256_castsi256_si128((__m256i)v), high = _mm256_extracti128_si256((__m256i)v, 1);
  __m128i words = _mm_packus_epi32(low, high);
  _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
#else
static inline vwhole vload_bytes(const uint8_t *p) {
  vwhole v = {0};
  for (int i = 0; i < VLANES; i++) v[i] = p[i];
  return v;
}
static inline void vstore_bytes(uint8_t *p, vwhole v) {
  for (int i = 0; i < VLANES; i++) p[i] = (uint8_t)v[i];
}
#endif

/* row[i][j] -> row[j][i]: zipping vectors half the number of rows apart turns the numbers of a place, seen as those of
   a row and a lane, by one bit; as many turns as a lane's number has bits exchange row and lane. */
static inline void vtranspose(vreal row[VLANES]) {
  vreal zipped[VLANES];
  for (int step = 1; step < VLANES; step *= 2) {
    for (int i = 0; i < VLANES / 2; i++) {
      zipped[2 * i] = __builtin_shufflevector(row[i], row[i + VLANES / 2], VLIST(VZIP_LOW, VLANES));
      zipped[2 * i + 1] = __builtin_shufflevector(row[i], row[i + VLANES / 2], VLIST(VZIP_HIGH, VLANES));
    }
    for (int i = 0; i < VLANES; i++) row[i] = zipped[i];
  }
}

/* What comparing two vectors gives: all bits set in the lanes where it holds. */
typedef __typeof__((vreal){0} < (vreal){0}) vmask;

static inline vreal vselect(vmask where, vreal a, vreal b) {
  return (vreal)((where & (vmask)a) | (~where & (vmask)b));
}
/* The second where one of them is a NaN, as the processors' own instructions have it. */
#if defined(__AVX512F__)
static inline vreal vmax(vreal a, vreal b) {
  return VLANES_IF(_mm512_max_ps, _mm512_max_pd)(a, b);
}
static inline vreal vmin(vreal a, vreal b) {
  return VLANES_IF(_mm512_min_ps, _mm512_min_pd)(a, b);
}
#elif defined(__AVX2__)
static inline vreal vmax(vreal a, vreal b) {
  return VLANES_IF(_mm256_max_ps, _mm256_max_pd)(a, b);
}
static inline vreal vmin(vreal a, vreal b) {
  return VLANES_IF(_mm256_min_ps, _mm256_min_pd)(a, b);
}
#else
static inline vreal vmax(vreal a, vreal b) {
  return vselect(a > b, a, b);
}
static inline vreal vmin(vreal a, vreal b) {
  return vselect(a < b, a, b);
}
#endif

/* The sum of the lanes, halves folded onto each other. */
static inline real vsum(vreal v) {
  real lane[VLANES];
  vstore(lane, v);
  for (int width = VLANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lane[i] += lane[i + width];
  return lane[0];
}

/* A quotient before it is divided: several of them can share one division. */
typedef struct vratio {
  vreal above, below;
} vratio;

#ifdef REAL_DOUBLE

static inline vreal vexp(vreal x) {
  for (int i = 0; i < VLANES; i++) x[i] = exp(x[i]);
  return x;
}
static inline vreal vtanh(vreal x) {
  for (int i = 0; i < VLANES; i++) x[i] = tanh(x[i]);
  return x;
}
static inline vratio vtanh_ratio(vreal x) {
  return (vratio){vtanh(x), vset(1)};
}

#else

typedef int32_t vint __attribute__((vector_size(VBYTES)));

/* p 2^k for whole numbers k from -150 to 128, which a float's own power need not hold: the result may be 0, less than the
   least number of full precision, or infinite. */
static inline vreal vscale(vreal p, vint k) {
#  if defined(__AVX512F__)
  return _mm512_scalef_ps(p, __builtin_convertvector(k, vreal));
#  else
  vint half = k >> 1, low = (half + 127) << 23, high = (k - half + 127) << 23;
  return p * (vreal)low * (vreal)high;
#  endif
}

/* e^x to 2 units in the last place: x = k ln 2 + r, |r| <= ln 2 / 2, the Taylor polynomial of r of degree 7, times 2^k.
   0 below -104, infinite above 88.73, a NaN for a NaN: that passes vmin and vmax as their second, and makes p one, whatever
   its k is. */
static inline vreal vexp(vreal x) {
  vreal t = vmin(vset(89), vmax(vset(-104), x));
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
  return vscale(p, k);
}

/* tanh x to 6 units in the last place: an odd rational function whose greatest relative error up to 8.5 is least, 1e-8.
   Behind that it passes 1 by as much. A NaN stays one. */
static inline vratio vtanh_ratio(vreal x) {
  vreal t = vmin(vset(9.5f), vmax(vset(-9.5f), x)), s = t * t;
  vreal p = vset(1.42692039e-8f), q = vset(8.14511288e-7f);
  p = p * s + 2.12510247e-5f;
  p = p * s + 3.53402559e-3f;
  p = p * s + 0.134132458f;
  p = p * s + 1;
  q = q * s + 3.34886278e-4f;
  q = q * s + 2.60227464e-2f;
  q = q * s + 0.467465686f;
  q = q * s + 1;
  return (vratio){t * p, q};
}

static inline vreal vtanh(vreal x) {
  vratio y = vtanh_ratio(x);
  return vmin(vset(1), vmax(vset(-1), y.above / y.below));
}

#endif

static inline vreal vsigmoid(vreal x) {
  return 1 / (1 + vexp(-x));
}

#endif
