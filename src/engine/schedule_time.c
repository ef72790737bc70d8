/* When the slots of a schedule run. */
#include "schedule_impl.h"

#include <realign/mem.h>

#include <math.h>

typedef struct {
    const ra_schedule *s;
    const ra_schedule_costs *costs;
    double *end[RA_SLOT_OPS]; /* (p v, m) when that slot ended, NAN before */
    int32_t *next;            /* (p) each rank's next slot */
} simulation;

static int64_t cell(const ra_schedule *s, int32_t rank, int32_t chunk, int32_t micro_batch)
{
    return ((int64_t)chunk * s->ranks + rank) * s->micro_batches + micro_batch;
}

static double cost_of(const ra_schedule *s, const ra_schedule_costs *c, int32_t rank, const ra_slot *slot)
{
    if (c->stage) c = &c->stage[slot->chunk * s->ranks + rank];
    const double of[RA_SLOT_OPS] = {[RA_SLOT_FORWARD] = c->forward,
                                    [RA_SLOT_BACKWARD] = c->backward,
                                    [RA_SLOT_BACKWARD_INPUT] = c->backward_input,
                                    [RA_SLOT_BACKWARD_WEIGHT] = c->backward_weight};
    return of[slot->op];
}

/* When everything that the slot reads is there; NAN: not yet. */
static double ready(const simulation *sim, int32_t rank, const ra_slot *slot)
{
    const ra_schedule *s = sim->s;
    int64_t own = cell(s, rank, slot->chunk, slot->micro_batch);
    double at = 0.0;
    if (ra_slot_is_backward(slot->op)) at = sim->end[RA_SLOT_FORWARD][own];
    if (slot->op == RA_SLOT_BACKWARD_WEIGHT) at = sim->end[RA_SLOT_BACKWARD_INPUT][own];
    if (slot->receive.rank >= 0) {
        int64_t from = cell(s, slot->receive.rank, slot->receive.chunk, slot->micro_batch);
        double came = sim->end[slot->op][from] + (slot->receive.rank == rank ? 0.0 : sim->costs->latency);
        at = isnan(came) || isnan(at) ? NAN : fmax(at, came);
    }
    return at;
}

/* Runs a rank's slots until one has to wait; true if any ran. */
static bool advance(simulation *sim, int32_t rank, ra_schedule_timing *t)
{
    const ra_schedule_rank *of = &sim->s->rank[rank];
    int32_t first = sim->next[rank], i = first;
    for (; i < of->slots; i++) {
        const ra_slot *slot = &of->slot[i];
        double at = ready(sim, rank, slot), cost = cost_of(sim->s, sim->costs, rank, slot);
        if (isnan(at)) break;
        if (i > 0) at = fmax(at, t->end[rank][i - 1]);
        t->start[rank][i] = at;
        t->end[rank][i] = at + cost;
        t->busy[rank] += cost;
        t->makespan = fmax(t->makespan, at + cost);
        sim->end[slot->op][cell(sim->s, rank, slot->chunk, slot->micro_batch)] = at + cost;
    }
    sim->next[rank] = i;
    return i > first;
}

static ra_err run(simulation *sim, ra_schedule_timing *t)
{
    const ra_schedule *s = sim->s;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int32_t r = 0; r < s->ranks; r++) moved |= advance(sim, r, t);
        for (int32_t r = s->ranks - 1; r >= 0; r--) moved |= advance(sim, r, t); /* gradients come this way */
    }
    for (int32_t r = 0; r < s->ranks; r++) {
        if (sim->next[r] == s->rank[r].slots) continue;
        const ra_slot *slot = &s->rank[r].slot[sim->next[r]];
        return ra_fail(RA_ERR_DATA, "schedule %s: rank %d waits for ever in slot %d (micro-batch %d, chunk %d)",
                       ra_pipeline_kind_name[s->kind], r, sim->next[r], slot->micro_batch, slot->chunk);
    }
    return RA_OK;
}

ra_err ra_schedule_time(const ra_schedule *s, const ra_schedule_costs *costs, ra_schedule_timing *out)
{
    size_t cells = (size_t)s->ranks * (size_t)s->chunks * (size_t)s->micro_batches, p = (size_t)s->ranks;
    simulation sim = {.s = s, .costs = costs, .next = ra_calloc(p, sizeof(int32_t))};
    for (int op = 0; op < RA_SLOT_OPS; op++) {
        sim.end[op] = ra_alloc(cells, sizeof(double));
        for (size_t i = 0; i < cells; i++) sim.end[op][i] = NAN;
    }
    *out = (ra_schedule_timing){.ranks = s->ranks,
                                .busy = ra_calloc(p, sizeof(double)),
                                .start = ra_calloc(p, sizeof(double *)),
                                .end = ra_calloc(p, sizeof(double *))};
    for (int32_t r = 0; r < s->ranks; r++) {
        out->start[r] = ra_calloc((size_t)s->rank[r].slots, sizeof(double));
        out->end[r] = ra_calloc((size_t)s->rank[r].slots, sizeof(double));
    }
    ra_err err = run(&sim, out);
    double busy = 0.0;
    for (int32_t r = 0; r < s->ranks; r++) busy += out->busy[r];
    out->bubble = out->makespan > 0.0 ? 1.0 - busy / (s->ranks * out->makespan) : 0.0;
    for (int op = 0; op < RA_SLOT_OPS; op++) ra_free(sim.end[op]);
    ra_free(sim.next);
    if (err != RA_OK) ra_schedule_timing_free(out);
    return err;
}

void ra_schedule_timing_free(ra_schedule_timing *t)
{
    for (int32_t r = 0; r < t->ranks; r++) {
        ra_free(t->start[r]);
        ra_free(t->end[r]);
    }
    ra_free(t->start);
    ra_free(t->end);
    ra_free(t->busy);
    *t = (ra_schedule_timing){0};
}
