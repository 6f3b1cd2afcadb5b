/*
** codec.h -- image files in memory: what they are, and their pixels. No lua_State here.
**
** Pixels are bytes, rows from the top, the channels of a pixel side by side: gray, or red green blue. A format is known
** by its content, never by a name. codec_probe reads the header alone and refuses what is too large, so nothing is
** decoded, and no memory taken, for an image that only claims to be one.
*/
#ifndef FERAL_CODEC_H
#define FERAL_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMAGE_MAX_SIDE = 8192, IMAGE_MAX_PIXELS = 64000000 };

typedef struct Bytes {
  const uint8_t *data;
  size_t size;
} Bytes;

typedef struct ImageInfo {
  const struct ImageFormat *format;
  long height, width;  /* as stored; exchanged by an orientation of 5 or more */
  int channels;        /* 1 or 3: what the image holds */
  int orientation;     /* EXIF's 1..8; 1: upright */
  bool cmyk, inverted; /* a JPEG of four inks; 255 stands for no ink */
  size_t offset;       /* PNM: of the first sample */
  long maxval;         /* PNM: the sample that is white */
} ImageInfo;

static inline bool is_turned(const ImageInfo *info) {
  return info->orientation >= 5;
}
static inline long upright_height(const ImageInfo *info) {
  return is_turned(info) ? info->width : info->height;
}
static inline long upright_width(const ImageInfo *info) {
  return is_turned(info) ? info->height : info->width;
}

/* Memory for decoders that ask for it while they work: Lua's own allocator, called without Lua. */
typedef struct CodecMemory {
  void *(*alloc)(void *ud, void *block, size_t old_size, size_t size);
  void *ud;
  size_t limit; /* of one request: a larger one means a file that does not hold what its header says */
  bool failed;  /* the allocator had nothing more to give */
} CodecMemory;

typedef struct CodecJob {
  Bytes file;
  const ImageInfo *info;
  int channels;     /* 1 or 3: what is wanted */
  uint8_t *pixels;  /* upright, height x width x channels: to be filled */
  uint8_t *scratch; /* codec_scratch_size bytes */
  CodecMemory memory;
  char message[200]; /* where a foreign library's text is kept */
} CodecJob;

typedef struct ImageFormat {
  const char *name;
  bool (*matches)(Bytes file);
  const char *(*probe)(Bytes file, ImageInfo *info); /* fills info from the header */
  const char *(*decode)(CodecJob *job);
} ImageFormat;

extern const ImageFormat format_jpeg, format_png, format_bmp, format_pnm;

/* Both return NULL, or what is wrong. */
const char *codec_probe(Bytes file, ImageInfo *info);
const char *codec_decode(CodecJob *job);

size_t codec_scratch_size(const ImageInfo *info, int channels);

/* The orientation in the TIFF structure of an EXIF segment; 1 where there is none or nothing sensible. */
int exif_orientation(Bytes tiff);

/* ---- encoding, into memory that the caller has ---- */

size_t png_encode_bound(long height, long width, int channels);
size_t png_encode_scratch(long height, long width, int channels); /* bytes, aligned as an int is */
size_t png_encode(const uint8_t *pixels, long height, long width, int channels, void *scratch, uint8_t *out);

size_t jpeg_encode_bound(long height, long width, int channels, int quality);
/* *size: the bound, then the bytes used. Returns NULL, or what is wrong, kept in 'message'. */
const char *jpeg_encode(const uint8_t *pixels, long height, long width, int channels, int quality, uint8_t *out,
                        size_t *size, char message[200]);

/* ---- reading bytes ---- */

static inline uint32_t be16(const uint8_t *p) {
  return (uint32_t)p[0] << 8 | p[1];
}
static inline uint32_t be32(const uint8_t *p) {
  return be16(p) << 16 | be16(p + 2);
}
static inline uint32_t le16(const uint8_t *p) {
  return (uint32_t)p[1] << 8 | p[0];
}
static inline uint32_t le32(const uint8_t *p) {
  return le16(p + 2) << 16 | le16(p);
}

#endif
