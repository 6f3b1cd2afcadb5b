/* bundle.h -- the Lua library inside the program. The list itself is made by the Makefile from lua/. */
#ifndef FERAL_BUNDLE_H
#define FERAL_BUNDLE_H

typedef struct BundleFile {
  const char *module; /* "feral.nn.linear"; NULL ends the list */
  const char *path;   /* "lua/feral/nn/layers/linear.lua" */
  const char *text, *end;
} BundleFile;

extern const BundleFile bundle_files[];

#define BUNDLE_FILE(name, path)                                                                                        \
  extern const char name[], name##_end[];                                                                              \
  __asm__(".section .rodata\n" #name ":\n.incbin \"" path "\"\n" #name "_end:\n.byte 0\n.text\n");

#endif
