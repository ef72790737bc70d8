/* One rank's walk through a schedule's table, and what all stages know afterwards. */
#include "engine_impl.h"

#include <realign/mem.h>

#include <stdlib.h>

/* Makes room for `slots` micro-batches in flight. */
static void make_slots(ra_engine *e, int32_t slots)
{
    if (slots <= e->slots) return;
    ra_activations_free(e->acts);
    e->mb = ra_realloc(e->mb, (size_t)slots, sizeof(ra_microbatch *));
    for (; e->slots < slots; e->slots++) e->mb[e->slots] = ra_microbatch_new(e->config.rows);
    ra_keeping keeping = ra_engine_keeping(&e->config, slots);
    e->acts = ra_activations_new(e->m, e->config.rows, &keeping);
}

static void make_inboxes(ra_engine *e, int32_t inboxes)
{
    if (e->wire && inboxes <= e->inboxes) return;
    ra_wire_free(e->wire);
    e->inboxes = inboxes;
    e->wire = ra_wire_new(e->m->b, &e->grid->pipeline, inboxes, ra_engine_stream_bytes(e->m, e->config.rows));
}

static bool contracts(const ra_pass *pass)
{
    return pass->backward && !pass->backward->gradient;
}

/* The table for a pass, and the room it takes on this rank. */
static ra_err prepare(ra_engine *e, const ra_pass_shape *pass)
{
    ra_pipeline_kind kind = ra_engine_kind(&e->config, pass);
    if (e->schedule.rank && e->schedule.kind == kind && e->schedule.micro_batches == pass->count) return RA_OK;
    ra_schedule_free(&e->schedule);
    RA_TRY(ra_schedule_make(kind, e->grid->stages, pass->count, e->m->part.chunks, &e->schedule));
    const ra_schedule_rank *own = &e->schedule.rank[e->grid->stage];
    make_slots(e, own->peak);
    make_inboxes(e, own->inboxes);
    return RA_OK;
}

ra_err ra_engine_new(ra_model *m, const ra_grid *grid, const ra_engine_config *config, ra_timers *timers, ra_engine **out)
{
    *out = NULL;
    ra_engine_sizes sizes;
    RA_TRY(ra_engine_sizes_of(m, grid, config, &sizes));
    ra_engine *e = ra_calloc(1, sizeof *e);
    ra_backend *b = m->b;
    size_t rows = (size_t)config->rows;
    e->m = m;
    e->grid = grid;
    e->config = *config;
    e->config.pass = NULL;
    e->timers = timers;
    if (m->last) {
        e->head = ra_head_new(m, config->rows);
        e->ref_head = (const char *)m->w_a + (size_t)m->head * b->a_size;
        e->logp = ra_calloc(rows, sizeof(double));
        e->kl = ra_calloc(rows, sizeof(double));
        e->coefficient = ra_calloc(rows, sizeof(double));
        if (config->keep) e->dx = b->ops->alloc(b, ra_engine_stream_bytes(m, config->rows));
    }
    if (config->keep) {
        e->row_dot = b->ops->alloc(b, sizes.dots);
        e->host_dot = ra_calloc(rows, sizeof(double));
    }
    make_slots(e, sizes.slots);
    make_inboxes(e, sizes.inboxes);
    *out = e;
    return RA_OK;
}

void ra_engine_free(ra_engine *e)
{
    if (!e) return;
    ra_backend *b = e->m->b;
    ra_schedule_free(&e->schedule);
    for (int32_t i = 0; i < e->slots; i++) {
        b->ops->release_pack(b, &e->mb[i]->pack);
        ra_microbatch_free(e->mb[i]);
    }
    free(e->mb);
    ra_activations_free(e->acts);
    ra_wire_free(e->wire);
    ra_head_free(e->head);
    if (e->dx) b->ops->release(b, e->dx);
    if (e->row_dot) b->ops->release(b, e->row_dot);
    ra_free(e->logp);
    ra_free(e->kl);
    ra_free(e->coefficient);
    ra_free(e->host_dot);
    ra_free(e);
}

void ra_engine_set_reference_head(ra_engine *e, const void *weight)
{
    e->ref_head = weight;
}

static void walk(ra_engine *e, const ra_objective *objective, const ra_pass *pass)
{
    const ra_schedule_rank *own = &e->schedule.rank[e->grid->stage];
    for (int32_t i = 0; i < own->slots; i++) {
        for (int32_t k = own->post_begin[i]; k < own->post_begin[i + 1]; k++) {
            const ra_slot *to_come = &own->slot[own->post[k]];
            ra_wire_receive(e->wire, to_come->inbox, to_come->receive.rank, to_come->receive.tag);
        }
        const ra_slot *slot = &own->slot[i];
        switch (slot->op) {
        case RA_SLOT_FORWARD: ra_engine_forward(e, pass, slot, objective); break;
        case RA_SLOT_BACKWARD:
        case RA_SLOT_BACKWARD_INPUT: ra_engine_backward(e, pass, slot, objective); break;
        default: ra_engine_backward_weight(e, pass, slot);
        }
    }
    if (e->grid->stages > 1) ra_wire_drain(e->wire);
}

/* What the last stage found and what every stage contributed, on all stages. */
static void share_outcomes(ra_engine *e, const ra_pass *pass)
{
    const ra_comm *pipeline = &e->grid->pipeline;
    if (pipeline->size == 1) return;
    int64_t found = 0, dots = 0;
    for (int32_t i = 0; i < pass->count; i++) {
        found += e->outcome[i].responses + e->outcome[i].items;
        dots += e->outcome[i].items;
    }
    double *all = ra_alloc((size_t)(found + dots), sizeof *all), *dot = all + found, *at = all;
    for (int32_t i = 0; i < pass->count; i++) {
        const ra_outcome *o = &e->outcome[i];
        for (int32_t k = 0; k < o->responses + o->items; k++) *at++ = o->logp[k];
        for (int32_t k = 0; k < o->items; k++) *dot++ = o->dot[k];
    }
    ra_comm_bcast(pipeline, all, found * (int64_t)sizeof *all, pipeline->size - 1);
    if (contracts(pass)) ra_comm_sum_f64(pipeline, all + found, dots);
    at = all;
    dot = all + found;
    for (int32_t i = 0; i < pass->count; i++) {
        const ra_outcome *o = &e->outcome[i];
        for (int32_t k = 0; k < o->responses + o->items; k++) o->logp[k] = *at++;
        for (int32_t k = 0; k < o->items; k++) o->dot[k] = *dot++;
    }
    ra_free(all);
}

static ra_err hand_out(ra_engine *e, const ra_pass *pass)
{
    ra_microbatch *mb = e->mb[0];
    for (int32_t i = 0; i < pass->count && pass->result; i++) {
        const ra_outcome *o = &e->outcome[i];
        pass->fill(pass->context, i, mb);
        for (int32_t k = 0; k < mb->responses; k++) mb->response[k].logp = o->logp[k];
        for (int32_t k = 0; k < mb->items; k++) mb->item[k].loss = o->loss[k];
        RA_TRY(pass->result(pass->context, i, mb, contracts(pass) ? o->dot : NULL));
    }
    return RA_OK;
}

static ra_err end_walk(ra_engine *e)
{
    ra_err err = e->err;
    if (err != RA_OK) ra_fail(err, "%s", e->why);
    free(e->why);
    e->err = RA_OK;
    e->why = NULL;
    return err;
}

ra_err ra_engine_run(ra_engine *e, const ra_objective *objective, const ra_pass *pass)
{
    if (pass->count == 0) return RA_OK;
    RA_TRY(prepare(e, &(ra_pass_shape){.backward = pass->backward != NULL, .contracts = contracts(pass), .count = pass->count}));
    e->outcome = ra_calloc((size_t)pass->count, sizeof *e->outcome);
    walk(e, objective, pass);
    share_outcomes(e, pass);
    ra_err err = end_walk(e);
    if (err == RA_OK) err = hand_out(e, pass);
    for (int32_t i = 0; i < pass->count; i++) ra_free(e->outcome[i].logp);
    ra_free(e->outcome);
    e->outcome = NULL;
    return ra_grid_agree(e->grid, err);
}
