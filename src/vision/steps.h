/* steps.h -- lists of steps as Lua holds them. */
#ifndef FERAL_VISION_STEPS_H
#define FERAL_VISION_STEPS_H

#include "../kernels/image/steps.h"
#include "../tensor/tensor.h"

/* The list at 'arg'; raises where it is none. It lives as long as the userdata. */
const StepList *steps_check(lua_State *L, int arg);

#endif
