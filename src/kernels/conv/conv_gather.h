/*
** conv_gather.h -- convolution as its direct kernels see it: each pixel written is a sum, over taps, of pixels read
** times weights. Forward is one gather. The gradient of the input is one for each phase of the stride: pixels whose
** positions leave the same remainder are reached by the same taps. Private to src/kernels/conv.
**
** A 'tile' is what one thread works on at a time: some rows of one image, or some whole images. Where taps reach over
** the edge the tile's input is copied between zeros first, so that the inner loops know no edges: a pixel is an offset
** from the tile's first number, and a tap another one that is added to it.
*/
#ifndef FERAL_CONV_GATHER_H
#define FERAL_CONV_GATHER_H

#include <stdbool.h>

#include "../../base/parallel.h"
#include "../../base/simd.h"
#include "conv_geometry.h"

/* One dimension. Pixel i < count that is written lies at first + i step; its tap j < taps reads the input at
   at + j at_step + i in_step and is the kernel's tap + j tap_step. */
typedef struct Axis {
  long in, out; /* sizes of the images read and written */
  long first, step, count;
  long taps, tap, tap_step;
  long at, at_step, in_step;
  long before, size; /* zeros put before, and size with zeros */
} Axis;

typedef struct Gather {
  Axis y, x;
  long images, groups;
  long in_c, out_c, cin, cout;              /* channels of the images; those of one group */
  long kw;                                  /* kernel taps a row */
  long weight_in, weight_out, weight_group; /* distances in the weights from one channel, or group, to the next */
  bool padded;                              /* some tap reaches over the edge */
} Gather;

/* Taps whose inputs lie behind each other are one run: 'runs' of 'length' elements a pixel. */
typedef struct Runs {
  long count, length;
} Runs;

typedef struct Tiling {
  long images, rows; /* a tile's; images > 1 only with all rows */
  long bands, count; /* tiles of an image's rows, of all images */
  long buffer;       /* reals that hold a tile's input between zeros; 0 where it is read in place */
} Tiling;

typedef struct Tile {
  long image, images, row, rows, pixels;
} Tile;

Gather gather_forward(const ConvGeometry *g);
/* The input's gradient: phases of the stride, numbered from 0; one may have no taps. */
long gather_phases(const ConvGeometry *g);
Gather gather_backward(const ConvGeometry *g, long phase);
/* Tiles that all phases can share, so that what they write between each other stays in cache; then one phase's of these. */
Tiling gather_backward_tiling(const ConvGeometry *g, long most, long pixels, long wanted);
Tiling gather_phase_tiling(const Gather *g, Tiling shared);

/* Offsets of the taps (runs) from a pixel. */
void gather_tap_offsets(const Gather *g, long *tap_at);
Runs gather_runs(const Gather *g);
void gather_run_offsets(const Gather *g, long *run_at);

/* Tiles of at most 'most' reals of input and so many pixels; smaller ones where there would be fewer than 'wanted'. */
Tiling gather_tiling(const Gather *g, long most, long pixels, long wanted);
/* For as many images as there may be: its tile begins with the rows and pixels of any other tiling's. */
Tiling gather_largest_tiling(const Gather *g, long most, long pixels);
/* Rows of input, with zeros, that so many rows of output are made from. */
long gather_input_rows(const Gather *g, long rows);
Tile gather_tile(const Gather *g, const Tiling *t, long index);

/* in_at, out_at: offsets of a whole tile's pixels from its first input and output number */
void gather_offsets(const Gather *g, const Tiling *t, long *in_at, long *out_at);

/* A phase may have no rows in the last of the tiles that it shares. */
static inline bool gather_is_empty(const Tile *tile) {
  return tile->rows < 1;
}

/* The tile's first input number: in x, or in 'buffer', filled from x. */
const real *gather_input(const Gather *g, const Tile *tile, const real *x, real *buffer);
real *gather_output(const Gather *g, const Tile *tile, real *y);

/* ---- scratch ---- */

/* Appends room for 'count' reals, whole lines of cache, to what 'size' counts; its position. */
static inline long gather_reserve(long *size, long count) {
  long at = *size;
  *size += (count + 15) / 16 * 16;
  return at;
}

static inline long gather_reserve_longs(long *size, long count) {
  return gather_reserve(size, count * (long)(sizeof(long) / sizeof(real)));
}

static inline long *gather_longs(real *scratch, long position) {
  return (long *)(scratch + position);
}
static inline const long *gather_table(const real *packed, long position) {
  return (const long *)(packed + position);
}

/* ---- the scratch of a gradient's phases ----

   First what the kernels know of each phase, then what each has packed, then the threads' buffers. */
typedef struct Phases {
  long count, buffer; /* buffer: reals of one thread's */
  long buffers, size; /* where they begin; reals in all */
} Phases;

/* 'known': bytes that a kernel knows of a phase. */
static inline Phases phases_begin(const ConvGeometry *g, size_t known) {
  Phases p = {.count = gather_phases(g)};
  gather_reserve(&p.size, p.count * (long)(known / sizeof(real)));
  return p;
}

/* Where the next phase's packed elements lie. */
static inline long phases_add(Phases *p, long packed, long buffer) {
  if (buffer > p->buffer) p->buffer = buffer;
  return gather_reserve(&p->size, packed);
}

static inline void phases_end(Phases *p) {
  p->buffers = gather_reserve(&p->size, omp_get_max_threads() * p->buffer);
}

/* ---- channels as vectors ---- */

/* Numbers that lie behind each other as vectors, of which a kernel takes a block at a time. On AVX-512, where half a
   vector costs half as much on some machines and never more than a whole one, the last may be half a vector, a block of
   its own. */
typedef struct LaneBlock {
  long first, count; /* vectors */
  bool half;
} LaneBlock;

static inline long lane_vectors(long numbers) {
  return (numbers + VLANES - 1) / VLANES;
}

static inline bool lane_half(long numbers) {
  return VBYTES == 64 && (numbers - 1) % VLANES < VLANES / 2;
}

/* What so many elements cost as vectors, in whole ones. Measured: half a vector costs 0.6 of one. */
static inline double lane_cost(long numbers) {
  return (double)lane_vectors(numbers) - (lane_half(numbers) ? 0.4 : 0);
}

/* Blocks of at most 'most' vectors. */
static inline long lane_blocks(long numbers, long most) {
  long half = lane_half(numbers);
  return (lane_vectors(numbers) - half + most - 1) / most + half;
}

static inline LaneBlock lane_block(long numbers, long most, long index) {
  long half = lane_half(numbers), whole = lane_vectors(numbers) - half, blocks = lane_blocks(numbers, most) - half;
  if (index == blocks) return (LaneBlock){whole, 1, true};
  long first = piece_start(whole, blocks, index);
  return (LaneBlock){first, piece_start(whole, blocks, index + 1) - first, false};
}

static inline long lane_width(const LaneBlock *b) {
  return b->half ? VLANES / 2 : VLANES;
}

/* The number in the first lane of vector v of a block. The last vector ends with the last number where there are
   enough, so it may hold some again. */
static inline long lane_first(long numbers, const LaneBlock *b, long v) {
  long last = numbers - lane_width(b), first = (b->first + v) * VLANES;
  return last <= 0 ? 0 : first < last ? first : last;
}

#endif
