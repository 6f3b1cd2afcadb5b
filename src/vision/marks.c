/* marks.c -- marks on pictures for Lua: frames, panels, lines, dots and text with soft edges, in place on u8 3 x H x W. */
#include <math.h>
#include <string.h>

#include "../kernels/face/letters.h"
#include "../kernels/face/marks.h"
#include "../tensor/tensor.h"

enum { TEXT_MOST = 512, POINTS_MOST = LETTER_PIECES };

static const double FAR = 1e6, SIZE_MOST = 4096; /* what lies beyond is on no picture */

static Sheet check_sheet(lua_State *L) {
  const Tensor *t = tensor_check_dtype(L, 1, DTYPE_U8);
  tensor_check_target(L, 1);
  if (t->ndim != 3 || t->shape[0] != 3)
    tensor_error(L, "draw: the picture must be 3 x H x W, got %s", tensor_describe(L, t));
  return (Sheet){t->data, t->shape[1], t->shape[2], {t->stride[0], t->stride[1], t->stride[2]}};
}

/* The number at 'index', held to least .. most. */
static float number_at(lua_State *L, int index, double least, double most) {
  int is_number;
  double value = lua_tonumberx(L, index, &is_number);
  if (!is_number || isnan(value)) tensor_error(L, "draw: number expected, got %s", luaL_tolstring(L, index, NULL));
  return (float)(value < least ? least : value > most ? most : value);
}

static float place_at(lua_State *L, int index) {
  return number_at(L, index, -FAR, FAR);
}
static float size_at(lua_State *L, int index) {
  return number_at(L, index, 0, 4 * FAR);
}

/* A colour {red, green, blue} of 0 to 255, and the opacity behind it, 0 to 1 (default). */
static Dye check_dye(lua_State *L, int arg) {
  Dye dye = {{0}, lua_isnoneornil(L, arg + 1) ? 1 : number_at(L, arg + 1, 0, 1)};
  luaL_checktype(L, arg, LUA_TTABLE);
  for (int c = 0; c < 3; c++) {
    lua_geti(L, arg, c + 1);
    dye.color[c] = number_at(L, -1, 0, 255);
    lua_pop(L, 1);
  }
  return dye;
}

static MarkBox check_box(lua_State *L) {
  return (MarkBox){place_at(L, 2), place_at(L, 3), size_at(L, 4), size_at(L, 5), size_at(L, 6)};
}

/* frame(picture, x, y, width, height, radius, line width, color, opacity) */
static int l_frame(lua_State *L) {
  Sheet sheet = check_sheet(L);
  MarkBox box = check_box(L);
  marks_frame(&sheet, &box, number_at(L, 7, 0.1, SIZE_MOST), check_dye(L, 8));
  return 0;
}

/* panel(picture, x, y, width, height, radius, color, opacity) */
static int l_panel(lua_State *L) {
  Sheet sheet = check_sheet(L);
  MarkBox box = check_box(L);
  marks_panel(&sheet, &box, check_dye(L, 7));
  return 0;
}

/* line(picture, {x1, y1, x2, y2, ...}, closed, width, color, opacity); one point alone is a dot */
static int l_line(lua_State *L) {
  Point at[POINTS_MOST];
  Sheet sheet = check_sheet(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_Integer numbers = luaL_len(L, 2);
  if (numbers < 2 || numbers % 2 != 0 || numbers > 2 * POINTS_MOST)
    tensor_error(L, "draw: a line has 1 to %d points of two numbers each, got %I numbers", POINTS_MOST, numbers);
  for (int i = 0; i < numbers; i++) {
    lua_geti(L, 2, i + 1);
    float value = place_at(L, -1);
    if (i % 2 == 0)
      at[i / 2].x = value;
    else
      at[i / 2].y = value;
    lua_pop(L, 1);
  }
  marks_line(&sheet, at, (int)numbers / 2, lua_toboolean(L, 3), number_at(L, 4, 0, SIZE_MOST), check_dye(L, 5));
  return 0;
}

/* A text's letters, a byte each: those beyond ASCII are question marks. */
static const char *check_text(lua_State *L, int arg, char letters[TEXT_MOST + 1]) {
  size_t length;
  const char *text = luaL_checklstring(L, arg, &length);
  int count = 0;
  for (size_t i = 0; i < length && count < TEXT_MOST; i++) {
    unsigned char letter = (unsigned char)text[i];
    if ((letter & 0xC0) == 0x80) continue; /* not the first byte of a letter in UTF-8 */
    letters[count++] = letter >= ' ' && letter < 127 ? (char)letter : '?';
  }
  letters[count] = 0;
  return letters;
}

/* text(picture, x, baseline, size, text, color, opacity); size is the height of capitals */
static int l_text(lua_State *L) {
  char letters[TEXT_MOST + 1];
  Sheet sheet = check_sheet(L);
  Point at = {place_at(L, 2), place_at(L, 3)};
  float size = number_at(L, 4, 1, SIZE_MOST);
  marks_text(&sheet, at, size, check_text(L, 5, letters), check_dye(L, 6));
  return 0;
}

/* text_size(text, size) -> width, depth below the baseline, in pixels */
static int l_text_size(lua_State *L) {
  char letters[TEXT_MOST + 1];
  float size = number_at(L, 2, 1, SIZE_MOST);
  lua_pushnumber(L, (lua_Number)marks_text_width(check_text(L, 1, letters), size));
  lua_pushnumber(L, (lua_Number)letters_depth(size));
  return 2;
}

static const luaL_Reg functions[] = {{"frame", l_frame}, {"panel", l_panel},         {"line", l_line},
                                     {"text", l_text},   {"text_size", l_text_size}, {NULL, NULL}};

int luaopen_feral_core_marks(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
