/*
** resize.c -- see resize.h. An axis that shrinks takes the mean over the area that a pixel of the result covers (no
** aliasing); one that grows is interpolated linearly between pixel centres, which lie at half numbers.
*/
#include "resize.h"

#include "../../base/parallel.h"

/* ---- weights ---- */

long taps_count(long from, long to) {
  long count = to < from ? (from + to - 1) / to + 1 : 2;
  return count < from ? count : from;
}

static long at_most(long value, long limit) {
  return value < limit ? value : limit;
}
static long at_least(long value, long limit) {
  return value > limit ? value : limit;
}

/* In units of 1/to of a source pixel, pixel i of the source covers i * to .. (i + 1) * to, and of the result i * from ... */
static void fill_area(Taps *taps, long from, long to) {
  for (long i = 0; i < to; i++) {
    long low = i * from, high = low + from, first = at_most(low / to, from - taps->count);
    taps->first[i] = (int32_t)first;
    for (long k = 0; k < taps->count; k++) {
      long overlap = at_most(high, (first + k + 1) * to) - at_least(low, (first + k) * to);
      taps->weight[i * taps->count + k] = overlap > 0 ? (real)overlap / (real)from : 0;
    }
  }
}

static void fill_linear(Taps *taps, long from, long to) {
  for (long i = 0; i < to; i++) {
    long twice = (2 * i + 1) * from - to; /* the centre's place in the source, times 2 to */
    long left = twice < 0 ? -1 : twice / (2 * to);
    real part = (real)(twice - left * 2 * to) / (real)(2 * to);
    long first = at_most(at_least(left, 0), from - taps->count);
    real *weight = taps->weight + i * taps->count;
    taps->first[i] = (int32_t)first;
    for (long k = 0; k < taps->count; k++) weight[k] = 0;
    weight[at_least(left, 0) - first] += 1 - part;
    weight[at_most(left + 1, from - 1) - first] += part;
  }
}

void taps_fill(Taps *taps, long from, long to) {
  if (to < from)
    fill_area(taps, from, to);
  else
    fill_linear(taps, from, to);
}

/* ---- pixels ---- */

/* row (n) = the sum over k of weight[k] * source row k */
#define DEFINE_COLLECT(name, type)                                                                                     \
  static void name(const type *source, const real *weight, long count, long n, real *row) {                            \
    for (long j = 0; j < n; j++) row[j] = weight[0] * source[j];                                                       \
    for (long k = 1; k < count; k++) {                                                                                 \
      source += n;                                                                                                     \
      if (weight[k] == 0) continue;                                                                                    \
      for (long j = 0; j < n; j++) row[j] += weight[k] * source[j];                                                    \
    }                                                                                                                  \
  }
DEFINE_COLLECT(collect_bytes, uint8_t)
DEFINE_COLLECT(collect_reals, real)

static real across(const Taps *taps, const real *row, long x, long channels) {
  const real *weight = taps->weight + x * taps->count;
  real sum = 0;
  row += taps->first[x] * channels;
  for (long k = 0; k < taps->count; k++) sum += weight[k] * row[k * channels];
  return sum;
}

static void resize_row(const Resize *r, const void *source, void *result, long y, real *row) {
  long n = r->width * r->channels;
  const real *weight = r->down.weight + y * r->down.count;
  if (r->bytes)
    collect_bytes((const uint8_t *)source + r->down.first[y] * n, weight, r->down.count, n, row);
  else
    collect_reals((const real *)source + r->down.first[y] * n, weight, r->down.count, n, row);
  for (long x = 0; x < r->to_width; x++)
    for (long c = 0; c < r->channels; c++) {
      real value = across(&r->across, row + c, x, r->channels);
      if (r->bytes)
        ((uint8_t *)result)[x * r->channels + c] = (uint8_t)(value + (real)0.5);
      else
        ((real *)result)[x * r->channels + c] = value;
    }
}

void resize_one(const Resize *r, const void *source, void *result, real *row) {
  long to_row = r->to_width * r->channels * (r->bytes ? 1 : (long)sizeof(real));
  for (long y = 0; y < r->to_height; y++) resize_row(r, source, (char *)result + y * to_row, y, row);
}

void resize_images(const Resize *r, const void *source, void *result, real *rows) {
  long item = r->bytes ? 1 : sizeof(real), row = r->width * r->channels;
  long whole = r->height * row * item, to_row = r->to_width * r->channels * item, lines = r->n * r->to_height;
#pragma omp parallel for if (lines * to_row > PARALLEL_MIN)
  for (long i = 0; i < lines; i++)
    resize_row(r, (const char *)source + i / r->to_height * whole, (char *)result + i * to_row, i % r->to_height,
               rows + omp_get_thread_num() * row);
}
