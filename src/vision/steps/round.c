/* round.c -- the step to bytes, as a set in memory holds them. */
#include "../../kernels/image/steps.h"

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)s, (void)d, (void)image, (void)pixels, (void)scratch; /* the engine has converted them */
}

const StepKind step_round = {
    .name = "round", .about = "to bytes, as sets keep them in memory", .takes = STEP_BYTES, .change = change};
