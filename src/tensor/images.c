/* images.c -- see images.h. */
#include "images.h"

static void check_images(lua_State *L, int arg, const char *op) {
  if (!tensor_is(L, arg)) tensor_error(L, "%s: an image must be a tensor, got %s", op, luaL_typename(L, arg));
  const Tensor *t = tensor_check(L, arg);
  if (t->ndim != 3 && t->ndim != 4)
    tensor_error(L, "%s: an image is C x H x W and a batch N x C x H x W, got %s", op, tensor_describe(L, t));
  if (t->dtype == DTYPE_I32) tensor_error(L, "%s: an image is of u8 or f32, got i32", op);
}

const Tensor *images_push(lua_State *L, int arg, const char *op) {
  check_images(L, arg, op);
  const Tensor *t = lua_touserdata(L, arg);
  if (t->ndim == 4) return tensor_push_in_layout(L, arg, LAYOUT_IMAGE);
  long shape[4] = {1, t->shape[0], t->shape[1], t->shape[2]}, stride[4] = {1, t->stride[0], t->stride[1], t->stride[2]};
  tensor_push_view(L, arg, 4, shape, stride, 0);
  t = tensor_push_in_layout(L, -1, LAYOUT_IMAGE);
  lua_remove(L, -2);
  return t;
}

Tensor *images_push_new(lua_State *L, DType dtype, long n, long channels, long height, long width) {
  return tensor_push(L, dtype, 4, (long[]){n, channels, height, width}, LAYOUT_IMAGE);
}

void images_squeeze(lua_State *L) {
  const Tensor *t = lua_touserdata(L, -1);
  tensor_push_view(L, -1, 3, t->shape + 1, t->stride + 1, 0);
  lua_remove(L, -2);
}

int images_return(lua_State *L, int arg) {
  const Tensor *given = lua_touserdata(L, arg);
  if (given->ndim == 3) images_squeeze(L);
  return 1;
}

/* The number at the top of the stack, popped. */
static real check_channel(lua_State *L, const char *what, double above) {
  int is_number;
  double value = lua_tonumberx(L, -1, &is_number);
  if (!is_number)
    tensor_error(L, "%s must be a number, or a table of one for each channel, got %s", what, luaL_typename(L, -1));
  if (!(value > above)) tensor_error(L, "%s must be above %f, got %f", what, above, value);
  lua_pop(L, 1);
  return (real)value;
}

void images_check_per_channel(lua_State *L, int index, const char *what, long channels, double otherwise, double above,
                              real out[IMAGE_CHANNELS]) {
  index = lua_absindex(L, index);
  if (channels > IMAGE_CHANNELS)
    tensor_error(L, "%s: at most %d channels, got %d", what, IMAGE_CHANNELS, (int)channels);
  if (lua_istable(L, index) && luaL_len(L, index) != channels)
    tensor_error(L, "%s has %I values, the image %d channels", what, luaL_len(L, index), (int)channels);
  for (int c = 0; c < IMAGE_CHANNELS; c++) {
    if (lua_istable(L, index) && c < channels)
      lua_geti(L, index, c + 1);
    else if (lua_isnoneornil(L, index) || lua_istable(L, index))
      lua_pushnumber(L, otherwise);
    else
      lua_pushvalue(L, index);
    out[c] = check_channel(L, what, above);
  }
}
