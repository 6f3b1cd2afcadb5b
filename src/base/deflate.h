/* deflate.h -- the compression and the checksums of PNG and ZIP. */
#ifndef FERAL_DEFLATE_H
#define FERAL_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 (ISO 3309) of bytes that follow those of 'crc'; 0 to start. */
uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t size);

/* Most bytes that zlib_compress writes, and the scratch memory it works in (aligned as an int is). */
size_t zlib_bound(size_t size);
size_t zlib_scratch(void);

/* Compresses less than 2 GB to the zlib format (RFC 1950, 1951); returns the bytes written. */
size_t zlib_compress(const uint8_t *data, size_t size, void *scratch, uint8_t *out);

#endif
