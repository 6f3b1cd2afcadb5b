/*
** storage.h -- the elements of tensors, and scopes that give them back. Private to src/tensor.
**
** A storage that nobody needs any more goes to a free list of its exact size, from which the next one of that size
** is taken: Lua's collector never has to find it, and a training loop under a scope reaches a flat peak in one step.
*/
#ifndef FERAL_STORAGE_H
#define FERAL_STORAGE_H

#include "tensor.h"

typedef struct Storage {
  size_t size; /* bytes of data */
  long serial; /* counts storages as they are pushed, so that what was made since some moment can be told */
  long writes; /* counts how often its elements were changed in place */
  int holds;   /* by the tape, of a gradient that lies in it */
  int owner;   /* depth of the scope that gives it back; 0: the collector does; -1: it lies in a free list */
  void *data;  /* inside this same userdata, aligned to 64 bytes */
} Storage;

/* Pushes a storage of 'size' bytes, recycled if there is one, and returns it. */
Storage *storage_push(lua_State *L, size_t size);

/* Puts the storage at the top of the stack into its free list and pops it. */
void storage_recycle(lua_State *L);

/* Tells the innermost scope, if there is one, of the new tensor at the top of the stack and its storage. */
void scope_record(lua_State *L, Storage *storage);

#endif
