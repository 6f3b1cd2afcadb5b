/* softmax.c -- softmax and its logarithm along a dimension, forward and backward; see kernels/common/softmax.h. */
#include "../kernels/common/softmax.h"

#include "../base/parallel.h"
#include "../tensor/tensor.h"

/* The lines of a tensor that lies densely, row-major or as an image: along dimension d neighbours are a stride apart.
 */
static SoftmaxGeometry lines_along(const Tensor *t, int d) {
  long n = t->shape[d];
  return (SoftmaxGeometry){tensor_numel(t) / n, n, n > 1 ? t->stride[d] : 1};
}

static bool is_large(const SoftmaxGeometry *g) {
  return g->lines * g->n > PARALLEL_MIN;
}

static TensorLayout layout_of(const Tensor *t) {
  return tensor_is_layout(t, LAYOUT_IMAGE) ? LAYOUT_IMAGE : LAYOUT_ROWS;
}

/* (x, dim) -> y */
static int push_softmax(lua_State *L, const char *name, bool logarithm) {
  const Tensor *x = tensor_check_real(L, 1, name, 0);
  int dim = tensor_check_dim(L, 2, x);
  TensorLayout layout = layout_of(x);
  x = tensor_push_in_layout(L, 1, layout);
  Tensor *y = tensor_push(L, DTYPE_REAL, x->ndim, x->shape, layout);
  SoftmaxGeometry g = lines_along(x, dim);
#pragma omp parallel if (is_large(&g))
  softmax_run(&g, logarithm, x->data, y->data);
  return 1;
}

/* (dy, y, dim) -> dx */
static int push_softmax_backward(lua_State *L, const char *name, bool logarithm) {
  const Tensor *dy = tensor_check_real(L, 1, name, 0), *y = tensor_check_real(L, 2, name, 0);
  int dim = tensor_check_dim(L, 3, y);
  if (!tensor_same_shape(dy, y))
    tensor_error(L, "%s: the gradient is %s, the output %s", name, tensor_describe(L, dy), tensor_describe(L, y));
  TensorLayout layout = layout_of(y);
  y = tensor_push_in_layout(L, 2, layout);
  dy = tensor_push_in_layout(L, 1, layout);
  Tensor *dx = tensor_push(L, DTYPE_REAL, y->ndim, y->shape, layout);
  SoftmaxGeometry g = lines_along(y, dim);
#pragma omp parallel if (is_large(&g))
  softmax_backward_run(&g, logarithm, dy->data, y->data, dx->data);
  return 1;
}

static int l_softmax(lua_State *L) {
  return push_softmax(L, "softmax: x", false);
}
static int l_log_softmax(lua_State *L) {
  return push_softmax(L, "log_softmax: x", true);
}
static int l_softmax_backward(lua_State *L) {
  return push_softmax_backward(L, "softmax", false);
}
static int l_log_softmax_backward(lua_State *L) {
  return push_softmax_backward(L, "log_softmax", true);
}

static const luaL_Reg functions[] = {
    {"softmax", l_softmax},
    {"log_softmax", l_log_softmax},
    {"softmax_backward", l_softmax_backward},
    {"log_softmax_backward", l_log_softmax_backward},
    {NULL, NULL},
};

int luaopen_feral_core_softmax(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
