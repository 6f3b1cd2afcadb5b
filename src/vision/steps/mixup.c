/* mixup.c -- the step that mixes in a second sample (Zhang et al. 2018, "mixup: beyond empirical risk minimization"). */
#include "../../kernels/image/steps.h"

enum { ALPHA, PROBABILITY };

static double draw_normal(StepDraw *d) {
  double u = 1 - step_unit(d), v = step_unit(d);
  return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
}

/* A number of the gamma distribution with this shape (Marsaglia and Tsang 2000). */
static double draw_gamma(StepDraw *d, double shape) {
  double lift = shape < 1 ? pow(1 - step_unit(d), 1 / shape) : 1, c = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
  for (int tries = 0; tries < 100; tries++) {
    double x = draw_normal(d), v = 1 + x / sqrt(9 * c), u = 1 - step_unit(d);
    v = v * v * v;
    if (v > 0 && log(u) < 0.5 * x * x + c - c * v + c * log(v)) return lift * c * v;
  }
  return lift * c;
}

static double draw_beta(StepDraw *d, double alpha) {
  double a = draw_gamma(d, alpha), b = draw_gamma(d, alpha);
  return a + b > 0 ? a / (a + b) : 1;
}

/* The larger part is the first sample's: which of the two comes first does not matter, and the label then stays its own. */
static void mix(const Step *s, StepDraw *d, const Image *image, real *pixels, const real *other, real *part) {
  if (step_unit(d) >= step_value(s, PROBABILITY)) return;
  double first = draw_beta(d, step_value(s, ALPHA));
  real a = (real)(first < 0.5 ? 1 - first : first), b = 1 - a;
  for (long i = 0; i < image_elements(image); i++) pixels[i] = a * pixels[i] + b * other[i];
  *part = a;
}

const StepKind step_mixup = {
    .name = "mixup",
    .about = "a second sample mixed in, and its label; the parts follow Beta(alpha, alpha)",
    .option = {{"alpha", STEP_NUMBER, 0.01, 100, 0.2, NULL}, {"probability", STEP_NUMBER, 0, 1, 1, NULL}},
    .random = true,
    .takes = STEP_REALS,
    .mix = mix};
