/* matmul.c -- products of matrices and of batches of them; see kernels/product.h. */
#include "../kernels/common/product.h"
#include "../tensor/tensor.h"

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
    product(m, n, k, &ma, &mb, tensor_reals(c) + i * m * n);
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
