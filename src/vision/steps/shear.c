/* shear.c -- the step that slants an image at random. */
#include "../../kernels/image/steps.h"

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  (void)to;
  double slant = step_either(d, step_value(s, 0)), middle = (double)(from->height - 1) / 2;
  return (WarpMap){{1, slant, -slant * middle, 0, 1, 0}};
}

const StepKind step_shear = {
    .name = "shear",
    .about = "slanted at random: 0.1 moves the top edge by up to 0.05 of the height against the middle",
    .option = {{"fraction", STEP_NUMBER, 0, 2, NAN, NULL}, STEP_EDGE},
    .random = true,
    .edge = 1,
    .map = map};
