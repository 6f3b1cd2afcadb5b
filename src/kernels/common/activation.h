/* activation.h -- activation functions of vectors, beside those of base/simd.h. */
#ifndef FERAL_ACTIVATION_H
#define FERAL_ACTIVATION_H

#include "../../base/simd.h"

/* e^x - 1, exact near 0 too: tanh(x/2) = (e^x - 1) / (e^x + 1). */
static inline vreal expm1_of(vreal x) {
  return vtanh(x * (real)0.5) * (vexp(x) + 1);
}

/* x, or a number as far out as matters: where a factor of it is 0 an infinity would make a NaN of the product. */
static inline vreal held(vreal x) {
  return vmin(vset(1000), vmax(vset(-1000), x));
}

#ifdef REAL_DOUBLE
static inline vreal normal_cdf(vreal x) {
  for (int j = 0; j < VLANES; j++) x[j] = 0.5 * erfc(x[j] * -0.7071067811865476);
  return x;
}
#else
/* The standard normal's distribution function, 0.5 (1 + erf(x / sqrt 2)). The tail beyond |x| is t e^(-x^2 / 2) P(t) with
   t = 1 / (1 + 0.28 |x|). P was fitted to the scaled complementary error function, by least squares reweighted towards
   the smallest largest relative error, 1.7e-7. */
static inline vreal normal_cdf(vreal x) {
  vreal t = 1 / (1 + vmax(x, -x) * 0.28f);
  vreal p = t * 0.024720013f - 0.0935932561f;
  p = p * t + 0.0924282923f;
  p = p * t - 0.00644929964f;
  p = p * t + 0.0727750552f;
  p = p * t + 0.0836307831f;
  p = p * t + 0.103084666f;
  p = p * t + 0.111699803f;
  p = p * t + 0.111703858f;
  vreal tail = p * t * vexp(x * x * -0.5f);
  return vselect(x < 0, tail, 1 - tail);
}
#endif

/* x sigmoid(x) and x Phi(x), which are 0 at minus infinity */
static inline vreal silu_of(vreal x) {
  return vsigmoid(x) * vmax(vset(-1000), x);
}
static inline vreal gelu_of(vreal x) {
  return normal_cdf(x) * vmax(vset(-1000), x);
}

/* x where it is above 0, else w x. */
static inline vreal prelu_of(vreal x, vreal w) {
  return vselect(x > 0, x, x * w);
}

#endif
