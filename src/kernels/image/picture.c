/* picture.c -- see picture.h. Colours become gray after decoding: a decoder asked for gray rounds otherwise. */
#include "picture.h"

#include <string.h>

#include "pixels.h"

/* Where in the memory everything is. */
typedef struct Workshop {
  uint8_t *decoded, *scratch, *converted;
  Resize resize;
  real *row;
  size_t size;
} Workshop;

/* The next 'size' bytes, from an aligned place on. */
static void *take(char *memory, size_t *used, size_t size) {
  void *place = memory != NULL ? memory + *used : NULL;
  *used += (size + 63) / 64 * 64;
  return place;
}

static void take_taps(char *memory, size_t *used, Taps *taps, long from, long to) {
  taps->count = taps_count(from, to);
  taps->first = take(memory, used, (size_t)to * sizeof *taps->first);
  taps->weight = take(memory, used, (size_t)(to * taps->count) * sizeof *taps->weight);
}

static Workshop arrange(char *memory, const ImageInfo *info, const PictureShape *to) {
  Workshop w = {.size = 0};
  size_t pixels = (size_t)info->height * (size_t)info->width;
  w.resize = (Resize){.bytes = true,
                      .n = 1,
                      .height = upright_height(info),
                      .width = upright_width(info),
                      .channels = to->channels,
                      .to_height = to->height,
                      .to_width = to->width};
  w.decoded = take(memory, &w.size, pixels * (size_t)info->channels);
  w.scratch = take(memory, &w.size, codec_scratch_size(info, info->channels));
  w.converted = take(memory, &w.size, pixels * (size_t)to->channels);
  w.row = take(memory, &w.size, (size_t)w.resize.width * (size_t)to->channels * sizeof *w.row);
  take_taps(memory, &w.size, &w.resize.down, w.resize.height, to->height);
  take_taps(memory, &w.size, &w.resize.across, w.resize.width, to->width);
  return w;
}

size_t picture_memory(const ImageInfo *info, const PictureShape *to) {
  return arrange(NULL, info, to).size;
}

const char *picture_make(CodecJob *job, const PictureShape *to, void *memory, uint8_t *result) {
  Workshop w = arrange(memory, job->info, to);
  bool same_size = w.resize.height == to->height && w.resize.width == to->width;
  job->channels = job->info->channels;
  job->pixels = w.decoded;
  job->scratch = w.scratch;
  const char *error = codec_decode(job);
  if (error != NULL) return error;
  pixels_convert(w.decoded, job->channels, same_size ? result : w.converted, to->channels,
                 (size_t)(w.resize.height * w.resize.width));
  if (same_size) return NULL;
  taps_fill(&w.resize.down, w.resize.height, to->height);
  taps_fill(&w.resize.across, w.resize.width, to->width);
  resize_images(&w.resize, w.converted, result, w.row);
  return NULL;
}
