/* rgb.c -- the step to three channels. */
#include "../../kernels/image/steps.h"

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  (void)s;
  if (image->channels != 1 && image->channels != 3) {
    snprintf(message, STEP_MESSAGE, "rgb: an image has 1 or 3 channels, this one %ld", image->channels);
    return false;
  }
  image->channels = 3;
  return true;
}

static void make(const Step *s, StepDraw *d, const Image *from, const Image *to, void *pixels, void *scratch) {
  (void)s, (void)d, (void)scratch;
  long n = to->height * to->width;
  if (from->bytes) {
    pixels_convert(from->pixels, (int)from->channels, pixels, 3, (size_t)n);
  } else if (from->channels == 3) {
    memcpy(pixels, from->pixels, image_bytes(from));
  } else {
    const real *gray = from->pixels;
    for (long i = 0; i < 3 * n; i++) ((real *)pixels)[i] = gray[i / 3];
  }
}

const StepKind step_rgb = {
    .name = "rgb", .about = "to three channels: a gray value three times", .shape = shape, .make = make};
