/* strings.c -- see strings.h. */
#include "strings.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 1024, FIRST_PLACES = 64 };

/* Half as much again, and at least 'least'. */
static size_t grown(size_t now, size_t least, size_t first) {
  size_t more = now + now / 2 + first;
  return more < least ? least : more;
}

static bool reserve_bytes(Strings *s, size_t length) {
  if (s->used + length <= s->room) return true;
  size_t room = grown(s->room, s->used + length, FIRST_ROOM);
  char *bytes = s->alloc(s->ud, s->bytes, s->room, room);
  if (bytes == NULL) return false;
  s->bytes = bytes;
  s->room = room;
  return true;
}

static bool reserve_place(Strings *s) {
  if (s->count < s->places) return true;
  size_t places = grown((size_t)s->places, 0, FIRST_PLACES);
  int64_t *start = s->alloc(s->ud, s->start, (size_t)s->places * sizeof *start, places * sizeof *start);
  if (start == NULL) return false;
  s->start = start;
  s->places = (long)places;
  return true;
}

static bool equals_last(const Strings *s, const char *text, size_t length) {
  if (s->count == 0) return false;
  const char *last = strings_get(s, s->count - 1);
  return strncmp(last, text, length) == 0 && last[length] == '\0';
}

bool strings_add(Strings *s, const char *text, size_t length) {
  if (!reserve_place(s)) return false;
  if (equals_last(s, text, length)) {
    s->start[s->count] = s->start[s->count - 1];
    s->count++;
    return true;
  }
  if (!reserve_bytes(s, length + 1)) return false;
  memcpy(s->bytes + s->used, text, length);
  s->bytes[s->used + length] = '\0';
  s->start[s->count++] = (int64_t)s->used;
  s->used += length + 1;
  return true;
}

bool strings_add_path(Strings *s, const char *folder, const char *name) {
  size_t before = strlen(folder), after = strlen(name);
  if (!reserve_place(s) || !reserve_bytes(s, before + after + 2)) return false;
  char *to = s->bytes + s->used;
  memcpy(to, folder, before + 1);
  to[before] = '/';
  memcpy(to + before + 1, name, after + 1);
  s->start[s->count++] = (int64_t)s->used;
  s->used += before + after + 2;
  return true;
}

/* A slash comes before all else, so that what a folder holds stands where the folder stands among its neighbours. */
static int by_path(const void *left, const void *right) {
  const unsigned char *a = (const unsigned char *)(intptr_t) * (const int64_t *)left,
                      *b = (const unsigned char *)(intptr_t) * (const int64_t *)right;
  while (*a == *b && *a != 0) {
    a++;
    b++;
  }
  int x = *a == '/' ? 1 : *a == 0 ? 0 : *a + 1, y = *b == '/' ? 1 : *b == 0 ? 0 : *b + 1;
  return x - y;
}

void strings_sort_paths(Strings *s, long first) {
  int64_t base = (int64_t)(intptr_t)s->bytes;
  for (long i = first; i < s->count; i++) s->start[i] += base; /* addresses, for a comparison that sees nothing else */
  if (first < s->count) qsort(s->start + first, (size_t)(s->count - first), sizeof *s->start, by_path);
  for (long i = first; i < s->count; i++) s->start[i] -= base;
}

void strings_trim(Strings *s) {
  if (s->room > s->used && s->used > 0 && !s->borrowed) {
    char *bytes = s->alloc(s->ud, s->bytes, s->room, s->used);
    if (bytes != NULL) s->bytes = bytes;
    if (bytes != NULL) s->room = s->used;
  }
  if (s->places <= s->count || s->count == 0) return;
  int64_t *start = s->alloc(s->ud, s->start, (size_t)s->places * sizeof *start, (size_t)s->count * sizeof *start);
  if (start == NULL) return;
  s->start = start;
  s->places = s->count;
}

void strings_release(Strings *s) {
  if (s->bytes != NULL && !s->borrowed) s->alloc(s->ud, s->bytes, s->room, 0);
  if (s->start != NULL) s->alloc(s->ud, s->start, (size_t)s->places * sizeof *s->start, 0);
  *s = (Strings){.alloc = s->alloc, .ud = s->ud};
}
