/* noise.c -- the step that adds noise. */
#include "../../kernels/image/steps.h"

#define PI 3.14159265358979323846

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)scratch;
  double deviation = 255 * step_unit(d) * step_value(s, 0);
  real *p = pixels;
  uint64_t first = (d->next + 7) / 8 * 8;
  for (long i = 0; i < image_elements(image); i += 4) {
    RngBlock block = rng_block(d->seed, d->stream, (first + (uint64_t)i) / 4);
    for (int pair = 0; pair < 4; pair += 2) { /* Box and Muller */
      double radius = deviation * sqrt(-2 * log(1 - (double)rng_unit(block.word[pair])));
      double angle = 2 * PI * (double)rng_unit(block.word[pair + 1]);
      if (i + pair < image_elements(image)) p[i + pair] = pixels_clip(p[i + pair] + (real)(radius * cos(angle)));
      if (i + pair + 1 < image_elements(image))
        p[i + pair + 1] = pixels_clip(p[i + pair + 1] + (real)(radius * sin(angle)));
    }
  }
}

const StepKind step_noise = {.name = "noise",
                             .about = "normal noise; its standard deviation is drawn from 0 to this fraction of white",
                             .option = {{"fraction", STEP_NUMBER, 0, 1, NAN, NULL}},
                             .random = true,
                             .takes = STEP_REALS,
                             .change = change};
