/* warp.c -- see warp.h. */
#include "warp.h"

#include <math.h>
#include <stdbool.h>

WarpMap warp_map(long height, long width, long to_height, long to_width, double radians, double zoom, double right,
                 double down, double mirror) {
  double cosine = cos(radians) / zoom, sine = sin(radians) / zoom;
  double scale_x = (double)width / (double)to_width, scale_y = (double)height / (double)to_height;
  double a = mirror * scale_x * cosine, b = mirror * scale_x * -sine, d = scale_y * sine, e = scale_y * cosine;
  double x = (double)(to_width - 1) / 2 + right, y = (double)(to_height - 1) / 2 + down; /* where the centre goes */
  return (WarpMap){{a, b, (double)(width - 1) / 2 - a * x - b * y, d, e, (double)(height - 1) / 2 - d * x - e * y}};
}

static long reflected(long i, long n) {
  i %= 2 * n;
  if (i < 0) i += 2 * n;
  return i < n ? i : 2 * n - 1 - i;
}

static long clamped(long i, long n) {
  return i < 0 ? 0 : i < n ? i : n - 1;
}

static const real *pixel_at(const WarpSource *s, long x, long y) {
  bool outside = x < 0 || x >= s->width || y < 0 || y >= s->height;
  if (outside && s->edge == WARP_CONSTANT) return s->fill;
  if (outside && s->edge == WARP_REFLECT) {
    x = reflected(x, s->width);
    y = reflected(y, s->height);
  } else if (outside) {
    x = clamped(x, s->width);
    y = clamped(y, s->height);
  }
  return s->pixels + (y * s->width + x) * s->channels;
}

/* Far outside is outside; also keeps the conversion to whole numbers defined, for infinities and NaN too. */
static inline real bounded(real v) {
  const real far = 1 << 20;
  return !(v > -far) ? -far : v < far ? v : far;
}

static inline long floor_of(real v) {
  long whole = (long)v;
  return whole - (v < (real)whole);
}

/* 'channels' is a constant at each call, so that its loop goes away. */
static inline void warp_pixel(const WarpSource *s, long channels, real x, real y, real *result) {
  long left = floor_of(x), top = floor_of(y);
  real right_part = x - (real)left, low_part = y - (real)top;
  const real *a, *b, *c, *d;
  if (left >= 0 && left + 1 < s->width && top >= 0 && top + 1 < s->height) {
    a = s->pixels + (top * s->width + left) * channels;
    b = a + channels;
    c = a + s->width * channels;
    d = c + channels;
  } else {
    a = pixel_at(s, left, top);
    b = pixel_at(s, left + 1, top);
    c = pixel_at(s, left, top + 1);
    d = pixel_at(s, left + 1, top + 1);
  }
  for (long k = 0; k < channels; k++) {
    real above = a[k] + right_part * (b[k] - a[k]), below = c[k] + right_part * (d[k] - c[k]);
    result[k] = above + low_part * (below - above);
  }
}

static inline void warp_rows(const WarpSource *s, long channels, const WarpMap *map, long height, long width,
                             real *result) {
  const double *m = map->of;
  for (long y = 0; y < height; y++) {
    real across = (real)m[0], down = (real)m[3];
    real x0 = (real)(m[1] * (double)y + m[2]), y0 = (real)(m[4] * (double)y + m[5]);
    for (long x = 0; x < width; x++, result += channels)
      warp_pixel(s, channels, bounded(x0 + across * (real)x), bounded(y0 + down * (real)x), result);
  }
}

void warp_image(const WarpSource *source, const WarpMap *map, long to_height, long to_width, real *result) {
  switch (source->channels) {
  case 1:
    warp_rows(source, 1, map, to_height, to_width, result);
    break;
  case 3:
    warp_rows(source, 3, map, to_height, to_width, result);
    break;
  default:
    warp_rows(source, source->channels, map, to_height, to_width, result);
  }
}
