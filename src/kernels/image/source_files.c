/* source_files.c -- image files as a source: each is read and decoded in the scratch of whoever wants it. See source_kinds.h. */
#include <stdio.h>
#include <string.h>

#include "../../base/files.h"
#include "picture.h"
#include "source_kinds.h"

/* ---- memory for decoders ---- */

/* Blocks one after another; the last may grow, shrink and go, others are given back with the whole. */
typedef struct Arena {
  char *memory, *last;
  size_t size, used;
} Arena;

static size_t rounded(size_t size) {
  return (size + 63) / 64 * 64;
}

static void *arena_alloc(void *ud, void *block, size_t old_size, size_t size) {
  Arena *a = ud;
  bool is_last = block != NULL && block == a->last;
  if (size <= old_size && !is_last) return size == 0 ? NULL : block;
  size_t before = is_last ? (size_t)(a->last - a->memory) : a->used;
  if (rounded(size) > a->size - before) return NULL;
  a->used = before + rounded(size);
  a->last = size == 0 ? NULL : a->memory + before;
  if (block != NULL && !is_last) memcpy(a->last, block, old_size);
  return a->last;
}

/* What a decoder takes at most: the file's data as it grows, the filtered rows, the pixels, and those once more where they
   are put in order or lose their second byte. JPEG's has memory of its own, PNM's needs none. */
static size_t arena_size(const ImageInfo *info, size_t file_size) {
  if (info->format != &format_png && info->format != &format_bmp) return 0;
  size_t pixels = (size_t)info->height * (size_t)info->width;
  return 2 * file_size + 3 * (pixels * 8 + (size_t)info->height * 2) + 65536;
}

/* ---- where everything lies in a scratch ---- */

typedef struct Desk {
  uint8_t *file, *picture, *result, *arena;
  size_t arena_size, size;
  PictureShape shape;
} Desk;

static uint8_t *take(void *scratch, size_t *used, size_t size) {
  uint8_t *place = scratch != NULL ? (uint8_t *)scratch + *used : NULL;
  *used += rounded(size);
  return place;
}

static Desk arrange(const FilesSource *s, const ImageInfo *info, size_t file_size, void *scratch) {
  Desk d = {.size = SOURCE_MESSAGE, .shape = {s->base.height, s->base.width, (int)s->base.channels}};
  if (s->base.height == 0) d.shape = (PictureShape){upright_height(info), upright_width(info), (int)s->base.channels};
  d.arena_size = arena_size(info, file_size);
  d.file = take(scratch, &d.size, file_size);
  d.picture = take(scratch, &d.size, picture_memory(info, &d.shape));
  d.result = take(scratch, &d.size, (size_t)d.shape.height * (size_t)d.shape.width * (size_t)d.shape.channels);
  d.arena = take(scratch, &d.size, d.arena_size);
  return d;
}

/* ---- looking ---- */

enum { FILE_MOST = 512 << 20 };

static const char *size_of(const char *path, size_t *size) {
  const char *error = files_size(path, size);
  return error == NULL && *size > FILE_MOST ? "the file is too large for an image" : error;
}

const char *const source_header_is_long = "the header is long";

const char *source_files_look(const FilesSource *s, long file, uint8_t *head, size_t size, FileNeeds *needs) {
  const char *path = strings_get(s->paths, file), *error = size_of(path, &needs->bytes);
  ImageInfo info;
  Bytes bytes = {head, needs->bytes < size ? needs->bytes : size};
  if (error == NULL) error = files_read(path, 0, head, bytes.size);
  if (error != NULL) return error;
  error = codec_probe(bytes, &info);
  if (error != NULL) return bytes.size < needs->bytes ? source_header_is_long : error;
  Desk d = arrange(s, &info, needs->bytes, NULL);
  needs->pixels = d.shape.height * d.shape.width;
  needs->scratch = d.size;
  return NULL;
}

/* ---- fetching ---- */

static long file_of(const FilesSource *s, long i, long frame) {
  return s->first != NULL ? s->first[i] + frame : i;
}

/* 'info' is the job's, which outlives this call. */
static const char *decode(const FilesSource *s, const char *path, void *scratch, Image *image, CodecJob *job,
                          ImageInfo *info) {
  static const char *const changed = "the file has changed since it was first looked at";
  size_t size;
  const char *error = size_of(path, &size);
  if (error != NULL) return error;
  if (SOURCE_MESSAGE + rounded(size) > s->base.scratch) return changed;
  uint8_t *data = (uint8_t *)scratch + SOURCE_MESSAGE;
  error = files_read(path, 0, data, size);
  job->file = (Bytes){data, size};
  if (error == NULL) error = codec_probe(job->file, info);
  if (error != NULL) return error;
  Desk d = arrange(s, info, size, scratch);
  if (d.size > s->base.scratch || d.shape.height * d.shape.width > s->base.most_pixels) return changed;
  Arena arena = {.memory = (char *)d.arena, .size = d.arena_size};
  job->memory = (CodecMemory){.alloc = arena_alloc, .ud = &arena};
  error = picture_make(job, &d.shape, d.picture, d.result);
  job->memory = (CodecMemory){.ud = NULL}; /* the arena goes */
  *image = (Image){true, d.shape.height, d.shape.width, d.shape.channels, d.result};
  return error;
}

static const char *fetch(const Source *source, long i, long frame, void *scratch, Image *image) {
  const FilesSource *s = (const FilesSource *)source;
  ImageInfo info;
  CodecJob job = {.info = &info};
  const char *path = strings_get(s->paths, file_of(s, i, frame));
  const char *error = decode(s, path, scratch, image, &job, &info);
  if (error == NULL) return NULL;
  snprintf(scratch, SOURCE_MESSAGE, "%s: %s", path, error);
  return scratch;
}

static long frames(const Source *source, long i) {
  const FilesSource *s = (const FilesSource *)source;
  return s->first != NULL ? s->first[i + 1] - s->first[i] : 1;
}

const SourceKind source_files = {.name = "files", .fetch = fetch, .frames = frames};
