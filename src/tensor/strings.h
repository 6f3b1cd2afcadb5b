/* strings.h -- lists of strings as Lua sees them: base/strings.h in a userdata. */
#ifndef FERAL_TENSOR_STRINGS_H
#define FERAL_TENSOR_STRINGS_H

#include "../base/strings.h"
#include "tensor.h"

/* The list of strings at 'arg'. Where 'what' is going to read it later, it grows no more from here on. */
const Strings *strings_check(lua_State *L, int arg);
const Strings *strings_check_frozen(lua_State *L, int arg);
bool strings_is(lua_State *L, int arg);

int luaopen_feral_core_strings(lua_State *L);

#endif
