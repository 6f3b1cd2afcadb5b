/* repl.h -- the prompt. The dialogue itself is lua/feral/host/repl.lua; here are the keyboard, the history and protected calls. */
#ifndef FERAL_REPL_H
#define FERAL_REPL_H

#include <lua.h>

/* Reads, runs and prints until the end of the input. */
void repl_run(lua_State *L);

#endif
