/*
** matmul.c -- matrix products on OpenBLAS, each call on one thread; big products are cut into pieces that depend on
** the sizes alone and shared among threads, so the result does not depend on how many there are.
*/
#include "../base/blas.h"
#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

/* A matrix as BLAS reads it: row-major with distance ld between rows, or the transpose of such a one. */
typedef struct Matrix {
  const real *data;
  long ld;
  int transposed;
} Matrix;

enum { PIECE_LEAST = 48, PIECES_MOST = 16, SMALL_PRODUCT = 1 << 17 };

static const real *at(const Matrix *m, long row, long column) {
  return m->data + (m->transposed ? column * m->ld + row : row * m->ld + column);
}

/* c (m,n) row-major with distance n = a (m,k) b (k,n) */
static void multiply(long m, long n, long k, const Matrix *a, const Matrix *b, real *c) {
  bool by_rows = m >= n;
  long longer = by_rows ? m : n, pieces = longer / PIECE_LEAST;
  if ((double)m * (double)n * (double)k < SMALL_PRODUCT || pieces < 1) pieces = 1;
  if (pieces > PIECES_MOST) pieces = PIECES_MOST;
#pragma omp parallel for if (pieces > 1)
  for (long p = 0; p < pieces; p++) {
    long first = piece_start(longer, pieces, p), count = piece_start(longer, pieces, p + 1) - first;
    if (by_rows)
      gemm(a->transposed, b->transposed, count, n, k, 1, at(a, first, 0), a->ld, b->data, b->ld, 0, c + first * n, n);
    else
      gemm(a->transposed, b->transposed, m, count, k, 1, a->data, a->ld, at(b, 0, first), b->ld, 0, c + first, n);
  }
}

/* ---- bindings ---- */

/* The last two dimensions of the tensor at 'index' as a matrix; a copy is pushed where its rows do not lie evenly. */
static Matrix push_matrix(lua_State *L, int index) {
  const Tensor *t = lua_touserdata(L, index);
  int r = t->ndim - 2, c = t->ndim - 1;
  long rows = t->shape[r], columns = t->shape[c];
  lua_pushvalue(L, index);
  if ((t->stride[c] == 1 || columns == 1) && (t->stride[r] >= columns || rows == 1))
    return (Matrix){t->data, rows == 1 ? columns : t->stride[r], 0};
  if ((t->stride[r] == 1 || rows == 1) && (t->stride[c] >= rows || columns == 1))
    return (Matrix){t->data, columns == 1 ? rows : t->stride[c], 1};
  lua_pop(L, 1);
  t = tensor_push_in_layout(L, index, LAYOUT_ROWS);
  return (Matrix){t->data, columns, 0};
}

/* matmul(a, b): (m,k) (k,n) -> (m,n), or (batch,m,k) (batch,k,n) -> (batch,m,n) */
static int l_matmul(lua_State *L) {
  const Tensor *a = tensor_check_real(L, 1, "matmul: a", 0), *b = tensor_check_real(L, 2, "matmul: b", 0);
  if (a->ndim != b->ndim || a->ndim < 2 || a->ndim > 3 || a->shape[a->ndim - 1] != b->shape[b->ndim - 2] ||
      (a->ndim == 3 && a->shape[0] != b->shape[0]))
    tensor_error(L, "matmul: shapes %s and %s do not fit: m x k and k x n expected, or a batch of them",
                 tensor_describe(L, a), tensor_describe(L, b));
  lua_settop(L, 2);
  if (a->ndim == 3) { /* the matrices of a batch must be evenly spaced: copies if they are not row-major */
    a = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
    b = tensor_push_in_layout(L, 2, LAYOUT_ROWS);
    lua_replace(L, 2);
    lua_replace(L, 1);
  }
  long batch = a->ndim == 3 ? a->shape[0] : 1;
  long m = a->shape[a->ndim - 2], k = a->shape[a->ndim - 1], n = b->shape[b->ndim - 1];
  Matrix ma = push_matrix(L, 1), mb = push_matrix(L, 2);
  Tensor *c =
      tensor_push(L, DTYPE_REAL, a->ndim, (long[]){a->ndim == 3 ? batch : m, a->ndim == 3 ? m : n, n}, LAYOUT_ROWS);
  for (long i = 0; i < batch; i++) {
    multiply(m, n, k, &ma, &mb, tensor_reals(c) + i * m * n);
    ma.data += m * k;
    mb.data += k * n;
  }
  return 1;
}

static const luaL_Reg functions[] = {{"matmul", l_matmul}, {NULL, NULL}};

int luaopen_feral_core_matmul(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
