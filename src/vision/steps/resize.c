/* resize.c -- the step to another size. */
#include "../../kernels/image/steps.h"
#include "../../kernels/image/codec.h"
#include "../../kernels/image/resize.h"

enum { HEIGHT, WIDTH };

static bool shape(const Step *s, Image *image, char message[STEP_MESSAGE]) {
  (void)message;
  image->height = (long)step_value(s, HEIGHT);
  image->width = (long)step_value(s, WIDTH);
  return true;
}

static size_t aligned(size_t size) {
  return (size + 63) / 64 * 64;
}

/* Where the weights and a row lie in the scratch; returns the bytes. */
static size_t arrange(Resize *r, char *scratch) {
  size_t used = 0;
  Taps *taps[2] = {&r->down, &r->across};
  long from[2] = {r->height, r->width}, to[2] = {r->to_height, r->to_width};
  for (int k = 0; k < 2; k++) {
    taps[k]->count = taps_count(from[k], to[k]);
    taps[k]->first = (int32_t *)(void *)(scratch != NULL ? scratch + used : NULL);
    used += aligned((size_t)to[k] * sizeof(int32_t));
    taps[k]->weight = (real *)(void *)(scratch != NULL ? scratch + used : NULL);
    used += aligned((size_t)(to[k] * taps[k]->count) * sizeof(real));
  }
  return used;
}

static Resize resize_of(const Image *from, const Image *to) {
  return (Resize){.bytes = from->bytes,
                  .n = 1,
                  .height = from->height,
                  .width = from->width,
                  .channels = from->channels,
                  .to_height = to->height,
                  .to_width = to->width};
}

static size_t scratch(const Step *s, const Image *from, const Image *to) {
  (void)s;
  Resize r = resize_of(from, to);
  return arrange(&r, NULL) + aligned((size_t)(from->width * from->channels) * sizeof(real));
}

static void make(const Step *s, StepDraw *d, const Image *from, const Image *to, void *pixels, void *scratch) {
  (void)s, (void)d;
  if (from->height == to->height && from->width == to->width) {
    memcpy(pixels, from->pixels, image_bytes(from));
    return;
  }
  Resize r = resize_of(from, to);
  size_t used = arrange(&r, scratch);
  taps_fill(&r.down, r.height, r.to_height);
  taps_fill(&r.across, r.width, r.to_width);
  resize_one(&r, from->pixels, pixels, (real *)(void *)((char *)scratch + used));
}

static WarpMap map(const Step *s, StepDraw *d, const Image *from, const Image *to) {
  (void)s, (void)d;
  return warp_map(from->height, from->width, to->height, to->width, 0, 1, 0, 0, 1);
}

const StepKind step_resize = {.name = "resize",
                              .about = "to another size; an axis that shrinks takes the mean of the pixels it covers",
                              .option = {{"height", STEP_WHOLE, 1, IMAGE_MAX_SIDE, NAN, NULL},
                                         {"width", STEP_WHOLE, 1, IMAGE_MAX_SIDE, INFINITY, NULL}},
                              .shape = shape,
                              .make = make,
                              .map = map,
                              .scratch = scratch};
