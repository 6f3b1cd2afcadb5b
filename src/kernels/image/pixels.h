/*
** pixels.h -- what codecs, transforms and augmentation share about pixels that lie in rows, the channels of a pixel side
** by side. No lua_State here.
*/
#ifndef FERAL_PIXELS_H
#define FERAL_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#include "../../base/real.h"

/* ITU-R BT.601's luma, as JPEG has it. */
static inline uint8_t luma_byte(unsigned r, unsigned g, unsigned b) {
  return (uint8_t)((299 * r + 587 * g + 114 * b + 500) / 1000);
}
static inline real luma_real(real r, real g, real b) {
  return (real)0.299 * r + (real)0.587 * g + (real)0.114 * b;
}

enum { PIXEL_CHANNELS = 16 }; /* at most, where each has values of its own */

/* Samples of 0..255 as a network sees them, in place: (sample / 255 - mean) / std, mean and std for each channel. The
   one place for it, so that all ways to a batch give the same bits. */
void pixels_normalise(real *pixels, long n, long channels, const real *mean, const real *std);

void pixels_widen(const uint8_t *from, real *to, long n);

/* Each value times a factor, rounded and cut to what a byte holds; NaN becomes 0. */
void pixels_narrow(const real *from, real factor, uint8_t *to, long n);

/* A value cut to what a byte holds. */
static inline real pixels_clip(real v) {
  return v < 0 ? 0 : v > 255 ? 255 : v;
}

double pixels_mean(const real *pixels, long n);

/* Each value times a factor plus an offset, cut to what a byte holds. */
void pixels_scale(real *pixels, long n, real factor, real offset);

/* Copies n pixels of 1 to 4 channels (2 and 4: with alpha, laid over white) to 1 or 3. */
void pixels_convert(const uint8_t *from, int from_channels, uint8_t *to, int to_channels, size_t n);

/* Copies height x width pixels of 'pixel' bytes each, turned upright by an EXIF orientation (1..8); from 5 on the
   result is width x height. */
void pixels_orient(const void *from, long height, long width, size_t pixel, int orientation, void *to);

#endif
