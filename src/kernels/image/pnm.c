/*
** pnm.c -- PGM and PPM, plain and raw (netpbm's P2 P3 P5 P6), read strictly: one image a file, every sample there and
** none above the maximum; 16-bit samples are scaled to 8.
*/
#include <string.h>

#include "codec.h"
#include "pixels.h"

typedef struct Reader {
  Bytes file;
  size_t at;
} Reader;

static bool is_space(int c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Skips white space and comments. */
static void skip_space(Reader *r) {
  for (; r->at < r->file.size; r->at++) {
    const uint8_t *c = r->file.data + r->at;
    if (*c == '#')
      while (r->at + 1 < r->file.size && r->file.data[r->at + 1] != '\n') r->at++;
    else if (!is_space(*c))
      return;
  }
}

enum { ENDED = -1, WRONG = -2 };

/* The next number up to 'most', or ENDED or WRONG. */
static long read_number(Reader *r, long most) {
  skip_space(r);
  long value = r->at < r->file.size ? WRONG : ENDED;
  for (; r->at < r->file.size; r->at++) {
    int digit = r->file.data[r->at] - '0';
    if (digit < 0 || digit > 9) break;
    value = (value < 0 ? 0 : value) * 10 + digit;
    if (value > most) return WRONG;
  }
  return value;
}

static bool matches(Bytes file) {
  return file.size >= 3 && file.data[0] == 'P' && strchr("2356", file.data[1]) != NULL && file.data[1] != '\0' &&
         (is_space(file.data[2]) || file.data[2] == '#');
}

static bool is_plain(Bytes file) {
  return file.data[1] <= '3';
}

static const char *probe(Bytes file, ImageInfo *info) {
  Reader r = {file, 2};
  info->channels = file.data[1] == '3' || file.data[1] == '6' ? 3 : 1;
  info->width = read_number(&r, INT32_MAX);
  info->height = read_number(&r, INT32_MAX);
  info->maxval = read_number(&r, 65535);
  if (info->width < 0 || info->height < 0 || info->maxval < 1)
    return "the PNM header does not give a width, a height and a maximum of 1 to 65535";
  if (r.at >= file.size || !is_space(file.data[r.at])) return "the PNM header ends too early";
  info->offset = r.at + 1;
  return NULL;
}

/* To 0..255, rounded. */
static uint8_t scaled(long sample, long maxval) {
  return (uint8_t)((sample * 255 + maxval / 2) / maxval);
}

static long read_raw(Reader *r, long maxval) {
  size_t bytes = maxval > 255 ? 2 : 1;
  if (r->file.size - r->at < bytes) return ENDED;
  const uint8_t *p = r->file.data + r->at;
  r->at += bytes;
  long sample = bytes == 2 ? (long)be16(p) : p[0];
  return sample > maxval ? WRONG : sample;
}

static const char *decode(CodecJob *job) {
  const ImageInfo *info = job->info;
  Reader r = {job->file, info->offset};
  bool plain = is_plain(job->file);
  uint8_t pixel[3];
  for (long i = 0; i < info->height * info->width; i++) {
    for (int c = 0; c < info->channels; c++) {
      long sample = plain ? read_number(&r, info->maxval) : read_raw(&r, info->maxval);
      if (sample == ENDED) return "the PNM image is cut off";
      if (sample == WRONG) return "the PNM image holds a sample that is no number or above the maximum";
      pixel[c] = scaled(sample, info->maxval);
    }
    pixels_convert(pixel, info->channels, job->pixels + i * job->channels, job->channels, 1);
  }
  skip_space(&r);
  return r.at < job->file.size ? "the PNM file goes on behind the image" : NULL;
}

const ImageFormat format_pnm = {"PNM", matches, probe, decode};
