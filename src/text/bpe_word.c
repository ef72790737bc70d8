/* One word to ids: its units, what becomes of those without a token, the merges between, and a cache of short words. */
#include "bpe.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { CACHE_WORDS = 1 << 14 };

void ra_bpe_work_free(ra_bpe_work *w)
{
    ra_free(w->words);
    free(w->id);
    free(w->previous);
    free(w->next);
    free(w->rank);
    free(w->heap);
    free(w->made_of);
    *w = (ra_bpe_work){0};
}

static void need(const ra_bpe *b, ra_bpe_work *w, size_t n)
{
    if (b->has_unused && !w->made_of) w->made_of = ra_realloc(NULL, (size_t)b->tokens, sizeof *w->made_of);
    if (n <= w->capacity) return;
    w->capacity = 64;
    while (w->capacity < n) w->capacity *= 2;
    w->id = ra_realloc(w->id, w->capacity, sizeof *w->id);
    w->previous = ra_realloc(w->previous, w->capacity, sizeof *w->previous);
    w->next = ra_realloc(w->next, w->capacity, sizeof *w->next);
    w->rank = ra_realloc(w->rank, w->capacity, sizeof *w->rank);
    w->heap = ra_realloc(w->heap, 3 * w->capacity, sizeof *w->heap); /* n - 1 pairs, and two more for each merge */
}

static size_t char_length(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The token of the unit at s, -1 for none, and the unit's length. */
static inline int32_t unit(const ra_bpe *b, const uint8_t *s, size_t *length)
{
    if (!b->chars || s[0] < 0x80) return *length = 1, b->unit_id[s[0]];
    return *length = char_length(s[0]), ra_bpe_find(b, s, *length);
}

/* Can the bytes of a unit stand for it? */
static bool falls_back(const ra_bpe *b, const uint8_t *s, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!b->byte_fallback || b->byte_token[s[i]] < 0) return false;
    }
    return true;
}

/* The units' tokens into w->id as Hugging Face's BPE begins: a pending unknown waits for the next unit that has a token. */
static size_t begin_units(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n)
{
    size_t count = 0, length;
    bool pending = false;
    for (size_t i = 0; i < n; i += length) {
        int32_t id = unit(b, word + i, &length);
        if (id >= 0) {
            if (pending) w->id[count++] = b->unknown;
            pending = false;
            w->id[count++] = id;
        } else if (falls_back(b, word + i, length)) {
            for (size_t k = 0; k < length; k++) w->id[count++] = b->byte_token[word[i + k]];
        } else if (b->unknown >= 0) {
            if (pending && !b->fuse_unknown) w->id[count++] = b->unknown;
            pending = true;
        }
    }
    if (pending) w->id[count++] = b->unknown;
    return count;
}

typedef struct {
    const ra_bpe *b;
    const ra_bpe_work *w;
    const uint8_t *word;
    size_t at;    /* bytes of the word behind what was written */
    int32_t *out; /* w->next: free after the merges, and as long as the word has bytes */
    size_t count;
    bool unknown; /* the last one written */
} emitter;

static void emit(emitter *e, int32_t id)
{
    const ra_bpe *b = e->b;
    size_t length;
    if (id >= 0 && b->kind[id] == RA_TOKEN_UNUSED) {
        unit(b, e->word + e->at, &length);
        if (length < (size_t)b->length[id]) {
            emit(e, e->w->made_of[id][0]);
            emit(e, e->w->made_of[id][1]);
            return;
        }
    }
    if (id >= 0 && b->kind[id] == RA_TOKEN_NORMAL) {
        e->out[e->count++] = id;
        e->at += (size_t)b->length[id];
        e->unknown = false;
        return;
    }
    unit(b, e->word + e->at, &length);
    if (falls_back(b, e->word + e->at, length)) {
        for (size_t k = 0; k < length; k++) e->out[e->count++] = b->byte_token[e->word[e->at + k]];
        e->unknown = false;
    } else if (b->unknown >= 0) {
        if (!e->unknown) e->out[e->count++] = b->unknown;
        e->unknown = true;
    }
    e->at += length;
}

/* SentencePiece: merges first, over characters with and without a piece. */
static size_t encode_late(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n)
{
    size_t count = 0, length;
    for (size_t i = 0; i < n; i += length) w->id[count++] = unit(b, word + i, &length);
    count = ra_bpe_merge(b, w, count);
    emitter e = {.b = b, .w = w, .word = word, .out = w->next};
    for (size_t i = 0; i < count; i++) emit(&e, w->id[i]);
    memcpy(w->id, w->next, e.count * sizeof *w->id);
    return e.count;
}

static size_t encode(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n)
{
    need(b, w, n);
    if (b->late_unknown) return encode_late(b, w, word, n);
    if (b->ignore_merges) {
        int32_t whole = ra_bpe_find(b, word, n);
        if (whole >= 0) return w->id[0] = whole, 1;
    }
    return ra_bpe_merge(b, w, begin_units(b, w, word, n));
}

size_t ra_bpe_word(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n, const int32_t **ids)
{
    if (n > RA_WORD_BYTES) {
        size_t count = encode(b, w, word, n);
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
    size_t count = encode(b, w, word, n);
    *ids = w->id;
    if (count <= RA_WORD_IDS) {
        entry->hash = hash, entry->bytes = (uint8_t)n, entry->ids = (uint8_t)count;
        memcpy(entry->word, word, n);
        memcpy(entry->id, w->id, count * sizeof *w->id);
    }
    return count;
}

size_t ra_bpe_part(const ra_bpe *b, const uint8_t *word, size_t n)
{
    if (b->ignore_merges || b->may_drop) return n; /* what is dropped lets its neighbours meet */
    int before = -1;
    for (size_t i = 0; i < n;) {
        int class = word[i];
        if (class >= 0x80) {
            bool mark = class == 0xE2 && word[i + 1] == 0x96 && word[i + 2] == 0x81;
            class = mark ? RA_JOIN_MARK : RA_JOIN_OTHER;
        }
        if (before >= 0 && !b->joins[before][class]) return i;
        before = class;
        i += char_length(word[i]);
    }
    return n;
}

void ra_bpe_search_span(const ra_bpe *b, const uint8_t *word, size_t n, int32_t id, size_t *at, size_t *begin, size_t *end)
{
    size_t p = *at, length = 1;
    bool missing = false; /* no token of its own for the unit at p */
    while (p < n) {
        bool inside = b->chars && (word[p] & 0xC0) == 0x80; /* bytes that stood for a character */
        int32_t own = inside ? -1 : unit(b, word + p, &length);
        missing = own < 0 || b->kind[own] != RA_TOKEN_NORMAL;
        if (!missing || b->unknown >= 0 || inside || falls_back(b, word + p, length)) break;
        p += length; /* dropped */
    }
    *begin = p;
    if (missing && b->byte_fallback && id == b->byte_token[word[p]]) {
        p++;
    } else if (missing && id == b->unknown) {
        p += length;
        while (b->fuse_unknown && p < n) {
            int32_t own = unit(b, word + p, &length);
            if ((own >= 0 && b->kind[own] == RA_TOKEN_NORMAL) || falls_back(b, word + p, length)) break;
            p += length;
        }
    } else {
        for (int32_t left = b->length[id]; left > 0 && p < n; p += length) {
            bool dropped = b->unknown < 0 && unit(b, word + p, &length) < 0;
            if (b->unknown >= 0) length = (size_t)left;
            if (!dropped) left -= (int32_t)length;
        }
    }
    *at = *end = p < n ? p : n;
}
