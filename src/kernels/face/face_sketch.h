/*
** face_sketch.h -- a drawn face as a function of numbers: how far each facial action unit is contracted (the
** Facial Action Coding System, Ekman and Friesen 1978), whose face it is, how the head is held and how it is lit.
*/
#ifndef FERAL_FACE_SKETCH_H
#define FERAL_FACE_SKETCH_H

#include "canvas.h"

/* X(name, default, least, most). Action units are contracted from 0 (at rest) to 1. */
#define FACE_ACTION_UNITS(X)                                                                                           \
  X(AU1, 0, 0, 1)  /* inner brow raiser */                                                                             \
  X(AU2, 0, 0, 1)  /* outer brow raiser */                                                                             \
  X(AU4, 0, 0, 1)  /* brow lowerer */                                                                                  \
  X(AU5, 0, 0, 1)  /* upper lid raiser */                                                                              \
  X(AU6, 0, 0, 1)  /* cheek raiser */                                                                                  \
  X(AU7, 0, 0, 1)  /* lid tightener */                                                                                 \
  X(AU9, 0, 0, 1)  /* nose wrinkler */                                                                                 \
  X(AU10, 0, 0, 1) /* upper lip raiser */                                                                              \
  X(AU12, 0, 0, 1) /* lip corner puller */                                                                             \
  X(AU15, 0, 0, 1) /* lip corner depressor */                                                                          \
  X(AU16, 0, 0, 1) /* lower lip depressor */                                                                           \
  X(AU17, 0, 0, 1) /* chin raiser */                                                                                   \
  X(AU20, 0, 0, 1) /* lip stretcher */                                                                                 \
  X(AU23, 0, 0, 1) /* lip tightener */                                                                                 \
  X(AU24, 0, 0, 1) /* lip pressor */                                                                                   \
  X(AU25, 0, 0, 1) /* lips part */                                                                                     \
  X(AU26, 0, 0, 1) /* jaw drop */                                                                                      \
  X(AU27, 0, 0, 1) /* mouth stretch */                                                                                 \
  X(AU43, 0, 0, 1) /* eyes closed */

/* Lengths are shares of the usual one, angles radians, tones 0 (black) to 1 (white), shifts shares of the image. */
#define FACE_LOOKS(X)                                                                                                  \
  X(width, 1, 0.85, 1.15) /* of the head */                                                                            \
  X(jaw, 1, 0.8, 1.2)     /* its width at the jaw */                                                                   \
  X(chin, 1, 0.9, 1.1)    /* its length below the mouth */                                                             \
  X(eye_distance, 1, 0.85, 1.15)                                                                                       \
  X(eye_size, 1, 0.8, 1.25)                                                                                            \
  X(eye_tilt, 0, -0.15, 0.15)    /* outer corners up */                                                                \
  X(brow_height, 0, -0.05, 0.06) /* above the usual place, in half heads */                                            \
  X(brow_thickness, 1, 0.6, 1.6)                                                                                       \
  X(nose_width, 1, 0.75, 1.35)                                                                                         \
  X(nose_length, 1, 0.85, 1.12)                                                                                        \
  X(mouth_width, 1, 0.8, 1.2)                                                                                          \
  X(lips, 1, 0.55, 1.6)    /* their thickness */                                                                       \
  X(age, 0.2, 0, 1)        /* how deep the folds are at rest */                                                        \
  X(skin, 0.7, 0.3, 0.9)   /* tone */                                                                                  \
  X(hair, 0.2, 0.04, 0.85) /* tone */                                                                                  \
  X(iris, 0.25, 0.1, 0.5)  /* tone */                                                                                  \
  X(style, 1, 0, 5)        /* of the hair: 0 none, 1 short, 2 parted, 3 fringe, 4 long, 5 curly */                     \
  X(beard, 0, 0, 1)                                                                                                    \
  X(glasses, 0, 0, 1)                                                                                                  \
  X(gaze_x, 0, -1, 1)                                                                                                  \
  X(gaze_y, 0, -1, 1)                                                                                                  \
  X(roll, 0, -0.5, 0.5)  /* clockwise */                                                                               \
  X(yaw, 0, -0.5, 0.5)   /* towards the viewer's right */                                                              \
  X(pitch, 0, -0.4, 0.4) /* downwards */                                                                               \
  X(scale, 1, 0.6, 1.4)                                                                                                \
  X(shift_x, 0, -0.3, 0.3)                                                                                             \
  X(shift_y, 0, -0.3, 0.3)                                                                                             \
  X(light_x, 0, -1, 1)    /* where the light comes from: 1 right */                                                    \
  X(light_y, -0.3, -1, 1) /* 1 below */                                                                                \
  X(brightness, 0, -0.3, 0.3)                                                                                          \
  X(contrast, 1, 0.5, 1.4)                                                                                             \
  X(background, 0.5, 0, 1) /* tone */                                                                                  \
  X(clothes, 0.3, 0, 1)    /* tone */                                                                                  \
  X(noise, 0, 0, 0.2)      /* standard deviation of each pixel */

#define FACE_FIELD(name, usual, least, most) float name;
typedef struct Face {
  FACE_ACTION_UNITS(FACE_FIELD)
  FACE_LOOKS(FACE_FIELD)
} Face;

/* Draws the face over the whole canvas, without its noise. */
void face_sketch(const Face *face, const Canvas *canvas);

#endif
