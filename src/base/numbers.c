/* numbers.c -- see numbers.h. */
#include "numbers.h"

#include <math.h>
#include <string.h>

/* ---- halves ---- */

enum { HALF_FRACTION = 10, HALF_BIAS = 15, HALF_SPECIAL = 31 };
enum { DOUBLE_FRACTION = 52, DOUBLE_BIAS = 1023, DOUBLE_SPECIAL = 2047 };
enum { SHIFT = DOUBLE_FRACTION - HALF_FRACTION };

double half_read(uint16_t half) {
  int exponent = half >> HALF_FRACTION & HALF_SPECIAL, fraction = half & ((1 << HALF_FRACTION) - 1);
  double size;
  if (exponent == HALF_SPECIAL)
    size = fraction != 0 ? NAN : INFINITY;
  else if (exponent == 0)
    size = ldexp(fraction, 1 - HALF_BIAS - HALF_FRACTION);
  else
    size = ldexp(fraction + (1 << HALF_FRACTION), exponent - HALF_BIAS - HALF_FRACTION);
  return copysign(size, half >> 15 != 0 ? -1.0 : 1.0);
}

/* n / 2^shift, to the nearest whole number, of two as near to the even one. */
static uint64_t shift_rounded(uint64_t n, int shift) {
  uint64_t whole = n >> shift, rest = n - (whole << shift), half = (uint64_t)1 << (shift - 1);
  return whole + (rest > half || (rest == half && (whole & 1) != 0));
}

uint16_t half_from(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint16_t sign = (uint16_t)(bits >> 48 & 0x8000), infinite = HALF_SPECIAL << HALF_FRACTION;
  int exponent = (int)(bits >> DOUBLE_FRACTION & DOUBLE_SPECIAL) - DOUBLE_BIAS + HALF_BIAS;
  uint64_t one = (uint64_t)1 << DOUBLE_FRACTION, fraction = bits & (one - 1);
  if (isnan(value)) return (uint16_t)(sign | infinite | 1 << (HALF_FRACTION - 1));
  if (exponent >= HALF_SPECIAL) return (uint16_t)(sign | infinite);
  if (exponent < -HALF_FRACTION) return sign; /* less than half of the least half */
  /* A carry out of the fraction raises the exponent, which is what rounding up to the next power of two asks for. */
  if (exponent <= 0) return (uint16_t)(sign | shift_rounded(one | fraction, SHIFT + 1 - exponent));
  return (uint16_t)(sign | (((uint64_t)exponent << HALF_FRACTION) + shift_rounded(fraction, SHIFT)));
}

/* ---- numbers of a format ---- */

static double read_float(const char *from, size_t size) {
  float single;
  double value;
  if (size == sizeof value) {
    memcpy(&value, from, sizeof value);
    return value;
  }
  memcpy(&single, from, sizeof single);
  return single;
}

static double bfloat_read(uint16_t upper) {
  uint32_t bits = (uint32_t)upper << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

double number_read(const char *from, NumberFormat format) {
  if (format.kind == 'f' && format.size > 2) return read_float(from, format.size);
  if (format.size < 1 || format.size > sizeof(uint64_t)) return 0; /* there is no such format */
  uint64_t bits = 0;
  for (size_t i = 0; i < format.size; i++) bits |= (uint64_t)(uint8_t)from[i] << (8 * i);
  if (format.kind == 'f') return half_read((uint16_t)bits);
  if (format.kind == 'b') return bfloat_read((uint16_t)bits);
  if (format.kind == 'u') return (double)bits;
  unsigned unused = 64 - 8 * (unsigned)format.size;
  return (double)((int64_t)(bits << unused) >> unused);
}
