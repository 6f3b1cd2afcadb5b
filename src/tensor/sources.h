/*
** sources.h -- sources of pixels (kernels/image/source.h) as Lua holds them, for all bindings that make or read one.
**
** A source is a userdata whose block is the kind's struct, and keeps alive all that it reads from: what hangs on to the
** userdata (a batch queue, as its user value) may fetch from any thread for as long.
*/
#ifndef FERAL_SOURCES_H
#define FERAL_SOURCES_H

#include "../kernels/image/source.h"
#include "tensor.h"

/* The source at 'arg', or an error. It and all that it points to live as long as the userdata. */
Source *source_check(lua_State *L, int arg);

/* Pushes a source of 'size' bytes, all zero; the caller fills it in. Without a kind it is none yet. */
void *source_push(lua_State *L, size_t size);

/* Lets the source at 'index' keep the value at 'value' ... */
void source_keep(lua_State *L, int index, int value);
/* ... or the tensor, which must be kept (it outlives scopes), and its storage. */
void source_keep_tensor(lua_State *L, int index, int value);

/* The metatable of sources, which src/vision/source.c fills with methods. */
void source_push_metatable(lua_State *L);

#endif
