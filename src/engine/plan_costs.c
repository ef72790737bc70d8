/* What a plan's slots cost. */
#include "plan_impl.h"

ra_pipeline_kind ra_plan_schedule(const ra_plan_request *q)
{
    if (!q->keep) return RA_PIPELINE_FORWARD;
    /* a contraction has no second part */
    return q->needs.tangent && q->layout.schedule == RA_PIPELINE_ZERO_BUBBLE ? RA_PIPELINE_1F1B : q->layout.schedule;
}

ra_schedule_costs ra_plan_costs(const ra_plan_request *q, const ra_plan *plan, ra_schedule_costs *cost)
{
    ra_workload work = q->work;
    work.training = q->training;
    const ra_cost head = ra_cost_head(q->arch, &work, true);
    const double rows = ra_plan_rows(q), moved = q->keep ? head.forward : 0.0;
    const int32_t n = plan->split.stages;
    ra_schedule_costs mean = {.stage = cost};
    for (int32_t s = 0; s < n; s++) {
        const ra_cost *c = &plan->split.cost[s];
        const double late = s == n - 1 ? moved : 0.0;
        cost[s] = (ra_schedule_costs){.forward = rows * (c->forward - late),
                                      .backward = rows * (c->input + c->weight + c->again + late),
                                      .backward_input = rows * (c->input + c->again + late),
                                      .backward_weight = rows * c->weight};
        mean.forward += cost[s].forward / n;
        mean.backward += cost[s].backward / n;
        mean.backward_input += cost[s].backward_input / n;
        mean.backward_weight += cost[s].backward_weight / n;
    }
    return mean;
}
