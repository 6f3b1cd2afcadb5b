/* alloc.c -- see alloc.h. */
#include "alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

static void account(Pool *pool, size_t gone, size_t come) {
  pool->live += come - gone;
  if (pool->live > pool->peak) pool->peak = pool->live;
}

/* Counts a request for more memory; true when it is one that must fail. */
static bool refused(Pool *pool, size_t more) {
  pool->requests++;
  if (pool->fail_from > 0 && pool->requests >= pool->fail_from) return true;
  return pool_would_overflow(pool, more);
}

bool pool_would_overflow(const Pool *pool, size_t size) {
  return pool->cap > 0 && (size > pool->cap || pool->live > pool->cap - size);
}

/* Asks for pages of 2 MB, where the system gives them on request: a network's weights and activations fill more of the usual
   pages than a processor keeps track of. */
static void prefer_large_pages(void *block, size_t size) {
#ifdef MADV_HUGEPAGE
  const uintptr_t page = 2 << 20, start = (uintptr_t)block;
  if (size < 2 * page) return;
  uintptr_t first = (start + page - 1) / page * page, end = (start + size) / page * page;
  madvise((void *)first, end - first, MADV_HUGEPAGE); /* where it fails the usual pages stay */
#else
  (void)block, (void)size;
#endif
}

void *pool_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
  Pool *pool = ud;
  if (ptr == NULL) osize = 0; /* Lua passes the kind of object here */
  if (nsize == 0) {
    if (ptr != NULL) pool->blocks--;
    account(pool, osize, 0);
    free(ptr);
    return NULL;
  }
  if (nsize > osize && refused(pool, nsize - osize)) return NULL;
  void *block = realloc(ptr, nsize);
  if (block == NULL) return nsize <= osize ? ptr : NULL;
  if (ptr == NULL) pool->blocks++;
  prefer_large_pages(block, nsize);
  account(pool, osize, nsize);
  return block;
}

bool size_multiply(size_t a, size_t b, size_t *product) {
  if (b != 0 && a > SIZE_MAX / b) return false;
  *product = a * b;
  return true;
}
