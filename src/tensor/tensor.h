/*
** tensor.h -- the one contract that all bindings share: what a tensor is, how a binding checks one and pushes one.
**
** A tensor is a small header over a storage. The elements lie in the storage, a second userdata that views share and
** that the header's first user value keeps alive. Shapes are what a person sees (N x C x H x W, sizes >= 1); strides,
** in elements, say how they lie: row-major, or for images channels last (N,H,W,C in memory), see TensorLayout.
** A binding checks all it was given, pushes all it needs, and then computes: no kernel sees a lua_State.
*/
#ifndef FERAL_TENSOR_H
#define FERAL_TENSOR_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/real.h"

enum { TENSOR_MAX_DIMS = 6 };

/* Bytes behind the last number of any storage that may be read (not written): a kernel may load the whole vector in which
   the last number lies. */
enum { TENSOR_SLACK = 64 };

typedef enum DType { DTYPE_REAL, DTYPE_U8, DTYPE_I32 } DType;

/* How a new tensor lies in memory. LAYOUT_IMAGE is channels last for 4 dimensions (N,C,H,W) and for 5 (N,C,D,H,W),
   row-major for others: the layout in which the image ops give their results and like their inputs. Sequences of images have
   5 dimensions too, N,T,C,H,W: they go to image ops as images, N T of them. */
typedef enum TensorLayout { LAYOUT_ROWS, LAYOUT_IMAGE } TensorLayout;

typedef struct Tensor {
  void *data; /* the first element; NULL once released */
  DType dtype;
  int ndim;
  bool kept; /* outlives every scope */
  long shape[TENSOR_MAX_DIMS];
  long stride[TENSOR_MAX_DIMS]; /* in elements; 0 where broadcast; never negative */
} Tensor;

/* ---- looking (never raise) ---- */

const char *dtype_name(DType dtype); /* "f32" ("f64" in the double build), "u8", "i32" */
size_t dtype_size(DType dtype);
long tensor_numel(const Tensor *t);
bool tensor_same_shape(const Tensor *a, const Tensor *b);
bool tensor_is_layout(const Tensor *t, TensorLayout layout);
bool tensor_is_dense(
    const Tensor *t); /* fills its span of memory without gap or overlap, in some order of dimensions */
static inline real *tensor_reals(const Tensor *t) {
  return t->data;
}
static inline uint8_t *tensor_bytes(const Tensor *t) {
  return t->data;
}
static inline int32_t *tensor_ints(const Tensor *t) {
  return t->data;
}

/* True for a tensor, released or not. */
bool tensor_is(lua_State *L, int index);

/* ---- checking arguments (raise) ---- */

/* Raises 'message' with the script's own line in front and, inside a network, the layer's path behind. The format is
   lua_pushfstring's (%s %d %I %f %p) plus nothing; tensors are shown with tensor_describe. Never returns. */
__attribute__((noreturn)) int tensor_error(lua_State *L, const char *format, ...);

Tensor *tensor_check(lua_State *L, int arg);                    /* any live tensor */
Tensor *tensor_check_dtype(lua_State *L, int arg, DType dtype); /* ... of this dtype */
Tensor *tensor_check_target(lua_State *L, int arg); /* ... that is written to: no two elements share memory; counts
                                                       the write, see tensor_touch */
Tensor *tensor_check_real(lua_State *L, int arg, const char *name, int ndim); /* real, ndim dimensions (0: any); 'name'
                                                                                 is "op: what", for messages */
Tensor *tensor_opt_real(lua_State *L, int arg, const char *name, int ndim);   /* the same; NULL for nil or none */
int tensor_check_dim(lua_State *L, int arg, const Tensor *t);                 /* 1-based or negative -> 0-based */
long tensor_check_size(lua_State *L, int arg, const char *name, long least);  /* a whole number >= least */
int tensor_check_shape(lua_State *L, int arg, long shape[TENSOR_MAX_DIMS]);   /* sizes from a table, or from arguments
                                                                                 arg, arg+1, ... */
DType tensor_check_dtype_name(lua_State *L, int arg, DType otherwise);        /* nil -> otherwise */

/* Counts a change of the elements of the tensor at 'index', for those who remember what they made of them (plans). Whatever
   writes into a tensor that it has not pushed itself calls this, or tensor_check_target: tests/tensor/test_writes.lua
   holds every function to it. */
void tensor_touch(lua_State *L, int index);

/* Pushes "32x3x48x48" and returns it; the string lives as long as it is on the stack. */
const char *tensor_describe(lua_State *L, const Tensor *t);

/* Raises when an interrupt is pending; for after a long kernel that returned early. */
void tensor_check_interrupt(lua_State *L);

/* ---- pushing (raise on lack of memory, with nothing to clean up) ---- */

Tensor *tensor_push(lua_State *L, DType dtype, int ndim, const long *shape, TensorLayout layout); /* not initialised */
Tensor *tensor_push_like(lua_State *L, const Tensor *t,
                         DType dtype); /* same shape; the same order of strides if t is dense */
Tensor *tensor_push_zeros(lua_State *L, DType dtype, int ndim, const long *shape, TensorLayout layout);
/* A view of the storage of the tensor at 'index', its first element 'offset' elements after t->data. */
Tensor *tensor_push_view(lua_State *L, int index, int ndim, const long *shape, const long *stride, long offset);
/* Pushes the tensor at 'index' itself when it lies in 'layout' without gaps, else a copy that does. */
Tensor *tensor_push_in_layout(lua_State *L, int index, TensorLayout layout);

/* Memory of 'count' reals for one call, aligned to 64 bytes: pushes an object that owns it. scratch_release gives it
   back at once, for the next call to take; where an error comes first the collector does. */
real *scratch_push(lua_State *L, size_t count);
void scratch_release(lua_State *L, int index);

/* As tensor_push, but the elements lie in the memory that scratch_push left at 'index', which is the tensor's from then on.
   Where it raises, all is as before. */
Tensor *tensor_push_over(lua_State *L, int index, DType dtype, int ndim, const long *shape, TensorLayout layout);

/* dst[i] = src[i] for all i, whatever the strides; the shapes (and dtypes) must be equal. No lua_State. */
void tensor_copy(const Tensor *dst, const Tensor *src);

/* ---- modules ---- */

int luaopen_feral_core_tensor(lua_State *L); /* tensor.c: shape, dtype, data access, the autograd slot */
int luaopen_feral_core_scope(lua_State *L);  /* scope.c: scopes, keep, release, memory */

#endif
