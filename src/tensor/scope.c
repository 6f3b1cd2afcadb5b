/*
** scope.c -- storages, their free lists, and scopes.
**
** The registry holds one 'Heap' userdata: its user value 1 is the table of free lists (byte size -> the first free
** storage, whose user value is the next), user value 2 the innermost scope. A scope's user value 1 is the list of the
** tensors made in it, user value 2 the scope around it.
*/
#include "storage.h"

#include <string.h>

#include "../base/alloc.h"

typedef struct Heap {
  int depth;       /* of the innermost scope; 0: none */
  long serial;     /* of the youngest storage */
  size_t in_use;   /* bytes of storages that scopes own */
  size_t recycled; /* bytes in free lists */
  long headers;    /* released since the last collection: garbage that the collector thinks little of */
} Heap;

typedef struct Scope {
  int depth; /* 0: closed */
  int count; /* of tensors recorded */
} Scope;

enum { FREE_LISTS = 1, INNERMOST = 2, RECORDED = 1, OUTER = 2, NEXT_FREE = 1, RECYCLED = -1 };
enum { ALIGNMENT = 64, SLACK = TENSOR_SLACK, RECYCLED_LEAST = 64 << 20, HEADERS_MOST = 20000 };
static const char heap_key = 'h';
static const char *const scope_type = "feral.scope";

/* Pushes the heap, made on first use. */
static Heap *push_heap(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &heap_key) == LUA_TUSERDATA) return lua_touserdata(L, -1);
  lua_pop(L, 1);
  Heap *heap = lua_newuserdatauv(L, sizeof *heap, 2);
  memset(heap, 0, sizeof *heap);
  lua_newtable(L);
  lua_setiuservalue(L, -2, FREE_LISTS);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &heap_key);
  return heap;
}

/* The pool behind this state, or NULL when the allocator is another program's. */
static Pool *pool_of(lua_State *L) {
  void *ud;
  return lua_getallocf(L, &ud) == pool_alloc ? ud : NULL;
}

/* ---- storages ---- */

/* Drops every free list of the heap at the top of the stack and lets the collector have them. */
static void trim(lua_State *L, Heap *heap) {
  heap->recycled = 0;
  lua_newtable(L);
  lua_setiuservalue(L, -2, FREE_LISTS);
  lua_gc(L, LUA_GCCOLLECT);
}

/* Replaces the heap at the top of the stack by a free storage of 'size' bytes; false, and nothing changed, if none. */
static bool take_free(lua_State *L, Heap *heap, size_t size) {
  lua_getiuservalue(L, -1, FREE_LISTS);
  if (lua_rawgeti(L, -1, (lua_Integer)size) != LUA_TUSERDATA) {
    lua_pop(L, 2);
    return false;
  }
  lua_getiuservalue(L, -1, NEXT_FREE);
  lua_rawseti(L, -3, (lua_Integer)size); /* an existing key: takes no memory */
  lua_pushnil(L);
  lua_setiuservalue(L, -2, NEXT_FREE);
  lua_replace(L, -3);
  lua_pop(L, 1);
  heap->recycled -= size;
  return true;
}

/* More free than used means that the sizes have changed: the old ones are not kept beside the new. */
static bool free_lists_outgrown(lua_State *L, const Heap *heap, size_t size) {
  Pool *pool = pool_of(L);
  if (heap->recycled == 0) return false;
  if (pool != NULL && pool_would_overflow(pool, size + ALIGNMENT)) return true;
  return heap->recycled > RECYCLED_LEAST && heap->recycled > heap->in_use;
}

static void *aligned(void *p) {
  uintptr_t address = (uintptr_t)p;
  return (void *)((address + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

Storage *storage_push(lua_State *L, size_t size) {
  luaL_checkstack(L, 6, "tensor");
  Heap *heap = push_heap(L);
  long serial = ++heap->serial;
  if (take_free(L, heap, size)) {
    Storage *storage = lua_touserdata(L, -1);
    storage->owner = storage->holds = 0;
    storage->serial = serial;
    return storage;
  }
  if (free_lists_outgrown(L, heap, size)) trim(L, heap);
  lua_pop(L, 1);
  size_t whole = size + sizeof(Storage) + ALIGNMENT + SLACK;
  if (whole < size) luaL_error(L, "not enough memory");
  Storage *storage = lua_newuserdatauv(L, whole, 1);
  *storage = (Storage){.size = size, .serial = serial, .data = aligned(storage + 1)};
  return storage;
}

void storage_recycle(lua_State *L) {
  Storage *storage = lua_touserdata(L, -1);
  Heap *heap = push_heap(L);
  lua_getiuservalue(L, -1, FREE_LISTS);
  lua_rawgeti(L, -1, (lua_Integer)storage->size);
  lua_setiuservalue(L, -4, NEXT_FREE);
  lua_pushvalue(L, -3);
  lua_rawseti(L, -2, (lua_Integer)storage->size);
  storage->owner = RECYCLED;
  heap->recycled += storage->size;
  lua_pop(L, 3);
}

real *scratch_push(lua_State *L, size_t count) {
  size_t size;
  if (!size_multiply(count, sizeof(real), &size)) luaL_error(L, "not enough memory");
  return storage_push(L, size)->data;
}

void scratch_release(lua_State *L, int index) {
  lua_pushvalue(L, index);
  storage_recycle(L);
}

/* ---- scopes ---- */

void scope_record(lua_State *L, Storage *storage) {
  luaL_checkstack(L, 5, "tensor");
  Heap *heap = push_heap(L);
  if (heap->depth == 0) {
    lua_pop(L, 1);
    return;
  }
  lua_getiuservalue(L, -1, INNERMOST);
  Scope *scope = lua_touserdata(L, -1);
  lua_getiuservalue(L, -1, RECORDED);
  lua_pushvalue(L, -4);
  lua_rawseti(L, -2, scope->count + 1);
  scope->count++;
  if (storage != NULL) {
    storage->owner = heap->depth;
    heap->in_use += storage->size;
  }
  lua_pop(L, 3);
}

/* Pushes the storage of the tensor at the top of the stack. */
static Storage *push_storage_of(lua_State *L) {
  lua_getiuservalue(L, -1, 1);
  return lua_touserdata(L, -1);
}

/* Takes the elements from the tensor at the top of the stack; recycles them if the scope of 'depth' owns them. */
static void release_tensor(lua_State *L, Heap *heap, int depth) {
  Tensor *t = lua_touserdata(L, -1);
  if (t->data == NULL) return;
  Storage *storage = push_storage_of(L);
  heap->headers++;
  t->data = NULL;
  lua_pushnil(L);
  lua_setiuservalue(L, -3, 1);
  if (storage->owner != depth) {
    lua_pop(L, 1);
    return;
  }
  heap->in_use -= storage->size;
  storage_recycle(L);
}

/* Hands the kept or returned tensor at the top of the stack, and its storage, to the scope around. */
static void hand_out(lua_State *L, Heap *heap, int depth, int outer_index) {
  Tensor *t = lua_touserdata(L, -1);
  if (t->data == NULL) return;
  Scope *outer = t->kept ? NULL : lua_touserdata(L, outer_index);
  Storage *storage = push_storage_of(L);
  lua_pop(L, 1);
  if (storage->owner == depth || (t->kept && storage->owner > 0)) {
    storage->owner = outer != NULL ? outer->depth : 0;
    if (outer == NULL) heap->in_use -= storage->size;
  }
  if (outer == NULL) return;
  lua_getiuservalue(L, outer_index, RECORDED);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, outer->count + 1);
  outer->count++; /* not before: without memory there is no entry */
  lua_pop(L, 1);
}

static bool is_returned(lua_State *L, const Tensor *t, int first, int last) {
  for (int i = first; i <= last; i++)
    if (lua_touserdata(L, i) == (const void *)t) return true;
  return false;
}

/* The collector waits until memory has doubled, which beside large storages is long: the headers of released tensors and
   what hangs on them (the tape) would pile up. So it runs when there are many, at the end of an outermost scope. */
static void collect_headers(lua_State *L, Heap *heap) {
  if (heap->depth > 0 || heap->headers < HEADERS_MOST || !lua_gc(L, LUA_GCISRUNNING)) return;
  heap->headers = 0;
  lua_gc(L, LUA_GCCOLLECT);
}

/* Closes the scope at 'index'; tensors at stack indices first..last go to the scope around. */
static void close_scope(lua_State *L, int index, int first, int last) {
  Scope *scope = lua_touserdata(L, index);
  luaL_checkstack(L, 10, "scope");
  Heap *heap = push_heap(L);
  int heap_index = lua_gettop(L), outer_index = heap_index + 1, list_index = heap_index + 2;
  int depth = scope->depth;
  lua_getiuservalue(L, index, OUTER);
  lua_pushvalue(L, outer_index);
  lua_setiuservalue(L, heap_index, INNERMOST);
  scope->depth = 0;
  heap->depth = depth - 1;
  lua_getiuservalue(L, index, RECORDED);
  for (int pass = 0; pass < 2; pass++) /* first those that stay: they may share a storage with others */
    for (int i = 1; i <= scope->count; i++) {
      lua_rawgeti(L, list_index, i);
      const Tensor *t = lua_touserdata(L, -1);
      bool stays = t->kept || is_returned(L, t, first, last);
      if (stays && pass == 0) hand_out(L, heap, depth, outer_index);
      if (!stays && pass == 1) release_tensor(L, heap, depth);
      lua_pop(L, 1);
    }
  lua_settop(L, heap_index - 1);
  lua_pushnil(L);
  lua_setiuservalue(L, index, RECORDED);
  collect_headers(L, heap);
}

/* Closes the open scope at index 1, and before it those opened inside it that an error or a coroutine left open. */
static void close_with_inner(lua_State *L, int first, int last) {
  const Scope *scope = luaL_checkudata(L, 1, scope_type);
  while (scope->depth > 0) {
    push_heap(L);
    lua_getiuservalue(L, -1, INNERMOST);
    bool own = lua_touserdata(L, -1) == (const void *)scope;
    close_scope(L, lua_gettop(L), own ? first : 1, own ? last : 0);
    lua_pop(L, 2);
  }
}

/* ---- Lua ---- */

/* scope() -> an object for <close>: leaving it gives back all tensors made since, but the kept ones. */
static int l_scope(lua_State *L) {
  Scope *scope = lua_newuserdatauv(L, sizeof *scope, 2);
  *scope = (Scope){0, 0};
  luaL_setmetatable(L, scope_type);
  lua_newtable(L);
  lua_setiuservalue(L, -2, RECORDED);
  Heap *heap = push_heap(L);
  lua_getiuservalue(L, -1, INNERMOST);
  lua_setiuservalue(L, -3, OUTER);
  lua_pushvalue(L, -2);
  lua_setiuservalue(L, -2, INNERMOST);
  scope->depth = ++heap->depth;
  lua_pop(L, 1);
  return 1;
}

/* scope:close(); also what <close> calls. Closing twice does nothing. */
static int l_close(lua_State *L) {
  lua_settop(L, 1);
  close_with_inner(L, 1, 0);
  return 0;
}

/* scope:leave(...) -> ...: closes the scope; tensors among the arguments live on in the scope around. */
static int l_leave(lua_State *L) {
  int last = lua_gettop(L);
  close_with_inner(L, 2, last);
  return last - 1;
}

/* keep(t) -> t: it outlives every scope, until the collector finds it unused. */
static int l_keep(lua_State *L) {
  tensor_check(L, 1)->kept = true;
  lua_settop(L, 1);
  return 1;
}

/* ---- gradients: what the tape made, and nobody needs any more, is given back before its scope ends ---- */

/* The storage of the tensor at index 1, or NULL when it is released. */
static Storage *storage_of_first(lua_State *L) {
  const Tensor *t = lua_touserdata(L, 1);
  if (!tensor_is(L, 1) || t->data == NULL) return NULL;
  lua_settop(L, 1);
  return push_storage_of(L);
}

/* mark() -> a number for the moment: what is made later is younger */
static int l_mark(lua_State *L) {
  lua_pushinteger(L, push_heap(L)->serial);
  return 1;
}

/* hold(t) -> t: as often as it is held it must be dropped before it can be given back */
static int l_hold(lua_State *L) {
  Storage *storage = storage_of_first(L);
  if (storage != NULL) storage->holds++;
  lua_settop(L, 1);
  return 1;
}

/* drop(t, mark): the last to drop a tensor that was made in a scope since the mark, and is not kept, gives it back */
static int l_drop(lua_State *L) {
  lua_Integer mark = luaL_checkinteger(L, 2);
  Storage *storage = storage_of_first(L);
  if (storage == NULL || --storage->holds > 0) return 0;
  const Tensor *t = lua_touserdata(L, 1);
  if (storage->serial <= mark || t->kept || storage->owner <= 0) return 0;
  Heap *heap = push_heap(L);
  lua_pushvalue(L, 1);
  release_tensor(L, heap, storage->owner);
  return 0;
}

/* is_own(t, mark): whether it was made since the mark and nobody but the asker holds it, so that it may be changed */
static int l_is_own(lua_State *L) {
  lua_Integer mark = luaL_checkinteger(L, 2);
  const Storage *storage = storage_of_first(L);
  const Tensor *t = lua_touserdata(L, 1);
  lua_pushboolean(L,
                  storage != NULL && storage->serial > mark && storage->holds == 1 && !t->kept && tensor_is_dense(t));
  return 1;
}

/* trim(): gives the free lists back. */
static int l_trim(lua_State *L) {
  trim(L, push_heap(L));
  return 0;
}

static void set_count(lua_State *L, const char *name, size_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

/* memory() -> {live, peak, cap, blocks, requests, recycled} in bytes and counts; a stock lua knows the last alone. */
static int l_memory(lua_State *L) {
  const Heap *heap = push_heap(L);
  const Pool *pool = pool_of(L);
  Pool now = pool != NULL ? *pool : (Pool){0};
  lua_createtable(L, 0, 6);
  set_count(L, "recycled", heap->recycled);
  if (pool == NULL) return 1;
  set_count(L, "live", now.live);
  set_count(L, "peak", now.peak);
  set_count(L, "cap", now.cap);
  set_count(L, "blocks", now.blocks);
  set_count(L, "requests", (size_t)now.requests);
  return 1;
}

static Pool *check_pool(lua_State *L) {
  Pool *pool = pool_of(L);
  if (pool == NULL) luaL_error(L, "memory limits need the feral program: this state has another allocator");
  return pool;
}

/* memory_cap(bytes): requests beyond fail with "not enough memory"; 0 for no cap. */
static int l_memory_cap(lua_State *L) {
  lua_Integer cap = luaL_checkinteger(L, 1);
  luaL_argcheck(L, cap >= 0, 1, "bytes must not be negative");
  check_pool(L)->cap = (size_t)cap;
  return 0;
}

/* fail_after(n): all requests for memory after the next n fail; fail_after() ends that. For tests. */
static int l_fail_after(lua_State *L) {
  Pool *pool = check_pool(L);
  pool->fail_from = lua_isnoneornil(L, 1) ? 0 : pool->requests + 1 + (long)luaL_checkinteger(L, 1);
  return 0;
}

/* reset_peak(): the peak starts again from what is live now. */
static int l_reset_peak(lua_State *L) {
  Pool *pool = check_pool(L);
  pool->peak = pool->live;
  return 0;
}

static const luaL_Reg scope_methods[] = {{"close", l_close}, {"leave", l_leave}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"scope", l_scope},
    {"keep", l_keep},
    {"mark", l_mark},
    {"hold", l_hold},
    {"drop", l_drop},
    {"is_own", l_is_own},
    {"trim", l_trim},
    {"memory", l_memory},
    {"memory_cap", l_memory_cap},
    {"fail_after", l_fail_after},
    {"reset_peak", l_reset_peak},
    {NULL, NULL},
};

int luaopen_feral_core_scope(lua_State *L) {
  luaL_newmetatable(L, scope_type);
  luaL_newlib(L, scope_methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, l_close);
  lua_setfield(L, -2, "__close");
  luaL_newlib(L, functions);
  return 1;
}
