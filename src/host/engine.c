/* engine.c -- the engine's modules, one line each. Compiled once an instruction set; isa.c picks one of the lists. */
#include "engine.h"

#include <stddef.h>

/* clang-format off */
#define MODULES(X) \
  X(tensor) \
  X(scope) \
  X(strings) \
  X(create) \
  X(view) \
  X(arith) \
  X(reduce) \
  X(index) \
  X(rows) \
  X(matmul) \
  X(activation) \
  X(hardswish) \
  X(softmax) \
  X(loss) \
  X(pool) \
  X(batchnorm) \
  X(layernorm) \
  X(dropout) \
  X(svm) \
  X(files) \
  X(machine) \
  X(draw) \
  X(face_draw) \
  X(pixel_text) \
  X(source) \
  X(conv2d) \
  X(optim) \
  X(lstm) \
  X(convlstm) \
  X(plan) \
  X(image) \
  X(transform) \
  X(paste) \
  X(steps) \
  X(batches) \
  X(hog) \
  X(cascade) \
  X(marks)
/* clang-format on */

#define DECLARE(name) int luaopen_feral_core_##name(lua_State *L);
#define ENTRY(name) {#name, luaopen_feral_core_##name},

MODULES(DECLARE)

extern const EngineModule engine_modules[];
const EngineModule engine_modules[] = {MODULES(ENTRY){NULL, NULL}};
