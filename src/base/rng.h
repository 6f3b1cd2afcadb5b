/*
** rng.h -- counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers:
** as easy as 1, 2, 3"). The i-th number of a stream is a function of (seed, stream, i) alone, so any
** thread may draw any part of it and the whole never depends on how many threads there are.
*/
#ifndef FERAL_RNG_H
#define FERAL_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct RngBlock {
  uint32_t word[4];
} RngBlock;

/* The four 32-bit words of block 'index' in stream 'stream' of 'seed'. */
static inline RngBlock rng_block(uint64_t seed, uint64_t stream, uint64_t index) {
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
  uint32_t a = (uint32_t)index, b = (uint32_t)(index >> 32);
  uint32_t c = (uint32_t)stream, d = (uint32_t)(stream >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p = (uint64_t)0xD2511F53u * a, q = (uint64_t)0xCD9E8D57u * c;
    uint32_t a1 = (uint32_t)(q >> 32) ^ b ^ key0, c1 = (uint32_t)(p >> 32) ^ d ^ key1;
    b = (uint32_t)q;
    d = (uint32_t)p;
    a = a1;
    c = c1;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return (RngBlock){{a, b, c, d}};
}

enum { RNG_BLOCKS = 16 };

/* The words of blocks first .. first + RNG_BLOCKS - 1, side by side for the compiler to make vectors of:
   word[k][j] is word k of block first + j. */
static inline void rng_blocks(uint64_t seed, uint64_t stream, uint64_t first, uint32_t word[4][RNG_BLOCKS]) {
  uint32_t *a = word[0], *b = word[1], *c = word[2], *d = word[3];
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
  for (int j = 0; j < RNG_BLOCKS; j++) {
    a[j] = (uint32_t)(first + (uint64_t)j);
    b[j] = (uint32_t)((first + (uint64_t)j) >> 32);
    c[j] = (uint32_t)stream;
    d[j] = (uint32_t)(stream >> 32);
  }
  for (int round = 0; round < 10; round++) {
    for (int j = 0; j < RNG_BLOCKS; j++) {
      uint64_t p = (uint64_t)0xD2511F53u * a[j], q = (uint64_t)0xCD9E8D57u * c[j];
      a[j] = (uint32_t)(q >> 32) ^ b[j] ^ key0;
      c[j] = (uint32_t)(p >> 32) ^ d[j] ^ key1;
      b[j] = (uint32_t)q;
      d[j] = (uint32_t)p;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/* A word as a float in [0, 1), on the grid of 2^-24. */
static inline float rng_unit(uint32_t word) {
  return (float)(word >> 8) * 0x1p-24f;
}

/* Number i of a stream, uniform in [0, 1). */
static inline float rng_uniform(uint64_t seed, uint64_t stream, uint64_t i) {
  return rng_unit(rng_block(seed, stream, i / 4).word[i % 4]);
}

/* Number i of a stream, standard normal (Box and Muller; both words of a pair are used). */
static inline float rng_normal(uint64_t seed, uint64_t stream, uint64_t i) {
  RngBlock block = rng_block(seed, stream, i / 4);
  unsigned pair = (unsigned)(i % 4) & ~1u;
  double radius = sqrt(-2.0 * log(1.0 - rng_unit(block.word[pair])));
  double angle = 6.283185307179586 * rng_unit(block.word[pair + 1]);
  return (float)(radius * (i % 2 == 0 ? cos(angle) : sin(angle)));
}

/* Number i of a stream, a whole number in [0, n), 1 <= n <= 2^32 (Lemire's multiplication, bias below n / 2^32). */
static inline uint32_t rng_below(uint64_t seed, uint64_t stream, uint64_t i, uint64_t n) {
  return (uint32_t)((rng_block(seed, stream, i / 4).word[i % 4] * n) >> 32);
}

#endif
