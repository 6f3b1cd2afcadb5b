/* plan_ops.c -- the operations of plans. A new one costs its file, or its part of one, and a line here. */
#include "plan.h"

const PlanOp *const plan_ops[] = {
    &plan_conv,      &plan_max_pool, &plan_mean_pool, &plan_repeat, &plan_global_mean,
    &plan_dense,     &plan_map,      &plan_scale,     &plan_prelu,  &plan_softmax,
    &plan_layernorm, &plan_turn,     &plan_copy,      &plan_select, &plan_lstm,
    &plan_convlstm,  NULL,
};
