/* The merges of one word: of all neighbours the pair of lowest rank, the leftmost among equals, again until none is left. */
#include "bpe.h"

#include <string.h>

enum { SHORT_WORD = 48 };
static const uint32_t NO_RANK = ~0u;

/* Looks up what two neighbours make. SentencePiece takes an unused piece apart by the last pair that was looked up for it. */
static inline const ra_bpe_pair *look(const ra_bpe *b, ra_bpe_work *w, int32_t left, int32_t right)
{
    const ra_bpe_pair *pair = ra_bpe_pair_of(b, left, right);
    if (b->has_unused && pair->id >= 0 && b->kind[pair->id] == RA_TOKEN_UNUSED) {
        w->made_of[pair->id][0] = left, w->made_of[pair->id][1] = right;
    }
    return pair;
}

/* Short words: look for the lowest rank again after each merge; O(n^2), but in one cache line or two. */
static size_t merge_short(const ra_bpe *b, ra_bpe_work *w, size_t n)
{
    int32_t *id = w->id;
    uint32_t *rank = w->rank; /* of the pair (i, i + 1) */
    for (size_t i = 0; i + 1 < n; i++) rank[i] = look(b, w, id[i], id[i + 1])->rank;
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_RANK) break;
        id[best] = ra_bpe_pair_of(b, id[best], id[best + 1])->id;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        n--;
        if (best > 0) rank[best - 1] = look(b, w, id[best - 1], id[best])->rank;
        if (best + 1 < n) rank[best] = look(b, w, id[best], id[best + 1])->rank;
    }
    return n;
}

static void heap_push(ra_bpe_work *w, size_t *n, uint64_t item)
{
    uint64_t *heap = w->heap;
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > item; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = item;
    w->pushes++;
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

/* Long words: a linked list of symbols and a heap of (rank, position); O(n log n). An entry is stale where the pair at its position
 * has another rank by now; where two entries are alike, it does not matter which one counts. */
static size_t merge_long(const ra_bpe *b, ra_bpe_work *w, size_t n)
{
    int32_t *id = w->id, *previous = w->previous, *next = w->next;
    uint32_t *rank = w->rank;
    size_t heaped = 0;
    for (size_t i = 0; i < n; i++) {
        previous[i] = (int32_t)i - 1;
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        rank[i] = i + 1 < n ? look(b, w, id[i], id[i + 1])->rank : NO_RANK;
        if (rank[i] != NO_RANK) heap_push(w, &heaped, (uint64_t)rank[i] << 32 | i);
    }
    while (heaped) {
        uint64_t top = heap_pop(w->heap, &heaped);
        int32_t at = (int32_t)(uint32_t)top;
        if (rank[at] != (uint32_t)(top >> 32)) continue;
        int32_t right = next[at], left = previous[at];
        id[at] = ra_bpe_pair_of(b, id[at], id[right])->id;
        next[at] = next[right];
        if (next[right] >= 0) previous[next[right]] = at;
        rank[right] = NO_RANK;
        if (left >= 0) {
            rank[left] = look(b, w, id[left], id[at])->rank;
            if (rank[left] != NO_RANK) heap_push(w, &heaped, (uint64_t)rank[left] << 32 | (uint32_t)left);
        }
        rank[at] = next[at] >= 0 ? look(b, w, id[at], id[next[at]])->rank : NO_RANK;
        if (rank[at] != NO_RANK) heap_push(w, &heaped, (uint64_t)rank[at] << 32 | (uint32_t)at);
    }
    size_t count = 0;
    for (int32_t i = 0; i >= 0; i = next[i]) id[count++] = id[i];
    return count;
}

size_t ra_bpe_merge(const ra_bpe *b, ra_bpe_work *w, size_t n)
{
    if (n < 2) return n;
    return n <= SHORT_WORD ? merge_short(b, w, n) : merge_long(b, w, n);
}
