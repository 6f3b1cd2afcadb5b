/* contrast.c -- the step that changes the contrast of an image at random. */
#include "../../kernels/image/steps.h"

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)scratch;
  double factor = 1 + step_either(d, step_value(s, 0)), mean = pixels_mean(pixels, image_elements(image));
  pixels_scale(pixels, image_elements(image), (real)factor, (real)(mean - factor * mean));
}

const StepKind step_contrast = {
    .name = "contrast",
    .about = "distances from the mean of the image times a random factor: 0.2 draws from 0.8 to 1.2",
    .option = {{"fraction", STEP_NUMBER, 0, 1, NAN, NULL}},
    .random = true,
    .takes = STEP_REALS,
    .change = change};
