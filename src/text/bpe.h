/* Byte-pair encoding: the vocabulary, the merges, and the encoding of one word. Words are made of units: bytes (byte-level BPE), or
 * characters. */
#ifndef REALIGN_TEXT_BPE_H
#define REALIGN_TEXT_BPE_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t key; /* left id << 32 | right id; ~0: empty */
    uint32_t rank;
    int32_t id; /* the token both make */
} ra_bpe_pair;

typedef enum {
    RA_TOKEN_NORMAL,
    RA_TOKEN_HIDDEN, /* has a text, but no word is ever looked up as it (control and byte pieces) */
    RA_TOKEN_UNUSED, /* SentencePiece: merges go through it, but in the end it is taken apart again; one
                      * character is unknown then */
    RA_TOKEN_PART    /* SentencePiece: a character that only longer pieces know; unknown when it is left over */
} ra_token_kind;

/* Characters by what stands beside them in merges: ASCII, U+2581, all others. */
enum { RA_JOIN_MARK = 128, RA_JOIN_OTHER = 129, RA_JOIN_CLASSES = 130 };

typedef struct {
    int32_t tokens, capacity; /* highest id + 1; room in start, length and kind */
    ra_buf bytes;             /* all tokens' bytes, one after the other */
    int64_t *start;           /* (tokens) offset in bytes; -1: no token has this id */
    int32_t *length;
    uint8_t *kind;
    int32_t *slots; /* open addressing over the bytes of what can be found; -1: empty */
    size_t slot_mask;
    ra_bpe_pair *pairs;
    size_t pair_mask, n_pairs;

    bool chars;              /* units are characters, else bytes */
    int32_t unit_id[256];    /* the token of a byte, or of an ASCII character; -1: none */
    int32_t byte_token[256]; /* with byte_fallback: what stands for the bytes of a character without a token; -1: none */
    bool byte_fallback;
    int32_t unknown;    /* what stands for a unit without a token; -1: it is dropped */
    bool fuse_unknown;  /* one such token for a run of units */
    bool late_unknown;  /* SentencePiece: what is unknown shows after the merges, and is fused or falls back to bytes then */
    bool ignore_merges; /* a word that is a token is that token, whatever the merges say */
    bool has_unused;
    bool may_drop;                                /* a unit can be lost without a trace */
    bool joins[RA_JOIN_CLASSES][RA_JOIN_CLASSES]; /* may a merge go across a boundary between these? */
} ra_bpe;

/* Building: tokens in any order, then ra_bpe_index once, then merges, then ra_bpe_finish. */
void ra_bpe_add_token(ra_bpe *b, int32_t id, ra_token_kind kind, const void *bytes, size_t n);
void ra_bpe_index(ra_bpe *b);
/* False where a part or their union is not a token. A later merge of the same parts replaces an earlier one. */
bool ra_bpe_add_merge(ra_bpe *b, uint32_t rank, const void *left, size_t n_left, const void *right, size_t n_right);
/* Merges of every two tokens whose union is a token, with that one's rank (SentencePiece, tiktoken). `rank`: (tokens). */
void ra_bpe_add_all_merges(ra_bpe *b, const uint32_t *rank);
/* PART tokens, with ids from `first` on, for the characters of longer tokens that are none themselves; before ra_bpe_index. */
void ra_bpe_add_parts(ra_bpe *b, int32_t first);
void ra_bpe_finish(ra_bpe *b);
void ra_bpe_free(ra_bpe *b);

int32_t ra_bpe_find(const ra_bpe *b, const void *bytes, size_t n); /* -1: not a token */
static inline bool ra_bpe_has(const ra_bpe *b, int32_t id)
{
    return id >= 0 && id < b->tokens && b->start[id] >= 0;
}

static inline const ra_bpe_pair *ra_bpe_pair_of(const ra_bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = (size_t)((key * 0x9E3779B97F4A7C15u) >> 32 ^ key * 0x9E3779B97F4A7C15u) & b->pair_mask;
    while (b->pairs[i].key != key && b->pairs[i].key != ~0ull) i = (i + 1) & b->pair_mask;
    return &b->pairs[i];
}

/* What one encoding thread works with: merge lists and a cache of short words. Reused, so that words cost no allocation. */
enum { RA_WORD_BYTES = 21, RA_WORD_IDS = 8 };
typedef struct {
    uint64_t hash;
    uint8_t bytes, ids; /* ids 0 with bytes 0: empty */
    char word[RA_WORD_BYTES + 1];
    int32_t id[RA_WORD_IDS];
} ra_word_entry;

typedef struct {
    ra_word_entry *words;
    int32_t *id, *previous, *next;
    uint32_t *rank;
    uint64_t *heap;
    size_t capacity;
    int32_t (*made_of)[2]; /* (tokens) UNUSED: the last two parts that could have made it */
    int64_t pushes;        /* on the heap, so far: the measure of work on long words */
} ra_bpe_work;
void ra_bpe_work_free(ra_bpe_work *w);

/* Merges w->id[0, n) in place; the new count. */
size_t ra_bpe_merge(const ra_bpe *b, ra_bpe_work *w, size_t n);

/* Length of the first part of a word of characters that no merge can go beyond; the parts can be encoded one by one. n > 0. */
size_t ra_bpe_part(const ra_bpe *b, const uint8_t *word, size_t n);
/* The ids of one word; *ids points into `w` until the next call. n > 0. */
size_t ra_bpe_word(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n, const int32_t **ids);
/* The span in the word of its next id, and *at moved behind it. Units that were dropped belong to no span. */
void ra_bpe_search_span(const ra_bpe *b, const uint8_t *word, size_t n, int32_t id, size_t *at, size_t *begin, size_t *end);
static inline void ra_bpe_next_span(const ra_bpe *b, const uint8_t *word, size_t n, int32_t id, size_t *at, size_t *begin,
                                    size_t *end)
{
    size_t p = *at;
    if (b->may_drop || id == b->unknown || p >= n || (b->byte_fallback && id == b->byte_token[word[p]])) {
        ra_bpe_search_span(b, word, n, id, at, begin, end);
        return;
    }
    size_t length = (size_t)b->length[id];
    *begin = p;
    *at = *end = length < n - p ? p + length : n; /* the token as it is written */
}

#endif
