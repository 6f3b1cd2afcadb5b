/* warp.c -- see warp.h. */
#include "warp.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

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

/* result = the four pixels around x, y, by their distances. 'channels' is a constant at each call. */
static inline void blend(long channels, const real *a, const real *b, const real *c, const real *d, real right_part,
                         real low_part, real *result) {
  for (long k = 0; k < channels; k++) {
    real above = a[k] + right_part * (b[k] - a[k]), below = c[k] + right_part * (d[k] - c[k]);
    result[k] = above + low_part * (below - above);
  }
}

static inline void warp_anywhere(const WarpSource *s, long channels, real x, real y, real *result) {
  x = bounded(x);
  y = bounded(y);
  long left = floor_of(x), top = floor_of(y);
  blend(channels, pixel_at(s, left, top), pixel_at(s, left + 1, top), pixel_at(s, left, top + 1),
        pixel_at(s, left + 1, top + 1), x - (real)left, y - (real)top, result);
}

/* The line on which the pixels of one row of the result lie in the source: pixel i at x + i across, y + i down. */
typedef struct Line {
  real x, y, across, down;
} Line;

static inline real line_x(const Line *l, long i) {
  return l->x + l->across * (real)i;
}
static inline real line_y(const Line *l, long i) {
  return l->y + l->down * (real)i;
}

/* True where all four pixels around are in the picture. */
static inline bool is_inside(const WarpSource *s, const Line *l, long i) {
  real x = line_x(l, i), y = line_y(l, i);
  return x >= 0 && x < (real)(s->width - 1) && y >= 0 && y < (real)(s->height - 1);
}

/* Pixels first..last-1, all inside: a loop that becomes vector code, which finds its pixels by numbers of 32 bits. */
static inline void warp_inside(const WarpSource *s, long channels, const Line *l, long first, long last, real *result) {
  const real *pixels = s->pixels;
  int32_t step = (int32_t)channels, row = (int32_t)(s->width * channels);
  Line line = *l;
#pragma GCC ivdep
  for (int32_t i = (int32_t)first; i < (int32_t)last; i++) {
    real x = line.x + line.across * (real)i, y = line.y + line.down * (real)i;
    int32_t left = (int32_t)x, top = (int32_t)y, at = top * row + left * step;
    blend(channels, pixels + at, pixels + at + step, pixels + at + row, pixels + at + row + step, x - (real)left,
          y - (real)top, result + i * step);
  }
}

/* What lies inside is one stretch of the line, because the picture is convex. */
static inline void warp_line(const WarpSource *s, long channels, const Line *l, long width, real *result) {
  long first = 0, last = width;
  bool large = s->height * s->width * s->channels > INT32_MAX;
  for (; first < width && (large || !is_inside(s, l, first)); first++)
    warp_anywhere(s, channels, line_x(l, first), line_y(l, first), result + first * channels);
  for (; last > first && !is_inside(s, l, last - 1); last--)
    warp_anywhere(s, channels, line_x(l, last - 1), line_y(l, last - 1), result + (last - 1) * channels);
  warp_inside(s, channels, l, first, last, result);
}

static inline void warp_lines(const WarpSource *s, long channels, const WarpMap *map, long height, long width,
                              real *result) {
  const double *m = map->of;
  for (long y = 0; y < height; y++, result += width * channels) {
    Line line = {(real)(m[1] * (double)y + m[2]), (real)(m[4] * (double)y + m[5]), (real)m[0], (real)m[3]};
    warp_line(s, channels, &line, width, result);
  }
}

void warp_image(const WarpSource *source, const WarpMap *map, long to_height, long to_width, real *result) {
  switch (source->channels) {
  case 1:
    warp_lines(source, 1, map, to_height, to_width, result);
    break;
  case 3:
    warp_lines(source, 3, map, to_height, to_width, result);
    break;
  default:
    warp_lines(source, source->channels, map, to_height, to_width, result);
  }
}
