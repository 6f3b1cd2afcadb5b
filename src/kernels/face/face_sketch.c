/*
** face_sketch.c -- see face_sketch.h. Brows, eyes, nose and mouth: how each action unit moves them.
*/
#include "face_sketch.h"

#include <math.h>
#include <stddef.h>

#include "face_head.h"

/* ---- brows ---- */

static void draw_brow(const Pen *pen, int side) {
  const Face *f = pen->f;
  float sorrow = smaller(f->AU1, f->AU4) * (1 - f->AU2), lower = f->AU4 * (1 - 0.55f * smaller(1, f->AU1));
  float x = 0.31f * f->eye_distance, y = -0.25f - f->brow_height, half = 0.034f * f->brow_thickness;
  Point through[4] = {
      {x - 0.19f - 0.045f * f->AU4 - 0.02f * f->AU9,
       y + 0.02f - 0.15f * f->AU1 + 0.125f * lower + 0.06f * f->AU9 - 0.03f * sorrow},
      {x - 0.07f - 0.02f * f->AU4, y - 0.02f - 0.11f * f->AU1 - 0.08f * f->AU2 + 0.105f * lower + 0.045f * f->AU9},
      {x + 0.09f, y - 0.045f - 0.02f * f->AU1 - 0.16f * f->AU2 + 0.055f * f->AU4 + 0.02f * f->AU9 + 0.03f * sorrow},
      {x + 0.22f, y + 0.02f + 0.03f * f->AU1 * (1 - f->AU2) - 0.11f * f->AU2 + 0.01f * f->AU4 + 0.05f * sorrow}};
  float tone = smaller(f->hair * 0.8f, 0.45f * f->skin);
  pen_stroke(pen, side, 4, through, 0.8f * half, half, 0.3f * half, (Ink){tone, 0.95f, 0.03f});
}

static void draw_forehead(const Pen *pen) {
  const Face *f = pen->f;
  float frown = clamp01(f->AU4 + 0.5f * f->AU9), both = smaller(f->AU1, f->AU2), inner = f->AU1 * (1 - f->AU2);
  for (int side = -1; side <= 1; side += 2)
    pen_stroke(pen, side, 3,
               (Point[]){{0.05f, -0.36f + 0.06f * f->AU4},
                         {0.06f, -0.27f + 0.06f * f->AU4},
                         {0.045f, -0.17f + 0.06f * f->AU4}},
               0.008f, 0.014f, 0.008f, (Ink){pen->dark, 0.75f * frown, 0.03f});
  for (int i = 0; i < 3; i++) {
    float y = -0.52f - 0.09f * (float)i, x = 0.4f - 0.05f * (float)i;
    pen_stroke(pen, 1, 5,
               (Point[]){{-x, y + 0.03f}, {-x / 2, y - 0.02f}, {0, y + 0.01f}, {x / 2, y - 0.02f}, {x, y + 0.03f}},
               0.004f, 0.01f, 0.004f, (Ink){pen->dark, clamp01(0.6f * both + 0.15f * f->age), 0.03f});
    pen_stroke(pen, 1, 3, (Point[]){{-x * 0.5f, y + 0.05f}, {0, y - 0.01f}, {x * 0.5f, y + 0.05f}}, 0.004f, 0.01f,
               0.004f, (Ink){pen->dark, 0.45f * inner, 0.03f});
  }
}

/* ---- eyes ---- */

typedef struct Eye {
  float x, y, half;   /* centre and half width */
  float upper, lower; /* how far the lids stand from the line of the corners; lower may be negative: arched up */
  float slant;        /* > 0: the upper lid is highest towards the nose, as in sorrow; < 0: pressed down there, as in
                         anger */
} Eye;

static Eye eye_of(const Face *f) {
  float sorrow = smaller(1, f->AU1 * (0.4f + f->AU4)) * (1 - f->AU2) * (1 - f->AU5), press = f->AU4 * (1 - f->AU1);
  float squint = 0.42f * f->AU6 + 0.3f * f->AU7 + 0.3f * f->AU9;
  float upper = 0.095f * (1 + 0.68f * f->AU5 - 0.7f * squint - 0.1f * sorrow) * (1 - f->AU43);
  float lower = 0.062f * (1 + 0.3f * f->AU5 * (1 - f->AU7) - 1.1f * f->AU6 - 0.7f * f->AU7 - 0.7f * f->AU9) *
                (1 - 0.5f * f->AU43);
  return (Eye){.x = 0.31f * f->eye_distance,
               .y = -0.01f,
               .half = 0.175f * f->eye_size,
               .upper = larger(upper, 0.012f - lower) * f->eye_size,
               .lower = lower * f->eye_size,
               .slant = 0.55f * sorrow - 0.5f * press};
}

enum { LID_POINTS = 13 };

/* A lid as points from the inner (t = -1) to the outer corner (t = 1). */
static void lid(const Pen *pen, const Eye *eye, int side, float height, float slant, float wider, Point *at) {
  for (int i = 0; i < LID_POINTS; i++) {
    float t = 2 * (float)i / (LID_POINTS - 1) - 1, arch = (1 - t * t) * (1 - slant * t);
    float x = eye->x + wider * eye->half * t, y = eye->y - height * arch - (pen->f->eye_tilt + 0.06f) * eye->half * t;
    at[i] = pen_place(pen, (float)side * x, y, -0.02f);
  }
}

static void lid_line(const Pen *pen, const Point *at, float half, Ink ink) {
  Outline line = {.count = LID_POINTS, .closed = false};
  for (int i = 0; i < LID_POINTS; i++) {
    float t = 2 * (float)i / (LID_POINTS - 1) - 1;
    line.at[i] = at[i];
    line.half[i] = larger(0.3f, half * pen->unit * (1 - 0.6f * t * t));
  }
  canvas_paint(pen->canvas, &line, NULL, pen_paint(pen, ink));
}

static void circle(Point centre, float radius, Outline *outline) {
  outline->count = 20;
  outline->closed = true;
  for (int i = 0; i < 20; i++) {
    float angle = 6.2831853f * (float)i / 20;
    outline->at[i] = (Point){centre.x + radius * cosf(angle), centre.y + radius * sinf(angle)};
    outline->half[i] = 0;
  }
}

static void draw_eyeball(const Pen *pen, const Eye *eye, int side, const Outline *opening) {
  const Face *f = pen->f;
  Outline disc;
  Point centre = pen_place(pen, (float)side * eye->x + 0.05f * f->gaze_x, eye->y - 0.012f + 0.03f * f->gaze_y, -0.02f);
  float radius = 0.088f * f->eye_size * pen->unit;
  canvas_paint(pen->canvas, opening, NULL, pen_paint(pen, (Ink){mix(0.95f, f->skin, 0.25f), 1, 0}));
  circle(centre, radius, &disc);
  canvas_paint(pen->canvas, &disc, opening, pen_paint(pen, (Ink){f->iris, 1, 0}));
  circle(centre, 0.45f * radius, &disc);
  canvas_paint(pen->canvas, &disc, opening, pen_paint(pen, (Ink){0.03f, 1, 0}));
  circle((Point){centre.x - 0.35f * radius, centre.y - 0.35f * radius}, 0.22f * radius, &disc);
  canvas_paint(pen->canvas, &disc, opening, pen_paint(pen, (Ink){1, 0.9f, 0}));
}

static void draw_eye(const Pen *pen, int side) {
  const Face *f = pen->f;
  Eye eye = eye_of(f);
  Point upper[LID_POINTS], lower[LID_POINTS], crease[LID_POINTS];
  Outline opening = {.count = 2 * LID_POINTS - 2, .closed = true};
  pen_blob(pen, (float)side * eye.x, eye.y - 0.02f, 0.24f, 0.15f, 0, (Ink){0.6f * f->skin, 0.5f, 0});
  lid(pen, &eye, side, eye.upper, eye.slant, 1, upper);
  lid(pen, &eye, side, -eye.lower, 0, 1, lower);
  for (int i = 0; i < LID_POINTS; i++) opening.at[i] = upper[i];
  for (int i = 1; i < LID_POINTS - 1; i++) opening.at[LID_POINTS - 1 + i] = lower[LID_POINTS - 1 - i];
  for (int i = 0; i < opening.count; i++) opening.half[i] = 0;
  draw_eyeball(pen, &eye, side, &opening);
  lid(pen, &eye, side, eye.upper + 0.045f, eye.slant, 1.05f, crease);
  lid_line(pen, crease, 0.008f, (Ink){pen->dark, 0.5f * (1 - f->AU5 * 0.6f), 0.02f});
  lid_line(pen, lower, 0.008f, (Ink){pen->dark, 0.6f, 0.01f});
  lid_line(pen, upper, 0.022f, (Ink){0.25f * f->skin, 1, 0.01f});
}

/* Cheek raiser: the fold under the eye and the crow's feet; bags by age. */
static void draw_cheek(const Pen *pen, int side) {
  const Face *f = pen->f;
  float x = 0.31f * f->eye_distance, raised = f->AU6;
  pen_stroke(pen, side, 4,
             (Point[]){{x - 0.15f, 0.13f - 0.02f * raised},
                       {x - 0.02f, 0.19f - 0.04f * raised},
                       {x + 0.12f, 0.17f - 0.05f * raised},
                       {x + 0.22f, 0.08f - 0.03f * raised}},
             0.006f, 0.014f, 0.004f,
             (Ink){pen->dark, clamp01(0.6f * raised + 0.35f * f->age + 0.25f * f->AU7 + 0.3f * f->AU9), 0.05f});
  for (int i = -1; i <= 1; i++)
    pen_stroke(pen, side, 3,
               (Point[]){{x + 0.235f, 0.0f + 0.025f * (float)i},
                         {x + 0.29f, 0.05f * (float)i},
                         {x + 0.34f, 0.02f + 0.085f * (float)i}},
               0.01f, 0.008f, 0.003f, (Ink){pen->dark, 0.6f * raised, 0.02f});
  pen_blob(pen, (float)side * 0.42f, 0.33f - 0.05f * raised, 0.17f, 0.12f, 0,
           (Ink){1.2f * f->skin, 0.25f + 0.45f * raised, 0});
}

/* ---- nose ---- */

static void draw_nose(const Pen *pen) {
  const Face *f = pen->f;
  float tip = 0.37f * f->nose_length - 0.035f * f->AU9 - 0.01f * f->AU10,
        wing = 0.135f * f->nose_width * (1 + 0.15f * f->AU9 + 0.1f * f->AU12);
  int shadow = f->light_x > 0 ? -1 : 1;
  float up = 0.05f * f->AU9 + 0.02f * f->AU10;
  pen_stroke(pen, shadow, 3, (Point[]){{0.085f, -0.08f}, {0.06f, 0.12f}, {0.1f, tip - 0.04f}}, 0.02f, 0.02f, 0.035f,
             (Ink){0.62f * f->skin, 0.55f, 0.08f});
  pen_stroke(pen, -shadow, 3, (Point[]){{0.085f, -0.08f}, {0.06f, 0.12f}, {0.09f, tip - 0.06f}}, 0.01f, 0.01f, 0.01f,
             (Ink){0.7f * f->skin, 0.3f, 0.06f});
  pen_stroke(pen, 1, 2, (Point[]){{0, -0.02f}, {0, tip - 0.08f}}, 0.02f, 0.025f, 0.03f,
             (Ink){1.2f * f->skin, 0.5f, 0.06f});
  pen_blob(pen, 0, tip - 0.02f, 0.07f, 0.06f, 0, (Ink){1.25f * f->skin, 0.5f, 0});
  pen_blob(pen, 0, tip + 0.1f, 0.13f, 0.04f, 0, (Ink){0.6f * f->skin, 0.55f, 0});
  for (int side = -1; side <= 1; side += 2) {
    pen_stroke(pen, side, 4,
               (Point[]){{wing - 0.035f, tip - 0.09f - up},
                         {wing, tip - 0.02f - up},
                         {wing - 0.015f, tip + 0.055f - 0.6f * up},
                         {wing - 0.06f, tip + 0.055f}},
               0.006f, 0.013f, 0.008f, (Ink){pen->dark, clamp01(0.7f + 0.3f * f->AU9), 0.02f});
    pen_blob(pen, (float)side * 0.55f * wing, tip + 0.05f - 0.3f * up, 0.038f * (1 + 0.2f * f->AU9), 0.024f, 0,
             (Ink){0.1f, 0.85f, 0});
  }
}

/* Nose wrinkler: lines across the bridge and along its sides. */
static void draw_nose_wrinkles(const Pen *pen) {
  float depth = pen->f->AU9;
  for (int i = 0; i < 3; i++) {
    float y = -0.1f + 0.075f * (float)i;
    pen_stroke(pen, 1, 3, (Point[]){{-0.08f, y + 0.03f}, {0, y - 0.01f}, {0.08f, y + 0.03f}}, 0.006f, 0.012f, 0.006f,
               (Ink){pen->dark, 0.75f * depth, 0.02f});
  }
  for (int side = -1; side <= 1; side += 2)
    for (int i = 0; i < 2; i++) {
      float y = 0.1f + 0.08f * (float)i;
      pen_stroke(pen, side, 3, (Point[]){{0.07f, y + 0.05f}, {0.13f, y}, {0.19f, y - 0.05f}}, 0.008f, 0.012f, 0.004f,
                 (Ink){pen->dark, 0.65f * depth, 0.02f});
    }
}

/* ---- mouth ---- */

typedef struct Mouth {
  float half, corner;                             /* half width, height of the corners */
  float upper_out, upper_in, lower_in, lower_out; /* heights of the lips' edges in the middle */
  float round, square;                            /* shape of the opening: ellipse instead of lens; flattened */
} Mouth;

static Mouth mouth_of(const Face *f) {
  float y = 0.645f, thin = (1 - 0.45f * f->AU23) * (1 - 0.6f * f->AU24) * (1 - 0.25f * f->AU12) * (1 - 0.2f * f->AU20);
  float gap = (0.06f + 0.05f * f->AU20) * f->AU25 + 0.14f * f->AU26 + 0.36f * f->AU27,
        raise = 0.085f * f->AU10 + 0.04f * f->AU9;
  float chin = 0.05f * f->AU17 * (1 - smaller(1, gap * 6));
  Mouth m = {.half = 0.27f * f->mouth_width *
                     (1 + 0.28f * f->AU12 + 0.28f * f->AU20 - 0.15f * f->AU23 - 0.3f * f->AU27 -
                      0.22f * f->AU26 * (1 - f->AU20) * (1 - f->AU12) - 0.12f * f->AU17),
             .corner = y - 0.15f * f->AU12 + 0.11f * f->AU15 + 0.03f * f->AU20 + 0.1f * f->AU27 + 0.03f * f->AU17 +
                       0.06f * f->AU26,
             .round = clamp01(f->AU27 + 0.8f * f->AU26 * (1 - f->AU20) * (1 - f->AU12)),
             .square = clamp01(0.8f * f->AU20 + 0.8f * f->AU16 + 0.6f * f->AU10)};
  m.upper_in = y - 0.28f * gap - raise * (0.4f + 0.6f * f->AU25) - chin + 0.02f * f->AU12 - 0.02f * f->AU15;
  m.lower_in =
      larger(m.upper_in, m.upper_in + gap + (0.05f * f->AU16 + raise * 0.7f) * f->AU25 + 0.09f * f->AU12 * f->AU25);
  m.upper_out = smaller(m.upper_in, y - 0.28f * gap - raise - chin + 0.02f * f->AU12) - 0.06f * f->lips * thin;
  m.lower_out = m.lower_in + 0.085f * f->lips * thin * (1 - 0.15f * f->AU27) + 0.02f * f->AU17;
  return m;
}

enum { LIP_POINTS = 17 };

/* The edge of a lip that stands at 'middle' in its middle, from the left corner to the right; 'dip' is the cupid's bow. */
static void lip(const Pen *pen, const Mouth *m, float middle, float dip, float wider, Point *at) {
  for (int i = 0; i < LIP_POINTS; i++) {
    float t = 2 * (float)i / (LIP_POINTS - 1) - 1, flat = mix(2, 4.5f, m->square);
    float arch = powf(1 - powf(fabsf(t), flat), mix(1, 0.5f, m->round));
    float y = m->corner + (middle - m->corner) * arch + dip * expf(-t * t * 40);
    at[i] = pen_place(pen, wider * m->half * t, y, 0.03f);
  }
}

/* The area between two edges. */
static void between(const Point *upper, const Point *lower, Outline *outline) {
  outline->count = 2 * LIP_POINTS;
  outline->closed = true;
  for (int i = 0; i < LIP_POINTS; i++) {
    outline->at[i] = upper[i];
    outline->at[2 * LIP_POINTS - 1 - i] = lower[i];
  }
  for (int i = 0; i < outline->count; i++) outline->half[i] = 0;
}

static void draw_teeth(const Pen *pen, const Mouth *m, const Outline *opening) {
  const Face *f = pen->f;
  float gap = m->lower_in - m->upper_in;
  float upper =
      smaller(0.55f * gap, 0.1f) * clamp01(0.35f + f->AU12 + f->AU10 + f->AU20 + 0.5f * f->AU16) * (1 - 0.6f * f->AU27);
  float lower = smaller(0.42f * gap, 0.08f) * clamp01(1.2f * f->AU16 + 0.7f * f->AU20);
  Point edge[LIP_POINTS], gum[LIP_POINTS];
  Outline teeth;
  lip(pen, m, m->upper_in - 0.02f, 0, 1, gum);
  lip(pen, m, m->upper_in + upper, 0, 1, edge);
  between(gum, edge, &teeth);
  canvas_paint(pen->canvas, &teeth, opening, pen_paint(pen, (Ink){0.95f, upper > 0.01f, 0}));
  lip(pen, m, m->lower_in + 0.02f, 0, 1, gum);
  lip(pen, m, m->lower_in - lower, 0, 1, edge);
  between(edge, gum, &teeth);
  canvas_paint(pen->canvas, &teeth, opening, pen_paint(pen, (Ink){0.88f, lower > 0.01f, 0}));
}

static void draw_lips(const Pen *pen, const Mouth *m) {
  const Face *f = pen->f;
  Point upper_out[LIP_POINTS], upper_in[LIP_POINTS], lower_in[LIP_POINTS], lower_out[LIP_POINTS];
  Outline area;
  lip(pen, m, m->upper_out, 0.015f, 1.04f, upper_out);
  lip(pen, m, m->upper_in, 0, 1, upper_in);
  lip(pen, m, m->lower_in, 0, 1, lower_in);
  lip(pen, m, m->lower_out, 0, 1.02f, lower_out);
  between(upper_out, lower_out, &area);
  canvas_paint(pen->canvas, &area, NULL, pen_paint(pen, (Ink){0.6f * f->skin, 0.95f, 0.02f}));
  between(upper_in, lower_in, &area);
  if (m->lower_in - m->upper_in > 0.012f) {
    canvas_paint(pen->canvas, &area, NULL, pen_paint(pen, (Ink){0.06f, 1, 0}));
    draw_teeth(pen, m, &area);
  }
  Outline seam = {.count = LIP_POINTS, .closed = false};
  for (int i = 0; i < LIP_POINTS; i++) {
    seam.at[i] = upper_in[i];
    seam.half[i] = larger(0.3f, 0.011f * pen->unit);
  }
  canvas_paint(pen->canvas, &seam, NULL, pen_paint(pen, (Ink){0.22f * f->skin, 0.9f, 0.015f}));
}

/* Folds from nose to mouth, at the corners, below the lip and on the chin. */
static void draw_mouth_folds(const Pen *pen, const Mouth *m) {
  const Face *f = pen->f;
  float out = m->half + 0.09f,
        fold = clamp01(0.35f * f->age + 0.75f * f->AU12 + 0.75f * f->AU10 + 0.55f * f->AU9 + 0.3f * f->AU20);
  float drop = 0.24f * face_jaw_drop(f);
  for (int side = -1; side <= 1; side += 2) {
    pen_stroke(pen, side, 3,
               (Point[]){{0.18f, 0.33f - 0.04f * f->AU9 - 0.03f * f->AU10},
                         {0.25f + 0.06f * f->AU12 + 0.05f * f->AU10, 0.44f},
                         {out, m->corner - 0.03f}},
               0.01f, 0.018f, 0.006f, (Ink){pen->dark, 0.75f * fold, 0.05f});
    pen_stroke(pen, side, 3,
               (Point[]){{m->half + 0.02f, m->corner + 0.01f},
                         {m->half + 0.06f, m->corner + 0.07f},
                         {m->half + 0.055f, m->corner + 0.11f}},
               0.016f, 0.014f, 0.006f, (Ink){pen->dark, clamp01(0.8f * f->AU15 + 0.15f * f->age), 0.03f});
    pen_blob(pen, (float)side * (m->half + 0.02f), m->corner, 0.04f, 0.04f, 0,
             (Ink){pen->dark, 0.35f + 0.3f * f->AU12, 0});
  }
  pen_blob(pen, 0, m->lower_out + 0.05f, 0.16f, 0.035f, 0, (Ink){0.6f * f->skin, 0.55f, 0});
  pen_blob(pen, 0, 0.87f + drop, 0.15f, 0.08f, 0, (Ink){1.15f * f->skin, 0.4f, 0});
  pen_stroke(pen, 1, 3, (Point[]){{-0.14f, 0.86f + drop}, {0, 0.79f + drop}, {0.14f, 0.86f + drop}}, 0.006f, 0.014f,
             0.006f, (Ink){pen->dark, 0.7f * f->AU17, 0.03f});
}

/* Light from a side, then contrast about the middle gray and brightness. */
static void light(const Pen *pen) {
  const Face *f = pen->f;
  const Canvas *c = pen->canvas;
  for (int row = 0; row < c->height; row++)
    for (int column = 0; column < c->width; column++) {
      float x = ((float)column + 0.5f - pen->centre.x) / pen->unit, y = ((float)row + 0.5f - pen->centre.y) / pen->unit;
      float *pixel = &c->pixel[(long)row * c->width + column];
      float lit = *pixel * (1 + 0.4f * (f->light_x * x + f->light_y * y));
      *pixel = clamp01(0.5f + f->contrast * (lit - 0.5f) + f->brightness);
    }
}

void face_sketch(const Face *face, const Canvas *canvas) {
  Pen pen = pen_for(face, canvas);
  Mouth mouth = mouth_of(face);
  Outline head;
  face_outline(&pen, &head);
  face_draw_behind(&pen, &head);
  draw_forehead(&pen);
  for (int side = -1; side <= 1; side += 2) {
    draw_cheek(&pen, side);
    draw_eye(&pen, side);
    draw_brow(&pen, side);
  }
  draw_nose(&pen);
  draw_nose_wrinkles(&pen);
  draw_mouth_folds(&pen, &mouth);
  if (face->beard > 0) face_draw_beard(&pen, &head);
  draw_lips(&pen, &mouth);
  face_draw_before(&pen);
  light(&pen);
}
