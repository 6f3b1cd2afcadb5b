/* dense.c -- see dense.h. Packed: for each panel of outputs its bias (width), then its weights (inputs,width). */
#include "dense.h"

#include "../../base/parallel.h"
#include "../common/panel.h"

/* A narrow panel's sums would wait for each other, so they are split into several streams. */
enum { STREAMS_MOST = 4, PIECE_ROWS = 24 };

static long vectors_of(long outputs, long panel) {
  long left = outputs - panel * PANEL_WIDTH, vectors = (left + VLANES - 1) / VLANES;
  return vectors < PANEL_VECTORS ? vectors : PANEL_VECTORS;
}

static long panels_of(long outputs) {
  return (outputs + PANEL_WIDTH - 1) / PANEL_WIDTH;
}

static long panel_at(long inputs, long panel) {
  return panel * PANEL_WIDTH * (inputs + 1);
}

long dense_packed_size(long inputs, long outputs) {
  long last = panels_of(outputs) - 1;
  long size = panel_at(inputs, last) + vectors_of(outputs, last) * VLANES * (inputs + 1);
  return (size + 15) / 16 * 16;
}

static void pack_panel(long inputs, long outputs, long panel, const real *w, const real *bias, real *to) {
  long width = vectors_of(outputs, panel) * VLANES, first = panel * PANEL_WIDTH;
  for (long j = 0; j < width; j++) to[j] = bias != NULL && first + j < outputs ? bias[first + j] : 0;
  for (long i = 0; i < inputs; i++)
    for (long j = 0; j < width; j++) to[(i + 1) * width + j] = first + j < outputs ? w[(first + j) * inputs + i] : 0;
}

void dense_pack(long inputs, long outputs, const real *w, const real *bias, real *packed) {
  for (long p = 0; p < panels_of(outputs); p++) pack_panel(inputs, outputs, p, w, bias, packed + panel_at(inputs, p));
}

/* What one panel is multiplied with. */
typedef struct Panel {
  long inputs, outputs, first, lanes; /* first output; lanes of the last vector */
  const real *packed, *x;
  const Tail *tail;
  real *y;
} Panel;

/* Some rows from 'row' on. All that is 'const int' is a constant where it is inlined. */
PANEL_INLINE void multiply_rows(const Panel *p, long row, const int rows, const int vectors, const int streams) {
  vreal sums[STREAMS_MOST][PANEL_ROWS][PANEL_VECTORS];
  const real *x = p->x + row * p->inputs, *weights = p->packed + vectors * VLANES;
  long depth = p->inputs / streams, width = vectors * VLANES;
#pragma GCC unroll 4
  for (int s = 0; s < streams; s++)
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sums[s][r][v] = s == 0 ? vload(p->packed + v * VLANES) : vset(0);
  for (long d = 0; d < depth; d++)
#pragma GCC unroll 4
    for (int s = 0; s < streams; s++) {
      long i = s * depth + d;
      panel_add(rows, vectors, 1, x + i, p->inputs, 1, weights + i * width, sums[s]);
    }
  long done = streams * depth;
  panel_add(rows, vectors, p->inputs - done, x + done, p->inputs, 1, weights + done * width, sums[0]);
  real *y = p->y + row * p->outputs + p->first;
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
#pragma GCC unroll 4
      for (int s = 1; s < streams; s++) sums[0][r][v] += sums[s][r][v];
      vstore_part(y + r * p->outputs + v * VLANES, sums[0][r][v], v < vectors - 1 ? VLANES : (int)p->lanes);
    }
  for (int r = 0; r < rows && p->tail != NULL; r++, y += p->outputs)
    tail_apply(p->tail, p->y, y - p->y, (vectors - 1) * VLANES + p->lanes);
}

PANEL_INLINE void multiply(const Panel *p, long row, long end, const int vectors, const int streams) {
  const int many = streams > 1 ? 2 : panel_rows(vectors);
  for (; row + many <= end; row += many) multiply_rows(p, row, many, vectors, streams);
  for (; row + 2 <= end; row += 2) multiply_rows(p, row, 2, vectors, streams);
  for (; row < end; row++) multiply_rows(p, row, 1, vectors, streams);
}

static void multiply_panel(const Panel *p, long row, long end, long vectors) {
  switch (vectors) {
  case 1:
    multiply(p, row, end, 1, 4);
    break;
  case 2:
    multiply(p, row, end, 2, 2);
    break;
  case 3:
    multiply(p, row, end, 3, 1);
    break;
  default:
    multiply(p, row, end, PANEL_VECTORS, 1);
  }
}

void dense_run(long rows, long inputs, long outputs, const real *x, const real *packed, const Tail *tail, real *y) {
  long panels = panels_of(outputs), pieces = (rows + PIECE_ROWS - 1) / PIECE_ROWS;
#pragma omp for schedule(dynamic)
  for (long i = 0; i < panels * pieces; i++) {
    long panel = i / pieces, first = i % pieces * PIECE_ROWS, vectors = vectors_of(outputs, panel);
    long end = first + PIECE_ROWS < rows ? first + PIECE_ROWS : rows;
    Panel p = {inputs, outputs, panel * PANEL_WIDTH, 0, packed + panel_at(inputs, panel), x, tail, y};
    p.lanes = outputs - p.first - (vectors - 1) * VLANES;
    if (p.lanes > VLANES) p.lanes = VLANES;
    multiply_panel(&p, first, end, vectors);
  }
}
