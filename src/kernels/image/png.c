/*
** png.c -- PNG and BMP files by stb_image, behind checks of our own: stb neither looks at PNG's checksums nor notices
** where a BMP ends, and would give half a picture for a whole one.
*/
#include <stdlib.h>
#include <string.h>

#include "../../base/deflate.h"
#include "codec.h"
#include "pixels.h"

/* ---- stb_image, its memory taken from the job's allocator ---- */

static _Thread_local CodecMemory *memory;

enum { BLOCK_HEADER = 16 }; /* the block's size stands in front of it, and 16 keeps the alignment */

static void *memory_resize(void *block, size_t size) {
  char *whole = block == NULL ? NULL : (char *)block - BLOCK_HEADER;
  size_t old = whole == NULL ? 0 : *(size_t *)whole;
  if (size > memory->limit) return NULL;
  whole = memory->alloc(memory->ud, whole, old, size + BLOCK_HEADER);
  if (whole == NULL) return memory->failed = true, NULL;
  *(size_t *)whole = size + BLOCK_HEADER;
  return whole + BLOCK_HEADER;
}

static void *memory_take(size_t size) {
  return memory_resize(NULL, size);
}

static void memory_free(void *block) {
  if (block == NULL) return;
  char *whole = (char *)block - BLOCK_HEADER;
  memory->alloc(memory->ud, whole, *(size_t *)whole, 0);
}

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_MAX_DIMENSIONS IMAGE_MAX_SIDE
#define STBI_MALLOC(size) memory_take(size)
#define STBI_REALLOC(block, size) memory_resize(block, size)
#define STBI_FREE(block) memory_free(block)
#define STBI_ASSERT(condition) ((void)0) /* a file must not end the process */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <stb_image.h>
#pragma GCC diagnostic pop

/* Samples of 16 bits to 8, rounded, in the same memory. */
static uint8_t *narrow(uint16_t *samples, size_t count) {
  uint8_t *bytes = (uint8_t *)samples;
  for (size_t i = 0; i < count; i++) {
    uint32_t sample = samples[i];
    bytes[i] = (uint8_t)((sample * 255 + 32767) / 65535);
  }
  return bytes;
}

/* What stb makes of the file, as bytes: its own way from 16 bits to 8 cuts. NULL where it can make nothing. */
static uint8_t *load(Bytes file, int *width, int *height, int *channels) {
  int size = (int)file.size;
  if (!stbi_is_16_bit_from_memory(file.data, size))
    return stbi_load_from_memory(file.data, size, width, height, channels, 0);
  uint16_t *samples = stbi_load_16_from_memory(file.data, size, width, height, channels, 0);
  return samples == NULL ? NULL : narrow(samples, (size_t)*width * (size_t)*height * (size_t)*channels);
}

static const char *decode_with_stb(CodecJob *job, const char *damaged) {
  const ImageInfo *info = job->info;
  int width, height, channels;
  memory = &job->memory;
  uint8_t *pixels = load(job->file, &width, &height, &channels);
  if (pixels == NULL) return job->memory.failed ? "not enough memory" : damaged;
  bool fits = width == info->width && height == info->height && channels >= 1 && channels <= 4;
  if (fits) pixels_convert(pixels, channels, job->pixels, job->channels, (size_t)width * (size_t)height);
  stbi_image_free(pixels);
  return fits ? NULL : damaged;
}

/* True when all 'count' colours of a palette, 'step' bytes each, are grays. */
static bool is_gray_palette(const uint8_t *palette, size_t count, size_t step) {
  for (size_t i = 0; i < count; i++, palette += step)
    if (palette[0] != palette[1] || palette[1] != palette[2]) return false;
  return true;
}

/* ---- PNG ---- */

enum { SIGNATURE = 8 };

typedef struct Chunk {
  const uint8_t *type, *data;
  size_t size;
} Chunk;

/* The chunk at *at, which moves behind it; false where the file ends before the chunk does. */
static bool next_chunk(Bytes file, size_t *at, Chunk *chunk) {
  size_t left = file.size - *at;
  if (left < 12) return false;
  chunk->size = be32(file.data + *at);
  chunk->type = file.data + *at + 4;
  chunk->data = chunk->type + 4;
  if (chunk->size > left - 12) return false;
  *at += chunk->size + 12;
  return true;
}

static bool is_type(const Chunk *chunk, const char *type) {
  return memcmp(chunk->type, type, 4) == 0;
}

static bool png_matches(Bytes file) {
  return file.size >= SIGNATURE && memcmp(file.data, "\x89PNG\r\n\x1a\n", SIGNATURE) == 0;
}

static long limited(uint32_t size) {
  return size > INT32_MAX ? INT32_MAX : (long)size;
}

static const char *png_probe(Bytes file, ImageInfo *info) {
  enum { GRAY = 0, PALETTE = 3, GRAY_ALPHA = 4 };
  size_t at = SIGNATURE;
  Chunk chunk;
  if (!next_chunk(file, &at, &chunk)) return "the PNG is cut off in its header";
  if (!is_type(&chunk, "IHDR") || chunk.size != 13) return "the PNG header is damaged";
  info->width = limited(be32(chunk.data));
  info->height = limited(be32(chunk.data + 4));
  int type = chunk.data[9];
  info->channels = type == GRAY || type == GRAY_ALPHA ? 1 : 3;
  while (type == PALETTE && next_chunk(file, &at, &chunk) && !is_type(&chunk, "IDAT"))
    if (is_type(&chunk, "PLTE") && is_gray_palette(chunk.data, chunk.size / 3, 3)) info->channels = 1;
  return NULL;
}

/* Walks all chunks to the last: each is whole, and those that matter have the right checksum. */
static const char *png_check(Bytes file) {
  Chunk chunk;
  for (size_t at = SIGNATURE; next_chunk(file, &at, &chunk);) {
    bool matters = chunk.type[0] < 'a';
    if (matters && crc32_add(0, chunk.type, chunk.size + 4) != be32(chunk.data + chunk.size))
      return "the PNG is damaged (a checksum is wrong)";
    if (is_type(&chunk, "IEND")) return NULL;
  }
  return "the PNG is cut off";
}

static const char *png_decode(CodecJob *job) {
  const char *error = png_check(job->file);
  return error != NULL ? error : decode_with_stb(job, "the PNG is damaged");
}

const ImageFormat format_png = {"PNG", png_matches, png_probe, png_decode};

/* ---- BMP ---- */

enum { FILE_HEADER = 14, OLD_HEADER = 12, HEADER = 40 };

typedef struct BmpHeader {
  size_t pixels, size, palette, colour; /* offsets and sizes in bytes; colour: of one in the palette */
  long width, height;
  int bits;
} BmpHeader;

static bool bmp_matches(Bytes file) {
  return file.size >= 2 && memcmp(file.data, "BM", 2) == 0;
}

static const char *read_bmp_header(Bytes file, BmpHeader *header) {
  const uint8_t *p = file.data + FILE_HEADER;
  if (file.size < FILE_HEADER + OLD_HEADER) return "the BMP is cut off in its header";
  header->pixels = le32(file.data + 10);
  header->size = le32(p);
  bool old = header->size == OLD_HEADER;
  if (!old && header->size < HEADER) return "the BMP header is damaged";
  if (file.size - FILE_HEADER < header->size) return "the BMP is cut off in its header";
  header->width = old ? (long)le16(p + 4) : (int32_t)le32(p + 4);
  header->height = old ? (long)le16(p + 6) : labs((int32_t)le32(p + 8));
  header->bits = (int)le16(old ? p + 10 : p + 14);
  header->palette = FILE_HEADER + header->size;
  header->colour = old ? 3 : 4;
  uint32_t compression = old ? 0 : le32(p + 16);
  if (compression == 1 || compression == 2) return "the BMP is run-length encoded, which is not read";
  return NULL;
}

static const char *bmp_probe(Bytes file, ImageInfo *info) {
  BmpHeader header;
  const char *error = read_bmp_header(file, &header);
  if (error != NULL) return error;
  info->width = header.width;
  info->height = header.height;
  bool has_palette = header.bits <= 8 && header.pixels > header.palette && header.pixels <= file.size;
  size_t colours = has_palette ? (header.pixels - header.palette) / header.colour : 0,
         most = (size_t)1 << (header.bits & 15);
  bool gray =
      has_palette && is_gray_palette(file.data + header.palette, colours < most ? colours : most, header.colour);
  info->channels = gray ? 1 : 3;
  return NULL;
}

static const char *bmp_decode(CodecJob *job) {
  BmpHeader header;
  const char *error = read_bmp_header(job->file, &header);
  if (error != NULL) return error;
  size_t row = ((size_t)header.width * (size_t)header.bits + 31) / 32 * 4;
  if (header.pixels > job->file.size || row * (size_t)header.height > job->file.size - header.pixels)
    return "the BMP is cut off";
  return decode_with_stb(job, "the BMP is damaged or of a kind that is not read");
}

const ImageFormat format_bmp = {"BMP", bmp_matches, bmp_probe, bmp_decode};
