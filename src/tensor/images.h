/*
** images.h -- tensors as images, for the bindings of images. An image is C x H x W, a batch N x C x H x W; either of
** bytes (0..255) or of reals (0..1). In memory the channels of a pixel lie side by side, as activations do.
*/
#ifndef FERAL_IMAGES_H
#define FERAL_IMAGES_H

#include "tensor.h"

/* The image or batch at 'arg', checked, then pushed as a batch with channels last: itself, a view, or a copy. */
const Tensor *images_push(lua_State *L, int arg, const char *op);

/* Pushes a batch with channels last, to be given back by images_return. */
Tensor *images_push_new(lua_State *L, DType dtype, long n, long channels, long height, long width);

/* Returns the batch at the top of the stack to Lua, as an image when argument 'arg' was one. */
int images_return(lua_State *L, int arg);

/* Pushes an image as a view of the batch of one at the top of the stack, in its place. */
void images_squeeze(lua_State *L);

enum { IMAGE_CHANNELS = 16 };

/* A number for all channels or a table with one for each, at 'index' (nil: 'otherwise'), all above 'above'. */
void images_check_per_channel(lua_State *L, int index, const char *what, long channels, double otherwise, double above,
                              real out[IMAGE_CHANNELS]);

static inline long image_numel(const Tensor *batch) {
  return batch->shape[1] * batch->shape[2] * batch->shape[3];
}

#endif
