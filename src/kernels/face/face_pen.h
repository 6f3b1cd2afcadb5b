/*
** face_pen.h -- drawing on a head: places are given in half heads, x to the viewer's right, y down, the origin between the
** eyes, the chin at about y = 1. Features lie on an ellipsoid that turns with the head.
*/
#ifndef FERAL_FACE_PEN_H
#define FERAL_FACE_PEN_H

#include "face_sketch.h"

typedef struct Pen {
  const Canvas *canvas;
  const Face *f;
  float unit;   /* pixels to a half head */
  Point centre; /* of the head, in pixels */
  float cos_roll, sin_roll;
  float cos_yaw, sin_yaw, cos_pitch, sin_pitch;
  float dark; /* tone of lines on the skin */
} Pen;

Pen pen_for(const Face *face, const Canvas *canvas);
static inline float larger(float a, float b) {
  return a > b ? a : b;
}
static inline float smaller(float a, float b) {
  return a < b ? a : b;
}
static inline float mix(float a, float b, float share) {
  return a + share * (b - a);
}

/* To pixels: what is seen as an outline (head, hair, neck) ... */
Point pen_place_flat(const Pen *pen, float x, float y);
/* ... and what lies on the front of the head, 'lift' above its surface. */
Point pen_place(const Pen *pen, float x, float y, float lift);

typedef struct Ink {
  float tone, opacity, soft; /* soft: width of the edge in half heads, at least a pixel */
} Ink;

Paint pen_paint(const Pen *pen, Ink ink);

enum { STROKE_POINTS = 12, HALF_POINTS = 12 };

/* A curve through points, its half width going from 'first' over 'middle' to 'last'; side -1 mirrors it to the left. */
void pen_stroke(const Pen *pen, int side, int count, const Point *through, float first, float middle, float last,
                Ink ink);

/* A spot of shade. */
void pen_blob(const Pen *pen, float x, float y, float rx, float ry, float angle, Ink ink);

/* A closed smooth area through points in pixels, its tone falling by the share 'rim' towards the edge. */
void pen_area(const Pen *pen, int count, const Point *at, Ink ink, float rim);

/* The same through points of the right half, from top to bottom, and their mirror images. */
void pen_symmetric_outline(const Pen *pen, int count, const Point *right, Outline *outline);
void pen_symmetric_area(const Pen *pen, int count, const Point *right, Ink ink);

#endif
