/* The tables of byte-pair encoding: tokens by their bytes, merges by their parts. */
#include "bpe.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

void ra_bpe_add_token(ra_bpe *b, int32_t id, ra_token_kind kind, const void *bytes, size_t n)
{
    if (id >= b->tokens) {
        int32_t tokens = id + 1;
        if (tokens > b->capacity) {
            b->capacity = tokens > 2 * b->capacity ? tokens : 2 * b->capacity;
            b->start = ra_realloc(b->start, (size_t)b->capacity, sizeof *b->start);
            b->length = ra_realloc(b->length, (size_t)b->capacity, sizeof *b->length);
            b->kind = ra_realloc(b->kind, (size_t)b->capacity, sizeof *b->kind);
        }
        for (int32_t i = b->tokens; i < tokens; i++) b->start[i] = -1, b->length[i] = 0, b->kind[i] = RA_TOKEN_HIDDEN;
        b->tokens = tokens;
    }
    b->start[id] = (int64_t)b->bytes.length;
    b->length[id] = (int32_t)n;
    b->kind[id] = (uint8_t)kind;
    b->has_unused |= kind == RA_TOKEN_UNUSED;
    ra_buf_add(&b->bytes, bytes, n);
}

static size_t power_of_two(size_t least)
{
    size_t n = 16;
    while (n < least) n *= 2;
    return n;
}

static void new_pairs(ra_bpe *b, size_t n)
{
    b->pair_mask = n - 1;
    b->pairs = ra_alloc(n, sizeof *b->pairs);
    for (size_t i = 0; i < n; i++) b->pairs[i] = (ra_bpe_pair){~0ull, ~0u, -1};
}

static const uint8_t *text_of(const ra_bpe *b, int32_t id)
{
    return (const uint8_t *)b->bytes.data + b->start[id];
}

void ra_bpe_index(ra_bpe *b)
{
    size_t n = power_of_two(2 * (size_t)b->tokens);
    b->slot_mask = n - 1;
    b->slots = ra_alloc(n, sizeof *b->slots);
    memset(b->slots, 0xFF, n * sizeof *b->slots);
    for (int32_t id = 0; id < b->tokens; id++) {
        if (b->start[id] < 0 || b->kind[id] == RA_TOKEN_HIDDEN) continue;
        size_t i = XXH3_64bits(text_of(b, id), (size_t)b->length[id]) & b->slot_mask;
        while (b->slots[i] >= 0) i = (i + 1) & b->slot_mask;
        b->slots[i] = id;
    }
    for (int c = 0; c < 256; c++) {
        uint8_t byte = (uint8_t)c;
        b->unit_id[c] = b->chars && c >= 0x80 ? -1 : ra_bpe_find(b, &byte, 1);
    }
    new_pairs(b, 16);
}

int32_t ra_bpe_find(const ra_bpe *b, const void *bytes, size_t n)
{
    for (size_t i = XXH3_64bits(bytes, n) & b->slot_mask; b->slots[i] >= 0; i = (i + 1) & b->slot_mask) {
        int32_t id = b->slots[i];
        if ((size_t)b->length[id] == n && !memcmp(text_of(b, id), bytes, n)) return id;
    }
    return -1;
}

static int join_class(const uint8_t *s)
{
    if (s[0] < 0x80) return s[0];
    return s[0] == 0xE2 && s[1] == 0x96 && s[2] == 0x81 ? RA_JOIN_MARK : RA_JOIN_OTHER;
}

static void note_join(ra_bpe *b, int32_t left, int32_t right)
{
    const uint8_t *l = text_of(b, left);
    size_t at = (size_t)b->length[left] - 1;
    while (at > 0 && (l[at] & 0xC0) == 0x80) at--;
    b->joins[join_class(l + at)][join_class(text_of(b, right))] = true;
}

static void set_pair(ra_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    if (2 * b->n_pairs > b->pair_mask) {
        ra_bpe_pair *old = b->pairs;
        size_t n = b->pair_mask + 1;
        new_pairs(b, 4 * n);
        for (size_t i = 0; i < n; i++) {
            if (old[i].key == ~0ull) continue;
            *(ra_bpe_pair *)(uintptr_t)ra_bpe_pair_of(b, (int32_t)(old[i].key >> 32), (int32_t)(uint32_t)old[i].key) = old[i];
        }
        ra_free(old);
    }
    ra_bpe_pair *slot = (ra_bpe_pair *)(uintptr_t)ra_bpe_pair_of(b, left, right);
    b->n_pairs += slot->key == ~0ull;
    *slot = (ra_bpe_pair){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, id};
    if (b->chars) note_join(b, left, right);
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
    set_pair(b, l, r, rank, id);
    return true;
}

void ra_bpe_add_all_merges(ra_bpe *b, const uint32_t *rank)
{
    for (int32_t id = 0; id < b->tokens; id++) {
        if (b->start[id] < 0 || (b->kind[id] != RA_TOKEN_NORMAL && b->kind[id] != RA_TOKEN_UNUSED)) continue;
        const uint8_t *s = text_of(b, id);
        size_t n = (size_t)b->length[id];
        for (size_t k = 1; k < n; k++) {
            if (b->chars && (s[k] & 0xC0) == 0x80) continue;
            int32_t left = ra_bpe_find(b, s, k), right = left < 0 ? -1 : ra_bpe_find(b, s + k, n - k);
            if (right >= 0) set_pair(b, left, right, rank[id], id);
        }
    }
}

void ra_bpe_add_parts(ra_bpe *b, int32_t first)
{
    bool *known = ra_calloc(0x110000, sizeof *known);
    int32_t tokens = b->tokens, next = first;
    for (int pass = 0; pass < 2; pass++) { /* the characters that are tokens, then those in tokens */
        for (int32_t id = 0; id < tokens; id++) {
            if (b->start[id] < 0 || b->kind[id] == RA_TOKEN_HIDDEN) continue;
            size_t n = (size_t)b->length[id], length;
            for (size_t i = 0; i < n; i += length) {
                uint32_t c = ra_utf8_decode(text_of(b, id) + i, &length);
                if (known[c] || (pass == 0 && length != n)) continue;
                known[c] = true;
                uint8_t bytes[4];
                if (pass) ra_bpe_add_token(b, next++, RA_TOKEN_PART, bytes, (size_t)ra_utf8_encode(c, bytes));
            }
        }
    }
    ra_free(known);
}

void ra_bpe_finish(ra_bpe *b)
{
    /* Runs of unknown units are one matter: no boundary lies inside. */
    for (int c = 0; c < RA_JOIN_CLASSES; c++) {
        int32_t id = c < 128 ? b->unit_id[c] : c == RA_JOIN_MARK ? ra_bpe_find(b, "\xE2\x96\x81", 3) : -1;
        if (id >= 0 && b->kind[id] == RA_TOKEN_NORMAL) continue;
        for (int other = 0; other < RA_JOIN_CLASSES && c != RA_JOIN_OTHER; other++) {
            b->joins[c][other] = b->joins[other][c] = true;
        }
    }
    b->joins[RA_JOIN_OTHER][RA_JOIN_OTHER] = true;
    const int32_t *each = b->chars ? b->byte_token : b->unit_id;
    bool missing = b->chars && !b->byte_fallback;
    for (int c = 0; c < 256; c++) missing |= each[c] < 0;
    b->may_drop = missing && b->unknown < 0;
}

void ra_bpe_free(ra_bpe *b)
{
    ra_buf_free(&b->bytes);
    free(b->start);
    free(b->length);
    free(b->kind);
    ra_free(b->slots);
    ra_free(b->pairs);
    *b = (ra_bpe){0};
}
