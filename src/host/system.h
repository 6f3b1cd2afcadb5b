/* system.h -- see system.c. */
#ifndef FERAL_SYSTEM_H
#define FERAL_SYSTEM_H

#include <lua.h>

int open_system(lua_State *L);

#endif
