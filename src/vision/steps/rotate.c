/* rotate.c -- the step that turns an image by a random angle. */
#include "../../kernels/image/steps.h"

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  double radians = step_either(d, step_value(s, 0)) * (3.14159265358979323846 / 180);
  return warp_map(from->height, from->width, to->height, to->width, radians, 1, 0, 0, 1);
}

const StepKind step_rotate = {.name = "rotate",
                              .about = "turned by a random angle of up to so many degrees to either side",
                              .option = {{"degrees", STEP_NUMBER, 0, 180, NAN, NULL}, STEP_EDGE},
                              .random = true,
                              .edge = 1,
                              .map = map};
