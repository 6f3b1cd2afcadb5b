/*
** strings.h -- many short texts in two blocks of memory: their bytes, each text ended by a zero byte, and where each begins.
** A list of millions of paths costs its bytes and 8 more a path. No lua_State here.
*/
#ifndef FERAL_STRINGS_H
#define FERAL_STRINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Strings {
  char *bytes;
  int64_t *start;                                                      /* (count): text i begins at bytes + start[i] */
  size_t used, room;                                                   /* bytes */
  long count, places;                                                  /* texts */
  bool borrowed;                                                       /* the bytes are another list's */
  void *(*alloc)(void *ud, void *block, size_t old_size, size_t size); /* Lua's own allocator, called without Lua */
  void *ud;
} Strings;

static inline const char *strings_get(const Strings *s, long i) {
  return s->bytes + s->start[i];
}

/* Adds a text of 'length' bytes; one that equals the last shares its bytes. False, and nothing changed, without memory. */
bool strings_add(Strings *s, const char *text, size_t length);

/* Adds "folder/name". */
bool strings_add_path(Strings *s, const char *folder, const char *name);

/* Sorts the texts from number 'first' on as paths: by bytes, a folder's files at the folder's own place. */
void strings_sort_paths(Strings *s, long first);

/* Gives the memory back that later texts would have taken. */
void strings_trim(Strings *s);

void strings_release(Strings *s);

#endif
