/* gamma.c -- the step that changes the gamma of an image at random. */
#include "../../kernels/image/steps.h"

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  enum { STEPS = 256 };
  (void)scratch;
  real curve[STEPS + 2], *p = pixels;
  double exponent = pow(1 + step_value(s, 0), step_either(d, 1));
  for (int i = 0; i <= STEPS; i++) curve[i] = (real)(255 * pow(i / (double)STEPS, exponent));
  curve[STEPS + 1] = curve[STEPS];
  for (long i = 0; i < image_elements(image);
       i++) { /* between the points of a table: pow would cost ten times as much */
    real at = (p[i] > 0 ? (p[i] < 255 ? p[i] : 255) : 0) * ((real)STEPS / 255);
    int whole = (int)at;
    p[i] = curve[whole] + (at - (real)whole) * (curve[whole + 1] - curve[whole]);
  }
}

const StepKind step_gamma = {
    .name = "gamma",
    .about = "values to a random power: 0.5 draws exponents from 1 / 1.5 to 1.5, evenly on a logarithmic scale",
    .option = {{"fraction", STEP_NUMBER, 0, 3, NAN, NULL}},
    .random = true,
    .takes = STEP_REALS,
    .change = change};
