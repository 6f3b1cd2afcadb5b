/* deflate.h -- zlib without its malloc: it works in memory that it is handed. */
#ifndef FERAL_DEFLATE_H
#define FERAL_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 (ISO 3309) of bytes that follow those of 'crc'; 0 to start. */
uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t size);

/* Most bytes that zlib_compress writes, and the bytes of scratch memory it works in. */
size_t zlib_bound(size_t size);
size_t zlib_scratch(void);

/* Compresses less than 2 GB to the zlib format (RFC 1950, 1951); returns the bytes written. scratch: aligned to 16. */
size_t zlib_compress(const uint8_t *data, size_t size, void *scratch, uint8_t *out);

#endif
