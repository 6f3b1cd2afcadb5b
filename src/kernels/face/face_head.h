/* face_head.h -- the head that face_sketch.c draws a face on. */
#ifndef FERAL_FACE_HEAD_H
#define FERAL_FACE_HEAD_H

#include "face_pen.h"

/* How far the jaw is down, 0 to 1. */
static inline float face_jaw_drop(const Face *f) {
  return smaller(1, 0.12f * f->AU25 + 0.45f * f->AU26 + 0.9f * f->AU27);
}

void face_outline(const Pen *pen, Outline *outline);
void face_draw_behind(const Pen *pen, const Outline *head); /* all that the face lies on */
void face_draw_beard(const Pen *pen, const Outline *head);
void face_draw_before(const Pen *pen); /* all that lies over it */

#endif
