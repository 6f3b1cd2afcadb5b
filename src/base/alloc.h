/*
** alloc.h -- the pool: the allocator that the host hands to lua_newstate.
** Every byte the engine uses passes through it, so it can be capped, counted and made to fail on purpose.
*/
#ifndef FERAL_ALLOC_H
#define FERAL_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Pool {
  size_t live;    /* bytes handed out now */
  size_t peak;    /* largest 'live' so far */
  size_t cap;     /* requests beyond it fail; 0: no cap */
  size_t blocks;  /* blocks handed out now */
  long requests;  /* requests for more memory, ever */
  long fail_from; /* requests counted from here on fail; 0: none does */
} Pool;

/* A lua_Alloc; 'ud' is the Pool. Giving back and shrinking never fail. */
void *pool_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* True when 'size' more bytes would pass the cap. */
bool pool_would_overflow(const Pool *pool, size_t size);

/* *product = a * b; false on overflow. The one checked multiplication for sizes. */
bool size_multiply(size_t a, size_t b, size_t *product);

#endif
