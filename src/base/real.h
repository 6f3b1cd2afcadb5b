/* real.h -- the number type of tensors: float, or double in the build that checks gradients. */
#ifndef FERAL_REAL_H
#define FERAL_REAL_H

#ifdef REAL_DOUBLE
typedef double real;
#  define REAL_NAME "f64"
#else
typedef float real;
#  define REAL_NAME "f32"
#endif

#endif
