/* erase.c -- the step that hides a random rectangle (Zhong et al. 2020, "Random erasing data augmentation"). */
#include "../../kernels/image/steps.h"

enum { PROBABILITY, LEAST, MOST, FILL };
static const char *const fills[] = {"mean", "noise", "black", NULL};
enum { MEAN, NOISE, BLACK };

typedef struct Rectangle {
  long top, left, height, width;
} Rectangle;

static long bounded(double v, long most) {
  return v < 1 ? 1 : v > (double)most ? most : (long)v;
}

/* Of a random share of the area and a random shape, from 1 : 3 to 3 : 1. */
static Rectangle draw_rectangle(const Step *s, StepDraw *d, const Image *image) {
  double area = step_between(d, step_value(s, LEAST), step_value(s, MOST)) * (double)(image->height * image->width);
  double aspect = exp(step_either(d, log(3)));
  Rectangle r = {.height = bounded(sqrt(area * aspect) + 0.5, image->height),
                 .width = bounded(sqrt(area / aspect) + 0.5, image->width)};
  r.top = (long)(step_unit(d) * (double)(image->height - r.height + 1));
  r.left = (long)(step_unit(d) * (double)(image->width - r.width + 1));
  return r;
}

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)scratch;
  if (step_unit(d) >= step_value(s, PROBABILITY)) return;
  Rectangle r = draw_rectangle(s, d, image);
  int fill = (int)step_value(s, FILL);
  real value = fill == MEAN ? (real)pixels_mean(pixels, image_elements(image)) : 0;
  for (long y = r.top; y < r.top + r.height; y++) {
    real *row = (real *)pixels + (y * image->width + r.left) * image->channels;
    for (long i = 0; i < r.width * image->channels; i++) row[i] = fill == NOISE ? (real)step_between(d, 0, 255) : value;
  }
}

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  (void)image;
  if (step_value(s, LEAST) <= step_value(s, MOST)) return true;
  snprintf(message, STEP_MESSAGE, "erase: least, %g, is more than most, %g", step_value(s, LEAST), step_value(s, MOST));
  return false;
}

const StepKind step_erase = {.name = "erase",
                             .about =
                                 "a random rectangle hidden, with this probability; least, most: its share of the area",
                             .option = {{"probability", STEP_NUMBER, 0, 1, 0.5, NULL},
                                        {"least", STEP_NUMBER, 0, 1, 0.02, NULL},
                                        {"most", STEP_NUMBER, 0, 1, 0.25, NULL},
                                        {"fill", STEP_CHOICE, 0, 2, MEAN, fills}},
                             .random = true,
                             .takes = STEP_REALS,
                             .shape = shape,
                             .change = change};
