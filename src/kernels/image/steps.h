/*
** steps.h -- lists of steps: what is done to an image on its way to a network. No lua_State here.
**
** A step is a StepKind, in a file of its own in src/vision/steps/, and the values of its options. A list is run in one of two
** modes. In training its random steps draw numbers, each a function of (seed, epoch, number of the sample, place in the
** list). In prediction random steps are left out, but for those that change the size, whose draws then all take the middle.
**
** Pixels are bytes, or reals of the same range, 0 to 255. They stay bytes as long as all steps can give bytes, and the
** engine converts where a step needs the other type, so that equal lists give equal bits wherever they are run.
*/
#ifndef FERAL_STEPS_H
#define FERAL_STEPS_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../../base/rng.h"
#include "pixels.h"
#include "source.h"
#include "warp.h"

enum { STEP_OPTIONS = 6, STEPS_MOST = 32, STEP_MESSAGE = 200 };

static inline long image_elements(const Image *i) {
  return i->height * i->width * i->channels;
}
static inline size_t image_bytes(const Image *i) {
  return (size_t)image_elements(i) * (i->bytes ? 1 : sizeof(real));
}

/* ---- a step ---- */

typedef enum StepType {
  STEP_NUMBER,
  STEP_WHOLE,   /* a whole number */
  STEP_CHOICE,  /* one of the names in 'choices'; the value is its place there, from 0 */
  STEP_CHANNELS /* a number for all channels, or one for each */
} StepType;

typedef struct StepOption {
  const char *name;
  StepType type;
  double least, most;
  double otherwise; /* the value where none is given; NAN: it must be given; INFINITY: that of the option before */
  const char *const *choices;
} StepOption;

/* What stands outside of the picture, for steps that move pixels from there: the last two options. */
extern const char *const step_edges[]; /* in the order of WarpEdge */
#define STEP_EDGE                                                                                                      \
  {"edge", STEP_CHOICE, 0, 2, WARP_CLAMP, step_edges}, {                                                               \
    "fill", STEP_NUMBER, 0, 255, 0, NULL                                                                               \
  }

typedef struct Step {
  const struct StepKind *kind;
  int count[STEP_OPTIONS]; /* values given: more than one for STEP_CHANNELS alone */
  double value[STEP_OPTIONS][PIXEL_CHANNELS];
} Step;

static inline double step_value(const Step *s, int option) {
  return s->value[option][0];
}
static inline double step_channel(const Step *s, int option, long channel) {
  return s->value[option][s->count[option] == 1 ? 0 : channel];
}

/* The random numbers of one step for one sample. */
typedef struct StepDraw {
  uint64_t seed, stream, next;
  bool calm; /* prediction: all draws take the middle */
} StepDraw;

/* The next number, in [0, 1). */
static inline double step_unit(StepDraw *d) {
  if (d->calm) return 0.5;
  double unit = (double)rng_uniform(d->seed, d->stream, d->next);
  d->next++;
  return unit;
}
static inline double step_between(StepDraw *d, double low, double high) {
  return low + (high - low) * step_unit(d);
}
/* The next number in [-most, most). */
static inline double step_either(StepDraw *d, double most) {
  return most * (2 * step_unit(d) - 1);
}

typedef enum StepTakes { STEP_ANY, STEP_BYTES, STEP_REALS } StepTakes; /* the type of pixels that a step needs */

typedef struct StepKind {
  const char *name;
  const char *about; /* a line of help */
  StepOption option[STEP_OPTIONS];
  bool random;     /* it draws; where it also keeps the size, prediction leaves it out */
  bool last;       /* nothing may come behind it */
  StepTakes takes; /* and gives the same */
  int edge; /* of a step that only moves pixels: the number of its option STEP_EDGE; 0: it asks for none outside */

  /* The size that it gives for the one in 'image' (pixels is not used), which it changes. NULL: the same. Returns false
     with a message where it cannot. */
  bool (*shape)(const Step *s, Image *image, char message[STEP_MESSAGE]);

  /* What it does: one of these. */
  void (*change)(const Step *s, StepDraw *d, const Image *image, void *pixels,
                 void *scratch); /* where the pixels lie */
  void (*make)(const Step *s, StepDraw *d, const Image *from, const Image *to, void *pixels, void *scratch); /* anew */
  void (*mix)(const Step *s, StepDraw *d, const Image *image, real *pixels, const real *other,
              real *part); /* see below */

  /* Where pixel (x, y) of the result lies in the image that it takes. Of a step that only moves pixels this is all; such
     neighbours become one interpolation. */
  WarpMap (*map)(const Step *s, StepDraw *d, const Image *from, const Image *to);

  size_t (*scratch)(const Step *s, const Image *from, const Image *to); /* bytes that it works in; NULL: none */
} StepKind;

/* ---- a list ---- */

typedef struct StepList {
  int count;
  Step step[];
} StepList;

/* Where a mixing step finds a second sample: one of 'count', chosen by its draw. fetch fills image and the number that its
   own random steps draw by; it may use the memory in which the first sample was fetched. */
typedef struct StepPartner {
  long count;
  const char *(*fetch)(void *from, long k, Image *image, uint64_t *number);
  void *from;
} StepPartner;

typedef struct StepsJob {
  const StepList *list;
  bool training;
  uint64_t seed, epoch, number;
  StepPartner partner; /* count 0: mixing steps do nothing */
  void *memory;        /* steps_memory bytes, aligned to 64 */

  WarpMap map; /* out: where pixel (x, y) of the result lies in the image */
  long second; /* out: the partner's k, or -1 */
  real part;   /* out: the first sample's part in the result */
  char message[STEP_MESSAGE];
} StepsJob;

/* The shape of the result for an image of this shape, which is changed. False with a message where a step cannot take it. */
bool steps_shape(const StepList *list, bool training, Image *image, char message[STEP_MESSAGE]);

/* Bytes that a job on an image of this shape needs; 0 where steps_shape fails. */
size_t steps_memory(const StepList *list, bool training, const Image *image);

/* Runs the list. result: where the reals of the result go, or bytes where to_bytes says so (reals are then rounded).
   Returns NULL, or what is wrong, kept in the job. */
const char *steps_run(StepsJob *job, const Image *image, bool to_bytes, void *result);

#endif
