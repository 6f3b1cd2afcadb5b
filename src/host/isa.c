/* isa.c -- chooses the engine for this processor, and teaches 'require' where feral's modules are. */
#include <cblas.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/bundle.h"
#include "../base/parallel.h"
#include "engine.h"
#include "signals.h"
#include "system.h"

/* ---- which instruction set ---- */

#ifdef ISA_avx512
extern const EngineModule engine_modules_avx512[];
static int has_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#ifdef ISA_avx2
extern const EngineModule engine_modules_avx2[];
static int has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
#endif
#ifdef ISA_baseline
extern const EngineModule engine_modules_baseline[];
static int has_baseline(void) {
  return 1;
}
#endif

static const struct {
  const char *name;
  const EngineModule *modules;
  int (*supported)(void);
} isas[] = {
/* best first */
#ifdef ISA_avx512
    {"avx512", engine_modules_avx512, has_avx512},
#endif
#ifdef ISA_avx2
    {"avx2", engine_modules_avx2, has_avx2},
#endif
#ifdef ISA_baseline
    {"baseline", engine_modules_baseline, has_baseline},
#endif
};
enum { ISA_COUNT = sizeof isas / sizeof isas[0] };
static int chosen = -1;

const EngineModule *isa_modules(lua_State *L) {
  const char *wanted = getenv("FERAL_ISA");
  for (int i = 0; i < ISA_COUNT && chosen < 0; i++)
    if (isas[i].supported() && (wanted == NULL || strcmp(wanted, isas[i].name) == 0)) chosen = i;
  if (chosen < 0)
    luaL_error(L, "FERAL_ISA=%s: this build or this processor does not have it (avx512, avx2, baseline)",
               wanted != NULL ? wanted : "");
  return isas[chosen].modules;
}

const char *isa_name(void) {
  return chosen < 0 ? "none" : isas[chosen].name;
}

/* ---- require ---- */

static lua_CFunction find_core(lua_State *L, const char *name) {
  for (const EngineModule *m = isa_modules(L); m->name != NULL; m++)
    if (strcmp(m->name, name) == 0) return m->open;
  return NULL;
}

static const BundleFile *find_bundled(const char *module) {
  for (const BundleFile *f = bundle_files; f->module != NULL; f++)
    if (strcmp(f->module, module) == 0) return f;
  return NULL;
}

/* Loads a library file: from the folder FERAL_LUA where that is set (for work on the library), else from the bundle. */
static int load_bundled(lua_State *L, const BundleFile *file) {
  const char *root = getenv("FERAL_LUA");
  const char *under = strncmp(file->path, "lua/", 4) == 0 ? file->path + 4 : NULL;
  if (root != NULL && root[0] != '\0' && under != NULL)
    return luaL_loadfile(L, lua_pushfstring(L, "%s/%s", root, under));
  lua_pushfstring(L, "@%s", file->path);
  return luaL_loadbufferx(L, file->text, (size_t)(file->end - file->text), lua_tostring(L, -1), "t");
}

/* The searcher: feral.core.NAME is a C module, other names are files of the bundle. */
static int l_search(lua_State *L) {
  static const char core[] = "feral.core.";
  const char *name = luaL_checkstring(L, 1);
  if (strncmp(name, core, sizeof core - 1) == 0) {
    lua_CFunction open = find_core(L, name + sizeof core - 1);
    if (open == NULL) return lua_pushfstring(L, "no engine module '%s'", name), 1;
    lua_pushcfunction(L, open);
    lua_pushliteral(L, "(engine)");
    return 2;
  }
  const BundleFile *file = find_bundled(name);
  if (file == NULL) return lua_pushfstring(L, "no library file '%s' in feral", name), 1;
  if (load_bundled(L, file) != LUA_OK) return lua_error(L);
  lua_pushstring(L, file->path);
  return 2;
}

enum { THREADS_MOST = 256 };

/* engine.modules() -> the names of all modules of the library, sorted. */
static int l_modules(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; bundle_files[i].module != NULL; i++) {
    lua_pushstring(L, bundle_files[i].module);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* engine.source(module) -> the text of a library file, or nil. */
static int l_source(lua_State *L) {
  const BundleFile *file = find_bundled(luaL_checkstring(L, 1));
  if (file == NULL) return 0;
  lua_pushlstring(L, file->text, (size_t)(file->end - file->text));
  return 1;
}

/* threads([n]) -> how many threads kernels use, from now on n */
static int l_threads(lua_State *L) {
  lua_Integer wanted = luaL_optinteger(L, 1, omp_get_max_threads());
  luaL_argcheck(L, wanted >= 1 && wanted <= THREADS_MOST, 1, "1 to 256 threads");
  if (!lua_isnoneornil(L, 1)) omp_set_num_threads((int)wanted);
  lua_pushinteger(L, omp_get_max_threads());
  return 1;
}

static const luaL_Reg functions[] = {
    {"modules", l_modules}, {"source", l_source}, {"threads", l_threads}, {NULL, NULL}};

static int open_engine(lua_State *L) {
  luaL_newlib(L, functions);
  lua_pushstring(L, isa_name());
  lua_setfield(L, -2, "isa");
  lua_pushstring(L, openblas_get_config());
  lua_setfield(L, -2, "blas");
  return 1;
}

void engine_register(lua_State *L) {
  isa_modules(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "searchers");
  for (lua_Integer i = luaL_len(L, -1); i >= 2; i--) { /* second, behind package.preload */
    lua_geti(L, -1, i);
    lua_seti(L, -2, i + 1);
  }
  lua_pushcfunction(L, l_search);
  lua_seti(L, -2, 2);
  lua_pop(L, 2);
  luaL_requiref(L, "feral.core.engine", open_engine, 0);
  luaL_requiref(L, "feral.core.system", open_system, 0);
  luaL_requiref(L, "feral.core.signals", open_signals, 0);
  luaL_requiref(L, "feral.core.tensor", find_core(L, "tensor"), 0); /* every other module pushes tensors */
  lua_pop(L, 4);
}

int luaopen_feral(lua_State *L) {
  engine_register(L);
  const BundleFile *file = find_bundled("feral");
  if (file == NULL || load_bundled(L, file) != LUA_OK) return lua_error(L);
  lua_pushliteral(L, "feral");
  lua_call(L, 1, 1);
  return 1;
}
