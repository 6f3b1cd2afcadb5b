/* light.c -- the step that lights an image from a random side: values times a plane. */
#include "../../kernels/image/steps.h"

#define PI 3.14159265358979323846

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)scratch;
  double angle = step_either(d, PI), strength = step_unit(d) * step_value(s, 0);
  double across = strength * cos(angle) * 2 / (double)image->width,
         down = strength * sin(angle) * 2 / (double)image->height;
  real *p = pixels;
  for (long y = 0; y < image->height; y++) {
    real factor =
        (real)(1 + down * ((double)y - (double)(image->height - 1) / 2) - across * (double)(image->width - 1) / 2);
    for (long x = 0; x < image->width; x++, factor += (real)across)
      for (long c = 0; c < image->channels; c++, p++) *p = pixels_clip(*p * factor);
  }
}

const StepKind step_light = {
    .name = "light",
    .about = "light from a random side: brighter there by up to this fraction, darker on the other side",
    .option = {{"fraction", STEP_NUMBER, 0, 1, NAN, NULL}},
    .random = true,
    .takes = STEP_REALS,
    .change = change};
