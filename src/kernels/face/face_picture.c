/* face_picture.c -- see face_picture.h. */
#include "face_picture.h"

#include <math.h>

#include "../../base/rng.h"

static Face face_of(const real *row) {
  union {
    Face face;
    float field[FACE_FIELDS];
  } u;
  for (int i = 0; i < FACE_FIELDS; i++) u.field[i] = (float)row[i];
  return u.face;
}

static void to_bytes(const Canvas *canvas, float noise, uint64_t seed, uint64_t stream, uint8_t *out) {
  for (long i = 0, n = (long)canvas->height * canvas->width; i < n; i++) {
    float tone = canvas->pixel[i] + (noise > 0 ? noise * rng_normal(seed, stream, (uint64_t)i) : 0);
    out[i] = tone > 0 ? (uint8_t)lroundf(255 * (tone < 1 ? tone : 1)) : 0;
  }
}

void face_picture(const real *row, int size, uint64_t seed, uint64_t stream, float *pixels, uint8_t *out) {
  Canvas canvas = {pixels, size, size};
  Face face = face_of(row);
  face_sketch(&face, &canvas);
  to_bytes(&canvas, face.noise, seed, stream, out);
}
