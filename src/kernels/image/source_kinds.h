/*
** source_kinds.h -- kinds of sources whose pixels are images somewhere: in memory, in a cache file, in image files, in other
** sources. No lua_State here. Whoever fills a struct in sees to it that what it points to lives as long.
*/
#ifndef FERAL_SOURCE_KINDS_H
#define FERAL_SOURCE_KINDS_H

#include "../../base/strings.h"
#include "codec.h"
#include "source.h"

/* Bytes at the beginning of a scratch in which the kinds here say what is wrong with a file. */
enum { SOURCE_MESSAGE = 4608 };

static inline size_t source_image_bytes(const Source *s) {
  return (size_t)s->height * (size_t)s->width * (size_t)s->channels;
}

/* Pixels in memory: (count,frames,H,W,C). */
typedef struct MemorySource {
  Source base;
  const uint8_t *pixels;
} MemorySource;
extern const SourceKind source_memory;

/* The same in a file, from byte 'offset' on. It is read, not mapped: a mapped file that another program cuts short
   would end this one. What has been read once the system keeps in memory anyway. */
typedef struct CacheSource {
  Source base;
  int file;         /* -1: not open */
  const char *path; /* for messages */
  size_t offset;
} CacheSource;
extern const SourceKind source_cache;
const char *
source_cache_open(CacheSource *s); /* path, offset and base are filled in; checks that the file is long enough */

/* Image files, each decoded when it is wanted and brought to the source's channels and, where it has one, its size. */
typedef struct FilesSource {
  Source base;
  const Strings *paths;
  const int32_t *first; /* (count + 1): sample i has the files first[i] .. first[i + 1] - 1; NULL: file i */
} FilesSource;
extern const SourceKind source_files;

/* What decoding a file takes. */
typedef struct FileNeeds {
  size_t bytes; /* of the file */
  long pixels;
  size_t scratch;
} FileNeeds;

/* Looks at the header of file number 'file', of which it reads what fits into 'head'. Returns NULL, or what is wrong with
   the file; or source_header_is_long, to be called again with room for all needs->bytes. */
enum { SOURCE_HEAD = 65536 };
const char *source_files_look(const FilesSource *s, long file, uint8_t *head, size_t size, FileNeeds *needs);
extern const char *const source_header_is_long;

/* Sources one after another. */
typedef struct JoinedSource {
  Source base;
  const Source **part;
  long parts;
  long *start; /* (parts): the number of each part's first sample */
} JoinedSource;
extern const SourceKind source_joined;

#endif
