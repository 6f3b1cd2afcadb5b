/* picture.h -- an image file's bytes to the pixels of a data set: decoded, to its channels, to its size. No lua_State here. */
#ifndef FERAL_PICTURE_H
#define FERAL_PICTURE_H

#include "codec.h"
#include "resize.h"

/* What the data set's images have. */
typedef struct PictureShape {
  long height, width;
  int channels; /* 1 or 3 */
} PictureShape;

/* Bytes of memory to make the picture of a file in, aligned to 64. */
size_t picture_memory(const ImageInfo *info, const PictureShape *to);

/* Fills result (height,width,channels). 'job' has the file, its info and the memory for decoders; the rest is filled in
   here, 'memory' being that of picture_memory. Returns NULL, or what is wrong. */
const char *picture_make(CodecJob *job, const PictureShape *to, void *memory, uint8_t *result);

#endif
