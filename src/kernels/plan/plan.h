/*
** plan.h -- a network that only predicts, as a list of steps that is run in one call: weights packed, all memory given.
**
** A step makes one value from one or two others. A value is so many elements a sample, images channels last; number 0 is the
** network's input, 1 its output, and the others lie in a workspace, where values that never live at the same time share
** places. Small networks are run a few samples at a time, each thread for itself, so that values stay in cache; large ones,
** and single samples, step by step by all threads. The result does not depend on it.
*/
#ifndef FERAL_PLAN_H
#define FERAL_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "../conv/conv.h"
#include "../conv/pool.h"
#include "../recurrent/convlstm.h"
#include "../recurrent/lstm.h"

enum { PLAN_INPUT, PLAN_OUTPUT, PLAN_INNER };

/* Some rows of elements, or matrices. */
typedef struct PlanRows {
  long rows, from, to; /* see the operations */
  long at;
} PlanRows;

typedef struct PlanConvLstm {
  ConvLstmGeometry g; /* of one sequence */
  bool last;          /* the output is of the last step only */
} PlanConvLstm;

typedef struct PlanStep PlanStep;

/* What a step reads and writes, for n samples (the step's own: 'times' a sample of the batch). */
typedef struct PlanMemory {
  long n;
  const real *x, *other; /* other: the second value, or NULL */
  real *y, *scratch;
} PlanMemory;

/* A number that describes a step, by its name in Lua, and its place in PlanStep. */
typedef enum PlanFieldKind { PLAN_SIZE, PLAN_COUNT, PLAN_FLAG } PlanFieldKind; /* 1 or more; 0 or more; a bool */
typedef struct PlanField {
  const char *name;
  size_t place;
  PlanFieldKind kind;
} PlanField;

/* A tensor of a step: how many elements it must have. */
typedef struct PlanWeight {
  const char *name;
  long (*size)(const PlanStep *s);
  bool optional;
} PlanWeight;

enum { PLAN_FIELDS_MOST = 16, PLAN_WEIGHTS_MOST = 4 };

/* All that plans know of an operation; where a name is NULL the list ends. run is called by all threads of a team, or by one
   outside any; it returns when all is done. */
typedef struct PlanOp {
  const char *name;
  PlanField field[PLAN_FIELDS_MOST];
  long (*x_size)(const PlanStep *s); /* elements that it reads and writes, for one sample of its own */
  long (*y_size)(const PlanStep *s);
  bool (*fits)(const PlanStep *s); /* false where it would write beyond its value; NULL: always true */
  PlanWeight weight[PLAN_WEIGHTS_MOST];
  long (*packed_size)(const PlanStep *s); /* reals; NULL: none */
  void (*pack)(const PlanStep *s, const real *const *weight, real *packed);
  void (*run)(const PlanStep *s, const PlanMemory *m);
  long (*scratch)(const PlanStep *s, long n); /* reals; NULL: none */
} PlanOp;

struct PlanStep {
  const PlanOp *op;
  int x, other, y;    /* numbers of values; other: -1 where there is none */
  long times;         /* samples of its own that one of the batch makes: steps of a sequence */
  double work;        /* multiply-adds, or what takes as long, for one sample of the batch */
  const real *packed; /* weights */
  TailActivation activation;
  real parameter;
  union {
    ConvGeometry conv; /* n is set when it runs */
    PoolGeometry pool; /* likewise */
    PlanRows rows;
    LstmRun lstm;
    PlanConvLstm convlstm;
  };
};

typedef struct PlanValue {
  long size; /* elements a sample */
  long at;   /* in a sample's share of the workspace */
} PlanValue;

typedef struct Plan {
  long steps, values;
  long per_sample; /* reals of workspace */
  long packed;     /* reals of weights */
  double work;     /* of all steps */
  PlanStep *step;
  PlanValue *value;
} Plan;

/* How a batch is run: chunks of so many samples, each by one thread or by all. Whether a second thread gains anything on a
   few milliseconds' work depends on the machine and on what else it does, so such runs are timed, and the faster way is taken. */
typedef struct PlanRun {
  long n, threads; /* for which this was worked out */
  long chunk;
  bool alone;
  long values, scratch; /* reals of a chunk's workspace */
  long size;            /* reals of workspace in all */
  bool timed, took_one; /* the last run, by one thread */
  long runs;
  double seconds[2]; /* that a run takes by all threads, by one */
} PlanRun;

PlanRun plan_prepare(const Plan *p, long n);

/* x: n samples of value 0  y: n of value 1 */
void plan_run(const Plan *p, PlanRun *r, const real *x, real *y, real *workspace);

/* ---- operations: one file a family, all in the list of plan_ops.c, which NULL ends ---- */

extern const PlanOp *const plan_ops[];

extern const PlanOp plan_conv, plan_max_pool, plan_mean_pool;
extern const PlanOp plan_global_mean; /* rows: rows of 'to' channels */
extern const PlanOp plan_repeat;      /* pool: each pixel of (h,w) fills a window of (oh,ow) */
extern const PlanOp plan_dense;       /* rows: from = inputs, to = outputs */
extern const PlanOp plan_map;         /* y = activation(x + other);  rows: from = elements */
extern const PlanOp plan_scale;       /* packed: scale, then shift, (to) each;  rows: rows of 'to' channels */
extern const PlanOp plan_prelu;       /* packed: (to);  rows: rows of 'to' channels */
extern const PlanOp plan_softmax;     /* rows: rows of 'to' elements */
extern const PlanOp
    plan_layernorm;            /* packed: weight, then bias, (to) each;  parameter: eps;  rows: rows of 'to' elements */
extern const PlanOp plan_turn; /* (rows,to) -> (to,rows) */
extern const PlanOp plan_copy; /* (rows,from) into columns 'at' and following of (rows,to) */
extern const PlanOp plan_select; /* row 'at' of (rows,to) */
extern const PlanOp plan_lstm;   /* x: gates (steps,4 hidden) */
extern const PlanOp plan_convlstm;

#endif
