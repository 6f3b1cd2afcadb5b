/* draw.c -- text and rectangles into u8 images; the letters are those of stb_easy_font. */
#include <string.h>

#include <stb_easy_font.h>

#include "../tensor/tensor.h"

/* A letter is made of at most 11 rectangles of 64 bytes; what lies beyond FAR is on no image. */
enum { TEXT_MOST = 512, BYTES_PER_LETTER = 11 * 64, FAR = 1 << 24, SCALE_MOST = 1000 };

typedef struct Color {
  uint8_t of[3];
} Color;

/* ---- kernels: image (C,H,W) with any strides, C 1 or 3; what lies outside is left out ---- */

static void fill_rectangle(const Tensor *image, long left, long top, long right, long bottom, Color color) {
  long height = image->shape[1], width = image->shape[2];
  for (long y = top < 0 ? 0 : top; y < bottom && y < height; y++)
    for (long x = left < 0 ? 0 : left; x < right && x < width; x++)
      for (long c = 0; c < image->shape[0]; c++)
        tensor_bytes(image)[c * image->stride[0] + y * image->stride[1] + x * image->stride[2]] = color.of[c];
}

typedef struct Vertex { /* as stb_easy_font lays it out */
  float x, y, z;
  uint8_t color[4];
} Vertex;

static void draw_text(const Tensor *image, long left, long top, char *text, long scale, Color color, Vertex *vertices,
                      int bytes) {
  int quads = stb_easy_font_print(0, 0, text, NULL, vertices, bytes);
  for (int q = 0; q < quads; q++) { /* corners 0 and 2 of a quad lie opposite */
    const Vertex *a = &vertices[4 * q], *b = &vertices[4 * q + 2];
    fill_rectangle(image, left + (long)(a->x * (float)scale), top + (long)(a->y * (float)scale),
                   left + (long)(b->x * (float)scale), top + (long)(b->y * (float)scale), color);
  }
}

/* ---- bindings ---- */

static const Tensor *check_image(lua_State *L, int arg) {
  const Tensor *image = tensor_check_dtype(L, arg, DTYPE_U8);
  tensor_check_target(L, arg);
  if (image->ndim != 3 || (image->shape[0] != 1 && image->shape[0] != 3))
    tensor_error(L, "draw: the image must be 1 x H x W or 3 x H x W, got %s", tensor_describe(L, image));
  return image;
}

/* A gray value, or a table of red, green and blue; on a gray image the first counts. */
static Color check_color(lua_State *L, int arg) {
  Color color;
  for (int c = 0; c < 3; c++) {
    if (lua_istable(L, arg))
      lua_geti(L, arg, c + 1);
    else
      lua_pushvalue(L, arg);
    lua_Integer value = luaL_optinteger(L, -1, 255);
    luaL_argcheck(L, value >= 0 && value <= 255, arg, "a colour is made of numbers from 0 to 255");
    color.of[c] = (uint8_t)value;
    lua_pop(L, 1);
  }
  return color;
}

/* A coordinate; one that is far outside of all images may come nearer without showing. */
static long check_coordinate(lua_State *L, int arg) {
  lua_Integer at = luaL_checkinteger(L, arg);
  return (long)(at < -FAR ? -FAR : at > FAR ? FAR : at);
}

static long opt_scale(lua_State *L, int arg) {
  lua_Integer scale = luaL_optinteger(L, arg, 1);
  luaL_argcheck(L, scale >= 1 && scale <= SCALE_MOST, arg, "the scale must lie between 1 and 1000");
  return (long)scale;
}

/* rectangle(image, left, top, width, height, color) -> image; 0, 0 is the upper left corner */
static int l_rectangle(lua_State *L) {
  const Tensor *image = check_image(L, 1);
  long left = check_coordinate(L, 2), top = check_coordinate(L, 3);
  long width = check_coordinate(L, 4), height = check_coordinate(L, 5);
  lua_settop(L, 6);
  fill_rectangle(image, left, top, left + width, top + height, check_color(L, 6));
  lua_pushvalue(L, 1);
  return 1;
}

static char *check_text(lua_State *L, int arg) {
  size_t length;
  const char *text = luaL_checklstring(L, arg, &length);
  luaL_argcheck(L, length <= TEXT_MOST, arg, "text of at most 512 letters expected");
  char *copy = lua_newuserdatauv(L, length + 1, 0), *next = copy; /* stb_easy_font wants it writable */
  for (size_t i = 0; i < length; i++) {
    unsigned char letter = (unsigned char)text[i];
    if ((letter & 0xC0) == 0x80) continue; /* not the first byte of a letter in UTF-8 */
    *next++ = letter == '\n' || (letter >= ' ' && letter < 127) ? (char)letter : '?'; /* the font is ASCII alone */
  }
  *next = '\0';
  return copy;
}

/* text(image, left, top, text, scale, color) -> image; letters are about 7 times scale high */
static int l_text(lua_State *L) {
  const Tensor *image = check_image(L, 1);
  long left = check_coordinate(L, 2), top = check_coordinate(L, 3), scale = opt_scale(L, 5);
  lua_settop(L, 6);
  Color color = check_color(L, 6);
  char *text = check_text(L, 4);
  int bytes = BYTES_PER_LETTER * ((int)strlen(text) + 1);
  draw_text(image, left, top, text, scale, color, lua_newuserdatauv(L, (size_t)bytes, 0), bytes);
  lua_pushvalue(L, 1);
  return 1;
}

/* text_size(text, scale) -> width, height in pixels */
static int l_text_size(lua_State *L) {
  lua_Integer scale = opt_scale(L, 2);
  char *text = check_text(L, 1);
  lua_pushinteger(L, stb_easy_font_width(text) * scale);
  lua_pushinteger(L, stb_easy_font_height(text) * scale);
  return 2;
}

static const luaL_Reg functions[] = {
    {"rectangle", l_rectangle}, {"text", l_text}, {"text_size", l_text_size}, {NULL, NULL}};

int luaopen_feral_core_draw(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
