/* blur.c -- the step that blurs an image at random: a Gaussian, along the rows and then along the columns. */
#include "../../kernels/image/steps.h"

enum { RADIUS_MOST = 30 };

/* Weights 0..radius of one half; all together sum to 1. Returns the radius. */
static int fill_weights(double sigma, real weight[RADIUS_MOST + 1]) {
  int radius = (int)ceil(3 * sigma);
  double sum = 0;
  if (radius > RADIUS_MOST) radius = RADIUS_MOST;
  for (int k = 0; k <= radius; k++) {
    double w = exp(-k * k / (2 * sigma * sigma));
    weight[k] = (real)w;
    sum += k == 0 ? w : 2 * w;
  }
  for (int k = 0; k <= radius; k++) weight[k] = (real)((double)weight[k] / sum);
  return radius;
}

static long inside(long i, long n) {
  return i < 0 ? 0 : i < n ? i : n - 1;
}

/* n values 'step' apart, blurred; the outermost go on. 'line' holds n values. */
static void blur_line(real *p, long n, long step, const real *weight, int radius, real *line) {
  for (long i = 0; i < n; i++) line[i] = p[i * step];
  for (long i = 0; i < n; i++) {
    real sum = weight[0] * line[i];
    for (int k = 1; k <= radius; k++) sum += weight[k] * (line[inside(i - k, n)] + line[inside(i + k, n)]);
    p[i * step] = sum;
  }
}

static size_t scratch_size(const Step *s, const Image *from, const Image *to) {
  (void)s, (void)from;
  return (size_t)(to->height > to->width ? to->height : to->width) * sizeof(real);
}

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  real weight[RADIUS_MOST + 1] = {0}, *p = pixels;
  double sigma = step_unit(d) * step_value(s, 0);
  if (sigma < 0.1) return; /* less than a hundred millionth of a neighbour */
  int radius = fill_weights(sigma, weight);
  long row = image->width * image->channels;
  for (long y = 0; y < image->height; y++)
    for (long c = 0; c < image->channels; c++)
      blur_line(p + y * row + c, image->width, image->channels, weight, radius, scratch);
  for (long x = 0; x < row; x++) blur_line(p + x, image->height, row, weight, radius, scratch);
}

const StepKind step_blur = {.name = "blur",
                            .about = "a Gaussian blur; its standard deviation is drawn from 0 to so many pixels",
                            .option = {{"sigma", STEP_NUMBER, 0, 10, NAN, NULL}},
                            .random = true,
                            .takes = STEP_REALS,
                            .scratch = scratch_size,
                            .change = change};
