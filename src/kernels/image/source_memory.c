/* source_memory.c -- sources whose images all have one size and lie one after another: in memory, in a file; and sources one
   after another. See source_kinds.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "source_kinds.h"

static Image image_at(const Source *s, const void *pixels) {
  return (Image){.bytes = true, .height = s->height, .width = s->width, .channels = s->channels, .pixels = pixels};
}

/* ---- memory ---- */

static const char *fetch_memory(const Source *s, long i, long frame, void *scratch, Image *image) {
  (void)scratch;
  const uint8_t *pixels = ((const MemorySource *)s)->pixels;
  *image = image_at(s, pixels + (size_t)(i * s->frames + frame) * source_image_bytes(s));
  return NULL;
}

const SourceKind source_memory = {.name = "memory", .fetch = fetch_memory};

/* ---- a cache file ---- */

static const char *const cut_short = "the file has been cut short";

static const char *read_at(int file, size_t offset, char *to, size_t size) {
  while (size > 0) {
    ssize_t count = pread(file, to, size, (off_t)offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return strerror(errno);
    if (count == 0) return cut_short;
    offset += (size_t)count;
    to += count;
    size -= (size_t)count;
  }
  return NULL;
}

static const char *fetch_cache(const Source *s, long i, long frame, void *scratch, Image *image) {
  const CacheSource *c = (const CacheSource *)s;
  size_t size = source_image_bytes(s);
  char *pixels = (char *)scratch + SOURCE_MESSAGE;
  const char *error = read_at(c->file, c->offset + (size_t)(i * s->frames + frame) * size, pixels, size);
  if (error != NULL) return snprintf(scratch, SOURCE_MESSAGE, "%s: %s", c->path, error), scratch;
  *image = image_at(s, pixels);
  return NULL;
}

static void close_cache(Source *s) {
  CacheSource *c = (CacheSource *)s;
  if (c->file >= 0) close(c->file);
  c->file = -1;
}

const char *source_cache_open(CacheSource *c) {
  struct stat now;
  Source *s = &c->base;
  s->scratch = SOURCE_MESSAGE + source_image_bytes(s);
  c->file = open(c->path, O_RDONLY | O_CLOEXEC);
  if (c->file < 0 || fstat(c->file, &now) != 0) return strerror(errno);
  size_t wanted = c->offset + (size_t)(s->count * s->frames) * source_image_bytes(s);
  return (size_t)now.st_size < wanted ? cut_short : NULL;
}

const SourceKind source_cache = {.name = "cache", .fetch = fetch_cache, .close = close_cache};

/* ---- several sources ---- */

/* The part that sample *i lies in; *i becomes its number there. */
static const Source *part_of(const Source *s, long *i) {
  const JoinedSource *j = (const JoinedSource *)s;
  long low = 0, high = j->parts - 1;
  while (low < high) {
    long middle = (low + high + 1) / 2;
    if (j->start[middle] <= *i)
      low = middle;
    else
      high = middle - 1;
  }
  *i -= j->start[low];
  return j->part[low];
}

static const char *fetch_joined(const Source *s, long i, long frame, void *scratch, Image *image) {
  const Source *part = part_of(s, &i);
  return source_fetch(part, i, frame, scratch, image);
}

static long frames_joined(const Source *s, long i) {
  const Source *part = part_of(s, &i);
  return source_frames(part, i);
}

const SourceKind source_joined = {.name = "joined", .fetch = fetch_joined, .frames = frames_joined};
