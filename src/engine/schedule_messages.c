/* Messages between slots: who sends to whom, when receives are posted, in which buffers messages and activations lie. */
#include "schedule_impl.h"

#include <realign/mem.h>

#include <stdlib.h>

/* ---- both ends ---- */

/* The end of a message at virtual stage `stage`; the tag counts the receiver's side. */
static ra_slot_message message(const ra_schedule *s, const ra_slot *slot, int32_t stage, int32_t receiver_chunk)
{
    if (stage < 0 || stage >= s->ranks * s->chunks) return (ra_slot_message){-1, -1, -1};
    int32_t kind = slot->op == RA_SLOT_FORWARD ? 0 : 1;
    return (ra_slot_message){
        .rank = stage % s->ranks, .chunk = stage / s->ranks, .tag = (slot->micro_batch * s->chunks + receiver_chunk) * 2 + kind};
}

void ra_schedule_link(ra_schedule *s)
{
    for (int32_t r = 0; r < s->ranks; r++) {
        for (int32_t i = 0; i < s->rank[r].slots; i++) {
            ra_slot *slot = &s->rank[r].slot[i];
            if (slot->op == RA_SLOT_BACKWARD_WEIGHT) continue;
            int32_t stage = slot->chunk * s->ranks + r, step = slot->op == RA_SLOT_FORWARD ? 1 : -1;
            slot->receive = message(s, slot, stage - step, slot->chunk);
            slot->send = message(s, slot, stage + step, (stage + step) / s->ranks);
        }
    }
}

/* ---- when receives are posted ---- */

typedef struct {
    double sent;  /* when the sender's slot begins */
    int32_t slot; /* the receiver's */
} arrival;

static int by_time(const void *a, const void *b)
{
    const arrival *x = a, *y = b;
    if (x->sent != y->sent) return x->sent < y->sent ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

/* begin[op != FORWARD][stage, micro-batch]: when that slot begins. */
static void index_begins(const ra_schedule *s, const ra_schedule_timing *t, double *begin[2])
{
    for (int32_t r = 0; r < s->ranks; r++) {
        for (int32_t i = 0; i < s->rank[r].slots; i++) {
            const ra_slot *slot = &s->rank[r].slot[i];
            if (slot->op == RA_SLOT_BACKWARD_WEIGHT) continue;
            int64_t at = (int64_t)(slot->chunk * s->ranks + r) * s->micro_batches + slot->micro_batch;
            begin[slot->op != RA_SLOT_FORWARD][at] = t->start[r][i];
        }
    }
}

/* A receive is posted with the last slot that begins no later than the sender's: it stands before the send even where every send waits for it. Posts so follow the time of
 * sending, which keeps messages between two ranks in their order. */
static void post_receives(const ra_schedule *s, ra_schedule_rank *to, const double *start, double *const begin[2])
{
    arrival *a = ra_alloc((size_t)to->slots, sizeof *a);
    int32_t n = 0;
    for (int32_t i = 0; i < to->slots; i++) {
        const ra_slot *slot = &to->slot[i];
        if (slot->receive.rank < 0) continue;
        int64_t stage = (int64_t)slot->receive.chunk * s->ranks + slot->receive.rank;
        a[n++] = (arrival){begin[slot->op != RA_SLOT_FORWARD][stage * s->micro_batches + slot->micro_batch], i};
    }
    qsort(a, (size_t)n, sizeof *a, by_time);
    to->post_begin = ra_calloc((size_t)to->slots + 1, sizeof *to->post_begin);
    to->post = ra_alloc((size_t)n, sizeof *to->post);
    int32_t k = 0;
    for (int32_t i = 0; i < to->slots; i++) {
        to->post_begin[i] = k;
        while (k < n && (i + 1 == to->slots || start[i + 1] > a[k].sent)) to->post[k] = a[k].slot, k++;
    }
    to->post_begin[to->slots] = k;
    ra_free(a);
}

/* ---- buffers: the lowest free one, so that there are never more than are in use at once ---- */

typedef struct {
    bool *used; /* (most) */
    int32_t count;
} pool;

static int32_t take(pool *p)
{
    int32_t i = 0;
    while (p->used[i]) i++;
    p->used[i] = true;
    if (i >= p->count) p->count = i + 1;
    return i;
}

static void place_inboxes(ra_schedule_rank *to)
{
    pool p = {.used = ra_calloc((size_t)to->slots + 1, 1)};
    for (int32_t i = 0; i < to->slots; i++) {
        for (int32_t k = to->post_begin[i]; k < to->post_begin[i + 1]; k++) to->slot[to->post[k]].inbox = take(&p);
        if (to->slot[i].inbox >= 0) p.used[to->slot[i].inbox] = false;
    }
    to->inboxes = p.count;
    ra_free(p.used);
}

static void place_activations(const ra_schedule *s, ra_schedule_rank *to)
{
    const ra_slot_op last = s->kind == RA_PIPELINE_ZERO_BUBBLE ? RA_SLOT_BACKWARD_WEIGHT
                            : s->kind == RA_PIPELINE_FORWARD   ? RA_SLOT_FORWARD
                                                               : RA_SLOT_BACKWARD;
    int32_t *held = ra_alloc((size_t)s->micro_batches * (size_t)s->chunks, sizeof *held);
    pool p = {.used = ra_calloc((size_t)to->slots + 1, 1)};
    for (int32_t i = 0; i < to->slots; i++) {
        ra_slot *slot = &to->slot[i];
        int32_t *at = &held[slot->micro_batch * s->chunks + slot->chunk];
        if (slot->op == RA_SLOT_FORWARD) *at = take(&p);
        slot->activation = *at;
        if (slot->op == last) p.used[*at] = false;
    }
    to->peak = p.count;
    ra_free(p.used);
    ra_free(held);
}

ra_err ra_schedule_place(ra_schedule *s)
{
    static const ra_schedule_costs lockstep = {.forward = 1.0, .backward = 1.0, .backward_input = 1.0, .backward_weight = 1.0};
    ra_schedule_timing t;
    RA_TRY(ra_schedule_time(s, &lockstep, &t));
    size_t cells = (size_t)s->ranks * (size_t)s->chunks * (size_t)s->micro_batches;
    double *begin[2] = {ra_alloc(cells, sizeof(double)), ra_alloc(cells, sizeof(double))};
    index_begins(s, &t, begin);
    for (int32_t r = 0; r < s->ranks; r++) {
        post_receives(s, &s->rank[r], t.start[r], begin);
        place_inboxes(&s->rank[r]);
        place_activations(s, &s->rank[r]);
    }
    ra_free(begin[0]);
    ra_free(begin[1]);
    ra_schedule_timing_free(&t);
    return RA_OK;
}
