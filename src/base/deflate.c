/* deflate.c -- see deflate.h. */
#include "deflate.h"

#define ZLIB_CONST
#include <zlib.h>

/* zlib's manual gives (1 << (windowBits + 2)) + (1 << (memLevel + 9)) bytes, 256 KiB at the defaults, and a few KiB more. */
enum { ARENA = 288 << 10 };

typedef struct Arena {
  uint8_t *at, *end;
} Arena;

static void *arena_take(void *opaque, unsigned items, unsigned size) {
  Arena *arena = opaque;
  size_t bytes = ((size_t)items * size + 15) / 16 * 16;
  if (bytes > (size_t)(arena->end - arena->at)) return Z_NULL;
  void *block = arena->at;
  arena->at += bytes;
  return block;
}

static void arena_give(void *opaque, void *block) {
  (void)opaque;
  (void)block;
}

uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t size) {
  return (uint32_t)crc32_z(crc, data, size);
}

size_t zlib_bound(size_t size) {
  return compressBound(size);
}

size_t zlib_scratch(void) {
  return ARENA;
}

size_t zlib_compress(const uint8_t *data, size_t size, void *scratch, uint8_t *out) {
  Arena arena = {scratch, (uint8_t *)scratch + ARENA};
  z_stream stream = {.zalloc = arena_take, .zfree = arena_give, .opaque = &arena};
  if (deflateInit(&stream, Z_DEFAULT_COMPRESSION) != Z_OK) return 0;
  stream.next_in = data;
  stream.avail_in = (unsigned)size;
  stream.next_out = out;
  stream.avail_out = (unsigned)zlib_bound(size);
  deflate(&stream, Z_FINISH);
  deflateEnd(&stream);
  return stream.total_out;
}
