/* zoom.c -- the step that enlarges or reduces an image at random. */
#include "../../kernels/image/steps.h"

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  double factor = 1 + step_either(d, step_value(s, 0));
  return warp_map(from->height, from->width, to->height, to->width, 0, factor, 0, 0, 1);
}

const StepKind step_zoom = {.name = "zoom",
                            .about = "enlarged or reduced at random: 0.1 draws factors from 0.9 to 1.1",
                            .option = {{"fraction", STEP_NUMBER, 0, 0.99, NAN, NULL}, STEP_EDGE},
                            .random = true,
                            .edge = 1,
                            .map = map};
