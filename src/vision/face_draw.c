/* face_draw.c -- drawn faces for Lua: many at once, each a row of numbers (kernels/face_sketch.h). */
#include <math.h>

#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "../base/rng.h"
#include "../kernels/face/face_sketch.h"
#include "../tensor/tensor.h"

/* ---- kernels ---- */

enum { FACE_FIELDS = sizeof(Face) / sizeof(float) };

static Face face_of(const real *row) {
  union {
    Face face;
    float field[FACE_FIELDS];
  } u;
  for (int i = 0; i < FACE_FIELDS; i++) u.field[i] = (float)row[i];
  return u.face;
}

static void to_bytes(const Canvas *canvas, float noise, uint64_t seed, uint64_t stream, uint8_t *out) {
  for (long i = 0, n = (long)canvas->height * canvas->width; i < n; i++) {
    float tone = canvas->pixel[i] + (noise > 0 ? noise * rng_normal(seed, stream, (uint64_t)i) : 0);
    out[i] = tone > 0 ? (uint8_t)lroundf(255 * (tone < 1 ? tone : 1)) : 0;
  }
}

/* rows: (count,FACE_FIELDS)  out: (count,1,size,size)  pixels: size * size floats for each thread */
static void draw(const real *rows, long count, int size, uint64_t seed, uint64_t stream, float *pixels, uint8_t *out) {
  long area = (long)size * size;
#pragma omp parallel for schedule(dynamic)
  for (long i = 0; i < count; i++) {
    if (interrupted()) continue;
    Canvas canvas = {pixels + omp_get_thread_num() * area, size, size};
    Face face = face_of(rows + i * FACE_FIELDS);
    face_sketch(&face, &canvas);
    to_bytes(&canvas, face.noise, seed, stream + (uint64_t)i, out + i * area);
  }
}

/* ---- bindings ---- */

enum { SIZE_MOST = 2048 };

/* draw(parameters real N x P, size, seed, stream) -> u8 N x 1 x size x size; the noise of row i is that of stream + i - 1 */
static int l_draw(lua_State *L) {
  const Tensor *given = tensor_check_real(L, 1, "face_draw: parameters", 2);
  long size = tensor_check_size(L, 2, "face_draw: size", 8);
  uint64_t seed = (uint64_t)luaL_optinteger(L, 3, 0), stream = (uint64_t)luaL_optinteger(L, 4, 0);
  if (given->shape[1] != FACE_FIELDS)
    tensor_error(L, "face_draw: parameters are %s, N x %d expected", tensor_describe(L, given), FACE_FIELDS);
  if (size > SIZE_MOST) tensor_error(L, "face_draw: size %I is more than %d", (lua_Integer)size, SIZE_MOST);
  const Tensor *rows = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *out = tensor_push(L, DTYPE_U8, 4, (long[]){rows->shape[0], 1, size, size}, LAYOUT_IMAGE);
  void *pixels = scratch_push(L, (size_t)(size * size) * (size_t)omp_get_max_threads());
  draw(rows->data, rows->shape[0], (int)size, seed, stream, pixels, out->data);
  scratch_release(L, -1);
  tensor_check_interrupt(L);
  lua_pop(L, 1);
  return 1;
}

static void push_parameter(lua_State *L, int place, const char *name, double usual, double least, double most) {
  lua_createtable(L, 0, 4);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "name");
  lua_pushnumber(L, usual);
  lua_setfield(L, -2, "default");
  lua_pushnumber(L, least);
  lua_setfield(L, -2, "least");
  lua_pushnumber(L, most);
  lua_setfield(L, -2, "most");
  lua_rawseti(L, -2, place);
}

/* The columns of a row in order: lists of {name, default, least, most} in fields "action_units" and "looks".
 */
#define PUSH_PARAMETER(name, usual, least, most) push_parameter(L, ++place, #name, usual, least, most);
static void push_parameters(lua_State *L) {
  int place = 0;
  lua_newtable(L);
  FACE_ACTION_UNITS(PUSH_PARAMETER)
  lua_setfield(L, -2, "action_units");
  place = 0;
  lua_newtable(L);
  FACE_LOOKS(PUSH_PARAMETER)
  lua_setfield(L, -2, "looks");
}

static const luaL_Reg functions[] = {{"draw", l_draw}, {NULL, NULL}};

int luaopen_feral_core_face_draw(lua_State *L) {
  luaL_newlib(L, functions);
  push_parameters(L);
  return 1;
}
