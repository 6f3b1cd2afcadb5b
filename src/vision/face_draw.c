/* face_draw.c -- drawn faces for Lua: many at once, each a row of numbers (kernels/face_sketch.h). */
#include "../base/interrupt.h"
#include "../base/parallel.h"
#include "../kernels/face/face_picture.h"
#include "../tensor/sources.h"

/* ---- kernels ---- */

/* rows: (count,FACE_FIELDS)  out: (count,1,size,size)  pixels: size * size floats for each thread */
static void draw(const real *rows, long count, int size, uint64_t seed, uint64_t stream, float *pixels, uint8_t *out) {
  long area = (long)size * size;
#pragma omp parallel for schedule(dynamic)
  for (long i = 0; i < count; i++) {
    if (interrupted()) continue;
    face_picture(rows + i * FACE_FIELDS, size, seed, stream + (uint64_t)i, pixels + omp_get_thread_num() * area,
                 out + i * area);
  }
}

/* Faces drawn when they are wanted. */
typedef struct DrawnSource {
  Source base;
  const real *rows; /* (count,frames,FACE_FIELDS) */
  uint64_t seed, stream;
} DrawnSource;

static const char *fetch_drawn(const Source *s, long i, long frame, void *scratch, Image *image) {
  const DrawnSource *d = (const DrawnSource *)s;
  long face = i * s->frames + frame, area = s->most_pixels;
  float *pixels = scratch;
  uint8_t *bytes = (uint8_t *)(pixels + area);
  face_picture(d->rows + face * FACE_FIELDS, (int)s->width, d->seed, d->stream + (uint64_t)face, pixels, bytes);
  *image = (Image){.bytes = true, .height = s->height, .width = s->width, .channels = 1, .pixels = bytes};
  return NULL;
}

static const SourceKind source_drawn = {.name = "drawn", .fetch = fetch_drawn};

/* ---- bindings ---- */

enum { SIZE_MOST = 2048 };

static const Tensor *check_rows(lua_State *L) {
  const Tensor *given = tensor_check_real(L, 1, "face_draw: parameters", 2);
  if (given->shape[1] != FACE_FIELDS)
    tensor_error(L, "face_draw: parameters are %s, N x %d expected", tensor_describe(L, given), FACE_FIELDS);
  return given;
}

static long check_size(lua_State *L) {
  long size = tensor_check_size(L, 2, "face_draw: size", 8);
  if (size > SIZE_MOST) tensor_error(L, "face_draw: size %I is more than %d", (lua_Integer)size, SIZE_MOST);
  return size;
}

/* draw(parameters real N x P, size, seed, stream) -> u8 N x 1 x size x size; the noise of row i is that of stream + i - 1 */
static int l_draw(lua_State *L) {
  check_rows(L);
  long size = check_size(L);
  uint64_t seed = (uint64_t)luaL_optinteger(L, 3, 0), stream = (uint64_t)luaL_optinteger(L, 4, 0);
  const Tensor *rows = tensor_push_in_layout(L, 1, LAYOUT_ROWS);
  Tensor *out = tensor_push(L, DTYPE_U8, 4, (long[]){rows->shape[0], 1, size, size}, LAYOUT_IMAGE);
  void *pixels = scratch_push(L, (size_t)(size * size) * (size_t)omp_get_max_threads());
  draw(rows->data, rows->shape[0], (int)size, seed, stream, pixels, out->data);
  scratch_release(L, -1);
  tensor_check_interrupt(L);
  lua_pop(L, 1);
  return 1;
}

/* source(parameters real (N frames) x P, size, seed, stream, frames or nil) -> a source of those N faces or sequences, drawn
   when they are wanted. The parameters must be kept. */
static int l_source(lua_State *L) {
  const Tensor *rows = check_rows(L);
  long size = check_size(L), frames = lua_isnoneornil(L, 5) ? 1 : tensor_check_size(L, 5, "face_draw: frames", 1);
  if (!tensor_is_layout(rows, LAYOUT_ROWS) || rows->shape[0] % frames != 0)
    tensor_error(L, "face_draw: parameters %s cannot be cut into sequences of %d", tensor_describe(L, rows),
                 (int)frames);
  DrawnSource *s = source_push(L, sizeof *s);
  source_keep_tensor(L, -1, 1);
  s->base = (Source){.kind = &source_drawn,
                     .count = rows->shape[0] / frames,
                     .frames = frames,
                     .sequential = !lua_isnoneornil(L, 5),
                     .height = size,
                     .width = size,
                     .channels = 1,
                     .most_pixels = size * size,
                     .scratch = (size_t)(size * size) * (sizeof(float) + 1)};
  s->rows = rows->data;
  s->seed = (uint64_t)luaL_optinteger(L, 3, 0);
  s->stream = (uint64_t)luaL_optinteger(L, 4, 0);
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

static const luaL_Reg functions[] = {{"draw", l_draw}, {"source", l_source}, {NULL, NULL}};

int luaopen_feral_core_face_draw(lua_State *L) {
  luaL_newlib(L, functions);
  push_parameters(L);
  return 1;
}
