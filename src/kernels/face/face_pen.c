/* face_pen.c -- see face_pen.h. */
#include "face_pen.h"

#include <math.h>
#include <stddef.h>

static const float HEAD_DEPTH = 0.75f, UNIT_OF_IMAGE = 0.43f;

Pen pen_for(const Face *f, const Canvas *canvas) {
  float size = (float)(canvas->height < canvas->width ? canvas->height : canvas->width);
  return (Pen){.canvas = canvas,
               .f = f,
               .unit = UNIT_OF_IMAGE * size * f->scale,
               .centre = {(float)canvas->width * (0.5f + f->shift_x), (float)canvas->height * (0.5f + f->shift_y)},
               .cos_roll = cosf(f->roll),
               .sin_roll = sinf(f->roll),
               .cos_yaw = cosf(f->yaw),
               .sin_yaw = sinf(f->yaw),
               .cos_pitch = cosf(f->pitch),
               .sin_pitch = sinf(f->pitch),
               .dark = 0.38f * f->skin};
}

Point pen_place_flat(const Pen *pen, float x, float y) {
  x = x * pen->f->width - 0.45f * HEAD_DEPTH * pen->sin_yaw;
  y = y - 0.3f * HEAD_DEPTH * pen->sin_pitch;
  return (Point){pen->centre.x + pen->unit * (x * pen->cos_roll - y * pen->sin_roll),
                 pen->centre.y + pen->unit * (x * pen->sin_roll + y * pen->cos_roll)};
}

Point pen_place(const Pen *pen, float x, float y, float lift) {
  float z = HEAD_DEPTH * sqrtf(larger(0.04f, 1 - 0.9f * x * x - 0.35f * y * y)) + lift;
  float turned_x = x * pen->cos_yaw + z * pen->sin_yaw / pen->f->width, turned_z = z * pen->cos_yaw - x * pen->sin_yaw;
  return pen_place_flat(pen, turned_x, y * pen->cos_pitch + turned_z * pen->sin_pitch);
}

Paint pen_paint(const Pen *pen, Ink ink) {
  return (Paint){.tone = clamp01(ink.tone), .opacity = clamp01(ink.opacity), .soft = larger(1, ink.soft * pen->unit)};
}

void pen_stroke(const Pen *pen, int side, int count, const Point *through, float first, float middle, float last,
                Ink ink) {
  Point at[STROKE_POINTS];
  float half[STROKE_POINTS];
  Outline line;
  if (ink.opacity <= 0.01f) return;
  for (int i = 0; i < count && i < STROKE_POINTS; i++) {
    float t = 2 * (float)i / (float)(count - 1);
    at[i] = pen_place(pen, (float)side * through[i].x, through[i].y, 0);
    half[i] = larger(0.3f, pen->unit * (t < 1 ? mix(first, middle, t) : mix(middle, last, t - 1)));
  }
  outline_spline(&line, at, half, count, 6, false);
  canvas_paint(pen->canvas, &line, NULL, pen_paint(pen, ink));
}

void pen_blob(const Pen *pen, float x, float y, float rx, float ry, float angle, Ink ink) {
  if (ink.opacity > 0.01f)
    canvas_blob(pen->canvas, pen_place(pen, x, y, 0), larger(0.5f, rx * pen->unit), larger(0.5f, ry * pen->unit),
                pen->f->roll + angle, clamp01(ink.tone), clamp01(ink.opacity));
}

/* The points of the right half, from top to bottom, and their mirror images back up: 2 * count, in pixels. */
static void mirror(const Pen *pen, int count, const Point *right, Point *at) {
  for (int i = 0; i < count && i < HALF_POINTS; i++) {
    at[i] = pen_place_flat(pen, right[i].x, right[i].y);
    at[2 * count - 1 - i] = pen_place_flat(pen, -right[i].x, right[i].y);
  }
}

void pen_symmetric_outline(const Pen *pen, int count, const Point *right, Outline *outline) {
  Point at[2 * HALF_POINTS];
  mirror(pen, count, right, at);
  outline_spline(outline, at, NULL, 2 * count, 4, true);
}

void pen_area(const Pen *pen, int count, const Point *at, Ink ink, float rim) {
  Outline outline;
  Paint paint = pen_paint(pen, ink);
  paint.rim = rim;
  paint.rim_width = 0.08f * pen->unit;
  outline_spline(&outline, at, NULL, count, 4, true);
  canvas_paint(pen->canvas, &outline, NULL, paint);
}

void pen_symmetric_area(const Pen *pen, int count, const Point *right, Ink ink) {
  Point at[2 * HALF_POINTS];
  mirror(pen, count, right, at);
  pen_area(pen, 2 * count, at, ink, 0.3f);
}
