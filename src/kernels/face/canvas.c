/* canvas.c -- see canvas.h. Rows are worked on in chunks, edge by edge, so that the compiler makes vectors of them. */
#include "canvas.h"

#include <math.h>
#include <stddef.h>

enum { CHUNK = 64 };

static int at_most(int x, int most) {
  return x < most ? x : most;
}

/* ---- outlines ---- */

static float cubic(float a, float b, float c, float d, float t) {
  return b + 0.5f * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}

static int neighbour(int i, int count, bool closed) {
  if (closed) return (i + count) % count;
  return i < 0 ? 0 : i >= count ? count - 1 : i;
}

void outline_spline(Outline *outline, const Point *through, const float *half, int count, int steps, bool closed) {
  int pieces = closed ? count : count - 1;
  outline->count = 0;
  outline->closed = closed;
  if (count < 1) return;
  for (int i = 0; i <= pieces; i++) {
    int ends = i == pieces ? !closed : steps; /* an open line has its last point too */
    int a = neighbour(i - 1, count, closed), b = neighbour(i, count, closed), c = neighbour(i + 1, count, closed),
        d = neighbour(i + 2, count, closed);
    for (int s = 0; s < ends && outline->count < OUTLINE_MOST; s++) {
      float t = (float)s / (float)steps;
      outline->at[outline->count] = (Point){cubic(through[a].x, through[b].x, through[c].x, through[d].x, t),
                                            cubic(through[a].y, through[b].y, through[c].y, through[d].y, t)};
      outline->half[outline->count++] = half == NULL ? 0 : half[b] + t * (half[c] - half[b]);
    }
  }
}

/* ---- distances along a chunk of a row: pixel centres (x + i, y), i < n ---- */

void outline_near_piece(Point a, Point b, float half_a, float half_b, float x, float y, int n, float *least) {
  float dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy, inverse = length > 0 ? 1 / length : 0;
  for (int i = 0; i < n; i++) {
    float px = x + (float)i - a.x, py = y - a.y;
    float t = (px * dx + py * dy) * inverse;
    t = t < 0 ? 0 : t;
    t = t > 1 ? 1 : t;
    float ex = px - t * dx, ey = py - t * dy;
    float distance = sqrtf(ex * ex + ey * ey) - (half_a + t * (half_b - half_a));
    least[i] = distance < least[i] ? distance : least[i];
  }
}

/* Turns the sign of the pixels left of where the edge from a to b crosses the row. */
static void cross(Point a, Point b, float x, float y, int n, float *sign) {
  if ((a.y > y) == (b.y > y)) return;
  float crossing = a.x + (y - a.y) / (b.y - a.y) * (b.x - a.x);
  for (int i = 0; i < n; i++) sign[i] = x + (float)i < crossing ? -sign[i] : sign[i];
}

/* Signed distances, negative inside. */
static void measure(const Outline *o, float x, float y, int n, float *distance) {
  float sign[CHUNK];
  for (int i = 0; i < CHUNK; i++) {
    distance[i] = 1e9f;
    sign[i] = 1;
  }
  for (int i = 0; i + 1 < o->count + o->closed; i++) {
    int next = i + 1 < o->count ? i + 1 : 0;
    outline_near_piece(o->at[i], o->at[next], o->half[i], o->half[next], x, y, n, distance);
    if (o->closed) cross(o->at[i], o->at[next], x, y, n, sign);
  }
  for (int i = 0; i < n; i++) distance[i] *= sign[i];
}

/* ---- painting ---- */

typedef struct Box {
  int top, bottom, left, right; /* rows top .. bottom - 1, columns left .. right - 1 */
} Box;

/* The nearest whole number in 0..most, also for what is none. */
static int hold(float x, int most) {
  return (int)fminf(fmaxf(x, 0), (float)most);
}

static Box box_around(const Canvas *canvas, float left, float right, float top, float bottom) {
  return (Box){hold(floorf(top), canvas->height), hold(ceilf(bottom) + 1, canvas->height),
               hold(floorf(left), canvas->width), hold(ceilf(right) + 1, canvas->width)};
}

static Box box_of(const Canvas *canvas, const Outline *o, float margin) {
  float left = 1e9f, right = -1e9f, top = 1e9f, bottom = -1e9f;
  for (int i = 0; i < o->count; i++) {
    left = fminf(left, o->at[i].x - o->half[i]);
    right = fmaxf(right, o->at[i].x + o->half[i]);
    top = fminf(top, o->at[i].y - o->half[i]);
    bottom = fmaxf(bottom, o->at[i].y + o->half[i]);
  }
  return box_around(canvas, left - margin, right + margin, top - margin, bottom + margin);
}

static void cover(const Paint *paint, int n, const float *distance, const float *clip, float *pixel) {
  for (int i = 0; i < n; i++) {
    float share = paint->opacity * clamp01(0.5f - distance[i] / paint->soft) * clamp01(0.5f - clip[i]);
    float tone = paint->tone;
    if (paint->rim > 0) tone *= 1 - paint->rim * expf(fminf(distance[i], 0) / paint->rim_width);
    pixel[i] += share * (tone - pixel[i]);
  }
}

void canvas_paint(const Canvas *canvas, const Outline *outline, const Outline *clip, Paint paint) {
  float distance[CHUNK], limit[CHUNK];
  Box box = box_of(canvas, outline, paint.soft / 2 + 1);
  for (int i = 0; i < CHUNK; i++) limit[i] = -1;
  for (int row = box.top; row < box.bottom; row++)
    for (int column = box.left; column < box.right; column += CHUNK) {
      int n = at_most(CHUNK, box.right - column);
      float x = (float)column + 0.5f, y = (float)row + 0.5f;
      measure(outline, x, y, n, distance);
      if (clip != NULL) measure(clip, x, y, n, limit);
      cover(&paint, n, distance, limit, canvas->pixel + (long)row * canvas->width + column);
    }
}

void canvas_blob(const Canvas *canvas, Point centre, float rx, float ry, float angle, float tone, float opacity) {
  float reach = 2.2f * fmaxf(rx, ry), c = cosf(angle), s = sinf(angle);
  Box box = box_around(canvas, centre.x - reach, centre.x + reach, centre.y - reach, centre.y + reach);
  for (int row = box.top; row < box.bottom; row++) {
    float *pixel = canvas->pixel + (long)row * canvas->width;
    for (int column = box.left; column < box.right; column++) {
      float dx = (float)column + 0.5f - centre.x, dy = (float)row + 0.5f - centre.y;
      float u = (c * dx + s * dy) / rx, v = (c * dy - s * dx) / ry;
      pixel[column] += opacity * expf(-u * u - v * v) * (tone - pixel[column]);
    }
  }
}
