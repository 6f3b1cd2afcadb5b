/* jpeg.c -- JPEG files by libjpeg-turbo, behind a header reader of our own that finds size and orientation. */
#include <stdio.h>
#include <string.h>
#include <turbojpeg.h>

#include "codec.h"
#include "pixels.h"

enum {
  SOF0 = 0xC0,
  DHT = 0xC4,
  JPG = 0xC8,
  DAC = 0xCC,
  RST0 = 0xD0,
  EOI = 0xD9,
  SOS = 0xDA,
  APP1 = 0xE1,
  APP14 = 0xEE,
  TEM = 1
};

/* ---- the header ---- */

static bool matches(Bytes file) {
  return file.size >= 3 && memcmp(file.data, "\xFF\xD8\xFF", 3) == 0;
}

static bool starts_with(Bytes segment, const char *text, size_t length) {
  return segment.size >= length && memcmp(segment.data, text, length) == 0;
}

static bool is_frame(int marker) {
  return marker >= SOF0 && marker < RST0 && marker != DHT && marker != JPG && marker != DAC;
}

static const char *read_frame(Bytes segment, ImageInfo *info) {
  if (segment.size < 6) return "the JPEG header is damaged";
  int components = segment.data[5];
  if (segment.data[0] != 8) return "the JPEG has samples of more than 8 bits";
  if (components != 1 && components != 3 && components != 4) return "the JPEG has neither 1, 3 nor 4 components";
  info->height = (long)be16(segment.data + 1);
  info->width = (long)be16(segment.data + 3);
  info->channels = components == 1 ? 1 : 3;
  info->cmyk = components == 4;
  return NULL;
}

static void read_application(int marker, Bytes segment, ImageInfo *info) {
  if (marker == APP1 && starts_with(segment, "Exif\0\0", 6))
    info->orientation = exif_orientation((Bytes){segment.data + 6, segment.size - 6});
  if (marker == APP14 && starts_with(segment, "Adobe", 5)) info->inverted = true;
}

/* Moves *at to the next marker and past it; returns the marker, or -1 at the end. */
static int next_marker(Bytes file, size_t *at) {
  const uint8_t *start = *at < file.size ? memchr(file.data + *at, 0xFF, file.size - *at) : NULL;
  if (start == NULL) return -1;
  size_t i = (size_t)(start - file.data);
  while (i < file.size && file.data[i] == 0xFF) i++;
  *at = i + 1;
  return i < file.size ? file.data[i] : -1;
}

/* Walks the segments up to the first scan; *at then is where that begins. */
static const char *walk(Bytes file, ImageInfo *info, size_t *at) {
  const char *error = NULL;
  bool framed = false;
  for (*at = 2; error == NULL;) {
    int marker = next_marker(file, at);
    if (marker < 0 || marker == EOI || (marker != TEM && file.size - *at < 2))
      return "the JPEG is cut off in its header";
    if (marker == TEM || marker == 0) continue;
    size_t length = be16(file.data + *at);
    if (length < 2) return "the JPEG header is damaged";
    if (length > file.size - *at) return "the JPEG is cut off in its header";
    Bytes segment = {file.data + *at + 2, length - 2};
    if (is_frame(marker)) {
      error = read_frame(segment, info);
      framed = true;
    }
    if (marker == SOS) return framed ? NULL : "the JPEG header is damaged";
    read_application(marker, segment, info);
    *at += length;
  }
  return error;
}

static const char *probe(Bytes file, ImageInfo *info) {
  size_t at;
  return walk(file, info, &at);
}

/* ---- decoding ---- */

/* True when an end marker follows the first scan. */
static bool has_end(Bytes file) {
  ImageInfo info = {0};
  size_t at;
  if (walk(file, &info, &at) != NULL) return false;
  for (int marker = 0; marker >= 0; marker = next_marker(file, &at))
    if (marker == EOI) return true;
  return false;
}

/* Some cameras put a few bytes too many before a marker; such a picture is whole. Any other warning means damage. */
static bool is_harmless(tjhandle handle, Bytes file) {
  return tjGetErrorCode(handle) == TJERR_WARNING && strstr(tjGetErrorStr2(handle), "extraneous bytes") != NULL &&
         has_end(file);
}

static const char *describe(tjhandle handle, char message[200]) {
  snprintf(message, 200, "the JPEG is damaged or cut off (%s)", tjGetErrorStr2(handle));
  return message;
}

static const char *decompress_with(tjhandle handle, CodecJob *job, int format, uint8_t *to) {
  unsigned long size = job->file.size;
  int width, height, subsampling, colours;
  if (tjDecompressHeader3(handle, job->file.data, size, &width, &height, &subsampling, &colours) != 0)
    return describe(handle, job->message);
  if (width != job->info->width || height != job->info->height) return "the JPEG header is damaged";
  int failed = tjDecompress2(handle, job->file.data, size, to, width, 0, height, format, TJFLAG_LIMITSCANS);
  return failed && !is_harmless(handle, job->file) ? describe(handle, job->message) : NULL;
}

static const char *decompress(CodecJob *job, int format, uint8_t *to) {
  tjhandle handle = tjInitDecompress();
  job->memory.failed = handle == NULL;
  if (handle == NULL) return "not enough memory";
  const char *error = decompress_with(handle, job, format, to);
  tjDestroy(handle);
  return error;
}

/* Ink that lies on white paper: what is not absorbed, times what the black ink leaves of it. */
static void inks_to_pixels(const uint8_t *inks, bool inverted, uint8_t *to, int channels, size_t n) {
  for (size_t i = 0; i < n; i++, inks += 4, to += channels) {
    unsigned left[4];
    uint8_t rgb[3];
    for (int k = 0; k < 4; k++) left[k] = inverted ? inks[k] : 255u - inks[k];
    for (int k = 0; k < 3; k++) rgb[k] = (uint8_t)((left[k] * left[3] + 127) / 255);
    pixels_convert(rgb, 3, to, channels, 1);
  }
}

static const char *decode(CodecJob *job) {
  const ImageInfo *info = job->info;
  size_t n = (size_t)info->height * (size_t)info->width;
  bool upright = info->orientation == 1;
  uint8_t *plain = upright ? job->pixels : job->scratch;
  const char *error;
  if (info->cmyk) {
    uint8_t *inks = job->scratch + n * (size_t)job->channels;
    error = decompress(job, TJPF_CMYK, inks);
    if (error == NULL) inks_to_pixels(inks, info->inverted, plain, job->channels, n);
  } else {
    error = decompress(job, job->channels == 1 ? TJPF_GRAY : TJPF_RGB, plain);
  }
  if (error == NULL && !upright)
    pixels_orient(plain, info->height, info->width, (size_t)job->channels, info->orientation, job->pixels);
  return error;
}

const ImageFormat format_jpeg = {"JPEG", matches, probe, decode};

/* ---- encoding ---- */

/* Colour at half the resolution, but not where somebody asks for the best. */
static int subsampling_for(int channels, int quality) {
  if (channels == 1) return TJSAMP_GRAY;
  return quality >= 90 ? TJSAMP_444 : TJSAMP_420;
}

size_t jpeg_encode_bound(long height, long width, int channels, int quality) {
  return tjBufSize((int)width, (int)height, subsampling_for(channels, quality));
}

const char *jpeg_encode(const uint8_t *pixels, long height, long width, int channels, int quality, uint8_t *out,
                        size_t *size, char message[200]) {
  unsigned long used = *size;
  tjhandle handle = tjInitCompress();
  if (handle == NULL) return "not enough memory";
  int failed = tjCompress2(handle, pixels, (int)width, 0, (int)height, channels == 1 ? TJPF_GRAY : TJPF_RGB, &out,
                           &used, subsampling_for(channels, quality), quality, TJFLAG_NOREALLOC);
  if (failed) snprintf(message, 200, "%s", tjGetErrorStr2(handle));
  tjDestroy(handle);
  *size = used;
  return failed ? message : NULL;
}
