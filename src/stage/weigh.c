/* weigh: the gold batch, g_J, impact weights of all conflicts, log p_ref and the reference's hidden states (METHOD section 4): weights.h5 and hidden.bin. */
#include "weigh.h"

#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_conflict(const ra_run *r, int64_t i)
{
    return r->action[i] == RA_ACTION_INVERT || r->action[i] == RA_ACTION_PUNISH;
}

static void correlate_with_length(ra_weigh *g)
{
    const ra_run *r = &g->run;
    double n = 0.0, sx = 0.0, sy = 0.0, sxx = 0.0, syy = 0.0, sxy = 0.0;
    for (int64_t i = 0; i < r->n; i++) {
        if (!is_conflict(r, i)) continue;
        double x = g->w.length[i * RA_ROLES] + g->w.length[i * RA_ROLES + 1], y = g->w.weight[i];
        n++, sx += x, sy += y, sxx += x * x, syy += y * y, sxy += x * y;
    }
    double spread = (n * sxx - sx * sx) * (n * syy - sy * sy);
    g->w.length_correlation = spread > 0.0 ? (n * sxy - sx * sy) / sqrt(spread) : NAN;
}

static ra_err normalise(ra_weigh *g)
{
    ra_run *r = &g->run;
    double total = 0.0;
    for (int64_t i = 0; i < r->n; i++) {
        if (!is_conflict(r, i)) continue;
        g->w.conflicts++;
        g->w.weight[i] = g->conflicts_weighed ? fmax(0.0, g->w.raw[i]) : 1.0;
        g->w.positive += g->w.weight[i] > 0.0;
        total += g->w.weight[i];
    }
    if (g->w.conflicts == 0) {
        if (r->count[RA_ACTION_PAIR] == 0) ra_info("weigh: the new policy conflicts with no pair; there is nothing to weigh");
        return RA_OK;
    }
    if (total <= 0.0) {
        return ra_fail(RA_ERR_DATA, "no conflict has a positive product with g_J: no update would move the model towards the new "
                                    "policy; look at the policy and at gold.size, or "
                                    "set weights.enabled=false");
    }
    bool mean = strcmp(ra_set_text(r->s, "weights.normalise"), "mean") == 0;
    double scale = (mean ? (double)g->w.conflicts : 1.0) / total;
    for (int64_t i = 0; i < r->n; i++) g->w.weight[i] *= scale;
    g->w.average = mean ? 1.0 : 1.0 / (double)g->w.conflicts;
    correlate_with_length(g);
    ra_info("weights: %lld conflicts, %lld with a positive weight; normalisation %s: %.4g on average", (long long)g->w.conflicts,
            (long long)g->w.positive, mean ? "mean" : "l1", g->w.average);
    ra_info("weights: correlation with the responses' length %.2f%s", g->w.length_correlation,
            fabs(g->w.length_correlation) > 0.5 ? " (summed log-probabilities favour long responses)" : "");
    return RA_OK;
}

static void mask_missing(ra_weigh *g)
{
    const ra_run *r = &g->run;
    for (int64_t i = 0; i < r->n; i++) {
        unsigned roles = r->action[i] == RA_ACTION_NONE ? 0 : ra_loss_roles(ra_run_kind(r, i));
        for (int role = 0; role < RA_ROLES; role++) {
            if (!(roles >> role & 1)) g->w.reference[i * RA_ROLES + role] = NAN;
        }
        if (!is_conflict(r, i)) g->w.raw[i] = NAN;
    }
}

/* Lengths, and where each Retain sample's states go. */
static void place_states(ra_weigh *g)
{
    const ra_run *r = &g->run;
    for (int64_t i = 0; i < r->n; i++) {
        g->w.hidden[i] = -1;
        if (r->action[i] == RA_ACTION_NONE) continue;
        ra_sample s = ra_store_get(r->store, i);
        for (int role = 0; role < RA_ROLES; role++)
            g->w.length[i * RA_ROLES + role] = s.response[role].count - s.response[role].skip;
        if (r->action[i] != RA_ACTION_RETAIN) continue;
        g->w.hidden[i] = g->w.hidden_rows;
        g->w.hidden_rows += g->w.length[i * RA_ROLES + RA_CHOSEN];
    }
}

/* The passes to come, and the memory that they and the rest will take. */
static ra_err plan_memory(ra_weigh *g, ra_pass_list *passes, ra_memory_plan *out)
{
    ra_run *r = &g->run;
    if (g->conflicts_weighed) {
        int32_t gold;
        RA_TRY(ra_weigh_draw(g, &gold));
        ra_pass_list_add(passes, true, false, ra_run_packs(r, gold));
        ra_pass_list_add(passes, true, false, 1); /* the self-check, and norms */
        ra_pass_list_add(passes, true, true, 1);
    }
    RA_TRY(ra_weigh_list_passes(g, passes));
    return ra_memory_check(r, RA_MEMORY_OF_WEIGHING, passes, out);
}

static ra_err work_through(ra_weigh *g)
{
    ra_run *r = &g->run;
    ra_training training = ra_memory_training(r, RA_MEMORY_OF_WEIGHING);
    ra_pass_list passes = {0};
    ra_memory_plan memory;
    RA_TRY(ra_comm_agree(r->world, plan_memory(g, &passes, &memory)));
    RA_TRY(ra_run_open_model(r, training, &g->m));
    if (training == RA_TRAIN_ADAPTER)
        ra_info("weights.parameters=adapter: at its start an adapter has B = 0, so its A has no gradient and w_i sees B alone; "
                "weights.parameters=full sees all matrices");
    r->engine.rows = r->rows;
    r->engine.keep = g->conflicts_weighed;
    r->engine.pass = passes.shape;
    r->engine.passes = passes.n;
    RA_TRY(ra_comm_agree(r->world, ra_engine_new(g->m, &r->grid, &r->engine, r->timers, &g->e)));
    place_states(g);
    if (g->conflicts_weighed) RA_TRY(ra_comm_agree(r->world, ra_weigh_target(g)));
    ra_runctl_start(&g->control);
    ra_err err = ra_weigh_samples(g);
    ra_runctl_end();
    RA_TRY(err);
    RA_TRY(normalise(g));
    mask_missing(g);
    RA_TRY(ra_weights_write(r, &g->w));
    ra_weigh_part_remove(g);
    return ra_memory_report(r, RA_MEMORY_OF_WEIGHING, &memory);
}

ra_err ra_stage_weigh(const ra_settings *s, const ra_comm *world)
{
    ra_weigh g = {0};
    RA_TRY(ra_run_open(s, world, &g.run));
    ra_run *r = &g.run;
    double begun = ra_now();
    g.w = ra_weights_new(r->n);
    g.w.key = ra_weights_key(r);
    g.control = ra_run_control(s);
    g.conflicts_weighed = ra_memory_training(r, RA_MEMORY_OF_WEIGHING) != RA_FROZEN;
    ra_err err = RA_OK;
    int fresh = strcmp(ra_set_text(s, "run.resume"), "never") != 0 && world->rank == 0 && ra_weights_up_to_date(r, g.w.key);
    ra_comm_bcast(world, &fresh, sizeof fresh, 0);
    if (fresh) {
        ra_info("weigh: %s/weights.h5 is up to date", r->dir);
    } else {
        ra_info("weigh: %s; %lld Invert, %lld Punish (%lld corrected), %lld Retain samples, %lld plain pairs",
                ra_backend_describe(r->b), (long long)r->count[RA_ACTION_INVERT], (long long)r->count[RA_ACTION_PUNISH],
                (long long)r->corrected, (long long)r->count[RA_ACTION_RETAIN], (long long)r->count[RA_ACTION_PAIR]);
        err = work_through(&g);
        if (err == RA_OK) {
            char *timers = ra_run_path(r, "timers.tsv");
            err = ra_timers_write(r->timers, world->comm, "weigh", timers);
            free(timers);
            ra_info("weigh: done in %.1f s", ra_now() - begun);
        }
    }
    if (r->b && g.target_a && g.target_a != g.target) r->b->ops->release(r->b, g.target_a);
    if (r->b && g.target) r->b->ops->release(r->b, g.target);
    ra_free(g.pair);
    ra_engine_free(g.e);
    ra_model_close(g.m);
    ra_weights_free(&g.w);
    ra_run_close(r);
    return err;
}
