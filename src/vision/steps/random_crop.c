/* random_crop.c -- the step to a rectangle at a random place; in prediction the one in the middle. */
#include "../../kernels/image/steps.h"
#include "../../kernels/image/codec.h"

enum { HEIGHT, WIDTH };

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  long height = (long)step_value(s, HEIGHT), width = (long)step_value(s, WIDTH);
  if (height > image->height || width > image->width) {
    snprintf(message, STEP_MESSAGE, "random_crop: %ld x %ld does not fit into %ld x %ld", height, width, image->height,
             image->width);
    return false;
  }
  image->height = height;
  image->width = width;
  return true;
}

/* A place among those that leave 'slack' pixels over. */
static double place(StepDraw *d, long slack) {
  double at = step_unit(d);
  return d->calm ? floor((double)slack / 2) : floor(at * (double)(slack + 1));
}

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  (void)s;
  double top = place(d, from->height - to->height), left = place(d, from->width - to->width);
  return (WarpMap){{1, 0, left, 0, 1, top}};
}

const StepKind step_random_crop = {.name = "random_crop",
                                   .about = "a rectangle at a random place; in prediction the middle",
                                   .option = {{"height", STEP_WHOLE, 1, IMAGE_MAX_SIDE, NAN, NULL},
                                              {"width", STEP_WHOLE, 1, IMAGE_MAX_SIDE, INFINITY, NULL}},
                                   .random = true,
                                   .shape = shape,
                                   .map = map};
