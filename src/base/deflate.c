/*
** deflate.c -- see deflate.h. Greedy matching with one candidate a hash (Deutsch 1996, RFC 1951, gives the format and the
** idea), each block with Huffman codes of its own (Huffman 1952). Small rather than best: within some percent of zlib.
*/
#include "deflate.h"

#include <stdbool.h>
#include <string.h>

enum {
  HASH_BITS = 15,
  WINDOW = 32768,
  MATCH_LEAST = 3,
  MATCH_MOST = 258,
  BLOCK_TOKENS = 1 << 15,
  END = 256,
  LITERALS = 286,
  DISTANCES = 30,
  CODE_MOST = 15,
  MATCH_FLAG = 1 << 30,
};

/* ---- checksums ---- */

uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t size) {
  static const uint32_t nibble[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                      0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                      0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
  crc = ~crc;
  for (size_t i = 0; i < size; i++) {
    crc = nibble[(crc ^ data[i]) & 15] ^ crc >> 4;
    crc = nibble[(crc ^ data[i] >> 4) & 15] ^ crc >> 4;
  }
  return ~crc;
}

static uint32_t adler32(const uint8_t *data, size_t size) {
  uint32_t a = 1, b = 0;
  while (size > 0) {
    size_t run = size < 5552 ? size : 5552; /* as many as cannot overflow */
    for (size_t i = 0; i < run; i++) b += a += data[i];
    a %= 65521;
    b %= 65521;
    data += run;
    size -= run;
  }
  return b << 16 | a;
}

/* ---- bits ---- */

typedef struct BitWriter {
  uint8_t *out;
  uint64_t bits;
  int count;
} BitWriter;

static void put(BitWriter *w, uint32_t value, int count) {
  w->bits |= (uint64_t)value << w->count;
  for (w->count += count; w->count >= 8; w->count -= 8, w->bits >>= 8) *w->out++ = (uint8_t)w->bits;
}

static void flush(BitWriter *w) {
  if (w->count > 0) put(w, 0, 8 - w->count);
}

/* ---- Huffman codes ---- */

typedef struct Code {
  int symbols;
  uint32_t frequency[LITERALS];
  uint8_t length[LITERALS];
  uint16_t bits[LITERALS]; /* reversed, as the format wants them */
} Code;

/* The node of least weight that is not yet below another; -1 where there is none. */
static int lightest(const uint32_t *weight, const int *parent, int nodes) {
  int best = -1;
  for (int i = 0; i < nodes; i++)
    if (weight[i] > 0 && parent[i] < 0 && (best < 0 || weight[i] < weight[best])) best = i;
  return best;
}

/* Code lengths from the frequencies; false where one is too long. At least two frequencies are not 0. */
static bool measure(Code *code) {
  uint32_t weight[2 * LITERALS];
  int parent[2 * LITERALS], nodes = code->symbols;
  memcpy(weight, code->frequency, (size_t)nodes * sizeof *weight);
  for (int i = 0; i < 2 * LITERALS; i++) parent[i] = -1;
  for (;; nodes++) {
    int a = lightest(weight, parent, nodes);
    parent[a] = nodes; /* so that the next search passes over it */
    int b = lightest(weight, parent, nodes);
    if (b < 0) break;
    parent[b] = nodes;
    weight[nodes] = weight[a] + weight[b];
  }
  for (int i = 0; i < code->symbols; i++) {
    int depth = 0;
    for (int node = i; weight[i] > 0 && parent[node] != nodes; node = parent[node]) depth++;
    if (depth > CODE_MOST) return false;
    code->length[i] = (uint8_t)depth;
  }
  return true;
}

/* Canonical codes: shorter before longer, equal lengths in the order of the symbols. */
static void assign(Code *code) {
  uint32_t next = 0;
  for (int length = 1; length <= CODE_MOST; length++, next <<= 1)
    for (int i = 0; i < code->symbols; i++) {
      if (code->length[i] != length) continue;
      uint32_t reversed = 0;
      for (int b = 0; b < length; b++) reversed |= (next >> b & 1) << (length - 1 - b);
      code->bits[i] = (uint16_t)reversed;
      next++;
    }
}

static void build(Code *code) {
  while (!measure(code)) /* flatter frequencies make shorter codes */
    for (int i = 0; i < code->symbols; i++) code->frequency[i] = (code->frequency[i] + 1) / 2;
  assign(code);
}

static void put_symbol(BitWriter *w, const Code *code, int symbol) { put(w, code->bits[symbol], code->length[symbol]); }

/* ---- tokens: a byte, or MATCH_FLAG | length << 16 | distance - 1 ---- */

typedef struct Deflater {
  int32_t head[1 << HASH_BITS]; /* where the bytes of a hash were last seen */
  uint32_t token[BLOCK_TOKENS];
  Code literal, distance;
  BitWriter writer;
} Deflater;

/* A symbol for a length or distance: its class, and the bits that tell it from its class's first. */
typedef struct Symbol {
  int symbol, extra_bits;
  uint32_t extra;
} Symbol;

/* Classes come 'per_octave' to each doubling, the first two octaves one value a class. */
static Symbol classify(uint32_t value, int per_octave_bits) {
  int bits = 0;
  while (value >> (bits + per_octave_bits + 1) != 0) bits++;
  return (Symbol){(bits << per_octave_bits) + (int)(value >> bits), bits, value & ((1u << bits) - 1)};
}

static Symbol length_symbol(uint32_t length) {
  if (length == MATCH_MOST) return (Symbol){285, 0, 0};
  Symbol s = classify(length - MATCH_LEAST, 2);
  s.symbol += END + 1;
  return s;
}

static Symbol distance_symbol(uint32_t distance_less_1) { return classify(distance_less_1, 1); }

static void count_token(Deflater *d, uint32_t token) {
  if (token & MATCH_FLAG) {
    d->literal.frequency[length_symbol(token >> 16 & 0x1FF).symbol]++;
    d->distance.frequency[distance_symbol(token & 0xFFFF).symbol]++;
  } else {
    d->literal.frequency[token]++;
  }
}

static void put_token(Deflater *d, uint32_t token) {
  BitWriter *w = &d->writer;
  if (!(token & MATCH_FLAG)) {
    put_symbol(w, &d->literal, (int)token);
    return;
  }
  Symbol length = length_symbol(token >> 16 & 0x1FF), distance = distance_symbol(token & 0xFFFF);
  put_symbol(w, &d->literal, length.symbol);
  put(w, length.extra, length.extra_bits);
  put_symbol(w, &d->distance, distance.symbol);
  put(w, distance.extra, distance.extra_bits);
}

/* The codes themselves, each length in 4 bits: the lengths 0..15 get a code of 4 bits each, the repeats none. */
static void put_codes(Deflater *d) {
  static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  BitWriter *w = &d->writer;
  Code lengths = {.symbols = CODE_MOST + 1};
  for (int i = 0; i <= CODE_MOST; i++) lengths.length[i] = 4;
  assign(&lengths);
  put(w, LITERALS - 257, 5);
  put(w, DISTANCES - 1, 5);
  put(w, 19 - 4, 4);
  for (int i = 0; i < 19; i++) put(w, order[i] <= CODE_MOST ? 4 : 0, 3);
  for (int i = 0; i < LITERALS; i++) put_symbol(w, &lengths, d->literal.length[i]);
  for (int i = 0; i < DISTANCES; i++) put_symbol(w, &lengths, d->distance.length[i]);
}

static void put_block(Deflater *d, int count, bool last) {
  memset(&d->literal, 0, sizeof d->literal);
  memset(&d->distance, 0, sizeof d->distance);
  d->literal.symbols = LITERALS;
  d->distance.symbols = DISTANCES;
  d->literal.frequency[END] = d->literal.frequency[0] = 1; /* two symbols at least, so that each code is complete */
  d->distance.frequency[0] = d->distance.frequency[1] = 1;
  for (int i = 0; i < count; i++) count_token(d, d->token[i]);
  build(&d->literal);
  build(&d->distance);
  put(&d->writer, last, 1);
  put(&d->writer, 2, 2);
  put_codes(d);
  for (int i = 0; i < count; i++) put_token(d, d->token[i]);
  put_symbol(&d->writer, &d->literal, END);
}

/* ---- matching ---- */

static uint32_t hash(const uint8_t *p) {
  return (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16) * 0x9E3779B1u >> (32 - HASH_BITS);
}

/* The token for the bytes at 'at'; *length tells how many it stands for. */
static uint32_t next_token(Deflater *d, const uint8_t *data, size_t size, size_t at, size_t *length) {
  *length = 1;
  if (size - at < MATCH_LEAST) return data[at];
  int32_t *head = &d->head[hash(data + at)];
  size_t back = at - (size_t)*head, most = size - at < MATCH_MOST ? size - at : MATCH_MOST, n = 0;
  bool seen = *head >= 0 && back <= WINDOW;
  *head = (int32_t)at;
  while (seen && n < most && data[at + n] == data[at - back + n]) n++;
  if (n < MATCH_LEAST || (n == MATCH_LEAST && back > 4096)) return data[at]; /* far and short costs more than it saves */
  *length = n;
  return MATCH_FLAG | (uint32_t)n << 16 | (uint32_t)(back - 1);
}

size_t zlib_bound(size_t size) { return 2 * size + (size / BLOCK_TOKENS + 1) * 256 + 16; }

size_t zlib_scratch(void) { return sizeof(Deflater); }

size_t zlib_compress(const uint8_t *data, size_t size, void *scratch, uint8_t *out) {
  Deflater *d = scratch;
  int count = 0;
  memset(d->head, 0xFF, sizeof d->head);
  d->writer = (BitWriter){.out = out};
  put(&d->writer, 0x0178, 16); /* deflate, a window of 32 KB, no dictionary */
  for (size_t at = 0, length; at < size; at += length) {
    if (count == BLOCK_TOKENS) {
      put_block(d, count, false);
      count = 0;
    }
    d->token[count++] = next_token(d, data, size, at, &length);
  }
  put_block(d, count, true);
  flush(&d->writer);
  uint32_t sum = adler32(data, size);
  for (int shift = 24; shift >= 0; shift -= 8) *d->writer.out++ = (uint8_t)(sum >> shift);
  return (size_t)(d->writer.out - out);
}
