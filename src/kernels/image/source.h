/*
** source.h -- where the pixels of a data set come from. No lua_State here.
**
** A source numbers its samples from 0. A sample is one image, or a sequence of them (its frames). 'fetch' may be called
** by any thread at any time, several at once with a scratch of their own each, and never by way of Lua. A new kind of
** source (memory, cache, files, drawn faces ...) is one such table of functions and a struct that begins with a Source.
** src/tensor/sources.h says how Lua holds one.
*/
#ifndef FERAL_SOURCE_H
#define FERAL_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../base/real.h"

/* Pixels in rows from the top, the channels of a pixel side by side; bytes of 0..255, or reals of the same range. */
typedef struct Image {
  bool bytes;
  long height, width, channels;
  const void *pixels;
} Image;

typedef struct Source Source;

typedef struct SourceKind {
  const char *name; /* "memory", "files" ... */

  /* Frame 'frame' of sample 'i', both from 0: fills 'image', whose pixels then lie in 'scratch' (s->scratch bytes,
     aligned to 64) or in the source itself. Returns NULL, or what is wrong, as text that stays or lies in scratch. */
  const char *(*fetch)(const Source *s, long i, long frame, void *scratch, Image *image);

  /* How many frames sample i has; NULL where all have s->frames. */
  long (*frames)(const Source *s, long i);

  /* Gives back what is not memory (an open file); NULL where there is nothing. Once, when no thread fetches any more. */
  void (*close)(Source *s);
} SourceKind;

/* What all sources begin with. height, width, channels: of every image, or 0 where they differ from image to image;
   then most_pixels (height x width) says how large one may be. */
struct Source {
  const SourceKind *kind;
  long count, frames; /* frames: of every sample (1: single images), or the most that one has where they differ */
  bool sequential;    /* samples are sequences, be they of one frame */
  long height, width, channels;
  long most_pixels;
  size_t scratch; /* bytes that fetch needs */
};

static inline long source_frames(const Source *s, long i) {
  return s->kind->frames != NULL ? s->kind->frames(s, i) : s->frames;
}

static inline const char *source_fetch(const Source *s, long i, long frame, void *scratch, Image *image) {
  return s->kind->fetch(s, i, frame, scratch, image);
}

#endif
