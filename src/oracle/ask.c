/* Asking one kind: what the cache knows is not asked, what is asked twice in a batch is asked once, and what is heard goes to the cache at once. */
#include "oracle_impl.h"

#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add_text(ra_hasher *h, const char *text)
{
    int64_t length = text ? (int64_t)strlen(text) : -1;
    ra_hasher_add(h, &length, sizeof length);
    if (text) ra_hasher_add(h, text, (size_t)length);
}

ra_hash ra_item_hash(ra_hash identity, const ra_oracle_item *item, bool whole_row)
{
    ra_hasher *h = ra_hasher_new();
    const ra_message alone = {"user", item->prompt}, *turns = item->turns ? item->turns : &alone;
    int n = item->turns ? item->n_turns : 1;
    ra_hasher_add(h, &identity, sizeof identity);
    for (int i = 0; i < n; i++) {
        add_text(h, turns[i].role);
        add_text(h, turns[i].content);
    }
    add_text(h, item->response);
    add_text(h, item->category);
    if (whole_row) {
        char *row = json_dumps(item->source, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
        add_text(h, row);
        ra_hasher_add(h, &item->response_index, sizeof item->response_index);
        free(row);
    }
    return ra_hasher_end(h);
}

/* ---- one call of a kind ---- */
typedef struct {
    const ra_asked *m;
    ra_verdicts *cache;
    const ra_hash *question; /* (n) with a cache */
    ra_verdict *verdict;     /* (n) what was heard */
    bool *heard;             /* (n) */
    int n;
    ra_err err; /* of the cache; the kind goes on meanwhile */
    bool misused;
} hearing;

static void hear(void *context, int item, const ra_verdict *verdict)
{
    hearing *h = context;
    if (item < 0 || item >= h->n || h->heard[item]) {
        h->misused = true;
        return;
    }
    ra_verdict v = *verdict;
    if (v.compliant >= 0 && (!isfinite(v.probability) || isnan(v.margin))) v.compliant = -1;
    h->heard[item] = true;
    h->verdict[item] = v;
    if (h->cache && v.compliant >= 0 && h->err == RA_OK)
        h->err = ra_verdicts_add(h->cache, h->question[item], (uint32_t)h->m->identity.low, &v);
}

static ra_err call(const ra_asked *m, ra_verdicts *cache, const ra_oracle_item *items, const ra_hash *question, int n,
                   ra_verdict *out)
{
    hearing h = {.m = m, .cache = cache, .question = question, .verdict = out, .n = n};
    h.heard = ra_calloc((size_t)n, sizeof *h.heard);
    ra_err err = n ? m->kind.ops->judge(m->kind.state, items, n, hear, &h) : RA_OK;
    int missing = 0;
    for (int i = 0; i < n; i++) missing += !h.heard[i];
    ra_free(h.heard);
    if (err != RA_OK) return err;
    if (h.err != RA_OK) return ra_fail(h.err, "oracle.cache: a verdict could not be kept: %s", ra_error_message());
    if (h.misused)
        return ra_fail(RA_ERR_NUMERIC, "the oracle of kind %s answered a question that was not put, or twice", m->kind.ops->name);
    if (missing)
        return ra_fail(RA_ERR_NUMERIC, "the oracle of kind %s left %d of %d questions without an answer", m->kind.ops->name,
                       missing, n);
    return RA_OK;
}

/* ---- questions of a batch ---- */
typedef struct {
    ra_hash *hash; /* (n) of each item */
    int *slot;     /* open addressing over the questions to ask: index into `item`, or -1 */
    int slots;
    int *item;    /* (asked) the item that stands for the question */
    int *replied; /* (n) the question of each item; -1: none */
    int asked;
} batch;

static void make_batch(batch *b, int n)
{
    b->slots = 16;
    while (b->slots < 2 * n) b->slots *= 2;
    b->hash = ra_alloc((size_t)n, sizeof *b->hash);
    b->slot = ra_alloc((size_t)b->slots, sizeof *b->slot);
    b->item = ra_alloc((size_t)n, sizeof *b->item);
    b->replied = ra_alloc((size_t)n, sizeof *b->replied);
    memset(b->slot, -1, (size_t)b->slots * sizeof *b->slot);
    b->asked = 0;
}

static void free_batch(batch *b)
{
    ra_free(b->hash);
    ra_free(b->slot);
    ra_free(b->item);
    ra_free(b->replied);
}

/* Puts item i's question on the list, unless the same one is there. */
static void put(batch *b, int i)
{
    int at = (int)(b->hash[i].low & (uint64_t)(b->slots - 1));
    for (; b->slot[at] >= 0; at = (at + 1) & (b->slots - 1)) {
        const ra_hash *other = &b->hash[b->item[b->slot[at]]];
        if (other->low == b->hash[i].low && other->high == b->hash[i].high) break;
    }
    if (b->slot[at] < 0) {
        b->slot[at] = b->asked;
        b->item[b->asked++] = i;
    }
    b->replied[i] = b->slot[at];
}

/* What the cache does not know. */
static void look_up(const ra_asked *m, const ra_verdicts *cache, const ra_oracle_item *items, int n, const bool *want, batch *b,
                    ra_verdict *out)
{
    ra_verdict found;
    for (int i = 0; i < n; i++) {
        b->replied[i] = -1;
        if (want && !want[i]) continue;
        b->hash[i] = ra_item_hash(m->identity, &items[i], !m->kind.ops->judges_text);
        if (cache && ra_verdicts_find(cache, b->hash[i], &found)) {
            if (out) out[i] = found;
        } else {
            put(b, i);
        }
    }
}

static ra_err judge_costly(const ra_asked *m, ra_verdicts *cache, const ra_oracle_item *items, int n, const bool *want,
                           ra_oracle_counts *counts, ra_verdict *out)
{
    batch b;
    int wanted = 0;
    make_batch(&b, n);
    look_up(m, cache, items, n, want, &b, out);
    ra_oracle_item *put_items = ra_alloc((size_t)b.asked, sizeof *put_items);
    ra_hash *question = ra_alloc((size_t)b.asked, sizeof *question);
    ra_verdict *answer = ra_alloc((size_t)b.asked, sizeof *answer);
    for (int k = 0; k < b.asked; k++) {
        put_items[k] = items[b.item[k]];
        question[k] = b.hash[b.item[k]];
    }
    ra_err err = call(m, cache, put_items, question, b.asked, answer);
    for (int i = 0; i < n && err == RA_OK; i++) {
        wanted += !want || want[i];
        if (b.replied[i] >= 0) out[i] = answer[b.replied[i]];
    }
    if (err == RA_OK) {
        counts->asked += b.asked;
        counts->known += wanted - b.asked;
    }
    ra_free(answer);
    ra_free(question);
    ra_free(put_items);
    free_batch(&b);
    return err;
}

static ra_err judge_cheap(const ra_asked *m, const ra_oracle_item *items, int n, const bool *want, ra_verdict *out)
{
    if (!want) return call(m, NULL, items, NULL, n, out);
    ra_oracle_item *some = ra_alloc((size_t)n, sizeof *some);
    ra_verdict *answer = ra_alloc((size_t)n, sizeof *answer);
    int k = 0;
    for (int i = 0; i < n; i++) {
        if (want[i]) some[k++] = items[i];
    }
    ra_err err = call(m, NULL, some, NULL, k, answer);
    k = 0;
    for (int i = 0; i < n && err == RA_OK; i++) {
        if (want[i]) out[i] = answer[k++];
    }
    ra_free(answer);
    ra_free(some);
    return err;
}

ra_err ra_asked_judge(ra_asked *m, ra_verdicts *cache, const ra_oracle_item *items, int n, const bool *want,
                      ra_oracle_counts *counts, ra_verdict *out)
{
    ra_err err = m->kind.ops->costly ? judge_costly(m, cache, items, n, want, counts, out) : judge_cheap(m, items, n, want, out);
    for (int i = 0; i < n && err == RA_OK; i++) {
        ra_verdict *v = &out[i];
        if ((want && !want[i]) || v->compliant < 0) continue;
        if (m->kind.threshold > 0.0) v->compliant = v->probability >= m->kind.threshold;
        if (v->compliant == 1) v->rule = -1;
    }
    return err;
}

static int64_t bytes_of(const ra_oracle_item *item)
{
    size_t bytes = strlen(item->response) + (item->turns ? 0 : strlen(item->prompt));
    for (int i = 0; item->turns && i < item->n_turns; i++) bytes += strlen(item->turns[i].content);
    return (int64_t)bytes;
}

void ra_asked_missing(const ra_asked *m, const ra_verdicts *cache, const ra_oracle_item *items, int n, int64_t *questions,
                      int64_t *bytes)
{
    batch b;
    make_batch(&b, n);
    look_up(m, cache, items, n, NULL, &b, NULL);
    *questions += b.asked;
    for (int k = 0; k < b.asked; k++) *bytes += bytes_of(&items[b.item[k]]);
    free_batch(&b);
}
