/* shift.c -- the step that moves an image at random. */
#include "../../kernels/image/steps.h"

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  double right = step_either(d, step_value(s, 0)), down = step_either(d, step_value(s, 0));
  return warp_map(from->height, from->width, to->height, to->width, 0, 1, right * (double)to->width,
                  down * (double)to->height, 1);
}

const StepKind step_shift = {.name = "shift",
                             .about = "moved at random by up to this fraction of height and width",
                             .option = {{"fraction", STEP_NUMBER, 0, 1, NAN, NULL}, STEP_EDGE},
                             .random = true,
                             .edge = 1,
                             .map = map};
