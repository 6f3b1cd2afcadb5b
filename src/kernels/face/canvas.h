/*
** canvas.h -- drawing on a gray canvas: areas and lines with soft edges, by their signed distance in pixels, and blobs of
** shade. Tones are 0 (black) to 1 (white). Pixel (row, column) has its centre at
** x = column + 0.5, y = row + 0.5.
*/
#ifndef FERAL_CANVAS_H
#define FERAL_CANVAS_H

#include <stdbool.h>

/* A share or a tone. */
static inline float clamp01(float x) {
  return x < 0 ? 0 : x > 1 ? 1 : x;
}

typedef struct Canvas {
  float *pixel; /* (height,width) */
  int height, width;
} Canvas;

typedef struct Point {
  float x, y;
} Point;

enum { OUTLINE_MOST = 128 };

/* A closed area, or an open line with half its width at each point. */
typedef struct Outline {
  int count;
  bool closed;
  Point at[OUTLINE_MOST];
  float half[OUTLINE_MOST];
} Outline;

typedef struct Paint {
  float tone, opacity;
  float soft;           /* pixels over which the edge fades, at least 1 */
  float rim, rim_width; /* a share of the tone lost towards the edge, over so many pixels; 0: none */
} Paint;

/* A smooth curve through 'count' points (Catmull and Rom 1974) with 'steps' pieces between each two; half
   widths of a line are interpolated. 'half' may be NULL. */
void outline_spline(Outline *outline, const Point *through, const float *half, int count, int steps, bool closed);

/* Along the pixel centres (x + i, y), i < n: least[i] becomes the smaller of itself and the distance to the piece from a to b,
   less its half width there. */
void outline_near_piece(Point a, Point b, float half_a, float half_b, float x, float y, int n, float *least);

/* Paints an area or a line, only inside of 'clip' where that is not NULL. */
void canvas_paint(const Canvas *canvas, const Outline *outline, const Outline *clip, Paint paint);

/* A spot of shade with a Gaussian edge: radii rx and ry in pixels, turned by 'angle'. */
void canvas_blob(const Canvas *canvas, Point centre, float rx, float ry, float angle, float tone, float opacity);

#endif
