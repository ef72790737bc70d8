/* Byte-pair encoding over bytes: the vocabulary, the merges, and the encoding of one word. */
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

typedef struct {
    int32_t tokens, capacity; /* highest id + 1; room in start and length */
    ra_buf bytes;             /* all tokens' bytes, one after the other */
    int64_t *start;           /* (tokens) offset in bytes; -1: no token has this id */
    int32_t *length;
    int32_t *slots; /* open addressing over the tokens' bytes; -1: empty */
    size_t slot_mask;
    ra_bpe_pair *pairs;
    size_t pair_mask;
    int32_t byte_id[256]; /* -1: the byte has no token and is dropped */
    int32_t unknown;      /* what byte_id holds for bytes without a token, -1 */
    bool ignore_merges;   /* a word that is a token is that token, whatever the merges say */
} ra_bpe;

/* Building: tokens in any order, then ra_bpe_index once, then merges in order of rank. */
void ra_bpe_add_token(ra_bpe *b, int32_t id, const void *bytes, size_t n);
void ra_bpe_index(ra_bpe *b, size_t n_merges);
/* False where a part or their union is not a token. */
bool ra_bpe_add_merge(ra_bpe *b, uint32_t rank, const void *left, size_t n_left, const void *right, size_t n_right);
void ra_bpe_free(ra_bpe *b);

int32_t ra_bpe_find(const ra_bpe *b, const void *bytes, size_t n); /* -1: not a token */

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
} ra_bpe_work;
void ra_bpe_work_free(ra_bpe_work *w);

/* The ids of one word; *ids points into `w` until the next call. n > 0. */
size_t ra_bpe_word(const ra_bpe *b, ra_bpe_work *w, const uint8_t *word, size_t n, const int32_t **ids);

#endif
