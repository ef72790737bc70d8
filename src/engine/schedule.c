/* Which slots a rank runs, and in which order. Every kind is one pattern: forwards run ahead of backwards by at most `ahead`, weight gradients behind them by
 * `behind`. */
#include "schedule_impl.h"

#include <realign/mem.h>

#include <string.h>

const char *const ra_pipeline_kind_name[RA_PIPELINE_KINDS] = {"gpipe", "1f1b", "interleaved", "zero-bubble", "forward"};

ra_err ra_pipeline_kind_parse(const char *name, ra_pipeline_kind *out)
{
    for (int k = 0; k < RA_PIPELINE_KINDS; k++) {
        if (strcmp(name, ra_pipeline_kind_name[k]) == 0) {
            *out = (ra_pipeline_kind)k;
            return RA_OK;
        }
    }
    return ra_fail(RA_ERR_ARG, "\"%s\" is not a pipeline schedule; accepted: gpipe, 1f1b, interleaved, zero-bubble, forward",
                   name);
}

/* The i-th forward or backward pass of a rank: group after group, in each chunk after chunk. */
static ra_slot pass(const ra_schedule *s, ra_slot_op op, int32_t i)
{
    const ra_schedule_groups g = ra_schedule_groups_of(s->ranks, s->micro_batches);
    const int32_t v = s->chunks, boundary = g.larger * (g.size + 1);
    int32_t first = 0, size = g.size + 1;
    if (i >= boundary * v) {
        first = boundary;
        size = g.size;
        i -= boundary * v;
    }
    int32_t group = i / (size * v), chunk = i % (size * v) / size;
    return (ra_slot){.op = op,
                     .micro_batch = first + group * size + i % size,
                     .chunk = op == RA_SLOT_FORWARD ? chunk : v - 1 - chunk,
                     .inbox = -1,
                     .receive = {-1, -1, -1},
                     .send = {-1, -1, -1}};
}

/* Forward passes before the first backward pass, but for the one right before it. Twice the ranks behind, as Megatron's order has it, leaves a message one slot of time on
 * its way; ranks of 1F1B wait for every message while it travels. */
static int32_t ahead_of(const ra_schedule *s, int32_t r)
{
    const int32_t ranks_behind = s->ranks - 1 - r, v = s->chunks;
    if (s->kind == RA_PIPELINE_GPIPE || s->kind == RA_PIPELINE_FORWARD) return s->micro_batches * v;
    if (s->kind != RA_PIPELINE_INTERLEAVED) return ranks_behind;
    const ra_schedule_groups g = ra_schedule_groups_of(s->ranks, s->micro_batches);
    return 2 * ranks_behind + (v - 1) * (g.size + (g.larger > 0));
}

static void order_slots(const ra_schedule *s, int32_t r, ra_schedule_rank *to)
{
    const bool split = s->kind == RA_PIPELINE_ZERO_BUBBLE;
    const int32_t n = s->micro_batches * s->chunks, backwards = s->kind == RA_PIPELINE_FORWARD ? 0 : n;
    const int32_t ahead = ahead_of(s, r), behind = r;
    to->slots = 0;
    to->slot = ra_alloc((size_t)n * 3, sizeof *to->slot);
    int32_t f = 0, b = 0, w = 0;
    while (f < n || b < backwards) {
        if (f < n && f - b <= ahead) {
            to->slot[to->slots++] = pass(s, RA_SLOT_FORWARD, f++);
            continue;
        }
        to->slot[to->slots++] = pass(s, split ? RA_SLOT_BACKWARD_INPUT : RA_SLOT_BACKWARD, b++);
        if (split && (b - w > behind || f == n)) to->slot[to->slots++] = pass(s, RA_SLOT_BACKWARD_WEIGHT, w++);
    }
    while (split && w < n) to->slot[to->slots++] = pass(s, RA_SLOT_BACKWARD_WEIGHT, w++);
}

static ra_err check(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v)
{
    if ((int)kind < 0 || kind >= RA_PIPELINE_KINDS) return ra_fail(RA_ERR_ARG, "pipeline schedule %d does not exist", (int)kind);
    if (p < 1 || m < 1 || v < 1) {
        return ra_fail(RA_ERR_ARG, "a pipeline of %d ranks, %d micro-batches and %d chunks a rank; accepted: 1 or more of each",
                       p, m, v);
    }
    if (v > 1 && kind != RA_PIPELINE_INTERLEAVED && kind != RA_PIPELINE_FORWARD) {
        return ra_fail(RA_ERR_ARG, "schedule %s with %d chunks a rank; accepted: 1 (interleaved and forward take more)",
                       ra_pipeline_kind_name[kind], v);
    }
    if (p > RA_SCHEDULE_MOST_TAGS || (int64_t)m * v > RA_SCHEDULE_MOST_TAGS / 2) {
        return ra_fail(RA_ERR_ARG,
                       "%d ranks, %d micro-batches of %d chunks; accepted: ranks up to %d, micro-batches x chunks up to %d", p, m,
                       v, RA_SCHEDULE_MOST_TAGS, RA_SCHEDULE_MOST_TAGS / 2);
    }
    return RA_OK;
}

ra_err ra_schedule_make(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, ra_schedule *out)
{
    *out = (ra_schedule){0};
    RA_TRY(check(kind, p, m, v));
    *out = (ra_schedule){kind, p, m, v, ra_calloc((size_t)p, sizeof *out->rank)};
    for (int32_t r = 0; r < p; r++) order_slots(out, r, &out->rank[r]);
    ra_schedule_link(out);
    ra_err err = ra_schedule_place(out);
    if (err != RA_OK) ra_schedule_free(out);
    return err;
}

void ra_schedule_free(ra_schedule *s)
{
    for (int32_t r = 0; r < s->ranks; r++) {
        ra_free(s->rank[r].slot);
        ra_free(s->rank[r].post_begin);
        ra_free(s->rank[r].post);
    }
    ra_free(s->rank);
    *s = (ra_schedule){0};
}
