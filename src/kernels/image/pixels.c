/* pixels.c -- see pixels.h. */
#include "pixels.h"

#include <stdbool.h>
#include <string.h>

enum { NORMALISE_RUN = 16 };

/* v of 'alpha' 255ths before white, rounded. */
static unsigned over_white(unsigned v, unsigned alpha) {
  return (v * alpha + 255 * (255 - alpha) + 127) / 255;
}

void pixels_convert(const uint8_t *from, int from_channels, uint8_t *to, int to_channels, size_t n) {
  bool has_alpha = from_channels % 2 == 0;
  int colours = from_channels - has_alpha;
  if (from_channels == to_channels) {
    memcpy(to, from, n * (size_t)to_channels);
    return;
  }
  for (size_t i = 0; i < n; i++, from += from_channels, to += to_channels) {
    unsigned alpha = has_alpha ? from[colours] : 255, c[3];
    for (int k = 0; k < 3; k++) c[k] = over_white(from[k % colours], alpha);
    if (to_channels == 1)
      to[0] = colours == 1 ? (uint8_t)c[0] : luma_byte(c[0], c[1], c[2]);
    else
      for (int k = 0; k < 3; k++) to[k] = (uint8_t)c[k];
  }
}

/* Each channel's values come NORMALISE_RUN times over, so that the inner loop becomes vector code. */
void pixels_normalise(real *pixels, long n, long channels, const real *mean, const real *std) {
  real means[NORMALISE_RUN * PIXEL_CHANNELS] = {0}, stds[NORMALISE_RUN * PIXEL_CHANNELS] = {0};
  long run = NORMALISE_RUN * channels;
  for (long i = 0; i < run; i++) {
    means[i] = mean[i % channels];
    stds[i] = std[i % channels];
  }
  for (long left = n * channels; left > 0; left -= run, pixels += run)
    for (long i = 0; i < (left < run ? left : run); i++) pixels[i] = (pixels[i] / 255 - means[i]) / stds[i];
}

void pixels_widen(const uint8_t *from, real *to, long n) {
  for (long i = 0; i < n; i++) to[i] = from[i];
}

void pixels_narrow(const real *from, real factor, uint8_t *to, long n) {
  for (long i = 0; i < n; i++) {
    real v = from[i] * factor + (real)0.5;
    to[i] = (uint8_t)(v > 0 ? (v < 255 ? v : 255) : 0);
  }
}

/* In lanes, for the compiler to make vectors of. */
double pixels_mean(const real *pixels, long n) {
  enum { LANES = 16 };
  double lane[LANES] = {0}, sum = 0;
  long whole = n - n % LANES;
  for (long i = 0; i < whole; i += LANES)
    for (int k = 0; k < LANES; k++) lane[k] += (double)pixels[i + k];
  for (long i = whole; i < n; i++) sum += (double)pixels[i];
  for (int k = 0; k < LANES; k++) sum += lane[k];
  return sum / (double)n;
}

void pixels_scale(real *pixels, long n, real factor, real offset) {
  if (factor == 1 && offset == 0) return;
  for (long i = 0; i < n; i++) pixels[i] = pixels_clip(pixels[i] * factor + offset);
}

/* Where the pixel of row y and column x of the result comes from: first + y * down + x * right, in pixels. */
typedef struct Walk {
  long height, width, first, down, right;
} Walk;

static Walk walk_for(long height, long width, int orientation) {
  long h = height, w = width;
  switch (orientation) {
  case 2:
    return (Walk){h, w, w - 1, w, -1};
  case 3:
    return (Walk){h, w, h * w - 1, -w, -1};
  case 4:
    return (Walk){h, w, (h - 1) * w, -w, 1};
  case 5:
    return (Walk){w, h, 0, 1, w};
  case 6:
    return (Walk){w, h, (h - 1) * w, 1, -w};
  case 7:
    return (Walk){w, h, h * w - 1, -1, -w};
  case 8:
    return (Walk){w, h, w - 1, -1, w};
  default:
    return (Walk){h, w, 0, w, 1};
  }
}

/* 'pixel' is a constant at each call, so the copies become single moves. */
static inline void copy_walk(const char *from, const Walk *walk, size_t pixel, char *to) {
  for (long y = 0; y < walk->height; y++) {
    const char *source = from + (walk->first + y * walk->down) * (long)pixel;
    for (long x = 0; x < walk->width; x++, to += pixel, source += walk->right * (long)pixel) memcpy(to, source, pixel);
  }
}

void pixels_orient(const void *from, long height, long width, size_t pixel, int orientation, void *to) {
  Walk walk = walk_for(height, width, orientation);
  switch (pixel) {
  case 1:
    copy_walk(from, &walk, 1, to);
    break;
  case 3:
    copy_walk(from, &walk, 3, to);
    break;
  case 4:
    copy_walk(from, &walk, 4, to);
    break;
  case 12:
    copy_walk(from, &walk, 12, to);
    break;
  default:
    copy_walk(from, &walk, pixel, to);
  }
}
