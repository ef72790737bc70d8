/* What theory says of a schedule: activations held, idle share. */
#include "schedule_impl.h"

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

int32_t ra_schedule_theory_peak(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, int32_t r)
{
    const ra_schedule_groups g = ra_schedule_groups_of(p, m);
    switch (kind) {
    case RA_PIPELINE_GPIPE: return m;
    case RA_PIPELINE_ZERO_BUBBLE: return least(m, p);
    case RA_PIPELINE_FORWARD: return 1;
    case RA_PIPELINE_INTERLEAVED: return least(m * v, 2 * (p - 1 - r) + (v - 1) * (g.size + (g.larger > 0)) + 1);
    default: return least(m, p - r);
    }
}

double ra_schedule_theory_bubble(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, const ra_schedule_costs *c)
{
    const double few = least(m, p), passes = (double)v * (m < p ? p : m) + few - 1.0;
    double busy = (double)m * v * (c->forward + c->backward), makespan = passes * (c->forward + c->backward);
    if (kind == RA_PIPELINE_FORWARD) {
        busy = (double)m * v * c->forward;
        makespan = passes * c->forward;
    } else if (kind == RA_PIPELINE_ZERO_BUBBLE) {
        busy = m * (c->forward + c->backward_input + c->backward_weight);
        makespan = busy + (p - 1) * (c->forward + c->backward_input) - (few - 1.0) * c->backward_weight;
    }
    return makespan > 0.0 ? 1.0 - busy / makespan : 0.0;
}
