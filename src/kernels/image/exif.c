/* exif.c -- one number of what a camera writes beside its picture: how it was held. */
#include "codec.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_SIZE = 12 };

int exif_orientation(Bytes tiff) {
  const uint8_t *p = tiff.data;
  if (tiff.size < 8 || p[0] != p[1] || (p[0] != 'I' && p[0] != 'M')) return 1;
  uint32_t (*word)(const uint8_t *) = p[0] == 'I' ? le16 : be16;
  uint32_t (*length)(const uint8_t *) = p[0] == 'I' ? le32 : be32;
  size_t directory = length(p + 4);
  if (word(p + 2) != 42 || directory > tiff.size - 2) return 1;
  size_t count = word(p + directory), first = directory + 2;
  for (size_t i = 0; i < count && (i + 1) * ENTRY_SIZE <= tiff.size - first; i++) {
    const uint8_t *entry = p + first + i * ENTRY_SIZE;
    if (word(entry) != TAG_ORIENTATION) continue;
    uint32_t value = word(entry + 8);
    bool sensible = word(entry + 2) == TYPE_SHORT && length(entry + 4) == 1 && value >= 1 && value <= 8;
    return sensible ? (int)value : 1;
  }
  return 1;
}
