/* face_head.c -- the head without its face: background, hair, neck, ears, skin, beard, glasses. */
#include "face_head.h"

#include <math.h>
#include <stddef.h>

static void draw_background(const Pen *pen) {
  const Canvas *c = pen->canvas;
  for (int row = 0; row < c->height; row++) {
    float tone = pen->f->background * (1.1f - 0.25f * (float)row / (float)c->height);
    for (int column = 0; column < c->width; column++) c->pixel[(long)row * c->width + column] = tone;
  }
}

/* ---- hair ---- */

typedef enum HairStyle { HAIR_NONE, HAIR_SHORT, HAIR_PARTED, HAIR_FRINGE, HAIR_LONG, HAIR_CURLY } HairStyle;

static HairStyle style_of(const Face *f) {
  return (HairStyle)(smaller(larger(f->style, 0), HAIR_CURLY) + 0.5f);
}

static void draw_hair_behind(const Pen *pen) {
  static const Point long_hair[] = {{0.3f, -1.1f}, {0.72f, -0.8f}, {0.9f, -0.2f},
                                    {0.92f, 0.5f}, {0.88f, 1.15f}, {0.4f, 1.25f}};
  static const Point curls[] = {{0.3f, -1.28f}, {0.8f, -1.0f},  {1.05f, -0.5f},
                                {1.02f, 0.0f},  {0.88f, 0.35f}, {0.5f, 0.4f}};
  Ink ink = {pen->f->hair * 0.8f, 1, 0.03f};
  if (style_of(pen->f) == HAIR_LONG) pen_symmetric_area(pen, 6, long_hair, ink);
  if (style_of(pen->f) == HAIR_CURLY) pen_symmetric_area(pen, 6, curls, ink);
}

/* Over the right half of the head: along the outer edge down, then up along the hairline. */
static const Point short_hair[] = {{0.3f, -1.08f},  {0.6f, -0.88f}, {0.78f, -0.45f}, {0.77f, -0.02f},
                                   {0.69f, -0.06f}, {0.62f, -0.5f}, {0.3f, -0.68f}};
static const Point fringe[] = {{0.3f, -1.12f}, {0.66f, -0.9f},  {0.84f, -0.4f}, {0.78f, 0.1f},
                               {0.69f, 0.02f}, {0.64f, -0.42f}, {0.3f, -0.52f}};
static const Point curtain[] = {{0.3f, -1.1f}, {0.68f, -0.85f}, {0.86f, -0.3f}, {0.88f, 0.5f},
                                {0.76f, 0.5f}, {0.7f, -0.05f},  {0.5f, -0.55f}, {0.06f, -0.82f}};
static const Point curls_top[] = {{0.3f, -1.2f}, {0.72f, -0.98f}, {0.92f, -0.5f}, {0.86f, -0.05f},
                                  {0.7f, -0.1f}, {0.62f, -0.5f},  {0.3f, -0.66f}};
/* All around, since a side parting is no mirror of itself. */
static const Point parting[] = {{-0.3f, -1.12f}, {0.3f, -1.12f},  {0.66f, -0.88f}, {0.82f, -0.4f},  {0.76f, 0.05f},
                                {0.7f, -0.1f},   {0.62f, -0.42f}, {0.2f, -0.58f},  {-0.28f, -0.8f}, {-0.55f, -0.6f},
                                {-0.68f, -0.2f}, {-0.76f, 0.05f}, {-0.8f, -0.4f},  {-0.64f, -0.9f}};

static void draw_parting(const Pen *pen, Ink ink) {
  Point at[14];
  for (int i = 0; i < 14; i++) at[i] = pen_place_flat(pen, parting[i].x, parting[i].y);
  pen_area(pen, 14, at, ink, 0.3f);
}

static void draw_hair(const Pen *pen) {
  Ink ink = {pen->f->hair, 1, 0.05f};
  switch (style_of(pen->f)) {
  case HAIR_NONE:
    break;
  case HAIR_SHORT:
    pen_symmetric_area(pen, 7, short_hair, ink);
    break;
  case HAIR_PARTED:
    draw_parting(pen, ink);
    break;
  case HAIR_FRINGE:
    pen_symmetric_area(pen, 7, fringe, ink);
    break;
  case HAIR_LONG:
    pen_symmetric_area(pen, 8, curtain, ink);
    break;
  case HAIR_CURLY:
    pen_symmetric_area(pen, 7, curls_top, ink);
    break;
  }
}

/* ---- head, ears, neck ---- */

static void draw_neck(const Pen *pen) {
  float skin = pen->f->skin;
  pen_symmetric_area(pen, 4, (Point[]){{0.2f, 0.5f}, {0.42f, 0.55f}, {0.42f, 1.3f}, {0.3f, 1.8f}},
                     (Ink){0.62f * skin, 1, 0});
  pen_symmetric_area(pen, 4, (Point[]){{0.3f, 1.3f}, {0.6f, 1.08f}, {1.3f, 1.2f}, {1.6f, 2.2f}},
                     (Ink){pen->f->clothes, 1, 0});
}

static void draw_ears(const Pen *pen) {
  const Point around[] = {{0.09f, 0.12f}, {0.0f, 0.31f}, {-0.09f, 0.12f}, {0.0f, -0.07f}};
  for (int side = -1; side <= 1; side += 2) {
    Point at[4];
    for (int i = 0; i < 4; i++) at[i] = pen_place_flat(pen, (float)side * (0.76f + around[i].x), around[i].y);
    pen_area(pen, 4, at, (Ink){0.85f * pen->f->skin, 1, 0}, 0.4f);
  }
}

void face_outline(const Pen *pen, Outline *outline) {
  const Face *f = pen->f;
  float jaw = f->jaw, drop = face_jaw_drop(f), low = 0.6f * (f->chin - 1), cheek = 0.03f * f->AU12;
  const Point right[] = {{0.2f, -1.0f},
                         {0.48f, -0.9f},
                         {0.68f, -0.62f},
                         {0.745f, -0.22f},
                         {0.73f, 0.12f},
                         {0.68f * mix(1, jaw, 0.4f) + cheek, 0.4f},
                         {0.545f * jaw + cheek - 0.03f * drop, 0.7f + 0.1f * drop + 0.5f * low},
                         {0.36f * jaw - 0.03f * drop, 0.9f + 0.2f * drop + low},
                         {0.13f, 1.0f + 0.24f * drop + low}};
  pen_symmetric_outline(pen, 9, right, outline);
}

static void draw_head(const Pen *pen, const Outline *outline) {
  const float skin = pen->f->skin;
  Paint paint = pen_paint(pen, (Ink){skin, 1, 0});
  paint.rim = 0.35f;
  paint.rim_width = 0.13f * pen->unit;
  canvas_paint(pen->canvas, outline, NULL, paint);
  pen_blob(pen, 0, -0.5f, 0.4f, 0.22f, 0, (Ink){1.12f * skin, 0.5f, 0});
}

/* ---- beard and glasses ---- */

void face_draw_beard(const Pen *pen, const Outline *head) {
  static const Point right[] = {{0.12f, 0.5f},  {0.32f, 0.53f}, {0.5f, 0.6f}, {0.66f, 0.3f},
                                {0.76f, -0.1f}, {0.95f, 0.6f},  {0.5f, 1.4f}};
  const Face *f = pen->f;
  Outline outline;
  pen_symmetric_outline(pen, 7, right, &outline);
  canvas_paint(pen->canvas, &outline, head, pen_paint(pen, (Ink){mix(f->skin, f->hair, 0.75f), 0.8f * f->beard, 0.1f}));
}

static void draw_glasses(const Pen *pen) {
  const Face *f = pen->f;
  float x = 0.31f * f->eye_distance;
  Ink ink = {0.08f, f->glasses, 0.01f};
  for (int side = -1; side <= 1; side += 2) {
    Point at[8];
    for (int i = 0; i < 8; i++) {
      float angle = 0.7853982f * (float)i;
      at[i] = (Point){x + 0.235f * cosf(angle), 0.02f + 0.18f * sinf(angle)};
    }
    Point ring[] = {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[0]};
    pen_stroke(pen, side, 9, ring, 0.016f, 0.016f, 0.016f, ink);
    pen_stroke(pen, side, 2, (Point[]){{x + 0.23f, -0.02f}, {0.72f, -0.04f}}, 0.014f, 0.014f, 0.014f, ink);
  }
  pen_stroke(pen, 1, 3, (Point[]){{-x + 0.23f, 0}, {0, -0.03f}, {x - 0.23f, 0}}, 0.016f, 0.016f, 0.016f, ink);
}

void face_draw_behind(const Pen *pen, const Outline *head) {
  draw_background(pen);
  draw_hair_behind(pen);
  draw_neck(pen);
  draw_ears(pen);
  draw_head(pen, head);
}

void face_draw_before(const Pen *pen) {
  draw_hair(pen);
  if (pen->f->glasses > 0) draw_glasses(pen);
}
