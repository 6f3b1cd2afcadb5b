/* gray.c -- the step to one channel. */
#include "../../kernels/image/steps.h"

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  (void)s;
  if (image->channels != 1 && image->channels != 3) {
    snprintf(message, STEP_MESSAGE, "gray: an image has 1 or 3 channels, this one %ld", image->channels);
    return false;
  }
  image->channels = 1;
  return true;
}

static void make(const Step *s, StepDraw *d, const Image *from, const Image *to, void *pixels, void *scratch) {
  (void)s, (void)d, (void)scratch;
  long n = to->height * to->width;
  if (from->bytes) {
    pixels_convert(from->pixels, (int)from->channels, pixels, 1, (size_t)n);
  } else if (from->channels == 1) {
    memcpy(pixels, from->pixels, image_bytes(from));
  } else {
    const real *rgb = from->pixels;
    for (long i = 0; i < n; i++) ((real *)pixels)[i] = luma_real(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]);
  }
}

const StepKind step_gray = {
    .name = "gray", .about = "to one channel: the luma of ITU-R BT.601", .shape = shape, .make = make};
