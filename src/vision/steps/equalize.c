/* equalize.c -- the step that spreads the values of each channel evenly over 0 to 255. */
#include "../../kernels/image/steps.h"

/* Where value v goes: the share of pixels not above it, from 0 for the smallest value there is (as in OpenCV). */
static void fill_table(const uint8_t *pixels, long n, long step, uint8_t table[256]) {
  long count[256] = {0}, sum = 0, first = 0;
  for (long i = 0; i < n; i++) count[pixels[i * step]]++;
  while (count[first] == 0) first++;
  double scale = n > count[first] ? 255.0 / (double)(n - count[first]) : 0;
  for (long v = 0; v < 256; v++) {
    if (v > first) sum += count[v];
    table[v] = scale > 0 ? (uint8_t)floor((double)sum * scale + 0.5) : (uint8_t)v;
  }
}

static void change(const Step *s, StepDraw *d, const Image *image, void *pixels, void *scratch) {
  (void)s, (void)d, (void)scratch;
  long n = image->height * image->width, channels = image->channels;
  for (long c = 0; c < channels; c++) {
    uint8_t table[256], *p = (uint8_t *)pixels + c;
    fill_table(p, n, channels, table);
    for (long i = 0; i < n; i++) p[i * channels] = table[p[i * channels]];
  }
}

const StepKind step_equalize = {
    .name = "equalize", .about = "the histogram of each channel made flat", .takes = STEP_BYTES, .change = change};
