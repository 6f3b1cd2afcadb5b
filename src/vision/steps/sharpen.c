/* sharpen.c -- the step that sharpens an image at random: what a pixel has beyond the mean of its neighbours, once more. */
#include "../../kernels/image/steps.h"

static long inside(long i, long n) {
  return i < 0 ? 0 : i < n ? i : n - 1;
}

/* The mean of the 3 x 3 pixels around (x, y); the outermost go on beyond the border. */
static real mean_around(const Image *image, const real *pixels, long y, long x, long channel) {
  real sum = 0;
  for (long i = -1; i <= 1; i++)
    for (long j = -1; j <= 1; j++)
      sum += pixels[(inside(y + i, image->height) * image->width + inside(x + j, image->width)) * image->channels +
                    channel];
  return sum / 9;
}

static size_t scratch_size(const Step *s, const Image *from, const Image *to) {
  (void)s, (void)from;
  return image_bytes(to);
}

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  real amount = (real)(step_unit(d) * step_value(s, 0)), *p = pixels;
  const real *before = memcpy(scratch, pixels, image_bytes(image));
  for (long y = 0; y < image->height; y++)
    for (long x = 0; x < image->width; x++)
      for (long c = 0; c < image->channels; c++, p++)
        *p = pixels_clip(*p + amount * (*p - mean_around(image, before, y, x, c)));
}

const StepKind step_sharpen = {.name = "sharpen",
                               .about =
                                   "sharper at random: up to so many times what a pixel has beyond the mean around it",
                               .option = {{"amount", STEP_NUMBER, 0, 10, NAN, NULL}},
                               .random = true,
                               .takes = STEP_REALS,
                               .scratch = scratch_size,
                               .change = change};
