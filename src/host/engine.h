/* engine.h -- what the host knows of the engine: its modules by name, for the instruction set chosen. */
#ifndef FERAL_ENGINE_H
#define FERAL_ENGINE_H

#include <lua.h>

typedef struct EngineModule {
  const char *name; /* "tensor": feral.core.tensor; NULL ends the list */
  lua_CFunction open;
} EngineModule;

/* isa.c: the best instruction set that this processor and this build have, or the one FERAL_ISA names. */
const EngineModule *isa_modules(lua_State *L);
const char *isa_name(void);

/* isa.c: makes require find feral.* (C modules and the bundled Lua library); pushes nothing. */
void engine_register(lua_State *L);

/* The entry of the loadable module: require "feral" in a stock lua5.4. */
int luaopen_feral(lua_State *L);

#endif
