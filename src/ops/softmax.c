/* softmax.c -- softmax and its logarithm along a dimension, forward and backward. */
#include <math.h>

#include "../base/parallel.h"
#include "../base/simd.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

/* Lines along one dimension. Element i of line l lies at (l / inner) * n * inner + l % inner + i * inner. */
typedef struct SoftmaxGeometry {
  long lines, n, inner;
} SoftmaxGeometry;

/* VLANES lines side by side, each in its own lane, so that a line's result never depends on how it lies. */
typedef struct LineBlock {
  long start[VLANES];
  int lanes;
} LineBlock;

static LineBlock block_at(const SoftmaxGeometry *g, long first) {
  LineBlock b = {.lanes = g->lines - first < VLANES ? (int)(g->lines - first) : VLANES};
  for (int j = 0; j < b.lanes; j++) b.start[j] = (first + j) / g->inner * g->n * g->inner + (first + j) % g->inner;
  return b;
}

static inline vreal get(const LineBlock *b, const real *x, long offset) {
  real lane[VLANES] = {0};
  for (int j = 0; j < b->lanes; j++) lane[j] = x[b->start[j] + offset];
  return vload(lane);
}

static inline void put(const LineBlock *b, real *y, long offset, vreal v) {
  real lane[VLANES];
  vstore(lane, v);
  for (int j = 0; j < b->lanes; j++) y[b->start[j] + offset] = lane[j];
}

static vreal vlog(vreal x) {
  for (int j = 0; j < VLANES; j++) x[j] = (real)log(x[j]);
  return x;
}

static void forward_block(const SoftmaxGeometry *g, const LineBlock *b, bool logarithm, const real *x, real *y) {
  vreal most = get(b, x, 0), sum = {0};
  for (long i = 1; i < g->n; i++) most = vmax(get(b, x, i * g->inner), most);
  for (long i = 0; i < g->n; i++) {
    vreal e = vexp(get(b, x, i * g->inner) - most);
    if (!logarithm) put(b, y, i * g->inner, e);
    sum += e;
  }
  vreal shift = logarithm ? vlog(sum) : 1 / sum;
  for (long i = 0; i < g->n; i++) {
    long at = i * g->inner;
    put(b, y, at, logarithm ? get(b, x, at) - most - shift : get(b, y, at) * shift);
  }
}

static void backward_block(const SoftmaxGeometry *g, const LineBlock *b, bool logarithm, const real *dy, const real *y,
                           real *dx) {
  vreal sum = {0};
  for (long i = 0; i < g->n; i++) {
    vreal d = get(b, dy, i * g->inner);
    sum += logarithm ? d : d * get(b, y, i * g->inner);
  }
  for (long i = 0; i < g->n; i++) {
    vreal d = get(b, dy, i * g->inner), v = get(b, y, i * g->inner);
    put(b, dx, i * g->inner, logarithm ? d - vexp(v) * sum : v * (d - sum));
  }
}

/* dy NULL: y = softmax(x) or its logarithm; else dx from dy and y. */
static void softmax(const SoftmaxGeometry *g, bool logarithm, const real *dy, const real *in, real *out) {
#pragma omp parallel for if (g->lines * g->n > PARALLEL_MIN)
  for (long first = 0; first < g->lines; first += VLANES) {
    LineBlock b = block_at(g, first);
    if (dy == NULL)
      forward_block(g, &b, logarithm, in, out);
    else
      backward_block(g, &b, logarithm, dy, in, out);
  }
}

/* ---- bindings ---- */

/* The lines of a tensor that lies densely, row-major or as an image: along dimension d neighbours are a stride apart.
 */
static SoftmaxGeometry lines_along(const Tensor *t, int d) {
  long n = t->shape[d];
  return (SoftmaxGeometry){tensor_numel(t) / n, n, n > 1 ? t->stride[d] : 1};
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
  softmax(&g, logarithm, NULL, x->data, y->data);
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
  softmax(&g, logarithm, dy->data, y->data, dx->data);
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
