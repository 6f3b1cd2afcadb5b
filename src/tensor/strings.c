/*
** strings.c -- lists of strings for Lua, as a column of a data set has them: list[i], #list, ipairs(list). A list grows until
** somebody relies on it (a source of files, a selection); then it stays as it is, so that any thread may read it.
*/
#include "strings.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

typedef struct List {
  Strings strings;
  bool frozen;
} List;

enum { PARENT = 1 }; /* the user value that keeps the list whose bytes a selection reads */
static const char *const list_type = "feral.strings";

static List *check_list(lua_State *L, int arg) {
  return luaL_checkudata(L, arg, list_type);
}

bool strings_is(lua_State *L, int arg) {
  return luaL_testudata(L, arg, list_type) != NULL;
}

const Strings *strings_check(lua_State *L, int arg) {
  return &check_list(L, arg)->strings;
}

const Strings *strings_check_frozen(lua_State *L, int arg) {
  List *list = check_list(L, arg);
  if (!list->frozen) strings_trim(&list->strings);
  list->frozen = true;
  return &list->strings;
}

static List *push_list(lua_State *L) {
  List *list = lua_newuserdatauv(L, sizeof *list, 1);
  *list = (List){.frozen = false};
  list->strings.alloc = lua_getallocf(L, &list->strings.ud);
  luaL_setmetatable(L, list_type);
  return list;
}

/* ---- growing ---- */

static List *check_growing(lua_State *L) {
  List *list = check_list(L, 1);
  if (list->frozen) tensor_error(L, "strings: this list is in use and grows no more");
  return list;
}

static int no_memory(lua_State *L) {
  return luaL_error(L, "not enough memory");
}

static void add(lua_State *L, List *list, int index) {
  size_t length;
  if (lua_type(L, index) != LUA_TSTRING) tensor_error(L, "strings: a string expected, got %s", luaL_typename(L, index));
  const char *text = lua_tolstring(L, index, &length);
  if (strlen(text) != length) tensor_error(L, "strings: a string with a zero byte cannot be kept");
  if (strings_add(&list->strings, text, length)) return;
  lua_gc(L, LUA_GCCOLLECT);
  if (!strings_add(&list->strings, text, length)) no_memory(L);
}

/* list:add(text) -> list */
static int l_add(lua_State *L) {
  add(L, check_growing(L), 2);
  lua_settop(L, 1);
  return 1;
}

/* list:append(another) -> list, with all that the other holds behind it */
static int l_append(lua_State *L) {
  List *list = check_growing(L);
  const Strings *other = strings_check(L, 2);
  for (long i = 0, count = other->count; i < count; i++) {
    const char *text = strings_get(other, i);
    if (!strings_add(&list->strings, text, strlen(text))) return no_memory(L);
  }
  lua_settop(L, 1);
  return 1;
}

/* new(a table of strings, or nil) -> list */
static int l_new(lua_State *L) {
  lua_settop(L, 1);
  List *list = push_list(L);
  if (lua_isnil(L, 1)) return 1;
  luaL_checktype(L, 1, LUA_TTABLE);
  for (lua_Integer i = 1, n = luaL_len(L, 1); i <= n; i++) {
    lua_geti(L, 1, i);
    add(L, list, 3);
    lua_pop(L, 1);
  }
  return 1;
}

/* ---- the files under a folder ---- */

typedef struct Search {
  Strings *found;
  const char *extensions; /* " jpg png " */
  bool no_memory;
  char path[4096];  /* the folder being read */
  char wrong[4096]; /* the folder that could not be */
} Search;

static bool has_extension(const char *name, const char *extensions) {
  char word[16] = " ";
  const char *dot = strrchr(name, '.');
  size_t length = dot != NULL ? strlen(dot + 1) : 0;
  if (length == 0 || length > sizeof word - 3) return false;
  for (size_t i = 0; i < length; i++) {
    char c = dot[1 + i];
    word[1 + i] = c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
  }
  word[1 + length] = ' ';
  word[2 + length] = '\0';
  return strchr(word + 1, ' ') == word + 1 + length && strstr(extensions, word) != NULL;
}

static bool is_folder(DIR *dir, const struct dirent *entry) {
  struct stat s;
  if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) return entry->d_type == DT_DIR;
  return fstatat(dirfd(dir), entry->d_name, &s, 0) == 0 && S_ISDIR(s.st_mode);
}

static int search(Search *s, int depth);

/* One entry of the folder at s->path. Returns an error number, or 0. */
static int search_entry(Search *s, DIR *dir, const struct dirent *entry, int depth) {
  size_t length = strlen(s->path);
  if (entry->d_name[0] == '.') return 0;
  if (is_folder(dir, entry)) {
    if (depth == 0) return 0;
    if (length + strlen(entry->d_name) + 2 > sizeof s->path) return ENAMETOOLONG;
    s->path[length] = '/';
    memcpy(s->path + length + 1, entry->d_name, strlen(entry->d_name) + 1);
    int failure = search(s, depth - 1);
    s->path[length] = '\0';
    return failure;
  }
  if (has_extension(entry->d_name, s->extensions) && !strings_add_path(s->found, s->path, entry->d_name)) {
    s->no_memory = true;
    return ENOMEM;
  }
  return 0;
}

/* Adds what lies in the folder at s->path, in any order. Returns an error number, or 0. */
static int search(Search *s, int depth) {
  DIR *dir = opendir(s->path);
  int failure = dir == NULL ? errno : 0;
  while (dir != NULL && failure == 0) {
    errno = 0;
    const struct dirent *entry = readdir(dir);
    failure = errno;
    if (entry == NULL) break;
    failure = search_entry(s, dir, entry, depth);
  }
  if (dir != NULL) closedir(dir);
  if (failure != 0 && s->wrong[0] == '\0') memcpy(s->wrong, s->path, sizeof s->wrong);
  return failure;
}

/* list:add_files(folder, extensions, depth) -> how many there were; or nil, message, with the list as it was
   Adds the paths of the files under a folder, sorted, that have one of the extensions (" jpg png ", in small letters); depth:
   how many folders deep. Hidden ones are left out. */
static int l_add_files(lua_State *L) {
  List *list = check_growing(L);
  const char *folder = luaL_checkstring(L, 2), *extensions = luaL_checkstring(L, 3);
  long depth = tensor_check_size(L, 4, "add_files: depth", 0), before = list->strings.count;
  size_t used = list->strings.used;
  lua_settop(L, 4);
  Search *s = lua_newuserdatauv(L, sizeof *s, 0);
  *s = (Search){.found = &list->strings, .extensions = extensions};
  if (strlen(folder) >= sizeof s->path) return luaL_argerror(L, 2, "the path is too long");
  memcpy(s->path, folder, strlen(folder) + 1);
  int failure = search(s, (int)depth);
  if (failure != 0) {
    list->strings.count = before;
    list->strings.used = used;
    if (s->no_memory) return no_memory(L);
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", s->wrong, strerror(failure));
    return 2;
  }
  strings_sort_paths(&list->strings, before);
  lua_pushinteger(L, list->strings.count - before);
  return 1;
}

/* ---- looking ---- */

/* list[i], or a method; nil where there is neither */
static int l_index(lua_State *L) {
  const Strings *s = strings_check(L, 1);
  int is_number;
  lua_Integer i = lua_tointegerx(L, 2, &is_number);
  if (!is_number) {
    luaL_getmetatable(L, list_type);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    return 1;
  }
  if (i < 1 || i > s->count) return lua_pushnil(L), 1;
  lua_pushstring(L, strings_get(s, i - 1));
  return 1;
}

static int l_len(lua_State *L) {
  lua_pushinteger(L, strings_check(L, 1)->count);
  return 1;
}

static int l_totable(lua_State *L) {
  const Strings *s = strings_check(L, 1);
  lua_createtable(L, (int)s->count, 0);
  for (long i = 0; i < s->count; i++) {
    lua_pushstring(L, strings_get(s, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int next_string(lua_State *L) {
  const Strings *s = strings_check(L, 1);
  lua_Integer i = luaL_optinteger(L, 2, 0) + 1;
  if (i > s->count) return 0;
  lua_pushinteger(L, i);
  lua_pushstring(L, strings_get(s, i - 1));
  return 2;
}

static int l_pairs(lua_State *L) {
  strings_check(L, 1);
  lua_pushcfunction(L, next_string);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  return 3;
}

static int l_tostring(lua_State *L) {
  const Strings *s = strings_check(L, 1);
  enum { SHOWN = 3 };
  lua_pushfstring(L, "%I strings", (lua_Integer)s->count);
  for (long i = 0; i < s->count && i < SHOWN; i++) {
    lua_pushfstring(L, "%s%s", i == 0 ? ": " : ", ", strings_get(s, i));
    lua_concat(L, 2);
  }
  if (s->count > SHOWN) {
    lua_pushliteral(L, " ...");
    lua_concat(L, 2);
  }
  return 1;
}

/* list:bytes() -> what it takes in memory, without the bytes of another list that it reads */
static int l_bytes(lua_State *L) {
  const Strings *s = strings_check(L, 1);
  lua_pushinteger(L, (lua_Integer)((s->borrowed ? 0 : s->room) + (size_t)s->places * sizeof *s->start));
  return 1;
}

/* list:select(numbers i32) -> those strings, sharing the bytes */
static int l_select(lua_State *L) {
  const Strings *from = strings_check_frozen(L, 1);
  tensor_check_dtype(L, 2, DTYPE_I32);
  const Tensor *numbers = tensor_push_in_layout(L, 2, LAYOUT_ROWS);
  long count = tensor_numel(numbers);
  for (long i = 0; i < count; i++)
    if (tensor_ints(numbers)[i] < 1 || tensor_ints(numbers)[i] > from->count)
      tensor_error(L, "strings: number %d is outside of 1..%I", (int)tensor_ints(numbers)[i], (lua_Integer)from->count);
  List *list = push_list(L);
  Strings *to = &list->strings;
  to->start = to->alloc(to->ud, NULL, 0, (size_t)count * sizeof *to->start);
  if (to->start == NULL) return no_memory(L);
  to->places = to->count = count;
  to->bytes = from->bytes;
  to->borrowed = list->frozen = true;
  for (long i = 0; i < count; i++) to->start[i] = from->start[tensor_ints(numbers)[i] - 1];
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, PARENT);
  return 1;
}

static int l_gc(lua_State *L) {
  strings_release(&check_list(L, 1)->strings);
  return 0;
}

static int l_is_strings(lua_State *L) {
  lua_pushboolean(L, strings_is(L, 1));
  return 1;
}

static const luaL_Reg methods[] = {
    {"add", l_add},
    {"append", l_append},
    {"add_files", l_add_files},
    {"totable", l_totable},
    {"select", l_select},
    {"bytes", l_bytes},
    {"__index", l_index},
    {"__len", l_len},
    {"__pairs", l_pairs},
    {"__tostring", l_tostring},
    {"__gc", l_gc},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {{"new", l_new}, {"is_strings", l_is_strings}, {NULL, NULL}};

int luaopen_feral_core_strings(lua_State *L) {
  luaL_newmetatable(L, list_type);
  luaL_setfuncs(L, methods, 0);
  luaL_newlib(L, functions);
  return 1;
}
