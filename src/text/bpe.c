#include "bpe.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { CACHE_WORDS = 1 << 14, SHORT_WORD = 48 };
static const uint64_t NO_PAIR = ~0ull;
static const uint32_t NO_RANK = ~0u;

void ra_bpe_add_token(ra_bpe *b, int32_t id, const void *bytes, size_t n)
{
    if (id >= b->tokens) {
        int32_t tokens = id + 1;
        if (tokens > b->capacity) {
            b->capacity = tokens > 2 * b->capacity ? tokens : 2 * b->capacity;
            b->start = ra_realloc(b->start, (size_t)b->capacity, sizeof *b->start);
            b->length = ra_realloc(b->length, (size_t)b->capacity, sizeof *b->length);
        }
        for (int32_t i = b->tokens; i < tokens; i++) b->start[i] = -1, b->length[i] = 0;
        b->tokens = tokens;
    }
    b->start[id] = (int64_t)b->bytes.length;
    b->length[id] = (int32_t)n;
    ra_buf_add(&b->bytes, bytes, n);
}

static size_t power_of_two(size_t least)
{
    size_t n = 16;
    while (n < least) n *= 2;
    return n;
}

void ra_bpe_index(ra_bpe *b, size_t n_merges)
{
    size_t n = power_of_two(2 * (size_t)b->tokens);
    b->slot_mask = n - 1;
    b->slots = ra_alloc(n, sizeof *b->slots);
    memset(b->slots, 0xFF, n * sizeof *b->slots);
    for (int32_t id = 0; id < b->tokens; id++) {
        if (b->start[id] < 0) continue;
        size_t i = XXH3_64bits(b->bytes.data + b->start[id], (size_t)b->length[id]) & b->slot_mask;
        while (b->slots[i] >= 0) i = (i + 1) & b->slot_mask;
        b->slots[i] = id;
    }
    for (int c = 0; c < 256; c++) {
        uint8_t byte = (uint8_t)c;
        b->byte_id[c] = ra_bpe_find(b, &byte, 1);
        if (b->byte_id[c] < 0) b->byte_id[c] = b->unknown;
    }
    n = power_of_two(2 * n_merges);
    b->pair_mask = n - 1;
    b->pairs = ra_alloc(n, sizeof *b->pairs);
    for (size_t i = 0; i < n; i++) b->pairs[i] = (ra_bpe_pair){NO_PAIR, NO_RANK, -1};
}

int32_t ra_bpe_find(const ra_bpe *b, const void *bytes, size_t n)
{
    for (size_t i = XXH3_64bits(bytes, n) & b->slot_mask; b->slots[i] >= 0; i = (i + 1) & b->slot_mask) {
        int32_t id = b->slots[i];
        if ((size_t)b->length[id] == n && !memcmp(b->bytes.data + b->start[id], bytes, n)) return id;
    }
    return -1;
}

static inline ra_bpe_pair *pair_slot(const ra_bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32 ^ key * 0x9E3779B97F4A7C15u) & b->pair_mask;
    while (b->pairs[i].key != key && b->pairs[i].key != NO_PAIR) i = (i + 1) & b->pair_mask;
    return &b->pairs[i];
}

bool ra_bpe_add_merge(ra_bpe *b, uint32_t rank, const void *left, size_t n_left, const void *right, size_t n_right)
{
    int32_t l = ra_bpe_find(b, left, n_left), r = ra_bpe_find(b, right, n_right);
    char small[256], *joined = n_left + n_right <= sizeof small ? small : ra_alloc(n_left + n_right, 1);
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    int32_t id = ra_bpe_find(b, joined, n_left + n_right);
    if (joined != small) ra_free(joined);
    if (l < 0 || r < 0 || id < 0) return false;
    *pair_slot(b, l, r) = (ra_bpe_pair){(uint64_t)(uint32_t)l << 32 | (uint32_t)r, rank, id};
    return true;
}

void ra_bpe_free(ra_bpe *b)
{
    ra_buf_free(&b->bytes);
    free(b->start);
    free(b->length);
    ra_free(b->slots);
    ra_free(b->pairs);
    *b = (ra_bpe){0};
}

void ra_bpe_work_free(ra_bpe_work *w)
{
    ra_free(w->words);
    free(w->id);
    free(w->previous);
    free(w->next);
    free(w->rank);
    free(w->heap);
    *w = (ra_bpe_work){0};
}

static void need(ra_bpe_work *w, size_t n)
{
    if (n <= w->capacity) return;
    w->capacity = power_of_two(n < 64 ? 64 : n);
    w->id = ra_realloc(w->id, w->capacity, sizeof *w->id);
    w->previous = ra_realloc(w->previous, w->capacity, sizeof *w->previous);
    w->next = ra_realloc(w->next, w->capacity, sizeof *w->next);
    w->rank = ra_realloc(w->rank, w->capacity, sizeof *w->rank);
    w->heap = ra_realloc(w->heap, 3 * w->capacity, sizeof *w->heap); /* n - 1 pairs, and two more for each merge */
}

/* Short words: look for the lowest rank again after each merge; O(n^2), but in one cache line or two. */
static size_t merge_short(const ra_bpe *b, ra_bpe_work *w, size_t n)
{
    int32_t *id = w->id;
    uint32_t *rank = w->rank; /* of the pair (i, i + 1) */
    for (size_t i = 0; i + 1 < n; i++) rank[i] = pair_slot(b, id[i], id[i + 1])->rank;
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_RANK) break;
        id[best] = pair_slot(b, id[best], id[best + 1])->id;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        n--;
        if (best + 1 < n) rank[best] = pair_slot(b, id[best], id[best + 1])->rank;
        if (best > 0) rank[best - 1] = pair_slot(b, id[best - 1], id[best])->rank;
    }
    return n;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t item)
{
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > item; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = item;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], item = heap[--*n];
    size_t i = 0;
    for (size_t child = 1; child < *n; child = 2 * i + 1) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= item) break;
        heap[i] = heap[child], i = child;
    }
    heap[i] = item;
    return top;
}

/* Long words: a linked list of symbols and a heap of (rank, position); O(n log n). Stale entries are known by their rank. */
static size_t merge_long(const ra_bpe *b, ra_bpe_work *w, size_t n)
{
    int32_t *id = w->id, *previous = w->previous, *next = w->next;
    size_t heaped = 0;
    for (size_t i = 0; i < n; i++) {
        previous[i] = (int32_t)i - 1;
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        w->rank[i] = i + 1 < n ? pair_slot(b, id[i], id[i + 1])->rank : NO_RANK;
        if (w->rank[i] != NO_RANK) heap_push(w->heap, &heaped, (uint64_t)w->rank[i] << 32 | i);
    }
    while (heaped) {
        uint64_t top = heap_pop(w->heap, &heaped);
        int32_t at = (int32_t)(uint32_t)top;
        if (w->rank[at] != (uint32_t)(top >> 32)) continue;
        int32_t right = next[at];
        id[at] = pair_slot(b, id[at], id[right])->id;
        next[at] = next[right];
        if (next[right] >= 0) previous[next[right]] = at;
        w->rank[right] = NO_RANK;
        w->rank[at] = next[at] >= 0 ? pair_slot(b, id[at], id[next[at]])->rank : NO_RANK;
        if (w->rank[at] != NO_RANK) heap_push(w->heap, &heaped, (uint64_t)w->rank[at] << 32 | (uint32_t)at);
        int32_t left = previous[at];
        if (left < 0) continue;
        w->rank[left] = pair_slot(b, id[left], id[at])->rank;
        if (w->rank[left] != NO_RANK) heap_push(w->heap, &heaped, (uint64_t)w->rank[left] << 32 | (uint32_t)left);
    }
    size_t count = 0;
    for (int32_t i = 0; i >= 0; i = next[i]) id[count++] = id[i];
    return count;
}

static size_t merge(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n)
{
    need(w, n);
    if (b->ignore_merges) {
        int32_t whole = ra_bpe_find(b, word, n);
        if (whole >= 0) return w->id[0] = whole, 1;
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (b->byte_id[word[i]] >= 0) w->id[count++] = b->byte_id[word[i]];
    }
    if (count < 2) return count;
    return count <= SHORT_WORD ? merge_short(b, w, count) : merge_long(b, w, count);
}

size_t ra_bpe_word(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n, const int32_t **ids)
{
    if (n > RA_WORD_BYTES) {
        size_t count = merge(b, w, word, n);
        *ids = w->id;
        return count;
    }
    if (!w->words) w->words = ra_calloc(CACHE_WORDS, sizeof *w->words);
    uint64_t hash = XXH3_64bits(word, n);
    ra_word_entry *entry = &w->words[hash & (CACHE_WORDS - 1)];
    if (entry->hash == hash && entry->bytes == n && !memcmp(entry->word, word, n)) {
        *ids = entry->id;
        return entry->ids;
    }
    size_t count = merge(b, w, word, n);
    *ids = w->id;
    if (count <= RA_WORD_IDS) {
        entry->hash = hash, entry->bytes = (uint8_t)n, entry->ids = (uint8_t)count;
        memcpy(entry->word, word, n);
        memcpy(entry->id, w->id, count * sizeof *w->id);
    }
    return count;
}
