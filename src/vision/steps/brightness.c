/* brightness.c -- the step that makes an image brighter or darker at random. */
#include "../../kernels/image/steps.h"

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)scratch;
  pixels_scale(pixels, image_elements(image), (real)(1 + step_either(d, step_value(s, 0))), 0);
}

const StepKind step_brightness = {.name = "brightness",
                                  .about = "all values times a random factor: 0.2 draws from 0.8 to 1.2",
                                  .option = {{"fraction", STEP_NUMBER, 0, 1, NAN, NULL}},
                                  .random = true,
                                  .takes = STEP_REALS,
                                  .change = change};
