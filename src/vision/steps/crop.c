/* crop.c -- the step to a rectangle of the image. */
#include "../../kernels/image/steps.h"
#include "../../kernels/image/codec.h"

enum { HEIGHT, WIDTH, TOP, LEFT };

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  long height = (long)step_value(s, HEIGHT), width = (long)step_value(s, WIDTH);
  long top = (long)step_value(s, TOP), left = (long)step_value(s, LEFT);
  if (top < 1) top = 1;
  if (left < 1) left = 1;
  if (top + height - 1 > image->height || left + width - 1 > image->width) {
    snprintf(message, STEP_MESSAGE, "crop: %ld x %ld from row %ld, column %ld on is not inside of %ld x %ld", height,
             width, top, left, image->height, image->width);
    return false;
  }
  image->height = height;
  image->width = width;
  return true;
}

/* The rows above and columns left of the rectangle: as given (from 1), or so that it lies in the middle. */
static long above(const Step *s, const Image *from, const Image *to) {
  return step_value(s, TOP) > 0 ? (long)step_value(s, TOP) - 1 : (from->height - to->height) / 2;
}
static long before(const Step *s, const Image *from, const Image *to) {
  return step_value(s, LEFT) > 0 ? (long)step_value(s, LEFT) - 1 : (from->width - to->width) / 2;
}

static void make(const Step *s, StepDraw *d, const Image *from, const Image *to, void *pixels, void *scratch) {
  (void)d, (void)scratch;
  size_t pixel = (size_t)from->channels * (from->bytes ? 1 : sizeof(real)), row = (size_t)to->width * pixel;
  const char *first = (const char *)from->pixels + (size_t)before(s, from, to) * pixel;
  for (long y = 0; y < to->height; y++)
    memcpy((char *)pixels + (size_t)y * row, first + (size_t)((above(s, from, to) + y) * from->width) * pixel, row);
}

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  (void)d;
  return (WarpMap){{1, 0, (double)before(s, from, to), 0, 1, (double)above(s, from, to)}};
}

const StepKind step_crop = {.name = "crop",
                            .about = "a rectangle, from row 'top' and column 'left' on (from 1); 0: the middle",
                            .option = {{"height", STEP_WHOLE, 1, IMAGE_MAX_SIDE, NAN, NULL},
                                       {"width", STEP_WHOLE, 1, IMAGE_MAX_SIDE, INFINITY, NULL},
                                       {"top", STEP_WHOLE, 0, IMAGE_MAX_SIDE, 0, NULL},
                                       {"left", STEP_WHOLE, 0, IMAGE_MAX_SIDE, 0, NULL}},
                            .shape = shape,
                            .make = make,
                            .map = map};
