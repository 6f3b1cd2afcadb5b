/*
** files.c -- whole files for Lua: read, written atomically, and folders listed.
** What the world does wrong returns nil, "path: what is wrong".
*/
#include "../base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../base/numbers.h"
#include "../tensor/tensor.h"

static const char *const kind_names[] = {
    [FILE_REGULAR] = "file", [FILE_DIRECTORY] = "directory", [FILE_OTHER] = "other"};

static const char *check_path(lua_State *L, int arg) {
  size_t length;
  const char *path = luaL_checklstring(L, arg, &length);
  luaL_argcheck(L, strlen(path) == length, arg, "a path cannot hold a zero byte");
  return path;
}

static int fail(lua_State *L, const char *path, const char *error) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", path, error);
  return 2;
}

static int done(lua_State *L, const char *path, const char *error) {
  if (error != NULL) return fail(L, path, error);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- reading ---- */

/* look(path) -> "file", "directory" or "other", and the size in bytes; or nil, message */
static int l_look(lua_State *L) {
  const char *path = check_path(L, 1);
  FileKind kind;
  size_t size;
  const char *error = files_look(path, &kind, &size);
  if (error != NULL) return fail(L, path, error);
  lua_pushstring(L, kind_names[kind]);
  lua_pushinteger(L, (lua_Integer)size);
  return 2;
}

/* A whole number >= 0 at 'arg', or 'otherwise' for nil. */
static size_t opt_count(lua_State *L, int arg, size_t otherwise) {
  lua_Integer count = luaL_optinteger(L, arg, (lua_Integer)otherwise);
  luaL_argcheck(L, count >= 0, arg, "must not be negative");
  return (size_t)count;
}

/* read(path, offset, count) -> 'count' bytes from 'offset' (from 0) on, by default to the end; or nil, message */
static int l_read(lua_State *L) {
  const char *path = check_path(L, 1);
  size_t offset = opt_count(L, 2, 0), size, count;
  const char *error = files_size(path, &size);
  if (error != NULL) return fail(L, path, error);
  count = opt_count(L, 3, size > offset ? size - offset : 0);
  if (offset > size || count > size - offset) return fail(L, path, "the file ends too early");
  luaL_Buffer buffer;
  error = files_read(path, offset, luaL_buffinitsize(L, &buffer, count), count);
  luaL_pushresultsize(&buffer, count);
  return error != NULL ? fail(L, path, error) : 1;
}

static NumberFormat format_of(DType dtype) {
  char kind = dtype == DTYPE_REAL ? 'f' : dtype == DTYPE_U8 ? 'u' : 'i';
  return (NumberFormat){kind, dtype_size(dtype)};
}

static NumberFormat opt_format(lua_State *L, int arg, DType dtype) {
  static const char *const names[] = {"f2", "b2", "f4", "f8", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", NULL};
  if (lua_isnoneornil(L, arg)) return format_of(dtype);
  const char *name = names[luaL_checkoption(L, arg, NULL, names)];
  return (NumberFormat){name[0], (size_t)(name[1] - '0')};
}

/* Writes count numbers to t's elements from 'first' on; returns how many come before one that does not fit. */
static long convert(const char *from, NumberFormat format, long count, const Tensor *t, long first) {
  double low = t->dtype == DTYPE_U8 ? 0 : INT32_MIN, high = t->dtype == DTYPE_U8 ? UINT8_MAX : INT32_MAX;
  for (long i = 0; i < count; i++) {
    double value = number_read(from + (size_t)i * format.size, format);
    if (t->dtype == DTYPE_REAL) {
      tensor_reals(t)[first + i] = (real)value;
      continue;
    }
    if (!(value >= low && value <= high)) return i;
    if (t->dtype == DTYPE_U8) tensor_bytes(t)[first + i] = (uint8_t)value;
    if (t->dtype == DTYPE_I32) tensor_ints(t)[first + i] = (int32_t)value;
  }
  return count;
}

/* Fills t, piece by piece, from numbers of another format. *misfit: the element that does not fit, or -1. */
static const char *read_converted(const char *path, size_t offset, NumberFormat format, const Tensor *t, long *misfit) {
  char buffer[32768];
  long most = (long)(sizeof buffer / format.size), numel = tensor_numel(t);
  for (long first = 0; first < numel; first += most) {
    long count = numel - first < most ? numel - first : most;
    size_t start = offset + (size_t)first * format.size;
    const char *error = files_read(path, start, buffer, (size_t)count * format.size);
    if (error != NULL) return error;
    long done = convert(buffer, format, count, t, first);
    *misfit = done < count ? first + done : -1;
    if (done < count) return NULL;
  }
  return NULL;
}

/* read_into(path, offset, t, format) -> t, its memory (row-major) filled with the file's numbers from 'offset' on; or
   nil, message. They lie in the file as in t, or as 'format' ("f8", "i2", "b2" for bfloat16 ...) says; then they must
   fit. */
static int l_read_into(lua_State *L) {
  const char *path = check_path(L, 1);
  size_t offset = opt_count(L, 2, 0), size;
  const Tensor *t = tensor_check(L, 3);
  NumberFormat format = opt_format(L, 4, t->dtype), own = format_of(t->dtype);
  long misfit = -1;
  if (!tensor_is_layout(t, LAYOUT_ROWS)) tensor_error(L, "read_into: the tensor must be contiguous");
  tensor_touch(L, 3);
  const char *error = files_size(path, &size);
  if (error == NULL && format.kind == own.kind && format.size == own.size)
    error = files_read(path, offset, t->data, (size_t)tensor_numel(t) * own.size);
  else if (error == NULL)
    error = read_converted(path, offset, format, t, &misfit);
  if (error == NULL && misfit >= 0)
    error = lua_pushfstring(L, "element %I does not fit into %s", (lua_Integer)misfit + 1, dtype_name(t->dtype));
  if (error != NULL) return fail(L, path, error);
  lua_pushvalue(L, 3);
  return 1;
}

/* ---- writing ---- */

/* Writes a tensor's elements row-major, whatever its strides, through a small buffer. */
static void write_tensor(FileWriter *writer, const Tensor *t) {
  size_t item = dtype_size(t->dtype), filled = 0;
  long index[TENSOR_MAX_DIMS] = {0}, offset = 0;
  char buffer[16384];
  if (tensor_is_layout(t, LAYOUT_ROWS)) {
    files_write(writer, t->data, (size_t)tensor_numel(t) * item);
    return;
  }
  for (long left = tensor_numel(t); left > 0; left--) {
    memcpy(buffer + filled, (const char *)t->data + offset * (long)item, item);
    filled += item;
    if (filled == sizeof buffer || left == 1) {
      files_write(writer, buffer, filled);
      filled = 0;
    }
    for (int d = t->ndim - 1; d >= 0 && d < TENSOR_MAX_DIMS; d--) {
      offset += t->stride[d];
      if (++index[d] < t->shape[d]) break;
      offset -= t->stride[d] * t->shape[d];
      index[d] = 0;
    }
  }
}

/* Checks the part to write at the top of the stack. */
static void check_part(lua_State *L) {
  if (tensor_is(L, -1))
    tensor_check(L, lua_gettop(L));
  else if (lua_type(L, -1) != LUA_TSTRING)
    tensor_error(L, "write_atomic: strings and tensors can be written, got %s", luaL_typename(L, -1));
}

static void write_part(lua_State *L, FileWriter *writer) {
  size_t length;
  if (lua_type(L, -1) != LUA_TSTRING) {
    write_tensor(writer, lua_touserdata(L, -1));
    return;
  }
  const char *bytes = lua_tolstring(L, -1, &length);
  files_write(writer, bytes, length);
}

/* write_atomic(path, a string or a tensor, or a list of them) -> true; or nil, message, and an old file stays whole.
   Tensors are written row-major in this machine's byte order. */
static int l_write_atomic(lua_State *L) {
  const char *path = check_path(L, 1);
  FileWriter writer;
  bool list = lua_istable(L, 2);
  lua_settop(L, 2);
  size_t count = list ? lua_rawlen(L, 2) : 1;
  for (size_t i = 1; i <= count; i++) {
    if (list) lua_rawgeti(L, 2, (lua_Integer)i);
    check_part(L);
    lua_settop(L, 2);
  }
  luaL_checkstack(L, 4, "write_atomic");
  files_begin(&writer, path); /* from here to the end nothing raises */
  for (size_t i = 1; i <= count; i++) {
    if (list) lua_rawgeti(L, 2, (lua_Integer)i);
    write_part(L, &writer);
    lua_settop(L, 2);
  }
  return done(L, path, files_commit(&writer));
}

/* ---- folders ---- */

/* An open folder, closed by the collector where an error comes before the end of the listing. */
typedef struct Folder {
  DIR *dir;
} Folder;

static const char *const folder_type = "feral.folder";

static int l_close_folder(lua_State *L) {
  Folder *folder = luaL_checkudata(L, 1, folder_type);
  if (folder->dir != NULL) closedir(folder->dir);
  folder->dir = NULL;
  return 0;
}

static Folder *push_folder(lua_State *L) {
  Folder *folder = lua_newuserdatauv(L, sizeof *folder, 0);
  folder->dir = NULL;
  if (luaL_newmetatable(L, folder_type)) {
    lua_pushcfunction(L, l_close_folder);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return folder;
}

static const char *kind_of(DIR *dir, const struct dirent *entry) {
  struct stat s;
  if (entry->d_type == DT_REG) return "file";
  if (entry->d_type == DT_DIR) return "directory";
  if (fstatat(dirfd(dir), entry->d_name, &s, 0) != 0) return entry->d_type == DT_LNK ? "link" : "other";
  return S_ISREG(s.st_mode) ? "file" : S_ISDIR(s.st_mode) ? "directory" : "other";
}

static int by_bytes(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts the list of 'count' strings at the top of the stack by their bytes, whatever the locale. */
static void sort_names(lua_State *L, lua_Integer count) {
  const char **names = lua_newuserdatauv(L, (size_t)count * sizeof *names + 1, 0);
  lua_createtable(L, (int)count, 0);
  for (lua_Integer i = 0; i < count; i++) {
    lua_rawgeti(L, -3, i + 1);
    names[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  qsort(names, (size_t)count, sizeof *names, by_bytes);
  for (lua_Integer i = 0; i < count; i++) {
    lua_pushstring(L, names[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* Fills the list at index 'names' and the table at 'names' + 1 with what the folder holds; returns how many. */
static lua_Integer read_entries(lua_State *L, DIR *dir, int names) {
  lua_Integer count = 0;
  for (const struct dirent *entry; (errno = 0, entry = readdir(dir)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    lua_pushstring(L, entry->d_name);
    lua_pushvalue(L, -1);
    lua_rawseti(L, names, ++count);
    lua_pushstring(L, kind_of(dir, entry));
    lua_rawset(L, names + 1);
  }
  return count;
}

/* list(path) -> the names in a folder without the hidden ones, sorted by their bytes, and a table name -> "file",
   "directory", "link" (one that leads nowhere) or "other"; or nil, message */
static int l_list(lua_State *L) {
  const char *path = check_path(L, 1);
  lua_settop(L, 1);
  Folder *folder = push_folder(L);
  lua_newtable(L);
  lua_newtable(L);
  folder->dir = opendir(path);
  if (folder->dir == NULL) return fail(L, path, strerror(errno));
  lua_Integer count = read_entries(L, folder->dir, 3);
  int failure = errno;
  closedir(folder->dir);
  folder->dir = NULL;
  if (failure != 0) return fail(L, path, strerror(failure));
  lua_pushvalue(L, 3);
  sort_names(L, count);
  lua_pushvalue(L, 4);
  return 2;
}

/* mkdir(path) -> true, with the folders above it made too and none of it an error when it is there; or nil, message */
static int l_mkdir(lua_State *L) {
  const char *path = check_path(L, 1);
  return done(L, path, files_make_directory(path));
}

static const luaL_Reg functions[] = {
    {"look", l_look},
    {"read", l_read},
    {"read_into", l_read_into},
    {"write_atomic", l_write_atomic},
    {"list", l_list},
    {"mkdir", l_mkdir},
    {NULL, NULL},
};

int luaopen_feral_core_files(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
