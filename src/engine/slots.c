/* What one slot of a schedule computes: a micro-batch through a chunk of layers, forward or backward, with the messages before and after. The head is part of the last chunk's
 * backward slot, not of its forward: its states need no memory between the two. */
#include "engine_impl.h"

#include <realign/mem.h>

#include <string.h>

/* Whether the network ends with this chunk of this rank. */
static bool is_end(const ra_engine *e, const ra_slot *slot)
{
    return e->m->last && slot->chunk == e->m->part.chunks - 1;
}

static double sum(const double *values, int32_t first, int32_t count)
{
    double total = 0.0;
    for (int32_t i = 0; i < count; i++) total += values[first + i];
    return total;
}

static void log_ratios(const ra_microbatch *mb, const ra_item *item, double r[RA_ROLES])
{
    for (int role = 0; role < RA_ROLES; role++) {
        int32_t i = item->response[role];
        r[role] = i < 0 ? 0.0 : mb->response[i].logp - mb->response[i].reference;
    }
}

static void fill_losses(ra_engine *e, ra_microbatch *mb, const ra_objective *objective, bool referenced)
{
    for (int32_t i = 0; i < mb->responses; i++) mb->response[i].logp = sum(e->logp, mb->response[i].first, mb->response[i].count);
    for (int32_t i = 0; i < mb->items; i++) {
        ra_item *item = &mb->item[i];
        if (item->kind == RA_LOSS_RETAIN) {
            const ra_response *y = &mb->response[item->response[RA_CHOSEN]];
            item->loss = referenced ? sum(e->kl, y->first, y->count) / y->count : 0.0;
        } else if (item->kind != RA_LOSS_SCORE) {
            double r[RA_ROLES];
            log_ratios(mb, item, r);
            item->loss = ra_loss_pairwise(objective, item->kind, r).loss;
        }
    }
}

static void fail(ra_engine *e, ra_err err)
{
    if (err == RA_OK || e->err != RA_OK) return;
    e->err = err;
    e->why = ra_strdup(ra_error_message());
}

/* The network's end, forward: log p, losses, what the caller does with them. */
static void score(ra_engine *e, const ra_pass *pass, int32_t index, ra_microbatch *mb, const void *last,
                  const ra_objective *objective)
{
    const void *reference = pass->reference ? pass->reference(pass->context, mb) : NULL;
    ra_timer_begin(e->timers, "head forward");
    ra_head_set_reference(e->head, e->ref_head, reference);
    ra_head_forward(e->head, mb, last, e->logp, e->kl);
    ra_timer_end(e->timers, "head forward");
    fill_losses(e, mb, objective, reference != NULL);
    if (pass->scored) fail(e, pass->scored(pass->context, index, mb, e->logp, ra_head_hidden(e->head)));
    const ra_outcome *o = &e->outcome[index];
    for (int32_t i = 0; i < mb->responses; i++) o->logp[i] = mb->response[i].logp;
    for (int32_t i = 0; i < mb->items; i++) o->loss[i] = mb->item[i].loss;
}

static void begin_outcome(ra_outcome *o, const ra_microbatch *mb)
{
    if (o->logp) return;
    o->items = mb->items;
    o->responses = mb->responses;
    o->logp = ra_calloc((size_t)mb->responses + 2 * (size_t)mb->items, sizeof *o->logp);
    o->loss = o->logp + o->responses;
    o->dot = o->loss + o->items;
}

void ra_engine_forward(ra_engine *e, const ra_pass *pass, const ra_slot *slot, const ra_objective *objective)
{
    ra_backend *b = e->m->b;
    ra_microbatch *mb = e->mb[slot->activation];
    pass->fill(pass->context, slot->micro_batch, mb);
    b->ops->place_pack(b, &mb->pack);
    begin_outcome(&e->outcome[slot->micro_batch], mb);
    if (slot->receive.rank >= 0) {
        ra_timer_begin(e->timers, "pipeline wait");
        const void *x = ra_wire_wait(e->wire, slot->inbox);
        ra_timer_end(e->timers, "pipeline wait");
        b->ops->copy(b, ra_activations_entry(e->acts, slot->activation), x, ra_engine_stream_bytes(e->m, mb->pack.rows));
    }
    ra_timer_begin(e->timers, "forward");
    ra_model_forward(e->m, slot->chunk, &mb->pack, e->acts, slot->activation);
    const void *last = ra_activations_last(e->acts, slot->activation);
    ra_timer_end(e->timers, "forward");
    if (slot->send.rank >= 0)
        ra_wire_send(e->wire, slot->send.rank, slot->send.tag, last, ra_engine_stream_bytes(e->m, mb->pack.rows));
    if (is_end(e, slot) && !pass->backward) score(e, pass, slot->micro_batch, mb, last, objective);
}

/* dL/dlog p of every head row: the slope of its sample's loss; dL/dKL of a Retain row: weight / T. */
static void fill_coefficients(ra_engine *e, const ra_microbatch *mb, const ra_objective *objective)
{
    for (int32_t i = 0; i < mb->items; i++) {
        const ra_item *item = &mb->item[i];
        double r[RA_ROLES];
        log_ratios(mb, item, r);
        ra_loss_value v = ra_loss_pairwise(objective, item->kind, r);
        for (int role = 0; role < RA_ROLES; role++) {
            if (item->response[role] < 0) continue;
            const ra_response *y = &mb->response[item->response[role]];
            double c = item->kind == RA_LOSS_RETAIN  ? item->weight / y->count
                       : item->kind == RA_LOSS_SCORE ? item->weight
                                                     : item->weight * v.slope[role];
            for (int32_t j = 0; j < y->count; j++) e->coefficient[y->first + j] = c;
        }
    }
}

/* The network's end, forward and backward: the gradient that enters the layers. */
static void *begin_gradient(ra_engine *e, const ra_pass *pass, const ra_slot *slot, ra_microbatch *mb,
                            const ra_objective *objective, const ra_backward *mode)
{
    score(e, pass, slot->micro_batch, mb, ra_activations_last(e->acts, slot->activation), objective);
    fill_coefficients(e, mb, objective);
    ra_timer_begin(e->timers, "head backward");
    ra_head_backward(e->head, mb, e->coefficient, e->dx, mode);
    ra_timer_end(e->timers, "head backward");
    return e->dx;
}

/* Adds what this chunk's rows (and the head's) contribute to each item. */
static void add_dots(ra_engine *e, const ra_slot *slot, const ra_microbatch *mb)
{
    const ra_outcome *o = &e->outcome[slot->micro_batch];
    e->m->b->ops->download(e->m->b, e->host_dot, e->row_dot, (size_t)mb->pack.rows * sizeof *e->host_dot);
    const double *head = is_end(e, slot) ? ra_head_dot(e->head) : NULL;
    for (int32_t i = 0; i < mb->responses && head; i++)
        o->dot[mb->response[i].item] += sum(head, mb->response[i].first, mb->response[i].count);
    for (int32_t t = 0; t < mb->items; t++) {
        int32_t begin = ra_pack_tree_row(&mb->pack, t);
        o->dot[t] += sum(e->host_dot, begin, ra_pack_tree_row(&mb->pack, t + 1) - begin);
    }
}

void ra_engine_backward(ra_engine *e, const ra_pass *pass, const ra_slot *slot, const ra_objective *objective)
{
    ra_backend *b = e->m->b;
    ra_microbatch *mb = e->mb[slot->activation];
    ra_backward mode = *pass->backward;
    bool contracts = !mode.gradient;
    mode.dot = contracts ? e->row_dot : NULL;
    if (contracts) b->ops->zero(b, mode.dot, (size_t)mb->pack.rows * sizeof *mode.dot);
    void *dx;
    if (is_end(e, slot)) {
        dx = begin_gradient(e, pass, slot, mb, objective, &mode);
    } else {
        ra_timer_begin(e->timers, "pipeline wait");
        dx = ra_wire_wait(e->wire, slot->inbox);
        ra_timer_end(e->timers, "pipeline wait");
    }
    ra_timer_begin(e->timers, "backward");
    ra_model_backward(e->m, slot->chunk, &mb->pack, e->acts, slot->activation, dx, &mode);
    ra_timer_end(e->timers, "backward");
    if (slot->send.rank >= 0)
        ra_wire_send(e->wire, slot->send.rank, slot->send.tag, dx, ra_engine_stream_bytes(e->m, mb->pack.rows));
    if (contracts) add_dots(e, slot, mb);
}

void ra_engine_backward_weight(ra_engine *e, const ra_pass *pass, const ra_slot *slot)
{
    const ra_microbatch *mb = e->mb[slot->activation];
    ra_timer_begin(e->timers, "backward");
    ra_model_backward_weight(e->m, slot->chunk, &mb->pack, e->acts, slot->activation, pass->backward);
    ra_timer_end(e->timers, "backward");
}
