/* sources.c -- see sources.h. A source's user value is a table of what it keeps. */
#include "sources.h"

#include <string.h>

static const char *const source_type = "feral.source";

static int l_close(lua_State *L) {
  Source *s = luaL_checkudata(L, 1, source_type);
  if (s->kind != NULL && s->kind->close != NULL) s->kind->close(s);
  s->kind = NULL;
  return 0;
}

Source *source_check(lua_State *L, int arg) {
  Source *s = luaL_checkudata(L, arg, source_type);
  if (s->kind == NULL) tensor_error(L, "argument %d is a source that has been closed", arg);
  return s;
}

void source_push_metatable(lua_State *L) {
  if (!luaL_newmetatable(L, source_type)) return;
  lua_pushcfunction(L, l_close);
  lua_setfield(L, -2, "__gc");
}

void *source_push(lua_State *L, size_t size) {
  void *s = lua_newuserdatauv(L, size, 1);
  memset(s, 0, size);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  source_push_metatable(L);
  lua_setmetatable(L, -2);
  return s;
}

void source_keep(lua_State *L, int index, int value) {
  index = lua_absindex(L, index);
  value = lua_absindex(L, value);
  lua_getiuservalue(L, index, 1);
  lua_pushvalue(L, value);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  lua_pop(L, 1);
}

void source_keep_tensor(lua_State *L, int index, int value) {
  const Tensor *t = lua_touserdata(L, value);
  index = lua_absindex(L, index);
  if (!t->kept) tensor_error(L, "source: the tensor must be kept, or its scope would take it away");
  source_keep(L, index, value);
  lua_getiuservalue(L, value, 1); /* where the elements are */
  source_keep(L, index, -1);
  lua_pop(L, 1);
}
