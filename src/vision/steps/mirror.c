/* mirror.c -- the step that exchanges left and right at random. */
#include "../../kernels/image/steps.h"

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  (void)to;
  if (step_unit(d) >= step_value(s, 0)) return (WarpMap){{1, 0, 0, 0, 1, 0}};
  return (WarpMap){{-1, 0, (double)(from->width - 1), 0, 1, 0}};
}

const StepKind step_mirror = {.name = "mirror",
                              .about = "left and right exchanged, with this probability",
                              .option = {{"probability", STEP_NUMBER, 0, 1, 0.5, NULL}},
                              .random = true,
                              .map = map};
