/* codec.c -- picks the format by content and keeps the limits. See codec.h. */
#include "codec.h"

#include <string.h>

static const ImageFormat *const formats[] = {&format_jpeg, &format_png, &format_bmp, &format_pnm};
enum { FORMATS = sizeof formats / sizeof formats[0] };

/* What people take for images that can be read here. */
static const struct {
  size_t offset;
  const char *start, *message;
} others[] = {
#define OTHER(name) "is " name ": JPEG, PNG, BMP, PGM and PPM are read"
    {0, "GIF8", OTHER("a GIF image")},
    {8, "WEBPVP8", OTHER("a WebP image")},
    {0, "II*", OTHER("a TIFF image")},
    {0, "MM", OTHER("a TIFF image")},
    {4, "ftyp", OTHER("a HEIF or AVIF image, or a video")},
    {0, "%PDF", OTHER("a PDF document")},
    {0, "P1", OTHER("a bitmap of one bit a pixel")},
    {0, "P4", OTHER("a bitmap of one bit a pixel")},
};
enum { OTHERS = sizeof others / sizeof others[0] };

static const char *unknown_format(Bytes file) {
  if (file.size == 0) return "is empty";
  for (int i = 0; i < OTHERS; i++) {
    size_t length = strlen(others[i].start);
    if (file.size >= others[i].offset + length && memcmp(file.data + others[i].offset, others[i].start, length) == 0)
      return others[i].message;
  }
  return "is not an image: JPEG, PNG, BMP, PGM and PPM are read";
}

static const char *check_limits(const ImageInfo *info) {
  if (info->height < 1 || info->width < 1) return "the image has no pixels";
  if (info->height > IMAGE_MAX_SIDE || info->width > IMAGE_MAX_SIDE)
    return "the image is too large: at most 8192 pixels a side";
  if (info->height * info->width > IMAGE_MAX_PIXELS) return "the image is too large: at most 64 million pixels";
  return NULL;
}

const char *codec_probe(Bytes file, ImageInfo *info) {
  for (int i = 0; i < FORMATS; i++) {
    if (!formats[i]->matches(file)) continue;
    *info = (ImageInfo){.format = formats[i], .orientation = 1};
    const char *error = formats[i]->probe(file, info);
    return error != NULL ? error : check_limits(info);
  }
  return unknown_format(file);
}

const char *codec_decode(CodecJob *job) {
  const ImageInfo *info = job->info;
  size_t raw = (size_t)info->height * (size_t)info->width * 8 + (size_t)info->height * 2;
  job->memory.limit = 2 * (raw + job->file.size) + 65536; /* 4 channels of 16 bits, in buffers that grow by doubling */
  return info->format->decode(job);
}

size_t codec_scratch_size(const ImageInfo *info, int channels) {
  size_t pixels = (size_t)info->height * (size_t)info->width;
  if (info->cmyk) return pixels * 4 + pixels * (size_t)channels;
  return info->orientation != 1 ? pixels * (size_t)channels : 0;
}
