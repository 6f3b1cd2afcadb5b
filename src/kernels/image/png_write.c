/* png_write.c -- pixels to the bytes of a PNG file. */
#include <stdlib.h>
#include <string.h>

#include "../../base/deflate.h"
#include "codec.h"

enum { FILTERS = 5, SIGNATURE = 8, CHUNK = 12, HEADER = 13 };

/* A pixel's neighbours, in PNG's terms: a to its left, b above, c above and to the left. */
static int predict(int filter, int a, int b, int c) {
  int p = a + b - c, pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
  switch (filter) {
  case 1:
    return a;
  case 2:
    return b;
  case 3:
    return (a + b) / 2;
  case 4:
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
  default:
    return 0;
  }
}

/* Writes the filtered row; returns how large its numbers are, as signed bytes. 'above' is NULL for the first row. */
static long filter_row(int filter, const uint8_t *row, const uint8_t *above, long n, int channels, uint8_t *out) {
  long sum = 0;
  for (long i = 0; i < n; i++) {
    int a = i >= channels ? row[i - channels] : 0, b = above != NULL ? above[i] : 0;
    int c = i >= channels && above != NULL ? above[i - channels] : 0;
    out[i] = (uint8_t)(row[i] - predict(filter, a, b, c));
    sum += abs((int8_t)out[i]);
  }
  return sum;
}

/* Each row with the filter that leaves the smallest numbers, the rule of thumb of the PNG specification. */
static void filter_rows(const uint8_t *pixels, long height, long n, int channels, uint8_t *out) {
  for (long y = 0; y < height; y++, pixels += n, out += n + 1) {
    const uint8_t *above = y > 0 ? pixels - n : NULL;
    long least = 0;
    int best = -1;
    for (int filter = 0; filter < FILTERS; filter++) {
      long sum = filter_row(filter, pixels, above, n, channels, out + 1);
      if (best >= 0 && sum >= least) continue;
      best = filter;
      least = sum;
    }
    out[0] = (uint8_t)best;
    filter_row(best, pixels, above, n, channels, out + 1);
  }
}

static void put32(uint8_t *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Puts the frame of a chunk around 'size' bytes that lie at out + 8; returns what follows it. */
static uint8_t *close_chunk(uint8_t *out, const char *type, size_t size) {
  put32(out, (uint32_t)size);
  memcpy(out + 4, type, 4);
  put32(out + 8 + size, crc32_add(0, out + 4, size + 4));
  return out + CHUNK + size;
}

static size_t filtered_size(long height, long width, int channels) {
  return (size_t)height * ((size_t)width * (size_t)channels + 1);
}

size_t png_encode_bound(long height, long width, int channels) {
  return SIGNATURE + 3 * CHUNK + HEADER + zlib_bound(filtered_size(height, width, channels));
}

size_t png_encode_scratch(long height, long width, int channels) {
  return zlib_scratch() + filtered_size(height, width, channels);
}

size_t png_encode(const uint8_t *pixels, long height, long width, int channels, void *scratch, uint8_t *out) {
  uint8_t *filtered = (uint8_t *)scratch + zlib_scratch(), *next = out + SIGNATURE;
  memcpy(out, "\x89PNG\r\n\x1a\n", SIGNATURE);
  put32(next + 8, (uint32_t)width);
  put32(next + 12, (uint32_t)height);
  memcpy(next + 16, (uint8_t[]){8, channels == 3 ? 2 : 0, 0, 0, 0}, 5); /* 8 bits, colour or gray */
  next = close_chunk(next, "IHDR", HEADER);
  filter_rows(pixels, height, width * channels, channels, filtered);
  next = close_chunk(next, "IDAT", zlib_compress(filtered, filtered_size(height, width, channels), scratch, next + 8));
  next = close_chunk(next, "IEND", 0);
  return (size_t)(next - out);
}
