/* Plans among themselves. */
#ifndef REALIGN_PLAN_IMPL_H
#define REALIGN_PLAN_IMPL_H
#include <realign/plan.h>

/* Rows of a pack: it holds the longest sample. */
static inline int32_t ra_plan_rows(const ra_plan_request *q)
{
    return q->layout.rows > q->longest ? q->layout.rows : q->longest;
}

/* ra_plan_make that gives up at the first stage with more than `limit` bytes, if it can before schedules are made: within is then false and the plan's stages are not whole. */
ra_err ra_plan_make_within(const ra_plan_request *q, size_t limit, ra_plan *out, bool *within);

#endif
