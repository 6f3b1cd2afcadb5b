/* product.c -- see product.h. A task is a panel of columns of the result and some of its rows. */
#include "product.h"

#include <stdbool.h>

#include "../../base/blas.h"
#include "../../base/parallel.h"
#include "panel.h"

enum { DEPTH_MOST = 256, ROWS_LEAST = 12, TASKS_A_THREAD = 4, SMALL_PRODUCT = 1 << 16 };

typedef struct Product {
  long m, n, k;
  const Matrix *a, *b;
  real *c;
  long panels, pieces; /* of columns, of rows */
} Product;

static long least(long a, long b) {
  return a < b ? a : b;
}

static const real *at(const Matrix *m, long row, long column) {
  return m->data + (m->transposed ? column * m->ld + row : row * m->ld + column);
}

/* ---- packing ---- */

/* panel (depth,width) = as many rows, 'step' apart, of 'count' elements; zeros beyond */
static void pack_rows(const real *from, long step, long depth, long count, long width, real *panel) {
  for (long d = 0; d < depth; d++, from += step, panel += width) {
    for (long j = 0; j < count; j++) panel[j] = from[j];
    for (long j = count; j < width; j++) panel[j] = 0;
  }
}

/* The same, of elements that lie 'step' apart in rows that lie behind each other. */
static void pack_columns(const real *from, long step, long depth, long count, long width, real *panel) {
  for (long j = 0; j < width; j += VLANES)
    for (long d = 0; d < depth; d += VLANES) {
      vreal square[VLANES];
      for (long i = 0; i < VLANES; i++) {
        long left = depth - d < VLANES ? depth - d : VLANES;
        square[i] = j + i < count ? vload_part(from + (j + i) * step + d, (int)left) : vset(0);
      }
      vtranspose(square);
      for (long i = 0; i < VLANES && d + i < depth; i++) vstore(panel + (d + i) * width + j, square[i]);
    }
}

/* ---- one panel ---- */

/* Rows of the result from 'row' on. */
typedef struct Rows {
  const Matrix *a;
  const real *panel;
  long row, end, first, depth; /* rows, and which part of the sums is added */
  real *c;
  long ldc, columns;
} Rows;

/* c (rows,columns) = or += a times the panel */
PANEL_INLINE void multiply_rows(const Rows *p, const int rows, const int vectors) {
  vreal sums[PANEL_ROWS][PANEL_VECTORS];
  const real *from = at(p->a, p->row, p->first);
  real *c = p->c + p->row * p->ldc;
  int last = (int)(p->columns - (vectors - 1) * VLANES); /* lanes of the last vector */
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      real *to = c + r * p->ldc + v * VLANES;
      sums[r][v] = p->first == 0 ? vset(0) : v < vectors - 1 ? vload(to) : vload_part(to, last);
    }
  if (p->a->transposed)
    panel_add(rows, vectors, p->depth, from, 1, p->a->ld, p->panel, sums);
  else
    panel_add(rows, vectors, p->depth, from, p->a->ld, 1, p->panel, sums);
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      real *to = c + r * p->ldc + v * VLANES;
      if (v < vectors - 1 || last == VLANES)
        vstore(to, sums[r][v]);
      else
        vstore_part(to, sums[r][v], last);
    }
}

PANEL_INLINE void multiply(Rows p, const int vectors) {
  const int many = panel_rows(vectors);
  for (; p.row + many <= p.end; p.row += many) multiply_rows(&p, many, vectors);
  for (; p.row + 2 <= p.end; p.row += 2) multiply_rows(&p, 2, vectors);
  for (; p.row < p.end; p.row++) multiply_rows(&p, 1, vectors);
}

static void multiply_panel(const Rows *p, long vectors) {
  switch (vectors) {
  case 1:
    multiply(*p, 1);
    break;
  case 2:
    multiply(*p, 2);
    break;
  case 3:
    multiply(*p, 3);
    break;
  default:
    multiply(*p, PANEL_VECTORS);
  }
}

static void run_task(const Product *p, long panel, long piece) {
  _Alignas(64) real packed[DEPTH_MOST * PANEL_WIDTH];
  long column = panel * PANEL_WIDTH, columns = least(PANEL_WIDTH, p->n - column);
  long vectors = (columns + VLANES - 1) / VLANES;
  Rows rows = {p->a, packed, 0, piece_start(p->m, p->pieces, piece + 1), 0, 0, p->c + column, p->n, columns};
  for (; rows.first < p->k; rows.first += DEPTH_MOST) {
    rows.depth = least(DEPTH_MOST, p->k - rows.first);
    rows.row = piece_start(p->m, p->pieces, piece);
    (p->b->transposed ? pack_columns : pack_rows)(at(p->b, rows.first, column), p->b->ld, rows.depth, columns,
                                                  vectors * VLANES, packed);
    multiply_panel(&rows, vectors);
  }
}

/* ---- product.h ---- */

/* Few rows are not worth packing what they are multiplied with. */
static void multiply_few(const Product *p) {
  gemm(p->a->transposed, p->b->transposed, p->m, p->n, p->k, 1, p->a->data, p->a->ld, p->b->data, p->b->ld, 0, p->c,
       p->n);
}

void product(long m, long n, long k, const Matrix *a, const Matrix *b, real *c) {
  Product p = {.m = m, .n = n, .k = k, .a = a, .b = b, .c = c, .panels = (n + PANEL_WIDTH - 1) / PANEL_WIDTH};
  if (m < ROWS_LEAST || k == 0 || n < VLANES / 2) {
    multiply_few(&p);
    return;
  }
  long wanted = TASKS_A_THREAD * omp_get_max_threads();
  p.pieces = (wanted + p.panels - 1) / p.panels;
  p.pieces = least(p.pieces, m / (4 * ROWS_LEAST));
  if (p.pieces < 1) p.pieces = 1;
  bool many = (double)m * (double)n * (double)k > SMALL_PRODUCT;
#pragma omp parallel for schedule(dynamic) if (many)
  for (long i = 0; i < p.panels * p.pieces; i++) run_task(&p, i % p.panels, i / p.panels);
}

enum { COLUMNS = 64 };

void column_sums(long m, long n, const real *x, real *sums) {
#pragma omp parallel for if (m * n > PARALLEL_MIN)
  for (long first = 0; first < n; first += COLUMNS) {
    double total[COLUMNS] = {0};
    long width = n - first < COLUMNS ? n - first : COLUMNS;
    for (long i = 0; i < m; i++)
      for (long j = 0; j < width; j++) total[j] += x[i * n + first + j];
    for (long j = 0; j < width; j++) sums[first + j] = (real)total[j];
  }
}
