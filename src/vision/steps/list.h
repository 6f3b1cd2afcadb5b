/* list.h -- the steps, in the order in which help names them. A new one is a file here and a line below. */
#define STEPS(STEP)                                                                                                    \
  STEP(gray)                                                                                                           \
  STEP(rgb)                                                                                                            \
  STEP(crop)                                                                                                           \
  STEP(resize)                                                                                                         \
  STEP(equalize)                                                                                                       \
  STEP(round)                                                                                                          \
  STEP(normalize)                                                                                                      \
  STEP(random_crop)                                                                                                    \
  STEP(rotate)                                                                                                         \
  STEP(shift)                                                                                                          \
  STEP(zoom)                                                                                                           \
  STEP(shear)                                                                                                          \
  STEP(mirror)                                                                                                         \
  STEP(brightness)                                                                                                     \
  STEP(contrast)                                                                                                       \
  STEP(gamma)                                                                                                          \
  STEP(light)                                                                                                          \
  STEP(blur)                                                                                                           \
  STEP(sharpen)                                                                                                        \
  STEP(noise)                                                                                                          \
  STEP(erase)                                                                                                          \
  STEP(mixup)
