/* pixel_text.c -- images written as text: numbers from 0 to 255 with blanks between, as in the cells of fer2013.csv. */
#include "../tensor/tensor.h"

/* ---- kernels ---- */

typedef enum PixelFault { PIXELS_GOOD, PIXELS_FEWER, PIXELS_MORE, PIXELS_NO_NUMBER, PIXELS_TOO_LARGE } PixelFault;

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}
static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* Reads n numbers from text, which a byte 0 ends, to out. *count: how many were good. */
static PixelFault parse(const char *text, long n, uint8_t *out, long *count) {
  for (*count = 0;; ++*count) {
    while (is_blank(*text)) text++;
    if (*text == 0) return *count < n ? PIXELS_FEWER : PIXELS_GOOD;
    if (*count == n) return PIXELS_MORE;
    if (!is_digit(*text)) return PIXELS_NO_NUMBER;
    unsigned value = 0;
    for (; is_digit(*text); text++)
      if ((value = 10 * value + (unsigned)(*text - '0')) > 255) return PIXELS_TOO_LARGE;
    if (*text != 0 && !is_blank(*text)) return PIXELS_NO_NUMBER;
    out[*count] = (uint8_t)value;
  }
}

/* ---- bindings ---- */

/* parse(text, images u8 M x ..., i) -> true, with the i-th image filled, row-major; or nil, what is wrong */
static int l_parse(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  const Tensor *images = tensor_check_dtype(L, 2, DTYPE_U8);
  if (images->ndim < 1 || !tensor_is_layout(images, LAYOUT_ROWS)) tensor_error(L, "parse: images must be contiguous");
  long i = tensor_check_size(L, 3, "parse: the image's number", 1), n = tensor_numel(images) / images->shape[0], count;
  if (i > images->shape[0]) tensor_error(L, "parse: image %d of %s", (int)i, tensor_describe(L, images));
  PixelFault fault = parse(text, n, tensor_bytes(images) + (i - 1) * n, &count);
  if (fault == PIXELS_GOOD) return lua_pushboolean(L, 1), 1;
  lua_pushnil(L);
  if (fault == PIXELS_FEWER) lua_pushfstring(L, "%d pixels, %d expected", (int)count, (int)n);
  if (fault == PIXELS_MORE) lua_pushfstring(L, "more than the %d pixels expected", (int)n);
  if (fault == PIXELS_NO_NUMBER) lua_pushfstring(L, "pixel %d is no whole number from 0 to 255", (int)count + 1);
  if (fault == PIXELS_TOO_LARGE) lua_pushfstring(L, "pixel %d is above 255", (int)count + 1);
  return 2;
}

static const luaL_Reg functions[] = {{"parse", l_parse}, {NULL, NULL}};

int luaopen_feral_core_pixel_text(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
