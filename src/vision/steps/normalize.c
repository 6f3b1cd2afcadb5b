/* normalize.c -- the last step: values as a network takes them. */
#include "../../kernels/image/steps.h"

enum { MEAN, STD };

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  static const char *const names[] = {"mean", "std"};
  for (int k = MEAN; k <= STD; k++) {
    if (s->count[k] == 1 || s->count[k] == image->channels) continue;
    snprintf(message, STEP_MESSAGE, "normalize: %s has %d values, the image %ld channels", names[k], s->count[k],
             image->channels);
    return false;
  }
  return true;
}

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)d, (void)scratch;
  real mean[PIXEL_CHANNELS], std[PIXEL_CHANNELS];
  for (long c = 0; c < image->channels; c++) {
    mean[c] = (real)step_channel(s, MEAN, c);
    std[c] = (real)step_channel(s, STD, c);
  }
  pixels_normalise(pixels, image->height * image->width, image->channels, mean, std);
}

const StepKind step_normalize = {
    .name = "normalize",
    .about = "(x / 255 - mean) / std, for all channels or for each; the last step",
    .option = {{"mean", STEP_CHANNELS, -1e6, 1e6, 0.5, NULL}, {"std", STEP_CHANNELS, 1e-6, 1e6, 0.25, NULL}},
    .last = true,
    .takes = STEP_REALS,
    .shape = shape,
    .change = change};
