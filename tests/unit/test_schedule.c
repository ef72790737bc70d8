/* Pipeline schedules: for all p <= 16, m <= 64 and v <= 4 every micro-batch once and in order, messages that match, no deadlock where every send waits for its receiver, buffers
 * that never collide, activations and bubbles as theory has them. */
#include "support/support.h"

#include <realign/mem.h>
#include <realign/schedule.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_P = 16, MOST_M = 64, MOST_V = 4 };

static bool has_backward(const ra_schedule *s)
{
    return s->kind != RA_PIPELINE_FORWARD;
}

/* Checks of one schedule return what is wrong with it, NULL when nothing is, and leave where. */
static int32_t wrong_rank, wrong_slot;
#define REQUIRE(condition, rank, slot, what) \
    do {                                     \
        if (condition) break;                \
        wrong_rank = (rank);                 \
        wrong_slot = (slot);                 \
        return what;                         \
    } while (0)

/* ---- order ---- */

static const char *check_rank_order(const ra_schedule *s, int32_t r)
{
    const ra_schedule_rank *of = &s->rank[r];
    const bool split = s->kind == RA_PIPELINE_ZERO_BUBBLE;
    int32_t next[RA_SLOT_OPS][MOST_V] = {0};
    for (int32_t i = 0; i < of->slots; i++) {
        const ra_slot *slot = &of->slot[i];
        REQUIRE(slot->chunk >= 0 && slot->chunk < s->chunks, r, i, "no such chunk");
        REQUIRE(slot->micro_batch == next[slot->op][slot->chunk], r, i, "micro-batch out of order");
        next[slot->op][slot->chunk]++;
        int32_t *done = next[RA_SLOT_FORWARD];
        if (slot->op == RA_SLOT_BACKWARD || slot->op == RA_SLOT_BACKWARD_INPUT)
            REQUIRE(slot->micro_batch < done[slot->chunk], r, i, "backward before forward");
        if (slot->op == RA_SLOT_BACKWARD_WEIGHT)
            REQUIRE(slot->micro_batch < next[RA_SLOT_BACKWARD_INPUT][slot->chunk], r, i, "weight before input gradient");
    }
    for (int32_t c = 0; c < s->chunks; c++) {
        const int32_t m = s->micro_batches, whole = has_backward(s) && !split ? m : 0, parts = split ? m : 0;
        REQUIRE(next[RA_SLOT_FORWARD][c] == m, r, c, "forward passes");
        REQUIRE(next[RA_SLOT_BACKWARD][c] == whole, r, c, "backward passes");
        REQUIRE(next[RA_SLOT_BACKWARD_INPUT][c] == parts, r, c, "input gradients");
        REQUIRE(next[RA_SLOT_BACKWARD_WEIGHT][c] == parts, r, c, "weight gradients");
    }
    return NULL;
}

static const char *check_order(const ra_schedule *s)
{
    const char *wrong = NULL;
    for (int32_t r = 0; r < s->ranks && !wrong; r++) wrong = check_rank_order(s, r);
    return wrong;
}

/* ---- messages ---- */

/* What a slot must receive and send follows from its virtual stage alone. */
static const char *check_ends(const ra_schedule *s, int32_t r, int32_t i)
{
    const ra_slot *slot = &s->rank[r].slot[i];
    const int32_t p = s->ranks, stage = slot->chunk * p + r, last = p * s->chunks - 1;
    int32_t from = slot->op == RA_SLOT_FORWARD ? stage - 1 : stage + 1, to = slot->op == RA_SLOT_FORWARD ? stage + 1 : stage - 1;
    if (slot->op == RA_SLOT_BACKWARD_WEIGHT) from = to = -1;
    if (from > last) from = -1;
    if (to > last) to = -1;
    REQUIRE(slot->receive.rank == (from < 0 ? -1 : from % p), r, i, "receives from the wrong rank");
    REQUIRE(slot->receive.chunk == (from < 0 ? -1 : from / p), r, i, "receives from the wrong chunk");
    REQUIRE(slot->send.rank == (to < 0 ? -1 : to % p), r, i, "sends to the wrong rank");
    REQUIRE(slot->send.chunk == (to < 0 ? -1 : to / p), r, i, "sends to the wrong chunk");
    REQUIRE((slot->receive.tag < 0) == (from < 0) && (slot->send.tag < 0) == (to < 0), r, i, "tag without a message");
    return NULL;
}

/* From rank a to rank b: sends in the order of a's slots, receives in the order in which b posts them; one must be the other. */
static const char *check_pair(const ra_schedule *s, int32_t a, int32_t b)
{
    static const ra_slot *posted[MOST_M * MOST_V * 2];
    static uint8_t tags[MOST_M * MOST_V * 2];
    const ra_schedule_rank *from = &s->rank[a], *to = &s->rank[b];
    int32_t posts = 0, k = 0;
    memset(tags, 0, sizeof tags);
    for (int32_t j = 0; j < to->post_begin[to->slots]; j++) {
        const ra_slot *slot = &to->slot[to->post[j]];
        if (slot->receive.rank == a) posted[posts++] = slot;
    }
    for (int32_t i = 0; i < from->slots; i++) {
        const ra_slot *x = &from->slot[i];
        if (x->send.rank != b) continue;
        REQUIRE(k < posts, a, i, "nobody receives this");
        const ra_slot *y = posted[k++];
        REQUIRE(y->op == x->op && y->micro_batch == x->micro_batch, a, i, "the receiver posts another message first");
        REQUIRE(y->chunk == x->send.chunk && x->chunk == y->receive.chunk, a, i, "the ends name different chunks");
        REQUIRE(y->receive.tag == x->send.tag && x->send.tag < 2 * s->micro_batches * s->chunks, a, i, "tags differ");
        REQUIRE(!tags[x->send.tag], a, i, "tag used twice");
        tags[x->send.tag] = 1;
    }
    REQUIRE(k == posts, b, k, "nobody sends this");
    return NULL;
}

static const char *check_messages(const ra_schedule *s)
{
    const char *wrong = NULL;
    for (int32_t r = 0; r < s->ranks; r++) {
        for (int32_t i = 0; i < s->rank[r].slots && !wrong; i++) wrong = check_ends(s, r, i);
        for (int32_t peer = 0; peer < s->ranks && !wrong; peer++) wrong = check_pair(s, r, peer);
    }
    return wrong;
}

/* ---- no deadlock: ranks whose sends wait for the receiver's post, and which do nothing else meanwhile ---- */

typedef struct {
    int32_t slot;
    bool sending; /* the slot is computed, its send waits */
} walker;

typedef struct {
    const ra_schedule *s;
    walker rank[MOST_P];
    uint8_t posted[MOST_P][MOST_P][MOST_M * MOST_V * 2], come[MOST_P][MOST_P][MOST_M * MOST_V * 2]; /* from, to, tag */
} blocking;

/* The rank goes on until it has to wait; true if it did anything. */
static bool walk(blocking *w, int32_t r)
{
    const ra_schedule_rank *of = &w->s->rank[r];
    walker *at = &w->rank[r];
    bool moved = false;
    for (;;) {
        if (at->sending) {
            const ra_slot *slot = &of->slot[at->slot];
            if (!w->posted[r][slot->send.rank][slot->send.tag]) return moved;
            w->come[r][slot->send.rank][slot->send.tag] = 1;
            at->sending = false;
            at->slot++;
            moved = true;
        }
        if (at->slot == of->slots) return moved;
        for (int32_t j = of->post_begin[at->slot]; j < of->post_begin[at->slot + 1]; j++) {
            const ra_slot_message *receive = &of->slot[of->post[j]].receive;
            w->posted[receive->rank][r][receive->tag] = 1;
        }
        const ra_slot *slot = &of->slot[at->slot];
        if (slot->receive.rank >= 0 && !w->come[slot->receive.rank][r][slot->receive.tag]) return moved;
        moved = true;
        at->sending = slot->send.rank >= 0;
        if (!at->sending) at->slot++;
    }
}

static const char *check_blocking(const ra_schedule *s)
{
    static blocking w;
    memset(&w, 0, sizeof w);
    w.s = s;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t r = 0; r < s->ranks; r++) moved |= walk(&w, r);
    }
    for (int32_t r = 0; r < s->ranks; r++) REQUIRE(w.rank[r].slot == s->rank[r].slots, r, w.rank[r].slot, "waits for ever");
    return NULL;
}

/* Why that is so: in lockstep a receive is posted with the last slot of its rank that begins no later than the sender's slot; with its first where none does. */
static const char *check_posts(const ra_schedule *s)
{
    static double begin[2][MOST_P * MOST_V * MOST_M]; /* forward, backward */
    const ra_schedule_costs lockstep = {.forward = 1.0, .backward = 1.0, .backward_input = 1.0, .backward_weight = 1.0};
    const char *wrong = NULL;
    ra_schedule_timing t;
    CHECK_OK(ra_schedule_time(s, &lockstep, &t));
    for (int32_t r = 0; r < s->ranks; r++) {
        for (int32_t i = 0; i < s->rank[r].slots; i++) {
            const ra_slot *slot = &s->rank[r].slot[i];
            if (slot->op == RA_SLOT_BACKWARD_WEIGHT) continue;
            begin[slot->op != RA_SLOT_FORWARD][(slot->chunk * s->ranks + r) * MOST_M + slot->micro_batch] = t.start[r][i];
        }
    }
    for (int32_t r = 0; r < s->ranks && !wrong; r++) {
        const ra_schedule_rank *of = &s->rank[r];
        for (int32_t i = 0; i < of->slots && !wrong; i++) {
            for (int32_t j = of->post_begin[i]; j < of->post_begin[i + 1]; j++) {
                const ra_slot *x = &of->slot[of->post[j]];
                double sender =
                    begin[x->op != RA_SLOT_FORWARD][(x->receive.chunk * s->ranks + x->receive.rank) * MOST_M + x->micro_batch];
                wrong_rank = r;
                wrong_slot = i;
                if (i > 0 && t.start[r][i] > sender) wrong = "posted after its sender's slot begins";
                if (i + 1 < of->slots && t.start[r][i + 1] <= sender) wrong = "posted earlier than need be";
            }
        }
    }
    ra_schedule_timing_free(&t);
    return wrong;
}

/* The simulator does see deadlocks: 1F1B whose receives are posted with the slot that needs them, as blocking send and receive do, has one. */
static void simulator_sees_deadlock(void **state)
{
    (void)state;
    ra_schedule s;
    CHECK_OK(ra_schedule_make(RA_PIPELINE_1F1B, 2, 4, 1, &s));
    assert_null(check_blocking(&s));
    for (int32_t r = 0; r < s.ranks; r++) {
        ra_schedule_rank *of = &s.rank[r];
        int32_t k = 0;
        for (int32_t i = 0; i < of->slots; i++) {
            of->post_begin[i] = k;
            if (of->slot[i].receive.rank >= 0) of->post[k++] = i;
        }
        assert_int_equal(k, of->post_begin[of->slots]);
    }
    assert_non_null(check_blocking(&s));
    assert_int_equal(wrong_rank, 0);
    assert_int_equal(s.rank[0].slot[wrong_slot].op, RA_SLOT_FORWARD); /* its send */
    ra_schedule_free(&s);
}

/* ---- buffers ---- */

/* Activations live from the forward slot to the last slot that reads them; each keeps its own buffer meanwhile. */
static const char *check_activations(const ra_schedule *s, int32_t r)
{
    const ra_schedule_rank *of = &s->rank[r];
    const ra_slot_op last = s->kind == RA_PIPELINE_ZERO_BUBBLE ? RA_SLOT_BACKWARD_WEIGHT : RA_SLOT_BACKWARD;
    const ra_slot *owner[MOST_M * MOST_V] = {0};
    int32_t held = 0, most = 0;
    for (int32_t i = 0; i < of->slots; i++) {
        const ra_slot *slot = &of->slot[i];
        REQUIRE(slot->activation >= 0 && slot->activation < of->peak, r, i, "no such activation buffer");
        const ra_slot **at = &owner[slot->activation];
        if (slot->op == RA_SLOT_FORWARD) {
            REQUIRE(!*at, r, i, "activation buffer in use");
            *at = slot;
            if (++held > most) most = held;
        } else {
            REQUIRE(*at && (*at)->micro_batch == slot->micro_batch && (*at)->chunk == slot->chunk, r, i,
                    "another micro-batch's activations");
        }
        if (slot->op == last || !has_backward(s)) *at = NULL, held--;
    }
    REQUIRE(held == 0, r, of->slots, "activations left over");
    REQUIRE(of->peak == most, r, -1, "peak is not the largest number held");
    REQUIRE(of->peak == ra_schedule_theory_peak(s->kind, s->ranks, s->micro_batches, s->chunks, r), r, -1, "peak against theory");
    return NULL;
}

static const char *check_inboxes(const ra_schedule *s, int32_t r)
{
    const ra_schedule_rank *of = &s->rank[r];
    int32_t owner[MOST_M * MOST_V * 2], held = 0, most = 0;
    memset(owner, -1, sizeof owner);
    for (int32_t i = 0; i < of->slots; i++) {
        for (int32_t j = of->post_begin[i]; j < of->post_begin[i + 1]; j++) {
            int32_t inbox = of->slot[of->post[j]].inbox;
            REQUIRE(of->post[j] >= i, r, i, "posted after its slot");
            REQUIRE(inbox >= 0 && inbox < of->inboxes, r, of->post[j], "no such inbox");
            REQUIRE(owner[inbox] < 0, r, i, "inbox in use");
            owner[inbox] = of->post[j];
            if (++held > most) most = held;
        }
        const ra_slot *slot = &of->slot[i];
        REQUIRE((slot->inbox >= 0) == (slot->receive.rank >= 0), r, i, "inbox without a message");
        if (slot->inbox < 0) continue;
        REQUIRE(owner[slot->inbox] == i, r, i, "another slot's inbox");
        owner[slot->inbox] = -1;
        held--;
    }
    REQUIRE(of->inboxes == most, r, -1, "more inboxes than are used");
    REQUIRE(s->chunks > 1 || of->inboxes <= 3, r, -1, "more than 3 inboxes without chunks");
    REQUIRE(of->inboxes <= 2 * s->ranks + 1, r, -1, "more than 2 p + 1 inboxes");
    return NULL;
}

static const char *check_buffers(const ra_schedule *s)
{
    const char *wrong = NULL;
    for (int32_t r = 0; r < s->ranks && !wrong; r++) {
        wrong = check_activations(s, r);
        if (!wrong) wrong = check_inboxes(s, r);
    }
    return wrong;
}

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The bounds as they stand in the literature, where it states them. */
static void peaks_as_published(void **state)
{
    (void)state;
    for (int32_t p = 1; p <= MOST_P; p++) {
        for (int32_t r = 0; r < p; r++) {
            const int32_t m = 3 * p;
            assert_int_equal(ra_schedule_theory_peak(RA_PIPELINE_GPIPE, p, m, 1, r), m);
            assert_int_equal(ra_schedule_theory_peak(RA_PIPELINE_1F1B, p, m, 1, r), p - r);
            assert_int_equal(ra_schedule_theory_peak(RA_PIPELINE_INTERLEAVED, p, m, 1, r), least(m, 2 * (p - r) - 1));
            assert_int_equal(ra_schedule_theory_peak(RA_PIPELINE_INTERLEAVED, p, m, 2, r), 2 * (p - r - 1) + p + 1);
            assert_int_equal(ra_schedule_theory_peak(RA_PIPELINE_ZERO_BUBBLE, p, m, 1, r), p);
        }
    }
}

/* ---- time ---- */

static const char *check_times(const ra_schedule *s)
{
    static const ra_schedule_costs costs[] = {
        {.forward = 1.0, .backward = 2.0, .backward_input = 1.0, .backward_weight = 1.0},
        {.forward = 1.5, .backward = 1.25, .backward_input = 3.0, .backward_weight = 0.7},
    };
    for (int k = 0; k < 2; k++) {
        const ra_schedule_costs *c = &costs[k];
        const double split = c->backward_input + c->backward_weight,
                     backward = s->kind == RA_PIPELINE_ZERO_BUBBLE ? split
                                : has_backward(s)                  ? c->backward
                                                                   : 0.0,
                     busy = s->micro_batches * s->chunks * (c->forward + backward),
                     bubble = ra_schedule_theory_bubble(s->kind, s->ranks, s->micro_batches, s->chunks, c);
        ra_schedule_timing t;
        CHECK_OK(ra_schedule_time(s, c, &t));
        bool right =
            is_close(t.bubble, bubble, 0, 1e-12, "bubble") && is_close(t.makespan, busy / (1.0 - bubble), 1e-12, 0, "makespan");
        for (int32_t r = 0; r < s->ranks; r++) right &= is_close(t.busy[r], busy, 1e-12, 0, "busy");
        ra_schedule_timing_free(&t);
        REQUIRE(right, -1, k, "times against theory");
    }
    return NULL;
}

static double makespan_of(const ra_schedule *s, const ra_schedule_costs *c)
{
    ra_schedule_timing t;
    CHECK_OK(ra_schedule_time(s, c, &t));
    double makespan = t.makespan;
    ra_schedule_timing_free(&t);
    return makespan;
}

/* The formulae as published, written down a second time. */
static void bubbles_as_published(void **state)
{
    (void)state;
    const ra_schedule_costs c = {.forward = 1.0, .backward = 2.0, .backward_input = 1.0, .backward_weight = 1.0};
    const ra_schedule_costs uneven = {.forward = 2.0, .backward = 5.0, .backward_input = 3.5, .backward_weight = 1.5};
    for (int32_t p = 1; p <= MOST_P; p++) {
        for (int32_t m = p; m <= MOST_M; m++) {
            const double P = p, M = m;
            check_close(ra_schedule_theory_bubble(RA_PIPELINE_GPIPE, p, m, 1, &c), (P - 1) / (M + P - 1), 1e-12, 1e-15, "GPipe");
            check_close(ra_schedule_theory_bubble(RA_PIPELINE_1F1B, p, m, 1, &uneven), (P - 1) / (M + P - 1), 1e-12, 1e-15,
                        "1F1B");
            for (int32_t v = 1; v <= MOST_V; v++) {
                check_close(ra_schedule_theory_bubble(RA_PIPELINE_INTERLEAVED, p, m, v, &c), (P - 1) / (v * M + P - 1), 1e-12,
                            1e-15, "interleaved");
                check_close(ra_schedule_theory_bubble(RA_PIPELINE_FORWARD, p, m, v, &c), (P - 1) / (v * M + P - 1), 1e-12, 1e-15,
                            "forward");
            }
            check_close(ra_schedule_theory_bubble(RA_PIPELINE_ZERO_BUBBLE, p, m, 1, &c), (P - 1) / (3 * M + P - 1), 1e-12, 1e-15,
                        "ZB-H1");
            const double idle = (P - 1) * (2.0 + 3.5 - 1.5);
            check_close(ra_schedule_theory_bubble(RA_PIPELINE_ZERO_BUBBLE, p, m, 1, &uneven), idle / (7.0 * M + idle), 1e-12,
                        1e-15, "ZB-H1, uneven");
        }
    }
}

/* Times worked out by hand: latency, uneven stages. */
static void times_by_hand(void **state)
{
    (void)state;
    ra_schedule s;
    CHECK_OK(ra_schedule_make(RA_PIPELINE_GPIPE, 4, 8, 1, &s));
    ra_schedule_costs c = {.forward = 1.0, .backward = 2.0, .latency = 0.25};
    check_close(makespan_of(&s, &c), 11.0 * 3.0 + 6 * 0.25, 0, 1e-12, "a message more each way a stage");
    ra_schedule_free(&s);
    CHECK_OK(ra_schedule_make(RA_PIPELINE_INTERLEAVED, 1, 3, 2, &s));
    check_close(makespan_of(&s, &c), 3 * 2 * 3.0, 0, 1e-12, "no latency within a rank");
    ra_schedule_free(&s);
    CHECK_OK(ra_schedule_make(RA_PIPELINE_FORWARD, 3, 5, 1, &s));
    const ra_schedule_costs uneven[] = {{.forward = 1.0}, {.forward = 3.0}, {.forward = 0.5}};
    c = (ra_schedule_costs){.stage = uneven};
    ra_schedule_timing t;
    CHECK_OK(ra_schedule_time(&s, &c, &t));
    check_close(t.makespan, 1.0 + 5 * 3.0 + 0.5, 0, 1e-12, "the slowest stage sets the pace");
    check_close(t.busy[1], 15.0, 0, 1e-12, "busy");
    check_close(t.start[2][1], 7.0, 0, 1e-12, "begin of the second micro-batch on the last rank");
    check_close(t.end[2][4], 16.5, 0, 1e-12, "end");
    ra_schedule_timing_free(&t);
    ra_schedule_free(&s);
}

/* A head that the last stage computes in its backward slots, 2 stages of 2 chunks: F 1, B 2, the head 4 more. */
static void head_in_backward(void **state)
{
    (void)state;
    const ra_schedule_costs even = {.forward = 1.0, .backward = 2.0}, last = {.forward = 1.0, .backward = 6.0};
    const ra_schedule_costs stages[] = {even, even, even, last};
    ra_schedule s;
    ra_schedule_timing t;
    CHECK_OK(ra_schedule_make(RA_PIPELINE_INTERLEAVED, 2, 1, 2, &s));
    CHECK_OK(ra_schedule_time(&s, &(ra_schedule_costs){.latency = 0.5, .stage = stages}, &t));
    check_close(t.makespan, 4 * 1.0 + 6.0 + 3 * 2.0 + 6 * 0.5, 0, 1e-12, "one after the other");
    check_close(t.busy[0], 2 * 3.0, 0, 1e-12, "rank 0");
    check_close(t.busy[1], 3.0 + 7.0, 0, 1e-12, "rank 1 has the head");
    ra_schedule_timing_free(&t);
    ra_schedule_free(&s);
}

/* What twice the forwards ahead are for: a message is on its way while its receiver has other work. */
static void latency_hidden(void **state)
{
    (void)state;
    const ra_schedule_costs c = {.forward = 1.0, .backward = 2.0, .latency = 0.5};
    ra_schedule tight, loose;
    CHECK_OK(ra_schedule_make(RA_PIPELINE_1F1B, 4, 32, 1, &tight));
    CHECK_OK(ra_schedule_make(RA_PIPELINE_INTERLEAVED, 4, 32, 1, &loose));
    const double once = 35 * 3.0 + 6 * 0.5; /* every message of one micro-batch waited for */
    check_close(makespan_of(&loose, &c), once, 0, 1e-12, "hidden");
    assert_true(makespan_of(&tight, &c) > once + 20 * 0.5);
    ra_schedule_free(&tight);
    ra_schedule_free(&loose);
}

/* A table that cannot run is an error, not an endless loop. */
static void broken_table(void **state)
{
    (void)state;
    ra_schedule s;
    const ra_schedule_costs c = {.forward = 1.0, .backward = 2.0};
    CHECK_OK(ra_schedule_make(RA_PIPELINE_1F1B, 2, 4, 1, &s));
    ra_slot first = s.rank[1].slot[0];
    s.rank[1].slot[0] = s.rank[1].slot[1]; /* backward before forward */
    s.rank[1].slot[1] = first;
    ra_schedule_timing t;
    check_fails(ra_schedule_time(&s, &c, &t), RA_ERR_DATA, "1f1b", "waits for ever", "micro-batch 0", NULL);
    assert_null(t.start);
    ra_schedule_free(&s);
}

/* ---- the orders themselves ---- */

static void check_text(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, int32_t r, const char *want)
{
    ra_schedule s;
    ra_buf text = {0};
    CHECK_OK(ra_schedule_make(kind, p, m, v, &s));
    for (int32_t i = 0; i < s.rank[r].slots; i++) {
        const ra_slot *slot = &s.rank[r].slot[i];
        ra_buf_addf(&text, "%s%c%d%.*s", i ? " " : "", "FBbW"[slot->op], slot -> micro_batch, v > 1 ? slot -> chunk : 0, "''''");
    }
    assert_string_equal(text.data, want);
    ra_buf_free(&text);
    ra_schedule_free(&s);
}

/* As the figures of the papers show them (p = 4; there micro-batches and devices count from 1): 1F1B and interleaved in Megatron-LM's, ZB-H1 in Zero bubble's. */
static void orders_as_published(void **state)
{
    (void)state;
    check_text(RA_PIPELINE_GPIPE, 3, 3, 1, 1, "F0 F1 F2 B0 B1 B2");
    check_text(RA_PIPELINE_1F1B, 4, 8, 1, 0, "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7");
    check_text(RA_PIPELINE_1F1B, 4, 8, 1, 3, "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7");
    check_text(RA_PIPELINE_INTERLEAVED, 4, 8, 2, 0,
               "F0 F1 F2 F3 F0' F1' F2' F3' F4 F5 F6 B0' F7 B1' F4' B2' F5' B3' F6' B0 F7' B1 B2 B3 B4' B5' B6' B7' B4 B5 B6 B7");
    check_text(RA_PIPELINE_INTERLEAVED, 4, 8, 2, 3,
               "F0 F1 F2 F3 F0' B0' F1' B1' F2' B2' F3' B3' F4 B0 F5 B1 F6 B2 F7 B3 F4' B4' F5' B5' F6' B6' F7' B7' B4 B5 B6 B7");
    check_text(RA_PIPELINE_ZERO_BUBBLE, 4, 8, 1, 0, "F0 F1 F2 F3 b0 W0 F4 b1 W1 F5 b2 W2 F6 b3 W3 F7 b4 W4 b5 W5 b6 W6 b7 W7");
    check_text(RA_PIPELINE_ZERO_BUBBLE, 4, 8, 1, 3, "F0 b0 F1 b1 F2 b2 F3 b3 W0 F4 b4 W1 F5 b5 W2 F6 b6 W3 F7 b7 W4 W5 W6 W7");
    check_text(RA_PIPELINE_FORWARD, 2, 5, 2, 1, "F0 F1 F2 F0' F1' F2' F3 F4 F3' F4'");
}

static void arguments(void **state)
{
    (void)state;
    ra_schedule s;
    ra_pipeline_kind kind;
    for (int k = 0; k < RA_PIPELINE_KINDS; k++) {
        CHECK_OK(ra_pipeline_kind_parse(ra_pipeline_kind_name[k], &kind));
        assert_int_equal(kind, k);
    }
    check_fails(ra_pipeline_kind_parse("1f2b", &kind), RA_ERR_ARG, "1f2b", "gpipe, 1f1b, interleaved, zero-bubble, forward",
                NULL);
    check_fails(ra_schedule_make(RA_PIPELINE_1F1B, 0, 4, 1, &s), RA_ERR_ARG, "0 ranks", "accepted: 1 or more", NULL);
    check_fails(ra_schedule_make(RA_PIPELINE_1F1B, 2, -1, 1, &s), RA_ERR_ARG, "-1 micro-batches", NULL);
    check_fails(ra_schedule_make(RA_PIPELINE_INTERLEAVED, 2, 4, 0, &s), RA_ERR_ARG, "0 chunks", NULL);
    check_fails(ra_schedule_make(RA_PIPELINE_GPIPE, 2, 4, 2, &s), RA_ERR_ARG, "gpipe", "2 chunks", "accepted: 1", NULL);
    check_fails(ra_schedule_make(RA_PIPELINE_KINDS, 2, 4, 1, &s), RA_ERR_ARG, "does not exist", NULL);
    check_fails(ra_schedule_make(RA_PIPELINE_INTERLEAVED, 2, 8193, 2, &s), RA_ERR_ARG, "micro-batches x chunks up to 16384",
                NULL);
    assert_null(s.rank);
    CHECK_OK(ra_schedule_make(RA_PIPELINE_INTERLEAVED, 2, 8192, 2, &s));
    ra_schedule_free(&s);
}

/* ---- all schedules, made once ---- */

static struct {
    const char *name;
    const char *(*check)(const ra_schedule *s);
    int schedules;
    char failure[256]; /* the first; empty: none */
} checks[] = {
    {.name = "every_micro_batch_once_in_order", .check = check_order},
    {.name = "messages_match", .check = check_messages},
    {.name = "no_deadlock", .check = check_blocking},
    {.name = "posts_before_sends_in_lockstep", .check = check_posts},
    {.name = "buffers_never_collide", .check = check_buffers},
    {.name = "times_as_theory_has_them", .check = check_times},
};
enum { CHECKS = sizeof checks / sizeof checks[0] };

static void run_checks(const ra_schedule *s)
{
    for (int k = 0; k < CHECKS; k++) {
        if (checks[k].failure[0]) continue;
        const char *wrong = checks[k].check(s);
        checks[k].schedules++;
        if (!wrong) continue;
        snprintf(checks[k].failure, sizeof checks[k].failure, "%s, p %d, m %d, v %d, rank %d, slot %d: %s",
                 ra_pipeline_kind_name[s->kind], s->ranks, s->micro_batches, s->chunks, wrong_rank, wrong_slot, wrong);
    }
}

static int check_all(void **state)
{
    (void)state;
    for (int kind = 0; kind < RA_PIPELINE_KINDS; kind++) {
        int32_t most_v = kind == RA_PIPELINE_INTERLEAVED || kind == RA_PIPELINE_FORWARD ? MOST_V : 1;
        for (int32_t v = 1; v <= most_v; v++) {
            for (int32_t p = 1; p <= MOST_P; p++) {
                for (int32_t m = 1; m <= MOST_M; m++) {
                    ra_schedule s;
                    CHECK_OK(ra_schedule_make((ra_pipeline_kind)kind, p, m, v, &s));
                    run_checks(&s);
                    ra_schedule_free(&s);
                }
            }
        }
    }
    return 0;
}

static void of_all_schedules(void **state)
{
    int k = *(const int *)*state;
    if (checks[k].failure[0]) fail_msg("%s", checks[k].failure);
    assert_int_equal(checks[k].schedules, MOST_P * MOST_M * (3 + 2 * MOST_V));
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    static int index[CHECKS];
    struct CMUnitTest tests[CHECKS + 9] = {
        cmocka_unit_test(simulator_sees_deadlock),
        cmocka_unit_test(peaks_as_published),
        cmocka_unit_test(bubbles_as_published),
        cmocka_unit_test(times_by_hand),
        cmocka_unit_test(head_in_backward),
        cmocka_unit_test(latency_hidden),
        cmocka_unit_test(broken_table),
        cmocka_unit_test(orders_as_published),
        cmocka_unit_test(arguments),
    };
    for (int k = 0; k < CHECKS; k++) {
        index[k] = k;
        tests[9 + k] = (struct CMUnitTest){.name = checks[k].name, .test_func = of_all_schedules, .initial_state = &index[k]};
    }
    return cmocka_run_group_tests_name("schedule", tests, check_all, NULL);
}
