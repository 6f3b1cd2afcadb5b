/* face_picture.h -- a drawn face as the bytes of a gray image, from a row of numbers. No lua_State here. */
#ifndef FERAL_FACE_PICTURE_H
#define FERAL_FACE_PICTURE_H

#include <stdint.h>

#include "../../base/real.h"
#include "face_sketch.h"

enum { FACE_FIELDS = sizeof(Face) / sizeof(float) };

/* row: (FACE_FIELDS)  out: (size,size)  pixels: size * size floats to draw on. The noise is a function of (seed, stream). */
void face_picture(const real *row, int size, uint64_t seed, uint64_t stream, float *pixels, uint8_t *out);

#endif
