/* augment.c -- see augment.h. */
#include "augment.h"

#include <stdbool.h>

#include "../../base/rng.h"
#include "pixels.h"

/* What was drawn for one sample. Each number has its own place in the stream, so that switching one kind of variation
   on or off leaves the others as they were. */
typedef struct Draw {
  double radians, right, down, zoom, mirror; /* shifts in fractions of the size; mirror is 1 or -1 */
  double brightness, contrast;               /* factors */
} Draw;

static double to_either_side(double most, uint32_t word) {
  return most * (2 * (double)rng_unit(word) - 1);
}

static Draw draw_sample(const Augmentation *a, uint64_t number) {
  uint64_t stream = UINT64_C(1) << 63 | a->epoch << 32 | number; /* the top bit keeps clear of the other streams */
  RngBlock place = rng_block(a->seed, stream, 0), light = rng_block(a->seed, stream, 1);
  return (Draw){
      .radians = to_either_side(a->rotation, place.word[0]) * (3.14159265358979323846 / 180),
      .right = to_either_side(a->shift, place.word[1]),
      .down = to_either_side(a->shift, place.word[2]),
      .zoom = 1 + to_either_side(a->zoom, place.word[3]),
      .mirror = rng_unit(light.word[0]) < a->mirror ? -1 : 1,
      .brightness = 1 + to_either_side(a->brightness, light.word[1]),
      .contrast = 1 + to_either_side(a->contrast, light.word[2]),
  };
}

static void widen(const uint8_t *bytes, long n, real *out) {
  for (long i = 0; i < n; i++) out[i] = bytes[i];
}

static bool stays_in_place(const Draw *d, const SampleShape *s) {
  return d->radians == 0 && d->right == 0 && d->down == 0 && d->zoom == 1 && d->mirror == 1 &&
         s->height == s->to_height && s->width == s->to_width;
}

static void place(const Augmentation *a, const Draw *d, const SampleShape *s, const uint8_t *image, real *result,
                  real *scratch) {
  long n = s->height * s->width * s->channels;
  if (stays_in_place(d, s)) {
    widen(image, n, result);
    return;
  }
  WarpSource source = {scratch, s->height, s->width, s->channels, a->edge, {0}};
  for (int c = 0; c < WARP_CHANNELS; c++) source.fill[c] = a->fill;
  WarpMap map = warp_map(s->height, s->width, s->to_height, s->to_width, d->radians, d->zoom,
                         d->right * (double)s->to_width, d->down * (double)s->to_height, d->mirror);
  widen(image, n, scratch);
  warp_image(&source, &map, s->to_height, s->to_width, result);
}

/* In lanes, for the compiler to make vectors of. */
static double mean_of(const real *pixels, long n) {
  enum { LANES = 16 };
  double lane[LANES] = {0}, sum = 0;
  long whole = n - n % LANES;
  for (long i = 0; i < whole; i += LANES)
    for (int k = 0; k < LANES; k++) lane[k] += (double)pixels[i + k];
  for (long i = whole; i < n; i++) sum += (double)pixels[i];
  for (int k = 0; k < LANES; k++) sum += lane[k];
  return sum / (double)n;
}

/* All samples times the brightness, then their distance from their mean times the contrast, cut to what a byte holds.
 */
static void light(const Draw *d, real *pixels, long n) {
  if (d->brightness == 1 && d->contrast == 1) return;
  double mean = d->brightness * mean_of(pixels, n);
  real factor = (real)(d->brightness * d->contrast), offset = (real)(mean - d->contrast * mean);
  for (long i = 0; i < n; i++) {
    real v = pixels[i] * factor + offset;
    pixels[i] = v < 0 ? 0 : v > 255 ? 255 : v;
  }
}

void augment_image(const Augmentation *a, const SampleShape *s, const uint8_t *image, uint64_t number, real *result,
                   real *scratch) {
  Draw draw = draw_sample(a, number);
  long pixels = s->to_height * s->to_width;
  place(a, &draw, s, image, result, scratch);
  light(&draw, result, pixels * s->channels);
  pixels_normalise(result, pixels, s->channels, a->mean, a->std);
}
