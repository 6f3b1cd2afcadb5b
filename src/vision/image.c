/*
** image.c -- image files to tensors of bytes and back. Pixels are decoded straight into the tensor; what a file does
** wrong returns nil, "path: what is wrong".
*/
#include "../base/files.h"
#include "../kernels/image/codec.h"
#include "../tensor/images.h"
#include "../kernels/image/pixels.h"

enum { FILE_MOST = 512 << 20 };

/* ---- the bytes of a file ---- */

static int fail(lua_State *L, const char *name, const char *error) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", name, error);
  return 2;
}

/* Sizes are rounded up, so that files of about one size take turns in the same memory. */
static void *push_bytes(lua_State *L, size_t size) {
  size_t step = 16384;
  return scratch_push(L, (size / step + 1) * (step / sizeof(real)));
}

static const char *size_of_file(const char *path, size_t *size) {
  const char *error = files_size(path, size);
  return error == NULL && *size > FILE_MOST ? "the file is too large for an image" : error;
}

/* ---- decoding ---- */

static int opt_channels(lua_State *L, int arg) {
  lua_Integer channels = luaL_optinteger(L, arg, 0);
  if (channels != 0 && channels != 1 && channels != 3)
    tensor_error(L, "image: channels must be 1 (gray) or 3 (red, green, blue), got %I", channels);
  return (int)channels;
}

static const char *decode_once(lua_State *L, CodecJob *job) {
  job->memory.alloc = lua_getallocf(L, &job->memory.ud);
  job->memory.failed = false;
  return codec_decode(job);
}

/* Returns the image in these bytes; 'name' is for the message, 'channels' 0 for what the image has. */
static int push_decoded(lua_State *L, Bytes file, const char *name, int channels) {
  ImageInfo info;
  CodecJob job = {.file = file, .info = &info};
  const char *error = codec_probe(file, &info);
  if (error != NULL) return fail(L, name, error);
  job.channels = channels != 0 ? channels : info.channels;
  Tensor *t = images_push_new(L, DTYPE_U8, 1, job.channels, upright_height(&info), upright_width(&info));
  job.pixels = t->data;
  int scratch = lua_gettop(L) + 1;
  job.scratch = push_bytes(L, codec_scratch_size(&info, job.channels));
  error = decode_once(L, &job);
  if (job.memory.failed) {
    lua_gc(L, LUA_GCCOLLECT);
    error = decode_once(L, &job);
  }
  if (job.memory.failed) return luaL_error(L, "not enough memory");
  scratch_release(L, scratch);
  if (error != NULL) return fail(L, name, error);
  lua_settop(L, scratch - 1);
  images_squeeze(L);
  return 1;
}

/* load(path, channels) -> u8 C x H x W; or nil, message */
static int l_load(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  int channels = opt_channels(L, 2);
  Bytes file;
  lua_settop(L, 2);
  const char *error = size_of_file(path, &file.size);
  if (error != NULL) return fail(L, path, error);
  uint8_t *data = push_bytes(L, file.size);
  file.data = data;
  error = files_read(path, 0, data, file.size);
  int results = error != NULL ? fail(L, path, error) : push_decoded(L, file, path, channels);
  scratch_release(L, 3);
  return results;
}

/* decode(bytes, channels, name) -> u8 C x H x W; or nil, message with the name (by default "image") */
static int l_decode(lua_State *L) {
  Bytes file;
  file.data = (const uint8_t *)luaL_checklstring(L, 1, &file.size);
  int channels = opt_channels(L, 2);
  const char *name = luaL_optstring(L, 3, "image");
  if (file.size > FILE_MOST) return fail(L, name, "the file is too large for an image");
  return push_decoded(L, file, name, channels);
}

/* size(path) -> channels, height, width as load gives them; or nil, message. Decodes the header alone. */
static int l_size(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  Bytes file;
  ImageInfo info;
  lua_settop(L, 1);
  const char *error = size_of_file(path, &file.size);
  if (error != NULL) return fail(L, path, error);
  uint8_t *data = push_bytes(L, file.size);
  file.data = data;
  error = files_read(path, 0, data, file.size);
  if (error == NULL) error = codec_probe(file, &info);
  scratch_release(L, 2);
  if (error != NULL) return fail(L, path, error);
  lua_pushinteger(L, info.channels);
  lua_pushinteger(L, upright_height(&info));
  lua_pushinteger(L, upright_width(&info));
  return 3;
}

/* ---- encoding ---- */

/* Pushes the bytes of the image at argument 1, which must be of one or three channels. */
static const Tensor *push_for_file(lua_State *L, const char *op, long most_side) {
  const Tensor *t = images_push(L, 1, op);
  if (t->dtype != DTYPE_U8 || t->shape[0] != 1 || (t->shape[1] != 1 && t->shape[1] != 3))
    tensor_error(L, "%s: u8 1 x H x W or 3 x H x W expected, got %s %s", op, dtype_name(t->dtype),
                 tensor_describe(L, lua_touserdata(L, 1)));
  if (t->shape[2] > most_side || t->shape[3] > most_side)
    tensor_error(L, "%s: at most %d pixels a side, got %s", op, (int)most_side,
                 tensor_describe(L, lua_touserdata(L, 1)));
  return t;
}

/* encode_png(t) -> the bytes of a PNG file */
static int l_encode_png(lua_State *L) {
  const Tensor *t = push_for_file(L, "image.save", IMAGE_MAX_SIDE);
  long height = t->shape[2], width = t->shape[3];
  int channels = (int)t->shape[1], top = lua_gettop(L);
  void *scratch = push_bytes(L, png_encode_scratch(height, width, channels));
  uint8_t *out = push_bytes(L, png_encode_bound(height, width, channels));
  size_t size = png_encode(t->data, height, width, channels, scratch, out);
  lua_pushlstring(L, (const char *)out, size);
  scratch_release(L, top + 1);
  scratch_release(L, top + 2);
  return 1;
}

/* encode_jpeg(t, quality) -> the bytes of a JPEG file */
static int l_encode_jpeg(lua_State *L) {
  char message[200];
  const Tensor *t = push_for_file(L, "image.save", IMAGE_MAX_SIDE);
  lua_Integer quality = luaL_checkinteger(L, 2);
  if (quality < 1 || quality > 100) tensor_error(L, "image.save: quality goes from 1 to 100, got %I", quality);
  int channels = (int)t->shape[1], top = lua_gettop(L);
  size_t size = jpeg_encode_bound(t->shape[2], t->shape[3], channels, (int)quality);
  uint8_t *out = push_bytes(L, size);
  const char *error = jpeg_encode(t->data, t->shape[2], t->shape[3], channels, (int)quality, out, &size, message);
  if (error != NULL) return luaL_error(L, "image.save: %s", error);
  lua_pushlstring(L, (const char *)out, size);
  scratch_release(L, top + 1);
  return 1;
}

static const luaL_Reg functions[] = {
    {"load", l_load},
    {"decode", l_decode},
    {"size", l_size},
    {"encode_png", l_encode_png},
    {"encode_jpeg", l_encode_jpeg},
    {NULL, NULL},
};

int luaopen_feral_core_image(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
